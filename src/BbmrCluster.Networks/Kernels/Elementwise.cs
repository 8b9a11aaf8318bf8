using System.Runtime.CompilerServices;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>Passes over whole maps whose channels are a multiple of 16; T is float or <see cref="BFloat16"/>.</summary>
internal static unsafe class Elementwise
{
    /// <summary>Every pixel becomes the same.</summary>
    public static void Fill<T>(T* to, float* pixel, int rows, int channels)
        where T : unmanaged
    {
        Shares.Run(rows, channels, (first, count) =>
        {
            long at = (long)first * channels;
            if (Floats.Wide)
                Fill<Floats16, T>(to + at, pixel, count, channels);
            else
                Fill<Floats8, T>(to + at, pixel, count, channels);
        });
    }

    /// <summary>to = from + bias; the same place is allowed.</summary>
    public static void AddBias<TFrom, TTo>(TFrom* from, float* bias, TTo* to, int rows, int channels)
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        Shares.Run(rows, channels, (first, count) =>
        {
            long at = (long)first * channels;
            if (Floats.Wide)
                AddBias<Floats16, TFrom, TTo>(from + at, bias, to + at, count, channels);
            else
                AddBias<Floats8, TFrom, TTo>(from + at, bias, to + at, count, channels);
        });
    }

    /// <summary>x = GELU(x + bias).</summary>
    public static void BiasGelu<T>(T* x, float* bias, int rows, int channels)
        where T : unmanaged
    {
        Shares.Run(rows, channels, (first, count) =>
        {
            long at = (long)first * channels;
            if (Floats.Wide)
                BiasGelu<Floats16, T>(x + at, bias, count, channels);
            else
                BiasGelu<Floats8, T>(x + at, bias, count, channels);
        });
    }

    /// <summary>x = x factor, one factor for each channel.</summary>
    public static void Scale<T>(T* x, float* factor, int rows, int channels)
        where T : unmanaged
    {
        Shares.Run(rows, channels, (first, count) =>
        {
            long at = (long)first * channels;
            if (Floats.Wide)
                Scale<Floats16, T>(x + at, factor, count, channels);
            else
                Scale<Floats8, T>(x + at, factor, count, channels);
        });
    }

    /// <summary>to = a + b, value by value.</summary>
    public static void Add<TA, TB, TTo>(TA* a, TB* b, TTo* to, long count)
        where TA : unmanaged
        where TB : unmanaged
        where TTo : unmanaged
    {
        if (Floats.Wide)
            Add<Floats16, TA, TB, TTo>(a, b, to, count);
        else
            Add<Floats8, TA, TB, TTo>(a, b, to, count);
    }

    /// <summary>Changes the type; any count.</summary>
    public static void Convert<TFrom, TTo>(TFrom* from, TTo* to, long count)
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        if (Floats.Wide)
            Convert<Floats16, TFrom, TTo>(from, to, count);
        else
            Convert<Floats8, TFrom, TTo>(from, to, count);
    }

    /// <summary>x = x / (1 + e^-gate), value by value.</summary>
    public static void ScaleBySigmoid<T>(T* x, float* gate, long count)
        where T : unmanaged
    {
        if (Floats.Wide)
            ScaleBySigmoid<Floats16, T>(x, gate, count);
        else
            ScaleBySigmoid<Floats8, T>(x, gate, count);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void BiasGelu<V, T>(T* x, float* bias, int rows, int channels)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        for (int row = 0; row < rows; row++, x += channels)
        {
            for (int c = 0; c < channels; c += V.Count)
                V.Store(Gelu<V, T>(V.Load(x + c) + V.Load(bias + c)), x + c);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Fill<V, T>(T* to, float* pixel, int rows, int channels)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        for (int row = 0; row < rows; row++, to += channels)
        {
            for (int c = 0; c < channels; c += V.Count)
                V.Store(V.Load(pixel + c), to + c);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void AddBias<V, TFrom, TTo>(TFrom* from, float* bias, TTo* to, int rows, int channels)
        where V : unmanaged, IFloats<V>
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        for (int row = 0; row < rows; row++, from += channels, to += channels)
        {
            for (int c = 0; c < channels; c += V.Count)
                V.Store(V.Load(from + c) + V.Load(bias + c), to + c);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Scale<V, T>(T* x, float* factor, int rows, int channels)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        for (int row = 0; row < rows; row++, x += channels)
        {
            for (int c = 0; c < channels; c += V.Count)
                V.Store(V.Load(x + c) * V.Load(factor + c), x + c);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Add<V, TA, TB, TTo>(TA* a, TB* b, TTo* to, long count)
        where V : unmanaged, IFloats<V>
        where TA : unmanaged
        where TB : unmanaged
        where TTo : unmanaged
    {
        for (long i = 0; i < count; i += V.Count)
            V.Store(V.Load(a + i) + V.Load(b + i), to + i);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Convert<V, TFrom, TTo>(TFrom* from, TTo* to, long count)
        where V : unmanaged, IFloats<V>
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        long i = 0;
        for (; i + V.Count <= count; i += V.Count)
            V.Store(V.Load(from + i), to + i);
        for (; i < count; i++)
            StoreScalar(LoadScalar(from + i), to + i);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void ScaleBySigmoid<V, T>(T* x, float* gate, long count)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        for (long i = 0; i < count; i += V.Count)
            V.Store(V.Load(x + i) * Sigmoid(V.Load(gate + i)), x + i);
    }
}

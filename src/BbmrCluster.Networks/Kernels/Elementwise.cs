using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>Passes over whole maps whose channels are a multiple of 16; T is float, or ushort for bfloat16.</summary>
internal static unsafe class Elementwise
{
    /// <summary>Every pixel becomes the same.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Fill<T>(T* to, float* pixel, int rows, int channels)
        where T : unmanaged
    {
        for (int row = 0; row < rows; row++, to += channels)
        {
            for (int c = 0; c < channels; c += Lanes)
                Store(Vector512.Load(pixel + c), to + c);
        }
    }

    /// <summary>to = from + bias; the same place is allowed.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void AddBias<TFrom, TTo>(TFrom* from, float* bias, TTo* to, int rows, int channels)
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        for (int row = 0; row < rows; row++, from += channels, to += channels)
        {
            for (int c = 0; c < channels; c += Lanes)
                Store(Load(from + c) + Vector512.Load(bias + c), to + c);
        }
    }

    /// <summary>x = GELU(x + bias).</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void BiasGelu<T>(T* x, float* bias, int rows, int channels)
        where T : unmanaged
    {
        for (int row = 0; row < rows; row++, x += channels)
        {
            for (int c = 0; c < channels; c += Lanes)
                Store(Gelu<T>(Load(x + c) + Vector512.Load(bias + c)), x + c);
        }
    }

    /// <summary>x = x factor, one factor for each channel.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Scale<T>(T* x, float* factor, int rows, int channels)
        where T : unmanaged
    {
        for (int row = 0; row < rows; row++, x += channels)
        {
            for (int c = 0; c < channels; c += Lanes)
                Store(Load(x + c) * Vector512.Load(factor + c), x + c);
        }
    }

    /// <summary>to = a + b, value by value.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Add<TA, TB, TTo>(TA* a, TB* b, TTo* to, long count)
        where TA : unmanaged
        where TB : unmanaged
        where TTo : unmanaged
    {
        for (long i = 0; i < count; i += Lanes)
            Store(Load(a + i) + Load(b + i), to + i);
    }

    /// <summary>Changes the type.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Convert<TFrom, TTo>(TFrom* from, TTo* to, long count)
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        for (long i = 0; i < count; i += Lanes)
            Store(Load(from + i), to + i);
    }
}

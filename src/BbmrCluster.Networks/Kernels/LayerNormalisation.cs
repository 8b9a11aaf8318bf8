using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>Layer normalisation over 48 or 64 channels of every pixel, in float32 whatever the maps are.</summary>
internal sealed unsafe class LayerNormalisation : IDisposable
{
    private readonly NativeFloats _weight, _bias, _pairs;
    private readonly int _channels;
    private readonly float _epsilon;

    /// <summary>Prepares.</summary>
    /// <param name="weight">48 or 64 factors.</param>
    /// <param name="bias">As many addends.</param>
    /// <param name="epsilon">Added to the variance.</param>
    public LayerNormalisation(ReadOnlySpan<float> weight, ReadOnlySpan<float> bias, double epsilon)
    {
        if (weight.Length is not (48 or 64))
            throw new ArgumentException($"{weight.Length} channels are not 48 or 64.", nameof(weight));
        (_weight, _bias, _channels, _epsilon) = (new NativeFloats(weight), new NativeFloats(bias), weight.Length, (float)epsilon);
        _pairs = new NativeFloats(128);
        for (int c = 0; c < weight.Length; c++)
        {
            int place = (c & 32) + PairPlace<ushort>(c & 31);
            (_pairs.Pointer[place], _pairs.Pointer[64 + place]) = (weight[c], bias[c]);
        }
    }

    /// <summary>Normalises pixels.</summary>
    /// <typeparam name="TFrom">float, or ushort for bfloat16.</typeparam>
    /// <typeparam name="TTo">As <typeparamref name="TFrom"/>.</typeparam>
    public void Run<TFrom, TTo>(TFrom* from, TTo* to, int rows)
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        if (typeof(TFrom) == typeof(float) || typeof(TTo) == typeof(float))
            Plain(from, to, rows);
        else if (_channels == 64)
            Pairs((ushort*)from, (ushort*)to, rows);
        else
            PairAndHalf((ushort*)from, (ushort*)to, rows);
    }

    /// <summary>64 bfloat16 channels: even and odd ones apart, which saves most of the conversion.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Pairs(ushort* from, ushort* to, int rows)
    {
        float* weight = _pairs.Pointer, bias = weight + 64;
        Vector512<float> w0 = Vector512.Load(weight), w1 = Vector512.Load(weight + 16), w2 = Vector512.Load(weight + 32), w3 = Vector512.Load(weight + 48);
        Vector512<float> b0 = Vector512.Load(bias), b1 = Vector512.Load(bias + 16), b2 = Vector512.Load(bias + 32), b3 = Vector512.Load(bias + 48);
        float epsilon = _epsilon;
        for (int row = 0; row < rows; row++, from += 64, to += 64)
        {
            (Vector512<float> x0, Vector512<float> x1) = LoadPair(from);
            (Vector512<float> x2, Vector512<float> x3) = LoadPair(from + 32);
            Vector512<float> mean = Vector512.Create(Sum(x0 + x1 + (x2 + x3)) * (1f / 64));
            x0 -= mean;
            x1 -= mean;
            x2 -= mean;
            x3 -= mean;
            float variance = Sum(MultiplyAdd(x0, x0, x1 * x1) + MultiplyAdd(x2, x2, x3 * x3)) * (1f / 64);
            Vector512<float> scale = Vector512.Create(1 / MathF.Sqrt(variance + epsilon));
            StorePair(MultiplyAdd(x0 * scale, w0, b0), MultiplyAdd(x1 * scale, w1, b1), to);
            StorePair(MultiplyAdd(x2 * scale, w2, b2), MultiplyAdd(x3 * scale, w3, b3), to + 32);
        }
    }

    /// <summary>48 bfloat16 channels: 32 as even and odd ones, 16 as they are.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void PairAndHalf(ushort* from, ushort* to, int rows)
    {
        float* weight = _pairs.Pointer, bias = weight + 64;
        Vector512<float> w0 = Vector512.Load(weight), w1 = Vector512.Load(weight + 16), w2 = Vector512.Load(_weight.Pointer + 32);
        Vector512<float> b0 = Vector512.Load(bias), b1 = Vector512.Load(bias + 16), b2 = Vector512.Load(_bias.Pointer + 32);
        float epsilon = _epsilon;
        for (int row = 0; row < rows; row++, from += 48, to += 48)
        {
            (Vector512<float> x0, Vector512<float> x1) = LoadPair(from);
            Vector512<float> x2 = Load(from + 32);
            Vector512<float> mean = Vector512.Create(Sum(x0 + x1 + x2) * (1f / 48));
            x0 -= mean;
            x1 -= mean;
            x2 -= mean;
            float variance = Sum(MultiplyAdd(x0, x0, MultiplyAdd(x1, x1, x2 * x2))) * (1f / 48);
            Vector512<float> scale = Vector512.Create(1 / MathF.Sqrt(variance + epsilon));
            StorePair(MultiplyAdd(x0 * scale, w0, b0), MultiplyAdd(x1 * scale, w1, b1), to);
            Store(MultiplyAdd(x2 * scale, w2, b2), to + 32);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Plain<TFrom, TTo>(TFrom* from, TTo* to, int rows)
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        Vector512<float> w0 = Vector512.Load(_weight.Pointer), w1 = Vector512.Load(_weight.Pointer + 16), w2 = Vector512.Load(_weight.Pointer + 32), w3 = default;
        Vector512<float> b0 = Vector512.Load(_bias.Pointer), b1 = Vector512.Load(_bias.Pointer + 16), b2 = Vector512.Load(_bias.Pointer + 32), b3 = default;
        bool four = _channels == 64;
        if (four)
        {
            w3 = Vector512.Load(_weight.Pointer + 48);
            b3 = Vector512.Load(_bias.Pointer + 48);
        }
        float share = 1f / _channels;
        for (int row = 0; row < rows; row++, from += _channels, to += _channels)
        {
            Vector512<float> x0 = Load(from), x1 = Load(from + 16), x2 = Load(from + 32), x3 = four ? Load(from + 48) : default;
            Vector512<float> mean = Vector512.Create(Sum(x0 + x1 + (x2 + x3)) * share);
            x0 -= mean;
            x1 -= mean;
            x2 -= mean;
            if (four)
                x3 -= mean;
            float variance = Sum(MultiplyAdd(x0, x0, x1 * x1) + MultiplyAdd(x2, x2, x3 * x3)) * share;
            Vector512<float> scale = Vector512.Create(1 / MathF.Sqrt(variance + _epsilon));
            Store(MultiplyAdd(x0 * scale, w0, b0), to);
            Store(MultiplyAdd(x1 * scale, w1, b1), to + 16);
            Store(MultiplyAdd(x2 * scale, w2, b2), to + 32);
            if (four)
                Store(MultiplyAdd(x3 * scale, w3, b3), to + 48);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _weight.Dispose();
        _bias.Dispose();
        _pairs.Dispose();
    }
}

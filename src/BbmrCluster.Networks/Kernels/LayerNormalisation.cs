using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>Layer normalisation over 48 or 64 channels of every pixel, in float32 whatever the maps are.</summary>
internal sealed unsafe class LayerNormalisation : IDisposable
{
    private readonly NativeFloats _weight, _bias;
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
    }

    /// <summary>Normalises pixels.</summary>
    /// <typeparam name="TFrom">float, or ushort for bfloat16.</typeparam>
    /// <typeparam name="TTo">As <typeparamref name="TFrom"/>.</typeparam>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Run<TFrom, TTo>(TFrom* from, TTo* to, int rows)
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
    }
}

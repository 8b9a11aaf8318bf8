using System.Runtime.CompilerServices;

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
    /// <typeparam name="TFrom">float or <see cref="BFloat16"/>.</typeparam>
    /// <typeparam name="TTo">As <typeparamref name="TFrom"/>.</typeparam>
    public void Run<TFrom, TTo>(TFrom* from, TTo* to, int rows)
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        Shares.Run(rows, _channels, (first, count) =>
        {
            long at = (long)first * _channels;
            if (Floats.Wide)
                Run<Floats16, TFrom, TTo>(from + at, to + at, count);
            else
                Run<Floats8, TFrom, TTo>(from + at, to + at, count);
        });
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _weight.Dispose();
        _bias.Dispose();
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Run<V, TFrom, TTo>(TFrom* from, TTo* to, int rows)
        where V : unmanaged, IFloats<V>
        where TFrom : unmanaged
        where TTo : unmanaged
    {
        float* weight = _weight.Pointer, bias = _bias.Pointer, pixel = stackalloc float[64];
        int channels = _channels;
        float share = 1f / channels, epsilon = _epsilon;
        for (int row = 0; row < rows; row++, from += channels, to += channels)
        {
            V sum = default, squares = default;
            for (int c = 0; c < channels; c += V.Count)
            {
                V x = V.Load(from + c);
                V.Store(x, pixel + c);
                sum += x;
            }
            V mean = V.Create(V.Sum(sum) * share);
            for (int c = 0; c < channels; c += V.Count)
            {
                V x = V.Load(pixel + c) - mean;
                V.Store(x, pixel + c);
                squares = V.MultiplyAdd(x, x, squares);
            }
            V scale = V.Create(1 / MathF.Sqrt((V.Sum(squares) * share) + epsilon));
            for (int c = 0; c < channels; c += V.Count)
                V.Store(V.MultiplyAdd(V.Load(pixel + c) * scale, V.Load(weight + c), V.Load(bias + c)), to + c);
        }
    }
}

using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Residual sums and layer normalisation over rows of 64 channels, with gradients. <c>T</c> is float or <see cref="BFloat16"/>; parameters, statistics and their gradients are float32, as is all arithmetic.
/// </summary>
/// <typeparam name="V">The vectors.</typeparam>
internal static unsafe class NormTraining<V>
    where V : unmanaged, IFloats<V>
{
    /// <summary>Channels of a row.</summary>
    public const int Channels = 64;

    /// <summary>sum = x + branch + bias; if there is a gain, normalised = (sum - mean) / deviation gain + offset.</summary>
    /// <param name="x">(rows, 64).</param>
    /// <param name="branch">(rows, 64).</param>
    /// <param name="bias">(64) or null.</param>
    /// <param name="gain">(64), or null for the sum alone.</param>
    /// <param name="offset">(64), with <paramref name="gain"/>.</param>
    /// <param name="epsilon">Added to the variance.</param>
    /// <param name="rows">Pixels.</param>
    /// <param name="sum">(rows, 64).</param>
    /// <param name="normalised">(rows, 64).</param>
    /// <param name="statistics">(rows, 2): mean and reciprocal deviation.</param>
    public static void Forward<T>(T* x, T* branch, float* bias, float* gain, float* offset, float epsilon, long rows, T* sum, T* normalised, float* statistics)
        where T : unmanaged
    {
        float* ordered = stackalloc float[3 * Channels], gains = ordered + Channels, offsets = gains + Channels, pixel = stackalloc float[Channels];
        Order<T>(bias, ordered);
        Order<T>(gain, gains);
        Order<T>(offset, offsets);
        int n = V.Count;
        for (long row = 0; row < rows; row++, x += Channels, branch += Channels, sum += Channels)
        {
            V level = default, squares = default;
            for (int c = 0; c < Channels; c += 2 * n)
            {
                (V a0, V a1) = V.LoadPair(x + c);
                (V b0, V b1) = V.LoadPair(branch + c);
                V.StorePair(a0 + b0 + V.Load(ordered + c), a1 + b1 + V.Load(ordered + c + n), sum + c);
                // The sum as it is stored: the backward pass sees no other.
                (a0, a1) = V.LoadPair(sum + c);
                V.Store(a0, pixel + c);
                V.Store(a1, pixel + c + n);
                level += a0 + a1;
            }
            if (gain == null)
                continue;
            float mean = V.Sum(level) / Channels;
            V centre = V.Create(mean);
            for (int c = 0; c < Channels; c += n)
            {
                V a = V.Load(pixel + c) - centre;
                V.Store(a, pixel + c);
                squares = V.MultiplyAdd(a, a, squares);
            }
            float reciprocal = 1 / MathF.Sqrt((V.Sum(squares) / Channels) + epsilon);
            V factor = V.Create(reciprocal);
            for (int c = 0; c < Channels; c += 2 * n)
            {
                V.StorePair(V.MultiplyAdd(V.Load(pixel + c) * factor, V.Load(gains + c), V.Load(offsets + c)),
                    V.MultiplyAdd(V.Load(pixel + c + n) * factor, V.Load(gains + c + n), V.Load(offsets + c + n)), normalised + c);
            }
            normalised += Channels;
            *statistics++ = mean;
            *statistics++ = reciprocal;
        }
    }

    /// <summary>Adds what comes through the normalisation to the gradient of the sum, and the gradients of gain and offset to theirs.</summary>
    /// <param name="sum">As <see cref="Forward"/> made it.</param>
    /// <param name="statistics">As <see cref="Forward"/> made it.</param>
    /// <param name="gain">(64).</param>
    /// <param name="normalised">Gradient of the normalised map.</param>
    /// <param name="rows">Pixels.</param>
    /// <param name="gradient">Gradient of the sum, added to.</param>
    /// <param name="gainGradient">(64), added to.</param>
    /// <param name="offsetGradient">(64), added to.</param>
    public static void Backward<T>(T* sum, float* statistics, float* gain, T* normalised, long rows, T* gradient, float* gainGradient, float* offsetGradient)
        where T : unmanaged
    {
        float* gains = stackalloc float[Channels], sums = stackalloc float[2 * Channels], offsets = sums + Channels;
        float* pixel = stackalloc float[2 * Channels], slopes = pixel + Channels;
        Order<T>(gain, gains);
        new Span<float>(sums, 2 * Channels).Clear();
        int n = V.Count;
        for (long row = 0; row < rows; row++, sum += Channels, normalised += Channels, gradient += Channels, statistics += 2)
        {
            V mean = V.Create(statistics[0]), factor = V.Create(statistics[1]), level = default, slope = default;
            for (int c = 0; c < Channels; c += 2 * n)
            {
                (V a0, V a1) = V.LoadPair(sum + c);
                (V d0, V d1) = V.LoadPair(normalised + c);
                a0 = (a0 - mean) * factor;
                a1 = (a1 - mean) * factor;
                V.Store(a0, pixel + c);
                V.Store(a1, pixel + c + n);
                V.Store(V.Load(offsets + c) + d0, offsets + c);
                V.Store(V.Load(offsets + c + n) + d1, offsets + c + n);
                V.Store(V.MultiplyAdd(a0, d0, V.Load(sums + c)), sums + c);
                V.Store(V.MultiplyAdd(a1, d1, V.Load(sums + c + n)), sums + c + n);
                d0 *= V.Load(gains + c);
                d1 *= V.Load(gains + c + n);
                V.Store(d0, slopes + c);
                V.Store(d1, slopes + c + n);
                level += d0 + d1;
                slope = V.MultiplyAdd(a0, d0, V.MultiplyAdd(a1, d1, slope));
            }
            level = V.Create(-V.Sum(level) / Channels);
            slope = V.Create(-V.Sum(slope) / Channels);
            for (int c = 0; c < Channels; c += 2 * n)
            {
                (V r0, V r1) = V.LoadPair(gradient + c);
                V.StorePair(V.MultiplyAdd(V.MultiplyAdd(V.Load(pixel + c), slope, V.Load(slopes + c) + level), factor, r0),
                    V.MultiplyAdd(V.MultiplyAdd(V.Load(pixel + c + n), slope, V.Load(slopes + c + n) + level), factor, r1), gradient + c);
            }
        }
        AddOrdered<T>(sums, gainGradient);
        AddOrdered<T>(offsets, offsetGradient);
    }

    /// <summary>Adds the column sums of (rows, 64): the gradient of a bias.</summary>
    public static void ColumnSums<T>(T* values, long rows, float* sums)
        where T : unmanaged
    {
        float* ordered = stackalloc float[Channels];
        int n = V.Count;
        for (int c = 0; c < Channels; c += 2 * n)
        {
            V sum0 = default, sum1 = default;
            for (long row = 0; row < rows; row++)
            {
                (V a0, V a1) = V.LoadPair(values + (row * Channels) + c);
                sum0 += a0;
                sum1 += a1;
            }
            V.Store(sum0, ordered + c);
            V.Store(sum1, ordered + c + n);
        }
        AddOrdered<T>(ordered, sums);
    }

    /// <summary>to = a + b + c; <paramref name="to"/> may be one of them.</summary>
    /// <param name="a">Values.</param>
    /// <param name="b">Values.</param>
    /// <param name="c">Values.</param>
    /// <param name="count">A multiple of 32.</param>
    /// <param name="to">The sums.</param>
    public static void AddThree<T>(T* a, T* b, T* c, long count, T* to)
        where T : unmanaged
    {
        for (long i = 0; i < count; i += 2 * V.Count)
        {
            (V a0, V a1) = V.LoadPair(a + i);
            (V b0, V b1) = V.LoadPair(b + i);
            (V c0, V c1) = V.LoadPair(c + i);
            V.StorePair(a0 + b0 + c0, a1 + b1 + c1, to + i);
        }
    }

    /// <summary>Adds values of any type to float32 ones.</summary>
    /// <param name="values">What is added.</param>
    /// <param name="count">A multiple of 16.</param>
    /// <param name="to">Where.</param>
    public static void AddTo<T>(T* values, long count, float* to)
        where T : unmanaged
    {
        for (long i = 0; i < count; i += V.Count)
            V.Store(V.Load(to + i) + V.Load(values + i), to + i);
    }

    /// <summary>Converts float32 values.</summary>
    /// <param name="values">The values.</param>
    /// <param name="count">A multiple of 16.</param>
    /// <param name="to">The converted ones.</param>
    public static void Convert<T>(float* values, long count, T* to)
        where T : unmanaged
    {
        for (long i = 0; i < count; i += V.Count)
            V.Store(V.Load(values + i), to + i);
    }

    private static void Order<T>(float* from, float* to)
        where T : unmanaged
    {
        for (int c = 0; c < Channels; c++)
            to[PairPlace<V, T>(c)] = from == null ? 0 : from[c];
    }

    private static void AddOrdered<T>(float* from, float* to)
        where T : unmanaged
    {
        for (int c = 0; c < Channels; c++)
            to[c] += from[PairPlace<V, T>(c)];
    }
}

using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Residual sums and layer normalisation over rows of 64 channels, with gradients. <c>T</c> is float, or ushort for
/// bfloat16; parameters, statistics and their gradients are float32, as is all arithmetic.
/// </summary>
internal static unsafe class NormTraining
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
        float* ordered = stackalloc float[3 * Channels];
        Order<T>(bias, ordered);
        Order<T>(gain, ordered + Channels);
        Order<T>(offset, ordered + (2 * Channels));
        Vector512<float> b0 = Load(ordered), b1 = Load(ordered + 16), b2 = Load(ordered + 32), b3 = Load(ordered + 48);
        Vector512<float> g0 = Load(ordered + 64), g1 = Load(ordered + 80), g2 = Load(ordered + 96), g3 = Load(ordered + 112);
        Vector512<float> o0 = Load(ordered + 128), o1 = Load(ordered + 144), o2 = Load(ordered + 160), o3 = Load(ordered + 176);
        for (long row = 0; row < rows; row++, x += Channels, branch += Channels, sum += Channels)
        {
            (Vector512<float> a0, Vector512<float> a1) = LoadPair(x);
            (Vector512<float> a2, Vector512<float> a3) = LoadPair(x + 32);
            (Vector512<float> c0, Vector512<float> c1) = LoadPair(branch);
            (Vector512<float> c2, Vector512<float> c3) = LoadPair(branch + 32);
            StorePair(a0 + c0 + b0, a1 + c1 + b1, sum);
            StorePair(a2 + c2 + b2, a3 + c3 + b3, sum + 32);
            if (gain == null)
                continue;
            // The sum as it is stored: the backward pass sees no other.
            (a0, a1) = LoadPair(sum);
            (a2, a3) = LoadPair(sum + 32);
            float mean = Sum(a0 + a1 + (a2 + a3)) / Channels;
            Vector512<float> centre = Vector512.Create(mean);
            a0 -= centre;
            a1 -= centre;
            a2 -= centre;
            a3 -= centre;
            float variance = Sum(MultiplyAdd(a0, a0, a1 * a1) + MultiplyAdd(a2, a2, a3 * a3)) / Channels;
            float reciprocal = 1 / MathF.Sqrt(variance + epsilon);
            Vector512<float> factor = Vector512.Create(reciprocal);
            StorePair(MultiplyAdd(a0 * factor, g0, o0), MultiplyAdd(a1 * factor, g1, o1), normalised);
            StorePair(MultiplyAdd(a2 * factor, g2, o2), MultiplyAdd(a3 * factor, g3, o3), normalised + 32);
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
        float* ordered = stackalloc float[2 * Channels];
        Order<T>(gain, ordered);
        Vector512<float> g0 = Load(ordered), g1 = Load(ordered + 16), g2 = Load(ordered + 32), g3 = Load(ordered + 48);
        Vector512<float> s0 = default, s1 = default, s2 = default, s3 = default, t0 = default, t1 = default, t2 = default, t3 = default;
        for (long row = 0; row < rows; row++, sum += Channels, normalised += Channels, gradient += Channels, statistics += 2)
        {
            Vector512<float> mean = Vector512.Create(statistics[0]), factor = Vector512.Create(statistics[1]);
            (Vector512<float> a0, Vector512<float> a1) = LoadPair(sum);
            (Vector512<float> a2, Vector512<float> a3) = LoadPair(sum + 32);
            a0 = (a0 - mean) * factor;
            a1 = (a1 - mean) * factor;
            a2 = (a2 - mean) * factor;
            a3 = (a3 - mean) * factor;
            (Vector512<float> d0, Vector512<float> d1) = LoadPair(normalised);
            (Vector512<float> d2, Vector512<float> d3) = LoadPair(normalised + 32);
            t0 += d0;
            t1 += d1;
            t2 += d2;
            t3 += d3;
            s0 = MultiplyAdd(a0, d0, s0);
            s1 = MultiplyAdd(a1, d1, s1);
            s2 = MultiplyAdd(a2, d2, s2);
            s3 = MultiplyAdd(a3, d3, s3);
            d0 *= g0;
            d1 *= g1;
            d2 *= g2;
            d3 *= g3;
            Vector512<float> level = Vector512.Create(-Sum(d0 + d1 + (d2 + d3)) / Channels);
            Vector512<float> slope = Vector512.Create(-Sum(MultiplyAdd(a0, d0, a1 * d1) + MultiplyAdd(a2, d2, a3 * d3)) / Channels);
            (Vector512<float> r0, Vector512<float> r1) = LoadPair(gradient);
            (Vector512<float> r2, Vector512<float> r3) = LoadPair(gradient + 32);
            StorePair(MultiplyAdd(MultiplyAdd(a0, slope, d0 + level), factor, r0), MultiplyAdd(MultiplyAdd(a1, slope, d1 + level), factor, r1), gradient);
            StorePair(MultiplyAdd(MultiplyAdd(a2, slope, d2 + level), factor, r2), MultiplyAdd(MultiplyAdd(a3, slope, d3 + level), factor, r3), gradient + 32);
        }
        Store(s0, ordered);
        Store(s1, ordered + 16);
        Store(s2, ordered + 32);
        Store(s3, ordered + 48);
        Store(t0, ordered + 64);
        Store(t1, ordered + 80);
        Store(t2, ordered + 96);
        Store(t3, ordered + 112);
        AddOrdered<T>(ordered, gainGradient);
        AddOrdered<T>(ordered + Channels, offsetGradient);
    }

    /// <summary>Adds the column sums of (rows, 64): the gradient of a bias.</summary>
    public static void ColumnSums<T>(T* values, long rows, float* sums)
        where T : unmanaged
    {
        Vector512<float> t0 = default, t1 = default, t2 = default, t3 = default;
        for (long row = 0; row < rows; row++, values += Channels)
        {
            (Vector512<float> a0, Vector512<float> a1) = LoadPair(values);
            (Vector512<float> a2, Vector512<float> a3) = LoadPair(values + 32);
            t0 += a0;
            t1 += a1;
            t2 += a2;
            t3 += a3;
        }
        float* ordered = stackalloc float[Channels];
        Store(t0, ordered);
        Store(t1, ordered + 16);
        Store(t2, ordered + 32);
        Store(t3, ordered + 48);
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
        for (long i = 0; i < count; i += 32)
        {
            (Vector512<float> a0, Vector512<float> a1) = LoadPair(a + i);
            (Vector512<float> b0, Vector512<float> b1) = LoadPair(b + i);
            (Vector512<float> c0, Vector512<float> c1) = LoadPair(c + i);
            StorePair(a0 + b0 + c0, a1 + b1 + c1, to + i);
        }
    }

    /// <summary>Adds values of any type to float32 ones.</summary>
    /// <param name="values">What is added.</param>
    /// <param name="count">A multiple of 16.</param>
    /// <param name="to">Where.</param>
    public static void AddTo<T>(T* values, long count, float* to)
        where T : unmanaged
    {
        for (long i = 0; i < count; i += Lanes)
            Store(Load(to + i) + Load(values + i), to + i);
    }

    /// <summary>Converts float32 values.</summary>
    /// <param name="values">The values.</param>
    /// <param name="count">A multiple of 16.</param>
    /// <param name="to">The converted ones.</param>
    public static void Convert<T>(float* values, long count, T* to)
        where T : unmanaged
    {
        for (long i = 0; i < count; i += Lanes)
            Store(Load(values + i), to + i);
    }

    private static void Order<T>(float* from, float* to)
        where T : unmanaged
    {
        for (int c = 0; c < Channels; c++)
            to[(c & 32) + PairPlace<T>(c & 31)] = from == null ? 0 : from[c];
    }

    private static void AddOrdered<T>(float* from, float* to)
        where T : unmanaged
    {
        for (int c = 0; c < Channels; c++)
            to[c] += from[(c & 32) + PairPlace<T>(c & 31)];
    }
}

using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Softmax attention among the channels of a head over the pixels of a group, with queries and keys normalised over
/// those pixels, read straight from maps. All arithmetic is float32. 16 channels at a time: one head of 16, or two of 8
/// whose products with each other are left out.
/// </summary>
internal sealed unsafe class ChannelAttention : IDisposable
{
    // Pixels whose keys or values are widened at a time.
    private const int Run64 = 64;

    private readonly NativeFloats _scratch = new((Run64 * 16) + (16 * 16));

    /// <summary>Attends within every group.</summary>
    /// <typeparam name="T">float, or ushort for bfloat16.</typeparam>
    /// <param name="q">Queries; channels from here on.</param>
    /// <param name="qStride">From one pixel to the next.</param>
    /// <param name="k">Keys.</param>
    /// <param name="v">Values, with the keys' stride.</param>
    /// <param name="kvStride">From one pixel to the next.</param>
    /// <param name="to">Result.</param>
    /// <param name="toStride">From one pixel to the next.</param>
    /// <param name="channels">All channels, a multiple of 16.</param>
    /// <param name="each">Channels of a head, 8 or 16.</param>
    /// <param name="temperature">Factor of the logits, for each channel (equal within a head).</param>
    /// <param name="pixels">The pixels of each group.</param>
    /// <param name="count">Pixels of a group.</param>
    /// <param name="groups">Groups.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Run<T>(T* q, int qStride, T* k, T* v, int kvStride, T* to, int toStride, int channels, int each, float* temperature, int* pixels, int count, int groups)
        where T : unmanaged
    {
        float* wide = _scratch.Pointer, table = wide + (Run64 * 16);
        for (int group = 0; group < groups; group++, pixels += count)
        {
            for (int c = 0; c < channels; c += 16)
            {
                new Span<float>(table, 256).Clear();
                Vector512<float> qq = default, kk = default;
                for (int from = 0; from < count; from += Run64)
                {
                    int run = Math.Min(Run64, count - from);
                    for (int i = 0; i < run; i++)
                    {
                        Vector512<float> key = Load(k + ((long)pixels[from + i] * kvStride) + c);
                        kk = MultiplyAdd(key, key, kk);
                        key.Store(wide + (i * 16));
                    }
                    qq = Correlate(q + c, qStride, wide, pixels + from, run, table, qq);
                }
                SoftMax(table, qq, kk, Vector512.Load(temperature + c), each);
                for (int from = 0; from < count; from += Run64)
                {
                    int run = Math.Min(Run64, count - from);
                    for (int i = 0; i < run; i++)
                        Load(v + ((long)pixels[from + i] * kvStride) + c).Store(wide + (i * 16));
                    Mix(table, wide, to + c, toStride, pixels + from, run);
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _scratch.Dispose();

    /// <summary>table[key channel][query channel] += k q over pixels; also adds up the squares of the queries.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static Vector512<float> Correlate<T>(T* q, int stride, float* k, int* pixels, int count, float* table, Vector512<float> squares)
        where T : unmanaged
    {
        Vector512<float> s0 = Vector512.Load(table), s1 = Vector512.Load(table + 16), s2 = Vector512.Load(table + 32), s3 = Vector512.Load(table + 48);
        Vector512<float> s4 = Vector512.Load(table + 64), s5 = Vector512.Load(table + 80), s6 = Vector512.Load(table + 96), s7 = Vector512.Load(table + 112);
        Vector512<float> s8 = Vector512.Load(table + 128), s9 = Vector512.Load(table + 144), s10 = Vector512.Load(table + 160), s11 = Vector512.Load(table + 176);
        Vector512<float> s12 = Vector512.Load(table + 192), s13 = Vector512.Load(table + 208), s14 = Vector512.Load(table + 224), s15 = Vector512.Load(table + 240);
        for (int i = 0; i < count; i++, k += 16)
        {
            Vector512<float> x = Load(q + ((long)pixels[i] * stride));
            squares = MultiplyAdd(x, x, squares);
            s0 = MultiplyAdd(Vector512.Create(k[0]), x, s0);
            s1 = MultiplyAdd(Vector512.Create(k[1]), x, s1);
            s2 = MultiplyAdd(Vector512.Create(k[2]), x, s2);
            s3 = MultiplyAdd(Vector512.Create(k[3]), x, s3);
            s4 = MultiplyAdd(Vector512.Create(k[4]), x, s4);
            s5 = MultiplyAdd(Vector512.Create(k[5]), x, s5);
            s6 = MultiplyAdd(Vector512.Create(k[6]), x, s6);
            s7 = MultiplyAdd(Vector512.Create(k[7]), x, s7);
            s8 = MultiplyAdd(Vector512.Create(k[8]), x, s8);
            s9 = MultiplyAdd(Vector512.Create(k[9]), x, s9);
            s10 = MultiplyAdd(Vector512.Create(k[10]), x, s10);
            s11 = MultiplyAdd(Vector512.Create(k[11]), x, s11);
            s12 = MultiplyAdd(Vector512.Create(k[12]), x, s12);
            s13 = MultiplyAdd(Vector512.Create(k[13]), x, s13);
            s14 = MultiplyAdd(Vector512.Create(k[14]), x, s14);
            s15 = MultiplyAdd(Vector512.Create(k[15]), x, s15);
        }
        s0.Store(table);
        s1.Store(table + 16);
        s2.Store(table + 32);
        s3.Store(table + 48);
        s4.Store(table + 64);
        s5.Store(table + 80);
        s6.Store(table + 96);
        s7.Store(table + 112);
        s8.Store(table + 128);
        s9.Store(table + 144);
        s10.Store(table + 160);
        s11.Store(table + 176);
        s12.Store(table + 192);
        s13.Store(table + 208);
        s14.Store(table + 224);
        s15.Store(table + 240);
        return squares;
    }

    /// <summary>Scales the logits by temperature and reciprocal norms and turns them into weights over the key channels, in place.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void SoftMax(float* table, Vector512<float> qq, Vector512<float> kk, Vector512<float> temperature, int each)
    {
        // The floor of 1e-12 of a norm, under the root.
        Vector512<float> floor = Vector512.Create(1e-24f);
        Vector512<float> factor = temperature / Vector512.Sqrt(Vector512.MaxNative(qq, floor)), keyNorms = Vector512<float>.One / Vector512.Sqrt(Vector512.MaxNative(kk, floor));
        float* keys = stackalloc float[16];
        keyNorms.Store(keys);
        for (int head = 0; head < 16; head += each)
        {
            Vector512<float> max = Vector512.Create(float.NegativeInfinity);
            for (int c = head; c < head + each; c++)
            {
                Vector512<float> logits = Vector512.Load(table + (c * 16)) * (factor * Vector512.Create(keys[c]));
                logits.Store(table + (c * 16));
                max = Vector512.MaxNative(max, logits);
            }
            Vector512<float> sum = default;
            for (int c = head; c < head + each; c++)
            {
                Vector512<float> weight = Exp(Vector512.Load(table + (c * 16)) - max);
                weight.Store(table + (c * 16));
                sum += weight;
            }
            Vector512<float> share = Vector512<float>.One / sum;
            // Query channels of the other head take nothing from these keys.
            if (each == 8)
                share = head == 0 ? Vector512.Create(share.GetLower(), Vector256<float>.Zero) : Vector512.Create(Vector256<float>.Zero, share.GetUpper());
            for (int c = head; c < head + each; c++)
                (Vector512.Load(table + (c * 16)) * share).Store(table + (c * 16));
        }
    }

    /// <summary>Result[query channel] = weights[key channel][query channel] v[key channel], pixel by pixel.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Mix<T>(float* table, float* v, T* to, int stride, int* pixels, int count)
        where T : unmanaged
    {
        Vector512<float> s0 = Vector512.Load(table), s1 = Vector512.Load(table + 16), s2 = Vector512.Load(table + 32), s3 = Vector512.Load(table + 48);
        Vector512<float> s4 = Vector512.Load(table + 64), s5 = Vector512.Load(table + 80), s6 = Vector512.Load(table + 96), s7 = Vector512.Load(table + 112);
        Vector512<float> s8 = Vector512.Load(table + 128), s9 = Vector512.Load(table + 144), s10 = Vector512.Load(table + 160), s11 = Vector512.Load(table + 176);
        Vector512<float> s12 = Vector512.Load(table + 192), s13 = Vector512.Load(table + 208), s14 = Vector512.Load(table + 224), s15 = Vector512.Load(table + 240);
        for (int i = 0; i < count; i++, v += 16)
        {
            Vector512<float> a = s0 * Vector512.Create(v[0]), b = s1 * Vector512.Create(v[1]), c = s2 * Vector512.Create(v[2]), d = s3 * Vector512.Create(v[3]);
            a = MultiplyAdd(Vector512.Create(v[4]), s4, a);
            b = MultiplyAdd(Vector512.Create(v[5]), s5, b);
            c = MultiplyAdd(Vector512.Create(v[6]), s6, c);
            d = MultiplyAdd(Vector512.Create(v[7]), s7, d);
            a = MultiplyAdd(Vector512.Create(v[8]), s8, a);
            b = MultiplyAdd(Vector512.Create(v[9]), s9, b);
            c = MultiplyAdd(Vector512.Create(v[10]), s10, c);
            d = MultiplyAdd(Vector512.Create(v[11]), s11, d);
            a = MultiplyAdd(Vector512.Create(v[12]), s12, a);
            b = MultiplyAdd(Vector512.Create(v[13]), s13, b);
            c = MultiplyAdd(Vector512.Create(v[14]), s14, c);
            d = MultiplyAdd(Vector512.Create(v[15]), s15, d);
            Store(a + b + (c + d), to + ((long)pixels[i] * stride));
        }
    }
}

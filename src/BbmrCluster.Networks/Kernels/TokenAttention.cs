using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Softmax attention among groups of 64 pixels, read straight from a map of queries, keys and values: no copies of
/// windows, no logits in memory. All arithmetic is float32. Queries lie in the lanes, so that maxima and sums over the
/// keys need no exchange between lanes.
/// </summary>
internal sealed unsafe class TokenAttention : IDisposable
{
    /// <summary>Pixels of a group.</summary>
    public const int Tokens = 64;

    // Queries, transposed and as they come; keys; values; logits of 32 queries; result.
    private readonly NativeFloats _scratch = new((16 * Tokens * 5) + (Tokens * 32));

    /// <summary>Attends within every group.</summary>
    /// <typeparam name="T">float, or ushort for bfloat16.</typeparam>
    /// <param name="qkv">The map; up to 8 values behind its last pixel are read when <paramref name="each"/> is 8.</param>
    /// <param name="stride">From one pixel to the next.</param>
    /// <param name="query">Channel at which the first head's queries start.</param>
    /// <param name="key">The same of keys.</param>
    /// <param name="value">The same of values.</param>
    /// <param name="heads">Heads, side by side.</param>
    /// <param name="each">Channels of a head, 8 or 16.</param>
    /// <param name="to">First channel of the first head in the result map.</param>
    /// <param name="toStride">From one pixel to the next.</param>
    /// <param name="pixels">The pixels of each group, 64 a group.</param>
    /// <param name="groups">Groups.</param>
    /// <param name="bias">heads x keys x queries, added to the logits; or null.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Run<T>(T* qkv, int stride, int query, int key, int value, int heads, int each, T* to, int toStride, int* pixels, int groups, float* bias)
        where T : unmanaged
    {
        float* q = _scratch.Pointer, rows = q + (16 * Tokens), k = rows + (16 * Tokens), v = k + (16 * Tokens), o = v + (16 * Tokens), s = o + (16 * Tokens);
        Vector512<float> scale = Vector512.Create(1 / MathF.Sqrt(each));
        for (int group = 0; group < groups; group++, pixels += Tokens)
        {
            // 16 channels at a time: one head, or two of 8 (the last one alone where they are odd).
            for (int head = 0; head < heads; head += 16 / each)
            {
                T* from = qkv + (head * each);
                for (int t = 0; t < Tokens; t++)
                {
                    T* pixel = from + ((long)pixels[t] * stride);
                    (Load(pixel + query) * scale).Store(rows + (t * 16));
                    Load(pixel + key).Store(k + (t * 16));
                    Load(pixel + value).Store(v + (t * 16));
                }
                for (int t = 0; t < Tokens; t += 16)
                    Transpose(rows + (t * 16), 16, q + t, Tokens);

                int channels = Math.Min(16, (heads - head) * each);
                for (int c = 0; c < channels; c += each)
                {
                    float* headBias = bias is null ? null : bias + ((head + (c / each)) * Tokens * Tokens);
                    for (int first = 0; first < Tokens; first += 32)
                    {
                        for (int t = 0; t < Tokens; t += 8)
                            Logits(k + (t * 16) + c, q + (c * Tokens) + first, headBias is null ? null : headBias + (t * Tokens) + first, s + (t * 32), each);
                        SoftMax<T>(s, out Vector512<float> factor0, out Vector512<float> factor1);
                        for (int d = c; d < c + each; d += 8)
                            Weighted(v + d, s, o + (d * Tokens) + first, factor0, factor1);
                    }
                }
                for (int t = 0; t < Tokens; t += 16)
                    Transpose(o + t, Tokens, rows + (t * 16), 16);
                T* result = to + (head * each);
                for (int t = 0; t < Tokens; t++)
                {
                    if (channels == 16)
                        Store(Vector512.Load(rows + (t * 16)), result + ((long)pixels[t] * toStride));
                    else
                        StoreLower(Vector512.Load(rows + (t * 16)), result + ((long)pixels[t] * toStride));
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _scratch.Dispose();

    /// <summary>8 keys x 32 queries.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Logits(float* k, float* q, float* bias, float* s, int each)
    {
        Vector512<float> s00 = default, s01 = default, s10 = default, s11 = default, s20 = default, s21 = default, s30 = default, s31 = default;
        Vector512<float> s40 = default, s41 = default, s50 = default, s51 = default, s60 = default, s61 = default, s70 = default, s71 = default;
        if (bias is not null)
        {
            s00 = Vector512.Load(bias);
            s01 = Vector512.Load(bias + 16);
            s10 = Vector512.Load(bias + Tokens);
            s11 = Vector512.Load(bias + Tokens + 16);
            s20 = Vector512.Load(bias + (2 * Tokens));
            s21 = Vector512.Load(bias + (2 * Tokens) + 16);
            s30 = Vector512.Load(bias + (3 * Tokens));
            s31 = Vector512.Load(bias + (3 * Tokens) + 16);
            s40 = Vector512.Load(bias + (4 * Tokens));
            s41 = Vector512.Load(bias + (4 * Tokens) + 16);
            s50 = Vector512.Load(bias + (5 * Tokens));
            s51 = Vector512.Load(bias + (5 * Tokens) + 16);
            s60 = Vector512.Load(bias + (6 * Tokens));
            s61 = Vector512.Load(bias + (6 * Tokens) + 16);
            s70 = Vector512.Load(bias + (7 * Tokens));
            s71 = Vector512.Load(bias + (7 * Tokens) + 16);
        }
        for (int c = 0; c < each; c++, k++, q += Tokens)
        {
            Vector512<float> q0 = Vector512.Load(q), q1 = Vector512.Load(q + 16);
            Vector512<float> x = Vector512.Create(k[0]);
            s00 = MultiplyAdd(x, q0, s00);
            s01 = MultiplyAdd(x, q1, s01);
            x = Vector512.Create(k[16]);
            s10 = MultiplyAdd(x, q0, s10);
            s11 = MultiplyAdd(x, q1, s11);
            x = Vector512.Create(k[32]);
            s20 = MultiplyAdd(x, q0, s20);
            s21 = MultiplyAdd(x, q1, s21);
            x = Vector512.Create(k[48]);
            s30 = MultiplyAdd(x, q0, s30);
            s31 = MultiplyAdd(x, q1, s31);
            x = Vector512.Create(k[64]);
            s40 = MultiplyAdd(x, q0, s40);
            s41 = MultiplyAdd(x, q1, s41);
            x = Vector512.Create(k[80]);
            s50 = MultiplyAdd(x, q0, s50);
            s51 = MultiplyAdd(x, q1, s51);
            x = Vector512.Create(k[96]);
            s60 = MultiplyAdd(x, q0, s60);
            s61 = MultiplyAdd(x, q1, s61);
            x = Vector512.Create(k[112]);
            s70 = MultiplyAdd(x, q0, s70);
            s71 = MultiplyAdd(x, q1, s71);
        }
        s00.Store(s);
        s01.Store(s + 16);
        s10.Store(s + 32);
        s11.Store(s + 48);
        s20.Store(s + 64);
        s21.Store(s + 80);
        s30.Store(s + 96);
        s31.Store(s + 112);
        s40.Store(s + 128);
        s41.Store(s + 144);
        s50.Store(s + 160);
        s51.Store(s + 176);
        s60.Store(s + 192);
        s61.Store(s + 208);
        s70.Store(s + 224);
        s71.Store(s + 240);
    }

    /// <summary>exp(s - max) over the keys, in place, and the reciprocal sums.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void SoftMax<T>(float* s, out Vector512<float> factor0, out Vector512<float> factor1)
        where T : unmanaged
    {
        Vector512<float> max0 = Vector512.Load(s), max1 = Vector512.Load(s + 16);
        for (int t = 1; t < Tokens; t++)
        {
            max0 = Vector512.MaxNative(max0, Vector512.Load(s + (t * 32)));
            max1 = Vector512.MaxNative(max1, Vector512.Load(s + (t * 32) + 16));
        }
        Vector512<float> sum0 = default, sum1 = default;
        for (int t = 0; t < Tokens; t++, s += 32)
        {
            Vector512<float> p0 = ExpOfNegative<T>(Vector512.Load(s) - max0), p1 = ExpOfNegative<T>(Vector512.Load(s + 16) - max1);
            p0.Store(s);
            p1.Store(s + 16);
            sum0 += p0;
            sum1 += p1;
        }
        factor0 = Vector512<float>.One / sum0;
        factor1 = Vector512<float>.One / sum1;
    }

    /// <summary>8 channels x 32 queries: the values weighted over the keys.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Weighted(float* v, float* p, float* o, Vector512<float> factor0, Vector512<float> factor1)
    {
        Vector512<float> s00 = default, s01 = default, s10 = default, s11 = default, s20 = default, s21 = default, s30 = default, s31 = default;
        Vector512<float> s40 = default, s41 = default, s50 = default, s51 = default, s60 = default, s61 = default, s70 = default, s71 = default;
        for (int t = 0; t < Tokens; t++, v += 16, p += 32)
        {
            Vector512<float> p0 = Vector512.Load(p), p1 = Vector512.Load(p + 16);
            Vector512<float> x = Vector512.Create(v[0]);
            s00 = MultiplyAdd(x, p0, s00);
            s01 = MultiplyAdd(x, p1, s01);
            x = Vector512.Create(v[1]);
            s10 = MultiplyAdd(x, p0, s10);
            s11 = MultiplyAdd(x, p1, s11);
            x = Vector512.Create(v[2]);
            s20 = MultiplyAdd(x, p0, s20);
            s21 = MultiplyAdd(x, p1, s21);
            x = Vector512.Create(v[3]);
            s30 = MultiplyAdd(x, p0, s30);
            s31 = MultiplyAdd(x, p1, s31);
            x = Vector512.Create(v[4]);
            s40 = MultiplyAdd(x, p0, s40);
            s41 = MultiplyAdd(x, p1, s41);
            x = Vector512.Create(v[5]);
            s50 = MultiplyAdd(x, p0, s50);
            s51 = MultiplyAdd(x, p1, s51);
            x = Vector512.Create(v[6]);
            s60 = MultiplyAdd(x, p0, s60);
            s61 = MultiplyAdd(x, p1, s61);
            x = Vector512.Create(v[7]);
            s70 = MultiplyAdd(x, p0, s70);
            s71 = MultiplyAdd(x, p1, s71);
        }
        (s00 * factor0).Store(o);
        (s01 * factor1).Store(o + 16);
        (s10 * factor0).Store(o + Tokens);
        (s11 * factor1).Store(o + Tokens + 16);
        (s20 * factor0).Store(o + (2 * Tokens));
        (s21 * factor1).Store(o + (2 * Tokens) + 16);
        (s30 * factor0).Store(o + (3 * Tokens));
        (s31 * factor1).Store(o + (3 * Tokens) + 16);
        (s40 * factor0).Store(o + (4 * Tokens));
        (s41 * factor1).Store(o + (4 * Tokens) + 16);
        (s50 * factor0).Store(o + (5 * Tokens));
        (s51 * factor1).Store(o + (5 * Tokens) + 16);
        (s60 * factor0).Store(o + (6 * Tokens));
        (s61 * factor1).Store(o + (6 * Tokens) + 16);
        (s70 * factor0).Store(o + (7 * Tokens));
        (s71 * factor1).Store(o + (7 * Tokens) + 16);
    }
}

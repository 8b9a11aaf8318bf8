using System.Runtime.CompilerServices;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Softmax attention among groups of 64 pixels, read straight from a map of queries, keys and values: no copies of
/// windows, no logits in memory but those of a few vectors of queries. All arithmetic is float32. Queries lie in the lanes, so
/// that maxima and sums over the keys need no exchange between lanes.
/// </summary>
internal sealed unsafe class TokenAttention : IDisposable
{
    /// <summary>Pixels of a group.</summary>
    public const int Tokens = 64;

    // Queries, transposed and as they come; keys; values; result; logits of a panel of queries.
    private const int Scratch = (16 * Tokens * 5) + (Tokens * Tokens);

    private NativeFloats _scratch = new(Scratch);

    /// <summary>Attends within every group.</summary>
    /// <typeparam name="T">float or <see cref="BFloat16"/>.</typeparam>
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
    public void Run<T>(T* qkv, int stride, int query, int key, int value, int heads, int each, T* to, int toStride, int* pixels, int groups, float* bias)
        where T : unmanaged
    {
        int shares = Shares.Count(groups, 4L * Tokens * heads * each);
        if (_scratch.Count < shares * Scratch)
        {
            _scratch.Dispose();
            _scratch = new NativeFloats(shares * Scratch);
        }
        Shares.Run(shares, groups, (share, first, count) =>
        {
            float* scratch = _scratch.Pointer + (share * Scratch);
            if (Floats.Wide)
                Run<Floats16, T>(qkv, stride, query, key, value, heads, each, to, toStride, pixels + (first * Tokens), count, bias, scratch);
            else
                Run<Floats8, T>(qkv, stride, query, key, value, heads, each, to, toStride, pixels + (first * Tokens), count, bias, scratch);
        });
    }

    /// <inheritdoc/>
    public void Dispose() => _scratch.Dispose();

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Run<V, T>(T* qkv, int stride, int query, int key, int value, int heads, int each, T* to, int toStride, int* pixels, int groups, float* bias, float* scratch)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        // Channels at a time: one head, or two of 8 in a vector of 16 (the last one alone where they are odd).
        int span = Math.Max(each, V.Count);
        float* q = scratch, rows = q + (16 * Tokens), k = rows + (16 * Tokens), v = k + (16 * Tokens), o = v + (16 * Tokens), s = o + (16 * Tokens);
        V scale = V.Create(1 / MathF.Sqrt(each));
        for (int group = 0; group < groups; group++, pixels += Tokens)
        {
            for (int head = 0; head < heads; head += span / each)
            {
                T* from = qkv + (head * each);
                for (int t = 0; t < Tokens; t++)
                {
                    T* pixel = from + ((long)pixels[t] * stride);
                    for (int c = 0; c < span; c += V.Count)
                    {
                        int at = (t * span) + c;
                        V.Store(V.Load(pixel + query + c) * scale, rows + at);
                        V.Store(V.Load(pixel + key + c), k + at);
                        V.Store(V.Load(pixel + value + c), v + at);
                    }
                }
                Transpose<V>(rows, Tokens, span, q);

                int channels = Math.Min(span, (heads - head) * each);
                for (int c = 0; c < channels; c += each)
                    Head<V, T>(q + (c * Tokens), k + c, v + c, o + (c * Tokens), s, span, each, bias is null ? null : bias + ((head + (c / each)) * Tokens * Tokens));
                Transpose<V>(o, span, Tokens, rows);
                T* result = to + (head * each);
                for (int t = 0; t < Tokens; t++)
                {
                    T* pixel = result + ((long)pixels[t] * toStride);
                    for (int c = 0; c < channels; c += V.Count)
                    {
                        if (channels - c >= V.Count)
                            V.Store(V.Load(rows + (t * span) + c), pixel + c);
                        else
                            V.StoreEight(V.Load(rows + (t * span) + c), pixel + c);
                    }
                }
            }
        }
    }

    /// <summary>Attention of one head: as many queries at a time as make a tile.</summary>
    /// <param name="q">each x 64 queries, scaled.</param>
    /// <param name="k">64 keys.</param>
    /// <param name="v">64 values.</param>
    /// <param name="o">Gets each x 64 results.</param>
    /// <param name="s">Scratch for the logits.</param>
    /// <param name="span">From one key or value to the next.</param>
    /// <param name="each">Channels.</param>
    /// <param name="bias">64 keys x 64 queries, or null.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Head<V, T>(float* q, float* k, float* v, float* o, float* s, int span, int each, float* bias)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        float* factors = stackalloc float[4 * 16];
        for (int first = 0; first < Tokens;)
        {
            int vectors = Tiles.Panel((Tokens - first) / V.Count, V.TileVectors), width = vectors * V.Count;
            Tiles.Column<V>(k, span, 1, q + first, Tokens, bias is null ? null : bias + first, Tokens, s, width, Tokens, vectors, each);
            for (int i = 0; i < width; i += V.Count)
                V.Store(SoftMax<V, T>(s + i, width), factors + i);
            Tiles.Column<V>(v, 1, span, s, width, null, 0, o + first, Tokens, each, vectors, Tokens);
            for (int i = 0; i < width; i += V.Count)
            {
                V factor = V.Load(factors + i);
                for (int d = 0; d < each; d++)
                    V.Store(V.Load(o + (d * Tokens) + first + i) * factor, o + (d * Tokens) + first + i);
            }
            first += width;
        }
    }

    /// <summary>exp(s - max) over the keys, in place, for one vector of queries; returns the reciprocal sums.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static V SoftMax<V, T>(float* s, int width)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        V max = V.Load(s), other = V.Load(s + width), sum = default;
        for (int t = 2; t < Tokens; t += 2)
        {
            max = V.Max(max, V.Load(s + (t * width)));
            other = V.Max(other, V.Load(s + ((t + 1) * width)));
        }
        max = V.Max(max, other);
        for (int t = 0; t < Tokens; t++, s += width)
        {
            V p = ExpOfNegative<V, T>(V.Load(s) - max);
            V.Store(p, s);
            sum += p;
        }
        return V.Create(1) / sum;
    }
}

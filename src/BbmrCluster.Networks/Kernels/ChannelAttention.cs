using System.Runtime.CompilerServices;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Softmax attention among the channels of a head over the pixels of a group, with queries and keys normalised over
/// those pixels, read straight from maps. All arithmetic is float32. One head at a time, or two of 8 in a vector of
/// 16, whose products with each other are left out.
/// </summary>
internal sealed unsafe class ChannelAttention : IDisposable
{
    // Pixels whose channels are widened at a time.
    private const int Most = 64;

    private const int Scratch = (2 * Most * 16) + (16 * 16) + (2 * 16);

    private NativeFloats _scratch = new(Scratch);

    /// <summary>Attends within every group.</summary>
    /// <typeparam name="T">float or <see cref="BFloat16"/>.</typeparam>
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
    public void Run<T>(T* q, int qStride, T* k, T* v, int kvStride, T* to, int toStride, int channels, int each, float* temperature, int* pixels, int count, int groups)
        where T : unmanaged
    {
        // A share has groups and, within them, heads: CRAFT has one group only.
        int heads = channels / Math.Max(each, Floats.Count), shares = Shares.Count(groups * heads, 4L * count * channels / heads);
        if (_scratch.Count < shares * Scratch)
        {
            _scratch.Dispose();
            _scratch = new NativeFloats(shares * Scratch);
        }
        Shares.Run(shares, groups * heads, (share, first, part) =>
        {
            float* scratch = _scratch.Pointer + (share * Scratch);
            if (Floats.Wide)
                Run<Floats16, T>(q, qStride, k, v, kvStride, to, toStride, channels, each, temperature, pixels, count, first, part, scratch);
            else
                Run<Floats8, T>(q, qStride, k, v, kvStride, to, toStride, channels, each, temperature, pixels, count, first, part, scratch);
        });
    }

    /// <inheritdoc/>
    public void Dispose() => _scratch.Dispose();

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Run<V, T>(T* q, int qStride, T* k, T* v, int kvStride, T* to, int toStride, int channels, int each, float* temperature, int* pixels, int count, int first, int part, float* scratch)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        int span = Math.Max(each, V.Count), heads = channels / span;
        float* left = scratch, right = left + (Most * 16), table = right + (Most * 16), squares = table + (16 * 16);
        for (int unit = first; unit < first + part; unit++)
        {
            int* group = pixels + ((long)(unit / heads) * count);
            int c = unit % heads * span;
            // table[key channel][query channel], and the squared norms of query and key channels.
            new Span<float>(table, (16 * 16) + (2 * 16)).Clear();
            for (int from = 0; from < count; from += Most)
            {
                int run = Math.Min(Most, count - from);
                Gather<V, T>(q + c, qStride, group + from, run, span, right, squares);
                Gather<V, T>(k + c, kvStride, group + from, run, span, left, squares + 16);
                Tiles.Multiply<V>(left, 1, span, right, span, table, span, table, span, span, span, run);
            }
            SoftMax<V>(table, squares, temperature + c, span, each);
            for (int from = 0; from < count; from += Most)
            {
                int run = Math.Min(Most, count - from);
                Gather<V, T>(v + c, kvStride, group + from, run, span, left, null);
                Tiles.Multiply<V>(left, span, 1, table, span, null, 0, right, span, run, span, span);
                for (int i = 0; i < run; i++)
                {
                    for (int d = 0; d < span; d += V.Count)
                        V.Store(V.Load(right + (i * span) + d), to + c + ((long)group[from + i] * toStride) + d);
                }
            }
        }
    }

    /// <summary>Copies the channels of pixels; adds up their squares where wanted.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Gather<V, T>(T* from, int stride, int* pixels, int count, int span, float* to, float* squares)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        for (int d = 0; d < span; d += V.Count)
        {
            V sum = squares is null ? default : V.Load(squares + d);
            for (int i = 0; i < count; i++)
            {
                V values = V.Load(from + ((long)pixels[i] * stride) + d);
                sum = V.MultiplyAdd(values, values, sum);
                V.Store(values, to + (i * span) + d);
            }
            if (squares is not null)
                V.Store(sum, squares + d);
        }
    }

    /// <summary>Scales the logits by temperature and reciprocal norms and turns them into weights over the key channels, in place.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void SoftMax<V>(float* table, float* squares, float* temperature, int span, int each)
        where V : unmanaged, IFloats<V>
    {
        // The floor of 1e-12 of a norm, under the root.
        V floor = V.Create(1e-24f);
        float* keys = squares + 16, own = stackalloc float[16];
        for (int d = 0; d < span; d += V.Count)
            V.Store(V.Create(1) / V.Sqrt(V.Max(V.Load(keys + d), floor)), keys + d);
        for (int head = 0; head < span; head += each)
        {
            // Query channels of the other head take nothing from these keys.
            for (int lane = 0; lane < span; lane++)
                own[lane] = lane >= head && lane < head + each ? 1 : 0;
            for (int d = 0; d < span; d += V.Count)
            {
                V factor = V.Load(temperature + d) / V.Sqrt(V.Max(V.Load(squares + d), floor)), max = V.Create(float.NegativeInfinity), sum = default;
                for (int c = head; c < head + each; c++)
                {
                    V logits = V.Load(table + (c * span) + d) * (factor * V.Create(keys[c]));
                    V.Store(logits, table + (c * span) + d);
                    max = V.Max(max, logits);
                }
                for (int c = head; c < head + each; c++)
                {
                    V weight = Exp(V.Load(table + (c * span) + d) - max);
                    V.Store(weight, table + (c * span) + d);
                    sum += weight;
                }
                V share = V.Load(own + d) / sum;
                for (int c = head; c < head + each; c++)
                    V.Store(V.Load(table + (c * span) + d) * share, table + (c * span) + d);
            }
        }
    }
}

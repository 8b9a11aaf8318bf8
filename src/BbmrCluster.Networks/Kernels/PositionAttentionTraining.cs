using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Softmax attention among the 64 pixels of a group, 4 heads of 16 channels, with its gradient. Logits are
/// q k / 4 + bias of the head. The weights are computed again in the backward pass rather than kept.
/// </summary>
/// <typeparam name="V">The vectors.</typeparam>
internal static unsafe class PositionAttentionTraining<V>
    where V : unmanaged, IFloats<V>
{
    private const int Heads = 4, Each = 16, Tokens = 64, Square = Tokens * Tokens, Thin = Tokens * Each;

    /// <summary>Scratch values that a call needs.</summary>
    public const int Scratch = (9 * Thin) + (2 * Square);

    /// <summary>Computes the attention's output.</summary>
    /// <param name="qkv">(batch, height, width, 192): queries, keys, values.</param>
    /// <param name="bias">(4, 64 queries, 64 keys).</param>
    /// <param name="kind">Window or Grid.</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows, a multiple of 8.</param>
    /// <param name="width">Columns, a multiple of 8.</param>
    /// <param name="output">(batch, height, width, 64).</param>
    /// <param name="scratch"><see cref="Scratch"/> values.</param>
    public static void Forward<T>(T* qkv, float* bias, PixelGroup kind, int batch, int height, int width, T* output, float* scratch)
        where T : unmanaged
    {
        int* pixels = stackalloc int[Tokens];
        float* q = scratch, k = q + Thin, v = k + Thin, keys = v + Thin, result = keys + Thin, weights = result + Thin;
        for (int group = 0; group < PixelGroups.Count(kind, height, width); group++)
        {
            PixelGroups.List(kind, height, width, group, pixels);
            for (int image = 0; image < batch; image++)
            {
                long at = (long)image * height * width;
                for (int head = 0; head < Heads; head++)
                {
                    Gather(qkv + (at * 192) + (head * Each), pixels, 192, 0.25f, q);
                    Gather(qkv + (at * 192) + 64 + (head * Each), pixels, 192, 1, k);
                    Gather(qkv + (at * 192) + 128 + (head * Each), pixels, 192, 1, v);
                    Transpose<V>(k, Tokens, Each, keys);
                    Tiles.Multiply<V>(q, Each, 1, keys, Tokens, bias + (head * Square), Tokens, weights, Tokens, Tokens, Tokens, Each);
                    Softmax(weights);
                    Tiles.Multiply<V>(weights, Tokens, 1, v, Each, null, 0, result, Each, Tokens, Each, Tokens);
                    Scatter(result, 1, output + (at * 64) + (head * Each), pixels, 64);
                }
            }
        }
    }

    /// <summary>Computes the gradients.</summary>
    /// <param name="qkv">As <see cref="Forward"/>.</param>
    /// <param name="bias">As <see cref="Forward"/>.</param>
    /// <param name="kind">As <see cref="Forward"/>.</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="output">Gradient of the output, (batch, height, width, 64).</param>
    /// <param name="gradient">Gets the gradient of <paramref name="qkv"/>.</param>
    /// <param name="biasGradient">(4, 64, 64), added to.</param>
    /// <param name="scratch"><see cref="Scratch"/> values.</param>
    public static void Backward<T>(T* qkv, float* bias, PixelGroup kind, int batch, int height, int width, T* output, T* gradient, float* biasGradient, float* scratch)
        where T : unmanaged
    {
        int* pixels = stackalloc int[Tokens];
        float* q = scratch, k = q + Thin, v = k + Thin, o = v + Thin, keys = o + Thin, values = keys + Thin, result = values + Thin;
        float* weights = scratch + (9 * Thin), slopes = weights + Square;
        for (int group = 0; group < PixelGroups.Count(kind, height, width); group++)
        {
            PixelGroups.List(kind, height, width, group, pixels);
            for (int image = 0; image < batch; image++)
            {
                long at = (long)image * height * width;
                for (int head = 0; head < Heads; head++)
                {
                    T* to = gradient + (at * 192) + (head * Each);
                    Gather(qkv + (at * 192) + (head * Each), pixels, 192, 0.25f, q);
                    Gather(qkv + (at * 192) + 64 + (head * Each), pixels, 192, 1, k);
                    Gather(qkv + (at * 192) + 128 + (head * Each), pixels, 192, 1, v);
                    Gather(output + (at * 64) + (head * Each), pixels, 64, 1, o);
                    Transpose<V>(k, Tokens, Each, keys);
                    Transpose<V>(v, Tokens, Each, values);
                    Tiles.Multiply<V>(q, Each, 1, keys, Tokens, bias + (head * Square), Tokens, weights, Tokens, Tokens, Tokens, Each);
                    Softmax(weights);
                    Tiles.Multiply<V>(weights, 1, Tokens, o, Each, null, 0, result, Each, Tokens, Each, Tokens);
                    Scatter(result, 1, to + 128, pixels, 192);
                    Tiles.Multiply<V>(o, Each, 1, values, Tokens, null, 0, slopes, Tokens, Tokens, Tokens, Each);
                    SoftmaxGradient(weights, slopes, biasGradient + (head * Square));
                    Tiles.Multiply<V>(slopes, Tokens, 1, k, Each, null, 0, result, Each, Tokens, Each, Tokens);
                    Scatter(result, 0.25f, to, pixels, 192);
                    Tiles.Multiply<V>(slopes, 1, Tokens, q, Each, null, 0, result, Each, Tokens, Each, Tokens);
                    Scatter(result, 1, to + 64, pixels, 192);
                }
            }
        }
    }

    private static void Gather<T>(T* from, int* pixels, int stride, float factor, float* to)
        where T : unmanaged
    {
        V scale = V.Create(factor);
        for (int token = 0; token < Tokens; token++, to += Each)
        {
            for (int c = 0; c < Each; c += V.Count)
                V.Store(V.Load(from + ((long)pixels[token] * stride) + c) * scale, to + c);
        }
    }

    private static void Scatter<T>(float* from, float factor, T* to, int* pixels, int stride)
        where T : unmanaged
    {
        V scale = V.Create(factor);
        for (int token = 0; token < Tokens; token++, from += Each)
        {
            for (int c = 0; c < Each; c += V.Count)
                V.Store(V.Load(from + c) * scale, to + ((long)pixels[token] * stride) + c);
        }
    }

    private static void Softmax(float* rows)
    {
        float* lanes = stackalloc float[V.Count];
        for (int row = 0; row < Tokens; row++, rows += Tokens)
        {
            V peak = V.Load(rows), sum = default;
            for (int i = V.Count; i < Tokens; i += V.Count)
                peak = V.Max(peak, V.Load(rows + i));
            V.Store(peak, lanes);
            float highest = lanes[0];
            for (int i = 1; i < V.Count; i++)
                highest = MathF.Max(highest, lanes[i]);
            peak = V.Create(highest);
            for (int i = 0; i < Tokens; i += V.Count)
            {
                V weight = Exp(V.Load(rows + i) - peak);
                V.Store(weight, rows + i);
                sum += weight;
            }
            V factor = V.Create(1 / V.Sum(sum));
            for (int i = 0; i < Tokens; i += V.Count)
                V.Store(V.Load(rows + i) * factor, rows + i);
        }
    }

    /// <summary>Turns gradients of the weights into gradients of the logits, and adds those to the bias's.</summary>
    private static void SoftmaxGradient(float* weights, float* slopes, float* bias)
    {
        for (int row = 0; row < Tokens; row++, weights += Tokens, slopes += Tokens, bias += Tokens)
        {
            V sum = default;
            for (int i = 0; i < Tokens; i += V.Count)
                sum = V.MultiplyAdd(V.Load(weights + i), V.Load(slopes + i), sum);
            V mean = V.Create(V.Sum(sum));
            for (int i = 0; i < Tokens; i += V.Count)
            {
                V slope = V.Load(weights + i) * (V.Load(slopes + i) - mean);
                V.Store(slope, slopes + i);
                V.Store(V.Load(bias + i) + slope, bias + i);
            }
        }
    }
}

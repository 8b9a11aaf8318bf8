using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Softmax attention among the 64 pixels of a group, 4 heads of 16 channels, with its gradient. Logits are
/// q k / 4 + bias of the head. The weights are computed again in the backward pass rather than kept.
/// </summary>
internal static unsafe class PositionAttentionTraining
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
                    Turn(k, keys);
                    Squares.WideProducts(q, keys, bias + (head * Square), weights);
                    Softmax(weights);
                    Squares.RowProducts(weights, Tokens, across: false, v, Tokens, Tokens, result);
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
                    Turn(k, keys);
                    Turn(v, values);
                    Squares.WideProducts(q, keys, bias + (head * Square), weights);
                    Softmax(weights);
                    Squares.RowProducts(weights, Tokens, across: true, o, Tokens, Tokens, result);
                    Scatter(result, 1, to + 128, pixels, 192);
                    Squares.WideProducts(o, values, null, slopes);
                    SoftmaxGradient(weights, slopes, biasGradient + (head * Square));
                    Squares.RowProducts(slopes, Tokens, across: false, k, Tokens, Tokens, result);
                    Scatter(result, 0.25f, to, pixels, 192);
                    Squares.RowProducts(slopes, Tokens, across: true, q, Tokens, Tokens, result);
                    Scatter(result, 1, to + 64, pixels, 192);
                }
            }
        }
    }

    private static void Gather<T>(T* from, int* pixels, int stride, float factor, float* to)
        where T : unmanaged
    {
        Vector512<float> scale = Vector512.Create(factor);
        for (int token = 0; token < Tokens; token++, to += Each)
            Store(Load(from + ((long)pixels[token] * stride)) * scale, to);
    }

    private static void Scatter<T>(float* from, float factor, T* to, int* pixels, int stride)
        where T : unmanaged
    {
        Vector512<float> scale = Vector512.Create(factor);
        for (int token = 0; token < Tokens; token++, from += Each)
            Store(Load(from) * scale, to + ((long)pixels[token] * stride));
    }

    /// <summary>(64, 16) to (16, 64).</summary>
    private static void Turn(float* from, float* to)
    {
        for (int token = 0; token < Tokens; token += Each)
            Squares.Transpose(from + (token * Each), Each, to + token, Tokens);
    }

    private static void Softmax(float* rows)
    {
        for (int row = 0; row < Tokens; row++, rows += Tokens)
        {
            Vector512<float> a = Load(rows), b = Load(rows + 16), c = Load(rows + 32), d = Load(rows + 48);
            Vector512<float> peak = Vector512.Create(Max(Vector512.Max(Vector512.Max(a, b), Vector512.Max(c, d))));
            a = Exp(a - peak);
            b = Exp(b - peak);
            c = Exp(c - peak);
            d = Exp(d - peak);
            Vector512<float> factor = Vector512.Create(1 / Sum(a + b + (c + d)));
            Store(a * factor, rows);
            Store(b * factor, rows + 16);
            Store(c * factor, rows + 32);
            Store(d * factor, rows + 48);
        }
    }

    private static float Max(Vector512<float> values)
    {
        Vector256<float> eight = Vector256.Max(values.GetLower(), values.GetUpper());
        Vector128<float> four = Vector128.Max(eight.GetLower(), eight.GetUpper());
        four = Vector128.Max(four, Vector128.Shuffle(four, Vector128.Create(2, 3, 0, 1)));
        return MathF.Max(four[0], four[1]);
    }

    /// <summary>Turns gradients of the weights into gradients of the logits, and adds those to the bias's.</summary>
    private static void SoftmaxGradient(float* weights, float* slopes, float* bias)
    {
        for (int row = 0; row < Tokens; row++, weights += Tokens, slopes += Tokens, bias += Tokens)
        {
            Vector512<float> a = Load(weights), b = Load(weights + 16), c = Load(weights + 32), d = Load(weights + 48);
            Vector512<float> p = Load(slopes), q = Load(slopes + 16), r = Load(slopes + 32), s = Load(slopes + 48);
            Vector512<float> mean = Vector512.Create(Sum(MultiplyAdd(a, p, b * q) + MultiplyAdd(c, r, d * s)));
            p = a * (p - mean);
            q = b * (q - mean);
            r = c * (r - mean);
            s = d * (s - mean);
            Store(p, slopes);
            Store(q, slopes + 16);
            Store(r, slopes + 32);
            Store(s, slopes + 48);
            Store(Load(bias) + p, bias);
            Store(Load(bias + 16) + q, bias + 16);
            Store(Load(bias + 32) + r, bias + 32);
            Store(Load(bias + 48) + s, bias + 48);
        }
    }
}

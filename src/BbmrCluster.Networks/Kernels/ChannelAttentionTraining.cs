using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Softmax attention among the 16 channels of each of 4 heads over the pixels of a group, with its gradient. Logits are
/// the cosines of query and key channels times the head's temperature. Matrices are held with the key channel as row, so
/// that the softmax runs across vectors. Nothing but the inputs is kept for the backward pass.
/// </summary>
internal static unsafe class ChannelAttentionTraining
{
    private const int Heads = 4, Each = 16, Square = Each * Each;
    private const float Floor = 1e-24f;

    /// <summary>Scratch values that a call needs for groups of so many pixels.</summary>
    public static int Scratch(int size) => (5 * size * Each) + (6 * Square);

    /// <summary>Computes the attention's output.</summary>
    /// <param name="qkv">(batch, height, width, 192): queries, keys, values.</param>
    /// <param name="temperature">(4).</param>
    /// <param name="kind">Window or Phase.</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows, a multiple of 8.</param>
    /// <param name="width">Columns, a multiple of 8.</param>
    /// <param name="output">(batch, height, width, 64).</param>
    /// <param name="scratch">As <see cref="Scratch"/> says.</param>
    public static void Forward<T>(T* qkv, float* temperature, PixelGroup kind, int batch, int height, int width, T* output, float* scratch)
        where T : unmanaged
    {
        int size = PixelGroups.Size(kind, height, width);
        int* pixels = stackalloc int[size];
        float* cosines = scratch, weights = cosines + Square, q = scratch + (6 * Square), k = q + (size * Each), v = k + (size * Each), result = v + (size * Each);
        for (int group = 0; group < PixelGroups.Count(kind, height, width); group++)
        {
            PixelGroups.List(kind, height, width, group, pixels);
            for (int image = 0; image < batch; image++)
            {
                long at = (long)image * height * width;
                for (int head = 0; head < Heads; head++)
                {
                    T* from = qkv + (at * 192) + (head * Each);
                    Vector512<float> queries = Gather(from, pixels, size, 192, q), keys = Gather(from + 64, pixels, size, 192, k);
                    _ = Gather(from + 128, pixels, size, 192, v);
                    Weights(q, k, size, Reciprocal(queries), Reciprocal(keys), temperature[head], cosines, weights);
                    Squares.RowProducts(v, Each, across: false, weights, Each, size, result);
                    Scatter(result, output + (at * 64) + (head * Each), pixels, size, 64);
                }
            }
        }
    }

    /// <summary>Computes the gradients.</summary>
    /// <param name="qkv">As <see cref="Forward"/>.</param>
    /// <param name="temperature">As <see cref="Forward"/>.</param>
    /// <param name="kind">As <see cref="Forward"/>.</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="output">Gradient of the output, (batch, height, width, 64).</param>
    /// <param name="gradient">Gets the gradient of <paramref name="qkv"/>.</param>
    /// <param name="temperatureGradient">(4), added to.</param>
    /// <param name="scratch">As <see cref="Scratch"/> says.</param>
    public static void Backward<T>(T* qkv, float* temperature, PixelGroup kind, int batch, int height, int width, T* output, T* gradient, float* temperatureGradient, float* scratch)
        where T : unmanaged
    {
        int size = PixelGroups.Size(kind, height, width);
        int* pixels = stackalloc int[size];
        float* cosines = scratch, weights = cosines + Square, slopes = weights + Square, turned = slopes + Square, factors = turned + Square;
        float* q = scratch + (6 * Square), k = q + (size * Each), v = k + (size * Each), o = v + (size * Each), result = o + (size * Each);
        for (int group = 0; group < PixelGroups.Count(kind, height, width); group++)
        {
            PixelGroups.List(kind, height, width, group, pixels);
            for (int image = 0; image < batch; image++)
            {
                long at = (long)image * height * width;
                for (int head = 0; head < Heads; head++)
                {
                    T* from = qkv + (at * 192) + (head * Each), to = gradient + (at * 192) + (head * Each);
                    Vector512<float> queries = Gather(from, pixels, size, 192, q), keys = Gather(from + 64, pixels, size, 192, k);
                    _ = Gather(from + 128, pixels, size, 192, v);
                    _ = Gather(output + (at * 64) + (head * Each), pixels, size, 64, o);
                    Vector512<float> queryScale = Reciprocal(queries), keyScale = Reciprocal(keys);
                    Weights(q, k, size, queryScale, keyScale, temperature[head], cosines, weights);

                    Squares.Transpose(weights, Each, turned, Each);
                    Squares.RowProducts(o, Each, across: false, turned, Each, size, result);
                    Scatter(result, to + 128, pixels, size, 192);

                    // Rows are key channels, lanes query channels: gradients of the weights, then of the logits.
                    Squares.OuterProducts(v, o, size, slopes);
                    Vector512<float> mean = default, heat = default;
                    for (int j = 0; j < Square; j += Each)
                        mean = MultiplyAdd(Load(weights + j), Load(slopes + j), mean);
                    Vector512<float> hot = Vector512.Create(temperature[head]);
                    for (int j = 0; j < Square; j += Each)
                    {
                        Vector512<float> slope = Load(weights + j) * (Load(slopes + j) - mean);
                        heat = MultiplyAdd(slope, Load(cosines + j), heat);
                        Store(slope * hot, slopes + j);
                    }
                    temperatureGradient[head] += Sum(heat);

                    // The cosine's denominators: what each channel's length takes away, per square of its norm.
                    Vector512<float> queryLoss = default;
                    float* keyScales = factors + Each;
                    Store(keyScale, keyScales);
                    for (int j = 0; j < Each; j++)
                    {
                        Vector512<float> slope = Load(slopes + (j * Each)), along = slope * Load(cosines + (j * Each));
                        queryLoss += along;
                        factors[j] = Sum(along);
                        Store(slope * queryScale * Vector512.Create(keyScales[j]), slopes + (j * Each));
                    }
                    Vector512<float> floor = Vector512.Create(Floor);
                    queryLoss = Vector512.ConditionalSelect(Vector512.GreaterThan(queries, floor), queryLoss * queryScale * queryScale, default);
                    Vector512<float> keyLoss = Vector512.ConditionalSelect(Vector512.GreaterThan(keys, floor), Load(factors) * keyScale * keyScale, default);

                    Squares.RowProducts(k, Each, across: false, slopes, Each, size, result);
                    Take(result, q, size, queryLoss);
                    Scatter(result, to, pixels, size, 192);
                    Squares.Transpose(slopes, Each, turned, Each);
                    Squares.RowProducts(q, Each, across: false, turned, Each, size, result);
                    Take(result, k, size, keyLoss);
                    Scatter(result, to + 64, pixels, size, 192);
                }
            }
        }
    }

    /// <summary>Copies a head's channels; returns the channels' squared norms.</summary>
    private static Vector512<float> Gather<T>(T* from, int* pixels, int size, int stride, float* to)
        where T : unmanaged
    {
        Vector512<float> squares = default;
        for (int p = 0; p < size; p++, to += Each)
        {
            Vector512<float> values = Load(from + ((long)pixels[p] * stride));
            squares = MultiplyAdd(values, values, squares);
            Store(values, to);
        }
        return squares;
    }

    private static void Scatter<T>(float* from, T* to, int* pixels, int size, int stride)
        where T : unmanaged
    {
        for (int p = 0; p < size; p++, from += Each)
            Store(Load(from), to + ((long)pixels[p] * stride));
    }

    private static Vector512<float> Reciprocal(Vector512<float> squares) =>
        Vector512<float>.One / Vector512.Sqrt(Vector512.Max(squares, Vector512.Create(Floor)));

    /// <summary>Cosines and softmax weights, rows key channels, lanes query channels.</summary>
    private static void Weights(float* q, float* k, int size, Vector512<float> queryScale, Vector512<float> keyScale, float temperature, float* cosines, float* weights)
    {
        Squares.OuterProducts(k, q, size, cosines);
        float* scales = stackalloc float[Each];
        Store(keyScale, scales);
        Vector512<float> hot = Vector512.Create(temperature), peak = Vector512.Create(float.NegativeInfinity), sum = default;
        for (int j = 0; j < Each; j++)
        {
            Vector512<float> cosine = Load(cosines + (j * Each)) * queryScale * Vector512.Create(scales[j]);
            Store(cosine, cosines + (j * Each));
            peak = Vector512.Max(peak, cosine * hot);
        }
        for (int j = 0; j < Square; j += Each)
        {
            Vector512<float> weight = Exp((Load(cosines + j) * hot) - peak);
            sum += weight;
            Store(weight, weights + j);
        }
        Vector512<float> factor = Vector512<float>.One / sum;
        for (int j = 0; j < Square; j += Each)
            Store(Load(weights + j) * factor, weights + j);
    }

    /// <summary>values -= rows factor.</summary>
    private static void Take(float* values, float* rows, int size, Vector512<float> factor)
    {
        for (int i = 0; i < size * Each; i += Each)
            Store(Load(values + i) - (Load(rows + i) * factor), values + i);
    }
}

using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Softmax attention among the 16 channels of each of 4 heads over the pixels of a group, with its gradient. Logits are
/// the cosines of query and key channels times the head's temperature. Matrices are held with the key channel as row, so
/// that the softmax runs across vectors. Nothing but the inputs is kept for the backward pass.
/// </summary>
/// <typeparam name="V">The vectors.</typeparam>
internal static unsafe class ChannelAttentionTraining<V>
    where V : unmanaged, IFloats<V>
{
    private const int Heads = 4, Each = 16, Square = Each * Each;
    private const float Floor = 1e-24f, Longest = 9.99e11f;

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
        float* cosines = scratch, weights = cosines + Square, norms = weights + Square, q = scratch + (6 * Square), k = q + (size * Each), v = k + (size * Each), result = v + (size * Each);
        for (int group = 0; group < PixelGroups.Count(kind, height, width); group++)
        {
            PixelGroups.List(kind, height, width, group, pixels);
            for (int image = 0; image < batch; image++)
            {
                long at = (long)image * height * width;
                for (int head = 0; head < Heads; head++)
                {
                    T* from = qkv + (at * 192) + (head * Each);
                    Gather(from, pixels, size, 192, q, norms);
                    Gather(from + 64, pixels, size, 192, k, norms + Each);
                    Gather(from + 128, pixels, size, 192, v, null);
                    Weights(q, k, size, norms, temperature[head], cosines, weights);
                    Mix(v, weights, size, result);
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
        float* cosines = scratch, weights = cosines + Square, slopes = weights + Square, turned = slopes + Square, norms = turned + Square, losses = norms + (2 * Each);
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
                    Gather(from, pixels, size, 192, q, norms);
                    Gather(from + 64, pixels, size, 192, k, norms + Each);
                    Gather(from + 128, pixels, size, 192, v, null);
                    Gather(output + (at * 64) + (head * Each), pixels, size, 64, o, null);
                    Weights(q, k, size, norms, temperature[head], cosines, weights);

                    Transpose<V>(weights, Each, Each, turned);
                    Mix(o, turned, size, result);
                    Scatter(result, to + 128, pixels, size, 192);

                    // Rows are key channels, lanes query channels: gradients of the weights, then of the logits.
                    Tiles.Multiply<V>(v, 1, Each, o, Each, null, 0, slopes, Each, Each, Each, size);
                    new Span<float>(losses, 2 * Each).Clear();
                    for (int c = 0; c < Each; c += V.Count)
                        temperatureGradient[head] += Slopes(weights + c, cosines + c, slopes + c, temperature[head], norms + c, norms + Each, losses + c, losses + Each);
                    // The cosine's denominators: what each channel's length takes away, per square of its norm; not where it is floored.
                    for (int c = 0; c < 2 * Each; c++)
                        losses[c] = norms[c] < Longest ? losses[c] * norms[c] * norms[c] : 0;

                    Mix(k, slopes, size, result);
                    Take(result, q, size, losses);
                    Scatter(result, to, pixels, size, 192);
                    Transpose<V>(slopes, Each, Each, turned);
                    Mix(q, turned, size, result);
                    Take(result, k, size, losses + Each);
                    Scatter(result, to + 64, pixels, size, 192);
                }
            }
        }
    }

    /// <summary>
    /// Gradients of the weights to those of the logits before the norms, for a vector of query channels; adds to the losses
    /// of query and key channels; returns the gradient of the temperature.
    /// </summary>
    private static float Slopes(float* weights, float* cosines, float* slopes, float temperature, float* queryScales, float* keyScales, float* queryLosses, float* keyLosses)
    {
        V mean = default, heat = default, hot = V.Create(temperature), queryLoss = default, queryScale = V.Load(queryScales);
        for (int j = 0; j < Square; j += Each)
            mean = V.MultiplyAdd(V.Load(weights + j), V.Load(slopes + j), mean);
        for (int j = 0; j < Each; j++)
        {
            V cosine = V.Load(cosines + (j * Each)), slope = V.Load(weights + (j * Each)) * (V.Load(slopes + (j * Each)) - mean);
            heat = V.MultiplyAdd(slope, cosine, heat);
            slope *= hot;
            V along = slope * cosine;
            queryLoss += along;
            keyLosses[j] += V.Sum(along);
            V.Store(slope * queryScale * V.Create(keyScales[j]), slopes + (j * Each));
        }
        V.Store(queryLoss, queryLosses);
        return V.Sum(heat);
    }

    /// <summary>Copies a head's channels; gives the reciprocal norms of the channels where wanted.</summary>
    private static void Gather<T>(T* from, int* pixels, int size, int stride, float* to, float* norms)
        where T : unmanaged
    {
        for (int c = 0; c < Each; c += V.Count)
        {
            V squares = default;
            for (int p = 0; p < size; p++)
            {
                V values = V.Load(from + ((long)pixels[p] * stride) + c);
                squares = V.MultiplyAdd(values, values, squares);
                V.Store(values, to + (p * Each) + c);
            }
            if (norms is not null)
                V.Store(V.Create(1) / V.Sqrt(V.Max(squares, V.Create(Floor))), norms + c);
        }
    }

    private static void Scatter<T>(float* from, T* to, int* pixels, int size, int stride)
        where T : unmanaged
    {
        for (int p = 0; p < size; p++, from += Each)
        {
            for (int c = 0; c < Each; c += V.Count)
                V.Store(V.Load(from + c), to + ((long)pixels[p] * stride) + c);
        }
    }

    /// <summary>(size, 16) = (size, 16) (16, 16).</summary>
    private static void Mix(float* values, float* square, int size, float* result) => Tiles.Multiply<V>(values, Each, 1, square, Each, null, 0, result, Each, size, Each, Each);

    /// <summary>Cosines and softmax weights, rows key channels, lanes query channels.</summary>
    private static void Weights(float* q, float* k, int size, float* norms, float temperature, float* cosines, float* weights)
    {
        Tiles.Multiply<V>(k, 1, Each, q, Each, null, 0, cosines, Each, Each, Each, size);
        V hot = V.Create(temperature);
        for (int c = 0; c < Each; c += V.Count)
        {
            V queryScale = V.Load(norms + c), peak = V.Create(float.NegativeInfinity), sum = default;
            for (int j = 0; j < Each; j++)
            {
                V cosine = V.Load(cosines + (j * Each) + c) * queryScale * V.Create(norms[Each + j]);
                V.Store(cosine, cosines + (j * Each) + c);
                peak = V.Max(peak, cosine * hot);
            }
            for (int j = c; j < Square; j += Each)
            {
                V weight = Exp((V.Load(cosines + j) * hot) - peak);
                sum += weight;
                V.Store(weight, weights + j);
            }
            V factor = V.Create(1) / sum;
            for (int j = c; j < Square; j += Each)
                V.Store(V.Load(weights + j) * factor, weights + j);
        }
    }

    /// <summary>values -= rows factor.</summary>
    private static void Take(float* values, float* rows, int size, float* factors)
    {
        for (int c = 0; c < Each; c += V.Count)
        {
            V factor = V.Load(factors + c);
            for (int i = c; i < size * Each; i += Each)
                V.Store(V.Load(values + i) - (V.Load(rows + i) * factor), values + i);
        }
    }
}

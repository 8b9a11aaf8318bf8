using System.Globalization;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.JointSr;

/// <summary>
/// The joint part of JointSR (paper section 3.4): a tail for each scale, the deblock branch and the final convolution.
/// Names: <c>tail{k}</c>, <c>deblock.{0,2,4}</c>, PReLU slopes <c>deblock.{1,3,5}.weight</c>, <c>final</c>.
/// </summary>
public static class JointSrParameters
{
    /// <summary>Channels of the stitched features: 3 k1^2, so that the final pixel shuffle by k1 gives RGB.</summary>
    public static int FeatureChannels(int finestScale) => 3 * finestScale * finestScale;

    /// <summary>Every parameter of the joint part with its shape.</summary>
    /// <param name="scales">Ascending; each a multiple of the first.</param>
    /// <param name="channels">Channels of the extractors.</param>
    public static IReadOnlyList<(string Name, long[] Shape)> Shapes(IReadOnlyList<int> scales, int channels)
    {
        long c = FeatureChannels(scales[0]);
        var list = new List<(string, long[])>();
        foreach (int scale in scales)
        {
            long ratio = scale / scales[0];
            list.Add((Tail(scale) + ".weight", [c * ratio * ratio, channels, 3, 3]));
            list.Add((Tail(scale) + ".bias", [c * ratio * ratio]));
        }
        for (int i = 0; i < 6; i += 2)
        {
            list.Add(($"deblock.{i}.weight", [c, c, 3, 3]));
            list.Add(($"deblock.{i}.bias", [c]));
            list.Add(($"deblock.{i + 1}.weight", [1]));
        }
        list.Add(("final.weight", [c, c, 3, 3]));
        list.Add(("final.bias", [c]));
        return list;
    }

    /// <summary>
    /// Parameters and multiply-accumulates of the joint part for one block at a scale: its tail, the deblock branch over
    /// all of its features (as the paper counts) and the final convolution. The parameters are those of all tails.
    /// </summary>
    /// <param name="scales">As <see cref="Shapes"/>.</param>
    /// <param name="channels">Channels of the extractors.</param>
    /// <param name="scale">The block's scale, one of <paramref name="scales"/>.</param>
    /// <param name="blockSize">Side of the HR block, pixels.</param>
    public static NetworkCost BlockCost(IReadOnlyList<int> scales, int channels, int scale, int blockSize = 128)
    {
        long features = (long)(blockSize / scales[0]) * (blockSize / scales[0]), pixels = (long)(blockSize / scale) * (blockSize / scale);
        return NetworkCost.Of(Shapes(scales, channels),
            name => !name.StartsWith("tail", StringComparison.Ordinal) ? features : name == Tail(scale) + ".weight" ? pixels : 0,
            3 * FeatureChannels(scales[0]) * features);
    }

    /// <summary>
    /// The warm start: values with which JointSR equals block-wise super-resolution by the single-scale networks exactly.
    /// Deblock and final convolution are the identity; each tail is the network's own with its outputs in the order that
    /// two pixel shuffles need (first by k / k1, then by k1) instead of one by k.
    /// </summary>
    /// <param name="tails">Scale to weight (3 k^2, C, 3, 3) and bias (3 k^2) of the single-scale networks, ascending.</param>
    public static IReadOnlyDictionary<string, TensorData> WarmStart(IReadOnlyList<(int Scale, TensorData Weight, TensorData Bias)> tails)
    {
        int first = tails[0].Scale, channels = FeatureChannels(first);
        var values = new Dictionary<string, TensorData>(StringComparer.Ordinal);
        foreach ((int scale, TensorData weight, TensorData bias) in tails)
        {
            int[] order = TailOrder(scale, first);
            values.Add(Tail(scale) + ".weight", weight with { Values = Permute(weight.Values, order) });
            values.Add(Tail(scale) + ".bias", bias with { Values = Permute(bias.Values, order) });
        }

        var identity = new float[channels * channels * 9];
        for (int i = 0; i < channels; i++)
            identity[(((i * channels) + i) * 9) + 4] = 1;
        foreach (string name in (string[])["deblock.0", "deblock.2", "deblock.4", "final"])
        {
            values.Add(name + ".weight", new TensorData([channels, channels, 3, 3], identity));
            values.Add(name + ".bias", new TensorData([channels], new float[channels]));
        }
        for (int i = 1; i < 6; i += 2)
            values.Add($"deblock.{i}.weight", new TensorData([1], [1]));
        return values;
    }

    /// <summary>Which output of a single-scale tail becomes output 0, 1, ... of the joint tail.</summary>
    public static int[] TailOrder(int scale, int finestScale)
    {
        if (scale % finestScale != 0)
            throw new ArgumentException($"Scale {scale} is not a multiple of {finestScale}: JointSR cannot join them.", nameof(scale));
        int k = scale, k1 = finestScale, r = k / k1;
        var order = new int[3 * k * k];
        for (int c = 0; c < 3; c++)
        {
            for (int i2 = 0; i2 < k1; i2++)
            {
                for (int j2 = 0; j2 < k1; j2++)
                {
                    for (int i1 = 0; i1 < r; i1++)
                    {
                        for (int j1 = 0; j1 < r; j1++)
                            order[(((c * k1 * k1) + (k1 * i2) + j2) * r * r) + (r * i1) + j1] = (c * k * k) + (k * ((k1 * i1) + i2)) + (k1 * j1) + j2;
                    }
                }
            }
        }
        return order;
    }

    internal static string Tail(int scale) => "tail" + scale.ToString(CultureInfo.InvariantCulture);

    private static float[] Permute(float[] values, int[] order)
    {
        int each = values.Length / order.Length;
        var result = new float[values.Length];
        for (int i = 0; i < order.Length; i++)
            values.AsSpan(order[i] * each, each).CopyTo(result.AsSpan(i * each));
        return result;
    }
}

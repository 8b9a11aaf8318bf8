using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks.JointSr;

/// <summary>
/// What JointSR does behind the feature extractors: tails bring every block to 3 k1^2 channels at 1/k1 of HR size, the
/// deblock branch runs over the stitched map, bands beside the seams are replaced by its result, the final convolution
/// and pixel shuffle give the image. All float32: 12-channel convolutions, and an 8-bit pixel does not fit into bfloat16.
/// Differentiable when its parameters are; used on one thread.
/// </summary>
public sealed class JointSrHead
{
    /// <summary>Feature pixels replaced on each side of a seam: the deblock branch's radius, so exactly those that see the other block.</summary>
    public const int SeamWidth = 3;

    /// <summary>Feature rows from which on a map is independent of what lies beyond its edge: deblock 3 and final convolution 1.</summary>
    public const int Halo = SeamWidth + 1;

    private readonly ParameterSet _parameters;
    private readonly IReadOnlyList<int> _scales;
    private readonly IReadOnlyList<float>? _mean;
    private readonly bool _deblocks, _convolves;

    /// <summary>Wraps parameters.</summary>
    /// <param name="scales">Ascending.</param>
    /// <param name="parameters">Named as <see cref="JointSrParameters.Shapes"/>; not owned.</param>
    /// <param name="skipIdentity">Leave out the deblock branch and the final convolution where they are exactly the identity (the warm start).</param>
    /// <param name="mean">RGB that the extractors subtracted, added to the image; null where there is none.</param>
    public JointSrHead(IReadOnlyList<int> scales, ParameterSet parameters, bool skipIdentity = true, IReadOnlyList<float>? mean = null)
    {
        (_scales, _parameters, _mean) = (scales, parameters, mean);
        _convolves = !(skipIdentity && IsIdentity("final"));
        _deblocks = !(skipIdentity && ((string[])["deblock.0", "deblock.2", "deblock.4"]).All(IsIdentity)
            && ((string[])["deblock.1.weight", "deblock.3.weight", "deblock.5.weight"]).All(name => parameters[name].item<float>() == 1));
    }

    /// <summary>As the other overload, of a map that needed no padding.</summary>
    public Tensor Tail(Tensor features, int scale) => Tail(features, scale, features.shape[1], features.shape[2]);

    /// <summary>The tail of a scale: extractor features (B, h', w', C) to (B, h r, w r, 3 k1^2), r = scale / k1.</summary>
    /// <param name="features">Of a map that the extractor may have padded.</param>
    /// <param name="scale">The scale.</param>
    /// <param name="height">h, rows of the map without padding.</param>
    /// <param name="width">w.</param>
    public Tensor Tail(Tensor features, int scale, long height, long width)
    {
        using var scope = NewDisposeScope();
        string name = JointSrParameters.Tail(scale);
        Tensor y = Nhwc.Convolution(features, _parameters[name + ".weight"], _parameters[name + ".bias"]);
        int ratio = scale / _scales[0];
        y = Nhwc.PixelShuffle(y, ratio);
        if (y.shape[1] != height * ratio || y.shape[2] != width * ratio)
            y = y.narrow(1, 0, height * ratio).narrow(2, 0, width * ratio).contiguous();
        return y.MoveToOuterDisposeScope();
    }

    /// <summary>Stitched features to image.</summary>
    /// <param name="map">(1, H, W, 3 k1^2).</param>
    /// <param name="seamRows">Rows at which a block begins below another block.</param>
    /// <param name="seamColumns">Columns at which a block begins right of another block.</param>
    /// <returns>(1, H k1, W k1, 3), not clamped.</returns>
    public Tensor Image(Tensor map, IReadOnlyList<int> seamRows, IReadOnlyList<int> seamColumns)
    {
        using var scope = NewDisposeScope();
        Tensor y = map;
        if (_deblocks && (seamRows.Count > 0 || seamColumns.Count > 0))
        {
            Tensor clean = map;
            for (int i = 0; i < 6; i += 2)
            {
                clean = Nhwc.Convolution(clean, _parameters[$"deblock.{i}.weight"], _parameters[$"deblock.{i}.bias"]);
                clean = F.prelu(clean, _parameters[$"deblock.{i + 1}.weight"]);
            }
            y = where(SeamMask(map, seamRows, seamColumns), clean, map);
        }
        if (_convolves)
            y = Nhwc.Convolution(y, _parameters["final.weight"], _parameters["final.bias"]);
        Tensor image = Nhwc.PixelShuffle(y, _scales[0]);
        if (_mean is not null)
            image = Nhwc.AddColour(image, _mean);
        return (ReferenceEquals(image, map) ? image.alias() : image).MoveToOuterDisposeScope();
    }

    /// <summary>True within <see cref="SeamWidth"/> of a seam; (1, H, W, 1).</summary>
    private static Tensor SeamMask(Tensor map, IReadOnlyList<int> seamRows, IReadOnlyList<int> seamColumns)
    {
        using var scope = NewDisposeScope();
        int height = (int)map.shape[1], width = (int)map.shape[2];
        Tensor rows = tensor(Near(seamRows, height), [1, height, 1, 1], device: map.device);
        Tensor columns = tensor(Near(seamColumns, width), [1, 1, width, 1], device: map.device);
        return rows.logical_or(columns).MoveToOuterDisposeScope();

        static bool[] Near(IReadOnlyList<int> seams, int length)
        {
            var near = new bool[length];
            foreach (int seam in seams)
            {
                for (int i = Math.Max(0, seam - SeamWidth); i < Math.Min(length, seam + SeamWidth); i++)
                    near[i] = true;
            }
            return near;
        }
    }

    private bool IsIdentity(string name)
    {
        using var scope = NewDisposeScope();
        float[] bias = _parameters[name + ".bias"].cpu().data<float>().ToArray(), weight = _parameters[name + ".weight"].cpu().data<float>().ToArray();
        int channels = bias.Length;
        for (int i = 0; i < weight.Length; i++)
        {
            bool centreOfDiagonal = i % 9 == 4 && i / 9 / channels == i / 9 % channels;
            if (weight[i] != (centreOfDiagonal ? 1 : 0))
                return false;
        }
        return bias.All(value => value == 0);
    }
}

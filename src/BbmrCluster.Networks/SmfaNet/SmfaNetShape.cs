using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.SmfaNet;

/// <summary>
/// What varies between SMFANet networks (Zheng et al., "SMFANet: A Lightweight Self-Modulation Feature Aggregation Network
/// for Efficient Image Super-Resolution", ECCV 2024). The published SMFANet+ has 12 blocks of 48 channels, SMFANet 8 of 36.
/// </summary>
/// <param name="Scale">Upscaling factor, at least 1.</param>
/// <param name="Blocks">Feature modulation blocks, at least 1.</param>
/// <param name="Channels">Feature channels, even.</param>
public sealed record SmfaNetShape(int Scale, int Blocks, int Channels = 48) : SrNetworkShape(Scale, Channels)
{
    internal const string ArchitectureName = "smfanet", Tail = "to_img.0";

    /// <summary>Side of a cell of the coarse map that gates the features, LR pixels.</summary>
    internal const int Cell = 8;

    /// <summary>SMFANet+ at a scale.</summary>
    public static SmfaNetShape Published(int scale) => new(scale, 12);

    /// <inheritdoc/>
    public override string Architecture => ArchitectureName;

    /// <inheritdoc/>
    public override string Title => $"an SMFANet network of {Blocks} blocks and {Channels} channels";

    /// <inheritdoc/>
    public override int Multiple => 1;

    /// <inheritdoc/>
    public override int MinimumSide => Cell;

    /// <inheritdoc/>
    public override string TailName => Tail;

    /// <inheritdoc/>
    public override float UsualBlack => 0;

    /// <inheritdoc/>
    public override string HeadName => "to_feat";

    /// <inheritdoc/>
    public override IReadOnlyList<string> BranchEnds => [.. Enumerable.Range(0, Blocks).SelectMany(i => (string[])[$"feats.{i}.smfa.linear_2", $"feats.{i}.pcfn.conv_2"])];

    /// <inheritdoc/>
    /// <remarks>Along the residual stream of the blocks, and past all of them.</remarks>
    public override int PassedOn => 2;

    /// <inheritdoc/>
    public override IReadOnlyList<NetworkSize> Sizes => [new("blocks", [Blocks]), new("channels", [Channels])];

    /// <inheritdoc/>
    public override ParameterStart StartOf(string name) => name.EndsWith(".alpha", StringComparison.Ordinal) ? ParameterStart.Ones
        : name.EndsWith(".belt", StringComparison.Ordinal) ? ParameterStart.Zeros
        : ParameterStart.ByRank;

    /// <inheritdoc/>
    /// <remarks>A new block begins with branches that add nothing.</remarks>
    public override IReadOnlyDictionary<string, TensorData>? GrownFrom(SrNetworkShape shallow, IReadOnlyDictionary<string, TensorData> state, IReadOnlyDictionary<string, TensorData> start)
    {
        if (shallow is not SmfaNetShape { Blocks: int blocks } || blocks >= Blocks)
            return null;
        var values = new Dictionary<string, TensorData>(start, StringComparer.Ordinal);
        foreach ((string name, TensorData tensor) in state)
            values[name] = tensor;
        return values;
    }

    /// <inheritdoc/>
    public override SrNetwork CreateNetwork(ParameterSet parameters, ScalarType body = ScalarType.Float32, bool training = false) => new SmfaNetNetwork(this, parameters, body, training);

    /// <inheritdoc/>
    /// <remarks>The tail comes last, so that a feature extractor is all but the last two.</remarks>
    public override IReadOnlyList<(string Name, long[] Shape)> Parameters
    {
        get
        {
            var list = new List<(string, long[])>();
            long d = Channels, wide = 2 * d, part = d / 2;
            Biased(HeadName, d, 3, 3, 3);
            for (int i = 0; i < Blocks; i++)
            {
                string smfa = $"feats.{i}.smfa.", pcfn = $"feats.{i}.pcfn.";
                list.Add((smfa + "alpha", [1, d, 1, 1]));
                list.Add((smfa + "belt", [1, d, 1, 1]));
                Biased(smfa + "linear_0", wide, d, 1, 1);
                Biased(smfa + "linear_1", d, d, 1, 1);
                Biased(smfa + "linear_2", d, d, 1, 1);
                Biased(smfa + "lde.conv_0.0", wide, 1, 3, 3);
                Biased(smfa + "lde.conv_0.1", wide, wide, 1, 1);
                Biased(smfa + "lde.conv_1", d, wide, 1, 1);
                Biased(smfa + "dw_conv", d, 1, 3, 3);
                Biased(pcfn + "conv_0", wide, d, 1, 1);
                Biased(pcfn + "conv_1", part, part, 3, 3);
                Biased(pcfn + "conv_2", d, wide, 1, 1);
            }
            Biased(TailName, 3L * Scale * Scale, d, 3, 3);
            return list;

            void Biased(string name, params long[] shape)
            {
                list.Add((name + ".weight", shape));
                list.Add((name + ".bias", [shape[0]]));
            }
        }
    }

    /// <inheritdoc/>
    public override NetworkCost BlockCost(int blockSize = 128)
    {
        long side = PaddedSide(blockSize / Scale), pixels = side * side, cells = side / Cell * (side / Cell);
        return NetworkCost.Of(Parameters,
            name => name.EndsWith("smfa.linear_1.weight", StringComparison.Ordinal) || name.EndsWith("smfa.dw_conv.weight", StringComparison.Ordinal) ? cells : pixels, more: 0);
    }

    /// <summary>Reads the shape off a state dict.</summary>
    /// <exception cref="InvalidDataException">The tensors are not those of an SMFANet network; one sentence.</exception>
    public static SmfaNetShape Of(IReadOnlyDictionary<string, TensorData> state, string source)
    {
        if (!state.TryGetValue("to_feat.weight", out TensorData? head) || head.Shape.Length != 4
            || !state.TryGetValue(Tail + ".weight", out TensorData? up) || up.Shape.Length != 4)
        {
            throw new InvalidDataException($"{source} does not hold an SMFANet network: to_feat.weight or {Tail}.weight is missing or of another rank.");
        }
        int blocks = 0, channels = (int)head.Shape[0], scale = (int)Math.Round(Math.Sqrt(up.Shape[0] / 3.0));
        while (state.ContainsKey($"feats.{blocks}.smfa.linear_0.weight"))
            blocks++;
        return scale >= 1 && 3L * scale * scale == up.Shape[0] && blocks >= 1 && channels >= 2 && channels % 2 == 0
            ? new SmfaNetShape(scale, blocks, channels)
            : throw new InvalidDataException($"{source} does not hold an SMFANet network: {up.Shape[0]} output channels, {channels} channels and {blocks} blocks do not go together.");
    }
}

using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Craft;

/// <summary>
/// What varies between CRAFT networks (Li et al., "Feature Modulation Transformer: Cross-Refinement of Global
/// Representation via High-Frequency Prior for Image Super-Resolution", ICCV 2023). The published ones have four groups
/// of depth 2, 48 channels and 6 heads.
/// </summary>
/// <param name="Scale">Upscaling factor, at least 1.</param>
/// <param name="Depths">Cross-refinement steps of each group; each step has two window blocks, one high-frequency block and one fusion block.</param>
/// <param name="Channels">Feature channels.</param>
/// <param name="Heads">Attention heads, half of them in each branch of the window attention.</param>
/// <param name="MlpChannels">Hidden channels of the window blocks' MLP.</param>
/// <param name="GateChannels">Hidden channels of the fusion blocks' gated feed-forward part: int(2.66 channels).</param>
/// <param name="ShortSide">Short side of an attention window, pixels.</param>
/// <param name="LongSide">Long side of an attention window, pixels.</param>
public sealed record CraftShape(int Scale, IReadOnlyList<int> Depths, int Channels = 48, int Heads = 6, int MlpChannels = 96, int GateChannels = 127, int ShortSide = 4, int LongSide = 16)
    : SrNetworkShape(Scale, Channels)
{
    internal const string ArchitectureName = "craft", Tail = "upsample.0";

    private static readonly string[] Buffers = ["relative_position_index_h", "relative_position_index_v", "biases_h", "biases_v"];
    private static readonly float[] RgbMean = [0.4488f, 0.4371f, 0.4040f];

    /// <summary>The published network at a scale.</summary>
    public static CraftShape Published(int scale) => new(scale, [2, 2, 2, 2]);

    /// <inheritdoc/>
    public override string Architecture => ArchitectureName;

    /// <inheritdoc/>
    public override string Title => $"a CRAFT network of {Groups(Depths.Count)}";

    /// <inheritdoc/>
    public override int Multiple => LeastCommonMultiple(ShortSide, LongSide);

    /// <inheritdoc/>
    public override string TailName => Tail;

    /// <inheritdoc/>
    public override float UsualBlack => 0;

    /// <inheritdoc/>
    public override string HeadName => "conv_first";

    /// <inheritdoc/>
    public override IReadOnlyList<string> BranchEnds => ["conv_after_body"];

    /// <inheritdoc/>
    public override IReadOnlyList<NetworkSize> Sizes => [new("depths", Depths, IsList: true)];

    /// <inheritdoc/>
    public override ParameterStart StartOf(string name) => name.EndsWith("temperature", StringComparison.Ordinal) ? ParameterStart.Ones : ParameterStart.ByRank;

    /// <inheritdoc/>
    public override IReadOnlyList<float>? Mean => RgbMean;

    /// <summary>Hidden width of the MLP behind the window attention's position bias; with 1 the bias has no effect.</summary>
    public int PositionChannels => Channels / 2 / 4 / 4;

    /// <inheritdoc/>
    public override SrNetwork CreateNetwork(ParameterSet parameters, ScalarType body = ScalarType.Float32, bool training = false) => new CraftNetwork(this, parameters, body, training);

    /// <inheritdoc/>
    /// <remarks>The tail comes last, so that a feature extractor is all but the last two.</remarks>
    public override IReadOnlyList<(string Name, long[] Shape)> Parameters
    {
        get
        {
            var list = new List<(string, long[])>();
            long c = Channels, half = c / 2, p = PositionChannels;
            Biased("conv_first", c, 3, 3, 3);
            for (int g = 0; g < Depths.Count; g++)
            {
                string group = $"layers.{g}.residual_group.";
                for (int j = 0; j < 2 * Depths[g]; j++)
                {
                    string block = $"{group}srwa_blocks.{j}.";
                    Biased(block + "norm1", c);
                    Biased(block + "qkv", 3 * c, c);
                    Biased(block + "proj", c, c);
                    Biased(block + "get_v", c, 1, 3, 3);
                    foreach (int branch in (int[])[0, 1])
                    {
                        string position = $"{block}attns.{branch}.pos.";
                        Biased(position + "pos_proj", p, 2);
                        foreach (int i in (int[])[1, 2, 3])
                        {
                            Biased($"{position}pos{i}.0", p);
                            Biased($"{position}pos{i}.2", i == 3 ? Heads / 2 : p, p);
                        }
                    }
                    Biased(block + "norm2", c);
                    Biased(block + "mlp.fc1", MlpChannels, c);
                    Biased(block + "mlp.fc2", c, MlpChannels);
                }
                for (int i = 0; i < Depths[g]; i++)
                {
                    string high = $"{group}hfer_blocks.{i}.", fusion = $"{group}hf_blocks.{i}.";
                    Biased(high + "last_fc", c, c, 1, 1);
                    Biased(high + "fc", half, half, 1, 1);
                    Biased(high + "conv", half, half, 3, 3);
                    Biased(fusion + "norm1.body", c);
                    list.Add((fusion + "attn.temperature", [Heads, 1, 1]));
                    list.Add((fusion + "attn.q.weight", [c, c, 1, 1]));
                    list.Add((fusion + "attn.q_dwconv.weight", [c, 1, 3, 3]));
                    list.Add((fusion + "attn.kv.weight", [2 * c, c, 1, 1]));
                    list.Add((fusion + "attn.kv_dwconv.weight", [2 * c, 1, 3, 3]));
                    list.Add((fusion + "attn.project_out.weight", [c, c, 1, 1]));
                    Biased(fusion + "norm2.body", c);
                    list.Add((fusion + "ffn.project_in.weight", [2 * GateChannels, c, 1, 1]));
                    list.Add((fusion + "ffn.dwconv.weight", [2 * GateChannels, 1, 3, 3]));
                    list.Add((fusion + "ffn.project_out.weight", [c, GateChannels, 1, 1]));
                }
                Biased($"layers.{g}.conv", c, c, 3, 3);
            }
            Biased("norm.body", c);
            Biased("conv_after_body", c, c, 3, 3);
            Biased(TailName, 3L * Scale * Scale, c, 3, 3);
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
        long side = PaddedSide(blockSize / Scale), pixels = side * side, steps = Depths.Sum(), tokens = ShortSide * LongSide;
        long offsets = ((2 * ShortSide) - 1) * ((2 * LongSide) - 1);
        long normalised = (2 * Channels * pixels) + (2 * 3 * PositionChannels * offsets);
        long windowBlock = (4 * normalised) + NetworkCost.Softmax(pixels * Heads, tokens);
        return NetworkCost.Of(Parameters, name => name.Contains(".pos.", StringComparison.Ordinal) ? offsets : pixels,
            steps * ((2 * windowBlock) + NetworkCost.Softmax(Channels, Channels / Heads)));
    }

    /// <summary>Reads the shape off a state dict (official names; the constant buffers may be there).</summary>
    /// <exception cref="InvalidDataException">The tensors are not those of a CRAFT network; one sentence.</exception>
    public static CraftShape Of(IReadOnlyDictionary<string, TensorData> state, string source)
    {
        const string first = "layers.0.residual_group.";
        long[] input = Sizes("conv_first.weight", 4), up = Sizes("upsample.0.weight", 4), temperature = Sizes(first + "hf_blocks.0.attn.temperature", 3),
            mlp = Sizes(first + "srwa_blocks.0.mlp.fc1.weight", 2), gate = Sizes(first + "hf_blocks.0.ffn.project_out.weight", 4);
        var depths = new List<int>();
        for (int g = 0; state.ContainsKey($"layers.{g}.conv.weight"); g++)
        {
            int depth = 0;
            while (state.ContainsKey($"layers.{g}.residual_group.hf_blocks.{depth}.attn.q.weight"))
                depth++;
            depths.Add(depth);
        }

        int channels = (int)input[0], heads = (int)temperature[0], scale = (int)Math.Round(Math.Sqrt(up[0] / 3.0));
        (int shortSide, int longSide) = Window();
        if (scale < 1 || 3L * scale * scale != up[0] || depths.Count == 0 || depths.Contains(0) || heads < 2 || heads % 2 != 0 || channels % heads != 0 || channels < 32)
            throw new InvalidDataException($"{source} does not hold a CRAFT network: {up[0]} output channels, {channels} channels and {heads} heads do not go together.");
        return new CraftShape(scale, depths, channels, heads, (int)mlp[0], (int)gate[1], shortSide, longSide);

        long[] Sizes(string name, int rank) => state.TryGetValue(name, out TensorData? tensor) && tensor.Shape.Length == rank
            ? tensor.Shape
            : throw new InvalidDataException($"{source} does not hold a CRAFT network: {name} is missing or of another rank.");

        // The window shows only in a buffer that lists the offsets within it, from 1 - side to side - 1.
        (int Short, int Long) Window()
        {
            if (!state.TryGetValue("biases_h", out TensorData? offsets))
                return (4, 16);
            if (offsets.Shape.Length == 2 && offsets.Shape[1] == 2 && offsets.Shape[0] > 0)
            {
                int rows = 1 - (int)offsets.Values[0], columns = 1 - (int)offsets.Values[1];
                if (rows >= 1 && columns >= 1 && ((2L * rows) - 1) * ((2L * columns) - 1) == offsets.Shape[0])
                    return (rows, columns);
            }
            throw new InvalidDataException($"{source} does not hold a CRAFT network: biases_h does not list the offsets within a window.");
        }
    }

    /// <summary>A state dict without the constant buffers that official files hold.</summary>
    public static IReadOnlyDictionary<string, TensorData> WithoutBuffers(IReadOnlyDictionary<string, TensorData> state) =>
        state.Where(pair => !Buffers.Contains(pair.Key, StringComparer.Ordinal)).ToDictionary(StringComparer.Ordinal);

    private static int LeastCommonMultiple(int a, int b)
    {
        int x = a, y = b;
        while (y != 0)
            (x, y) = (y, x % y);
        return a / x * b;
    }
}

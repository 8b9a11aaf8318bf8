using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.OmniSr;

/// <summary>
/// What varies between OmniSR networks (Wang et al., CVPR 2023). The very lightweight one of the BBMR paper has one
/// OSAG, the published ones five.
/// </summary>
/// <param name="Scale">Upscaling factor, at least 1.</param>
/// <param name="Osags">Number of omni self-attention groups, at least 1.</param>
/// <param name="Channels">Feature channels.</param>
/// <param name="Heads">Attention heads; they divide the channels.</param>
/// <param name="Window">Side of an attention window, pixels; maps are padded to a multiple of it.</param>
public sealed record OmniSrShape(int Scale, int Osags, int Channels = 64, int Heads = 4, int Window = 8) : SrNetworkShape(Scale, Channels)
{
    internal const string ArchitectureName = "omnisr", Tail = "up.0";

    private const string LastName = "output";

    /// <inheritdoc/>
    public override string Architecture => ArchitectureName;

    /// <inheritdoc/>
    public override string Title => $"an OmniSR network of {Groups(Osags)}";

    /// <inheritdoc/>
    public override int Multiple => Window;

    /// <summary>Smallest map side, LR pixels: the spatial attention's stride-2 convolution and 7-pixel pooling need 15, padded to whole windows.</summary>
    public override int MinimumSide => (15 + Window - 1) / Window * Window;

    /// <inheritdoc/>
    public override string TailName => Tail;

    /// <inheritdoc/>
    public override float UsualBlack => -1;

    /// <inheritdoc/>
    public override string HeadName => "input";

    /// <inheritdoc/>
    public override IReadOnlyList<string> BranchEnds => [LastName];

    /// <inheritdoc/>
    public override IReadOnlyList<NetworkSize> Sizes => [new("osags", [Osags])];

    /// <inheritdoc/>
    public override ParameterStart StartOf(string name) => name.EndsWith("rel_pos_bias.weight", StringComparison.Ordinal) ? ParameterStart.Normal
        : name.EndsWith("temperature", StringComparison.Ordinal) ? ParameterStart.Ones
        : ParameterStart.ByRank;

    /// <inheritdoc/>
    /// <remarks>
    /// Each new group adds nothing (the 1x1 convolution behind its attention is zero), its spatial attention is one
    /// constant, and the last convolution undoes that constant.
    /// </remarks>
    public override IReadOnlyDictionary<string, TensorData>? GrownFrom(SrNetworkShape shallow, IReadOnlyDictionary<string, TensorData> state, IReadOnlyDictionary<string, TensorData> start)
    {
        // sigmoid(2) = 0.88 is near enough to 1 to keep the features' size and far enough for a gradient.
        const float GateBias = 2;
        if (shallow is not OmniSrShape { Osags: int groups } || groups >= Osags)
            return null;
        var values = new Dictionary<string, TensorData>(start, StringComparer.Ordinal);
        foreach ((string name, TensorData tensor) in state)
            values[name] = tensor;
        for (int group = groups; group < Osags; group++)
        {
            string prefix = $"residual_layer.{group}.";
            foreach (string name in (string[])["residual_layer.1.weight", "residual_layer.1.bias", "esa.conv4.weight"])
                Fill(prefix + name, 0);
            Fill(prefix + "esa.conv4.bias", GateBias);
        }
        float undo = MathF.Pow(1 + MathF.Exp(-GateBias), Osags - groups);
        TensorData last = values[LastName + ".weight"];
        values[LastName + ".weight"] = last with { Values = Array.ConvertAll(last.Values, value => value * undo) };
        return values;

        void Fill(string name, float value) => values[name] = values[name] with { Values = [.. Enumerable.Repeat(value, values[name].Values.Length)] };
    }

    /// <inheritdoc/>
    public override SrNetwork CreateNetwork(ParameterSet parameters, ScalarType body = ScalarType.Float32, bool training = false) => new OmniSrNetwork(this, parameters, body, training);

    /// <summary>Channels inside the enhanced spatial attention.</summary>
    public int SpatialAttentionChannels => Math.Max(Channels / 4, 16);

    /// <inheritdoc/>
    /// <remarks>The tail comes last, so that a feature extractor is all but the last two.</remarks>
    public override IReadOnlyList<(string Name, long[] Shape)> Parameters
    {
        get
        {
            var list = new List<(string, long[])>();
            long c = Channels, f = SpatialAttentionChannels;
            Biased("input", c, 3, 3, 3);
            for (int i = 0; i < Osags; i++)
            {
                string p = $"residual_layer.{i}.", q = p + "residual_layer.0.layer.";
                Biased(q + "0.fn.0", c, c, 1, 1);
                Biased(q + "0.fn.2", c, 1, 3, 3);
                list.Add((q + "0.fn.4.gate.1.weight", [c / 4, c]));
                list.Add((q + "0.fn.4.gate.3.weight", [c, c / 4]));
                Biased(q + "0.fn.5", c, c, 1, 1);
                foreach (int n in (int[])[2, 8])
                {
                    Biased($"{q}{n}.norm", c);
                    list.Add(($"{q}{n}.fn.to_qkv.weight", [3 * c, c]));
                    list.Add(($"{q}{n}.fn.to_out.0.weight", [c, c]));
                    list.Add(($"{q}{n}.fn.rel_pos_bias.weight", [(2 * Window - 1) * (2 * Window - 1), Heads]));
                }
                foreach (int n in (int[])[4, 6, 10, 12])
                {
                    Biased($"{q}{n}.norm", c);
                    list.Add(($"{q}{n}.fn.project_in.weight", [2 * c, c, 1, 1]));
                    list.Add(($"{q}{n}.fn.dwconv.weight", [2 * c, 1, 3, 3]));
                    list.Add(($"{q}{n}.fn.project_out.weight", [c, c, 1, 1]));
                }
                foreach (int n in (int[])[5, 11])
                {
                    Biased($"{q}{n}.norm", c);
                    list.Add(($"{q}{n}.fn.temperature", [Heads, 1, 1]));
                    list.Add(($"{q}{n}.fn.qkv.weight", [3 * c, c, 1, 1]));
                    list.Add(($"{q}{n}.fn.qkv_dwconv.weight", [3 * c, 1, 3, 3]));
                    list.Add(($"{q}{n}.fn.project_out.weight", [c, c, 1, 1]));
                }
                Biased(p + "residual_layer.1", c, c, 1, 1);
                Biased(p + "esa.conv1", f, c, 1, 1);
                Biased(p + "esa.conv_f", f, f, 1, 1);
                Biased(p + "esa.conv2", f, f, 3, 3);
                Biased(p + "esa.conv3", f, f, 3, 3);
                Biased(p + "esa.conv4", c, f, 1, 1);
            }
            Biased(LastName, c, c, 3, 3);
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
        long side = PaddedSide(blockSize / Scale), pixels = side * side, tokens = Window * Window;
        long strided = ((side - 3) / 2) + 1, pooled = ((strided - 7) / 3) + 1;
        long positionAttention = (4 * Channels * pixels) + NetworkCost.Softmax(pixels * Heads, tokens);
        return NetworkCost.Of(Parameters,
            name => name.Contains(".gate.", StringComparison.Ordinal) ? 1
                : name.Contains("rel_pos_bias", StringComparison.Ordinal) ? 0
                : name.Contains("esa.conv2", StringComparison.Ordinal) ? strided * strided
                : name.Contains("esa.conv3", StringComparison.Ordinal) ? pooled * pooled
                : pixels,
            Osags * 2 * positionAttention);
    }

    /// <summary>Reads the shape off a state dict.</summary>
    /// <exception cref="InvalidDataException">The tensors are not those of an OmniSR network; one sentence.</exception>
    public static OmniSrShape Of(IReadOnlyDictionary<string, TensorData> state, string source)
    {
        const string table = "residual_layer.0.residual_layer.0.layer.2.fn.rel_pos_bias.weight";
        if (!state.TryGetValue("input.weight", out TensorData? input) || input.Shape.Length != 4
            || !state.TryGetValue("up.0.weight", out TensorData? up) || up.Shape.Length != 4
            || !state.TryGetValue(table, out TensorData? bias) || bias.Shape.Length != 2)
        {
            throw new InvalidDataException($"{source} does not hold an OmniSR network: input.weight, up.0.weight or {table} is missing.");
        }

        int channels = (int)input.Shape[0], heads = (int)bias.Shape[1];
        int window = ((int)Math.Round(Math.Sqrt(bias.Shape[0])) + 1) / 2;
        int scale = (int)Math.Round(Math.Sqrt(up.Shape[0] / 3.0));
        int osags = 0;
        while (state.ContainsKey($"residual_layer.{osags}.esa.conv1.weight"))
            osags++;
        if (scale < 1 || 3L * scale * scale != up.Shape[0] || (2 * window - 1) * (2 * window - 1) != bias.Shape[0] || osags < 1 || heads < 1 || channels % (4 * heads) != 0)
            throw new InvalidDataException($"{source} does not hold an OmniSR network: {up.Shape[0]} output channels, {channels} channels and {heads} heads do not go together.");
        return new OmniSrShape(scale, osags, channels, heads, window);
    }
}

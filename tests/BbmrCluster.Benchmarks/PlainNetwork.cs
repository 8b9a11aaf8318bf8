using BbmrCluster.Networks;
using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.SmfaNet;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// A network as one would write it down at first: float32, channels first, one libtorch operation after another, nothing
/// freed before the end. For comparing speed only (its convolutions of odd channel counts are not even right everywhere).
/// </summary>
internal abstract class PlainNetwork : IDisposable
{
    private readonly Dictionary<string, Tensor> _weights = new(StringComparer.Ordinal);

    protected PlainNetwork(SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> weights)
    {
        Shape = shape;
        foreach ((string name, TensorData value) in weights)
            _weights.Add(name, NativeTensors.Create(value.Values, value.Shape).DetachFromDisposeScope());
    }

    protected SrNetworkShape Shape { get; }

    public static PlainNetwork Create(SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> weights) =>
        shape switch
        {
            OmniSrShape omni => new PlainOmniSr(omni, weights),
            CraftShape craft => new PlainCraft(craft, weights),
            SmfaNetShape smfa => new PlainSmfaNet(smfa, weights),
            _ => throw new ArgumentException($"There is no plain module for {shape.Description}.", nameof(shape)),
        };

    /// <summary>(B, 3, H, W) to (B, 3, H scale, W scale).</summary>
    public abstract Tensor Forward(Tensor x);

    public void Dispose()
    {
        foreach (Tensor weight in _weights.Values)
            weight.Dispose();
    }

    protected Tensor W(string name) => _weights[name];

    protected Tensor? Bias(string name) => _weights.GetValueOrDefault(name + ".bias");

    protected Tensor Convolution(Tensor x, string name, int padding = 1, int stride = 1, int groups = 1) =>
        F.conv2d(x, W(name + ".weight"), Bias(name), strides: [stride, stride], padding: [padding, padding], groups: groups);

    protected Tensor Linear(Tensor x, string name) => F.linear(x, W(name + ".weight"), Bias(name));

    /// <summary>Layer normalisation over the channel axis of (B, C, H, W).</summary>
    protected Tensor ChannelNorm(Tensor x, string name, double epsilon)
    {
        Tensor mean = x.mean([1], keepdim: true), centred = x - mean;
        Tensor variance = (centred * centred).mean([1], keepdim: true);
        return (centred / (variance + epsilon).sqrt() * W(name + ".weight").view(1, -1, 1, 1)) + W(name + ".bias").view(1, -1, 1, 1);
    }

    protected Tensor Gate(Tensor x, string name)
    {
        Tensor hidden = Convolution(x, name + "project_in", padding: 0);
        hidden = Convolution(hidden, name + "dwconv", groups: (int)hidden.shape[1]);
        Tensor[] halves = hidden.chunk(2, 1);
        return Convolution(F.gelu(halves[0]) * halves[1], name + "project_out", padding: 0);
    }

    /// <summary>Attention among the rows of (groups, heads, channels, positions).</summary>
    protected static Tensor ChannelAttention(Tensor q, Tensor k, Tensor v, Tensor temperature) =>
        F.normalize(q, 2, -1).matmul(F.normalize(k, 2, -1).transpose(-2, -1)).mul(temperature).softmax(-1).matmul(v);

    private sealed class PlainOmniSr(OmniSrShape shape, IReadOnlyDictionary<string, TensorData> weights) : PlainNetwork(shape, weights)
    {
        public override Tensor Forward(Tensor x)
        {
            Tensor first = Convolution(x, "input"), y = first;
            for (int i = 0; i < shape.Osags; i++)
            {
                string name = $"residual_layer.{i}.", block = name + "residual_layer.0.layer.";
                Tensor z = y + Local(y, block + "0.fn.");
                z = Pixels(z, block + "2.", grid: false);
                z += Gate(ChannelNorm(z, block + "4.norm", 1e-6), block + "4.fn.");
                z += Channels(ChannelNorm(z, block + "5.norm", 1e-6), block + "5.fn.", grid: false);
                z += Gate(ChannelNorm(z, block + "6.norm", 1e-6), block + "6.fn.");
                z = Pixels(z, block + "8.", grid: true);
                z += Gate(ChannelNorm(z, block + "10.norm", 1e-6), block + "10.fn.");
                z += Channels(ChannelNorm(z, block + "11.norm", 1e-6), block + "11.fn.", grid: true);
                z += Gate(ChannelNorm(z, block + "12.norm", 1e-6), block + "12.fn.");
                y = Spatial(Convolution(z, name + "residual_layer.1", padding: 0) + y, name + "esa.");
            }
            return F.pixel_shuffle(Convolution(Convolution(y, "output") + first, "up.0"), shape.Scale);
        }

        private Tensor Local(Tensor x, string name)
        {
            Tensor y = F.gelu(Convolution(x, name + "0", padding: 0));
            y = F.gelu(Convolution(y, name + "2", groups: shape.Channels));
            Tensor gate = Linear(F.silu(Linear(y.mean([2, 3]), name + "4.gate.1")), name + "4.gate.3").sigmoid();
            return Convolution(y * gate.view(gate.shape[0], -1, 1, 1), name + "5", padding: 0);
        }

        private Tensor Pixels(Tensor x, string name, bool grid)
        {
            long b = x.shape[0], c = x.shape[1], h = x.shape[2], w = x.shape[3], size = shape.Window, tokens = size * size;
            Tensor y = grid
                ? x.view(b, c, size, h / size, size, w / size).permute(0, 3, 5, 2, 4, 1).reshape(-1, tokens, c)
                : x.view(b, c, h / size, size, w / size, size).permute(0, 2, 4, 3, 5, 1).reshape(-1, tokens, c);
            Tensor[] qkv = Linear(F.layer_norm(y, [c], W(name + "norm.weight"), W(name + "norm.bias"), 1e-5), name + "fn.to_qkv").chunk(3, -1);
            Tensor[] heads = [.. qkv.Select(part => part.view(-1, tokens, shape.Heads, c / shape.Heads).permute(0, 2, 1, 3))];
            Tensor axis = arange(size);
            Tensor rows = axis.repeat_interleave(size), columns = axis.repeat(size);
            Tensor index = ((rows.unsqueeze(1) - rows.unsqueeze(0) + (size - 1)) * ((2 * size) - 1)) + (columns.unsqueeze(1) - columns.unsqueeze(0) + (size - 1));
            Tensor bias = W(name + "fn.rel_pos_bias.weight")[index].permute(2, 0, 1);
            Tensor attention = ((heads[0] * Math.Pow((double)c / shape.Heads, -0.5)).matmul(heads[1].transpose(-2, -1)) + bias).softmax(-1);
            y += Linear(attention.matmul(heads[2]).permute(0, 2, 1, 3).reshape(-1, tokens, c), name + "fn.to_out.0");
            return grid
                ? y.view(b, h / size, w / size, size, size, c).permute(0, 5, 3, 1, 4, 2).reshape(b, c, h, w)
                : y.view(b, h / size, w / size, size, size, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w);
        }

        private Tensor Channels(Tensor x, string name, bool grid)
        {
            long b = x.shape[0], c = x.shape[1], h = x.shape[2], w = x.shape[3], size = shape.Window, rows = h / size, columns = w / size;
            Tensor y = Convolution(Convolution(x, name + "qkv", padding: 0), name + "qkv_dwconv", groups: 3 * (int)c);
            y = y.view(b, 3, shape.Heads, c / shape.Heads, rows, size, columns, size);
            y = grid ? y.permute(1, 0, 5, 7, 2, 3, 4, 6) : y.permute(1, 0, 4, 6, 2, 3, 5, 7);
            long groups = grid ? size * size : rows * columns;
            y = y.reshape(3, b * groups, shape.Heads, c / shape.Heads, h * w / groups);
            y = ChannelAttention(y[0], y[1], y[2], W(name + "temperature"));
            y = grid
                ? y.view(b, size, size, c, rows, columns).permute(0, 3, 4, 1, 5, 2).reshape(b, c, h, w)
                : y.view(b, rows, columns, c, size, size).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w);
            return Convolution(y, name + "project_out", padding: 0);
        }

        private Tensor Spatial(Tensor x, string name)
        {
            Tensor reduced = Convolution(x, name + "conv1", padding: 0);
            Tensor y = F.max_pool2d(Convolution(reduced, name + "conv2", padding: 0, stride: 2), 7, 3);
            y = F.interpolate(Convolution(y, name + "conv3"), size: [x.shape[2], x.shape[3]], mode: InterpolationMode.Bilinear, align_corners: false);
            return x * Convolution(y + Convolution(reduced, name + "conv_f", padding: 0), name + "conv4", padding: 0).sigmoid();
        }
    }

    private sealed class PlainSmfaNet(SmfaNetShape shape, IReadOnlyDictionary<string, TensorData> weights) : PlainNetwork(shape, weights)
    {
        public override Tensor Forward(Tensor x)
        {
            Tensor first = Convolution(x, "to_feat"), y = first;
            for (int i = 0; i < shape.Blocks; i++)
            {
                y = Modulation(F.normalize(y, 2, 1), $"feats.{i}.smfa.") + y;
                string name = $"feats.{i}.pcfn.";
                Tensor[] hidden = F.gelu(Convolution(F.normalize(y, 2, 1), name + "conv_0", padding: 0)).split([shape.Channels / 2, 3 * shape.Channels / 2], 1);
                y = Convolution(cat([F.gelu(Convolution(hidden[0], name + "conv_1")), hidden[1]], 1), name + "conv_2", padding: 0) + y;
            }
            return F.pixel_shuffle(Convolution(y + first, shape.TailName), shape.Scale);
        }

        private Tensor Modulation(Tensor x, string name)
        {
            Tensor[] parts = Convolution(x, name + "linear_0", padding: 0).chunk(2, 1);
            Tensor y = parts[0], z = parts[1];
            Tensor peaks = Convolution(F.adaptive_max_pool2d(z, [z.shape[2] / 8, z.shape[3] / 8]), name + "dw_conv", groups: shape.Channels);
            Tensor gate = F.gelu(Convolution((peaks * W(name + "alpha")) + (z.var([2, 3], unbiased: true, keepdim: true) * W(name + "belt")), name + "linear_1", padding: 0));
            Tensor local = F.gelu(Convolution(Convolution(y, name + "lde.conv_0.0", groups: shape.Channels), name + "lde.conv_0.1", padding: 0));
            return Convolution((z * F.interpolate(gate, size: [z.shape[2], z.shape[3]], mode: InterpolationMode.Nearest)) + Convolution(local, name + "lde.conv_1", padding: 0), name + "linear_2", padding: 0);
        }
    }

    private sealed class PlainCraft(CraftShape shape, IReadOnlyDictionary<string, TensorData> weights) : PlainNetwork(shape, weights)
    {
        public override Tensor Forward(Tensor x)
        {
            Tensor mean = tensor(shape.Mean!.ToArray()).view(1, 3, 1, 1), first = Convolution(x - mean, "conv_first"), y = first;
            for (int g = 0; g < shape.Depths.Count; g++)
            {
                Tensor z = y;
                string inner = $"layers.{g}.residual_group.";
                for (int i = 0; i < shape.Depths[g]; i++)
                {
                    Tensor low = Windows(Windows(z, $"{inner}srwa_blocks.{2 * i}.", shifted: false), $"{inner}srwa_blocks.{(2 * i) + 1}.", shifted: true);
                    z = Fusion(low, HighFrequencies(z, $"{inner}hfer_blocks.{i}."), $"{inner}hf_blocks.{i}.");
                }
                y += Convolution(z, $"layers.{g}.conv");
            }
            y = Convolution(ChannelNorm(y, "norm.body", 1e-5), "conv_after_body") + first;
            return F.pixel_shuffle(Convolution(y, shape.TailName), shape.Scale) + mean;
        }

        private Tensor Windows(Tensor x, string name, bool shifted)
        {
            long b = x.shape[0], c = x.shape[1], h = x.shape[2], w = x.shape[3], half = c / 2, heads = shape.Heads / 2;
            Tensor tokens = x.flatten(2).transpose(1, 2);
            Tensor qkv = Linear(F.layer_norm(tokens, [c], W(name + "norm1.weight"), W(name + "norm1.bias"), 1e-5), name + "qkv").view(b, h, w, 3, 2, half);
            var branches = new Tensor[2];
            for (int branch = 0; branch < 2; branch++)
            {
                long rows = branch == 0 ? shape.ShortSide : shape.LongSide, columns = branch == 0 ? shape.LongSide : shape.ShortSide;
                Tensor y = qkv.select(4, branch);
                if (shifted)
                    y = y.roll([-(rows / 2), -(columns / 2)], [1, 2]);
                y = y.reshape(b, h / rows, rows, w / columns, columns, 3, heads, half / heads).permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, -1, heads, rows * columns, half / heads);
                y = (y[0] * Math.Pow((double)half / heads, -0.5)).matmul(y[1].transpose(-2, -1)).softmax(-1).matmul(y[2]);
                y = y.view(b, h / rows, w / columns, heads, rows, columns, half / heads).permute(0, 1, 4, 2, 5, 3, 6).reshape(b, h, w, half);
                branches[branch] = shifted ? y.roll([rows / 2, columns / 2], [1, 2]) : y;
            }
            Tensor local = Convolution(qkv.select(3, 2).reshape(b, h, w, c).permute(0, 3, 1, 2), name + "get_v", groups: (int)c);
            Tensor joined = cat(branches, 3).view(b, h * w, c) + local.flatten(2).transpose(1, 2);
            tokens = tokens + Linear(joined, name + "proj");
            Tensor normalised = F.layer_norm(tokens, [c], W(name + "norm2.weight"), W(name + "norm2.bias"), 1e-5);
            tokens += Linear(F.gelu(Linear(normalised, name + "mlp.fc1")), name + "mlp.fc2");
            return tokens.transpose(1, 2).reshape(b, c, h, w);
        }

        private Tensor HighFrequencies(Tensor x, string name)
        {
            Tensor[] halves = x.chunk(2, 1);
            Tensor local = F.gelu(Convolution(halves[0], name + "conv"));
            Tensor peaks = F.gelu(Convolution(F.max_pool2d(halves[1], 3, 1, 1), name + "fc", padding: 0));
            return Convolution(cat([local, peaks], 1), name + "last_fc", padding: 0) + x;
        }

        private Tensor Fusion(Tensor low, Tensor high, string name)
        {
            long b = low.shape[0], c = low.shape[1], pixels = low.shape[2] * low.shape[3];
            Tensor q = Convolution(Convolution(high, name + "attn.q", padding: 0), name + "attn.q_dwconv", groups: (int)c);
            Tensor kv = Convolution(Convolution(ChannelNorm(low, name + "norm1.body", 1e-5), name + "attn.kv", padding: 0), name + "attn.kv_dwconv", groups: 2 * (int)c);
            Tensor[] parts = [.. kv.chunk(2, 1).Prepend(q).Select(part => part.reshape(b, shape.Heads, c / shape.Heads, pixels))];
            Tensor y = ChannelAttention(parts[0], parts[1], parts[2], W(name + "attn.temperature")).view(low.shape);
            y = low + Convolution(y, name + "attn.project_out", padding: 0);
            return y + Gate(ChannelNorm(y, name + "norm2.body", 1e-5), name + "ffn.");
        }
    }
}

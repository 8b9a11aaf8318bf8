using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.SmfaNet;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks.Tests;

/// <summary>
/// OmniSR, CRAFT and SMFANet written a second time, straight from their description: float64, channels first, no batching tricks,
/// nothing shared with the code under test but names and shapes. Slow; for small maps whose sides need no padding.
/// </summary>
internal sealed class PlainNetworks : IDisposable
{
    private readonly Dictionary<string, Tensor> _parameters = new(StringComparer.Ordinal);

    public PlainNetworks(IReadOnlyDictionary<string, TensorData> weights)
    {
        foreach ((string name, TensorData value) in weights)
            _parameters.Add(name, tensor(value.Values, value.Shape).to(ScalarType.Float64).requires_grad_(true).DetachFromDisposeScope());
    }

    public void Dispose()
    {
        foreach (Tensor parameter in _parameters.Values)
            parameter.Dispose();
    }

    /// <summary>L2 norm of the gradients of all parameters; those without one count as zero.</summary>
    public double GradientNorm() => Math.Sqrt(_parameters.Values.Where(p => p.grad is not null).Sum(p => p.grad!.square().sum().item<double>()));

    public Tensor Forward(SrNetworkShape shape, Tensor x) => shape switch
    {
        OmniSrShape omni => OmniSr(omni, x),
        CraftShape craft => Craft(craft, x),
        SmfaNetShape smfa => SmfaNet(smfa, x),
        _ => throw new ArgumentException("Another network.", nameof(shape)),
    };

    private Tensor P(string name) => _parameters[name];

    private Tensor Conv(Tensor x, string name, int groups = 1, int stride = 1, int? padding = null)
    {
        Tensor weight = P(name + ".weight");
        int pad = padding ?? (int)weight.shape[2] / 2;
        return F.conv2d(x, weight, _parameters.GetValueOrDefault(name + ".bias"), strides: [stride, stride], padding: [pad, pad], groups: groups);
    }

    private Tensor Depthwise(Tensor x, string name) => Conv(x, name, (int)x.shape[1]);

    /// <summary>Layer normalisation over the channels of (B, C, H, W).</summary>
    private Tensor Norm(Tensor x, string name, double epsilon)
    {
        Tensor mean = x.mean([1], keepdim: true), centred = x - mean;
        return (centred / (centred.square().mean([1], keepdim: true) + epsilon).sqrt() * P(name + ".weight").view(1, -1, 1, 1)) + P(name + ".bias").view(1, -1, 1, 1);
    }

    private Tensor GatedFeedForward(Tensor x, string name)
    {
        Tensor y = Depthwise(Conv(x, name + "project_in"), name + "dwconv");
        long half = y.shape[1] / 2;
        return Conv(F.gelu(y.narrow(1, 0, half)) * y.narrow(1, half, half), name + "project_out");
    }

    /// <summary>(groups, heads, channels, positions) attention among channels with normalised rows.</summary>
    private static Tensor ChannelAttention(Tensor q, Tensor k, Tensor v, Tensor temperature)
    {
        Tensor logits = Unit(q).matmul(Unit(k).transpose(-2, -1)) * temperature.view(-1, 1, 1);
        return logits.softmax(-1).matmul(v);

        static Tensor Unit(Tensor rows) => rows / rows.square().sum(-1, keepdim: true).sqrt().clamp_min(1e-12);
    }

    private Tensor OmniSr(OmniSrShape s, Tensor x)
    {
        Tensor first = Conv(x, "input"), y = first;
        for (int i = 0; i < s.Osags; i++)
        {
            string p = $"residual_layer.{i}.", q = p + "residual_layer.0.layer.";
            Tensor z = y + Local(y, q + "0.fn.");
            z = z + TokenAttention(s, z, q + "2.", strided: false);
            z = z + GatedFeedForward(Norm(z, q + "4.norm", 1e-6), q + "4.fn.");
            z = z + OmniChannelAttention(s, z, q + "5.", strided: false);
            z = z + GatedFeedForward(Norm(z, q + "6.norm", 1e-6), q + "6.fn.");
            z = z + TokenAttention(s, z, q + "8.", strided: true);
            z = z + GatedFeedForward(Norm(z, q + "10.norm", 1e-6), q + "10.fn.");
            z = z + OmniChannelAttention(s, z, q + "11.", strided: true);
            z = z + GatedFeedForward(Norm(z, q + "12.norm", 1e-6), q + "12.fn.");
            y = Conv(z, p + "residual_layer.1") + y;
            Tensor c1 = Conv(y, p + "esa.conv1");
            Tensor small = Conv(F.max_pool2d(Conv(c1, p + "esa.conv2", stride: 2, padding: 0), [7, 7], [3, 3]), p + "esa.conv3");
            Tensor wide = F.interpolate(small, size: [y.shape[2], y.shape[3]], mode: InterpolationMode.Bilinear, align_corners: false);
            y = y * (Conv(wide + Conv(c1, p + "esa.conv_f"), p + "esa.conv4")).sigmoid();
        }
        return F.pixel_shuffle(Conv(Conv(y, "output") + first, "up.0"), s.Scale);
    }

    private Tensor Local(Tensor x, string name)
    {
        Tensor y = F.gelu(Depthwise(F.gelu(Conv(x, name + "0")), name + "2"));
        Tensor gate = F.silu(y.mean([2, 3]).matmul(P(name + "4.gate.1.weight").t())).matmul(P(name + "4.gate.3.weight").t()).sigmoid();
        return Conv(y * gate.unsqueeze(-1).unsqueeze(-1), name + "5");
    }

    private Tensor TokenAttention(OmniSrShape s, Tensor x, string name, bool strided)
    {
        long b = x.shape[0], c = s.Channels, rows = x.shape[2] / s.Window, columns = x.shape[3] / s.Window, w = s.Window, d = c / s.Heads;
        Tensor normal = Norm(x, name + "norm", 1e-5);
        // A group is a window, or the w x w pixels that lie a w-th of the map apart.
        Tensor tokens = (strided ? normal.view(b, c, w, rows, w, columns).permute(0, 3, 5, 2, 4, 1) : normal.view(b, c, rows, w, columns, w).permute(0, 2, 4, 3, 5, 1)).reshape(b * rows * columns, w * w, c);
        Tensor qkv = tokens.matmul(P(name + "fn.to_qkv.weight").t()).view(-1, w * w, 3, s.Heads, d).permute(2, 0, 3, 1, 4);
        long[] index = [.. from q in Enumerable.Range(0, (int)(w * w)) from k in Enumerable.Range(0, (int)(w * w))
                           select (((q / w) - (k / w) + w - 1) * ((2 * w) - 1)) + (q % w) - (k % w) + w - 1];
        Tensor bias = P(name + "fn.rel_pos_bias.weight").index_select(0, tensor(index)).view(w * w, w * w, s.Heads).permute(2, 0, 1);
        Tensor y = ((qkv[0] * Math.Pow(d, -0.5)).matmul(qkv[1].transpose(-2, -1)) + bias).softmax(-1).matmul(qkv[2]);
        y = y.permute(0, 2, 1, 3).reshape(-1, w * w, c).matmul(P(name + "fn.to_out.0.weight").t()).view(b, rows, columns, w, w, c);
        return (strided ? y.permute(0, 5, 3, 1, 4, 2) : y.permute(0, 5, 1, 3, 2, 4)).reshape(x.shape);
    }

    private Tensor OmniChannelAttention(OmniSrShape s, Tensor x, string name, bool strided)
    {
        long b = x.shape[0], rows = x.shape[2] / s.Window, columns = x.shape[3] / s.Window, w = s.Window, d = s.Channels / s.Heads;
        Tensor qkv = Depthwise(Conv(Norm(x, name + "norm", 1e-6), name + "fn.qkv"), name + "fn.qkv_dwconv");
        Tensor[] parts = [.. qkv.chunk(3, 1).Select(part => part.view(b, s.Heads, d, rows, w, columns, w))];
        // A group is a window, or the pixels that have one place in every window.
        Tensor[] groups = [.. parts.Select(part => (strided ? part.permute(0, 4, 6, 1, 2, 3, 5) : part.permute(0, 3, 5, 1, 2, 4, 6)).flatten(5))];
        Tensor y = ChannelAttention(groups[0], groups[1], groups[2], P(name + "fn.temperature"));
        y = strided ? y.view(b, w, w, s.Heads, d, rows, columns).permute(0, 3, 4, 5, 1, 6, 2) : y.view(b, rows, columns, s.Heads, d, w, w).permute(0, 3, 4, 1, 5, 2, 6);
        return Conv(y.reshape(x.shape), name + "fn.project_out");
    }

    private Tensor SmfaNet(SmfaNetShape s, Tensor x)
    {
        Tensor first = Conv(x, "to_feat"), y = first;
        for (int i = 0; i < s.Blocks; i++)
        {
            y = Modulation(Unit(y), $"feats.{i}.smfa.") + y;
            string p = $"feats.{i}.pcfn.";
            Tensor[] hidden = F.gelu(Conv(Unit(y), p + "conv_0")).split([s.Channels / 2, 3 * s.Channels / 2], 1);
            y = Conv(cat([F.gelu(Conv(hidden[0], p + "conv_1")), hidden[1]], 1), p + "conv_2") + y;
        }
        return F.pixel_shuffle(Conv(y + first, "to_img.0"), s.Scale);

        static Tensor Unit(Tensor map) => map / map.square().sum([1], keepdim: true).sqrt().clamp_min(1e-12);
    }

    // Windows and nearest neighbours by their definition, cell by cell.
    private Tensor Modulation(Tensor x, string p)
    {
        Tensor[] parts = Conv(x, p + "linear_0").chunk(2, 1);
        Tensor y = parts[0], z = parts[1];
        long height = z.shape[2], width = z.shape[3], down = height / 8, across = width / 8;
        Tensor peaks = stack([.. from i in Enumerable.Range(0, (int)down) from j in Enumerable.Range(0, (int)across)
                                 let top = i * height / down
                                 let left = j * width / across
                                 let bottom = (long)Math.Ceiling((i + 1.0) * height / down)
                                 let right = (long)Math.Ceiling((j + 1.0) * width / across)
                                 select z.narrow(2, top, bottom - top).narrow(3, left, right - left).amax([2, 3])], 2).view(z.shape[0], z.shape[1], down, across);
        Tensor variance = (z - z.mean([2, 3], keepdim: true)).square().sum([2, 3], keepdim: true) / ((height * width) - 1);
        Tensor gate = F.gelu(Conv((Depthwise(peaks, p + "dw_conv") * P(p + "alpha")) + (variance * P(p + "belt")), p + "linear_1"));
        gate = gate.index_select(2, tensor([.. Enumerable.Range(0, (int)height).Select(i => i * down / height)])).index_select(3, tensor([.. Enumerable.Range(0, (int)width).Select(i => i * across / width)]));
        Tensor local = F.gelu(Conv(Depthwise(y, p + "lde.conv_0.0"), p + "lde.conv_0.1"));
        return Conv((z * gate) + Conv(local, p + "lde.conv_1"), p + "linear_2");
    }

    private Tensor Craft(CraftShape s, Tensor x)
    {
        Tensor mean = tensor([0.4488, 0.4371, 0.4040], [1, 3, 1, 1]);
        Tensor first = Conv(x - mean, "conv_first"), y = first;
        for (int g = 0; g < s.Depths.Count; g++)
        {
            Tensor z = y;
            string group = $"layers.{g}.residual_group.";
            for (int i = 0; i < s.Depths[g]; i++)
            {
                Tensor low = WindowBlock(s, WindowBlock(s, z, $"{group}srwa_blocks.{2 * i}.", shifted: false), $"{group}srwa_blocks.{(2 * i) + 1}.", shifted: true);
                Tensor high = HighFrequency(z, $"{group}hfer_blocks.{i}.");
                string f = $"{group}hf_blocks.{i}.";
                z = low + Fusion(s, Norm(low, f + "norm1.body", 1e-5), high, f + "attn.");
                z = z + GatedFeedForward(Norm(z, f + "norm2.body", 1e-5), f + "ffn.");
            }
            y = Conv(z, $"layers.{g}.conv") + y;
        }
        y = Conv(Norm(y, "norm.body", 1e-5), "conv_after_body") + first;
        return F.pixel_shuffle(Conv(y, "upsample.0"), s.Scale) + mean;
    }

    private Tensor WindowBlock(CraftShape s, Tensor x, string name, bool shifted)
    {
        long c = s.Channels, half = c / 2;
        Tensor qkv = Linear(Norm(x, name + "norm1", 1e-5), name + "qkv");
        Tensor[] parts = qkv.chunk(3, 1);
        var branches = new List<Tensor>();
        foreach (int branch in (int[])[0, 1])
        {
            (long rows, long columns) = branch == 0 ? (s.ShortSide, s.LongSide) : (s.LongSide, s.ShortSide);
            Tensor[] own = [.. parts.Select(part => part.narrow(1, branch * half, half))];
            if (shifted)
                own = [.. own.Select(part => part.roll([-rows / 2, -columns / 2], [2, 3]))];
            Tensor made = Windows(s, own, rows, columns);
            branches.Add(shifted ? made.roll([rows / 2, columns / 2], [2, 3]) : made);
        }
        Tensor y = x + Linear(cat(branches, 1) + Depthwise(parts[2], name + "get_v"), name + "proj");
        return y + Linear(F.gelu(Linear(Norm(y, name + "norm2", 1e-5), name + "mlp.fc1")), name + "mlp.fc2");
    }

    // The position bias is left out: in networks of this width the softmax cancels it.
    private static Tensor Windows(CraftShape s, Tensor[] qkv, long rows, long columns)
    {
        long b = qkv[0].shape[0], c = qkv[0].shape[1], down = qkv[0].shape[2] / rows, across = qkv[0].shape[3] / columns, heads = s.Heads / 2, d = c / heads;
        Tensor[] tokens = [.. qkv.Select(part => part.reshape(b, heads, d, down, rows, across, columns).permute(0, 3, 5, 1, 4, 6, 2).flatten(4, 5))];
        Tensor y = (tokens[0] * Math.Pow(d, -0.5)).matmul(tokens[1].transpose(-2, -1)).softmax(-1).matmul(tokens[2]);
        return y.view(b, down, across, heads, rows, columns, d).permute(0, 3, 6, 1, 4, 2, 5).reshape(qkv[0].shape);
    }

    private Tensor Linear(Tensor x, string name) => F.conv2d(x, P(name + ".weight").unsqueeze(-1).unsqueeze(-1), P(name + ".bias"));

    private Tensor HighFrequency(Tensor x, string name)
    {
        Tensor[] halves = x.chunk(2, 1);
        Tensor a = F.gelu(Conv(halves[0], name + "conv")), b = F.gelu(Conv(F.max_pool2d(halves[1], [3, 3], [1, 1], [1, 1]), name + "fc"));
        return Conv(cat([a, b], 1), name + "last_fc") + x;
    }

    private Tensor Fusion(CraftShape s, Tensor low, Tensor high, string name)
    {
        long b = low.shape[0], d = s.Channels / s.Heads;
        Tensor q = Depthwise(Conv(high, name + "q"), name + "q_dwconv");
        Tensor[] kv = Depthwise(Conv(low, name + "kv"), name + "kv_dwconv").chunk(2, 1);
        Tensor y = ChannelAttention(Heads(q), Heads(kv[0]), Heads(kv[1]), P(name + "temperature"));
        return Conv(y.reshape(low.shape), name + "project_out");

        Tensor Heads(Tensor map) => map.reshape(b, s.Heads, d, -1);
    }
}

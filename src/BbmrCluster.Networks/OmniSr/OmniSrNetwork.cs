using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks.OmniSr;

/// <summary>
/// OmniSR (Wang et al., "Omni Aggregation Networks for Lightweight Image Super-Resolution", CVPR 2023) on maps with the
/// channels last; the same code for training and inference. Values are RGB in [-1, 1]. The ends (first convolution,
/// last convolution with the global residual, tail) run in float32, the body in float32 or bfloat16.
/// Used on one thread. Does not own its parameters, but what it derives from them.
/// </summary>
public sealed class OmniSrNetwork : IDisposable
{
    private readonly ParameterSet _parameters;
    private readonly ScalarType _body;
    private readonly bool _training;
    private readonly Dictionary<string, Tensor> _prepared = new(StringComparer.Ordinal);
    private readonly Tensor _biasIndex, _queryScale;

    /// <summary>Wraps parameters.</summary>
    /// <param name="shape">The shape they belong to.</param>
    /// <param name="parameters">Named as <see cref="OmniSrShape.Parameters"/>; a feature extractor may lack the tail.</param>
    /// <param name="body">Float32 or BFloat16.</param>
    /// <param name="training">
    /// True: every pass reads the parameters and is differentiable. False: they are converted once, passes run without
    /// gradients and add in place, and the parameters must not change any more.
    /// </param>
    public OmniSrNetwork(OmniSrShape shape, ParameterSet parameters, ScalarType body = ScalarType.Float32, bool training = false)
    {
        (Shape, _parameters, _body, _training) = (shape, parameters, body, training);
        using var scope = NewDisposeScope();
        _biasIndex = tensor(RelativePositions(shape.Window), device: parameters.Flat.device).DetachFromDisposeScope();
        float[] scale = [.. Enumerable.Range(0, 3 * shape.Channels).Select(i => i < shape.Channels ? 1 / MathF.Sqrt(shape.Channels / shape.Heads) : 1)];
        _queryScale = tensor(scale, [scale.Length, 1], device: parameters.Flat.device).DetachFromDisposeScope();
    }

    /// <summary>The network's shape.</summary>
    public OmniSrShape Shape { get; }

    /// <summary>Upscales whole maps of any size from 1x1: pads with zeros (mid-grey) at the right and bottom, crops the result.</summary>
    /// <param name="x">(B, H, W, 3) in [-1, 1], contiguous float32.</param>
    /// <returns>(B, H scale, W scale, 3), not clamped.</returns>
    public Tensor Forward(Tensor x)
    {
        using var scope = NewDisposeScope();
        long height = x.shape[1], width = x.shape[2];
        Tensor features = Features(x);
        Tensor y = Nhwc.PixelShuffle(Tail(features), Shape.Scale);
        if (y.shape[1] != height * Shape.Scale || y.shape[2] != width * Shape.Scale)
            y = y.narrow(1, 0, height * Shape.Scale).narrow(2, 0, width * Shape.Scale).contiguous();
        return y.MoveToOuterDisposeScope();
    }

    /// <summary>The network without its tail ("SRNet feature" of the BBMR paper).</summary>
    /// <param name="x">As <see cref="Forward"/>.</param>
    /// <returns>(B, H', W', channels) float32, H' and W' padded to the next multiple of the window and at least <see cref="OmniSrShape.MinimumSide"/>.</returns>
    public Tensor Features(Tensor x)
    {
        using IDisposable? noGradient = _training ? null : no_grad();
        using var scope = NewDisposeScope();
        x = Pad(x);
        Tensor first = Nhwc.Convolution(x, _parameters["input.weight"], _parameters["input.bias"]);
        Tensor body = _body == ScalarType.Float32 ? first : first.to(_body);
        for (int i = 0; i < Shape.Osags; i++)
            body = Osag(body, $"residual_layer.{i}.");
        if (_body != ScalarType.Float32)
            body = body.to(ScalarType.Float32);
        Tensor last = Nhwc.Convolution(body, _parameters["output.weight"], _parameters["output.bias"]);
        return Add(last, first).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Tensor tensor in _prepared.Values)
            tensor.Dispose();
        _biasIndex.Dispose();
        _queryScale.Dispose();
    }

    private Tensor Tail(Tensor features)
    {
        using IDisposable? noGradient = _training ? null : no_grad();
        return Nhwc.Convolution(features, _parameters["up.0.weight"], _parameters["up.0.bias"]);
    }

    private Tensor Pad(Tensor x)
    {
        long height = Math.Max(Shape.MinimumSide, (x.shape[1] + Shape.Window - 1) / Shape.Window * Shape.Window);
        long width = Math.Max(Shape.MinimumSide, (x.shape[2] + Shape.Window - 1) / Shape.Window * Shape.Window);
        return height == x.shape[1] && width == x.shape[2] ? x : F.pad(x, [0, 0, 0, width - x.shape[2], 0, height - x.shape[1]]);
    }

    private Tensor Osag(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        string block = name + "residual_layer.0.layer.";
        Tensor y = LocalBlock(x, block + "0.fn.");
        y = Residual(y, () => PositionAttention(y, block + "2.", grid: false));
        y = Residual(y, () => GatedFeedForward(y, block + "4."));
        y = Residual(y, () => ChannelAttention(y, block + "5.", grid: false));
        y = Residual(y, () => GatedFeedForward(y, block + "6."));
        y = Residual(y, () => PositionAttention(y, block + "8.", grid: true));
        y = Residual(y, () => GatedFeedForward(y, block + "10."));
        y = Residual(y, () => ChannelAttention(y, block + "11.", grid: true));
        y = Residual(y, () => GatedFeedForward(y, block + "12."));
        Tensor sum = Add(Nhwc.Pointwise(y, W(name + "residual_layer.1.weight"), W(name + "residual_layer.1.bias")), x);
        return SpatialAttention(sum, name + "esa.").MoveToOuterDisposeScope();
    }

    /// <summary>Adds a branch to the state: in place when no gradient is needed. The branch may return a permuted view of more axes.</summary>
    private Tensor Residual(Tensor x, Func<Tensor> branch)
    {
        using var scope = NewDisposeScope();
        Tensor y = branch();
        Tensor view = x.view(y.shape);
        if (_training)
            return view.add(y).view(x.shape).MoveToOuterDisposeScope();
        view.add_(y);
        return x;
    }

    /// <summary>a + b, into a when no gradient is needed.</summary>
    private Tensor Add(Tensor a, Tensor b)
    {
        if (_training)
            return a + b;
        a.add_(b);
        return a;
    }

    private Tensor Multiply(Tensor a, Tensor b)
    {
        if (_training)
            return a * b;
        a.mul_(b);
        return a;
    }

    private Tensor LocalBlock(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        Tensor y = F.gelu(Nhwc.Pointwise(x, W(name + "0.weight"), W(name + "0.bias")));
        y = F.gelu(Nhwc.Convolution(y, W(name + "2.weight"), W(name + "2.bias"), groups: Shape.Channels));
        Tensor gate = F.linear(y.mean([1, 2]), W(name + "4.gate.1.weight"));
        gate = F.linear(F.silu(gate), W(name + "4.gate.3.weight")).sigmoid().view(y.shape[0], 1, 1, Shape.Channels);
        y = Nhwc.Pointwise(Multiply(y, gate), W(name + "5.weight"), W(name + "5.bias"));
        return Add(y, x).MoveToOuterDisposeScope();
    }

    private Tensor GatedFeedForward(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        Tensor y = Norm(x, name, 1e-6);
        y = Nhwc.Pointwise(y, W(name + "fn.project_in.weight"), null);
        y = Nhwc.Convolution(y, W(name + "fn.dwconv.weight"), null, groups: 2 * Shape.Channels);
        Tensor gate = F.gelu(y.narrow(3, 0, Shape.Channels));
        y = Multiply(gate, y.narrow(3, Shape.Channels, Shape.Channels)).contiguous();
        return Nhwc.Pointwise(y, W(name + "fn.project_out.weight"), null).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Self-attention among the pixels of a window (grid false), or of the pixels that lie a window count apart (grid
    /// true: strided over the whole map). Returns the branch as a permuted view over split rows and columns.
    /// </summary>
    private Tensor PositionAttention(Tensor x, string name, bool grid)
    {
        using var scope = NewDisposeScope();
        long batch = x.shape[0], rows = x.shape[1] / Shape.Window, columns = x.shape[2] / Shape.Window;
        long w = Shape.Window, c = Shape.Channels, heads = Shape.Heads, tokens = w * w, groups = batch * rows * columns;
        Tensor y = Norm(x, name, 1e-5);
        y = grid
            ? y.view(batch, w, rows, w, columns, c).permute(0, 2, 4, 1, 3, 5)
            : y.view(batch, rows, w, columns, w, c).permute(0, 1, 3, 2, 4, 5);
        Tensor qkv = Nhwc.Pointwise(y.reshape(groups * tokens, c), _body == ScalarType.Float32 ? W(name + "fn.to_qkv.weight") : ScaledQueries(name + "fn.to_qkv.weight"), null)
            .view(groups, tokens, 3, heads, c / heads).permute(2, 0, 3, 1, 4);
        Tensor bias = PositionBias(name + "fn.rel_pos_bias.weight");
        if (_body == ScalarType.Float32)
        {
            y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], bias);
        }
        else
        {
            // The fused attention of libtorch's CPU is slow in bfloat16.
            qkv = qkv.contiguous().view(3, groups * heads, tokens, c / heads);
            Tensor logits = qkv[0].bmm(qkv[1].transpose(1, 2)).view(groups, heads, tokens, tokens);
            Tensor attention = Add(logits, bias).softmax(-1).view(groups * heads, tokens, tokens);
            y = attention.bmm(qkv[2]).view(groups, heads, tokens, c / heads);
        }
        y = Nhwc.Pointwise(y.transpose(1, 2).reshape(groups * tokens, c), W(name + "fn.to_out.0.weight"), null)
            .view(batch, rows, columns, w, w, c);
        return (grid ? y.permute(0, 3, 1, 4, 2, 5) : y.permute(0, 1, 3, 2, 4, 5)).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Attention among the channels of each head, over the pixels of a window (grid false), or over all pixels with the
    /// same place in their window (grid true; another grouping than that of <see cref="PositionAttention"/>).
    /// </summary>
    private Tensor ChannelAttention(Tensor x, string name, bool grid)
    {
        using var scope = NewDisposeScope();
        long batch = x.shape[0], rows = x.shape[1] / Shape.Window, columns = x.shape[2] / Shape.Window;
        long w = Shape.Window, c = Shape.Channels, heads = Shape.Heads, each = c / heads;
        Tensor y = Norm(x, name, 1e-6);
        y = Nhwc.Pointwise(y, W(name + "fn.qkv.weight"), null);
        y = Nhwc.Convolution(y, W(name + "fn.qkv_dwconv.weight"), null, groups: 3 * (int)c);
        y = y.view(batch, rows, w, columns, w, 3, heads, each);
        long groups = batch * heads * (grid ? w * w : rows * columns), positions = grid ? rows * columns : w * w;
        y = (grid ? y.permute(5, 0, 2, 4, 6, 7, 1, 3) : y.permute(5, 0, 1, 3, 6, 7, 2, 4)).contiguous().view(3, groups, each, positions);

        // Scaling the logits by the reciprocal norms replaces normalising q and k; the floor is that of the norm.
        Tensor q = y[0], k = y[1], v = y[2];
        Tensor norms = (y.narrow(0, 0, 2) * y.narrow(0, 0, 2)).sum(-1).clamp_min(1e-24).sqrt();
        Tensor logits = q.bmm(k.transpose(1, 2)) / (norms[0].unsqueeze(-1) * norms[1].unsqueeze(-2));
        Tensor attention = Multiply(logits.view(groups / heads, heads, each, each), W(name + "fn.temperature"))
            .softmax(-1).view(groups, each, each);
        y = attention.bmm(v);
        y = grid
            ? y.view(batch, w, w, heads, each, rows, columns).permute(0, 5, 1, 6, 2, 3, 4)
            : y.view(batch, rows, columns, heads, each, w, w).permute(0, 1, 5, 2, 6, 3, 4);
        return Nhwc.Pointwise(y.reshape(x.shape), W(name + "fn.project_out.weight"), null).MoveToOuterDisposeScope();
    }

    private Tensor SpatialAttention(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        Tensor reduced = Nhwc.Pointwise(x, W(name + "conv1.weight"), W(name + "conv1.bias"));
        Tensor y = Nhwc.Convolution(reduced, W(name + "conv2.weight"), W(name + "conv2.bias"), stride: 2, padding: 0);
        y = F.max_pool2d(y.permute(0, 3, 1, 2), 7, 3).permute(0, 2, 3, 1).contiguous();
        y = Nhwc.Convolution(y, W(name + "conv3.weight"), W(name + "conv3.bias"));
        y = F.interpolate(y.permute(0, 3, 1, 2), size: [x.shape[1], x.shape[2]], mode: InterpolationMode.Bilinear, align_corners: false).permute(0, 2, 3, 1).contiguous();
        y = Add(y, Nhwc.Pointwise(reduced, W(name + "conv_f.weight"), W(name + "conv_f.bias")));
        y = Nhwc.Pointwise(y, W(name + "conv4.weight"), W(name + "conv4.bias")).sigmoid();
        return Multiply(y, x).MoveToOuterDisposeScope();
    }

    private Tensor Norm(Tensor x, string name, double epsilon) =>
        F.layer_norm(x, [Shape.Channels], W(name + "norm.weight"), W(name + "norm.bias"), epsilon);

    /// <summary>A body parameter in the body's type.</summary>
    private Tensor W(string name) => _body == ScalarType.Float32
        ? _parameters[name]
        : _training ? _parameters[name].to(_body) : Prepared(name, () => _parameters[name].to(_body));

    /// <summary>The query, key and value weights with the queries' factor 1/sqrt(channels of a head) in them.</summary>
    private Tensor ScaledQueries(string name)
    {
        return _training ? Make() : Prepared(name, Make);

        Tensor Make() => (_parameters[name] * _queryScale).to(_body);
    }

    /// <summary>The position bias of each head, (1, heads, tokens, tokens).</summary>
    private Tensor PositionBias(string name)
    {
        return _training ? Expand() : Prepared(name, Expand);

        Tensor Expand()
        {
            long tokens = Shape.Window * Shape.Window;
            Tensor bias = _parameters[name].index_select(0, _biasIndex).view(tokens, tokens, Shape.Heads).permute(2, 0, 1).unsqueeze(0).contiguous();
            return _body == ScalarType.Float32 ? bias : bias.to(_body);
        }
    }

    private Tensor Prepared(string key, Func<Tensor> make)
    {
        if (_prepared.TryGetValue(key, out Tensor? ready))
            return ready;
        using var scope = NewDisposeScope();
        Tensor made = make().detach().DetachFromDisposeScope();
        _prepared.Add(key, made);
        return made;
    }

    private static long[] RelativePositions(int window)
    {
        int tokens = window * window;
        var index = new long[tokens * tokens];
        for (int query = 0; query < tokens; query++)
        {
            for (int key = 0; key < tokens; key++)
            {
                int row = query / window - key / window + window - 1, column = query % window - key % window + window - 1;
                index[query * tokens + key] = row * (2 * window - 1) + column;
            }
        }
        return index;
    }
}

using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks.OmniSr;

/// <summary>
/// OmniSR (Wang et al., "Omni Aggregation Networks for Lightweight Image Super-Resolution", CVPR 2023). Values are RGB
/// in [-1, 1]; maps are padded with zeros (mid-grey).
/// </summary>
public sealed class OmniSrNetwork : SrNetwork
{
    private readonly Tensor _biasIndex, _queryScale;
    private readonly OsaBlockTraining[] _blocks = [];

    /// <summary>Wraps parameters.</summary>
    /// <param name="shape">The shape they belong to.</param>
    /// <param name="parameters">Named as <see cref="OmniSrShape.Parameters"/>; a feature extractor may lack the tail.</param>
    /// <param name="body">Float32 or BFloat16.</param>
    /// <param name="training">See <see cref="SrNetwork"/>.</param>
    /// <param name="graph">
    /// Whether training leaves every operation to libtorch's graph, which is slower: what the own backward passes are compared with.
    /// </param>
    public OmniSrNetwork(OmniSrShape shape, ParameterSet parameters, ScalarType body = ScalarType.Float32, bool training = false, bool graph = false)
        : base(parameters, body, training)
    {
        (Shape, Graph) = (shape, graph);
        using var scope = NewDisposeScope();
        _biasIndex = tensor(RelativePositions(shape.Window), device: Device).DetachFromDisposeScope();
        float[] scale = [.. Enumerable.Range(0, 3 * shape.Channels).Select(i => i < shape.Channels ? 1 / MathF.Sqrt(shape.Channels / shape.Heads) : 1)];
        _queryScale = tensor(scale, [scale.Length, 1], device: Device).DetachFromDisposeScope();
        if (training && !graph && Device.type == TorchSharp.DeviceType.CPU && OsaBlockTraining.Fits(shape))
            _blocks = [.. Enumerable.Range(0, shape.Osags).Select(i => OsaBlockTraining.Create(parameters, $"residual_layer.{i}.", body))];
    }

    /// <inheritdoc/>
    public override OmniSrShape Shape { get; }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        if (!disposing)
            return;
        _biasIndex.Dispose();
        _queryScale.Dispose();
        foreach (OsaBlockTraining block in _blocks)
            block.Dispose();
    }

    private protected override ProcessorNetwork? CreateLoops(ParameterSet parameters) => OmniSrOnProcessor.Runs(Shape) ? new OmniSrOnProcessor(Shape, parameters, Body) : null;

    private protected override Tensor Pad(Tensor x, long height, long width) => F.pad(x, [0, 0, 0, width - x.shape[2], 0, height - x.shape[1]]);

    private protected override Tensor Extract(Tensor x)
    {
        using var scope = NewDisposeScope();
        Tensor first = Nhwc.Convolution(x, P("input.weight"), P("input.bias"));
        Tensor body = Body == ScalarType.Float32 ? first : first.to(Body);
        for (int i = 0; i < Shape.Osags; i++)
            body = SpatialAttention(_blocks.Length > 0 ? _blocks[i].Forward(body) : Osag(body, $"residual_layer.{i}."), $"residual_layer.{i}.esa.");
        if (Body != ScalarType.Float32)
            body = body.to(ScalarType.Float32);
        Tensor last = End(body, "output");
        return Add(last, first).MoveToOuterDisposeScope();
    }

    private Tensor Osag(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        string block = name + "residual_layer.0.layer.";
        Tensor y = LocalBlock(x, block + "0.fn.");
        y = Residual(y, () => PositionAttention(y, block + "2.", grid: false));
        y = Residual(y, () => GatedFeedForward(Norm(y, block + "4.norm", 1e-6), block + "4.fn."));
        y = Residual(y, () => ChannelAttention(y, block + "5.", grid: false));
        y = Residual(y, () => GatedFeedForward(Norm(y, block + "6.norm", 1e-6), block + "6.fn."));
        y = Residual(y, () => PositionAttention(y, block + "8.", grid: true));
        y = Residual(y, () => GatedFeedForward(Norm(y, block + "10.norm", 1e-6), block + "10.fn."));
        y = Residual(y, () => ChannelAttention(y, block + "11.", grid: true));
        y = Residual(y, () => GatedFeedForward(Norm(y, block + "12.norm", 1e-6), block + "12.fn."));
        return Add(Nhwc.Pointwise(y, W(name + "residual_layer.1.weight"), W(name + "residual_layer.1.bias")), x).MoveToOuterDisposeScope();
    }

    /// <summary>Adds a branch to the state: in place when no gradient is needed. The branch may return a permuted view of more axes.</summary>
    private Tensor Residual(Tensor x, Func<Tensor> branch)
    {
        using var scope = NewDisposeScope();
        Tensor y = branch();
        Tensor view = x.view(y.shape);
        if (Training)
            return view.Plus(y).view(x.shape).MoveToOuterDisposeScope();
        view.PlusInPlace(y);
        return x;
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

    /// <summary>
    /// Self-attention among the pixels of a window (grid false), or of the pixels that lie a window count apart (grid
    /// true: strided over the whole map). Returns the branch as a permuted view over split rows and columns.
    /// </summary>
    private Tensor PositionAttention(Tensor x, string name, bool grid)
    {
        using var scope = NewDisposeScope();
        long batch = x.shape[0], rows = x.shape[1] / Shape.Window, columns = x.shape[2] / Shape.Window;
        long w = Shape.Window, c = Shape.Channels, heads = Shape.Heads, tokens = w * w, groups = batch * rows * columns;
        Tensor y = Norm(x, name + "norm", 1e-5);
        y = grid
            ? y.view(batch, w, rows, w, columns, c).permute(0, 2, 4, 1, 3, 5)
            : y.view(batch, rows, w, columns, w, c).permute(0, 1, 3, 2, 4, 5);
        Tensor qkv = Nhwc.Pointwise(y.reshape(groups * tokens, c), Body == ScalarType.Float32 ? W(name + "fn.to_qkv.weight") : ScaledQueries(name + "fn.to_qkv.weight"), null)
            .view(groups, tokens, 3, heads, c / heads).permute(2, 0, 3, 1, 4);
        Tensor bias = PositionBias(name + "fn.rel_pos_bias.weight");
        y = TokenAttention(qkv, bias, scaled: true);
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
        Tensor y = Norm(x, name + "norm", 1e-6);
        y = Nhwc.Pointwise(y, W(name + "fn.qkv.weight"), null);
        y = Nhwc.Convolution(y, W(name + "fn.qkv_dwconv.weight"), null, groups: 3 * (int)c);
        y = y.view(batch, rows, w, columns, w, 3, heads, each);
        long groups = batch * heads * (grid ? w * w : rows * columns), positions = grid ? rows * columns : w * w;
        y = (grid ? y.permute(5, 0, 2, 4, 6, 7, 1, 3) : y.permute(5, 0, 1, 3, 6, 7, 2, 4)).contiguous().view(3, groups, each, positions);

        y = ChannelAttention(y[0], y[1], y[2], W(name + "fn.temperature"));
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

    /// <summary>The query, key and value weights with the queries' factor 1/sqrt(channels of a head) in them.</summary>
    private Tensor ScaledQueries(string name)
    {
        return Prepared(name, Make);

        Tensor Make() => (P(name) * _queryScale).to(Body);
    }

    /// <summary>The position bias of each head, (1, heads, tokens, tokens).</summary>
    private Tensor PositionBias(string name)
    {
        return Prepared(name, Expand);

        Tensor Expand()
        {
            long tokens = Shape.Window * Shape.Window;
            Tensor bias = P(name).index_select(0, _biasIndex).view(tokens, tokens, Shape.Heads).permute(2, 0, 1).unsqueeze(0).contiguous();
            return Body == ScalarType.Float32 ? bias : bias.to(Body);
        }
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

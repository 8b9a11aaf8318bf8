using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks.Craft;

/// <summary>
/// CRAFT (Li et al., ICCV 2023). Values are RGB in [0, 1]. Maps are mirrored at the right and bottom to multiples of the
/// window. Convolutions between half the channels (24) run in float32 in a bfloat16 body too.
/// </summary>
public sealed class CraftNetwork : SrNetwork
{
    private const double Epsilon = 1e-5;

    /// <summary>Wraps parameters.</summary>
    /// <param name="shape">The shape they belong to.</param>
    /// <param name="parameters">Named as <see cref="CraftShape.Parameters"/>; a feature extractor may lack the tail.</param>
    /// <param name="body">Float32 or BFloat16.</param>
    /// <param name="training">See <see cref="SrNetwork"/>.</param>
    public CraftNetwork(CraftShape shape, ParameterSet parameters, ScalarType body = ScalarType.Float32, bool training = false)
        : base(parameters, body, training) => Shape = shape;

    /// <inheritdoc/>
    public override CraftShape Shape { get; }

    private protected override ProcessorNetwork? CreateLoops(ParameterSet parameters) => CraftOnProcessor.Runs(Shape) ? new CraftOnProcessor(Shape, parameters, Body) : null;

    /// <summary>Mirrors without repeating the edge; to and fro where the map is smaller than what is wanted.</summary>
    private protected override Tensor Pad(Tensor x, long height, long width)
    {
        using var scope = NewDisposeScope();
        return x.index_select(1, Mirrored(x.shape[1], height)).index_select(2, Mirrored(x.shape[2], width)).MoveToOuterDisposeScope();

        Tensor Mirrored(long length, long wanted)
        {
            long period = Math.Max(1, 2 * (length - 1));
            return tensor([.. Enumerable.Range(0, (int)wanted).Select(i => i % period < length ? i % period : period - (i % period))], device: x.device);
        }
    }

    private protected override Tensor Extract(Tensor x)
    {
        using var scope = NewDisposeScope();
        Tensor first = Nhwc.Convolution(Nhwc.AddColour(x, Shape.Mean!, -1), P("conv_first.weight"), P("conv_first.bias"));
        Tensor body = Body == ScalarType.Float32 ? first : first.to(Body);
        for (int g = 0; g < Shape.Depths.Count; g++)
            body = Group(body, $"layers.{g}.", Shape.Depths[g]);
        body = F.layer_norm(body.to(ScalarType.Float32), [Shape.Channels], P("norm.body.weight"), P("norm.body.bias"), Epsilon);
        Tensor last = End(body, "conv_after_body");
        return Add(last, first).MoveToOuterDisposeScope();
    }

    private Tensor Group(Tensor x, string name, int depth)
    {
        using var scope = NewDisposeScope();
        Tensor y = x;
        for (int i = 0; i < depth; i++)
        {
            // Both branches read the same state.
            Tensor low = WindowBlock(y, $"{name}residual_group.srwa_blocks.{2 * i}.", shifted: false);
            low = WindowBlock(low, $"{name}residual_group.srwa_blocks.{(2 * i) + 1}.", shifted: true);
            Tensor high = HighFrequencyBlock(y, $"{name}residual_group.hfer_blocks.{i}.");
            y = FusionBlock(low, high, $"{name}residual_group.hf_blocks.{i}.");
        }
        return Add(Nhwc.Convolution(y, W(name + "conv.weight"), W(name + "conv.bias")), x).MoveToOuterDisposeScope();
    }

    /// <summary>Attention in flat and in tall windows, each over half the channels, with a depthwise convolution of the values; then an MLP.</summary>
    private Tensor WindowBlock(Tensor x, string name, bool shifted)
    {
        using var scope = NewDisposeScope();
        int c = Shape.Channels;
        Tensor qkv = Nhwc.Pointwise(Norm(x, name + "norm1", Epsilon), W(name + "qkv.weight"), W(name + "qkv.bias"));
        Tensor y = cat([WindowAttention(qkv, 0, name, shifted), WindowAttention(qkv, 1, name, shifted)], 3);
        y = Add(y, Nhwc.Convolution(qkv.narrow(3, 2 * c, c).contiguous(), W(name + "get_v.weight"), W(name + "get_v.bias"), groups: c));
        y = Add(Nhwc.Pointwise(y, W(name + "proj.weight"), W(name + "proj.bias")), x);
        Tensor hidden = F.gelu(Nhwc.Pointwise(Norm(y, name + "norm2", Epsilon), W(name + "mlp.fc1.weight"), W(name + "mlp.fc1.bias")));
        return Add(Nhwc.Pointwise(hidden, W(name + "mlp.fc2.weight"), W(name + "mlp.fc2.bias")), y).MoveToOuterDisposeScope();
    }

    /// <summary>One branch: flat windows (0) or tall ones (1). Shifted windows wrap around the border; there is no mask.</summary>
    private Tensor WindowAttention(Tensor qkv, int branch, string name, bool shifted)
    {
        using var scope = NewDisposeScope();
        long batch = qkv.shape[0], height = qkv.shape[1], width = qkv.shape[2];
        int heads = Shape.Heads / 2, each = Shape.Channels / Shape.Heads, half = Shape.Channels / 2;
        int windowRows = branch == 0 ? Shape.ShortSide : Shape.LongSide, windowColumns = branch == 0 ? Shape.LongSide : Shape.ShortSide;
        long rows = height / windowRows, columns = width / windowColumns;

        Tensor y = qkv.view(batch, height, width, 3, 2, half).select(4, branch);
        if (shifted)
            y = y.roll([-(windowRows / 2), -(windowColumns / 2)], [1, 2]);
        y = y.reshape(batch, rows, windowRows, columns, windowColumns, 3, heads, each)
            .permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, batch * rows * columns, heads, windowRows * windowColumns, each);
        y = TokenAttention(y, PositionBias($"{name}attns.{branch}.pos.", windowRows, windowColumns), scaled: false);
        y = y.view(batch, rows, columns, heads, windowRows, windowColumns, each).permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, half);
        if (shifted)
            y = y.roll([windowRows / 2, windowColumns / 2], [1, 2]);
        return y.MoveToOuterDisposeScope();
    }

    /// <summary>
    /// The bias of each pair of tokens, a small MLP of their offset; (1, heads, tokens, tokens). Null where the MLP is one
    /// channel wide, as in the published networks: its layer normalisation then leaves a constant, which softmax cancels.
    /// </summary>
    private Tensor? PositionBias(string name, int windowRows, int windowColumns)
    {
        return Shape.PositionChannels == 1 ? null : Prepared(name, Make);

        Tensor Make()
        {
            int tokens = windowRows * windowColumns;
            var offsets = new float[tokens * tokens * 2];
            for (int query = 0; query < tokens; query++)
            {
                for (int key = 0; key < tokens; key++)
                {
                    int at = ((query * tokens) + key) * 2;
                    offsets[at] = (query / windowColumns) - (key / windowColumns);
                    offsets[at + 1] = (query % windowColumns) - (key % windowColumns);
                }
            }
            Tensor y = NativeTensors.Create(offsets, [tokens * tokens, 2], Device);
            y = F.linear(y, P(name + "pos_proj.weight"), P(name + "pos_proj.bias"));
            foreach (string layer in (string[])["pos1", "pos2", "pos3"])
            {
                y = F.layer_norm(y, [Shape.PositionChannels], P($"{name}{layer}.0.weight"), P($"{name}{layer}.0.bias"), Epsilon).relu();
                y = F.linear(y, P($"{name}{layer}.2.weight"), P($"{name}{layer}.2.bias"));
            }
            return y.view(tokens, tokens, -1).permute(2, 0, 1).unsqueeze(0).contiguous().to(Body);
        }
    }

    /// <summary>Half the channels through a convolution, half through a maximum and a 1x1 convolution.</summary>
    private Tensor HighFrequencyBlock(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        int half = Shape.Channels / 2;
        Tensor wide = Body == ScalarType.Float32 ? x : x.to(ScalarType.Float32);
        Tensor local = Nhwc.Convolution(wide.narrow(3, 0, half).contiguous(), P(name + "conv.weight"), P(name + "conv.bias"));
        Tensor peaks = F.max_pool2d(wide.narrow(3, half, half).contiguous().permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1).contiguous();
        peaks = Nhwc.Pointwise(peaks, P(name + "fc.weight"), P(name + "fc.bias"));
        Tensor y = F.gelu(cat([local, peaks], 3));
        if (Body != ScalarType.Float32)
            y = y.to(Body);
        return Add(Nhwc.Pointwise(y, W(name + "last_fc.weight"), W(name + "last_fc.bias")), x).MoveToOuterDisposeScope();
    }

    /// <summary>Channel attention over the whole map, queries from the high frequencies, keys and values from the window blocks; then a gated feed-forward part.</summary>
    private Tensor FusionBlock(Tensor low, Tensor high, string name)
    {
        using var scope = NewDisposeScope();
        int c = Shape.Channels, each = c / Shape.Heads;
        long batch = low.shape[0], pixels = low.shape[1] * low.shape[2];
        Tensor q = Nhwc.Convolution(Nhwc.Pointwise(high, W(name + "attn.q.weight"), null), W(name + "attn.q_dwconv.weight"), null, groups: c);
        Tensor kv = Nhwc.Pointwise(Norm(low, name + "norm1.body", Epsilon), W(name + "attn.kv.weight"), null);
        kv = Nhwc.Convolution(kv, W(name + "attn.kv_dwconv.weight"), null, groups: 2 * c);
        q = q.view(batch, pixels, c).transpose(1, 2).contiguous().view(batch * Shape.Heads, each, pixels);
        kv = kv.view(batch, pixels, 2, c).permute(2, 0, 3, 1).contiguous().view(2, batch * Shape.Heads, each, pixels);
        Tensor y = ChannelAttention(q, kv[0], kv[1], W(name + "attn.temperature"));
        y = y.view(batch, c, pixels).transpose(1, 2).contiguous().view(low.shape);
        y = Add(Nhwc.Pointwise(y, W(name + "attn.project_out.weight"), null), low);
        return Add(GatedFeedForward(Norm(y, name + "norm2.body", Epsilon), name + "ffn."), y).MoveToOuterDisposeScope();
    }
}

using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks.SmfaNet;

/// <summary>
/// SMFANet (Zheng et al., ECCV 2024). Values are RGB in [0, 1]; maps smaller than a cell repeat their edge. The residual
/// stream, the norms and variances, and the convolutions between half the channels run in float32 in a bfloat16 body too.
/// The variance of a block's features is taken over the whole map, so a block alone and the same place in a whole image differ.
/// </summary>
public sealed class SmfaNetNetwork : SrNetwork
{
    /// <summary>Wraps parameters.</summary>
    /// <param name="shape">The shape they belong to.</param>
    /// <param name="parameters">Named as <see cref="SmfaNetShape.Parameters"/>; a feature extractor may lack the tail.</param>
    /// <param name="body">Float32 or BFloat16.</param>
    /// <param name="training">See <see cref="SrNetwork"/>.</param>
    public SmfaNetNetwork(SmfaNetShape shape, ParameterSet parameters, ScalarType body = ScalarType.Float32, bool training = false)
        : base(parameters, body, training) => Shape = shape;

    /// <inheritdoc/>
    public override SmfaNetShape Shape { get; }

    private protected override ProcessorNetwork? CreateLoops(ParameterSet parameters) => SmfaNetOnProcessor.Runs(Shape) ? new SmfaNetOnProcessor(Shape, parameters, Body) : null;

    private protected override Tensor Pad(Tensor x, long height, long width)
    {
        using var scope = NewDisposeScope();
        return x.index_select(1, Clamped(x.shape[1], height)).index_select(2, Clamped(x.shape[2], width)).MoveToOuterDisposeScope();

        Tensor Clamped(long length, long wanted) => tensor([.. Enumerable.Range(0, (int)wanted).Select(i => Math.Min(i, length - 1))], device: x.device);
    }

    private protected override Tensor Extract(Tensor x)
    {
        using var scope = NewDisposeScope();
        Tensor first = Nhwc.Convolution(x, P("to_feat.weight"), P("to_feat.bias")), y = first;
        for (int i = 0; i < Shape.Blocks; i++)
        {
            y = Sum(y, Modulation(Normalised(y), $"feats.{i}.smfa."));
            y = Sum(y, FeedForward(Normalised(y), $"feats.{i}.pcfn."));
        }
        return y.Plus(first).MoveToOuterDisposeScope();

        // The first sum must not change what the last one adds.
        Tensor Sum(Tensor stream, Tensor branch) => stream.Plus(branch.to(ScalarType.Float32));
    }

    /// <summary>Every pixel's features divided by their L2 norm, in the body's type.</summary>
    private Tensor Normalised(Tensor x)
    {
        using var scope = NewDisposeScope();
        Tensor y = F.normalize(x, 2, -1, 1e-12);
        return (Body == ScalarType.Float32 ? y : y.to(Body)).MoveToOuterDisposeScope();
    }

    /// <summary>Self-modulation feature aggregation (SMFA): a coarse map of peaks and the variance gate one branch, local details add to it.</summary>
    private Tensor Modulation(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        long height = x.shape[1], width = x.shape[2], channels = Shape.Channels;
        Tensor both = Nhwc.Pointwise(x, W(name + "linear_0.weight"), W(name + "linear_0.bias"));
        Tensor y = both.narrow(3, 0, channels).contiguous(), z = both.narrow(3, channels, channels).contiguous(), wide = z.to(ScalarType.Float32);

        Tensor cells = F.adaptive_max_pool2d(wide.permute(0, 3, 1, 2), [height / SmfaNetShape.Cell, width / SmfaNetShape.Cell]).permute(0, 2, 3, 1).contiguous();
        cells = Nhwc.Convolution(cells, P(name + "dw_conv.weight"), P(name + "dw_conv.bias"), groups: Shape.Channels) * P(name + "alpha").view(-1);
        cells = cells.Plus(Variance(wide) * P(name + "belt").view(-1));
        Tensor gate = F.gelu(Nhwc.Pointwise(cells, P(name + "linear_1.weight"), P(name + "linear_1.bias")));
        gate = F.interpolate(gate.permute(0, 3, 1, 2), size: [height, width], mode: InterpolationMode.Nearest).permute(0, 2, 3, 1).contiguous();

        Tensor local = F.gelu(Nhwc.Pointwise(Doubled(y, name + "lde.conv_0.0."), EvenThenOdd(W(name + "lde.conv_0.1.weight")), W(name + "lde.conv_0.1.bias")));
        local = Nhwc.Pointwise(local, W(name + "lde.conv_1.weight"), W(name + "lde.conv_1.bias"));
        return Nhwc.Pointwise((z * (Body == ScalarType.Float32 ? gate : gate.to(Body))).Plus(local), W(name + "linear_2.weight"), W(name + "linear_2.bias")).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// A depthwise convolution with two outputs for each channel (2 c and 2 c + 1 read channel c), all even outputs before
    /// all odd ones. As two convolutions, since libtorch's with two outputs of a channel is silently wrong.
    /// </summary>
    private Tensor Doubled(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        Tensor weight = W(name + "weight").view(Shape.Channels, 2, 1, 3, 3), bias = W(name + "bias").view(Shape.Channels, 2);
        return cat([.. Enumerable.Range(0, 2).Select(i => Nhwc.Convolution(x, weight.select(1, i).contiguous(), bias.select(1, i).contiguous(), groups: Shape.Channels))], 3).MoveToOuterDisposeScope();
    }

    /// <summary>Weights (O, 2 C, 1, 1) whose inputs come as <see cref="Doubled"/> gives them.</summary>
    private Tensor EvenThenOdd(Tensor weight)
    {
        using var scope = NewDisposeScope();
        return weight.view(weight.shape[0], Shape.Channels, 2).permute(0, 2, 1).reshape(weight.shape[0], 2 * Shape.Channels).MoveToOuterDisposeScope();
    }

    /// <summary>Variance over all pixels of each map and channel, (B, 1, 1, C), divided by one less than the pixels.</summary>
    private static Tensor Variance(Tensor x)
    {
        using var scope = NewDisposeScope();
        Tensor centred = x - x.mean([1, 2], keepdim: true);
        return (centred * centred).sum([1, 2], keepdim: true).DividedBy((x.shape[1] * x.shape[2]) - 1).MoveToOuterDisposeScope();
    }

    /// <summary>Partial-convolution feed-forward part (PCFN): half of the features' number of hidden channels are mixed with their neighbours.</summary>
    private Tensor FeedForward(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        long half = Shape.Channels / 2;
        Tensor hidden = F.gelu(Nhwc.Pointwise(x, W(name + "conv_0.weight"), W(name + "conv_0.bias")));
        Tensor mixed = hidden.narrow(3, 0, half).contiguous().to(ScalarType.Float32);
        mixed = F.gelu(Nhwc.Convolution(mixed, P(name + "conv_1.weight"), P(name + "conv_1.bias")));
        hidden = cat([mixed.to(Body), hidden.narrow(3, half, (2 * Shape.Channels) - half)], 3);
        return Nhwc.Pointwise(hidden, W(name + "conv_2.weight"), W(name + "conv_2.bias")).MoveToOuterDisposeScope();
    }
}

using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks.DownNet;

/// <summary>
/// Runs a Down-Net, in float32 and differentiable when its parameters are. There is no activation: the map is linear, in
/// the interior one convolution of kernel 2 scale + 1 around pixel scale i (bicubic is centred half an LR pixel later).
/// Values are those of the super-resolution network behind it. Does not own its parameters.
/// </summary>
/// <param name="shape">The shape they belong to.</param>
/// <param name="parameters">Named as <see cref="DownNetShape.Parameters"/>.</param>
public sealed class DownNetNetwork(DownNetShape shape, ParameterSet parameters)
{
    /// <summary>The network's shape.</summary>
    public DownNetShape Shape => shape;

    /// <summary>Downscales maps, each by itself: zeros beyond the border at every stage.</summary>
    /// <param name="x">(B, H, W, 3), contiguous float32; H and W are multiples of the scale.</param>
    /// <returns>(B, H / scale, W / scale, 3), neither clamped nor rounded.</returns>
    /// <exception cref="ArgumentException">A side is no multiple of the scale.</exception>
    public Tensor Forward(Tensor x)
    {
        if (x.shape[1] % shape.Scale != 0 || x.shape[2] % shape.Scale != 0)
            throw new ArgumentException($"A map of {x.shape[1]} x {x.shape[2]} cannot be divided by {shape.Scale}.", nameof(x));
        using var scope = NewDisposeScope();
        Tensor y = Nhwc.Convolution(x, parameters["0.weight"], null);
        for (int layer = 1; layer <= shape.Layers; layer++)
        {
            Tensor mean = F.avg_pool2d(y.permute(0, 3, 1, 2), 2, 2).permute(0, 2, 3, 1);
            y = Nhwc.Convolution(y, parameters[DownNetShape.HalvingName(layer)], null, stride: 2).Plus(mean);
        }
        return Nhwc.Pointwise(y.contiguous(), parameters[shape.LastName], null).MoveToOuterDisposeScope();
    }
}

using BbmrCluster.Networks.Kernels;
using TorchSharp;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks;

/// <summary>
/// Operations on maps of shape (batch, height, width, channels), contiguous. A convolution sees them as channels-last
/// views without a copy; that layout is also the only one in which libtorch's CPU convolutions are right for channel
/// counts that are not multiples of 16.
/// </summary>
internal static class Nhwc
{
    /// <summary>k x k convolution.</summary>
    /// <param name="x">(B, H, W, C).</param>
    /// <param name="weight">(O, C / groups, k, k), of the type of <paramref name="x"/>.</param>
    /// <param name="bias">(O) or null.</param>
    /// <param name="stride">Step in both directions.</param>
    /// <param name="padding">Zeros on each side.</param>
    /// <param name="groups">1, or C with one output for each channel: with two, libtorch is silently wrong in this layout (by 40 %).</param>
    public static Tensor Convolution(Tensor x, Tensor weight, Tensor? bias, int stride = 1, int padding = 1, int groups = 1)
    {
        if (groups > 1 && (groups != x.shape[3] || groups != weight.shape[0]))
            throw new ArgumentException($"A convolution of {x.shape[3]} channels in {groups} groups with {weight.shape[0]} outputs cannot be trusted.", nameof(groups));
        bool differentiable = is_grad_enabled() && (x.requires_grad || weight.requires_grad);
        if (!differentiable && stride == 1 && padding == 1 && groups == 1 && weight.shape[2] == 3 && x.dtype == ScalarType.Float32 && x.device.type == DeviceType.CPU)
            return Convolution3.Run(x, weight, bias);
        using var scope = NewDisposeScope();
        long rows = padding, columns = padding;
        if (groups == 1 && x.dtype == ScalarType.Float32 && x.device.type == DeviceType.CPU)
        {
            // For a single small map, and with one thread for fewer than 16 maps (one, when gradients are wanted), libtorch
            // leaves oneDNN for 3x3 kernels and looks for NNPACK, which does not run everywhere; a kernel widened by zeros stays.
            bool tiny = x.shape[0] == 1 && x.numel() <= 20480;
            if (tiny || (stride == 1 && x.shape[0] < (differentiable ? 2 : 16) && get_num_threads() == 1))
            {
                weight = F.pad(weight, tiny ? [1, 1, 1, 1] : [1, 1, 0, 0]);
                columns++;
                rows += tiny ? 1 : 0;
            }
        }
        Tensor y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, strides: [stride, stride], padding: [rows, columns], groups: groups);
        return y.permute(0, 2, 3, 1).contiguous().MoveToOuterDisposeScope();
    }

    /// <summary>1x1 convolution, or a linear layer over the last axis.</summary>
    /// <param name="x">(..., C), contiguous.</param>
    /// <param name="weight">(O, C) or (O, C, 1, 1).</param>
    /// <param name="bias">(O) or null.</param>
    public static Tensor Pointwise(Tensor x, Tensor weight, Tensor? bias)
    {
        using var scope = NewDisposeScope();
        long[] shape = x.shape;
        long channels = shape[^1], rows = x.numel() / channels, outputs = weight.shape[0];
        // In float32 the product is twice as fast as a 1x1 convolution (of at least 16 maps, see above).
        // For channel counts that are not multiples of 16 it is silently wrong here and there (10 to 40, 32 to 170).
        if (x.dtype == ScalarType.Float32 && x.device.type == DeviceType.CPU && channels % 16 == 0 && outputs % 16 == 0 && rows % 64 == 0 && rows >= 1024)
        {
            Tensor y = F.conv2d(x.view(rows / 64, 8, 8, channels).permute(0, 3, 1, 2), weight.view(outputs, channels, 1, 1), bias);
            return y.permute(0, 2, 3, 1).contiguous().view([.. shape[..^1], outputs]).MoveToOuterDisposeScope();
        }
        return F.linear(x, weight.view(outputs, channels), bias).MoveToOuterDisposeScope();
    }

    /// <summary>Adds a colour (three values) times a factor to every pixel of (B, H, W, 3).</summary>
    public static Tensor AddColour(Tensor x, IReadOnlyList<float> colour, float factor = 1)
    {
        using var scope = NewDisposeScope();
        float[] values = [.. colour.Select(value => value * factor)];
        return x.Plus(NativeTensors.Create(values, [values.Length], x.device)).MoveToOuterDisposeScope();
    }

    /// <summary>Channel blocks to space: (B, H, W, C r r) to (B, H r, W r, C), channel c r r + i r + j going to row offset i, column offset j.</summary>
    public static Tensor PixelShuffle(Tensor x, int factor)
    {
        if (factor == 1)
            return x;
        using var scope = NewDisposeScope();
        long[] s = x.shape;
        long c = s[3] / (factor * factor);
        return x.view(s[0], s[1], s[2], c, factor, factor).permute(0, 1, 4, 2, 5, 3).contiguous()
            .view(s[0], s[1] * factor, s[2] * factor, c).MoveToOuterDisposeScope();
    }
}

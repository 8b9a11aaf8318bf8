using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

/// <summary>
/// libtorch's CPU convolutions give wrong numbers for some channel counts and layouts, without an error. So every shape
/// in use is compared, with all three gradients, to native float64 code.
/// </summary>
public sealed class ConvolutionTests
{
    public static TheoryData<int, int, int, int, int, int> Shapes()
    {
        var data = new TheoryData<int, int, int, int, int, int>();
        // inputs, outputs, kernel, stride, padding, groups
        foreach ((int i, int o, int k, int s, int p, int g) in ((int, int, int, int, int, int)[])[
            (3, 64, 3, 1, 1, 1), (64, 64, 3, 1, 1, 1),
            (64, 12, 3, 1, 1, 1), (64, 48, 3, 1, 1, 1), (64, 192, 3, 1, 1, 1), (64, 27, 3, 1, 1, 1),
            (12, 12, 3, 1, 1, 1),
            (3, 48, 3, 1, 1, 1), (48, 48, 3, 1, 1, 1), (24, 24, 3, 1, 1, 1),
            (48, 12, 3, 1, 1, 1), (48, 27, 3, 1, 1, 1), (48, 192, 3, 1, 1, 1),
            (3, 32, 3, 1, 1, 1), (32, 32, 3, 2, 1, 1),
            (16, 16, 3, 2, 0, 1), (16, 16, 3, 1, 1, 1),
            (64, 1, 3, 1, 1, 64), (128, 1, 3, 1, 1, 128), (192, 1, 3, 1, 1, 192),
            (48, 1, 3, 1, 1, 48), (96, 1, 3, 1, 1, 96), (254, 1, 3, 1, 1, 254),
            (3, 36, 3, 1, 1, 1), (36, 1, 3, 1, 1, 36), (18, 18, 3, 1, 1, 1), (36, 12, 3, 1, 1, 1), (36, 48, 3, 1, 1, 1), (40, 192, 3, 1, 1, 1)])
        {
            data.Add(i, o, k, s, p, g);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Convolutions_and_their_gradients_match_float64(int inputs, int outputs, int kernel, int stride, int padding, int groups)
    {
        foreach ((int threads, int batch) in ((int, int)[])[(1, 1), (1, 3), (1, 16), (2, 3)])
        {
            NativeRuntime.SetThreads(threads);
            Compare(batch, inputs, groups > 1 ? groups : outputs, kernel, stride, padding, groups, ScalarType.Float32, 1e-4);
            // Bodies run in bfloat16, but only in shapes of 16 n channels.
            if (inputs % 16 == 0 && (groups > 1 || outputs % 16 == 0))
                Compare(batch, inputs, groups > 1 ? groups : outputs, kernel, stride, padding, groups, ScalarType.BFloat16, 0.02);
        }
    }

    [Fact]
    public void A_convolution_with_two_outputs_for_each_channel_is_refused()
    {
        using var scope = NewDisposeScope();
        Assert.Throws<ArgumentException>(() => Nhwc.Convolution(randn(1, 8, 8, 48), randn(96, 1, 3, 3), null, groups: 48));
    }

    private static void Compare(int batch, int inputs, int outputs, int kernel, int stride, int padding, int groups, ScalarType type, double tolerance)
    {
        using var scope = NewDisposeScope();
        manual_seed(7);
        Tensor x = randn(batch, 24, 17, inputs).to(type), w = (randn(outputs, inputs / groups, kernel, kernel) * 0.1).to(type), b = randn(outputs).to(type);
        Tensor x64 = x.to(ScalarType.Float64), w64 = w.to(ScalarType.Float64), b64 = b.to(ScalarType.Float64);
        foreach (Tensor t in (Tensor[])[x, w, b, x64, w64, b64])
            t.requires_grad = true;

        Tensor y = Nhwc.Convolution(x, w, b, stride, padding, groups);
        Tensor y64 = nn.functional.conv2d(x64.permute(0, 3, 1, 2), w64, b64, strides: [stride, stride], padding: [padding, padding], groups: groups).permute(0, 2, 3, 1);
        Near(y64, y, "output");
        Tensor direction = randn(y.shape).to(type);
        (y * direction).sum().backward();
        (y64 * direction.to(ScalarType.Float64)).sum().backward();
        Near(x64.grad!, x.grad!, "gradient of the input");
        Near(w64.grad!, w.grad!, "gradient of the weight");
        Near(b64.grad!, b.grad!, "gradient of the bias");

        void Near(Tensor expected, Tensor actual, string what)
        {
            double error = ((actual.to(ScalarType.Float64) - expected).abs().max() / expected.abs().max()).item<double>();
            Assert.True(error < tolerance, $"{what} of {inputs}->{outputs}, kernel {kernel}, batch {batch}, {type}: relative error {error}");
        }
    }

    [Theory]
    [InlineData(64, 192, false)]
    [InlineData(64, 16, true)]
    [InlineData(16, 64, true)]
    [InlineData(24, 24, true)]
    [InlineData(48, 254, false)]
    [InlineData(127, 48, false)]
    [InlineData(32, 3, false)]
    [InlineData(32, 96, true)]
    [InlineData(48, 96, true)]
    [InlineData(96, 96, true)]
    [InlineData(96, 48, true)]
    [InlineData(36, 72, true)]
    [InlineData(32, 64, true)]
    [InlineData(64, 32, true)]
    [InlineData(16, 16, true)]
    [InlineData(32, 32, true)]
    [InlineData(32, 170, false)]
    [InlineData(85, 32, false)]
    [InlineData(30, 30, true)]
    [InlineData(20, 20, true)]
    [InlineData(60, 180, true)]
    [InlineData(159, 60, false)]
    [InlineData(40, 120, true)]
    [InlineData(106, 40, false)]
    [InlineData(10, 40, true)]
    public void Pointwise_products_match_float64(int inputs, int outputs, bool bias)
    {
        foreach (ScalarType type in (ScalarType[])[ScalarType.Float32, ScalarType.BFloat16])
        {
            // 1024 rows and more take another way than fewer.
            foreach (int side in (int[])[8, 32])
            {
                using var scope = NewDisposeScope();
                manual_seed(3);
                Tensor x = randn(1, side, side, inputs).to(type), w = (randn(outputs, inputs) * 0.1).to(type), b = randn(outputs).to(type);
                Tensor y = Nhwc.Pointwise(x, w, bias ? b : null).to(ScalarType.Float64);
                Tensor expected = nn.functional.linear(x.to(ScalarType.Float64), w.to(ScalarType.Float64), bias ? b.to(ScalarType.Float64) : null);
                Assert.InRange(((y - expected).abs().max() / expected.abs().max()).item<double>(), 0, type == ScalarType.Float32 ? 1e-5 : 0.02);
            }
        }
    }

    [Fact]
    public void Pixel_shuffle_orders_channels_as_pytorch_does()
    {
        using var scope = NewDisposeScope();
        Tensor x = arange(2 * 3 * 5 * 24, ScalarType.Float32).view(2, 3, 5, 24);
        Tensor expected = nn.functional.pixel_shuffle(x.permute(0, 3, 1, 2).contiguous(), 2).permute(0, 2, 3, 1).contiguous();
        Assert.Equal(expected.data<float>().ToArray(), Nhwc.PixelShuffle(x, 2).data<float>().ToArray());
    }
}

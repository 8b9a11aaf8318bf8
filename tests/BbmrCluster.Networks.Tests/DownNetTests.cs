using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

public sealed class DownNetTests
{
    [Theory]
    [InlineData(2, -49.036942, 7.184951, 0.4719462, 0.1982093, 0.3157551, 0.4325698, -0.1290999, -0.4884537)]
    [InlineData(4, -28.657418, 3.458419, -0.0394574, 0.0058764, -0.001833, -0.1148429, -0.3358802, -0.3874134)]
    [InlineData(8, -5.382603, 1.792268, -0.2254826, -0.2159406, -0.283203, -0.1882087, -0.3028252, 0.2600512)]
    public void Output_has_the_golden_numbers(int scale, double sum, double norm, double a, double b, double c, double d, double mid, double last)
    {
        NativeRuntime.SetThreads(1);
        using var scope = NewDisposeScope();
        using Run run = new(new DownNetShape(scale));
        Tensor y = run.Network.Forward(Input(32, 32));
        Assert.Equal([1, 32 / scale, 32 / scale, 3], y.shape);
        Fingerprint.Of(y.permute(0, 3, 1, 2).contiguous().data<float>().ToArray()).IsNear(new Fingerprint(sum, norm, [a, b, c, d], mid, last));
    }

    [Theory]
    [InlineData(2)]
    [InlineData(4)]
    [InlineData(8)]
    public void The_interior_is_one_convolution_of_kernel_twice_the_scale_plus_one(int scale)
    {
        using var scope = NewDisposeScope();
        using Run run = new(new DownNetShape(scale));
        int side = 8 * scale, centre = side / 2;
        Tensor impulse = zeros(1, side, side, 3);
        Tensor base0 = run.Network.Forward(impulse);
        Assert.Equal(0, base0.abs().max().item<float>());
        for (int distance = 0; distance <= scale + 1; distance++)
        {
            impulse.zero_();
            impulse[0, centre + distance, centre, 1] = 1;
            float response = run.Network.Forward(impulse)[0, centre / scale, centre / scale].abs().max().item<float>();
            Assert.Equal(distance <= scale, response > 0);
        }
    }

    [Fact]
    public void Gradients_reach_every_parameter()
    {
        var shape = new DownNetShape(4);
        using var parameters = new ParameterSet(shape.Parameters, ReferenceNumbers.Weights(shape.Parameters), "test", trainable: true);
        using var scope = NewDisposeScope();
        new DownNetNetwork(shape, parameters).Forward(Input(16, 16)).abs().mean().backward();
        using Tensor gradient = parameters.TakeGradient();
        Assert.Equal(shape.BlockCost().Parameters, (gradient != 0).sum().item<long>());
    }

    [Fact]
    public void The_shape_is_read_off_a_state_dict()
    {
        var shape = new DownNetShape(8, 16);
        Assert.Equal(shape, Architectures.Recognise(ReferenceNumbers.Weights(shape.Parameters), "test").Shape);
        Assert.Contains("does not upscale", Assert.Throws<InvalidDataException>(() => Architectures.Upscaling(shape, "test")).Message);
    }

    [Fact]
    public void A_map_that_the_scale_does_not_divide_is_refused()
    {
        using var scope = NewDisposeScope();
        using Run run = new(new DownNetShape(4));
        Assert.Contains("18 x 16", Assert.Throws<ArgumentException>(() => run.Network.Forward(Input(18, 16))).Message);
    }

    private static Tensor Input(int height, int width) => NativeTensors.Create([.. ReferenceNumbers.Unit(height, width).Select(v => (float)v)], [1, height, width, 3]);

    private sealed class Run(DownNetShape shape) : IDisposable
    {
        private readonly ParameterSet _parameters = ReferenceNumbers.For(shape);

        public DownNetNetwork Network => new(shape, _parameters);

        public void Dispose() => _parameters.Dispose();
    }
}

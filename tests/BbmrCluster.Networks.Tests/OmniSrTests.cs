using BbmrCluster.Tests;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

public sealed class OmniSrTests
{
    [FixtureTheory]
    [InlineData("omnisr_res1_x2", 1)]
    [InlineData("omnisr_res1_x2", 2)]
    [InlineData("omnisr_res1_x4", 1)]
    [InlineData("omnisr_res1_x8", 2)]
    [InlineData("omnisr_res5_x4", 2)]
    public void Output_loss_and_gradient_match_the_reference_implementation(string fixture, int threads)
    {
        NativeRuntime.SetThreads(threads);
        ParityResult result = FixtureParity.Run(Fixtures.Path("networks", fixture + ".safetensors"));
        Assert.Equal("omnisr", result.Architecture);
        Assert.InRange(result.MaxRelError, 0, 1e-5);
        Assert.InRange(result.LossRelError!.Value, 0, 1e-5);
        Assert.InRange(result.GradNormRelError!.Value, 0, 1e-5);
    }

    [Theory]
    [InlineData(4, 5, 32, 32, -303.4445, 63.090573, -0.1009278, -0.1971136, -0.1262654, -0.2508033, -0.3675576, 0.1840698)]
    [InlineData(2, 5, 64, 64, 119.11328, 59.63189, -0.100587, -0.1966038, 0.0414285, -0.1135979, -0.0605803, -0.1642266)]
    [InlineData(8, 5, 16, 16, -70.757327, 64.590766, -0.0964301, -0.2069756, -0.135083, -0.2684557, -0.0819827, -0.1827835)]
    [InlineData(4, 1, 32, 32, -146.414832, 76.206895, 0.068682, 0.2566205, 0.2776986, -0.0192532, 0.1177985, -0.0772868)]
    [InlineData(2, 1, 64, 64, 319.758595, 75.463986, 0.0652744, 0.265061, -0.4620765, -0.1653555, -0.1523323, -0.1983053)]
    [InlineData(8, 1, 16, 16, -69.220144, 74.161588, 0.0578298, 0.2679646, 0.2827752, 0.0032154, 0.0337448, 0.1285449)]
    [InlineData(4, 1, 20, 27, -44.303353, 55.33736, 0.06152, 0.2574807, 0.2752552, -0.023951, -0.0466141, 0.1372098)]
    public void Output_has_the_golden_numbers(int scale, int osags, int height, int width, double sum, double norm, double a, double b, double c, double d, double mid, double last)
    {
        NativeRuntime.SetThreads(1);
        var shape = new OmniSrShape(scale, osags);
        using ParameterSet parameters = ReferenceNumbers.OmniSr(shape);
        using var network = new OmniSrNetwork(shape, parameters);
        using var scope = NewDisposeScope();
        Tensor y = network.Forward(tensor(ReferenceNumbers.Input(height, width), [1, height, width, 3]));
        Assert.Equal([1, height * scale, width * scale, 3], y.shape);
        Fingerprint.Of(y.permute(0, 3, 1, 2).contiguous().data<float>().ToArray()).IsNear(new Fingerprint(sum, norm, [a, b, c, d], mid, last));
    }

    [Theory]
    [InlineData(2, 5, 784_604)]
    [InlineData(3, 5, 793_259)]
    [InlineData(4, 5, 805_376)]
    [InlineData(8, 5, 888_464)]
    [InlineData(2, 1, 193_436)]
    [InlineData(4, 1, 214_208)]
    [InlineData(8, 1, 297_296)]
    public void Parameter_counts_are_the_published_ones(int scale, int osags, long count) =>
        Assert.Equal(count, new OmniSrShape(scale, osags).Parameters.Sum(p => p.Shape.Aggregate(1L, (a, b) => a * b)));

    [Fact]
    public void The_shape_is_read_off_a_state_dict()
    {
        var shape = new OmniSrShape(4, 3);
        Assert.Equal(shape, OmniSrShape.Of(ReferenceNumbers.Weights(shape.Parameters), "test"));
        Assert.Contains("test", Assert.Throws<InvalidDataException>(() => OmniSrShape.Of(new Dictionary<string, TensorData>(), "test")).Message);
    }

    [Fact]
    public void A_missing_unknown_or_misshapen_parameter_is_named()
    {
        var shape = new OmniSrShape(2, 1);
        var values = new Dictionary<string, TensorData>(ReferenceNumbers.Weights(shape.Parameters), StringComparer.Ordinal);
        TensorData bias = values["output.bias"];
        values.Remove("output.bias");
        Assert.Contains("lacks the parameter 'output.bias'", Assert.Throws<InvalidDataException>(() => new ParameterSet(shape.Parameters, values, "w")).Message);
        values["output.bias"] = new TensorData([8, 8], bias.Values);
        Assert.Contains("'output.bias' has the shape 8x8, 64 is needed", Assert.Throws<InvalidDataException>(() => new ParameterSet(shape.Parameters, values, "w")).Message);
        values["output.bias"] = bias;
        values["extra"] = bias;
        Assert.Contains("holds 'extra'", Assert.Throws<InvalidDataException>(() => new ParameterSet(shape.Parameters, values, "w")).Message);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(1, 40)]
    [InlineData(17, 3)]
    public void Maps_of_any_size_come_out_scaled(int height, int width)
    {
        var shape = new OmniSrShape(2, 1);
        using ParameterSet parameters = ReferenceNumbers.OmniSr(shape);
        using var network = new OmniSrNetwork(shape, parameters);
        using var scope = NewDisposeScope();
        Assert.Equal([1, 2 * height, 2 * width, 3], network.Forward(tensor(ReferenceNumbers.Input(height, width), [1, height, width, 3])).shape);
    }

    [Fact]
    public void A_bfloat16_body_stays_near_float32()
    {
        var shape = new OmniSrShape(4, 1);
        using ParameterSet parameters = ReferenceNumbers.OmniSr(shape);
        using var exact = new OmniSrNetwork(shape, parameters);
        using var fast = new OmniSrNetwork(shape, parameters, ScalarType.BFloat16);
        using var scope = NewDisposeScope();
        Tensor x = tensor(ReferenceNumbers.Input(32, 32), [1, 32, 32, 3]);
        Tensor a = exact.Forward(x), b = fast.Forward(x);
        double relative = ((a - b).norm() / a.norm()).item<float>();
        Assert.InRange(relative, 1e-6, 0.01);
    }

    [Fact]
    public void Inference_leaves_no_tensor_behind()
    {
        var shape = new OmniSrShape(8, 1);
        using ParameterSet parameters = ReferenceNumbers.OmniSr(shape);
        using var network = new OmniSrNetwork(shape, parameters, ScalarType.BFloat16);
        float[] input = ReferenceNumbers.Input(16, 16);
        Pass();
        long before = Tensor.TotalCount;
        for (int i = 0; i < 10; i++)
            Pass();
        Assert.Equal(before, Tensor.TotalCount);

        void Pass()
        {
            using var scope = NewDisposeScope();
            network.Forward(tensor(input, [1, 16, 16, 3]));
        }
    }
}

using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

/// <summary>The own forward and backward passes of training against libtorch's graph.</summary>
public sealed class TrainingPassTests
{
    /// <summary>Values at which no part of the network is trivial.</summary>
    private static Dictionary<string, TensorData> Values(OmniSrShape shape)
    {
        var random = new Random(5);
        float Draw(float size) => ((random.NextSingle() * 2) - 1) * size;
        return shape.Parameters.ToDictionary(p => p.Name, p =>
        {
            long count = p.Shape.Aggregate(1L, (a, b) => a * b), inputs = p.Shape.Length > 1 ? count / p.Shape[0] : 1;
            bool around = p.Name.EndsWith("norm.weight", StringComparison.Ordinal) || p.Name.EndsWith("temperature", StringComparison.Ordinal);
            float size = around ? 0.5f : p.Name.Contains("rel_pos", StringComparison.Ordinal) ? 1 : MathF.Sqrt(3f / inputs) * (p.Shape.Length == 1 ? 0.2f : 1);
            return new TensorData(p.Shape, [.. Enumerable.Range(0, (int)count).Select(_ => Draw(size) + (around ? 1 : 0))]);
        }, StringComparer.Ordinal);
    }

    private static (float[] Output, float[] Input, IReadOnlyDictionary<string, TensorData> Gradients) Run(OmniSrShape shape, int height, int width, ScalarType body, bool graph)
    {
        using var parameters = new ParameterSet(shape.Parameters, Values(shape), "test", trainable: true);
        using var scope = NewDisposeScope();
        var random = new Random(9);
        Tensor Draw(params long[] sizes) => NativeTensors.Create([.. Enumerable.Range(0, (int)sizes.Aggregate(1L, (a, b) => a * b)).Select(_ => (random.NextSingle() * 2) - 1)], sizes);
        Tensor x = Draw(3, height, width, 3).requires_grad_(true);
        // The network may go before the backward pass.
        Tensor y;
        using (var network = new OmniSrNetwork(shape, parameters, body, training: true, graph))
            y = network.Forward(x);
        y.backward([Draw(y.shape)]);
        return (y.data<float>().ToArray(), x.grad!.data<float>().ToArray(), parameters.Export(parameters.TakeGradient()));
    }

    private static double RelativeError(float[] value, float[] reference) =>
        Math.Sqrt(value.Zip(reference, (a, b) => Math.Pow(a - b, 2)).Sum() / reference.Sum(b => (double)b * b));

    [Theory]
    [InlineData(16, 16, 1, ScalarType.Float32, 1e-5)]
    [InlineData(24, 40, 2, ScalarType.Float32, 1e-5)]
    [InlineData(16, 24, 1, ScalarType.BFloat16, 0.06)]
    public void Output_and_every_gradient_are_those_of_the_graph(int height, int width, int osags, ScalarType body, double bound)
    {
        var shape = new OmniSrShape(2, osags);
        (float[] output, float[] input, IReadOnlyDictionary<string, TensorData> gradients) = Run(shape, height, width, body, graph: false);
        (float[] expected, float[] expectedInput, IReadOnlyDictionary<string, TensorData> reference) = Run(shape, height, width, ScalarType.Float32, graph: true);
        Assert.InRange(RelativeError(output, expected), 0, bound / 2);
        Assert.InRange(RelativeError(input, expectedInput), 0, bound);
        Assert.All(reference, pair =>
        {
            Assert.Contains(pair.Value.Values, value => value != 0);
            Assert.InRange(RelativeError(gradients[pair.Key].Values, pair.Value.Values), 0, bound);
        });
    }

    [Theory]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.BFloat16)]
    public void Passes_may_overlap_and_repeat_with_equal_gradients(ScalarType body)
    {
        var shape = new OmniSrShape(2, 1);
        using var parameters = new ParameterSet(shape.Parameters, Values(shape), "test", trainable: true);
        using var network = new OmniSrNetwork(shape, parameters, body, training: true);
        float[] Gradient(params float[] levels)
        {
            using var scope = NewDisposeScope();
            // Both forward passes come before the backward passes.
            Tensor[] outputs = [.. levels.Select(level => network.Features(full([1, 16, 16, 3], level)))];
            foreach (Tensor output in outputs)
                output.sum().backward();
            return parameters.TakeGradient().data<float>().ToArray();
        }

        float[] first = Gradient(0.5f), second = Gradient(-0.25f), both = Gradient(0.5f, -0.25f);
        Assert.Equal(first, Gradient(0.5f));
        Assert.InRange(RelativeError([.. first.Zip(second, (a, b) => a + b)], both), 0, 1e-5);
    }

    [Theory]
    [InlineData(64, 64)]
    [InlineData(64, 12)]
    [InlineData(64, 48)]
    [InlineData(48, 192)]
    public void A_convolution_is_exact_forward_and_its_gradients_differ_by_rounding_to_bfloat16(int inputs, int outputs)
    {
        var random = new Random(4);
        float[] Draw(int count) => [.. Enumerable.Range(0, count).Select(_ => (random.NextSingle() * 2) - 1)];
        var values = new Dictionary<string, TensorData>(StringComparer.Ordinal)
        {
            ["c.weight"] = new([outputs, inputs, 3, 3], Draw(outputs * inputs * 9)),
            ["c.bias"] = new([outputs], Draw(outputs)),
        };
        using var parameters = new ParameterSet([.. values.Select(pair => (pair.Key, pair.Value.Shape))], values, "test", trainable: true);
        using var scope = NewDisposeScope();
        Tensor x = NativeTensors.Create(Draw(2 * 9 * 11 * inputs), [2, 9, 11, inputs]), gradient = NativeTensors.Create(Draw(2 * 9 * 11 * outputs), [2, 9, 11, outputs]);
        Tensor exact = x.to(ScalarType.Float64).requires_grad_(true), weight = parameters["c.weight"].detach().to(ScalarType.Float64).requires_grad_(true), bias = parameters["c.bias"].detach().to(ScalarType.Float64).requires_grad_(true);
        Tensor expected = nn.functional.conv2d(exact.permute(0, 3, 1, 2), weight, bias, padding: [1L, 1L]).permute(0, 2, 3, 1);
        expected.backward([gradient.to(ScalarType.Float64)]);

        x.requires_grad_(true);
        Tensor y = ConvolutionTraining.Run(x, parameters, "c");
        y.backward([gradient]);
        IReadOnlyDictionary<string, TensorData> gradients = parameters.Export(parameters.TakeGradient());
        Assert.InRange(RelativeError(Floats(y), Floats(expected)), 0, 1e-6);
        Assert.InRange(RelativeError(Floats(x.grad!), Floats(exact.grad!)), 0, 0.004);
        Assert.InRange(RelativeError(gradients["c.weight"].Values, Floats(weight.grad!)), 0, 0.004);
        Assert.InRange(RelativeError(gradients["c.bias"].Values, Floats(bias.grad!)), 0, 1e-5);

        static float[] Floats(Tensor tensor) => tensor.to(ScalarType.Float32).contiguous().data<float>().ToArray();
    }
}

using BbmrCluster.Networks;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Training.Tests;

public sealed class GradientTests
{
    private const int Side = 16, Batch = 5;

    private static ParameterSet Parameters(SrNetworkShape shape) => new(shape.Parameters, Initialisation.FromBicubic((OmniSrShape)shape, 7), "test", trainable: true);

    private static (float[] Lr, float[] Hr) Patches(int scale)
    {
        var random = new Random(3);
        float[] Values(int count) => [.. Enumerable.Range(0, count).Select(_ => (random.NextSingle() * 2) - 1)];
        return (Values(Batch * Side * Side * 3), Values(Batch * Side * Side * scale * scale * 3));
    }

    private static (double Loss, float[] Gradient) Run(ScalarType body, int workers)
    {
        var shape = new OmniSrShape(2, 1);
        using ParameterSet parameters = Parameters(shape);
        using var step = new GradientStep(shape, parameters, body, workers);
        (float[] lr, float[] hr) = Patches(2);
        step.Compute(lr, hr, Batch, Side);
        return (step.Compute(lr, hr, Batch, Side), step.Gradient.data<float>().ToArray());
    }

    private static double RelativeError(float[] value, float[] reference) =>
        Math.Sqrt(value.Zip(reference, (a, b) => Math.Pow(a - b, 2)).Sum() / reference.Sum(b => (double)b * b));

    [Theory]
    [InlineData(ScalarType.Float32, 1e-5)]
    [InlineData(ScalarType.BFloat16, 0.05)]
    public void The_gradient_does_not_depend_on_the_number_of_workers(ScalarType body, double bound)
    {
        (double loss, float[] gradient) = Run(body, 1);
        (double shared, float[] sum) = Run(body, 3);
        Assert.Equal(loss, shared, 1e-4 * loss);
        Assert.InRange(RelativeError(sum, gradient), 0, bound);
    }

    [Theory]
    [InlineData(ScalarType.Float32)]
    [InlineData(ScalarType.BFloat16)]
    public void Equal_calls_give_equal_gradients(ScalarType body)
    {
        (double loss, float[] gradient) = Run(body, 2);
        (double again, float[] same) = Run(body, 2);
        Assert.Equal(loss, again);
        Assert.Equal(gradient, same);
    }

    [Fact]
    public void The_failure_of_a_worker_reaches_the_caller_and_the_next_call_works()
    {
        using ParameterSet parameters = Parameters(new OmniSrShape(2, 1));
        using var parallel = new DataParallel(2, parameters);
        var failure = Assert.Throws<InvalidDataException>(() => parallel.Compute(worker => worker == 1 ? throw new InvalidDataException("no patches") : 1));
        Assert.Equal("no patches", failure.Message);
        Assert.Equal(3, parallel.Compute(worker => worker + 1));
        Assert.Equal(0, parallel.Gradient().abs().sum().item<float>());
    }

    [Fact]
    public void Shares_cover_a_batch_once()
    {
        using ParameterSet parameters = Parameters(new OmniSrShape(2, 1));
        using var parallel = new DataParallel(3, parameters);
        Assert.Equal([(0, 2), (2, 3), (5, 3)], Enumerable.Range(0, 3).Select(worker => parallel.Share(worker, 8)));
    }
}

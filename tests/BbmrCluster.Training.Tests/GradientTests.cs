using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
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

    /// <summary>What a training in bfloat16 steps along, from values with which every layer counts.</summary>
    [Theory]
    [InlineData("omnisr-light")]
    [InlineData("craft")]
    [InlineData("smfanet")]
    public void A_bfloat16_body_gives_nearly_the_gradient_of_float32(string network)
    {
        SrNetworkShape shape = Architectures.Find(network)!.At(2);
        (float[] lr, float[] hr) = Patches(2);
        float[][] gradients = [.. ((ScalarType[])[ScalarType.Float32, ScalarType.BFloat16]).Select(body =>
        {
            using var parameters = new ParameterSet(shape.Parameters, Initialisation.Uniform(shape, 7), "test", trainable: true);
            using var step = new GradientStep(shape, parameters, body, 1);
            step.Compute(lr, hr, Batch, Side);
            return step.Gradient.data<float>().ToArray();
        })];
        Assert.InRange(RelativeError(gradients[1], gradients[0]), 1e-6, 0.05);
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

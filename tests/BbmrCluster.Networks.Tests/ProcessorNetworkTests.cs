using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.SmfaNet;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

/// <summary>Own loops against libtorch's operations, which the networks use where gradients are wanted.</summary>
public sealed class ProcessorNetworkTests
{
    public static TheoryData<SrNetworkShape, int, int> Networks() => new()
    {
        { new OmniSrShape(3, 1), 16, 16 },
        { new OmniSrShape(2, 2), 24, 40 },
        { new CraftShape(2, [1, 2]), 16, 48 },
        { new CraftShape(4, [1]), 32, 16 },
        { new SmfaNetShape(2, 2), 16, 16 },
        { new SmfaNetShape(4, 3), 21, 29 },
    };

    private static ParameterSet Parameters(SrNetworkShape shape) => new(shape.Parameters, ReferenceNumbers.Weights(shape.Parameters), "generated");

    private static Tensor Maps(int count, int height, int width)
    {
        manual_seed(5);
        return rand(count, height, width, 3);
    }

    private static float[] Run(SrNetwork network, Tensor x)
    {
        using var noGradient = no_grad();
        using var scope = NewDisposeScope();
        return network.Forward(x).data<float>().ToArray();
    }

    [Theory]
    [MemberData(nameof(Networks))]
    public void Loops_meet_the_differentiable_network(SrNetworkShape shape, int height, int width)
    {
        NativeRuntime.SetThreads(1);
        using var scope = NewDisposeScope();
        using ParameterSet parameters = Parameters(shape);
        using SrNetwork reference = shape.CreateNetwork(parameters, training: true), float32 = shape.CreateNetwork(parameters);
        Tensor x = Maps(2, height, width);
        float[] expected = Run(reference, x), exact = Run(float32, x);
        float peak = expected.Max(Math.Abs);
        Assert.InRange(expected.Zip(exact).Max(pair => Math.Abs(pair.First - pair.Second)) / peak, 0, 4e-6);
        if (!Engine.Devices.CpuHasBFloat16)
            return;
        using SrNetwork bfloat16 = shape.CreateNetwork(parameters, ScalarType.BFloat16);
        double error = Math.Sqrt(expected.Zip(Run(bfloat16, x)).Average(pair => Math.Pow(pair.First - pair.Second, 2)) / expected.Average(value => value * value));
        Assert.InRange(error, 1e-6, 0.02);
    }

    [Theory]
    [MemberData(nameof(Networks))]
    public void A_map_has_the_same_bits_alone_and_in_a_batch_that_passes_in_parts(SrNetworkShape shape, int height, int width)
    {
        using var scope = NewDisposeScope();
        using ParameterSet parameters = Parameters(shape);
        foreach (ScalarType body in Engine.Devices.CpuHasBFloat16 ? new[] { ScalarType.Float32, ScalarType.BFloat16 } : [ScalarType.Float32])
        {
            using SrNetwork network = shape.CreateNetwork(parameters, body);
            int count = (2 * 4096 / (height * width)) + 3;
            Tensor x = Maps(count, height, width);
            float[] all = Run(network, x);
            foreach (int map in (int[])[0, 1, count - 1])
                Assert.Equal(Run(network, x.narrow(0, map, 1).contiguous()), all.AsSpan(map * all.Length / count, all.Length / count).ToArray());
        }
    }

    [Theory]
    [MemberData(nameof(Networks))]
    public void One_map_has_the_same_bits_on_any_number_of_threads(SrNetworkShape shape, int height, int width)
    {
        using var scope = NewDisposeScope();
        using ParameterSet parameters = Parameters(shape);
        using SrNetwork network = shape.CreateNetwork(parameters);
        // Large enough that every kernel has a share for each thread.
        Tensor x = Maps(2, 4 * height, 4 * width);
        NativeRuntime.SetThreads(1);
        float[] one = Run(network, x);
        foreach (int threads in (int[])[2, 3, 5])
        {
            NativeRuntime.SetThreads(threads);
            Assert.Equal(one, Run(network, x));
        }
        NativeRuntime.SetThreads(1);
    }

    [Fact]
    public void What_is_not_finite_within_comes_out_so()
    {
        using var scope = NewDisposeScope();
        foreach ((SrNetworkShape shape, string name) in ((SrNetworkShape, string)[])[(new OmniSrShape(2, 1), "residual_layer.0.residual_layer.0.layer.2.fn.to_qkv.weight"), (new CraftShape(2, [1]), "layers.0.residual_group.hf_blocks.0.attn.kv.weight"), (new SmfaNetShape(2, 1), "feats.0.smfa.linear_0.weight")])
        {
            using ParameterSet parameters = Parameters(shape);
            using (no_grad())
                parameters[name].fill_(float.NaN);
            using SrNetwork network = shape.CreateNetwork(parameters);
            Assert.All(Run(network, Maps(1, 16, 16)), value => Assert.True(float.IsNaN(value)));
        }
    }

    [Theory]
    [InlineData(3, 64)]
    [InlineData(64, 12)]
    [InlineData(64, 192)]
    [InlineData(48, 48)]
    [InlineData(24, 24)]
    [InlineData(12, 12)]
    [InlineData(5, 7)]
    public void Convolutions_match_float64(int inputs, int outputs)
    {
        foreach ((int height, int width) in ((int, int)[])[(1, 1), (2, 3), (17, 24)])
        {
            using var scope = NewDisposeScope();
            manual_seed(9);
            Tensor x = randn(2, height, width, inputs), w = randn(outputs, inputs, 3, 3) * 0.1, b = randn(outputs);
            Tensor expected = nn.functional.conv2d(x.to(ScalarType.Float64).permute(0, 3, 1, 2), w.to(ScalarType.Float64), b.to(ScalarType.Float64), padding: [1, 1]).permute(0, 2, 3, 1);
            Tensor actual = Convolution3.Run(x, w, b).to(ScalarType.Float64);
            Assert.InRange(((actual - expected).abs().max() / expected.abs().max()).item<double>(), 0, 2e-6);
        }
    }
}

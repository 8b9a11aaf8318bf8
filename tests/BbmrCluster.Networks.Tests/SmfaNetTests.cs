using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.SmfaNet;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Tests;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

public sealed class SmfaNetTests
{
    [FixtureTheory]
    [InlineData("smfanet_x2", 2, 1)]
    [InlineData("smfanet_x2", 2, 2)]
    [InlineData("smfanet_x4", 4, 1)]
    [InlineData("smfanet_x4", 4, 2)]
    [InlineData("smfanet_x8", 8, 2)]
    public void Output_loss_and_gradient_match_the_reference_implementation(string fixture, int scale, int threads)
    {
        NativeRuntime.SetThreads(threads);
        ParityResult result = FixtureParity.Run(Fixtures.Path("networks", fixture + ".safetensors"));
        Assert.Equal(("smfanet", scale), (result.Architecture, result.Scale));
        Assert.InRange(result.MaxRelError, 0, 1e-5);
        Assert.InRange(result.LossRelError!.Value, 0, 1e-5);
        Assert.InRange(result.GradNormRelError!.Value, 0, 1e-5);
    }

    /// <summary>Numbers of another implementation in float64, which is the authors' module to the last bit.</summary>
    [Theory]
    [InlineData(48, 12, 4, 32, 32, -6468.103686, 105.00129, 0.0385422, -0.0906305, -0.5760568, -0.1540363, -0.3517167, 0.7427564)]
    [InlineData(48, 12, 2, 64, 64, -16787.477509, 104.669108, 0.0182149, -0.1209199, 0.0995547, -0.1204551, 0.3562726, -0.3941771)]
    [InlineData(48, 12, 8, 16, 16, 524.608471, 105.710127, 0.0954359, -0.008348, -0.5699328, -0.1437239, -0.4532197, -0.5467184)]
    [InlineData(48, 12, 4, 21, 29, -3687.742284, 81.260847, 0.0452285, -0.0786044, -0.5707353, -0.1565208, -0.401074, 0.4598919)]
    [InlineData(36, 8, 4, 20, 27, -729.53475, 268.08551, 0.9980176, 0.3220575, 1.0703866, 0.3835943, 2.1522122, -0.0576804)]
    [InlineData(8, 1, 2, 9, 17, 22.442286, 20.724075, 0.7799505, -1.3609823, 0.3885847, -0.6730269, 0.9795879, -0.1750045)]
    public void Output_has_the_golden_numbers(int channels, int blocks, int scale, int height, int width, double sum, double norm, double a, double b, double c, double d, double mid, double last)
    {
        NativeRuntime.SetThreads(1);
        var shape = new SmfaNetShape(scale, blocks, channels);
        using ParameterSet parameters = ReferenceNumbers.For(shape);
        using SrNetwork network = shape.CreateNetwork(parameters), graph = shape.CreateNetwork(parameters, training: true);
        using var scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        Tensor x = NativeTensors.Create(Array.ConvertAll(ReferenceNumbers.Unit(height, width), value => (float)value), [1, height, width, 3]);
        foreach (Tensor y in (Tensor[])[network.Forward(x), graph.Forward(x)])
        {
            Assert.Equal([1, height * scale, width * scale, 3], y.shape);
            Fingerprint.Of(y.permute(0, 3, 1, 2).contiguous().data<float>().ToArray()).IsNear(new Fingerprint(sum, norm, [a, b, c, d], mid, last));
        }
    }

    [Fact]
    public void The_shape_is_read_off_a_state_dict()
    {
        var shape = new SmfaNetShape(3, 2, 36);
        IReadOnlyDictionary<string, TensorData> state = ReferenceNumbers.Weights(shape.Parameters);
        Assert.Equal(shape, Architectures.Recognise(state, "test").Shape);
        Assert.Equal(268, SmfaNetShape.Published(4).Parameters.Count);
        Assert.Equal(197_328, new SmfaNetShape(4, 8, 36).BlockCost().Parameters);
        Assert.Equal((1_798_115_328, 465_454_080, 132_288_768), (Cost(2), Cost(4), Cost(8)));
        Assert.Equal(184_343_040, new SmfaNetShape(4, 8, 36).BlockCost().MultiplyAccumulates);
        foreach (string name in (string[])["to_img.0.weight", "feats.0.smfa.linear_0.weight"])
            Assert.Contains("does not hold an SMFANet network", Assert.Throws<InvalidDataException>(() => SmfaNetShape.Of(state.Where(pair => pair.Key != name).ToDictionary(), "test")).Message);

        static long Cost(int scale) => SmfaNetShape.Published(scale).BlockCost().MultiplyAccumulates;
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(7, 30)]
    [InlineData(8, 3)]
    public void Maps_smaller_than_a_cell_repeat_their_edge(int height, int width)
    {
        NativeRuntime.SetThreads(1);
        var shape = new SmfaNetShape(2, 1);
        using ParameterSet parameters = ReferenceNumbers.For(shape);
        using SrNetwork network = shape.CreateNetwork(parameters);
        using var scope = NewDisposeScope();
        Tensor y = network.Forward(rand(1, height, width, 3));
        Assert.Equal([1, height * 2, width * 2, 3], y.shape);
        Assert.True(y.isfinite().all().item<bool>());
    }

    [FixtureTheory]
    [InlineData(2, 38.1853)]
    [InlineData(4, 32.5108)]
    public void The_published_weights_reach_their_quality_on_Set5(int scale, double psnr)
    {
        string lr = Fixtures.Path("set5", $"LR_x{scale}"), hr = Fixtures.Path("set5", "HR");
        using var own = new TemporaryFolder();
        ModelEntry entry = ModelImport.Add(new ModelCatalog(own.Root), Fixtures.Path("checkpoints", $"smfanetplus_x{scale}.safetensors"), "smfanet", "bicubic", "Apache-2.0", false);
        Assert.Equal([12], entry.Card!.SizeOf("blocks"));
        Assert.Equal(psnr, PublishedQuality.Set5("smfanet", scale, own.Root, lr, hr), 0.005);
    }
}

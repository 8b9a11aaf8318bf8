using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

public sealed class JointSrTests
{
    private static readonly int[] Scales = [2, 4, 8];

    /// <summary>The joint part of the golden numbers: PReLU slopes at 0.25.</summary>
    private static Dictionary<string, TensorData> Joint()
    {
        var values = new Dictionary<string, TensorData>(ReferenceNumbers.Weights(JointSrParameters.Shapes(Scales, 64)), StringComparer.Ordinal);
        foreach (int i in (int[])[1, 3, 5])
            values[$"deblock.{i}.weight"] = new TensorData([1], [0.25f]);
        return values;
    }

    /// <summary>2 x 2 blocks at scales 2, 8, 4, 8, stitched: (1, 128, 128, 12).</summary>
    private static Tensor GoldenFeatures(JointSrHead head)
    {
        int[] scales = [2, 8, 4, 8];
        var blocks = new Tensor[4];
        for (int j = 0; j < 4; j++)
        {
            var shape = new OmniSrShape(scales[j], 1);
            using ParameterSet parameters = ReferenceNumbers.OmniSr(shape);
            using var network = new OmniSrNetwork(shape, parameters);
            int side = 128 / scales[j];
            blocks[j] = head.Tail(network.Features(tensor(ReferenceNumbers.Input(side, side, 1 - (0.1 * j)), [1, side, side, 3])), scales[j]);
        }
        return cat([cat([blocks[0], blocks[1]], 2), cat([blocks[2], blocks[3]], 2)], 1).contiguous();
    }

    private static float[] Chw(Tensor nhwc) => nhwc.permute(0, 3, 1, 2).contiguous().data<float>().ToArray();

    [Fact]
    public void Features_and_image_have_the_golden_numbers()
    {
        NativeRuntime.SetThreads(1);
        using var parameters = new ParameterSet(JointSrParameters.Shapes(Scales, 64), Joint(), "joint");
        var head = new JointSrHead(Scales, parameters);
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        Tensor features = GoldenFeatures(head);
        Fingerprint.Of(Chw(features)).IsNear(new Fingerprint(1114.950597, 137.354245, [0.009954, -0.4500847, -0.2414074, 0.335044], double.NaN, double.NaN));
        Fingerprint.Of(Chw(head.Image(features, [64], [64]))).IsNear(new Fingerprint(-541.093011, 96.428377, [0.2684588, -0.0863778, 0.0113617, 0.2562275], 0.0165201, 0.1190914));
        Tensor plain = head.Image(features, [], []);
        Fingerprint.Of(Chw(plain)).IsNear(new Fingerprint(-553.274738, 100.199757, [0.2684588, -0.0863778, 0.0113617, 0.2562275], -0.002245, 0.1190914));
        Tensor changed = (head.Image(features, [64], [64]) != plain).any(3);
        Assert.Equal(7936, changed.sum().item<long>());
    }

    [Fact]
    public void The_joint_part_has_the_papers_parameter_count() =>
        Assert.Equal(150_639, JointSrParameters.Shapes(Scales, 64).Sum(p => p.Shape.Aggregate(1L, (a, b) => a * b)));

    [Fact]
    public void Tails_are_reordered_for_two_pixel_shuffles()
    {
        Assert.Equal(Enumerable.Range(0, 12), JointSrParameters.TailOrder(2, 2));
        Assert.Equal([0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15], JointSrParameters.TailOrder(4, 2).Take(16));
        Assert.Equal([0, 2, 4, 6, 16, 18, 20, 22, 32, 34], JointSrParameters.TailOrder(8, 2).Take(10));
        Assert.Throws<ArgumentException>(() => JointSrParameters.TailOrder(3, 2));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void The_warm_start_equals_block_wise_super_resolution_exactly(bool skipIdentity)
    {
        NativeRuntime.SetThreads(1);
        var states = Scales.ToDictionary(scale => scale, scale => ReferenceNumbers.Weights(new OmniSrShape(scale, 1).Parameters));
        using var joint = new ParameterSet(JointSrParameters.Shapes(Scales, 64),
            JointSrParameters.WarmStart([.. Scales.Select(s => (s, states[s]["up.0.weight"], states[s]["up.0.bias"]))]), "warm start");
        var head = new JointSrHead(Scales, joint, skipIdentity);
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        var features = new List<Tensor>();
        var images = new List<Tensor>();
        foreach (int scale in Scales)
        {
            var shape = new OmniSrShape(scale, 1);
            using ParameterSet parameters = ReferenceNumbers.OmniSr(shape);
            using var network = new OmniSrNetwork(shape, parameters);
            int side = 128 / scale;
            Tensor x = tensor(ReferenceNumbers.Input(side, side), [1, side, side, 3]);
            features.Add(head.Tail(network.Features(x), scale));
            images.Add(network.Forward(x));
        }
        Tensor whole = head.Image(cat(features, 2).contiguous(), [], [64, 128]);
        Assert.Equal(Chw(cat(images, 2)), Chw(whole));
    }

    [Fact]
    public void Strips_joined_by_bands_equal_the_whole_image()
    {
        NativeRuntime.SetThreads(1);
        using var parameters = new ParameterSet(JointSrParameters.Shapes(Scales, 64), Joint(), "joint");
        var head = new JointSrHead(Scales, parameters);
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        const int side = 64, strips = 3, columns = 2, band = 2 * JointSrHead.Halo;
        manual_seed(5);
        Tensor map = randn(1, strips * side, columns * side, 12);
        Tensor whole = head.Image(map, [64, 128], [64]);

        Tensor joined = cat([.. Enumerable.Range(0, strips).Select(strip => head.Image(map.narrow(1, strip * side, side).contiguous(), [], [64]))], 1).contiguous();
        double unjoined = (joined - whole).abs().max().item<float>();
        for (int border = 1; border < strips; border++)
        {
            Tensor rows = head.Image(map.narrow(1, (border * side) - band, 2 * band).contiguous(), [band], [64]);
            joined.narrow(1, ((border * side) - JointSrHead.Halo) * 2, JointSrHead.Halo * 4).copy_(rows.narrow(1, (band - JointSrHead.Halo) * 2, JointSrHead.Halo * 4));
        }
        Assert.True(unjoined > 0.1, "without the bands the strips would differ");
        Assert.InRange((joined - whole).abs().max().item<float>(), 0, 1e-5);
    }

    [Fact]
    public void Seven_band_rows_would_not_be_enough()
    {
        using var parameters = new ParameterSet(JointSrParameters.Shapes(Scales, 64), Joint(), "joint");
        var head = new JointSrHead(Scales, parameters);
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        manual_seed(5);
        Tensor map = randn(1, 128, 128, 12);
        Tensor whole = head.Image(map, [64], [64]).narrow(1, 120, 16);
        Assert.InRange((head.Image(map.narrow(1, 56, 16).contiguous(), [8], [64]).narrow(1, 8, 16) - whole).abs().max().item<float>(), 0, 1e-5);
        Assert.True((head.Image(map.narrow(1, 57, 14).contiguous(), [7], [64]).narrow(1, 6, 16) - whole).abs().max().item<float>() > 1e-3);
    }
}

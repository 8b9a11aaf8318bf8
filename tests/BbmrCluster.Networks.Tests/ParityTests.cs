using System.Runtime.InteropServices;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.SmfaNet;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

/// <summary>Reference files of sizes that no published network has: everything is read off the tensors.</summary>
public sealed class ParityTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    // Scale, groups, channels, heads, window, height, width, maps.
    [InlineData(3, 2, 64, 4, 8, 16, 24, 1)]
    [InlineData(2, 1, 32, 2, 8, 24, 16, 2)]
    [InlineData(4, 3, 48, 4, 8, 16, 16, 1)]
    [InlineData(1, 1, 24, 6, 4, 16, 20, 3)]
    [InlineData(8, 1, 40, 2, 8, 16, 16, 1)]
    public void Omnisr_of_any_depth_width_and_scale_meets_its_reference(int scale, int osags, int channels, int heads, int window, int height, int width, int maps) =>
        Meets(new OmniSrShape(scale, osags, channels, heads, window), seed: 3, width, height, maps);

    [Theory]
    // Scale, depths, channels, heads, height, width, maps.
    [InlineData(3, new[] { 2, 2, 2, 2 }, 48, 6, 16, 32, 1)]
    [InlineData(2, new[] { 1, 3 }, 32, 4, 32, 16, 2)]
    [InlineData(4, new[] { 1, 1, 2 }, 40, 4, 16, 16, 1)]
    [InlineData(8, new[] { 2 }, 60, 6, 16, 16, 1)]
    public void Craft_of_any_depth_width_and_scale_meets_its_reference(int scale, int[] depths, int channels, int heads, int height, int width, int maps) =>
        Meets(new CraftShape(scale, depths, channels, heads, channels * 2, (int)(channels * 2.66)), seed: 0, width, height, maps);

    [Theory]
    // Scale, blocks, channels, height, width, maps.
    [InlineData(3, 12, 48, 21, 29, 1)]
    [InlineData(2, 2, 36, 17, 8, 2)]
    [InlineData(8, 1, 64, 16, 16, 1)]
    [InlineData(1, 3, 8, 31, 23, 3)]
    public void Smfanet_of_any_depth_width_and_scale_meets_its_reference(int scale, int blocks, int channels, int height, int width, int maps) =>
        Meets(new SmfaNetShape(scale, blocks, channels), seed: 0, width, height, maps);

    // The seed moves the input.
    private void Meets(SrNetworkShape shape, int seed, int width, int height, int maps)
    {
        NativeRuntime.SetThreads(1);
        IReadOnlyDictionary<string, TensorData> weights = ReferenceNumbers.Weights(shape.Parameters);
        string file = _folder.File("reference.safetensors");
        using (var scope = NewDisposeScope())
        using (var plain = new PlainNetworks(weights))
        {
            Tensor x = cat([.. Enumerable.Range(0, maps).Select(map => Map(height, width, seed + map, shape.Black))], 0), y = plain.Forward(shape, x);
            Assert.Equal([maps, 3, height * shape.Scale, width * shape.Scale], y.shape);
            Tensor target = Map((int)y.shape[2], (int)y.shape[3], 7, shape.Black), loss = (y - target).abs().mean();
            loss.backward();
            var tensors = weights.ToDictionary(pair => "weights." + pair.Key, pair => pair.Value, StringComparer.Ordinal);
            tensors["input"] = Data(x);
            tensors["output"] = Data(y);
            tensors["target"] = Data(target.expand(y.shape));
            tensors["loss_l1"] = new TensorData([], [(float)loss.item<double>()]);
            tensors["grad_norm"] = new TensorData([], [(float)plain.GradientNorm()]);
            SafetensorsFile.Write(file, tensors);
        }
        ParityResult result = FixtureParity.Run(file);
        Assert.Equal((shape.Architecture, shape.Scale), (result.Architecture, result.Scale));
        Assert.InRange(result.MaxRelError, 0, 1e-5);
        Assert.InRange(result.LossRelError!.Value, 0, 1e-5);
        Assert.InRange(result.GradNormRelError!.Value, 0, 1e-5);
    }

    [Fact]
    public void Down_net_meets_a_reference_file_and_a_wrong_one_shows()
    {
        var shape = new DownNetShape(4, 16);
        IReadOnlyDictionary<string, TensorData> weights = ReferenceNumbers.Weights(shape.Parameters);
        using var scope = NewDisposeScope();
        Tensor x = Map(16, 24, 0, 0), y = x;
        // Plainly, in float64 with the channels first.
        Tensor W(string name) => tensor(weights[name].Values, weights[name].Shape).to(ScalarType.Float64);
        y = nn.functional.conv2d(y, W("0.weight"), padding: [1, 1]);
        for (int layer = 1; layer <= 2; layer++)
            y = nn.functional.conv2d(y, W($"{layer}.conv.0.weight"), strides: [2, 2], padding: [1, 1]) + nn.functional.avg_pool2d(y, 2, 2);
        y = nn.functional.conv2d(y, W("3.weight"));
        var tensors = weights.ToDictionary(pair => "weights." + pair.Key, pair => pair.Value, StringComparer.Ordinal);
        (tensors["input"], tensors["output"]) = (Data(x), Data(y));
        SafetensorsFile.Write(_folder.File("down.safetensors"), tensors);
        ParityResult result = FixtureParity.Run(_folder.File("down.safetensors"));
        Assert.Equal(("downnet", 4, null), (result.Architecture, result.Scale, result.GradNormRelError));
        Assert.InRange(result.MaxRelError, 0, 1e-5);

        tensors["output"].Values[5] += 0.25f;
        SafetensorsFile.Write(_folder.File("down.safetensors"), tensors);
        Assert.InRange(FixtureParity.Run(_folder.File("down.safetensors")).MaxAbsError, 0.249, 0.251);
    }

    private static Tensor Map(int height, int width, int seed, float black)
    {
        double[] unit = ReferenceNumbers.Unit(height + seed, width);
        return (tensor(unit, [1, height + seed, width, 3]).permute(0, 3, 1, 2).narrow(2, seed, height) * (1 - black)) + black;
    }

    private static TensorData Data(Tensor map) => new(map.shape, MemoryMarshal.Cast<byte, float>(map.detach().to(ScalarType.Float32).contiguous().bytes).ToArray());
}

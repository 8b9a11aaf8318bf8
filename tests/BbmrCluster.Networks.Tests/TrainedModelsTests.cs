using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

/// <summary>Joint models and Down-Net pairs as files: what the engine takes, and what it says when they are missing.</summary>
public sealed class TrainedModelsTests : IDisposable
{
    private static readonly int[] Scales = [2, 4, 8];
    private readonly TemporaryFolder _models = new();

    public TrainedModelsTests()
    {
        foreach (int scale in Scales)
            Write("omnisr-light", scale, Single(scale));
    }

    public void Dispose() => _models.Dispose();

    private static Dictionary<string, TensorData> Single(int scale, float factor = 1)
    {
        IReadOnlyDictionary<string, TensorData> values = ReferenceNumbers.Weights(new OmniSrShape(scale, 1).Parameters);
        return values.ToDictionary(pair => pair.Key, pair => pair.Value with { Values = Array.ConvertAll(pair.Value.Values, v => v * factor) }, StringComparer.Ordinal);
    }

    /// <summary>JointSR with bodies of its own and a joint part far from the warm start.</summary>
    private static Dictionary<string, TensorData> Joint(float factor = 0.97f)
    {
        var values = new Dictionary<string, TensorData>(JointSrShape.WarmStart([.. Scales.Select(scale => ((SrNetworkShape)new OmniSrShape(scale, 1), Single(scale, factor)))]), StringComparer.Ordinal);
        foreach ((string name, TensorData tensor) in ReferenceNumbers.Weights(JointSrParameters.Shapes(Scales, 64)))
            values[name] = tensor;
        return values;
    }

    /// <summary>A Down-Net that is close to a box filter, so that its LR is a picture.</summary>
    private static Dictionary<string, TensorData> DownNet(int scale, float gain = 1)
    {
        var shape = new DownNetShape(scale);
        var values = shape.Parameters.ToDictionary(p => p.Name, p => new TensorData(p.Shape, new float[p.Shape.Aggregate(1L, (a, b) => a * b)]), StringComparer.Ordinal);
        for (int c = 0; c < 3; c++)
        {
            values["0.weight"].Values[(c * 27) + (c * 9) + 4] = 1;
            values[shape.LastName].Values[(c * 32) + c] = gain;
        }
        // The halving layers keep their average pooling and add a little of each pixel's neighbour.
        for (int layer = 1; layer <= shape.Layers; layer++)
        {
            for (int c = 0; c < 3; c++)
                values[$"{layer}.conv.0.weight"].Values[(c * 32 * 9) + (c * 9) + 5] = 0.03f;
        }
        return values;
    }

    private void Write(string model, int? scale, IReadOnlyDictionary<string, TensorData> tensors, TensorStorage storage = TensorStorage.Float32) =>
        SafetensorsFile.Write(_models.File(ModelNames.FileName(model, scale)), tensors, storage: storage);

    private void WritePair(string network = "omnisr-light", bool downNets = true)
    {
        foreach (int scale in Scales)
        {
            Write($"{network}-downnet", scale, Single(scale, 0.95f));
            if (downNets)
                Write($"downnet-{network}", scale, DownNet(scale));
        }
    }

    private EngineFactory Factory() => new(new ModelCatalog(_models.Root));

    private static EngineSettings Settings => EngineSettings.Default with { Precision = "float32", Threads = 2, Device = "cpu" };

    private static BlockBatch Blocks(int count, int bitDepth = 8)
    {
        var batch = new BlockBatch(count, 128, bitDepth);
        for (int i = 0; i < batch.Samples.Length; i++)
        {
            int x = i / 3 % 128, y = i / 384 % 128;
            batch.Samples[i] = (ushort)((0.5 + (0.3 * Math.Sin((0.05 * x) + (0.02 * y * (1 + (i / 49152))))) + (0.1 * Math.Sin(1.3 * x))) * batch.MaxValue);
        }
        return batch;
    }

    private static BlockExtent[] Full(int count) => [.. Enumerable.Repeat(new BlockExtent(128, 128), count)];

    private static LrStrips Strips(IDownscaler downscaler, int columns, int strips)
    {
        byte[] index = [.. Enumerable.Range(0, columns * strips).Select(i => (byte)(i * 7 % 3))];
        return new LrStrips(columns, strips, ScaleSet.Default, index, [.. Enumerable.Range(0, 3).Select(s => downscaler.Downscale(Blocks(index.Count(i => i == s)), 2 << s))]);
    }

    [Fact]
    public void A_joint_model_reconstructs_and_the_single_networks_go_on_scoring()
    {
        EngineSettings settings = Settings;
        double[,] scoresBefore;
        ushort[] rowsBefore;
        LrStrips lr;
        using (IEngine engine = Factory().Create(settings))
        {
            lr = Strips(engine.Downscaler, 2, 1);
            (scoresBefore, rowsBefore) = (engine.Scorer.Score(Blocks(2), Full(2), ScaleSet.Default), engine.Reconstructor.Reconstruct(lr)[0].Rows);
        }
        Assert.Equal("blockwise", Factory().Resolve(settings).Joint);

        Dictionary<string, TensorData> joint = Joint();
        Write("omnisr-light-joint", null, joint);
        Assert.Equal("trained", Factory().Resolve(settings).Joint);
        Assert.Equal(["omnisr-light-joint.safetensors", "omnisr-light-x2.safetensors", "omnisr-light-x4.safetensors", "omnisr-light-x8.safetensors"], Factory().WeightHashes(settings).Keys);
        Assert.Equal(["omnisr-light-joint.safetensors"], Factory().WeightHashes(settings with { Scorer = "bicubic" }).Keys);
        ushort[] rows;
        using (IEngine engine = Factory().Create(settings))
        {
            Assert.Equal(scoresBefore.Cast<double>(), engine.Scorer.Score(Blocks(2), Full(2), ScaleSet.Default).Cast<double>());
            rows = engine.Reconstructor.Reconstruct(lr)[0].Rows;
        }
        using (IEngine engine = Factory().Create(settings with { Joint = "blockwise" }))
            Assert.Equal(rowsBefore, engine.Reconstructor.Reconstruct(lr)[0].Rows);

        // By hand: extractors, tails, joint part of that file.
        NativeRuntime.SetThreads(1);
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        using var parameters = new ParameterSet(JointSrParameters.Shapes(Scales, 64), JointSrParameters.Shapes(Scales, 64).ToDictionary(p => p.Name, p => joint[p.Name], StringComparer.Ordinal), "joint");
        var head = new JointSrHead(Scales, parameters);
        var taken = new int[3];
        var blocks = new List<Tensor>();
        foreach (byte s in lr.ScaleIndex)
        {
            var shape = new OmniSrShape(2 << s, 1);
            using var body = new ParameterSet(shape.Parameters, Single(2 << s, 0.97f), "body");
            using var network = new OmniSrNetwork(shape, body);
            blocks.Add(head.Tail(network.Features(MapBatch.Of(lr.ByScale[s], taken[s]++, 1).ToMap(0, 1, CPU, -1)), 2 << s));
        }
        var expected = new ushort[rows.Length];
        Samples.ToSamples(Samples.Values(head.Image(cat(blocks, 2).contiguous(), [], [64])), 255, expected, -1);
        Assert.True(rows.Zip(expected).All(pair => Math.Abs(pair.First - pair.Second) <= 1));
        Assert.True(rows.Zip(rowsBefore).Count(pair => Math.Abs(pair.First - pair.Second) > 2) > rows.Length / 10, "the joint model makes another image");
    }

    [Fact]
    public void A_joint_model_alone_is_enough_to_reconstruct()
    {
        foreach (int scale in Scales)
            File.Delete(_models.File($"omnisr-light-x{scale}.safetensors"));
        Write("omnisr-light-joint", null, Joint());
        EngineSettings settings = Settings with { Scorer = "none" };
        using IEngine engine = Factory().Create(settings);
        Assert.Equal(128 * 128 * 3, engine.Reconstructor.Reconstruct(new LrStrips(1, 1, ScaleSet.Default, [2], [new(0, 64, 8), new(0, 32, 8), new(1, 16, 8)]))[0].Rows.Length);
        Assert.Throws<InvalidOperationException>(() => engine.Scorer);
        Assert.Contains("no weights of omnisr-light for scale 2", Assert.Throws<EngineUnavailableException>(() => Factory().Create(settings with { Scorer = "same" })).Message);
    }

    [Fact]
    public void A_joint_model_of_other_scales_is_left_aside_unless_it_is_asked_for()
    {
        Write("omnisr-light-joint", null, JointSrShape.WarmStart([.. ((int[])[2, 4]).Select(scale => ((SrNetworkShape)new OmniSrShape(scale, 1), Single(scale)))]));
        Assert.Equal("blockwise", Factory().Resolve(Settings).Joint);
        Assert.Equal("trained", Factory().Resolve(Settings with { Scales = new ScaleSet([2, 4]) }).Joint);
        Assert.Contains("joins the scales 2,4, not 2,4,8", Assert.Throws<EngineUnavailableException>(() => Factory().WeightHashes(Settings with { Joint = "trained" })).Message);
        File.Delete(_models.File("omnisr-light-joint.safetensors"));
        Assert.Contains("There are no weights of omnisr-light-joint (", Assert.Throws<EngineUnavailableException>(() => Factory().Create(Settings with { Joint = "trained" })).Message);
        Assert.Contains("no joint part 'magic'", Assert.Throws<EngineUnavailableException>(() => Factory().Create(Settings with { Joint = "magic" })).Message);
    }

    [Fact]
    public void Half_precision_storage_of_a_joint_model_changes_no_sample_by_more_than_one()
    {
        using (IEngine engine = Factory().Create(Settings))
        {
            LrStrips lr = Strips(engine.Downscaler, 2, 1);
            // From the warm start, so that the picture is a picture.
            IReadOnlyDictionary<string, TensorData> joint = JointSrShape.WarmStart([.. Scales.Select(scale => ((SrNetworkShape)new OmniSrShape(scale, 1), Single(scale, 0.9f)))]);
            ushort[][] rows = new ushort[2][];
            foreach (TensorStorage storage in (TensorStorage[])[TensorStorage.Float32, TensorStorage.Float16])
            {
                Write("omnisr-light-joint", null, joint, storage);
                File.SetLastWriteTimeUtc(_models.File("omnisr-light-joint.safetensors"), DateTime.UnixEpoch.AddDays((int)storage + 1));
                using IEngine trained = Factory().Create(Settings with { Scorer = "none" });
                rows[(int)storage] = trained.Reconstructor.Reconstruct(lr)[0].Rows;
            }
            Assert.InRange(rows[0].Zip(rows[1]).Max(pair => Math.Abs(pair.First - pair.Second)), 0, 1);
        }
    }

    [Fact]
    public void Down_net_makes_the_lr_its_partner_scores_and_reconstructs()
    {
        WritePair();
        EngineSettings settings = Settings with { Downscaler = "downnet" };
        Assert.Equal(
            ["downnet-omnisr-light-x2.safetensors", "downnet-omnisr-light-x4.safetensors", "downnet-omnisr-light-x8.safetensors", "omnisr-light-downnet-x2.safetensors", "omnisr-light-downnet-x4.safetensors", "omnisr-light-downnet-x8.safetensors"],
            Factory().WeightHashes(settings).Keys);
        Assert.Equal(["omnisr-light-downnet-x2.safetensors", "omnisr-light-downnet-x4.safetensors", "omnisr-light-downnet-x8.safetensors"], Factory().WeightHashes(settings with { Scorer = "none" }).Keys);

        using IEngine engine = Factory().Create(settings);
        Assert.Equal("downnet", engine.Downscaler.Name);
        BlockBatch hr = Blocks(11);
        NativeRuntime.SetThreads(1);
        foreach (int scale in Scales)
        {
            BlockBatch lr = engine.Downscaler.Downscale(hr, scale);
            Assert.Equal((11, 128 / scale, 8), (lr.Count, lr.Side, lr.BitDepth));
            Assert.Equal(lr.Samples, engine.Downscaler.Downscale(hr, scale).Samples);
            ushort[] expected = ByHand(scale, hr, 10);
            Assert.True(expected.Zip(lr.Block(10).ToArray()).All(pair => Math.Abs(pair.First - pair.Second) <= 1));

            // The score is that of the pair: this LR, the network trained with it.
            var shape = new OmniSrShape(scale, 1);
            using var parameters = new ParameterSet(shape.Parameters, Single(scale, 0.95f), "pair");
            using var network = new OmniSrNetwork(shape, parameters);
            using var scope = NewDisposeScope();
            var samples = new ushort[128 * 128 * 3];
            Samples.ToSamples(Samples.Values(network.Forward(MapBatch.Of(lr, 10, 1).ToMap(0, 1, CPU, -1))), 255, samples, -1);
            double sse = Metrics.BlockSse(hr.Block(10), samples, 128, 128, 128, 8), scored = engine.Scorer.Score(hr, Full(11), ScaleSet.Default)[10, Array.IndexOf(Scales, scale)];
            Assert.Equal(sse, scored, sse * 2e-3);
        }
        DeviceCounts counts = engine.TakeCounts();
        Assert.Contains(counts.Calls, call => call is { Purpose: "downscale", Scale: 4, Blocks: 11 * 5 });
        Assert.Equal(128 * 256 * 3, engine.Reconstructor.Reconstruct(Strips(engine.Downscaler, 2, 1))[0].Rows.Length);

        static ushort[] ByHand(int scale, BlockBatch hr, int block)
        {
            var shape = new DownNetShape(scale);
            using var parameters = new ParameterSet(shape.Parameters, DownNet(scale), "by hand");
            using var scope = NewDisposeScope();
            var samples = new ushort[128 / scale * (128 / scale) * 3];
            Samples.ToSamples(Samples.Values(new DownNetNetwork(shape, parameters).Forward(MapBatch.Of(hr, block, 1).ToMap(0, 1, CPU, -1))), hr.MaxValue, samples, -1);
            return samples;
        }
    }

    [Fact]
    public void Down_net_clamps_and_keeps_sixteen_bits()
    {
        WritePair();
        foreach (int scale in Scales)
            Write("downnet-omnisr-light", scale, DownNet(scale, gain: 2));
        using IEngine engine = Factory().Create(Settings with { Downscaler = "downnet" });
        BlockBatch lr = engine.Downscaler.Downscale(Blocks(2, 16), 4);
        Assert.Equal(16, lr.BitDepth);
        Assert.Contains((ushort)0, lr.Samples);
        Assert.Contains((ushort)65535, lr.Samples);
        Assert.True(lr.Samples.Distinct().Count() > 300);
        BlockBatch eight = engine.Downscaler.Downscale(Blocks(2), 4);
        Assert.True(lr.Samples.Zip(eight.Samples).All(pair => Math.Abs((pair.First / 257.0) - pair.Second) <= 2.5), "depth changes the picture by rounding alone");
    }

    [Fact]
    public void Scores_with_down_net_repeat_bit_by_bit_on_any_number_of_threads()
    {
        WritePair();
        double[]? scores = null;
        ushort[]? lr = null;
        foreach (int threads in (int[])[1, 2, 3])
        {
            using IEngine engine = Factory().Create(Settings with { Downscaler = "downnet", Threads = threads });
            double[] again = [.. engine.Scorer.Score(Blocks(9), Full(9), ScaleSet.Default).Cast<double>()];
            ushort[] lrAgain = engine.Downscaler.Downscale(Blocks(9), 2).Samples;
            Assert.Equal(scores ?? again, again);
            Assert.Equal(lr ?? lrAgain, lrAgain);
            (scores, lr) = (again, lrAgain);
        }
    }

    [Fact]
    public void Every_network_scores_with_its_own_pair_and_what_is_missing_is_named()
    {
        EngineSettings settings = Settings with { Downscaler = "downnet", Network = "omnisr" };
        Assert.Contains("There are no weights of omnisr-downnet for scale 2", Missing());
        foreach (int scale in Scales)
            Write("omnisr-downnet", scale, ReferenceNumbers.Weights(new OmniSrShape(scale, 5).Parameters));
        Assert.Contains("There are no weights of omnisr-light-downnet for scale 2", Missing());
        WritePair(downNets: false);
        Assert.Contains("There are no weights of downnet-omnisr for scale 2", Missing());
        foreach (int scale in Scales)
            Write("downnet-omnisr", scale, DownNet(scale));
        Assert.Contains("There are no weights of downnet-omnisr-light for scale 2", Missing());
        WritePair();
        Assert.Equal(12, Factory().WeightHashes(settings).Count);
        Assert.Equal(6, Factory().WeightHashes(settings with { Scorer = "same" }).Count);
        Assert.Equal(6, Factory().WeightHashes(settings with { Scorer = "bicubic" }).Count);

        string Missing() => Assert.Throws<EngineUnavailableException>(() => Factory().WeightHashes(settings)).Message;
    }

    [Fact]
    public void A_joint_model_trained_with_down_net_is_taken_for_its_lr_alone()
    {
        WritePair();
        Write("omnisr-light-downnet-joint", null, Joint());
        Assert.Equal("blockwise", Factory().Resolve(Settings).Joint);
        EngineSettings settings = Settings with { Downscaler = "downnet" };
        Assert.Equal("trained", Factory().Resolve(settings).Joint);
        Assert.Contains("omnisr-light-downnet-joint.safetensors", Factory().WeightHashes(settings).Keys);
    }

    [Fact]
    public void Cards_of_joint_models_and_pairs_say_what_is_in_the_file()
    {
        Write("omnisr-light-joint", null, Joint());
        string path = _models.File("omnisr-light-joint.safetensors"), hash = Factory().WeightHashes(Settings)["omnisr-light-joint.safetensors"];
        var shape = (JointSrShape)new ModelCatalog(_models.Root).Load("omnisr-light-joint", null).Shape;
        ModelCard card = ModelCard.Of("omnisr-light-joint", shape, hash, "test", "none");
        Assert.Equal(("joint-omnisr", null, 1, 710_175), (card.Architecture, card.Scale, card.SizeOf("osags")!.Single(), card.Parameters));
        Assert.Equal(Scales, card.Scales);
        card.Save(Path.ChangeExtension(path, ".json"));
        Assert.Equal(ModelState.Ready, new ModelCatalog(_models.Root).Verify().Single(entry => entry.Model == "omnisr-light-joint").State);
        (card with { Scales = [2, 4] }).Save(Path.ChangeExtension(path, ".json"));
        Assert.Contains("the card says the scale 2, 4", new ModelCatalog(_models.Root).Verify().Single(entry => entry.Model == "omnisr-light-joint").Problem);

        ModelCard down = ModelCard.Of("downnet-omnisr-light", new DownNetShape(4), hash, "test", "none");
        Assert.Equal(("downnet", 4, 0, "downnet"), (down.Architecture, down.Scale, down.Sizes.Count, down.Downscaler));
        Assert.DoesNotContain("osags", System.Text.Json.JsonSerializer.Serialize(ModelCard.Of("craft", new Craft.CraftShape(2, [2, 2]), hash, "test", "none")), StringComparison.OrdinalIgnoreCase);
        Assert.Equal("downnet", ModelCard.Of("omnisr-light-downnet", new OmniSrShape(2, 1), hash, "test", "none").Downscaler);
    }

    [Fact]
    public void Joint_tensors_that_do_not_go_together_are_refused()
    {
        Dictionary<string, TensorData> joint = Joint();
        Assert.Equal(Scales, Architectures.Recognise(joint, "test").Shape.Scales);
        Refused("extractor of scale 4", values => values.Remove("extractor4.input.weight"));
        Refused("the tail of scale 6", values => (values["tail6.weight"], values["extractor6.input.weight"]) = (values["tail4.weight"], values["extractor4.input.weight"]));
        Refused("its tails have the scales", values => { values.Remove("tail4.weight"); values.Remove("tail8.weight"); });

        void Refused(string reason, Action<Dictionary<string, TensorData>> change)
        {
            var values = new Dictionary<string, TensorData>(joint, StringComparer.Ordinal);
            change(values);
            if (values.ContainsKey("tail6.weight"))
            {
                foreach (string name in joint.Keys.Where(name => name.StartsWith("extractor4.", StringComparison.Ordinal)))
                    values["extractor6." + name["extractor4.".Length..]] = joint[name];
            }
            Assert.Contains(reason, Assert.Throws<InvalidDataException>(() => Architectures.Recognise(values, "test")).Message);
        }
    }
}

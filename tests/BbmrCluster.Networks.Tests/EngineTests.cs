using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

public sealed class EngineTests : IDisposable
{
    private readonly TemporaryFolder _models = new();

    public EngineTests()
    {
        foreach (int scale in (int[])[2, 4, 8])
            WriteModel(scale, ReferenceNumbers.Weights(new OmniSrShape(scale, 1).Parameters));
    }

    public void Dispose() => _models.Dispose();

    private void WriteModel(int scale, IReadOnlyDictionary<string, TensorData> weights) =>
        SafetensorsFile.Write(_models.File($"omnisr-light-x{scale}.safetensors"), weights);

    private EngineFactory Factory() => new(new ModelCatalog(_models.Root));

    private static EngineSettings Settings(string precision = "float32", int threads = 1, int maxBatch = 0, string scorer = "omnisr-light") =>
        EngineSettings.Default with { Precision = precision, Threads = threads, MaxBatch = maxBatch, Scorer = scorer, Device = "cpu" };

    /// <summary>Blocks of smooth and noisy content.</summary>
    private static BlockBatch Blocks(int count, int side, int bitDepth = 8, int seed = 1)
    {
        var batch = new BlockBatch(count, side, bitDepth);
        var random = new Random(seed);
        for (int i = 0; i < batch.Samples.Length; i++)
            batch.Samples[i] = (ushort)((0.5 + (0.3 * Math.Sin(i * 0.001 * (1 + (i / (side * side * 3))))) + (0.2 * random.NextDouble())) * batch.MaxValue);
        return batch;
    }

    private static BlockExtent[] Full(int count) => [.. Enumerable.Repeat(new BlockExtent(128, 128), count)];

    private static LrStrips Strips(int columns, int strips, int bitDepth = 8)
    {
        byte[] index = [.. Enumerable.Range(0, columns * strips).Select(i => (byte)(i * 7 % 3))];
        return new LrStrips(columns, strips, ScaleSet.Default, index, [.. Enumerable.Range(0, 3).Select(s => Blocks(index.Count(i => i == s), 64 >> s, bitDepth, s))]);
    }

    [Fact]
    public void Scores_are_those_of_single_network_passes()
    {
        using IEngine engine = Factory().Create(Settings());
        BlockBatch hr = Blocks(3, 128);
        BlockExtent[] extents = [new(128, 128), new(128, 40), new(1, 128)];
        double[,] sse = engine.Scorer.Score(hr, extents, ScaleSet.Default);
        for (int s = 0; s < 3; s++)
        {
            int scale = ScaleSet.Default[s];
            BlockBatch lr = engine.Downscaler.Downscale(hr, scale);
            for (int i = 0; i < 3; i++)
            {
                var shape = new OmniSrShape(scale, 1);
                using ParameterSet parameters = ReferenceNumbers.OmniSr(shape);
                using var network = new OmniSrNetwork(shape, parameters);
                using var scope = NewDisposeScope();
                float[] values = network.Forward(tensor([.. lr.Block(i).ToArray().Select(v => (v / 127.5f) - 1)], [1, lr.Side, lr.Side, 3])).data<float>().ToArray();
                ushort[] samples = [.. values.Select(v => (ushort)Math.Clamp(Math.Floor(((v + 1) * 127.5) + 0.5), 0, 255))];
                double expected = Metrics.BlockSse(hr.Block(i), samples, 128, extents[i].Width, extents[i].Height, 8);
                Assert.Equal(expected, sse[i, s], expected * 1e-3);
            }
        }
    }

    [Fact]
    public void The_bicubic_scorer_needs_no_network_call()
    {
        using IEngine engine = Factory().Create(Settings(scorer: "bicubic"));
        double[,] sse = engine.Scorer.Score(Blocks(2, 128), Full(2), ScaleSet.Default);
        Assert.True(sse[0, 0] > 0 && sse[0, 0] < sse[0, 1] && sse[0, 1] < sse[0, 2]);
        Assert.Empty(engine.TakeCounts().Calls);
    }

    [Fact]
    public void Results_do_not_depend_on_threads_and_repeat_bit_by_bit()
    {
        foreach (string precision in (string[])["float32", "auto"])
        {
            double[]? scores = null;
            ushort[]? rows = null;
            foreach (int threads in (int[])[1, 2, 2])
            {
                using IEngine engine = Factory().Create(Settings(precision, threads, maxBatch: 3));
                double[] again = [.. engine.Scorer.Score(Blocks(7, 128), Full(7), ScaleSet.Default).Cast<double>()];
                ushort[] rowsAgain = [.. engine.Reconstructor.Reconstruct(Strips(4, 2)).SelectMany(strip => strip.Rows)];
                Assert.Equal(scores ?? again, again);
                Assert.Equal(rows ?? rowsAgain, rowsAgain);
                (scores, rows) = (again, rowsAgain);
            }
        }
    }

    [Fact]
    public void Device_calls_are_counted_by_purpose_and_scale_and_batched_in_block_order()
    {
        using IEngine engine = Factory().Create(Settings());
        engine.Scorer.Score(Blocks(20, 128), Full(20), ScaleSet.Default);
        engine.Reconstructor.Reconstruct(Strips(3, 2));
        DeviceCounts counts = engine.TakeCounts();
        Assert.Equal(
            [new("reconstruct", 2, 1, 2), new("reconstruct", 4, 1, 2), new("reconstruct", 8, 1, 2), new("score", 2, 2, 20), new("score", 4, 2, 20), new("score", 8, 2, 20)],
            counts.Calls);
        Assert.Equal((0, 0), (counts.PrecisionRetries, counts.SmallerBatches));
        Assert.Empty(engine.TakeCounts().Calls);
    }

    [Fact]
    public void A_warm_started_strip_is_block_wise_super_resolution_and_borders_join_to_the_same_rows()
    {
        using IEngine engine = Factory().Create(Settings());
        LrStrips lr = Strips(2, 2);
        IReadOnlyList<ReconstructedStrip> strips = engine.Reconstructor.Reconstruct(lr);
        Assert.Equal(8, engine.Reconstructor.BorderRows);
        Assert.Equal(128 * 256 * 3, strips[0].Rows.Length);
        ushort[] border = engine.Reconstructor.JoinBorder(strips[0].Bottom, strips[1].Top, 8);
        // Deblock and final convolution are the identity: nothing changes at the border.
        Assert.Equal([.. strips[0].Rows[^(8 * 256 * 3)..], .. strips[1].Rows[..(8 * 256 * 3)]], border);
        Assert.Throws<ArgumentException>(() => engine.Reconstructor.JoinBorder(strips[0].Bottom, strips[1].Top with { Rows = 7 }, 8));
    }

    [Fact]
    public void Blocks_that_are_smaller_than_the_network_allows_are_reconstructed_as_they_are_scored()
    {
        // 8 pixels a side, where the network pads to 16.
        WriteModel(16, ReferenceNumbers.Weights(new OmniSrShape(16, 1).Parameters));
        var scales = new ScaleSet([4, 8, 16], 128);
        using IEngine engine = Factory().Create(Settings() with { Scales = scales });
        BlockBatch hr = Blocks(2, 128), lr = engine.Downscaler.Downscale(hr, 16);
        double[,] sse = engine.Scorer.Score(hr, Full(2), scales);
        ReconstructedStrip strip = engine.Reconstructor.Reconstruct(new LrStrips(2, 1, scales, [2, 2], [new BlockBatch(0, 32, 8), new BlockBatch(0, 16, 8), lr]))[0];
        for (int block = 0; block < 2; block++)
        {
            ushort[] made = [.. Enumerable.Range(0, 128).SelectMany(row => strip.Rows.Skip(((row * 256) + (block * 128)) * 3).Take(128 * 3))];
            Assert.Equal(sse[block, 2], Metrics.BlockSse(hr.Block(block), made, 128, 128, 128, 8), sse[block, 2] * 1e-3);
        }
    }

    [Fact]
    public void Strips_and_joined_borders_are_the_rows_of_the_whole_image_when_the_joint_part_is_trained()
    {
        // Values that are far from the warm start, so that seams and borders matter.
        IReadOnlyDictionary<string, TensorData> joint = ReferenceNumbers.Weights(JointSrParameters.Shapes([2, 4, 8], 64));
        using var runner = new BatchRunner(2, () => NativeRuntime.SetThreads(1));
        using var networks = new NetworkSet(new ModelCatalog(_models.Root), "omnisr-light", ScalarType.Float32, CPU);
        using var reconstructor = new JointReconstructor("omnisr-light", networks, ScaleSet.Default, runner, CPU, _ => 4, joint);
        const int columns = 2, count = 3, rowLength = columns * 128 * 3, border = 8;
        LrStrips lr = Strips(columns, count);
        IReadOnlyList<ReconstructedStrip> strips = reconstructor.Reconstruct(lr);
        ushort[] rows = [.. strips.SelectMany(strip => strip.Rows)], unjoined = [.. rows];
        for (int i = 1; i < count; i++)
            reconstructor.JoinBorder(strips[i - 1].Bottom, strips[i].Top, 8).CopyTo(rows, ((i * 128) - border) * rowLength);

        NativeRuntime.SetThreads(1);
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        using var parameters = new ParameterSet(JointSrParameters.Shapes([2, 4, 8], 64), joint, "joint");
        var head = new JointSrHead([2, 4, 8], parameters);
        var taken = new int[3];
        Tensor[] blocks = [.. lr.ScaleIndex.Select(s => head.Tail(networks.At(2 << s, 0).Features(MapBatch.Of(lr.ByScale[s], taken[s]++, 1).ToMap(0, 1, CPU, -1)), 2 << s))];
        Tensor map = cat([.. blocks.Chunk(columns).Select(strip => cat(strip, 2))], 1).contiguous();
        var whole = new ushort[rows.Length];
        Samples.ToSamples(Samples.Values(head.Image(map, [64, 128], [64])), 255, whole, -1);

        // Another batch size moves the float32 sums by 5e-7, so a value on the edge of rounding may fall to the other side.
        Assert.Equal(whole.Length, whole.Zip(rows).Count(pair => Math.Abs(pair.First - pair.Second) <= 1));
        Assert.InRange(whole.Zip(rows).Count(pair => pair.First != pair.Second), 0, whole.Length / 1000);
        Assert.True(whole.Zip(unjoined).Count(pair => Math.Abs(pair.First - pair.Second) > 1) > 1000, "without joining, the borders would differ");
    }

    [Fact]
    public void Sixteen_bit_blocks_keep_their_depth()
    {
        using IEngine engine = Factory().Create(Settings());
        ReconstructedStrip strip = engine.Reconstructor.Reconstruct(Strips(3, 1, bitDepth: 16))[0];
        Assert.True(strip.Rows.Distinct().Count() > 1000);
        double[,] sse = engine.Scorer.Score(Blocks(1, 128, 16), Full(1), ScaleSet.Default);
        double[,] sse8 = engine.Scorer.Score(Blocks(1, 128), Full(1), ScaleSet.Default);
        Assert.Equal(sse8[0, 1], sse[0, 1], sse8[0, 1] * 0.02);
    }

    [Fact]
    public void Blocks_that_stay_non_finite_are_marked_when_scored_and_refused_when_reconstructed()
    {
        var weights = new Dictionary<string, TensorData>(ReferenceNumbers.Weights(new OmniSrShape(4, 1).Parameters), StringComparer.Ordinal);
        weights["output.bias"] = weights["output.bias"] with { Values = [.. Enumerable.Repeat(float.NaN, 64)] };
        WriteModel(4, weights);
        using IEngine engine = Factory().Create(Settings());
        double[,] sse = engine.Scorer.Score(Blocks(2, 128), Full(2), ScaleSet.Default);
        Assert.True(double.IsFinite(sse[0, 0]) && double.IsNaN(sse[0, 1]) && double.IsNaN(sse[1, 1]) && double.IsFinite(sse[1, 2]));
        Assert.Contains("scale 4", Assert.Throws<NonFiniteOutputException>(() => engine.Reconstructor.Reconstruct(Strips(3, 1))).Message);
    }

    [Fact]
    public void Non_finite_blocks_are_done_again_in_float32_and_counted()
    {
        using var runner = new BatchRunner(1, () => { });
        BlockBatch blocks = Blocks(3, 16);
        float[] result = NetworkCall.Run(MapBatch.Of(blocks, 0, 3), CPU, -1, runner, "score", 8, ScalarType.BFloat16, (map, float32) =>
        {
            Tensor y = map * 2;
            if (!float32)
                y[1, 0, 0, 0] = tensor(float.NaN);
            return y;
        });
        Assert.Equal([.. blocks.Samples.Select(v => 2 * ((v * (2f / 255)) - 1))], result);
        DeviceCounts counts = runner.Take();
        Assert.Equal(1, counts.PrecisionRetries);
        Assert.Equal([new("score", 8, 1, 1)], counts.Calls);
    }

    [Fact]
    public void A_batch_that_runs_out_of_memory_is_done_in_halves()
    {
        using var runner = new BatchRunner(2, () => { });
        var done = new System.Collections.Concurrent.ConcurrentBag<int>();
        runner.Run(BatchRunner.Cut("score", 2, 13, 8), (_, batch) =>
        {
            if (batch.Count > 3)
                throw new System.Runtime.InteropServices.ExternalException("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.");
            for (int i = 0; i < batch.Count; i++)
                done.Add(batch.First + i);
        });
        Assert.Equal(Enumerable.Range(0, 13), done.Order());
        DeviceCounts counts = runner.Take();
        Assert.Equal(4, counts.SmallerBatches);
        Assert.Equal(13, counts.Calls.Sum(call => call.Blocks));
        Assert.Throws<OutOfMemoryException>(() => runner.Run(BatchRunner.Cut("score", 2, 2, 8), (_, _) => throw new OutOfMemoryException()));
    }

    [Fact]
    public void Two_hundred_calls_leave_no_tensor_behind()
    {
        using IEngine engine = Factory().Create(Settings("auto", threads: 2, maxBatch: 1));
        BlockBatch hr = Blocks(1, 128);
        var coarse = new ScaleSet([4, 8]);
        LrStrips strips = new(1, 1, ScaleSet.Default, [2], [new BlockBatch(0, 64, 8), new BlockBatch(0, 32, 8), Blocks(1, 16)]);
        // Every worker makes its networks at its first call.
        for (int i = 0; i < 20; i++)
            Call();
        long before = Tensor.TotalCount;
        for (int i = 0; i < 70; i++)
            Call();
        Assert.Equal(before, Tensor.TotalCount);

        void Call()
        {
            engine.Scorer.Score(hr, Full(1), coarse);
            engine.Reconstructor.Reconstruct(strips);
        }
    }

    [Theory]
    [InlineData("omnisr", "omnisr-light", "bicubic", "auto", "cpu", "no weights of omnisr for scale 2")]
    [InlineData("craft", "omnisr-light", "bicubic", "auto", "cpu", "no weights of craft")]
    [InlineData("other", "omnisr-light", "bicubic", "auto", "cpu", "no network 'other'")]
    [InlineData("omnisr-light", "other", "bicubic", "auto", "cpu", "no scorer 'other'")]
    [InlineData("omnisr-light", "same", "downnet", "auto", "cpu", "no weights of omnisr-light-downnet for scale 2")]
    [InlineData("omnisr-light", "same", "other", "auto", "cpu", "no downscaler 'other'")]
    [InlineData("omnisr-light", "same", "bicubic", "half", "cpu", "no precision 'half'")]
    [InlineData("omnisr-light", "same", "bicubic", "auto", "tpu", "no device 'tpu'")]
    public void What_is_not_there_gives_one_clear_sentence(string network, string scorer, string downscaler, string precision, string device, string reason)
    {
        EngineSettings settings = EngineSettings.Default with { Network = network, Scorer = scorer, Downscaler = downscaler, Precision = precision, Device = device };
        string message = Assert.Throws<EngineUnavailableException>(() => Factory().Create(settings).Dispose()).Message;
        Assert.Contains(reason, message);
        Assert.DoesNotContain('\n', message);
    }

    [Fact]
    public void Cuda_on_a_processor_build_gives_one_clear_sentence()
    {
        if (cuda.is_available())
            return;
        EngineSettings settings = EngineSettings.Default with { Device = "cuda:0" };
        foreach (Action use in (Action[])[() => Factory().Create(settings).Dispose(), () => Factory().DeviceClass(settings)])
            Assert.Contains("The device cuda:0 is not there", Assert.Throws<EngineUnavailableException>(use).Message);
    }

    [Fact]
    public void Weight_hashes_name_every_file_of_the_job()
    {
        IReadOnlyDictionary<string, string> hashes = Factory().WeightHashes(EngineSettings.Default);
        Assert.Equal(["omnisr-light-x2.safetensors", "omnisr-light-x4.safetensors", "omnisr-light-x8.safetensors"], hashes.Keys);
        Assert.All(hashes.Values, hash => Assert.Matches("^[0-9a-f]{64}$", hash));
        Assert.StartsWith("cpu", Factory().DeviceClass(EngineSettings.Default with { Device = "cpu" }), StringComparison.Ordinal);
    }

    [Fact]
    public void Whole_images_of_any_size_and_kind_are_super_resolved()
    {
        using var resolver = new SuperResolver(new ModelCatalog(_models.Root), "omnisr-light", 2, "float32", "cpu", 1);
        foreach ((int width, int height, int channels, int bitDepth) in ((int, int, int, int)[])[(1, 1, 3, 8), (33, 20, 1, 8), (17, 16, 4, 8), (16, 5, 2, 16)])
        {
            var source = new PixelBuffer(width, height, channels, bitDepth);
            new Random(1).NextBytes(source.Data);
            PixelBuffer result = resolver.Upscale(source);
            Assert.Equal((width * 2, height * 2, channels, bitDepth), (result.Width, result.Height, result.Channels, result.BitDepth));
        }
        var opaque = new PixelBuffer(9, 9, 2, 8);
        Array.Fill(opaque.Data, (byte)255);
        PixelBuffer upscaled = resolver.Upscale(opaque);
        Assert.All(Enumerable.Range(0, 18 * 18), i => Assert.Equal(255, upscaled.Data[(2 * i) + 1]));
    }
}

using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using BbmrCluster.Tests;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

public sealed class CraftTests
{
    private static CraftShape Small(int scale, int channels = 48) => new(scale, [1], channels, MlpChannels: 2 * channels, GateChannels: (int)(channels * 2.66));

    [FixtureTheory]
    [InlineData("craft_d1_x8", 8, 1, true)]
    [InlineData("craft_d1_x8", 8, 2, true)]
    [InlineData("craft_d4_x4", 4, 2, true)]
    [InlineData("craft_d4_x2", 2, 2, false)]
    public void Output_loss_and_gradient_match_the_reference_implementation(string fixture, int scale, int threads, bool gradient)
    {
        NativeRuntime.SetThreads(threads);
        ParityResult result = FixtureParity.Run(Fixtures.Path("networks", fixture + ".safetensors"));
        Assert.Equal(("craft", scale), (result.Architecture, result.Scale));
        Assert.InRange(result.MaxRelError, 0, 1e-5);
        Assert.Equal(gradient, result.LossRelError is not null);
        if (gradient)
        {
            Assert.InRange(result.LossRelError!.Value, 0, 1e-5);
            Assert.InRange(result.GradNormRelError!.Value, 0, 1e-5);
        }
    }

    [Theory]
    [InlineData(4, 32, 32, 21400.702165, 121.195141, 1.1556788, 1.1284626, 1.1012463, 0.926506, 1.0367759, 0.3883086)]
    [InlineData(2, 64, 64, 22051.925913, 128.312509, 1.1551357, 1.1297635, 0.0153906, 0.0564533, 0.336483, 0.4030322)]
    [InlineData(8, 16, 16, 21247.879444, 124.202157, 1.1657289, 1.1401501, 1.1145713, 0.9343315, 0.0246281, 0.0625945)]
    [InlineData(4, 16, 48, 16025.727915, 104.125954, 1.164082, 1.1386119, 1.1131419, 0.9280888, 1.308481, 0.3662416)]
    public void Output_has_the_golden_numbers(int scale, int height, int width, double sum, double norm, double a, double b, double c, double d, double mid, double last)
    {
        NativeRuntime.SetThreads(1);
        CraftShape shape = CraftShape.Published(scale);
        using ParameterSet parameters = ReferenceNumbers.For(shape);
        using SrNetwork network = shape.CreateNetwork(parameters);
        using var scope = NewDisposeScope();
        Tensor y = network.Forward(Input(height, width));
        Assert.Equal([1, height * scale, width * scale, 3], y.shape);
        Fingerprint.Of(y.permute(0, 3, 1, 2).contiguous().data<float>().ToArray()).IsNear(new Fingerprint(sum, norm, [a, b, c, d], mid, last));
    }

    [Fact]
    public void The_shape_is_read_off_a_state_dict_wrapped_or_not_with_or_without_buffers()
    {
        var shape = new CraftShape(3, [1, 2], 64, 4, 100, 70, 2, 8);
        var state = new Dictionary<string, TensorData>(ReferenceNumbers.Weights(shape.Parameters), StringComparer.Ordinal)
        {
            ["biases_h"] = Offsets(2, 8),
            ["biases_v"] = Offsets(8, 2),
            ["relative_position_index_h"] = new TensorData([16, 16], new float[256]),
            ["relative_position_index_v"] = new TensorData([16, 16], new float[256]),
        };
        foreach (string wrapper in (string[])["", "params.", "params_ema."])
        {
            var wrapped = state.ToDictionary(pair => wrapper + pair.Key, pair => pair.Value, StringComparer.Ordinal);
            (NetworkShape found, IReadOnlyDictionary<string, TensorData> parameters) = Architectures.Recognise(wrapped, "test");
            Assert.Equal(shape with { Depths = ((CraftShape)found).Depths }, found);
            Assert.Equal(shape.Depths, ((CraftShape)found).Depths);
            Assert.Equal(shape.Parameters.Select(p => p.Name).Order(StringComparer.Ordinal), parameters.Keys.Order(StringComparer.Ordinal));
        }
    }

    [Fact]
    public void The_published_network_has_the_official_number_of_tensors() => Assert.Equal(840, CraftShape.Published(4).Parameters.Count);

    [Theory]
    [InlineData("conv_first.weight")]
    [InlineData("upsample.0.weight")]
    [InlineData("layers.0.residual_group.hf_blocks.0.attn.temperature")]
    public void A_state_dict_without_what_the_shape_shows_in_is_refused_by_name(string missing)
    {
        var state = ReferenceNumbers.Weights(Small(2).Parameters).Where(pair => pair.Key != missing).ToDictionary(StringComparer.Ordinal);
        Assert.Contains(missing, Assert.Throws<InvalidDataException>(() => CraftShape.Of(state, "test")).Message);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(5, 40)]
    [InlineData(33, 17)]
    public void Maps_of_any_size_are_mirrored_to_whole_windows(int height, int width)
    {
        CraftShape shape = Small(2);
        using ParameterSet parameters = ReferenceNumbers.For(shape);
        using SrNetwork network = shape.CreateNetwork(parameters);
        using var scope = NewDisposeScope();
        Tensor x = Input(height, width);
        Tensor y = network.Forward(x);
        Assert.Equal([1, 2 * height, 2 * width, 3], y.shape);

        long rows = (height + 15) / 16 * 16, columns = (width + 15) / 16 * 16;
        Tensor padded = zeros(1, rows, columns, 3);
        for (int r = 0; r < rows; r++)
        {
            for (int c = 0; c < columns; c++)
                padded[0, r, c] = x[0, Mirror(r, height), Mirror(c, width)];
        }
        Assert.Equal(Values(network.Forward(padded).narrow(1, 0, 2 * height).narrow(2, 0, 2 * width)), Values(y));

        static int Mirror(int i, int length)
        {
            if (length == 1)
                return 0;
            while (i >= length || i < 0)
                i = i < 0 ? -i : (2 * (length - 1)) - i;
            return i;
        }
    }

    [Theory]
    [InlineData(48)]
    [InlineData(96)]
    public void A_bfloat16_body_stays_near_float32(int channels)
    {
        CraftShape shape = Small(4, channels);
        using ParameterSet parameters = ReferenceNumbers.For(shape);
        using SrNetwork exact = shape.CreateNetwork(parameters), fast = shape.CreateNetwork(parameters, ScalarType.BFloat16);
        using var scope = NewDisposeScope();
        Tensor a = exact.Forward(Input(32, 32)), b = fast.Forward(Input(32, 32));
        Assert.InRange(((a - b).norm() / a.norm()).item<float>(), 1e-6, 0.01);
    }

    [Fact]
    public void The_position_bias_counts_only_where_it_is_wider_than_one_channel()
    {
        foreach ((int channels, bool counts) in ((int, bool)[])[(48, false), (96, true)])
        {
            CraftShape shape = Small(2, channels);
            IReadOnlyDictionary<string, TensorData> weights = ReferenceNumbers.Weights(shape.Parameters);
            Dictionary<string, TensorData> changed = weights.ToDictionary(pair => pair.Key,
                pair => pair.Key.EndsWith("pos3.2.weight", StringComparison.Ordinal) ? pair.Value with { Values = [.. pair.Value.Values.Select(v => -3 * v)] } : pair.Value, StringComparer.Ordinal);
            using var before = new ParameterSet(shape.Parameters, weights, "a");
            using var after = new ParameterSet(shape.Parameters, changed, "b");
            using SrNetwork one = shape.CreateNetwork(before), other = shape.CreateNetwork(after);
            using var scope = NewDisposeScope();
            Assert.Equal(counts, !Values(one.Forward(Input(16, 16))).SequenceEqual(Values(other.Forward(Input(16, 16)))));
        }
    }

    [Fact]
    public void Inference_leaves_no_tensor_behind()
    {
        CraftShape shape = Small(8, 96);
        using ParameterSet parameters = ReferenceNumbers.For(shape);
        using SrNetwork network = shape.CreateNetwork(parameters, ScalarType.BFloat16);
        Pass();
        long before = Tensor.TotalCount;
        for (int i = 0; i < 5; i++)
            Pass();
        Assert.Equal(before, Tensor.TotalCount);

        void Pass()
        {
            using var scope = NewDisposeScope();
            network.Forward(Input(16, 16));
        }
    }

    [Fact]
    public void A_warm_joint_part_equals_block_wise_super_resolution()
    {
        NativeRuntime.SetThreads(1);
        int[] scales = [2, 4, 8];
        CraftShape[] shapes = [.. scales.Select(scale => Small(scale))];
        using var joint = new ParameterSet(JointSrParameters.Shapes(scales, 48), JointSrParameters.WarmStart([.. shapes.Select(shape =>
        {
            IReadOnlyDictionary<string, TensorData> state = ReferenceNumbers.Weights(shape.Parameters);
            return (shape.Scale, state[shape.TailName + ".weight"], state[shape.TailName + ".bias"]);
        })]), "warm start");
        var head = new JointSrHead(scales, joint, mean: shapes[0].Mean);
        using var scope = NewDisposeScope();
        using var noGradient = no_grad();
        var features = new List<Tensor>();
        var images = new List<Tensor>();
        foreach (CraftShape shape in shapes)
        {
            using ParameterSet parameters = ReferenceNumbers.For(shape);
            using SrNetwork network = shape.CreateNetwork(parameters);
            Tensor x = Input(128 / shape.Scale, 128 / shape.Scale);
            features.Add(head.Tail(network.Features(x), shape.Scale));
            images.Add(network.Forward(x));
        }
        Assert.Equal(Values(cat(images, 2)), Values(head.Image(cat(features, 2).contiguous(), [], [64, 128])));
    }

    [Fact]
    public void Wrapped_weights_in_the_models_folder_score_and_reconstruct()
    {
        NativeRuntime.SetThreads(1);
        using var folder = new TemporaryFolder();
        foreach (int scale in (int[])[2, 4, 8])
        {
            SafetensorsFile.Write(folder.File($"craft-x{scale}.safetensors"),
                ReferenceNumbers.Weights(Small(scale).Parameters).ToDictionary(pair => "params_ema." + pair.Key, pair => pair.Value, StringComparer.Ordinal));
        }
        EngineSettings settings = EngineSettings.Default with { Network = "craft", Scorer = "same", Precision = "float32", Device = "cpu", Threads = 1 };
        using IEngine engine = new EngineFactory(new ModelCatalog(folder.Root)).Create(settings);

        var hr = new BlockBatch(1, 128, 8);
        for (int i = 0; i < hr.Samples.Length; i++)
            hr.Samples[i] = (ushort)(128 + (40 * Math.Sin(i * 0.01)));
        BlockBatch lr = engine.Downscaler.Downscale(hr, 4);
        ReconstructedStrip strip = Assert.Single(engine.Reconstructor.Reconstruct(new LrStrips(1, 1, ScaleSet.Default, [1], [new BlockBatch(0, 64, 8), lr, new BlockBatch(0, 16, 8)])));

        CraftShape shape = Small(4);
        using ParameterSet parameters = ReferenceNumbers.For(shape);
        using SrNetwork network = shape.CreateNetwork(parameters);
        using var scope = NewDisposeScope();
        float[] values = Values(network.Forward(NativeTensors.Create([.. lr.Samples.Select(v => v / 255f)], [1, 32, 32, 3])));
        ushort[] expected = [.. values.Select(v => (ushort)Math.Clamp(Math.Floor((v * 255) + 0.5), 0, 255))];
        Assert.InRange(expected.Zip(strip.Rows, (a, b) => Math.Abs(a - b)).Max(), 0, 1);
        Assert.True(expected.Distinct().Count() > 50);
        double sse = Metrics.BlockSse(hr.Block(0), expected, 128, 128, 128, 8);
        Assert.Equal(sse, engine.Scorer.Score(hr, [new BlockExtent(128, 128)], ScaleSet.Default)[0, 1], sse * 1e-3);
    }

    private static Tensor Input(int height, int width) => NativeTensors.Create([.. ReferenceNumbers.Unit(height, width).Select(v => (float)v)], [1, height, width, 3]);

    private static float[] Values(Tensor map) => map.contiguous().data<float>().ToArray();

    private static TensorData Offsets(int rows, int columns) => new([((2 * rows) - 1) * ((2 * columns) - 1), 2],
        [.. from r in Enumerable.Range(1 - rows, (2 * rows) - 1) from c in Enumerable.Range(1 - columns, (2 * columns) - 1) from v in (float[])[r, c] select v]);
}

using BbmrCluster.Imaging;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using NetVips;
using static TorchSharp.torch;

namespace BbmrCluster.Training.Tests;

public sealed class JointTrainingTests : IDisposable
{
    private readonly string _folder = Path.Combine(Path.GetTempPath(), "bbmr-" + Guid.NewGuid().ToString("N"));

    public JointTrainingTests()
    {
        Directory.CreateDirectory(_folder);
        NativeRuntime.SetThreads(1);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string In(string name) => Path.Combine(_folder, name);

    private static PixelBuffer Picture(int width, int height, int seed)
    {
        var random = new Random(seed);
        var picture = new PixelBuffer(width, height, 3, 8);
        for (int i = 0; i < picture.Data.Length; i++)
        {
            int x = i / 3 % width, y = i / 3 / width;
            picture.Data[i] = (byte)Math.Clamp(128 + (60 * Math.Sin((x * 0.3) + (seed * y * 0.2)) * x / width) + (random.Next(21) - 10), 0, 255);
        }
        return picture;
    }

    private string Photos()
    {
        string folder = In("photos");
        Directory.CreateDirectory(folder);
        foreach (string name in (string[])["train", "val"])
        {
            using Image image = Image.NewFromMemory(Picture(300, 280, name.Length).Data, 300, 280, 3, Enums.BandFormat.Uchar);
            image.WriteToFile(Path.Combine(folder, name + ".png"));
        }
        File.WriteAllText(Path.Combine(folder, "photos.tsv"), "split\tfile\tdivisor\ntrain\ttrain.png\t1\nval\tval.png\t1\n");
        return folder;
    }

    private static readonly JointSrShape Shape = new([.. ((int[])[2, 4, 8]).Select(scale => new OmniSrShape(scale, 1))]);

    /// <summary>Random weights; a deblock branch and final convolution that change the features.</summary>
    private static Dictionary<string, TensorData> JointWeights()
    {
        Dictionary<string, TensorData> values = Initialisation.Uniform(Shape, 3);
        foreach (int i in (int[])[1, 3, 5])
            values[$"deblock.{i}.weight"] = new TensorData([1], [0.25f]);
        return values;
    }

    private static JointCrop Crop(int seed, params int[] counts)
    {
        int[] order = [.. Enumerable.Range(0, 4)];
        new Random(seed).Shuffle(order);
        return JointSrTask.MakeCrop(Picture(256, 256, seed), order, counts, new BlockShrinker(-1));
    }

    private static float[][] Gradients(int workers, int blocksAtOnce, out double loss)
    {
        JointCrop[] crops = [Crop(1, 1, 2, 1), Crop(2, 1, 2, 1)];
        using var gradient = new JointGradient(Shape, JointWeights(), "random", ScalarType.Float32, workers, blocksAtOnce);
        loss = gradient.Compute(crops);
        return [.. Enumerable.Range(0, 4).Select(set => gradient.Gradient(set).data<float>().ToArray())];
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(1, 3)]
    [InlineData(2, 0)]
    [InlineData(2, 2)]
    public void Two_passes_and_several_workers_give_the_gradient_of_one_pass(int workers, int blocksAtOnce)
    {
        float[][] expected = Gradients(1, 0, out double expectedLoss), actual = Gradients(workers, blocksAtOnce, out double loss);
        Assert.Equal(expectedLoss, loss, 1e-6);
        for (int set = 0; set < 4; set++)
        {
            double length = Math.Sqrt(expected[set].Sum(value => (double)value * value));
            Assert.True(length > 1e-4, $"set {set} has a gradient");
            Assert.InRange(Math.Sqrt(expected[set].Zip(actual[set]).Sum(pair => Math.Pow(pair.First - pair.Second, 2))) / length, 0, 1e-4);
        }
    }

    [Fact]
    public void The_gradient_is_that_of_the_loss()
    {
        JointCrop[] crops = [Crop(1, 1, 2, 1)];
        Dictionary<string, TensorData> values = JointWeights();
        using var gradient = new JointGradient(Shape, values, "random", ScalarType.Float32, 1, 0);
        gradient.Compute(crops);
        // Along the gradient of the joint part the loss falls as the gradient's length says.
        float[] slope = gradient.Gradient(3).data<float>().ToArray();
        double squares = slope.Sum(value => (double)value * value);
        const double step = 1e-3;
        double Loss(double sign)
        {
            Dictionary<string, TensorData> moved = new(values, StringComparer.Ordinal);
            int at = 0;
            foreach ((string name, _) in Shape.JointParameters)
                moved[name] = values[name] with { Values = Array.ConvertAll(values[name].Values, value => (float)(value + (sign * step / Math.Sqrt(squares) * slope[at++]))) };
            using var other = new JointGradient(Shape, moved, "moved", ScalarType.Float32, 1, 0);
            return other.Compute(crops);
        }
        Assert.Equal(Math.Sqrt(squares), (Loss(1) - Loss(-1)) / (2 * step), 0.02 * Math.Sqrt(squares));
    }

    [Fact]
    public void Every_block_of_a_crop_keeps_its_place_and_is_shrunk_by_itself()
    {
        PixelBuffer image = Picture(384, 256, 5);
        float[] values = CropSampler.ValueTable(0);
        using var shrinker = new BlockShrinker(0);
        JointCrop crop = JointSrTask.MakeCrop(image, [5, 0, 3, 1, 4, 2], [1, 3, 2], shrinker);
        Assert.Equal([[5], [0, 1, 3], [2, 4]], crop.Places);
        PixelBuffer small = Bicubic.Resize(image.Crop(128, 128, 128, 128), ResizeScale.Down(8));
        Assert.Equal(small.Data.Select(value => values[value]), crop.Lr[2].Skip(16 * 16 * 3));
        Assert.Equal((2, 3), (crop.Rows, crop.Columns));
        Assert.Equal(image.Data.Select(value => value / 255f), crop.Hr);
    }

    [Fact]
    public void Validation_gives_one_block_in_ten_the_finest_scale_and_four_the_coarsest()
    {
        // Detail rises with x, so the finest scale goes to the right, the coarsest to the left.
        JointCrop crop = JointSrTask.ValidationCrop(Picture(1280, 128, 1), new BlockShrinker(0));
        Assert.Equal([1, 5, 4], crop.Places.Select(places => places.Length));
        Assert.True(crop.Places[0].Min() >= crop.Places[1].Max() - 1 && crop.Places[2].Max() < crop.Places[0].Min());
    }

    [Fact]
    public void Joint_training_starts_at_the_quality_of_its_networks_and_writes_one_model()
    {
        TrainingRecipe recipe = new()
        {
            Name = "joint", Kind = TrainingKind.Jointsr, HrCrop = 256, Mix = [1, 1, 2], Batch = 1, Steps = 2, WarmupSteps = 0, LogEvery = 1, ValidateEvery = 1, LearningRate = 1e-9, EmaDecay = 0, WeightDecay = 0,
        };
        TrainingProgress last = Trainer.Run(recipe, new TrainingPaths(Photos(), null, In("out")), resume: false);
        Assert.Equal(last.Scores!["photographs_blocks_warm_psnr_y"], last.Scores["photographs_blocks_psnr_y"], 0.002);
        Assert.Equal(last.Scores["photographs_blocks_warm_seam"], last.Scores["photographs_blocks_seam"], 0.002);
        var shape = Assert.IsType<JointSrShape>(Architectures.Recognise(SafetensorsFile.Read(In("out/joint.safetensors")).Tensors, "joint").Shape);
        Assert.Equal([2, 4, 8], shape.Scales);

        ModelCard card = Assert.Single(ModelPublisher.Publish(recipe, new TrainingPaths(In("photos"), null, In("out")), new Publication(null, "none"), In("models")));
        Assert.Equal(("omnisr-light-joint", "joint-omnisr"), (card.Network, card.Architecture));
        Assert.Contains("photographs_blocks_seam", card.Scores.Keys);
        Assert.Contains("photographs_blocks_warm_psnr_y", card.Scores.Keys);
        Assert.True(card.Steps > 2, "the steps of the extractors count");
        Assert.Equal(ModelState.Ready, new ModelCatalog(In("models")).Verify().Single(entry => entry.Model == "omnisr-light-joint").State);
    }

    [Fact]
    public void A_joint_training_resumes_to_the_weights_of_an_undisturbed_one()
    {
        string photos = Photos();
        TrainingRecipe recipe = new()
        {
            Name = "joint", Kind = TrainingKind.Jointsr, HrCrop = 256, Batch = 1, Steps = 3, WarmupSteps = 0, LogEvery = 1, ValidateEvery = 2, BlocksAtOnce = 2, Assignment = "random", ColourJitter = 0.1,
        };
        Trainer.Run(recipe, new TrainingPaths(photos, null, In("whole")), resume: false);
        Assert.Throws<IOException>(() => Trainer.Run(recipe, new TrainingPaths(photos, null, In("parts")), resume: false, progress =>
        {
            if (progress.Step == 2)
                throw new IOException("killed");
        }));
        Trainer.Run(recipe, new TrainingPaths(photos, null, In("parts")), resume: true);
        IReadOnlyDictionary<string, TensorData> parts = SafetensorsFile.Read(In("parts/joint.safetensors")).Tensors;
        foreach ((string name, TensorData tensor) in SafetensorsFile.Read(In("whole/joint.safetensors")).Tensors)
            Assert.Equal(tensor.Values, parts[name].Values);
    }

    [Theory]
    [InlineData(2)]
    [InlineData(8)]
    public void An_untrained_down_net_gives_the_mean_of_each_square(int scale)
    {
        var shape = new DownNetShape(scale);
        using var parameters = new ParameterSet(shape.Parameters, Initialisation.FromBoxAverage(shape, 1), "start");
        using var scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        Tensor x = randn(1, 32, 32, 3);
        Tensor mean = nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), scale, scale).permute(0, 2, 3, 1);
        Assert.InRange((new DownNetNetwork(shape, parameters).Forward(x) - mean).abs().max().item<float>(), 0, 1e-5);
    }

    [Fact]
    public void Down_nets_shrink_the_blocks_of_a_crop_where_a_recipe_says_so()
    {
        var shape = new DownNetShape(4);
        using var shrinker = new BlockShrinker(-1, new Dictionary<int, (DownNetShape, IReadOnlyDictionary<string, TensorData>)> { [4] = (shape, Initialisation.FromBoxAverage(shape, 1)) });
        PixelBuffer image = Picture(256, 128, 3);
        float[] lr = JointSrTask.MakeCrop(image, [1, 0], [0, 2, 0], shrinker).Lr[1];
        // The last LR pixel of the first block's first row is the mean of the 4 x 4 pixels left of the block border.
        double red = Enumerable.Range(0, 4).Sum(y => Enumerable.Range(124, 4).Sum(x => (double)image.Data[(y * image.RowBytes) + (x * 3)])) / 16;
        Assert.Equal(red, (lr[31 * 3] + 1) * 127.5, 0.51);
        Assert.All(lr, value => Assert.Equal(Math.Round((value + 1) * 127.5), (value + 1) * 127.5, 1e-3));
        TrainingRecipe recipe = new() { Name = "a", Kind = TrainingKind.Sr, Scale = 2, Steps = 1, Downscaler = "downnet" };
        Assert.Throws<InvalidDataException>(recipe.Validate);
    }

    [Fact]
    public void Stored_lr_is_rounded_to_8_bits_and_the_gradient_passes_where_nothing_is_clamped()
    {
        using var scope = NewDisposeScope();
        Tensor lr = tensor(new[] { -1.5f, -0.999f, 0.3f, 2f }).requires_grad_();
        Tensor rounded = DownNetGradient.Rounded(lr, -1);
        Assert.Equal([0, 0, 166, 255], rounded.data<float>().ToArray().Select(value => Math.Round((value + 1) * 127.5, 3)));
        rounded.sum().backward();
        Assert.Equal([0, 1, 1, 0], lr.grad!.data<float>().ToArray());
    }

    [Fact]
    public void Down_net_is_fitted_first_and_then_trained_with_its_network()
    {
        TrainingRecipe recipe = new()
        {
            Name = "pair", Kind = TrainingKind.Downnet, Scale = 4, HrCrop = 128, Batch = 2, Steps = 30, FitSteps = 20, WarmupSteps = 0, LogEvery = 10, ValidateEvery = 10, LearningRate = 1e-3, Threads = 2,
        };
        var lines = new List<TrainingProgress>();
        Trainer.Run(recipe, new TrainingPaths(Photos(), null, In("out")), resume: false, lines.Add);
        Assert.True(lines[1].Loss < lines[0].Loss, $"the distance to bicubic falls: {lines[0].Loss}, {lines[1].Loss}");
        Assert.Contains("photographs_blocks_bicubic_psnr_y", lines[2].Scores!.Keys);
        SafetensorsFile state = SafetensorsFile.Read(In("out/pair.state.safetensors"));
        Assert.Equal(("30", "10"), (state.Metadata["downnet.steps"], state.Metadata["network.steps"]));
        Assert.Equal(new DownNetShape(4), Architectures.Recognise(SafetensorsFile.Read(In("out/pair.safetensors")).Tensors, "pair").Shape);
        Assert.Equal(new OmniSrShape(4, 1), Architectures.Recognise(SafetensorsFile.Read(In("out/pair.network.safetensors")).Tensors, "network").Shape);

        IReadOnlyList<ModelCard> cards = ModelPublisher.Publish(recipe, new TrainingPaths(In("photos"), null, In("out")), new Publication(null, "none"), In("models"));
        Assert.Equal(["downnet-omnisr-light", "omnisr-light-downnet"], cards.Select(card => card.Network));
        Assert.All(cards, card => Assert.Equal("downnet", card.Downscaler));
        Assert.Equal(2, new ModelCatalog(In("models")).Verify().Count(entry => entry.State == ModelState.Ready));
    }
}

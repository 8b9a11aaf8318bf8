using System.Text.Json;
using BbmrCluster.Imaging;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.SmfaNet;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Tests;
using NetVips;

namespace BbmrCluster.Training.Tests;

public sealed class TrainingTests : IDisposable
{
    private readonly string _folder = Path.Combine(Path.GetTempPath(), "bbmr-" + Guid.NewGuid().ToString("N"));

    public TrainingTests() => Directory.CreateDirectory(_folder);

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string In(string name) => Path.Combine(_folder, name);

    /// <summary>A picture with edges, waves and a flat half.</summary>
    private static PixelBuffer Picture(int width, int height, int seed = 1)
    {
        var picture = new PixelBuffer(width, height, 3, 8);
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                for (int c = 0; c < 3; c++)
                {
                    double wave = (60 * Math.Sin((x * 0.5) + (seed * y * 0.21) + c)) + ((x / 7 + y / 11) % 2 * 50);
                    picture.Data[(((y * width) + x) * 3) + c] = (byte)(x < width / 2 ? 128 : Math.Clamp(100 + wave, 0, 255));
                }
            }
        }
        return picture;
    }

    private string Photos()
    {
        string folder = In("photos");
        Directory.CreateDirectory(folder);
        for (int i = 0; i < 2; i++)
        {
            using Image image = Image.NewFromMemory(Picture(160, 144, i + 1).Data, 160, 144, 3, Enums.BandFormat.Uchar);
            image.WriteToFile(Path.Combine(folder, $"{i}.png"));
        }
        return folder;
    }

    private static TrainingRecipe Recipe(int steps, string precision = "float32") => new()
    {
        Name = "test", Scale = 2, LrPatch = 16, Batch = 2, Steps = steps, WarmupSteps = 0, LogEvery = 1, ValidateEvery = 2, Precision = precision, LearningRate = 1e-3, EmaDecay = 0.5,
    };

    [Fact]
    public void A_resumed_training_gives_the_weights_of_an_undisturbed_one()
    {
        string photos = Photos();
        Trainer.Run(Recipe(4), new TrainingPaths(photos, null, In("whole")), resume: false);

        using var stop = new CancellationTokenSource();
        Assert.Throws<OperationCanceledException>(() => Trainer.Run(Recipe(4), new TrainingPaths(photos, null, In("parts")), resume: false, progress =>
        {
            if (progress.Step == 3)
                stop.Cancel();
        }, stop.Token));
        TrainingProgress last = Trainer.Run(Recipe(4), new TrainingPaths(photos, null, In("parts")), resume: true);

        Assert.Equal(4, last.Step);
        Assert.Equal(4, File.ReadLines(In("parts/test.log.jsonl")).Count());
        AssertSameTensors(In("whole/test.state.safetensors"), In("parts/test.state.safetensors"));
    }

    [Fact]
    public void A_training_that_was_killed_between_checkpoints_goes_on_from_the_last_one()
    {
        string photos = Photos();
        Trainer.Run(Recipe(6), new TrainingPaths(photos, null, In("whole")), resume: false);

        // An exception leaves the files as a kill does: the checkpoint is that of step 4, the log has step 5.
        Assert.Throws<IOException>(() => Trainer.Run(Recipe(6), new TrainingPaths(photos, null, In("killed")), resume: false, progress =>
        {
            if (progress.Step == 5)
                throw new IOException("killed");
        }));
        File.AppendAllText(In("killed/test.log.jsonl"), "{\"step\":6,\"sec");
        var steps = new List<int>();
        Trainer.Run(Recipe(6), new TrainingPaths(photos, null, In("killed")), resume: true, progress => steps.Add(progress.Step));

        Assert.Equal([5, 6], steps);
        Assert.Equal(File.ReadAllBytes(In("whole/test.safetensors")).Length, File.ReadAllBytes(In("killed/test.safetensors")).Length);
        AssertSameTensors(In("whole/test.state.safetensors"), In("killed/test.state.safetensors"));
        IReadOnlyList<TrainingProgress> whole = LearningCurve.Read(In("whole/test.log.jsonl")), killed = LearningCurve.Read(In("killed/test.log.jsonl"));
        Assert.Equal(whole.Select(line => (line.Step, line.Loss)), killed.Select(line => (line.Step, line.Loss)));
        Assert.Equal([0x89, (byte)'P', (byte)'N', (byte)'G'], File.ReadAllBytes(In("killed/test.curve.png")).Take(4));
    }

    private static void AssertSameTensors(string expected, string actual)
    {
        SafetensorsFile whole = SafetensorsFile.Read(expected), parts = SafetensorsFile.Read(actual);
        Assert.Equal(whole.Tensors.Keys.Order(StringComparer.Ordinal), parts.Tensors.Keys.Order(StringComparer.Ordinal));
        foreach ((string name, TensorData tensor) in whole.Tensors)
            Assert.Equal(tensor.Values, parts.Tensors[name].Values);
    }

    [Fact]
    public void The_split_val_is_validated_on_and_the_best_weights_are_kept()
    {
        string photos = Photos();
        File.WriteAllText(Path.Combine(photos, "photos.tsv"), "split\tfile\tdivisor\ntrain\t0.png\t1\nval\t1.png\t1\n");
        // The rate is far too high, so the weights get worse.
        Trainer.Run(Recipe(6) with { LearningRate = 0.05, EmaDecay = 0 }, new TrainingPaths(photos, null, In("out")), resume: false);
        double[] scores = [.. LearningCurve.Read(In("out/test.log.jsonl")).Where(line => line.Scores is not null).Select(line => line.Scores!["photographs_psnr_y"])];
        Assert.Equal(3, scores.Length);
        Assert.True(scores.Distinct().Count() > 1);
        int best = Array.IndexOf(scores, scores.Max());
        Assert.Equal((2 * (best + 1)).ToString(System.Globalization.CultureInfo.InvariantCulture), SafetensorsFile.Read(In("out/test.best.safetensors")).Metadata["step"]);
    }

    [Theory]
    [InlineData("omnisr-light", "float32")]
    [InlineData("omnisr-light", "bfloat16")]
    [InlineData("craft", "bfloat16")]
    [InlineData("smfanet", "bfloat16")]
    public void Training_lowers_the_loss_below_that_of_bicubic(string network, string precision)
    {
        var losses = new List<double>();
        Trainer.Run(Recipe(40, precision) with { Network = network }, new TrainingPaths(Photos(), null, In("out")), resume: false, progress => losses.Add(progress.Loss));
        Assert.True(losses.TakeLast(10).Average() < 0.95 * losses.Take(5).Average(), $"{losses.Take(5).Average()} to {losses.TakeLast(10).Average()}");
    }

    [Theory]
    [InlineData("omnisr-light", 2)]
    [InlineData("omnisr-light", 4)]
    [InlineData("omnisr-light", 8)]
    [InlineData("omnisr", 8)]
    [InlineData("craft", 4)]
    [InlineData("smfanet", 2)]
    [InlineData("smfanet", 4)]
    public void The_untrained_network_is_the_bicubic_upscaler(string network, int scale)
    {
        TrainingPhoto photo = PhotoSet.Pair("p", Picture(256, 192), scale);
        var shape = (SrNetworkShape)ModelCatalog.StandardShape(network, scale);
        double psnr = Validation.Psnr(shape, Initialisation.FromBicubic(shape, 3), [photo])[0].PsnrY;

        PixelBuffer up = Bicubic.Resize(photo.Lr, ResizeScale.Up(scale));
        Assert.Equal(Metrics.Compare(photo.Hr, up, crop: scale).PsnrY, psnr, 0.05);
    }

    [FixtureTheory]
    [InlineData(2, 33.673)]
    [InlineData(4, 28.429)]
    [InlineData(8, 24.397)]
    public void Bicubic_reaches_its_known_figure_on_set5_by_the_validation_protocol(int scale, double expected)
    {
        var shape = new OmniSrShape(scale, 1);
        IReadOnlyList<ValidationScore> scores = Validation.Psnr(shape, Initialisation.FromBicubic(shape, 3), Validation.Load(Fixtures.Path("set5", "HR"), scale));
        Assert.Equal(expected, scores.Average(score => score.PsnrY), 0.01);
    }

    [FixtureTheory]
    [InlineData(2, 36.3)]
    [InlineData(4, 30.3)]
    [InlineData(8, 25.0)]
    public void The_shipped_weights_are_clearly_better_than_bicubic_on_set5(int scale, double least)
    {
        LoadedModel model = new ModelCatalog(Path.Combine(AppContext.BaseDirectory, "models")).Load("omnisr-light", scale);
        double psnr = Validation.Psnr((OmniSrShape)model.Shape, model.Tensors, Validation.Load(Fixtures.Path("set5", "HR"), scale)).Average(score => score.PsnrY);
        Assert.True(psnr >= least, $"{psnr}");
        Assert.Equal(model.Card!.Scores["set5_psnr_y"], psnr, 0.002);
    }

    [FixtureFact]
    public void A_bfloat16_body_changes_set5_by_less_than_a_fiftieth_of_a_decibel()
    {
        LoadedModel model = new ModelCatalog(Path.Combine(AppContext.BaseDirectory, "models")).Load("omnisr-light", 4);
        IReadOnlyList<TrainingPhoto> images = Validation.Load(Fixtures.Path("set5", "HR"), 4);
        IReadOnlyList<ValidationScore> exact = Validation.Psnr((OmniSrShape)model.Shape, model.Tensors, images);
        IReadOnlyList<ValidationScore> fast = Validation.Psnr((OmniSrShape)model.Shape, model.Tensors, images, TorchSharp.torch.ScalarType.BFloat16);
        Assert.All(exact.Zip(fast), pair => Assert.Equal(pair.First.PsnrY, pair.Second.PsnrY, 0.02));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(0.2)]
    public void Patches_depend_on_seed_and_step_alone_and_match_their_large_ones(double jitter)
    {
        TrainingPhoto[] photos = [PhotoSet.Pair("p", Picture(200, 160), 2)];
        TrainingRecipe recipe = Recipe(1) with { Batch = 8, ColourJitter = jitter };
        var sampler = new PatchSampler(photos, recipe);
        (float[] lr, float[] hr) = sampler.Draw(5);
        Assert.Equal(lr, new PatchSampler(photos, recipe).Draw(5).Lr);
        Assert.NotEqual(lr, sampler.Draw(6).Lr);
        Assert.NotEqual(lr, new PatchSampler(photos, recipe with { Seed = 2 }).Draw(5).Lr);

        // A 2x2 box over the large patch must look like the small one, whatever the turn.
        double error = 0;
        for (int i = 0; i < 8 * 16 * 16; i++)
        {
            int block = i / 256, y = i / 16 % 16, x = i % 16;
            for (int c = 0; c < 3; c++)
            {
                int at = (((block * 32) + (2 * y)) * 32 * 3) + (2 * x * 3) + c;
                error += Math.Abs(lr[(i * 3) + c] - ((hr[at] + hr[at + 3] + hr[at + 96] + hr[at + 99]) / 4));
            }
        }
        Assert.InRange(error / lr.Length, 0, 0.06);
    }

    [Fact]
    public void Flat_patches_are_mostly_left_out()
    {
        // The left half of the picture is flat.
        TrainingPhoto[] photos = [PhotoSet.Pair("p", Picture(400, 160), 2)];
        (float[] lr, _) = new PatchSampler(photos, Recipe(1) with { Batch = 200 }).Draw(0);
        int flat = lr.Chunk(16 * 16 * 3).Count(patch => patch.Distinct().Count() == 1);
        Assert.InRange(flat, 1, 40);
    }

    [Theory]
    [InlineData("omnisr-light")]
    [InlineData("craft")]
    [InlineData("smfanet")]
    public void A_tail_for_another_scale_averages_or_repeats_sub_pixels(string network)
    {
        var shape = (SrNetworkShape)ModelCatalog.StandardShape(network, 4);
        IReadOnlyDictionary<string, TensorData> state = Initialisation.FromBicubic(shape, 1);
        TrainingPhoto[] Images(int scale) => [PhotoSet.Pair("p", Picture(256, 192), scale)];
        foreach (int scale in (int[])[2, 8])
        {
            var other = (SrNetworkShape)ModelCatalog.StandardShape(network, scale);
            IReadOnlyDictionary<string, TensorData> values = Initialisation.FromOtherScale(state, shape, scale);
            Assert.Equal(3 * scale * scale, values[shape.TailName + ".weight"].Shape[0]);
            double psnr = Validation.Psnr(other, values, Images(scale))[0].PsnrY, bicubic = Validation.Psnr(other, Initialisation.FromBicubic(other, 1), Images(scale))[0].PsnrY;
            Assert.True(psnr > bicubic - 4, $"scale {scale}: {psnr} against {bicubic}");
        }
    }

    [Fact]
    public void A_deepened_network_computes_what_the_shallow_one_does()
    {
        OmniSrShape shape = new(4, 1), deeper = shape with { Osags = 3 };
        IReadOnlyDictionary<string, TensorData> state = new ModelCatalog(Path.Combine(AppContext.BaseDirectory, "models")).Load("omnisr-light", 4).Tensors;
        IReadOnlyDictionary<string, TensorData> deep = Initialisation.Deepened(state, shape, deeper, seed: 1);
        TrainingPhoto photo = PhotoSet.Pair("p", Picture(128, 96), 4);
        Assert.Equal(Validation.Psnr(shape, state, [photo])[0].PsnrY, Validation.Psnr(deeper, deep, [photo])[0].PsnrY, 1e-3);
    }

    [Fact]
    public void A_deepened_smfanet_computes_what_the_shallow_one_does()
    {
        SmfaNetShape shape = new(4, 1), deeper = shape with { Blocks = 3 };
        // No start in which branches add nothing.
        Dictionary<string, TensorData> state = Initialisation.Uniform(shape, 5);
        IReadOnlyDictionary<string, TensorData> deep = Initialisation.Deepened(state, shape, deeper with { Scale = 2 }, seed: 1);
        TrainingPhoto photo = PhotoSet.Pair("p", Picture(128, 96), 4);
        Assert.Equal(Validation.Psnr(shape, state, [photo])[0].PsnrY, Validation.Psnr(deeper, deep, [photo])[0].PsnrY, 1e-3);
    }

    [Fact]
    public void The_rate_warms_up_and_falls()
    {
        TrainingRecipe cosine = Recipe(100) with { WarmupSteps = 10 };
        Assert.Equal(1e-4, cosine.RateAt(0), 1e-6);
        Assert.Equal(0.5e-3, cosine.RateAt(50), 1e-5);
        Assert.InRange(cosine.RateAt(99), 0, 1e-6);
        TrainingRecipe halving = Recipe(100) with { Schedule = "halving", HalveEvery = 25 };
        Assert.Equal([1e-3, 5e-4, 2.5e-4], new[] { 24, 25, 50 }.Select(halving.RateAt));
    }

    [Theory]
    [InlineData("""{"name":"a","scale":3,"steps":1}""", "scale is 2, 4 or 8")]
    [InlineData("""{"name":"a","scale":4,"steps":0}""", "steps is at least 1")]
    [InlineData("""{"name":"../a","scale":4,"steps":1}""", "name is 1 to 64")]
    [InlineData("""{"name":"a","scale":4,"steps":1,"speed":2}""", "speed")]
    [InlineData("""{"scale":4,"steps":1}""", "name")]
    [InlineData("""{"name":"a","scale":4,"steps":1,"schedule":"halving"}""", "halve_every")]
    [InlineData("nonsense", "is not a usable training recipe")]
    public void A_recipe_that_cannot_be_followed_is_refused_with_the_reason(string json, string reason)
    {
        File.WriteAllText(In("r.json"), json);
        string message = Assert.Throws<InvalidDataException>(() => TrainingRecipe.Load(In("r.json"))).Message;
        Assert.StartsWith(In("r.json"), message, StringComparison.Ordinal);
        Assert.Contains(reason, message);
    }

    [Fact]
    public void A_recipe_survives_being_written_and_read()
    {
        TrainingRecipe recipe = Recipe(7) with { StartFrom = "x.safetensors", Schedule = "halving", HalveEvery = 3 };
        File.WriteAllText(In("r.json"), recipe.ToJson());
        Assert.Equal(recipe with { StartFrom = In("x.safetensors") }, TrainingRecipe.Load(In("r.json")));
    }

    [Fact]
    public void The_recipes_of_the_project_can_be_followed()
    {
        string[] files = Directory.GetFiles(Path.Combine(Fixtures.Repository(), "src", "BbmrCluster.Training", "recipes"), "*.json", SearchOption.AllDirectories);
        Assert.NotEmpty(files);
        foreach (string file in files)
        {
            TrainingRecipe recipe = TrainingRecipe.Load(file);
            Assert.Equal(Path.GetFileNameWithoutExtension(file), recipe.Name);
            bool papers = Path.GetFileName(Path.GetDirectoryName(file)) == "paper";
            Assert.Equal(papers, recipe.Note?.Contains("never run here", StringComparison.Ordinal) == true);
        }
    }

    [Fact]
    public void Published_weights_are_the_best_ones_with_a_card_that_the_catalog_accepts()
    {
        string photos = Photos();
        File.WriteAllText(Path.Combine(photos, "photos.tsv"), "split\tfile\tdivisor\ntrain\t0.png\t1\nval\t1.png\t1\n");
        var paths = new TrainingPaths(photos, null, In("out"));
        TrainingRecipe recipe = Recipe(4) with { LearningRate = 1e-5 };
        Trainer.Run(recipe, paths, resume: false);
        ModelCard card = Assert.Single(ModelPublisher.Publish(recipe, paths, new Publication("test pictures", "none"), In("models")));

        Assert.Equal(card.Scores["photographs_bicubic_psnr_y"], card.Scores["photographs_psnr_y"], 0.05);
        Assert.Equal([2, 4], card.Curve!.Steps);
        Assert.Equal(card.Curve.PsnrY.Max(), card.Scores["photographs_psnr_y"], 0.002);
        Assert.Equal(JsonValueKind.Object, card.Recipe!.Value.ValueKind);
        var catalog = new ModelCatalog(In("models"));
        Assert.Equal(ModelState.Ready, catalog.Verify().First(entry => entry is { Model: "omnisr-light", Scale: 2 }).State);
        Assert.Equal(card.Sha256, catalog.Load("omnisr-light", 2).Sha256);
        Assert.Equal(card.Curve.Steps, catalog.Load("omnisr-light", 2).Card!.Curve!.Steps);
    }

    [Fact]
    public void A_list_of_photographs_gives_splits_and_divisors()
    {
        string folder = Photos();
        File.WriteAllText(Path.Combine(folder, "photos.tsv"), "split\tfile\tdivisor\ntrain\t0.png\t1.25\nval\t1.png\t1\n");
        Photo train = Assert.Single(PhotoSet.Load(folder, "train", 64));
        Assert.Equal((128, 116), (train.Pixels.Width, train.Pixels.Height));
        Assert.Equal("1.png", Assert.Single(PhotoSet.Load(folder, "val", 64)).Name);
        Assert.Throws<InvalidDataException>(() => PhotoSet.Load(folder, "other", 64));
        Assert.Throws<InvalidDataException>(() => PhotoSet.Load(folder, "train", 117));
    }
}

using System.Text.RegularExpressions;
using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using BbmrCluster.Tests;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Tests;

/// <summary>Networks are known by the descriptors of their folders, and by nothing else.</summary>
public sealed class ArchitecturesTests
{
    // What all rooms of this project stand on: it knows no network.
    private static readonly string[] Base = ["", "Weights", "Kernels"];

    private static readonly string[] Families = [.. Architectures.All.OfType<SrArchitecture>().Select(FolderOf)];

    /// <summary>Folders of the project and those that each may use beside the base.</summary>
    private static Dictionary<string, string[]> Rooms => new(StringComparer.Ordinal)
    {
        ["DownNet"] = [],
        ["JointSr"] = [],
        ["Catalog"] = [.. Families, "DownNet", "JointSr"],
        ["Engine"] = ["Catalog", "DownNet", "JointSr"],
    };

    public static TheoryData<string> Folders => [.. AllFolders];

    private static string[] AllFolders => [.. Base, .. Families, .. Rooms.Keys];

    public static TheoryData<string> Networks => [.. Architectures.Networks.Select(network => network.Name)];

    [Fact]
    public void Every_folder_has_a_place_in_the_order() =>
        Assert.Equal(AllFolders.Where(folder => folder.Length > 0).Order(StringComparer.Ordinal),
            Directory.GetDirectories(Project("BbmrCluster.Networks")).Select(folder => Path.GetFileName(folder)).Where(folder => folder is not ("obj" or "bin")).Order(StringComparer.Ordinal));

    [Theory]
    [MemberData(nameof(Folders))]
    public void A_folder_uses_only_those_below_it(string folder)
    {
        string[] allowed = [.. Base, folder, .. Rooms.GetValueOrDefault(folder, [])];
        Assert.Empty(Named(Sources(Path.Combine(Project("BbmrCluster.Networks"), folder), folder.Length > 0), other => !allowed.Contains(other, StringComparer.Ordinal)));
    }

    [Theory]
    [InlineData("BbmrCluster.Training")]
    [InlineData("BbmrCluster.Node")]
    [InlineData("BbmrCluster.Cli")]
    public void No_other_project_names_a_family(string project) => Assert.Empty(Named(Sources(Project(project), deep: true), Families.Contains));

    [Fact]
    public void The_checks_see_what_they_look_for() =>
        Assert.NotEmpty(Named(Sources(Path.Combine(Project("BbmrCluster.Networks"), "Catalog"), deep: false), Families.Contains));

    [Theory]
    [MemberData(nameof(Networks))]
    public void Exactly_one_architecture_recognises_a_network_and_its_joint_model(string network)
    {
        foreach (string model in (string[])[network, network + "-joint"])
        {
            NetworkShape shape = ModelCatalog.StandardShape(model, model == network ? 4 : null);
            IReadOnlyDictionary<string, TensorData> state = ReferenceNumbers.Weights(shape.Parameters);
            NetworkArchitecture one = Assert.Single(Architectures.All, architecture => architecture.Recognises(state));
            Assert.Equal(shape.Architecture, shape is JointSrShape joint ? $"{one.Name}-{joint.Extractors[0].Architecture}" : one.Name);
            foreach (string wrapper in (string[])["", "params.", "params_ema.", "state_dict.", "model.", "state_dict.module."])
            {
                (NetworkShape found, IReadOnlyDictionary<string, TensorData> parameters) = Architectures.Recognise(state.ToDictionary(pair => wrapper + pair.Key, pair => pair.Value), "test");
                Assert.Equal(shape.Description, found.Description);
                ParameterSet.Check(shape.Parameters, parameters, "test");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Networks))]
    public void A_card_says_every_size_and_notices_another(string network)
    {
        using var folder = new TemporaryFolder();
        SrNetworkShape shape = Architectures.Find(network)!.At(4);
        ModelCard.Of(network, shape, new string('0', 64), "test", "none").Save(folder.File("card.json"));
        ModelCard card = ModelCard.Load(folder.File("card.json"));
        Assert.NotEmpty(card.Sizes);
        Assert.Equal(shape.Sizes.Select(size => (size.Name, string.Join(',', size.Values))), card.Sizes.Select(size => (size.Name, string.Join(',', size.Values))));
        Assert.Null(card.Contradicts(shape));
        string text = File.ReadAllText(folder.File("card.json"));
        foreach (NetworkSize size in shape.Sizes)
        {
            File.WriteAllText(folder.File("card.json"), Regex.Replace(text, $@"(""{size.Name}"": \[?\s*)\d+", "${1}99"));
            Assert.Contains("99", ModelCard.Load(folder.File("card.json")).Contradicts(shape));
        }
        File.WriteAllText(folder.File("card.json"), text.Replace("\"scale\"", "\"layers\": 3, \"scale\"", StringComparison.Ordinal));
        Assert.Contains("layers", Assert.Throws<InvalidDataException>(() => ModelCard.Load(folder.File("card.json"))).Message);
    }

    /// <summary>As scorer and as reconstruction network, by its warm JointSR, which equals the network block by block.</summary>
    [Theory]
    [MemberData(nameof(Networks))]
    public void Any_network_scores_and_reconstructs(string network)
    {
        NativeRuntime.SetThreads(1);
        using var folder = new TemporaryFolder();
        foreach (int scale in (int[])[2, 4, 8])
            SafetensorsFile.Write(folder.File($"{network}-x{scale}.safetensors"), ReferenceNumbers.Weights(Architectures.Find(network)!.At(scale).Parameters));
        foreach (string scorer in (string[])["same", network])
        {
            EngineSettings settings = EngineSettings.Default with { Network = network, Scorer = scorer, Precision = "float32", Device = "cpu", Threads = 1 };
            using IEngine engine = new EngineFactory(new ModelCatalog(folder.Root)).Create(settings);
            var hr = new BlockBatch(1, 128, 8);
            for (int i = 0; i < hr.Samples.Length; i++)
                hr.Samples[i] = (ushort)(128 + (40 * Math.Sin(i * 0.01)));
            double[,] scores = engine.Scorer.Score(hr, [new BlockExtent(128, 128)], ScaleSet.Default);
            for (int s = 0; s < 3; s++)
            {
                int scale = ScaleSet.Default[s];
                BlockBatch lr = engine.Downscaler.Downscale(hr, scale);
                BlockBatch[] byScale = [.. ScaleSet.Default.Scales.Select((k, i) => i == s ? lr : new BlockBatch(0, 128 / k, 8))];
                ReconstructedStrip strip = Assert.Single(engine.Reconstructor.Reconstruct(new LrStrips(1, 1, ScaleSet.Default, [(byte)s], byScale)));

                SrNetworkShape shape = Architectures.Find(network)!.At(scale);
                using ParameterSet parameters = ReferenceNumbers.For(shape);
                using SrNetwork alone = shape.CreateNetwork(parameters);
                using var scope = NewDisposeScope();
                float[] values = Samples.Values(alone.Forward(MapBatch.Of(lr, 0, 1).ToMap(0, 1, CPU, shape.Black)));
                var expected = new ushort[values.Length];
                Samples.ToSamples(values, 255, expected, shape.Black);
                Assert.InRange(expected.Zip(strip.Rows, (a, b) => Math.Abs(a - b)).Max(), 0, 1);
                double sse = Metrics.BlockSse(hr.Block(0), expected, 128, 128, 128, 8);
                Assert.Equal(sse, scores[0, s], sse * 1e-3);
            }
        }
    }

    [Fact]
    public void Shipped_cards_come_back_as_the_same_text()
    {
        using var folder = new TemporaryFolder();
        string[] cards = Directory.GetFiles(Path.Combine(Fixtures.Repository(), "models"), "*.json");
        Assert.NotEmpty(cards);
        foreach (string path in cards)
        {
            ModelCard.Load(path).Save(folder.File("card.json"));
            Assert.Equal(File.ReadAllText(path), File.ReadAllText(folder.File("card.json")));
        }
    }

    private static string Project(string name) => Path.Combine(Fixtures.Repository(), "src", name);

    private static string FolderOf(NetworkArchitecture architecture) => FolderOf(architecture.GetType());

    private static string FolderOf(Type type) => type.Namespace!["BbmrCluster.Networks".Length..].TrimStart('.');

    private static string[] Sources(string folder, bool deep) =>
        [.. Directory.GetFiles(folder, "*.cs", deep ? SearchOption.AllDirectories : SearchOption.TopDirectoryOnly).Where(file => !file.Contains("/obj/", StringComparison.Ordinal))];

    // "file: type" for every type of this project, in a folder that counts, whose name stands in the code of these files.
    private static IEnumerable<string> Named(string[] files, Func<string, bool> counts)
    {
        Type[] types = [.. typeof(NetworkShape).Assembly.GetTypes().Where(type => type is { IsNested: false, Namespace: { } space } && space.StartsWith("BbmrCluster.Networks", StringComparison.Ordinal) && counts(FolderOf(type)))];
        foreach (string file in files)
        {
            string code = string.Join('\n', File.ReadLines(file).Select(line => line.Split("//")[0]));
            foreach (Type type in types.Where(type => Regex.IsMatch(code, $@"\b{FolderOf(type)}\.{type.Name.Split('`')[0]}\b")
                || (code.Contains($"using {type.Namespace};", StringComparison.Ordinal) && Regex.IsMatch(code, $@"\b{type.Name.Split('`')[0]}\b"))))
                yield return $"{file}: {type.Name}";
        }
    }
}

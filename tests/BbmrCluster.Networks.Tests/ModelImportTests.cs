using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Networks.Tests;

/// <summary>Weight files that others made: names and types of official checkpoints, and how they get into the catalog.</summary>
public sealed class ModelImportTests : IDisposable
{
    private readonly TemporaryFolder _own = new(), _files = new();

    public void Dispose()
    {
        _own.Dispose();
        _files.Dispose();
    }

    private ModelCatalog Catalog() => new(_own.Root);

    private ModelEntry Add(string file, string network, string downscaler = "bicubic", string? licence = null, bool replace = false) => ModelImport.Add(Catalog(), file, network, downscaler, licence, replace);

    private string Refused(string file, string network) => Assert.Throws<InvalidDataException>(() => Add(file, network)).Message;

    private string Write(string name, NetworkShape shape)
    {
        SafetensorsFile.Write(_files.File(name), ReferenceNumbers.Weights(shape.Parameters));
        return _files.File(name);
    }

    /// <summary>A file as the official CRAFT checkpoints give it: 840 parameters and four buffers, two of them int64.</summary>
    private string WriteOfficialCraft(int scale, string wrapper, out IReadOnlyDictionary<string, TensorData> parameters)
    {
        parameters = ReferenceNumbers.Weights(CraftShape.Published(scale).Parameters);
        var tensors = new List<(string Name, string Type, long[] Shape, byte[] Bytes)>();
        foreach ((string name, TensorData tensor) in parameters)
            tensors.Add((wrapper + name, "F32", tensor.Shape, MemoryMarshal.AsBytes(tensor.Values.AsSpan()).ToArray()));
        foreach (string branch in (string[])["h", "v"])
        {
            (int rows, int columns) = branch is "h" ? (4, 16) : (16, 4);
            long[] index = [.. from q in Enumerable.Range(0, 64) from k in Enumerable.Range(0, 64)
                               select (long)((((q / columns) - (k / columns) + rows - 1) * ((2 * columns) - 1)) + (q % columns) - (k % columns) + columns - 1)];
            tensors.Add(($"{wrapper}relative_position_index_{branch}", "I64", [64, 64], MemoryMarshal.AsBytes(index.AsSpan()).ToArray()));
            float[] offsets = [.. from r in Enumerable.Range(1 - rows, (2 * rows) - 1) from c in Enumerable.Range(1 - columns, (2 * columns) - 1) from v in (float[])[r, c] select v];
            tensors.Add(($"{wrapper}biases_{branch}", "F32", [217, 2], MemoryMarshal.AsBytes(offsets.AsSpan()).ToArray()));
        }
        Assert.Equal(844, tensors.Count);
        return WriteRaw($"craft{scale}.safetensors", tensors);
    }

    private string WriteRaw(string name, IReadOnlyList<(string Name, string Type, long[] Shape, byte[] Bytes)> tensors)
    {
        long at = 0;
        var header = new Dictionary<string, object>(StringComparer.Ordinal) { ["__metadata__"] = new Dictionary<string, string>(StringComparer.Ordinal) { ["format"] = "pt" } };
        foreach ((string tensor, string type, long[] shape, byte[] bytes) in tensors)
        {
            header.Add(tensor, new { dtype = type, shape, data_offsets = new[] { at, at + bytes.Length } });
            at += bytes.Length;
        }
        byte[] json = Encoding.UTF8.GetBytes(JsonSerializer.Serialize(header)), length = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(length, (ulong)json.Length);
        File.WriteAllBytes(_files.File(name), [.. length, .. json, .. tensors.SelectMany(tensor => tensor.Bytes)]);
        return _files.File(name);
    }

    [Theory]
    [InlineData(2, "")]
    [InlineData(3, "params.")]
    [InlineData(4, "params_ema.")]
    public void An_official_craft_checkpoint_loads_unchanged(int scale, string wrapper)
    {
        string file = WriteOfficialCraft(scale, wrapper, out IReadOnlyDictionary<string, TensorData> parameters);
        ModelEntry entry = Add(file, "craft-official", licence: "Apache-2.0");
        Assert.Equal(("craft-official", scale, ModelState.Ready), (entry.Model, entry.Scale!.Value, entry.State));
        Assert.Equal(("craft", "Apache-2.0"), (entry.Card!.Architecture, entry.Card.Licence));
        Assert.Equal([2, 2, 2, 2], entry.Card.SizeOf("depths"));
        Assert.Null(entry.Card.SizeOf("osags"));
        Assert.Equal(File.ReadAllBytes(file), File.ReadAllBytes(entry.Path));

        LoadedModel model = Catalog().Load("craft-official", scale);
        Assert.Equal(CraftShape.Published(scale).Parameters, model.Shape.Parameters.Select(p => p), (a, b) => a.Name == b.Name && a.Shape.SequenceEqual(b.Shape));
        Assert.Equal(parameters.Count, model.Tensors.Count);
        Assert.All(parameters, pair => Assert.Equal(pair.Value.Values, model.Tensors[pair.Key].Values));
        using var set = new ParameterSet(model.Shape.Parameters, model.Tensors, "official");
    }

    [Theory]
    [InlineData(2, 5, "", 316)]
    [InlineData(3, 5, "", 316)]
    [InlineData(4, 5, "params.", 316)]
    public void An_official_omnisr_checkpoint_loads_unchanged(int scale, int osags, string wrapper, int count)
    {
        IReadOnlyDictionary<string, TensorData> parameters = ReferenceNumbers.Weights(new OmniSrShape(scale, osags).Parameters);
        Assert.Equal(count, parameters.Count);
        string file = _files.File("omnisr.safetensors");
        SafetensorsFile.Write(file, parameters.ToDictionary(pair => wrapper + pair.Key, pair => pair.Value, StringComparer.Ordinal), new Dictionary<string, string> { ["format"] = "pt" });
        // The name that the program knows and ships no weights for may be given, too.
        ModelEntry entry = Add(file, "omnisr");
        Assert.Equal(("omnisr", scale, 5, 12_880 + (scale == 2 ? 771_724 : scale == 3 ? 780_379 : 792_496)), (entry.Model, entry.Scale, entry.Card!.SizeOf("osags")!.Single(), entry.Card.Parameters));
        Assert.Equal(new OmniSrShape(scale, osags), Catalog().Load("omnisr", scale).Shape);
    }

    [Fact]
    public void Joint_models_and_down_nets_get_the_names_of_their_kind()
    {
        Assert.Equal("downnet-mine", Add(Write("d.safetensors", new DownNetShape(4)), "mine", "downnet").Model);
        Assert.Equal("mine-downnet", Add(Write("s.safetensors", new OmniSrShape(4, 1)), "mine", "downnet").Model);
        ModelEntry joint = Add(Write("j.safetensors", new JointSrShape([new OmniSrShape(2, 1), new OmniSrShape(4, 2)])), "mine");
        Assert.Equal(("mine-joint", null, ModelState.Ready), (joint.Model, joint.Scale, joint.State));
        Assert.Equal([.. Architectures.Networks.Select(network => network.Name), "mine"], Catalog().Networks);
        Assert.Equal(3, Catalog().List().Count(entry => entry.State == ModelState.Ready));
        Assert.Contains($"choose one of {string.Join(", ", Catalog().Networks)}", Assert.Throws<EngineUnavailableException>(() => Catalog().Load("other", 4)).Message);
        Assert.Contains("There are no weights of mine for scale 4", Assert.Throws<EngineUnavailableException>(() => Catalog().Load("mine", 4)).Message);
    }

    [Fact]
    public void What_cannot_be_used_is_refused_in_one_sentence_and_leaves_nothing()
    {
        string good = Write("good.safetensors", new OmniSrShape(2, 1));
        foreach (string name in (string[])["Omni", "a b", "../x", "-x", "net-joint", "downnet-net", "net-downnet", "", "same", "bicubic"])
            Assert.Contains("cannot name a network", Refused(good, name));
        Assert.Contains("another architecture", Refused(good, "craft"));

        File.WriteAllBytes(_files.File("w.pth"), [(byte)'P', (byte)'K', 3, 4, 0, 0, 0, 0, 0, 0]);
        Assert.Contains("is not a usable PyTorch checkpoint", Refused(_files.File("w.pth"), "mine"));
        File.WriteAllBytes(_files.File("old.pth"), [0x80, 2, 0x8a, 0x0a, 0, 0, 0, 0, 0, 0]);
        Assert.Contains("of the form before PyTorch 1.6", Refused(_files.File("old.pth"), "mine"));

        File.WriteAllText(_files.File("text.pth"), "<!DOCTYPE html>");
        Assert.Contains("is neither a safetensors file nor a PyTorch checkpoint", Refused(_files.File("text.pth"), "mine"));
        File.WriteAllBytes(_files.File("empty.pth"), []);
        Assert.Contains("is neither a safetensors file nor a PyTorch checkpoint", Refused(_files.File("empty.pth"), "mine"));

        var broken = new Dictionary<string, TensorData>(ReferenceNumbers.Weights(new OmniSrShape(2, 1).Parameters), StringComparer.Ordinal);
        broken.Remove("output.bias");
        SafetensorsFile.Write(_files.File("lacks.safetensors"), broken);
        Assert.Contains("lacks the parameter 'output.bias'", Refused(_files.File("lacks.safetensors"), "mine"));
        broken["output.bias"] = new TensorData([64], [.. Enumerable.Repeat(float.NaN, 64)]);
        SafetensorsFile.Write(_files.File("nan.safetensors"), broken);
        Assert.Contains("'output.bias' holds NaN or infinity", Refused(_files.File("nan.safetensors"), "mine"));
        SafetensorsFile.Write(_files.File("else.safetensors"), new Dictionary<string, TensorData> { ["a"] = new([1], [1]) });
        Assert.Contains("does not hold an OmniSR network", Refused(_files.File("else.safetensors"), "mine"));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_own.Root));
    }

    /// <summary>A trained network as others would have trained it: the same function in other values.</summary>
    [Theory]
    [InlineData("-1..1", true)]
    [InlineData("0..1", true)]
    [InlineData("0..255", true)]
    [InlineData("0..255", false)]
    [InlineData("-0.5..0.5", false)]
    public void A_range_of_values_is_recognised_or_told(string text, bool recognised)
    {
        var range = ValueRange.Parse(text);
        var shape = new OmniSrShape(4, 1);
        IReadOnlyDictionary<string, TensorData> trained = new ModelCatalog(Path.Combine(AppContext.BaseDirectory, "models")).Load("omnisr-light", 4).Tensors;
        // Values of black 0 in a network whose zero padding is grey: exact but for the outermost pixels.
        double scale = 2 / (range.White - range.Black), shift = -1 - (scale * range.Black);
        var values = new Dictionary<string, TensorData>(trained, StringComparer.Ordinal);
        float[] first = trained["input.weight"].Values;
        values["input.weight"] = trained["input.weight"] with { Values = Array.ConvertAll(first, value => (float)(value * scale)) };
        values["input.bias"] = trained["input.bias"] with { Values = [.. trained["input.bias"].Values.Select((value, o) => (float)(value + (shift * first.AsSpan(o * 27, 27).ToArray().Sum(one => (double)one))))] };
        values["up.0.weight"] = trained["up.0.weight"] with { Values = Array.ConvertAll(trained["up.0.weight"].Values, value => (float)(value / scale)) };
        values["up.0.bias"] = trained["up.0.bias"] with { Values = Array.ConvertAll(trained["up.0.bias"].Values, value => (float)((value - shift) / scale)) };
        SafetensorsFile.Write(_files.File("w.safetensors"), values);

        ModelEntry entry = ModelImport.Add(Catalog(), _files.File("w.safetensors"), "mine", "bicubic", null, false, recognised ? null : range);
        LoadedModel model = Catalog().Load("mine", 4);
        Assert.Equal((float)(range.Black / range.White), model.SrShape.Black);
        Assert.Equal(text == "-1..1", File.ReadAllBytes(_files.File("w.safetensors")).AsSpan().SequenceEqual(File.ReadAllBytes(entry.Path)));
        Assert.Equal(range.Black == 0 ? shape.Description + ", of values 0..1" : shape.Description, entry.Card!.Description);
        PixelBuffer lr = Bicubic.Resize(ValueRangeProbe.Picture(192), ResizeScale.Down(4));
        using var resolver = new Engine.SuperResolver(Catalog(), "mine", 4, "float32", "cpu", 1);
        using var original = new Engine.SuperResolver(new ModelCatalog(Path.Combine(AppContext.BaseDirectory, "models")), "omnisr-light", 4, "float32", "cpu", 1);
        // Away from the edge, where what lies beyond it differs.
        Assert.True(Metrics.Compare(original.Upscale(lr), resolver.Upscale(lr), crop: 40).PsnrY > 50);
    }

    [Fact]
    public void A_range_that_cannot_be_is_refused()
    {
        foreach (string text in (string[])["", "0", "0..", "1..0", "0..0", "0.5..1", "-1..-0.5", "a..b", "0..1..2", "0..NaN", "0..1e9"])
            Assert.Throws<FormatException>(() => ValueRange.Parse(text));
        string down = Write("d.safetensors", new DownNetShape(4));
        Assert.Contains("only of a network that upscales", Assert.Throws<InvalidDataException>(() => ModelImport.Add(Catalog(), down, "mine", "downnet", null, false, new ValueRange(0, 255))).Message);
        IReadOnlyDictionary<string, TensorData> weights = ReferenceNumbers.Weights(new OmniSrShape(2, 1).Parameters);
        SafetensorsFile.Write(_files.File("r.safetensors"), weights, new Dictionary<string, string> { ["value_range"] = "0..2" });
        Assert.Contains("another white than 1", Refused(_files.File("r.safetensors"), "mine"));
    }

    [Fact]
    public void Scales_of_different_ranges_make_no_engine()
    {
        foreach ((int scale, ValueRange range) in ((int, ValueRange)[])[(2, new(-1, 1)), (4, new(0, 1)), (8, new(-1, 1))])
            ModelImport.Add(Catalog(), Write($"{scale}.safetensors", new OmniSrShape(scale, 1)), "mine", "bicubic", null, false, range);
        EngineSettings settings = EngineSettings.Default with { Network = "mine", Scorer = "bicubic", Device = "cpu", Precision = "float32" };
        Assert.Contains("do not go together: mine-x2.safetensors holds", Assert.Throws<EngineUnavailableException>(() => new Engine.EngineFactory(Catalog()).Create(settings).Dispose()).Message);
        ModelImport.Add(Catalog(), _files.File("4.safetensors"), "mine", "bicubic", null, true, new ValueRange(-1, 1));
        new Engine.EngineFactory(Catalog()).Create(settings).Dispose();
    }

    [Fact]
    public void Other_weights_of_the_same_name_are_replaced_only_when_told()
    {
        Add(Write("a.safetensors", new OmniSrShape(2, 1)), "mine");
        Assert.Equal(ModelState.Ready, Add(_files.File("a.safetensors"), "mine").State);
        string other = Write("b.safetensors", new OmniSrShape(2, 2));
        Assert.Contains("--force replaces it", Refused(other, "mine"));
        Assert.Equal([2], Add(other, "mine", replace: true).Card!.SizeOf("osags"));
        Assert.Equal(new OmniSrShape(2, 2), Catalog().Load("mine", 2).Shape);
    }

    [Fact]
    public void A_network_is_taken_whole_from_the_first_folder_that_has_a_file_of_it()
    {
        using var shipped = new TemporaryFolder();
        foreach (int scale in (int[])[2, 4, 8])
            SafetensorsFile.Write(shipped.File($"omnisr-x{scale}.safetensors"), ReferenceNumbers.Weights(new OmniSrShape(scale, 1).Parameters));
        string? before = Environment.GetEnvironmentVariable("BBMR_MODELS");
        try
        {
            Environment.SetEnvironmentVariable("BBMR_MODELS", _own.Root + Path.PathSeparator + shipped.Root);
            Assert.Equal([_own.Root, shipped.Root], new ModelCatalog().Folders);
            string file = Write("mine.safetensors", new OmniSrShape(4, 2));
            Assert.Contains("has weights in " + shipped.Root, Assert.Throws<InvalidDataException>(() => ModelImport.Add(new ModelCatalog(), file, "omnisr", "bicubic", null, false)).Message);
            Assert.Equal(_own.Root, Path.GetDirectoryName(ModelImport.Add(new ModelCatalog(), file, "craftless", "bicubic", null, false).Path));
            Assert.Equal(1, ((OmniSrShape)new ModelCatalog().Load("omnisr", 4).Shape).Osags);

            File.Copy(file, _own.File("omnisr-x4.safetensors"));
            Assert.Equal(2, ((OmniSrShape)new ModelCatalog().Load("omnisr", 4).Shape).Osags);
            Assert.Contains("not in " + _own.Root, Assert.Throws<EngineUnavailableException>(() => new ModelCatalog().Load("omnisr", 2)).Message);
            Assert.Single(new ModelCatalog().List(), entry => entry is { Model: "omnisr", State: not ModelState.WithoutWeights });
        }
        finally
        {
            Environment.SetEnvironmentVariable("BBMR_MODELS", before);
        }
    }

    [Theory]
    [InlineData("omnisr-light-x4.safetensors", "omnisr-light", 4, ModelKind.Network, "omnisr-light", false)]
    [InlineData("omnisr-light-joint.safetensors", "omnisr-light-joint", null, ModelKind.Joint, "omnisr-light", false)]
    [InlineData("downnet-omnisr-light-x8.safetensors", "downnet-omnisr-light", 8, ModelKind.DownNet, "omnisr-light", true)]
    [InlineData("omnisr-light-downnet-x2.safetensors", "omnisr-light-downnet", 2, ModelKind.Network, "omnisr-light", true)]
    [InlineData("omnisr-light-downnet-joint.safetensors", "omnisr-light-downnet-joint", null, ModelKind.Joint, "omnisr-light", true)]
    public void File_names_say_what_is_in_them(string file, string model, int? scale, ModelKind kind, string network, bool downNet)
    {
        Assert.Equal((model, scale), ModelNames.Parse(file));
        Assert.Equal(file, ModelNames.FileName(model, scale));
        Assert.Equal((kind, network, downNet), (ModelNames.KindOf(model), ModelNames.NetworkOf(model), ModelNames.IsOfDownNet(model)));
    }

    [Theory]
    [InlineData("notes.txt")]
    [InlineData("omnisr.safetensors")]
    [InlineData("omnisr-x04.safetensors")]
    [InlineData("omnisr-joint-x2.safetensors")]
    [InlineData("A-x2.safetensors")]
    [InlineData("-x2.safetensors")]
    public void Other_file_names_are_passed_over(string file) => Assert.Null(ModelNames.Parse(file));
}

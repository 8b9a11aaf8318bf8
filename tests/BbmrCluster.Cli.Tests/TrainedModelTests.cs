using System.Text.Json;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Tests;
using BbmrCluster.Training;
using NetVips;

namespace BbmrCluster.Cli.Tests;

/// <summary>Joint models, Down-Net pairs and a user's own weights from the command line to the files.</summary>
public sealed class TrainedModelTests : IDisposable
{
    private readonly ScratchFolder _scratch = new();
    private readonly Dictionary<string, string> _environment;

    public TrainedModelTests() => _environment = new(TestModels.EnvironmentFor(_scratch["models"]), StringComparer.Ordinal);

    public void Dispose() => _scratch.Dispose();

    private BbmrResult Run(params string[] arguments) => Bbmr.Run(_scratch.Path, _environment, arguments);

    private JsonElement Done(params string[] arguments)
    {
        BbmrResult result = Run([.. arguments, "--json"]);
        Assert.True(result.ExitCode == 0, result.ToString());
        return result.Lines[0];
    }

    /// <summary>The weights that the report of a folder's photo names.</summary>
    private string[] WeightsOf(string folder) =>
        [.. JsonDocument.Parse(Bytes(folder, "photo.report.json")).RootElement.GetProperty("fingerprint").GetProperty("weight_hashes").EnumerateObject().Select(weight => weight.Name)];

    private byte[] Bytes(params string[] parts) => File.ReadAllBytes(_scratch[parts]);

    [Fact]
    public void A_checkpoint_of_an_earlier_training_is_kept_unless_that_is_asked_for()
    {
        Directory.CreateDirectory(_scratch["photos"]);
        Directory.CreateDirectory(_scratch["training"]);
        File.WriteAllText(_scratch["recipe.json"], """{"name": "light", "network": "omnisr-light", "scale": 4, "steps": 10}""");
        File.WriteAllText(_scratch["training", "light.state.safetensors"], "earlier");
        BbmrResult refused = Run("train", "recipe.json", "--photos", "photos", "-o", "training");
        Assert.Equal((1, "bbmr: training/light.state.safetensors: this checkpoint of an earlier training would be lost; go on from it with --resume, or begin anew with --force.\n"), (refused.ExitCode, refused.Error));
        Assert.Equal("earlier", File.ReadAllText(_scratch["training", "light.state.safetensors"]));
        Assert.Contains("photos", Run("train", "recipe.json", "--photos", "photos", "-o", "training", "--force").Error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_joint_model_is_taken_pinned_and_needed_again()
    {
        Pictures.Write(_scratch["photo.png"], 300, 270);
        Done("rescale", "photo.png", "-o", "before", "--context", "none");
        TestModels.AddJoint(_scratch["models"]);

        JsonElement line = Done("rescale", "photo.png", "-o", "joint", "--context", "none");
        Assert.Equal(JsonValueKind.Number, line.GetProperty("psnr_y_uniform").ValueKind);
        Assert.Equal(["omnisr-light-joint.safetensors", "omnisr-light-x2.safetensors", "omnisr-light-x4.safetensors", "omnisr-light-x8.safetensors"], WeightsOf("joint"));
        Assert.NotEqual(Bytes("before", "photo.png"), Bytes("joint", "photo.png"));
        Assert.True(Done("verify", "joint/photo.bbmr", "--deep", "--source", "photo.png").GetProperty("deep").GetProperty("compared").GetBoolean());
        // What was made block by block stays so although there is a joint model now.
        Done("upscale", "joint/photo.bbmr", "-o", "up");
        Done("upscale", "before/photo.bbmr", "-o", "still");
        Assert.Equal(Bytes("joint", "photo.png"), Bytes("up", "photo.png"));
        Assert.Equal(Bytes("before", "photo.png"), Bytes("still", "photo.png"));

        TestModels.AddJoint(_scratch["models"], blur: 0.08f);
        BbmrResult other = Run("upscale", "joint/photo.bbmr", "-o", "other");
        Assert.Equal(1, other.ExitCode);
        Assert.Contains("other weights than omnisr-light-joint.safetensors", other.Error, StringComparison.Ordinal);
        File.Delete(_scratch["models", "omnisr-light-joint.safetensors"]);
        BbmrResult gone = Run("upscale", "joint/photo.bbmr", "-o", "gone");
        Assert.Equal(1, gone.ExitCode);
        Assert.Contains("There are no weights of omnisr-light-joint", gone.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_down_net_pair_scores_stores_and_restores()
    {
        Pictures.Write(_scratch["photo.png"], 300, 270);
        BbmrResult missing = Run("rescale", "photo.png", "-o", "out", "--downscaler", "downnet");
        Assert.Equal(1, missing.ExitCode);
        Assert.Matches(@"^bbmr: There are no weights of omnisr-light-downnet for scale 2 \([^\n]+\n$", missing.Error);

        TestModels.AddDownNets(_scratch["models"]);
        JsonElement line = Done("rescale", "photo.png", "-o", "out", "--downscaler", "downnet");
        Assert.InRange(line.GetProperty("psnr_y").GetDouble(), 18, 60);
        JsonElement info = Done("info", "out/photo.bbmr");
        Assert.Equal(("downnet", 6), (info.GetProperty("downscaler").GetString(), info.GetProperty("weights").EnumerateObject().Count()));
        Assert.Equal(
            ["downnet-omnisr-light-x2.safetensors", "downnet-omnisr-light-x4.safetensors", "downnet-omnisr-light-x8.safetensors", "omnisr-light-downnet-x2.safetensors", "omnisr-light-downnet-x4.safetensors", "omnisr-light-downnet-x8.safetensors"],
            WeightsOf("out"));

        // The Down-Nets have no part in restoring.
        foreach (int scale in (int[])[2, 4, 8])
            File.Delete(_scratch["models", $"downnet-omnisr-light-x{scale}.safetensors"]);
        Done("upscale", "out/photo.bbmr", "-o", "up");
        Assert.Equal(Bytes("out", "photo.png"), Bytes("up", "photo.png"));
        Assert.True(Done("verify", "out/photo.bbmr", "--deep", "--source", "photo.png").GetProperty("ok").GetBoolean());
    }

    [Fact]
    public void Sixteen_bit_grey_goes_through_a_down_net_and_its_joint_model()
    {
        TestModels.AddDownNets(_scratch["models"]);
        TestModels.AddJoint(_scratch["models"], "downnet");
        Pictures.Write(_scratch["eight.png"], 200, 150, channels: 1);
        using (Image eight = Image.NewFromFile(_scratch["eight.png"]))
        using (Image wide = (eight * 257).Cast(Enums.BandFormat.Ushort))
        using (Image grey = wide.Copy(interpretation: Enums.Interpretation.Grey16))
            grey.WriteToFile(_scratch["photo.png"]);
        Done("rescale", "photo.png", "-o", "out", "--downscaler", "downnet", "--context", "none");
        JsonElement info = Done("info", "out/photo.bbmr");
        Assert.Equal((16, 1), (info.GetProperty("bit_depth").GetInt32(), info.GetProperty("colour_channels").GetInt32()));
        Assert.Contains("omnisr-light-downnet-joint.safetensors", WeightsOf("out"));
        using Image restored = Image.NewFromFile(_scratch["out", "photo.png"]);
        Assert.Equal((1, Enums.BandFormat.Ushort), (restored.Bands, restored.Format));
        Done("upscale", "out/photo.bbmr", "-o", "up");
        Assert.Equal(Bytes("out", "photo.png"), Bytes("up", "photo.png"));
    }

    [Fact]
    public void Every_known_model_is_listed_and_own_weights_are_added_and_used()
    {
        BbmrResult list = Run("models", "list", "--json");
        var states = list.Lines.GroupBy(line => line.GetProperty("network").GetString()!, StringComparer.Ordinal).ToDictionary(group => group.Key, group => group.Select(line => line.GetProperty("state").GetString()).Distinct().Single(), StringComparer.Ordinal);
        Assert.Equal("without_card", states["omnisr-light"]);
        foreach (string absent in new[] { "omnisr", "craft", "omnisr-light-joint", "downnet-omnisr-light", "omnisr-light-downnet", "craft-downnet-joint" })
            Assert.Equal("no_weights", states[absent]);
        Assert.Contains("craft                      x2/x4/x8  no weights", Run("models", "list").Output, StringComparison.Ordinal);
        Pictures.Write(_scratch["photo.png"], 40, 30);
        BbmrResult craft = Run("superresolve", "photo.png", "b.png", "--network", "craft", "--scale", "2");
        Assert.Equal(1, craft.ExitCode);
        Assert.Contains("no weights of craft for scale 2", craft.Error, StringComparison.Ordinal);

        foreach (int scale in (int[])[2, 4])
            SafetensorsFile.Write(_scratch[$"{scale}.safetensors"], Initialisation.FromBicubic(new OmniSrShape(scale, 2), 5).ToDictionary(pair => "params." + pair.Key, pair => pair.Value, StringComparer.Ordinal));
        JsonElement added = Done("models", "add", "2.safetensors", "--name", "mine", "--licence", "as you like");
        Assert.Equal(("mine", 2, "ready", "as you like"), (added.GetProperty("network").GetString(), added.GetProperty("scale").GetInt32(), added.GetProperty("state").GetString(), added.GetProperty("licence").GetString()));
        Done("models", "add", "4.safetensors", "--name", "mine");
        Done("superresolve", "photo.png", "large.png", "--network", "mine", "--scale", "4");
        Done("rescale", "photo.png", "-o", "out", "--network", "mine", "--scales", "2,4", "--scorer", "same");
        Assert.Equal(["mine-x2.safetensors", "mine-x4.safetensors"], WeightsOf("out"));
        BbmrResult again = Run("models", "add", "4.safetensors", "--name", "mine-joint");
        Assert.Equal(1, again.ExitCode);
        Assert.Matches("^bbmr: 'mine-joint' cannot name a network[^\n]+\n$", again.Error);
    }
}

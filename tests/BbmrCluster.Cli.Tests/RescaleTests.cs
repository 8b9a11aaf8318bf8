using System.Text.Json;
using System.Text.RegularExpressions;
using BbmrCluster.Tests;

namespace BbmrCluster.Cli.Tests;

/// <summary>Weights for all tests of a class, written once.</summary>
public sealed class Weights : IDisposable
{
    private readonly ScratchFolder _folder = new();

    public Weights() => Environment = TestModels.EnvironmentFor(_folder.Path);

    public IReadOnlyDictionary<string, string> Environment { get; }

    public void Dispose() => _folder.Dispose();
}

/// <summary>rescale, downscale and upscale as a user runs them.</summary>
public partial class RescaleTests(Weights weights) : IClassFixture<Weights>
{
    private static readonly string[] Results = ["photo.allocation.png", "photo.bbmr", "photo.png", "photo.report.json"];

    [Fact]
    public void Rescale_writes_four_files_and_tells_what_they_hold()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.jpg"], 300, 260);
        BbmrResult result = Run(scratch, "rescale", "photo.jpg", "-o", "out", "--json");
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Equal(Results, scratch.Files("out"));
        JsonElement line = Assert.Single(result.Images);
        Assert.Equal("photo.jpg", line.GetProperty("input").GetString());
        Assert.Equal("done", line.GetProperty("state").GetString());
        Assert.Equal(JsonValueKind.Null, line.GetProperty("code").ValueKind);
        Assert.Equal((300, 260, 90), (line.GetProperty("width").GetInt32(), line.GetProperty("height").GetInt32(), line.GetProperty("blocks").GetInt32()));
        Assert.InRange(line.GetProperty("rate_pixels").GetDouble(), 1.0 / 64, 1.0 / 16);
        Assert.Equal(90, line.GetProperty("counts").EnumerateObject().Sum(count => count.Value.GetInt32()));
        Assert.Equal(line.GetProperty("psnr_y").GetDouble() - line.GetProperty("psnr_y_uniform").GetDouble(), line.GetProperty("gain_db").GetDouble(), 9);
        Assert.Equal(8.0 * new FileInfo(scratch["out", "photo.bbmr"]).Length / (300 * 260), line.GetProperty("bits_per_pixel").GetDouble(), 9);
        foreach (string field in new[] { "rate_pixels_image", "ssim_y", "seconds", "peak_memory_bytes", "resumed" })
            Assert.Equal(JsonValueKind.Number, line.GetProperty(field).ValueKind);
        JsonElement summary = result.Lines[^1];
        Assert.True(summary.GetProperty("summary").GetBoolean());
        Assert.Equal(1, summary.GetProperty("done").GetInt32());

        // The figures are those of the files.
        JsonElement compared = Assert.Single(Run(scratch, "compare", "photo.jpg", "out/photo.png", "--json").Lines);
        Assert.Equal(compared.GetProperty("psnr_y").GetDouble(), line.GetProperty("psnr_y").GetDouble(), 6);
        JsonElement info = Assert.Single(Run(scratch, "info", "out/photo.bbmr", "--json").Lines);
        Assert.Equal("measured", info.GetProperty("quality_kind").GetString());
        Assert.Equal(line.GetProperty("psnr_y").GetDouble(), info.GetProperty("psnr_y").GetDouble(), 4);
        Assert.Equal(0, Run(scratch, "verify", "out/photo.bbmr").ExitCode);
        BbmrResult deep = Run(scratch, "verify", "out/photo.bbmr", "--deep", "--source", "photo.jpg", "--json");
        Assert.True(deep.ExitCode == 0, deep.ToString());
        Assert.True(deep.Lines[0].GetProperty("deep").GetProperty("compared").GetBoolean());
        Assert.Equal(0, Run(scratch, "extract", "out/photo.bbmr", "-o", "small.png").ExitCode);
        Assert.True(File.Exists(scratch["small.png"]));

        File.WriteAllBytes(scratch["cut.bbmr"], File.ReadAllBytes(scratch["out", "photo.bbmr"])[..^10]);
        BbmrResult cut = Run(scratch, "info", "cut.bbmr", "--json");
        Assert.Equal(1, cut.ExitCode);
        Assert.False(cut.Lines[0].GetProperty("ok").GetBoolean());
        Assert.Contains("is truncated to", cut.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Downscale_then_upscale_gives_the_image_of_rescale()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 300, 260);
        Assert.Equal(0, Run(scratch, "rescale", "photo.png", "-o", "both", "--scorer", "bicubic").ExitCode);
        BbmrResult down = Run(scratch, "downscale", "photo.png", "-o", "down", "--scorer", "bicubic", "--json");
        Assert.True(down.ExitCode == 0, down.ToString());
        Assert.Equal(["photo.allocation.png", "photo.bbmr", "photo.report.json"], scratch.Files("down"));
        JsonElement line = Assert.Single(down.Images);
        Assert.Equal(JsonValueKind.Null, line.GetProperty("psnr_y").ValueKind);
        Assert.Equal(JsonValueKind.Null, line.GetProperty("gain_db").ValueKind);
        Assert.Equal("estimated", Run(scratch, "info", "down/photo.bbmr", "--json").Lines[0].GetProperty("quality_kind").GetString());

        BbmrResult up = Run(scratch, "upscale", "down/photo.bbmr", "-o", "up", "--json");
        Assert.True(up.ExitCode == 0, up.ToString());
        Assert.Equal(["photo.png", "photo.upscale.report.json"], scratch.Files("up"));
        Assert.Equal(File.ReadAllBytes(scratch["both", "photo.png"]), File.ReadAllBytes(scratch["up", "photo.png"]));

        BbmrResult measured = Run(scratch, "downscale", "photo.png", "-o", "measured", "--scorer", "bicubic", "--measure");
        Assert.True(measured.ExitCode == 0, measured.ToString());
        Assert.Equal("measured", Run(scratch, "info", "measured/photo.bbmr", "--json").Lines[0].GetProperty("quality_kind").GetString());
    }

    [Fact]
    public void Upscale_refuses_other_weights_unless_told()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 140, 130);
        Assert.Equal(0, Run(scratch, "downscale", "photo.png", "-o", "down", "--scorer", "bicubic").ExitCode);
        var other = TestModels.EnvironmentFor(scratch["other"], seed: 7);
        BbmrResult refused = Bbmr.Run(scratch.Path, other, "upscale", "down/photo.bbmr", "-o", "up");
        Assert.Equal(1, refused.ExitCode);
        Assert.Contains("--allow-other-weights", refused.Error, StringComparison.Ordinal);
        BbmrResult allowed = Bbmr.Run(scratch.Path, other, "upscale", "down/photo.bbmr", "-o", "up", "--allow-other-weights");
        Assert.True(allowed.ExitCode == 0, allowed.ToString());
    }

    [Fact]
    public void A_second_run_skips_with_the_stored_figures_and_other_parameters_are_a_conflict()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 200, 140);
        JsonElement first = Assert.Single(Run(scratch, "rescale", "photo.png", "-o", "out", "--scorer", "bicubic", "--json").Images);
        DateTime written = File.GetLastWriteTimeUtc(scratch["out", "photo.bbmr"]);

        BbmrResult again = Run(scratch, "rescale", "photo.png", "-o", "out", "--scorer", "bicubic", "--json");
        Assert.True(again.ExitCode == 0, again.ToString());
        JsonElement skipped = Assert.Single(again.Images);
        Assert.Equal("skipped", skipped.GetProperty("state").GetString());
        foreach (string field in new[] { "psnr_y", "ssim_y", "gain_db", "bits_per_pixel", "seconds", "psnr_y_uniform" })
            Assert.Equal(first.GetProperty(field).GetDouble(), skipped.GetProperty(field).GetDouble());
        Assert.Equal(written, File.GetLastWriteTimeUtc(scratch["out", "photo.bbmr"]));

        BbmrResult conflict = Run(scratch, "rescale", "photo.png", "-o", "out", "--scorer", "bicubic", "--allocator", "paper", "--json");
        Assert.Equal(1, conflict.ExitCode);
        Assert.Equal("conflict", Assert.Single(conflict.Images).GetProperty("code").GetString());
        Assert.Contains("--force", conflict.Error, StringComparison.Ordinal);
        Assert.Equal(written, File.GetLastWriteTimeUtc(scratch["out", "photo.bbmr"]));

        BbmrResult forced = Run(scratch, "rescale", "photo.png", "-o", "out", "--scorer", "bicubic", "--allocator", "paper", "--force", "--json");
        Assert.True(forced.ExitCode == 0, forced.ToString());
        Assert.Equal("done", Assert.Single(forced.Images).GetProperty("state").GetString());
        Assert.Equal(Results, scratch.Files("out"));
    }

    [Fact]
    public void A_folder_with_bad_files_is_partly_done_and_every_bad_file_gets_one_line()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["in", "good.png"], 140, 130);
        Pictures.Write(scratch["in", "below", "deeper.jpg"], 129, 129);
        Pictures.WriteTruncatedJpeg(scratch["in", "truncated.jpg"]);
        Pictures.WriteBomb(scratch["in", "bomb.png"]);
        File.WriteAllText(scratch["in", "text.png"], "this is no picture\n");
        File.WriteAllBytes(scratch["in", "empty.png"], []);
        File.WriteAllText(scratch["in", "notes.txt"], "not taken");

        BbmrResult result = Run(scratch, "rescale", "in", "missing.png", "-r", "-o", "out", "--scorer", "bicubic", "--json");
        Assert.True(result.ExitCode == 3, result.ToString());
        var states = result.Images.ToDictionary(line => line.GetProperty("input").GetString()!, line => line.GetProperty("state").GetString(), StringComparer.Ordinal);
        Assert.Equal(["in/bomb.png", "in/empty.png", "in/text.png", "in/truncated.jpg", "missing.png"], states.Where(s => s.Value == "failed").Select(s => s.Key).Order(StringComparer.Ordinal));
        Assert.Equal(["in/below/deeper.jpg", "in/good.png"], states.Where(s => s.Value == "done").Select(s => s.Key).Order(StringComparer.Ordinal));
        Assert.Contains("below/deeper.bbmr", scratch.Files("out"));
        foreach (string bad in states.Where(s => s.Value == "failed").Select(s => s.Key))
            Assert.Single(result.Error.Split('\n'), line => line.StartsWith($"bbmr: {bad}: ", StringComparison.Ordinal) && line.Length > bad.Length + 10);
        Assert.DoesNotContain("Exception", result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
        Assert.Equal(5, result.Lines[^1].GetProperty("failures").GetArrayLength());
        Assert.DoesNotContain(scratch.Files("out"), file => file.Contains("tmp", StringComparison.Ordinal) || file.StartsWith(".bbmr", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(1, 5000)]
    [InlineData(129, 1)]
    public void Photographs_of_any_shape_work(int width, int height)
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], width, height);
        BbmrResult result = Run(scratch, "rescale", "photo.png", "-o", "out", "--json");
        Assert.True(result.ExitCode == 0, result.ToString());
        JsonElement line = Assert.Single(result.Images);
        Assert.Equal((width, height), (line.GetProperty("width").GetInt32(), line.GetProperty("height").GetInt32()));
        Assert.Equal(Results, scratch.Files("out"));
    }

    [Fact]
    public void Inputs_of_one_name_both_keep_their_extension()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["in", "a.jpg"], 60, 50);
        Pictures.Write(scratch["in", "a.png"], 60, 50);
        BbmrResult result = Run(scratch, "rescale", "in", "-o", "out", "--scorer", "bicubic");
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Contains("a.jpg.bbmr", scratch.Files("out"));
        Assert.Contains("a.png.bbmr", scratch.Files("out"));
    }

    [Fact]
    public void An_output_that_is_an_input_is_refused_even_with_force()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 60, 50);
        byte[] before = File.ReadAllBytes(scratch["photo.png"]);
        BbmrResult result = Run(scratch, "rescale", "photo.png", "-o", ".", "--force", "--json");
        Assert.Equal(1, result.ExitCode);
        Assert.Equal("output_is_input", Assert.Single(result.Images).GetProperty("code").GetString());
        Assert.Equal(before, File.ReadAllBytes(scratch["photo.png"]));
    }

    [Fact]
    public void An_output_folder_that_is_a_file_is_refused_in_one_line()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 60, 50);
        File.WriteAllText(scratch["out"], "");
        BbmrResult result = Run(scratch, "rescale", "photo.png", "-o", "out");
        Assert.Equal(1, result.ExitCode);
        Assert.Equal("bbmr: out: this is a file; the results need a folder.\n", result.Error);
    }

    [Fact]
    public void Without_a_terminal_there_are_no_control_codes_and_stdout_holds_results_alone()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 300, 260);
        BbmrResult result = Run(scratch, "rescale", "photo.png", "-o", "out", "--scorer", "bicubic", "-v");
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.DoesNotMatch(ControlCodes(), result.Output + result.Error);
        Assert.Matches(@"^photo\.png: done, 300x260, 90 blocks", result.Output);
        Assert.Single(result.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.Contains("photo.png: score 90 of 90 blocks", result.Error, StringComparison.Ordinal);

        BbmrResult quiet = Run(scratch, "rescale", "photo.png", "-o", "out", "--scorer", "bicubic", "-q");
        Assert.Equal(0, quiet.ExitCode);
        Assert.Empty(quiet.Error);
    }

    [Theory]
    [InlineData("none", "128", 1, 9)]
    [InlineData("canvas", "64", 2, 25)]
    [InlineData("canvas", "16", 2, 323)]
    public void Context_and_block_side_are_chosen_and_come_back_from_the_container(string context, string block, int version, int blocks)
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 300, 260);
        string[] wanted = context is "none" ? ["--context", "none"] : ["--block", block];
        BbmrResult result = Run(scratch, ["rescale", "photo.png", "-o", "out", "--json", .. wanted]);
        Assert.True(result.ExitCode == 0, result.ToString());
        JsonElement info = Assert.Single(Run(scratch, "info", "out/photo.bbmr", "--json").Lines);
        Assert.Equal((context, int.Parse(block, System.Globalization.CultureInfo.InvariantCulture), blocks),
            (info.GetProperty("context").GetString(), info.GetProperty("block_size").GetInt32(), info.GetProperty("blocks").GetInt32()));
        Assert.Equal(version, File.ReadAllBytes(scratch["out", "photo.bbmr"])[10]);
        Assert.Equal(0, Run(scratch, "upscale", "out/photo.bbmr", "-o", "up").ExitCode);
        Assert.Equal(File.ReadAllBytes(scratch["out", "photo.png"]), File.ReadAllBytes(scratch["up", "photo.png"]));
        BbmrResult deep = Run(scratch, "verify", "out/photo.bbmr", "--deep", "--source", "photo.png", "--json");
        Assert.True(deep.Lines[0].GetProperty("deep").GetProperty("compared").GetBoolean(), deep.ToString());
    }

    [Fact]
    public void Blocks_by_themselves_have_one_size()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 300, 260);
        BbmrResult result = Run(scratch, "rescale", "photo.png", "--context", "none", "--block", "64");
        Assert.Equal(2, result.ExitCode);
        Assert.Contains("--block: blocks of 64 pixels must see their neighbours", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_dry_run_plans_and_writes_nothing()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 300, 260);
        BbmrResult result = Run(scratch, "rescale", "photo.png", "-o", "out", "--dry-run", "--json");
        Assert.True(result.ExitCode == 0, result.ToString());
        JsonElement line = Assert.Single(result.Images);
        Assert.Equal("planned", line.GetProperty("state").GetString());
        Assert.Equal(90, line.GetProperty("blocks").GetInt32());
        Assert.True(line.GetProperty("work_bytes").GetInt64() > 300 * 260 * 3);
        Assert.True(line.GetProperty("estimated_seconds").GetDouble() > 0);
        Assert.Equal(["photo.png"], scratch.Files());
    }

    [Fact]
    public void A_network_without_weights_is_one_sentence()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["photo.png"], 60, 50);
        BbmrResult result = Run(scratch, "rescale", "photo.png", "-o", "out", "--network", "craft");
        Assert.Equal(1, result.ExitCode);
        Assert.Matches(@"^bbmr: [^\n]*craft[^\n]*\n$", result.Error);
    }

    private BbmrResult Run(ScratchFolder scratch, params string[] arguments) => Bbmr.Run(scratch.Path, weights.Environment, arguments);

    [GeneratedRegex(@"[\x00-\x09\x0b-\x1f\x7f]", RegexOptions.None, 1000)]
    private static partial Regex ControlCodes();
}

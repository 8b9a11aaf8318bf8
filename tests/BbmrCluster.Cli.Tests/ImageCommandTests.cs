using System.Text.Json;
using BbmrCluster.Tests;

namespace BbmrCluster.Cli.Tests;

/// <summary>Commands that start no node: they answer fast and load no tensors.</summary>
public class ImageCommandTests
{
    [Fact]
    public void Resize_writes_an_image_of_the_right_size()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["a.png"], 130, 61);
        BbmrResult result = Bbmr.Run(scratch.Path, "resize", "a.png", "b.png", "--scale", "1/4", "--json");
        Assert.True(result.ExitCode == 0, result.ToString());
        JsonElement line = Assert.Single(result.Lines);
        Assert.Equal((33, 16), (line.GetProperty("width").GetInt32(), line.GetProperty("height").GetInt32()));
        Assert.Equal(["a.png", "b.png"], scratch.Files());
    }

    [Fact]
    public void Resize_refuses_to_overwrite_and_never_overwrites_its_input()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["a.png"], 64, 64);
        byte[] before = File.ReadAllBytes(scratch["a.png"]);
        File.WriteAllText(scratch["b.png"], "mine");
        BbmrResult exists = Bbmr.Run(scratch.Path, "resize", "a.png", "b.png", "--scale", "2");
        Assert.Equal(1, exists.ExitCode);
        Assert.Contains("b.png: exists already; --force replaces it.", exists.Error, StringComparison.Ordinal);
        Assert.Equal("mine", File.ReadAllText(scratch["b.png"]));
        File.CreateSymbolicLink(scratch["link.png"], scratch["a.png"]);
        BbmrResult itself = Bbmr.Run(scratch.Path, "resize", "a.png", "link.png", "--scale", "2", "--force");
        Assert.Equal(1, itself.ExitCode);
        Assert.Contains("the output is an input", itself.Error, StringComparison.Ordinal);
        Assert.Equal(before, File.ReadAllBytes(scratch["a.png"]));
        Assert.Equal(0, Bbmr.Run(scratch.Path, "resize", "a.png", "b.png", "--scale", "2", "--force").ExitCode);
    }

    [Fact]
    public void Compare_tells_equal_images_and_keeps_missing_figures_null()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["a.png"], 100, 80);
        BbmrResult result = Bbmr.Run(scratch.Path, "compare", "a.png", "a.png", "--json");
        Assert.True(result.ExitCode == 0, result.ToString());
        JsonElement line = Assert.Single(result.Lines);
        Assert.Equal(100, line.GetProperty("psnr_y").GetDouble());
        Assert.Equal(100, line.GetProperty("psnr_rgb").GetDouble());
        Assert.Equal(1, line.GetProperty("ssim_y").GetDouble(), 9);
        Assert.Equal(JsonValueKind.Null, line.GetProperty("niqe").ValueKind);
        Assert.Equal(JsonValueKind.Null, line.GetProperty("seam").ValueKind);
    }

    [Fact]
    public void Compare_needs_images_of_one_size()
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["a.png"], 100, 80);
        Pictures.Write(scratch["b.png"], 100, 81);
        BbmrResult result = Bbmr.Run(scratch.Path, "compare", "a.png", "b.png");
        Assert.Equal(1, result.ExitCode);
        Assert.Equal("bbmr: a.png has 100x80 pixels and b.png has 100x81; only images of one size can be compared.\n", result.Error);
    }

    [Theory]
    [InlineData("resize", "missing.png", "b.png", "--scale", "2")]
    [InlineData("compare", "missing.png", "missing.png")]
    [InlineData("info", "missing.png")]
    [InlineData("verify", "missing.png")]
    [InlineData("extract", "missing.png")]
    public void A_missing_file_is_named(params string[] arguments)
    {
        using var scratch = new ScratchFolder();
        BbmrResult result = Bbmr.Run(scratch.Path, arguments);
        Assert.Equal(1, result.ExitCode);
        Assert.Equal("bbmr: missing.png: there is no such file.\n", result.Error);
    }

    [Theory]
    [InlineData("info")]
    [InlineData("verify")]
    [InlineData("extract")]
    public void A_file_that_is_no_container_is_refused_in_one_line(string command)
    {
        using var scratch = new ScratchFolder();
        Pictures.Write(scratch["a.png"], 20, 20);
        BbmrResult result = Bbmr.Run(scratch.Path, command, "a.png");
        Assert.Equal(1, result.ExitCode);
        Assert.Matches(@"^bbmr: a\.png: [^\n]+\n$", result.Error);
    }
}

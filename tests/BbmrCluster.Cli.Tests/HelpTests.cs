using System.Text.RegularExpressions;
using BbmrCluster.Tests;

namespace BbmrCluster.Cli.Tests;

public class HelpTests
{
    public static TheoryData<string> Commands => new(
        "rescale", "downscale", "upscale", "info", "verify", "extract", "superresolve", "resize", "compare", "models", "models list", "models verify", "models add", "models parity", "train", "doctor", "node",
        "submit", "jobs", "status", "watch", "pause", "resume", "cancel", "retry", "nodes", "drain");

    [Theory, MemberData(nameof(Commands))]
    public void Every_command_has_help_with_an_example_and_json(string command)
    {
        using var scratch = new ScratchFolder();
        BbmrResult result = Bbmr.Run(scratch.Path, [.. command.Split(' '), "--help"]);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Contains("Usage:", result.Output, StringComparison.Ordinal);
        Assert.Matches(@"Examples?:\n  bbmr ", result.Output);
        Assert.Contains("--json", result.Output, StringComparison.Ordinal);
        Assert.Empty(result.Error);
    }

    [Fact]
    public void Every_option_of_a_run_is_in_its_help()
    {
        using var scratch = new ScratchFolder();
        string help = Bbmr.Run(scratch.Path, "rescale", "--help").Output;
        foreach (string option in new[]
                 {
                     "--output", "-o", "--recursive", "-r", "--format", "--network", "--scorer", "--allocator", "--scales", "--rate", "--downscaler", "--joint", "--precision", "--context", "--block", "--halo",
                     "--device", "--threads", "--work-dir", "--max-work", "--force", "--dry-run", "--json", "--quiet", "--verbose",
                 })
            Assert.Contains(option, help, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("frobnicate")]
    [InlineData("rescale")]
    [InlineData("rescale", "a.png", "--scales", "2,3,4")]
    [InlineData("rescale", "a.png", "--scales", "2")]
    [InlineData("rescale", "a.png", "--rate", "16")]
    [InlineData("rescale", "a.png", "--rate", "x")]
    [InlineData("rescale", "a.png", "--scales", "2,4", "--rate", "8")]
    [InlineData("rescale", "a.png", "--scorrer", "bicubic")]
    [InlineData("rescale", "a.png", "--scorer", "magic")]
    [InlineData("rescale", "a.png", "--max-pixels", "-1")]
    [InlineData("info", "a.bbmr", "--bogus")]
    [InlineData("rescale", "a.png", "--allocator", "magic")]
    [InlineData("rescale", "a.png", "--device", "gpu")]
    [InlineData("rescale", "a.png", "--max-work", "plenty")]
    [InlineData("rescale", "a.png", "--threads", "0")]
    [InlineData("resize", "a.png", "b.png")]
    [InlineData("resize", "a.png", "b.png", "--scale", "0.25")]
    [InlineData("compare", "a.png")]
    [InlineData("node")]
    [InlineData("node", "--roles", "boss")]
    [InlineData("node", "--roles", "worker", "--seed-nodes", "nowhere")]
    [InlineData("node", "--roles", "coordinator", "--host", "192.0.2.1")]
    [InlineData("node", "--roles", "coordinator", "--config", "missing.json")]
    [InlineData("node", "--create-schema")]
    [InlineData("submit", "-o", "out")]
    [InlineData("jobs", "--server", "ftp://example.org")]
    [InlineData("jobs", "--state", "lost")]
    public void A_wrong_command_line_is_one_clear_line_and_code_2(params string[] arguments)
    {
        using var scratch = new ScratchFolder();
        BbmrResult result = Bbmr.Run(scratch.Path, arguments);
        Assert.True(result.ExitCode == 2, result.ToString());
        Assert.Empty(result.Output);
        Assert.Matches(@"^bbmr: [^\n]+\nTry 'bbmr[^\n]+\n$", result.Error);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("??", result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("System.", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_command_that_the_documents_show_parses()
    {
        string repository = Fixtures.Repository();
        string[] documents = [Path.Combine(repository, "README.md"), .. Directory.EnumerateFiles(Path.Combine(repository, "docs"), "*.md")];
        var commands = documents.Where(File.Exists)
            .SelectMany(document => Regex.Matches(File.ReadAllText(document), @"^(?:\$ )?(?:dotnet run -c Release --project src/BbmrCluster\.Cli -- |bbmr )(?<arguments>[^\n|>#&]+)", RegexOptions.Multiline, TimeSpan.FromSeconds(5)))
            .Select(match => match.Groups["arguments"].Value.Trim())
            // Synopses show what is optional and what may be repeated.
            .Where(command => !command.Contains('[', StringComparison.Ordinal) && !command.Contains("...", StringComparison.Ordinal)).Distinct(StringComparer.Ordinal).ToList();
        Assert.NotEmpty(commands);
        foreach (string command in commands)
        {
            var parsed = Application.CreateTree().Parse(command);
            Assert.True(parsed.Errors.Count == 0, $"'bbmr {command}': {string.Join("; ", parsed.Errors.Select(error => error.Message))}");
        }
    }
}

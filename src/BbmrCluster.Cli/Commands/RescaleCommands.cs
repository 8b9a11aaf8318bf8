using System.CommandLine;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Work;

namespace BbmrCluster.Cli.Commands;

/// <summary>rescale, downscale, upscale: the commands that run an embedded node.</summary>
internal static class RescaleCommands
{
    /// <summary>bbmr rescale.</summary>
    public static Command Rescale()
    {
        Argument<string[]> inputs = BbmrCommand.FilesArgument("INPUT", "Photographs, or folders of them");
        var command = new BbmrCommand("rescale",
            "Downscales photographs into .bbmr containers, restores them and measures the result. The same command goes on where an interrupted run stopped, and skips what is done.",
            "bbmr rescale photographs -r -o out", "bbmr rescale photo.jpg -o out --scorer bicubic --json", "bbmr rescale photographs -r -o out --dry-run") { inputs };
        var options = new JobOptions(command, allocates: true, reconstructs: true);
        command.RunAsync((parsed, services) => new RescaleRun(services, options.Read(parsed), JobKind.Rescale).RunAsync(parsed.GetRequiredValue(inputs)));
        return command;
    }

    /// <summary>bbmr downscale.</summary>
    public static Command Downscale()
    {
        Argument<string[]> inputs = BbmrCommand.FilesArgument("INPUT", "Photographs, or folders of them");
        var measure = new Option<bool>("--measure") { Description = "Also reconstruct, to record measured rather than estimated errors in the container" };
        var command = new BbmrCommand("downscale", "Downscales photographs into .bbmr containers.",
            "bbmr downscale photographs -r -o archive", "bbmr downscale photo.jpg -o archive --measure") { inputs, measure };
        var options = new JobOptions(command, allocates: true, reconstructs: false);
        command.RunAsync((parsed, services) =>
            new RescaleRun(services, options.Read(parsed), JobKind.Downscale) { Measure = parsed.GetValue(measure) }.RunAsync(parsed.GetRequiredValue(inputs)));
        return command;
    }

    /// <summary>bbmr upscale.</summary>
    public static Command Upscale()
    {
        Argument<string[]> inputs = BbmrCommand.FilesArgument("FILE.bbmr", "Containers, or folders of them");
        var otherWeights = new Option<bool>("--allow-other-weights") { Description = "Take the network's present weights where they differ from those that the container names" };
        var command = new BbmrCommand("upscale", "Restores images from .bbmr containers, with the networks and scales that they name.",
            "bbmr upscale archive/photo.bbmr -o restored", "bbmr upscale archive -r -o restored --format webp") { inputs, otherWeights };
        var options = new JobOptions(command, allocates: false, reconstructs: true);
        command.RunAsync((parsed, services) =>
            new RescaleRun(services, options.Read(parsed), JobKind.Upscale) { AllowOtherWeights = parsed.GetValue(otherWeights) }.RunAsync(parsed.GetRequiredValue(inputs)));
        return command;
    }
}

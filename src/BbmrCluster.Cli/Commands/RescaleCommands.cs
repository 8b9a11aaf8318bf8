using System.CommandLine;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Rescaling;

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
        return Runs(command, JobKind.Rescale, inputs);
    }

    /// <summary>bbmr downscale.</summary>
    public static Command Downscale()
    {
        Argument<string[]> inputs = BbmrCommand.FilesArgument("INPUT", "Photographs, or folders of them");
        var command = new BbmrCommand("downscale", "Downscales photographs into .bbmr containers.",
            "bbmr downscale photographs -r -o archive", "bbmr downscale photo.jpg -o archive --measure") { inputs };
        return Runs(command, JobKind.Downscale, inputs);
    }

    /// <summary>bbmr upscale.</summary>
    public static Command Upscale()
    {
        Argument<string[]> inputs = BbmrCommand.FilesArgument("FILE.bbmr", "Containers, or folders of them");
        var command = new BbmrCommand("upscale", "Restores images from .bbmr containers, with the networks and scales that they name.",
            "bbmr upscale archive/photo.bbmr -o restored", "bbmr upscale archive -r -o restored --format webp") { inputs };
        return Runs(command, JobKind.Upscale, inputs);
    }

    private static BbmrCommand Runs(BbmrCommand command, JobKind kind, Argument<string[]> inputs)
    {
        var options = new JobOptions(command, kind);
        command.RunAsync((parsed, services) => new RescaleRun(services, options.Run(parsed), options.Parameters(parsed)).RunAsync(parsed.GetRequiredValue(inputs)));
        return command;
    }
}

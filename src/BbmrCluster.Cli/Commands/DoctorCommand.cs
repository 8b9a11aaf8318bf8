using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Imaging;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Node;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Cli.Commands;

/// <summary>bbmr doctor: tries everything a run needs, and says what to do where something fails.</summary>
internal static class DoctorCommand
{
    private const long LittleMemory = 2_000_000_000, LittleDisk = 2_000_000_000;

    /// <summary>Creates the command.</summary>
    public static Command Create()
    {
        var folder = new Option<string>("--work-dir") { Description = "The work directory that runs will use, to check its disk", HelpName = "DIR", DefaultValueFactory = _ => "." };
        Option<string> device = JobOptions.Device();
        var command = new BbmrCommand("doctor", "Checks libraries, device, precision, models, disk and database, and says what to do.", "bbmr doctor", "bbmr doctor --json") { folder, device };
        command.Run((parsed, services) =>
        {
            string where = Path.GetFullPath(parsed.GetValue(folder)!);
            var settings = EngineSettings.Default with { Device = parsed.GetValue(device)! };
            NativeRuntime.Apply();
            var checks = new (string Name, Func<string> Try, string Advice)[]
            {
                ("system", System, "Give the machine (or its container) at least 2 GB of memory."),
                ("libvips", Libvips, "The package NetVips.Native.linux-x64 must be beside the program: build or publish it again with the .NET SDK."),
                ("libtorch", () => Libtorch(settings), "Build or publish the program again with the .NET SDK; on CUDA builds check the driver with nvidia-smi."),
                ("precision", () => Precision(settings), "Use --precision float32."),
                ("models", Models, "Fetch the folder models of the repository again; 'bbmr models verify' names the damaged files."),
                ("disk", () => Disk(where), "Name a folder on a local disk with room by --work-dir."),
                ("database", () => Database(where), "Name a folder on a local, writable disk by --work-dir."),
            };
            int failed = 0;
            foreach ((string name, Func<string> attempt, string advice) in checks)
                failed += Show(services.Terminal, name, attempt, advice) ? 0 : 1;
            services.Terminal.Message(failed == 0 ? "all is well" : string.Create(CultureInfo.InvariantCulture, $"{failed} of {checks.Length} checks failed"));
            return failed == 0 ? ExitCodes.Done : ExitCodes.Failed;
        });
        return command;
    }

    private static bool Show(Terminal terminal, string name, Func<string> attempt, string advice)
    {
        bool ok = true;
        string detail;
        try
        {
            detail = attempt();
        }
        catch (Exception e)
        {
            (ok, detail) = (false, Failure.Of(e).Message);
            terminal.Detail(e.ToString());
        }
        terminal.Json(new { check = name, ok, detail, advice = ok ? null : advice });
        terminal.Result($"{(ok ? "ok  " : "FAIL")}  {name,-9}  {detail}");
        if (!ok)
            terminal.Result($"      {"",-9}  {advice}");
        return ok;
    }

    private static string System()
    {
        long memory = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;
        return memory < LittleMemory
            ? throw new UserErrorException($"only {Amounts.Text(memory)} of memory")
            : string.Create(CultureInfo.InvariantCulture, $"{RuntimeInformation.FrameworkDescription} on {RuntimeInformation.OSDescription}, {Environment.ProcessorCount} cores, {Amounts.Text(memory)} of memory");
    }

    private static string Libvips()
    {
        string path = Path.Combine(Path.GetTempPath(), $"bbmr-doctor-{Environment.ProcessId}.png");
        try
        {
            var pixels = new PixelBuffer(3, 2, 3, 8, [.. Enumerable.Range(0, 18).Select(i => (byte)(i * 13))]);
            ImageEncoder.Encode(path, pixels, ImageMetadata.None, EncodeOptions.Default);
            return ImageFile.Load(path, ImageLimits.Default, Path.GetTempPath()).Data.AsSpan().SequenceEqual(pixels.Data)
                ? $"version {VipsRuntime.Version}, writes and reads"
                : throw new UserErrorException("a written picture does not read back");
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static string Libtorch(EngineSettings settings) => $"device class {new EngineFactory().DeviceClass(settings)}";

    private static string Precision(EngineSettings settings)
    {
        using IEngine engine = new EngineFactory().Create(settings);
        // One flat block through the whole path: downscale, super-resolve, measure.
        var block = new BlockBatch(1, BlockGrid.DefaultBlockSize, 8);
        block.Samples.AsSpan().Fill(128);
        double[,] sse = engine.Scorer.Score(block, [new BlockExtent(BlockGrid.DefaultBlockSize, BlockGrid.DefaultBlockSize)], settings.Scales);
        double worst = Enumerable.Range(0, settings.Scales.Count).Max(i => sse[0, i]);
        double psnr = BlockScores.PsnrOf(worst, BlockGrid.DefaultBlockSize * BlockGrid.DefaultBlockSize);
        return double.IsFinite(worst) && psnr > 20
            ? string.Create(CultureInfo.InvariantCulture, $"networks run; a flat block comes back with {psnr:0.0} dB")
            : throw new UserErrorException("a network gave back nonsense for a flat block");
    }

    private static string Models() => ModelsCommand.Summary();

    private static string Disk(string folder)
    {
        long free = NodeChecks.FreeBytes(folder);
        if (NodeChecks.NetworkFileSystem(folder) is { } network)
            throw new UserErrorException($"{folder} lies on a network file system ({network})");
        return free < LittleDisk
            ? throw new UserErrorException($"only {Amounts.Text(free)} free at {folder}")
            : $"{Amounts.Text(free)} free at {folder}";
    }

    private static string Database(string folder) => $"SQLite {NodeChecks.TryDatabase(folder)}, writes and reads";
}

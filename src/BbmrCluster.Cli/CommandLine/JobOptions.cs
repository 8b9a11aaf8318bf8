using System.CommandLine;
using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Cli.CommandLine;

/// <summary>The options that rescale, downscale and upscale share. One instance belongs to one command.</summary>
internal sealed class JobOptions
{
    private readonly Option<string?> _output = new("--output", "-o") { Description = "Folder for the results, made when it is not there (default: the current folder)", HelpName = "DIR" };
    private readonly Option<bool> _recursive = new("--recursive", "-r") { Description = "Go into folders; the folder tree is kept below the output folder" };
    private readonly Option<string> _format = new("--format") { Description = "Format of the restored image", HelpName = "png|tiff|webp|jpeg", DefaultValueFactory = _ => "png" };
    private readonly Option<string> _network = new("--network") { Description = "Reconstruction network ('bbmr models list' shows them)", HelpName = "NAME", DefaultValueFactory = _ => EngineSettings.Default.Network };
    private readonly Option<string> _scorer = new("--scorer") { Description = "How block errors are found: by a (very light) network, the reconstruction network itself, or without a network", HelpName = "NAME|same|bicubic", DefaultValueFactory = _ => EngineSettings.Default.Scorer };
    private readonly Option<string> _allocator = new("--allocator") { Description = "How block scales are chosen: least squared error, or the paper's Algorithm 1", HelpName = "sse|paper[:t=..,max=..]", DefaultValueFactory = _ => "sse" };
    private readonly Option<ScaleSet> _scales = new("--scales") { Description = "Scales a block may be stored at", HelpName = "K,K,K", DefaultValueFactory = _ => ScaleSet.Default };
    private readonly Option<int?> _rate = new("--rate") { Description = "Scale whose pixel rate the whole image keeps (default: the middle scale)", HelpName = "K", CustomParser = argument => Amounts.Whole(1, 128, "a scale")(argument) };
    private readonly Option<string> _downscaler = new("--downscaler") { Description = "How blocks are made smaller", HelpName = "bicubic|downnet", DefaultValueFactory = _ => EngineSettings.Default.Downscaler };
    private readonly Option<string> _joint = new("--joint") { Description = "What joins the blocks: a jointly trained model, the networks block by block, or the former where there is one", HelpName = "auto|trained|blockwise", DefaultValueFactory = _ => EngineSettings.Default.Joint };
    private readonly Option<string> _precision = Precision();
    private readonly Option<string> _device = Device();
    private readonly Option<int> _threads = Threads();
    private readonly Option<string?> _workDirectory = new("--work-dir") { Description = "Folder of journal and intermediate files, on a local disk (default: OUT/.bbmr)", HelpName = "DIR" };
    private readonly Option<long?> _maxWork = new("--max-work") { Description = "Most bytes of intermediate files, e.g. 20G (default: half of the free space)", HelpName = "BYTES", CustomParser = Amounts.Bytes };
    private readonly Option<bool> _force = new("--force") { Description = "Replace results that exist (never an input)" };
    private readonly Option<bool> _dryRun = new("--dry-run") { Description = "Only say what would be done: blocks, work space, estimated time" };
    private readonly Option<long> _maxPixels = new("--max-pixels") { Description = "Refuse larger images", HelpName = "N", DefaultValueFactory = _ => ImageLimits.Default.MaxPixels, CustomParser = Amounts.Pixels };
    private readonly Option<int> _maxSide = new("--max-side") { Description = "Refuse images with a longer side", HelpName = "N", DefaultValueFactory = _ => ImageLimits.Default.MaxSide, CustomParser = Amounts.Whole(1, int.MaxValue, "a number of pixels") };

    /// <summary>Adds the options to a command.</summary>
    /// <param name="command">The command.</param>
    /// <param name="allocates">Whether the command chooses scales (rescale, downscale).</param>
    /// <param name="reconstructs">Whether the command makes an image (rescale, upscale).</param>
    /// <param name="local">Whether the work is done by this machine.</param>
    public JobOptions(Command command, bool allocates, bool reconstructs, bool local = true)
    {
        // Another machine may have other networks, and says so itself.
        if (local)
        {
            _scorer.Validators.Add(result =>
            {
                string scorer = result.GetValueOrDefault<string>()!;
                IReadOnlyList<string> networks = new ModelCatalog().Networks;
                if (scorer is not ("same" or "bicubic") && !networks.Contains(scorer, StringComparer.Ordinal))
                    result.AddError($"There is no scorer '{scorer}': choose same, bicubic or a network: {string.Join(", ", networks)}.");
            });
        }
        _downscaler.AcceptOnlyFromAmong("bicubic", "downnet");
        _joint.AcceptOnlyFromAmong("auto", "trained", "blockwise");
        _format.AcceptOnlyFromAmong("png", "tiff", "tif", "webp", "jpeg", "jpg");
        _scales.CustomParser = argument =>
        {
            try
            {
                return ScaleSet.Parse(argument.Tokens[0].Value);
            }
            catch (Exception e) when (e is FormatException or ArgumentException)
            {
                argument.AddError(e is ArgumentException ? e.Message.Split(" (Parameter", StringSplitOptions.None)[0] : e.Message);
                return null;
            }
        };
        _allocator.Validators.Add(result =>
        {
            try
            {
                Allocators.Parse(result.GetValueOrDefault<string>()!);
            }
            catch (Exception e) when (e is FormatException or ArgumentException)
            {
                result.AddError(e.Message.Split(" (Parameter", StringSplitOptions.None)[0]);
            }
        });
        command.Add(_output);
        command.Add(_recursive);
        if (reconstructs)
            command.Add(_format);
        if (allocates)
        {
            command.Add(_network);
            command.Add(_scorer);
            command.Add(_allocator);
            command.Add(_scales);
            command.Add(_rate);
            command.Add(_downscaler);
            command.Add(_joint);
        }
        command.Add(_precision);
        command.Add(_force);
        if (local)
        {
            command.Add(_device);
            command.Add(_threads);
            command.Add(_workDirectory);
            command.Add(_maxWork);
            command.Add(_dryRun);
        }
        command.Add(_maxPixels);
        command.Add(_maxSide);
    }

    /// <summary>--precision, for any command that runs a network.</summary>
    public static Option<string> Precision()
    {
        var option = new Option<string>("--precision") { Description = "Arithmetic of the networks; auto takes bfloat16 where the device is faster with it", HelpName = "auto|float32|bfloat16", DefaultValueFactory = _ => EngineSettings.Default.Precision };
        option.AcceptOnlyFromAmong("auto", "float32", "bfloat16");
        return option;
    }

    /// <summary>--device, for any command that runs a network.</summary>
    public static Option<string> Device()
    {
        var option = new Option<string>("--device") { Description = "Where the networks run", HelpName = "auto|cpu|cuda:N", DefaultValueFactory = _ => EngineSettings.Default.Device };
        option.Validators.Add(result =>
        {
            string value = result.GetValueOrDefault<string>()!;
            if (value is not ("auto" or "cpu") && !(value.StartsWith("cuda:", StringComparison.Ordinal) && int.TryParse(value.AsSpan(5), out int index) && index >= 0))
                result.AddError($"'{value}' is not a device: auto, cpu, cuda:0, cuda:1, ...");
        });
        return option;
    }

    /// <summary>--threads, for any command that runs a network.</summary>
    public static Option<int> Threads() =>
        new("--threads") { Description = "Processor threads of the networks (default: one per core)", HelpName = "N", CustomParser = Amounts.Whole(1, 1024, "a number of threads") };

    /// <summary>Reads the values.</summary>
    /// <exception cref="UserErrorException">Values that contradict each other.</exception>
    public JobValues Read(ParseResult parsed)
    {
        ScaleSet scales = parsed.GetValue(_scales) ?? ScaleSet.Default;
        int rate = parsed.GetValue(_rate) ?? scales.Middle;
        if (rate < scales[0] || rate > scales[scales.Count - 1] || BlockGrid.DefaultBlockSize % rate != 0)
            throw new UserErrorException($"--rate {rate} does not lie between the scales {scales} as a divisor of {BlockGrid.DefaultBlockSize}.", ExitCodes.Usage);
        string output = parsed.GetValue(_output) ?? ".";
        return new JobValues(
            output, parsed.GetValue(_recursive), parsed.GetValue(_format) switch { "tif" => "tiff", "jpg" => "jpeg", { } format => format, null => "png" },
            new EngineSettings(
                parsed.GetValue(_network) ?? EngineSettings.Default.Network, parsed.GetValue(_scorer) ?? EngineSettings.Default.Scorer,
                parsed.GetValue(_downscaler) ?? EngineSettings.Default.Downscaler, scales,
                parsed.GetValue(_precision)!, parsed.GetValue(_device) ?? EngineSettings.Default.Device, parsed.GetValue(_threads), MaxBatch: 0, parsed.GetValue(_joint) ?? EngineSettings.Default.Joint),
            parsed.GetValue(_allocator) ?? "sse", rate,
            parsed.GetValue(_workDirectory) ?? Path.Combine(output, ".bbmr"), parsed.GetValue(_maxWork),
            parsed.GetValue(_force), parsed.GetValue(_dryRun), new ImageLimits(parsed.GetValue(_maxPixels), parsed.GetValue(_maxSide)));
    }
}

/// <summary>The common options as given.</summary>
/// <param name="Output">Folder for the results.</param>
/// <param name="Recursive">Go into folders.</param>
/// <param name="Format">Extension of the restored image.</param>
/// <param name="Engine">Networks, scales, precision, device, threads.</param>
/// <param name="Allocator">Allocator as named.</param>
/// <param name="Rate">Scale whose rate is kept.</param>
/// <param name="WorkDirectory">Journal and intermediate files.</param>
/// <param name="MaxWork">Quota in bytes; null for half of the free space.</param>
/// <param name="Force">Replace results.</param>
/// <param name="DryRun">Plan only.</param>
/// <param name="Limits">Bounds on images.</param>
internal sealed record JobValues(
    string Output, bool Recursive, string Format, EngineSettings Engine, string Allocator, int Rate, string WorkDirectory, long? MaxWork, bool Force, bool DryRun, ImageLimits Limits);

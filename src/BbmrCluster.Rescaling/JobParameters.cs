using BbmrCluster.Imaging;

namespace BbmrCluster.Rescaling;

/// <summary>
/// What is asked of a job, the same for all of its images: the one record from the command line or the API to the stages. What
/// a user may say of it, with its text and its checks, stands in <see cref="JobOption"/>; everything else follows from there.
/// </summary>
/// <remarks>
/// As asked for, precision, joint part and device class may be open ("auto", ""); the maker of a job fixes them and pins the
/// weights before the first image is submitted, and from then on nothing of it changes.
/// </remarks>
public sealed record JobParameters
{
    private readonly int? _rate;

    /// <summary>The defaults of command line and API.</summary>
    public static JobParameters Default { get; } = new();

    /// <summary>What is done.</summary>
    public JobKind Kind { get; init; } = JobKind.Rescale;

    /// <summary>Format of restored images: png, tiff, webp or jpeg.</summary>
    public string Format { get; init; } = "png";

    /// <summary>Networks, scales, precision, device, batch. Of an upscale the container decides networks and scales.</summary>
    public EngineSettings Engine { get; init; } = EngineSettings.Default with
    {
        Context = BlockContext.Canvas,
        BlockSize = BlockContexts.DefaultBlockSize,
        Halo = BlockContexts.DefaultHalo,
    };

    /// <summary>The allocator as <see cref="Allocators.Parse"/> reads it; after <see cref="Validated"/> by its canonical name.</summary>
    public string Allocator { get; init; } = SseAllocator.Id;

    /// <summary>The scale whose pixel rate the whole image keeps: the middle one unless it was set.</summary>
    public int Rate
    {
        get => _rate ?? Engine.Scales.Middle;
        init => _rate = value;
    }

    /// <summary>Reconstruct a downscale too, to write measured quality into its container.</summary>
    public bool Measure { get; init; }

    /// <summary>Replace outputs that exist.</summary>
    public bool Force { get; init; }

    /// <summary>Upscale a container whose pinned weights differ from those that are here.</summary>
    public bool AllowOtherWeights { get; init; }

    /// <summary>Bounds on the source.</summary>
    public ImageLimits Limits { get; init; } = ImageLimits.Default;

    /// <summary>Class of the devices that do the job (same job, same bytes); empty while it is open.</summary>
    public string DeviceClass { get; init; } = "";

    /// <summary>The weight files that the job was made for; none while they are open.</summary>
    public WeightHashes WeightHashes { get; init; } = WeightHashes.None;

    /// <summary>Whether image rows are made at all.</summary>
    public bool Reconstructs => Kind != JobKind.Downscale || Measure;

    /// <summary>Whether the rate was set.</summary>
    internal bool HasRate => _rate is not null;

    /// <summary>Extension of restored images, without the dot.</summary>
    public string ImageExtension => Format == "jpeg" ? "jpg" : Format;

    /// <summary>The format that belongs to the name of a restored image; the default where there is none.</summary>
    public static string FormatOf(string? path) => Path.GetExtension(path)?.ToLowerInvariant() switch
    {
        ".tif" or ".tiff" => "tiff",
        ".webp" => "webp",
        ".jpg" or ".jpeg" => "jpeg",
        _ => Default.Format,
    };

    /// <summary>Checks every option by itself and against the others; names become canonical, and the rate is set.</summary>
    /// <exception cref="JobOptionException">An option has a value that it cannot have.</exception>
    public JobParameters Validated()
    {
        JobParameters checkedOnes = JobOption.All.Aggregate(this, (parameters, option) => option.TextOf(parameters) is { } text ? option.Set(parameters, text) : parameters);
        ScaleSet scales = Engine.Scales;
        int block = Engine.BlockSize;
        if (Rate < scales[0] || Rate > scales[scales.Count - 1] || block % Rate != 0)
            throw new JobOptionException("rate", $"{Rate} does not lie between the scales {scales} as a divisor of {block}");
        if (Engine.Context == BlockContext.None && block != BlockGrid.DefaultBlockSize)
            throw new JobOptionException("block", $"blocks of {block} pixels must see their neighbours; without context they have {BlockGrid.DefaultBlockSize}");
        if (Engine.Context == BlockContext.None && Engine.Halo != 0)
            throw new JobOptionException("halo", "blocks without context have no halo");
        if (scales.Scales.FirstOrDefault(scale => block % scale != 0) is var odd and not 0)
            throw new JobOptionException("scales", $"scale {odd} does not divide a block of {block} pixels");
        if (Engine.Context == BlockContext.Canvas && !Canvas.Supports(scales))
            throw new JobOptionException("scales", $"of {scales} each must divide the next where blocks see their neighbours");
        return checkedOnes with { Rate = Rate };
    }
}

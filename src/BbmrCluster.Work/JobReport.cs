using System.Text.Json;
using System.Text.Json.Serialization;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Work;

/// <summary>
/// The report of a finished image, <c>NAME.report.json</c>: the only output that holds clock and host, and, with its
/// fingerprint, the mark of done. Fields are snake_case in the file; figures that do not exist are null.
/// </summary>
public sealed record JobReport
{
    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.General)
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        WriteIndented = true,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower) },
    };

    /// <summary>Version of this file's shape.</summary>
    public int ReportVersion { get; init; } = 1;

    /// <summary>The input as the user gave it.</summary>
    public required string Input { get; init; }

    /// <summary>What was done.</summary>
    public required JobKind Kind { get; init; }

    /// <summary>Always "done" in a stored report.</summary>
    public string State { get; init; } = "done";

    /// <summary>Image width, pixels.</summary>
    public required int Width { get; init; }

    /// <summary>Image height, pixels.</summary>
    public required int Height { get; init; }

    /// <summary>Blocks of the grid (N).</summary>
    public required int Blocks { get; init; }

    /// <summary>LR pixels stored / (N x block side squared).</summary>
    public required double RatePixels { get; init; }

    /// <summary>LR pixels stored / (width x height).</summary>
    public required double RatePixelsImage { get; init; }

    /// <summary>8 x container bytes / (width x height): everything in the container, alpha and metadata included.</summary>
    public required double BitsPerPixel { get; init; }

    /// <summary>How LR pixels are coded in the container.</summary>
    public string LrCoder { get; init; } = "lossless";

    /// <summary>PSNR of Y between source and reconstruction, dB, capped at 100; before the picture is coded.</summary>
    public double? PsnrY { get; init; }

    /// <summary>PSNR of Y between source and the picture's file, where its format loses some; null where it keeps all.</summary>
    public double? PsnrYFile { get; init; }

    /// <summary>SSIM of Y.</summary>
    public double? SsimY { get; init; }

    /// <summary>PSNR of Y that the scorer's squared errors predict, dB.</summary>
    public double? PsnrYEstimated { get; init; }

    /// <summary>PSNR of Y by the same reconstruction path with every block at the middle scale, dB.</summary>
    public double? PsnrYUniform { get; init; }

    /// <summary>PsnrY - PsnrYUniform.</summary>
    public double? GainDb { get; init; }

    /// <summary>Seam metric: 1 means that block borders carry no more error than other places.</summary>
    public double? Seam { get; init; }

    /// <summary>Blocks at each scale.</summary>
    public required IReadOnlyDictionary<string, int> Counts { get; init; }

    /// <summary>Wall time over all processes that worked on the image, seconds.</summary>
    public required double Seconds { get; init; }

    /// <summary>Largest resident memory of the process that finished it, bytes.</summary>
    public long? PeakMemoryBytes { get; init; }

    /// <summary>Leases whose results an earlier run left behind.</summary>
    public required int Resumed { get; init; }

    /// <summary>Bytes of the source file.</summary>
    public required long SourceBytes { get; init; }

    /// <summary>Bytes of the container.</summary>
    public long? ContainerBytes { get; init; }

    /// <summary>Bytes of the reconstructed image.</summary>
    public long? ImageBytes { get; init; }

    /// <summary>How scales were chosen; null for an upscale.</summary>
    public AllocationReport? Allocation { get; init; }

    /// <summary>What the device did.</summary>
    public required DeviceReport Device { get; init; }

    /// <summary>Blocks that could not be scored and got the fallback scale.</summary>
    public required IReadOnlyList<int> QuarantinedBlocks { get; init; }

    /// <summary>What whoever keeps the outputs should know: oddities of the source, and what of it the outputs do not hold.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    /// <summary>What must be equal for the outputs to be those of another run.</summary>
    public required Fingerprint Fingerprint { get; init; }

    /// <summary>All other outputs.</summary>
    public required IReadOnlyList<OutputReport> Outputs { get; init; }

    /// <summary>As JSON text with a final line break.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, Json) + "\n";

    /// <summary>Reads a stored report; null when there is none that can be read.</summary>
    public static JobReport? Load(string path, out string text)
    {
        text = "";
        try
        {
            // A report has a few kilobytes; something else of that name is not read to its end.
            if (new FileInfo(path) is not { Exists: true, Length: < 16 << 20 })
                return null;
            text = File.ReadAllText(path);
            return Parse(text);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }

    /// <summary>Reads a report's text.</summary>
    /// <exception cref="JsonException">Not a report of this version.</exception>
    public static JobReport Parse(string json)
    {
        JobReport report = JsonSerializer.Deserialize<JobReport>(json, Json) ?? throw new JsonException("The report is empty.");
        return report.ReportVersion == 1 ? report : throw new JsonException($"The report has version {report.ReportVersion}.");
    }
}

/// <summary>How scales were chosen.</summary>
/// <param name="Method">Name of the procedure.</param>
/// <param name="Sse">Predicted squared error of the image.</param>
/// <param name="DualBoundSse">Lagrangian lower bound of it, or null.</param>
/// <param name="GapDb">10 log10(Sse / DualBoundSse): how far from the best possible, at most; null without a bound.</param>
public sealed record AllocationReport(string Method, double? Sse, double? DualBoundSse, double? GapDb);

/// <summary>What the device did for an image.</summary>
/// <param name="Class">Device class.</param>
/// <param name="Calls">Device calls by purpose and scale.</param>
/// <param name="PrecisionRetries">Blocks done again in float32.</param>
/// <param name="SmallerBatches">Batches halved after running out of memory (gives up byte identity).</param>
/// <param name="BisectedLeases">Leases split because a block failed (gives up byte identity).</param>
public sealed record DeviceReport(string Class, IReadOnlyList<DeviceCallReport> Calls, long PrecisionRetries, long SmallerBatches, int BisectedLeases);

/// <summary>Device calls of one purpose and scale.</summary>
/// <param name="Stage">score, reconstruct or downscale.</param>
/// <param name="Scale">Scale factor.</param>
/// <param name="Calls">Calls.</param>
/// <param name="Blocks">Blocks in them.</param>
/// <param name="MeanBatch">Blocks / Calls.</param>
public sealed record DeviceCallReport(string Stage, int Scale, long Calls, long Blocks, double MeanBatch);

/// <summary>A finished file.</summary>
/// <param name="Name">File name; it lies beside the report.</param>
/// <param name="Bytes">Length.</param>
/// <param name="Sha256">Lower-case hex.</param>
public sealed record OutputReport(string Name, long Bytes, string Sha256);

/// <summary>
/// Source and everything that the bytes of the outputs are meant to depend on. Device, threads and batch are left out: a
/// finished image is not made again because it was finished on another machine.
/// </summary>
/// <param name="Kind">What was done.</param>
/// <param name="SourceBytes">Source file size.</param>
/// <param name="SourceModified">Its last write time, UTC.</param>
/// <param name="SourceSha256">Its SHA-256.</param>
/// <param name="Parameters">Name to value, as the job was told.</param>
/// <param name="WeightHashes">Weight file name to SHA-256.</param>
public sealed record Fingerprint(JobKind Kind, long SourceBytes, DateTime SourceModified, string SourceSha256,
    IReadOnlyDictionary<string, string> Parameters, IReadOnlyDictionary<string, string> WeightHashes)
{
    /// <summary>The fingerprint of a job on a source.</summary>
    public static Fingerprint Of(ImageJob job, long sourceBytes, DateTime sourceModified, string sourceSha256) => new(
        job.Parameters.Kind, sourceBytes, sourceModified, sourceSha256, ParametersOf(job), job.Parameters.WeightHashes);

    /// <summary>
    /// What differs from a job apart from the source, as words for a message; null when nothing does.
    /// </summary>
    public string? DiffersFrom(ImageJob job)
    {
        if (Kind != job.Parameters.Kind)
            return $"by a {Kind.ToString().ToLowerInvariant()}";
        var wanted = ParametersOf(job);
        string[] changed = [.. wanted.Keys.Union(Parameters.Keys, StringComparer.Ordinal).Where(name => wanted.GetValueOrDefault(name) != Parameters.GetValueOrDefault(name)).Order(StringComparer.Ordinal)];
        if (changed.Length > 0)
            return $"with another {string.Join(", ", changed)}";
        return job.Parameters.WeightHashes.Equals(new WeightHashes(WeightHashes)) ? null : "with other weights";
    }

    private static SortedDictionary<string, string> ParametersOf(ImageJob job)
    {
        JobKind kind = job.Parameters.Kind;
        var parameters = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (JobOption option in JobOption.Placed.Where(option => option.Decides.Has(kind)))
            parameters[option.Name] = option.TextOf(job.Parameters) ?? "";
        foreach ((JobOption option, string value) in JobOption.SetByName(job.Parameters).Where(one => one.Option.Decides.Has(kind)))
            parameters[option.Name] = value;
        // By the name that it has: reports of the first version say jpg.
        if (kind != JobKind.Downscale)
            parameters["format"] = Path.GetExtension(job.Outputs.Image ?? "").TrimStart('.').ToLowerInvariant();
        return parameters;
    }
}

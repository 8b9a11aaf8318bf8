using System.Globalization;
using System.Text.Json.Serialization;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Work;

namespace BbmrCluster.Cli.Output;

/// <summary>What became of one image: the JSON line that scripts read. Figures that do not exist are null.</summary>
/// <param name="Input">As given on the command line.</param>
/// <param name="State">done, skipped, failed or interrupted.</param>
internal sealed record ImageLine(string Input, string State)
{
    /// <summary>Stable error code when failed.</summary>
    [JsonPropertyOrder(1)]
    public string? Code { get; init; }

    /// <summary>One sentence when failed.</summary>
    [JsonPropertyOrder(1)]
    public string? Error { get; init; }

    [JsonPropertyOrder(2)]
    public int? Width { get; init; }

    [JsonPropertyOrder(2)]
    public int? Height { get; init; }

    [JsonPropertyOrder(2)]
    public int? Blocks { get; init; }

    [JsonPropertyOrder(2)]
    public double? RatePixels { get; init; }

    [JsonPropertyOrder(2)]
    public double? RatePixelsImage { get; init; }

    [JsonPropertyOrder(2)]
    public double? BitsPerPixel { get; init; }

    [JsonPropertyOrder(2)]
    public double? PsnrY { get; init; }

    [JsonPropertyOrder(2)]
    public double? SsimY { get; init; }

    [JsonPropertyOrder(2)]
    public double? PsnrYUniform { get; init; }

    [JsonPropertyOrder(2)]
    public double? GainDb { get; init; }

    [JsonPropertyOrder(2)]
    public double? PsnrYEstimated { get; init; }

    [JsonPropertyOrder(2)]
    public double? Seam { get; init; }

    [JsonPropertyOrder(2)]
    public IReadOnlyDictionary<string, int>? Counts { get; init; }

    [JsonPropertyOrder(2)]
    public double? Seconds { get; init; }

    [JsonPropertyOrder(2)]
    public long? PeakMemoryBytes { get; init; }

    /// <summary>Leases taken over from an earlier run.</summary>
    [JsonPropertyOrder(2)]
    public int? Resumed { get; init; }

    [JsonPropertyOrder(3)]
    public long? SourceBytes { get; init; }

    [JsonPropertyOrder(3)]
    public long? ContainerBytes { get; init; }

    [JsonPropertyOrder(3)]
    public long? ImageBytes { get; init; }

    /// <summary>What whoever keeps the outputs should know; null where there is nothing to tell.</summary>
    [JsonPropertyOrder(3)]
    public IReadOnlyList<string>? Notes { get; init; }

    /// <summary>Files made, absolute, the report last.</summary>
    [JsonPropertyOrder(3)]
    public IReadOnlyList<string>? Outputs { get; init; }

    /// <summary>From a report, fresh or stored.</summary>
    public static ImageLine Of(string input, string state, JobReport report, OutputPaths outputs) => new(input, state)
    {
        Width = report.Width,
        Height = report.Height,
        Blocks = report.Blocks,
        RatePixels = report.RatePixels,
        RatePixelsImage = report.RatePixelsImage,
        BitsPerPixel = report.BitsPerPixel,
        PsnrY = report.PsnrY,
        SsimY = report.SsimY,
        PsnrYUniform = report.PsnrYUniform,
        GainDb = report.GainDb,
        PsnrYEstimated = report.PsnrYEstimated,
        Seam = report.Seam,
        Counts = report.Counts,
        Seconds = report.Seconds,
        PeakMemoryBytes = report.PeakMemoryBytes,
        Resumed = report.Resumed,
        SourceBytes = report.SourceBytes,
        ContainerBytes = report.ContainerBytes,
        ImageBytes = report.ImageBytes,
        Notes = report.Notes.Count > 0 ? report.Notes : null,
        Outputs = [.. OutputNaming.FilesOf(outputs, report.Kind)],
    };

    /// <summary>For people.</summary>
    public override string ToString()
    {
        if (State is "failed" or "interrupted")
            return $"{Input}: {State}{(Error is null ? "" : ": " + Error)}";
        string counts = Counts is null ? "" : ", " + string.Join(" ", Counts.Select(pair => $"x{pair.Key}:{pair.Value}"));
        string quality = (PsnrY, PsnrYUniform, GainDb, PsnrYEstimated) switch
        {
            ({ } psnr, { } uniform, { } gain, _) => string.Create(CultureInfo.InvariantCulture, $", {psnr:0.00} dB (all blocks at the middle scale {uniform:0.00}, gain {gain:+0.00;-0.00})"),
            ({ } psnr, _, _, _) => string.Create(CultureInfo.InvariantCulture, $", {psnr:0.00} dB"),
            (_, _, _, { } estimated) => string.Create(CultureInfo.InvariantCulture, $", {estimated:0.00} dB estimated"),
            _ => "",
        };
        string resumed = Resumed > 0 ? string.Create(CultureInfo.InvariantCulture, $", {Amounts.Count(Resumed.Value, "lease")} taken over") : "";
        return string.Create(CultureInfo.InvariantCulture,
            $"{Input}: {State}, {Width}x{Height}, {Amounts.Count(Blocks ?? 0, "block")}{counts}, {BitsPerPixel:0.000} bits per pixel{quality}, {Amounts.Text(TimeSpan.FromSeconds(Seconds ?? 0))}{resumed}");
    }
}

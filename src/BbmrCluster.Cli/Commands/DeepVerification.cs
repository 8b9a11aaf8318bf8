using System.Globalization;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Imaging;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Cli.Commands;

/// <summary>What restoring a whole container showed.</summary>
/// <param name="Blocks">Blocks restored.</param>
/// <param name="QualityKind">measured or estimated.</param>
/// <param name="RecordedPsnrY">What the container says, dB.</param>
/// <param name="PsnrY">What came out against the source, dB; null without a source.</param>
/// <param name="Compared">Whether both were held against each other: only measured values are.</param>
/// <param name="Problem">One sentence; null when all is well.</param>
internal sealed record DeepVerification(int Blocks, string? QualityKind, double? RecordedPsnrY, double? PsnrY, bool Compared, string? Problem)
{
    // What another device class may change (same class: equal).
    private const double ToleranceDb = 0.01;
    private const int LeaseBlocks = 64;

    /// <summary>Whether nothing is wrong.</summary>
    public bool Ok => Problem is null;

    /// <summary>For people.</summary>
    public string Summary => PsnrY is not { } psnr
        ? string.Create(CultureInfo.InvariantCulture, $"every byte matches its checksum and {(Blocks == 1 ? "its block was" : $"all {Blocks} blocks were")} restored")
        : string.Create(CultureInfo.InvariantCulture, $"{Amounts.Count(Blocks, "block")} restored, {psnr:0.00} dB against the source; the container says {RecordedPsnrY:0.00} dB ({QualityKind})");

    /// <summary>Restores all strips with the networks that the container names.</summary>
    /// <param name="reader">A container whose checksums hold.</param>
    /// <param name="source">The photograph, or null.</param>
    /// <param name="device">--device.</param>
    /// <param name="threads">--threads.</param>
    /// <param name="terminal">For progress.</param>
    public static DeepVerification Run(ContainerReader reader, string? source, string device, int threads, Terminal terminal)
    {
        ContainerHeader header = reader.Header;
        BlockGrid grid = header.Grid;
        string? kind = reader.Quality is { } quality ? quality.Kind == Rescaling.Container.QualityKind.Measured ? "measured" : "estimated" : null;
        double? recorded = reader.Quality?.Psnr(grid);
        DeepVerification Failed(string problem, double? psnr = null) => new(grid.Count, kind, recorded, psnr, false, problem);

        NativeRuntime.Apply();
        // A machine without bfloat16 takes float32, which is within the tolerance.
        string precision = header.Precision is "bfloat16" ? "auto" : header.Precision;
        var settings = new EngineSettings(header.Network, "none", header.Downscaler, header.Scales, precision, device, threads, 0, EngineFactory.JointOf(header))
        {
            Context = header.Context,
            BlockSize = header.BlockSize,
            Halo = header.Halo,
        };
        var factory = new EngineFactory();
        foreach ((string name, string hash) in factory.WeightHashes(settings))
        {
            if (!header.WeightHashes.TryGetValue(name, out string? pinned) || pinned != hash)
                return Failed($"the weights {name} here are not those it was made for (sha256 {hash}, the container says {pinned ?? "nothing"})");
        }

        using StripReader? photograph = source is null ? null : StripReader.Open(Files.Readable(source), ImageLimits.Default, grid.StripHeight, Path.GetTempPath());
        if (photograph is { Info: { } info } && (info.Width, info.Height, info.ColourChannels, info.BitDepth) != (header.Width, header.Height, header.ColourChannels, header.BitDepth))
            return Failed($"{source} is another image: {info.Width}x{info.Height} pixels, {info.BitDepth} bits");

        using IEngine engine = factory.Create(settings);
        double sse = 0;
        // The strip above waits for the border it shares with the next one.
        ReconstructedStrip? above = null;
        int perLease = Math.Max(1, LeaseBlocks / grid.Tiles);
        try
        {
            for (int first = 0; first < grid.Strips; first += perLease)
            {
                int count = Math.Min(perLease, grid.Strips - first);
                if (header.Context == BlockContext.Canvas)
                {
                    foreach (SampleMap rows in engine.CanvasReconstructor.Reconstruct(Lr(reader, first, count)))
                        sse += Measure(rows.Samples, photograph, header);
                    terminal.Detail(string.Create(CultureInfo.InvariantCulture, $"restored {first + count} of {grid.Strips} strips"));
                    continue;
                }
                IReconstructor reconstructor = engine.Reconstructor;
                foreach (ReconstructedStrip strip in reconstructor.Reconstruct(Unpack(reader, first, count)))
                {
                    if (above is not null)
                    {
                        Join(above, strip, reconstructor, header);
                        sse += Measure(above.Rows, photograph, header);
                    }
                    above = strip;
                }
                terminal.Detail(string.Create(CultureInfo.InvariantCulture, $"restored {first + count} of {grid.Strips} strips"));
            }
            if (above is not null)
                sse += Measure(above.Rows, photograph, header);
        }
        catch (NonFiniteOutputException e)
        {
            return Failed(e.Message);
        }

        if (photograph is null)
            return new DeepVerification(grid.Count, kind, recorded, null, false, null);
        double psnr = BlockScores.PsnrOf(sse, (long)header.Width * header.Height);
        bool compared = kind == "measured";
        return compared && Math.Abs(psnr - recorded!.Value) > ToleranceDb
            ? Failed(string.Create(CultureInfo.InvariantCulture, $"restored it has {psnr:0.000} dB, the container says {recorded:0.000} dB measured"), psnr)
            : new DeepVerification(grid.Count, kind, recorded, psnr, compared, null);
    }

    private static LrContext Lr(ContainerReader reader, int first, int count)
    {
        ContainerHeader header = reader.Header;
        BlockGrid grid = header.Grid;
        int from = Math.Max(0, first - 1), to = Math.Min(grid.Strips, first + count + 1);
        LrStrips all = Unpack(reader, from, to - from);
        return new LrContext(grid, header.Scales, header.BitDepth, from, to - from, first, count, all.ScaleIndex, all.ByScale);
    }

    private static LrStrips Unpack(ContainerReader reader, int first, int count)
    {
        ContainerHeader header = reader.Header;
        UnpackedStrip[] strips = [.. Enumerable.Range(first, count).Select(reader.UnpackStrip)];
        BlockBatch[] byScale = [.. Enumerable.Range(0, header.Scales.Count).Select(index =>
            LrBlocks.Concat([.. strips.Select(strip => strip.ByScale[index])], header.BlockSize / header.Scales[index], header.BitDepth))];
        return new LrStrips(header.Grid.Columns, count, header.Scales, [.. Enumerable.Range(first, count).SelectMany(strip => reader.ScaleIndexOf(strip).ToArray())], byScale);
    }

    private static void Join(ReconstructedStrip above, ReconstructedStrip below, IReconstructor reconstructor, ContainerHeader header)
    {
        ushort[] border = reconstructor.JoinBorder(above.Bottom, below.Top, header.BitDepth);
        int half = border.Length / 2;
        border.AsSpan(0, half).CopyTo(above.Rows.AsSpan(above.Rows.Length - half));
        border.AsSpan(half).CopyTo(below.Rows);
    }

    private static double Measure(ushort[] rows, StripReader? photograph, ContainerHeader header)
    {
        if (photograph?.ReadNext() is not { } source)
            return 0;
        var restored = new PixelBuffer(source.Width, source.Height, header.ColourChannels, header.BitDepth);
        StripPixels.Crop(rows, header.Grid.Columns * header.BlockSize, restored, 0, restored.Height);
        return SquaredError.ByTile(source, restored, header.Grid, header.ColourChannels).Sum();
    }
}

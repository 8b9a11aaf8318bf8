using System.Diagnostics;
using System.Globalization;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;
using BbmrCluster.Work;

namespace BbmrCluster.Cli.Commands;

/// <summary>--dry-run: what a run would do, from the headers of its inputs and a short trial of the networks.</summary>
internal sealed class DryRun(Terminal terminal, RunValues values, JobParameters parameters)
{
    // Decoding, encoding, verifying: seconds per megapixel on an ordinary core.
    private const double CodecSecondsPerMegapixel = 0.25;
    private const int TrialBlocks = 16;

    /// <summary>Shows the plan; writes nothing to the disk.</summary>
    /// <param name="jobs">Jobs that would run.</param>
    /// <param name="engines">For the trial.</param>
    /// <param name="summary">Inputs refused so far.</param>
    public int Show(IReadOnlyList<ImageJob> jobs, IEngineFactory engines, RunSummary summary)
    {
        double secondsPerBlock = jobs.Count == 0 ? 0 : TrySpeed(engines, jobs[0].Parameters.Engine);
        long blocks = 0, work = 0;
        double seconds = 0;
        int planned = 0, refused = summary.Count("failed");
        foreach (ImageJob job in jobs)
        {
            try
            {
                (int width, int height, int bitDepth, int colours, bool alpha) = SizeOf(job);
                BlockGrid grid = job.Parameters.Engine.GridOf(width, height);
                long jobWork = WorkSpace.Estimate(parameters.Kind, parameters.Measure, grid, colours, alpha, bitDepth);
                double jobSeconds = (grid.Tiles * grid.Strips * secondsPerBlock) + ((double)width * height / 1e6 * CodecSecondsPerMegapixel);
                bool exists = File.Exists(job.Outputs.Report);
                terminal.Json(new { input = job.DisplayName, state = "planned", code = (string?)null, error = (string?)null, width, height, blocks = grid.Count, work_bytes = jobWork, estimated_seconds = jobSeconds, report_exists = exists, outputs = OutputNaming.FilesOf(job.Outputs, parameters.Kind) });
                terminal.Result(string.Create(CultureInfo.InvariantCulture, $"{job.DisplayName}: {width}x{height}, {Amounts.Count(grid.Count, "block")}, {Amounts.Text(jobWork)} of work space, about {Amounts.Text(TimeSpan.FromSeconds(jobSeconds))}{(exists ? ", results are there: skipped when nothing changed" : "")}"));
                (blocks, seconds, planned) = (blocks + grid.Count, seconds + jobSeconds, planned + 1);
                // Images come one after another; the largest decides.
                work = Math.Max(work, jobWork);
            }
            catch (Exception e) when (e is ImageRefusedException or ContainerException or IOException or UnauthorizedAccessException)
            {
                refused++;
                string reason = e switch { ImageRefusedException image => image.Reason, ContainerException container => container.Reason, _ => e.Message };
                terminal.Json(new { input = job.DisplayName, state = "failed", code = "refused", error = reason });
                terminal.Problem($"{job.DisplayName}: {reason}");
            }
        }
        terminal.Json(new { summary = true, dry_run = true, planned, failed = refused, blocks, work_bytes = work, estimated_seconds = seconds, work_directory = Path.GetFullPath(values.WorkDirectory) });
        terminal.Message(string.Create(CultureInfo.InvariantCulture, $"{Amounts.Count(planned, "image")}, {Amounts.Count(blocks, "block")}, at least {Amounts.Text(work)} of work space in {values.WorkDirectory}, about {Amounts.Text(TimeSpan.FromSeconds(seconds))}; nothing was written"));
        return ExitCodes.Of(planned, refused);
    }

    private (int Width, int Height, int BitDepth, int Colours, bool Alpha) SizeOf(ImageJob job)
    {
        if (parameters.Kind == JobKind.Upscale)
        {
            using ContainerReader reader = ContainerReader.Open(job.Source, job.Parameters.Limits);
            return (reader.Header.Width, reader.Header.Height, reader.Header.BitDepth, reader.Header.ColourChannels, reader.Header.Alpha != AlphaKind.None);
        }
        ImageInfo info = ImageFile.Probe(job.Source, job.Parameters.Limits);
        return (info.Width, info.Height, info.BitDepth, info.ColourChannels, info.HasAlpha);
    }

    private double TrySpeed(IEngineFactory engines, EngineSettings settings)
    {
        using IEngine engine = engines.Create(settings);
        BlockBatch hr = Noise(BlockGrid.DefaultBlockSize);
        BlockExtent[] extents = [.. Enumerable.Repeat(new BlockExtent(BlockGrid.DefaultBlockSize, BlockGrid.DefaultBlockSize), TrialBlocks)];
        byte[] middle = new byte[TrialBlocks];
        middle.AsSpan().Fill((byte)settings.Scales.MiddleIndex);
        BlockBatch[] byScale = [.. settings.Scales.Scales.Select(scale => scale == settings.Scales.Middle ? Noise(BlockGrid.DefaultBlockSize / scale) : new BlockBatch(0, BlockGrid.DefaultBlockSize / scale, 8))];
        double perBlock = 0;
        // The first pass warms up and is not counted.
        for (int pass = 0; pass < 2; pass++)
        {
            if (settings.Context == BlockContext.Canvas)
            {
                perBlock = CanvasSeconds(engine, settings);
                continue;
            }
            perBlock = 0;
            if (parameters.Kind != JobKind.Upscale)
                perBlock += Seconds(() => engine.Scorer.Score(hr, extents, settings.Scales));
            if (parameters.Kind != JobKind.Downscale)
                perBlock += (parameters.Kind == JobKind.Rescale ? 2 : 1) * Seconds(() => engine.Reconstructor.Reconstruct(new LrStrips(TrialBlocks, 1, settings.Scales, middle, byScale)));
        }
        return perBlock;

        // Of a tile: one strip of tiles with every block at the middle scale.
        double CanvasSeconds(IEngine canvasEngine, EngineSettings with)
        {
            BlockGrid grid = with.GridOf(TrialBlocks * BlockGrid.TileSize, BlockGrid.TileSize);
            var rows = new ImageRows(new SampleMap(grid.Width, grid.Height, 8, Noise(BlockGrid.TileSize).Samples), 0, grid.Height);
            double sum = 0;
            if (parameters.Kind != JobKind.Upscale)
                sum += Seconds(() => canvasEngine.Scorer.Score(rows, grid, 0, grid.Count, with.Scales.Scales));
            if (parameters.Kind == JobKind.Downscale)
                return sum;
            byte[] index = new byte[grid.Count];
            Array.Fill(index, (byte)with.Scales.MiddleIndex);
            int side = grid.BlockSize / with.Scales.Middle;
            BlockBatch[] lr = [.. with.Scales.Scales.Select(scale => scale == with.Scales.Middle
                ? new BlockBatch(grid.Count, side, 8) : new BlockBatch(0, grid.BlockSize / scale, 8))];
            return sum + Seconds(() => canvasEngine.CanvasReconstructor.Reconstruct(new LrContext(grid, with.Scales, 8, 0, 1, 0, 1, index, lr)));
        }

        static BlockBatch Noise(int side)
        {
            var blocks = new BlockBatch(TrialBlocks, side, 8);
            for (int i = 0; i < blocks.Samples.Length; i++)
                blocks.Samples[i] = (ushort)((i * 7919) >> 5 & 255);
            return blocks;
        }

        static double Seconds(Action action)
        {
            long start = Stopwatch.GetTimestamp();
            action();
            return Stopwatch.GetElapsedTime(start).TotalSeconds / TrialBlocks;
        }
    }
}

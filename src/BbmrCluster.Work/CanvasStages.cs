using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Work;

/// <summary>
/// Score, Pack and Reconstruct where blocks see their neighbours. LR is that of the whole image, so a strip needs some rows of the
/// strips beside it; a reconstruction needs their LR blocks and nothing else, and gives finished rows.
/// </summary>
internal static class CanvasStages
{
    public static void Run(StageContext context)
    {
        switch (context.Work.Stage)
        {
            case Stage.Score:
                LeaseWork work = context.Work;
                context.Report(new BlocksScored(work.FirstBlock, Score(context, context.Engine.Scorer, work.FirstBlock, work.BlockCount, context.Job.Parameters.Engine.Scales.Scales)));
                break;
            case Stage.Pack:
                Pack(context);
                break;
            default:
                Reconstruct(context);
                break;
        }
    }

    private static double[,] Score(StageContext context, IBlockScorer scorer, int firstBlock, int blockCount, IReadOnlyList<int> scales)
    {
        BlockGrid grid = context.Facts.Grid;
        (int first, int end) = scorer.RowsFor(grid, firstBlock, blockCount, scales);
        ImageRows rows = Rows(context, first, end);
        context.Cancellation.ThrowIfCancellationRequested();
        return scorer.Score(rows, grid, firstBlock, blockCount, scales);
    }

    private static void Pack(StageContext context)
    {
        BlockGrid grid = context.Facts.Grid;
        ScaleSet scales = context.Job.Parameters.Engine.Scales;
        IDownscaler downscaler = context.Engine.Downscaler;
        StripBlobs[] own = [.. context.OwnStrips];
        var byScale = own.Select(_ => new BlockBatch[scales.Count]).ToArray();
        for (int s = 0; s < scales.Count; s++)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            int scale = scales[s], side = grid.BlockSize / scale, stripRows = grid.StripHeight / scale, firstRow = own[0].Strip * stripRows;
            int rowCount = Math.Min((own[^1].Strip + 1) * stripRows, WholeImageLr.RowsOf(grid, scale)) - firstRow;
            int[][] blocks = [.. own.Select(strip => Positions(context.ScalesOf(strip.Strip), s))];
            SampleMap? lr = null;
            if (blocks.Any(strip => strip.Length > 0))
            {
                (int first, int end) = WholeImageLr.Needed(grid, scale, downscaler.Reach(scale), firstRow, rowCount);
                lr = WholeImageLr.Rows(downscaler, Rows(context, first, end), grid, scale, firstRow, rowCount);
            }
            for (int i = 0; i < own.Length; i++)
            {
                int before = grid.FirstBlockOf(own[i].Strip) - grid.FirstBlockOf(own[0].Strip);
                byScale[i][s] = blocks[i].Length == 0 ? new BlockBatch(0, side, context.Facts.BitDepth)
                    : WholeImageLr.Cut(lr!, side, grid.Columns, [.. blocks[i].Select(block => before + block)]);
            }
        }
        for (int i = 0; i < own.Length; i++)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            PixelBuffer? alpha = context.Facts.HasAlpha ? StripPixels.Alpha(context.ReadRaw(own[i]), hasAlpha: true) : null;
            byte[] packed = StripPacker.Pack(context.StripFormat, own[i].Strip, context.ScalesOf(own[i].Strip), byScale[i], alpha);
            context.Report(new StripPacked(own[i] with { Packed = context.Write("packed", own[i].Strip, packed) }));
        }
    }

    private static void Reconstruct(StageContext context)
    {
        ImageFacts facts = context.Facts;
        EngineSettings settings = context.Job.Parameters.Engine;
        StripBlobs[] own = [.. context.OwnStrips];
        IReadOnlyList<SampleMap> made = context.Engine.CanvasReconstructor.Reconstruct(Lr(context, own));
        bool measuresGain = context.Job.Parameters.Kind == JobKind.Rescale && (!settings.ScoresByReconstruction || context.Work.Quarantined.Count > 0);
        for (int i = 0; i < own.Length; i++)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            int strip = own[i].Strip;
            var rows = new PixelBuffer(facts.Width, facts.Grid.RowsOf(strip), facts.ColourChannels, facts.BitDepth);
            StripPixels.Crop(made[i].Samples, made[i].Width, rows, 0, rows.Height);
            double? uniform = measuresGain
                ? Score(context, context.Engine.UniformScorer, facts.Grid.FirstBlockOf(strip), facts.Grid.BlocksOf(strip), [settings.Scales.Middle]).Cast<double>().Sum()
                : null;
            context.Report(new StripReconstructed(own[i] with { Rows = context.Write("rows", strip, rows.Data), UniformSse = uniform }));
        }
    }

    private static LrContext Lr(StageContext context, StripBlobs[] own)
    {
        BlockGrid grid = context.Facts.Grid;
        ScaleSet scales = context.Job.Parameters.Engine.Scales;
        IReadOnlyList<StripBlobs> strips = context.Work.Strips;
        var unpacked = new List<UnpackedStrip>();
        foreach (StripBlobs strip in strips)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            unpacked.Add(context.Unpack(strip));
        }
        return new LrContext(grid, scales, context.Facts.BitDepth, strips[0].Strip, strips.Count, own[0].Strip, own.Length,
            [.. strips.SelectMany(strip => context.ScalesOf(strip.Strip).ToArray())],
            [.. Enumerable.Range(0, scales.Count).Select(s => LrBlocks.Concat([.. unpacked.Select(strip => strip.ByScale[s])], grid.BlockSize / scales[s], context.Facts.BitDepth))]);
    }

    // Rows of the image out of the raw strips that hold them.
    private static ImageRows Rows(StageContext context, int first, int end)
    {
        ImageFacts facts = context.Facts;
        var map = new SampleMap(facts.Width, end - first, facts.BitDepth);
        foreach (StripBlobs strip in context.Work.Strips)
        {
            int top = strip.Strip * facts.Grid.StripHeight, from = Math.Max(first, top), to = Math.Min(end, top + facts.Grid.RowsOf(strip.Strip));
            if (from < to)
                StripPixels.CopyRows(context.ReadRaw(strip), from - top, to - from, facts.ColourChannels, map, from - first);
        }
        return new ImageRows(map, first, facts.Height, facts.ColourChannels == 1);
    }

    private static int[] Positions(ReadOnlySpan<byte> scaleIndex, int wanted)
    {
        var positions = new List<int>();
        for (int i = 0; i < scaleIndex.Length; i++)
        {
            if (scaleIndex[i] == wanted)
                positions.Add(i);
        }
        return [.. positions];
    }
}

using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Work;

/// <summary>The stages that work block by block: Score and Pack.</summary>
internal static class BlockStages
{
    /// <summary>Scores the lease's blocks in one call, so that the device's batches fill.</summary>
    public static void Score(StageContext context)
    {
        LeaseWork work = context.Work;
        BlockGrid grid = context.Facts.Grid;
        var batch = new BlockBatch(work.BlockCount, grid.BlockSize, context.Facts.BitDepth);
        foreach (StripBlobs strip in work.Strips)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            int first = Math.Max(work.FirstBlock, strip.Strip * grid.Columns), end = Math.Min(work.FirstBlock + work.BlockCount, (strip.Strip + 1) * grid.Columns);
            if (first >= end)
                continue;
            var raw = context.ReadRaw(strip);
            for (int block = first; block < end; block++)
                StripPixels.CutBlock(raw, block % grid.Columns, context.Facts.ColourChannels, grid.BlockSize, batch.Block(block - work.FirstBlock));
        }
        BlockExtent[] extents = [.. Enumerable.Range(work.FirstBlock, work.BlockCount).Select(grid.ExtentOf)];
        double[,] sse = context.Engine.Scorer.Score(batch, extents, context.Job.Parameters.Engine.Scales);
        context.Report(new BlocksScored(work.FirstBlock, sse));
    }

    /// <summary>Downscales the blocks of all leased strips scale by scale and packs each strip.</summary>
    public static void Pack(StageContext context)
    {
        ScaleSet scales = context.Job.Parameters.Engine.Scales;
        // Bounded by the lease: some 64 blocks, or one strip of a very wide image.
        var strips = context.Work.Strips.Select(strip => (Strip: strip, Raw: context.ReadRaw(strip))).ToList();
        var lr = new BlockBatch[scales.Count];
        for (int s = 0; s < scales.Count; s++)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            lr[s] = context.Downscale(scales[s], strips.SelectMany(strip =>
                LrBlocks.ColumnsWith(context.ScalesOf(strip.Strip.Strip), s).Select(column => (strip.Raw, column))).ToList());
        }
        var taken = new int[scales.Count];
        foreach (var (strip, raw) in strips)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            var own = new BlockBatch[scales.Count];
            for (int s = 0; s < scales.Count; s++)
            {
                int count = context.ScalesOf(strip.Strip).Count((byte)s);
                own[s] = LrBlocks.Slice(lr[s], taken[s], count);
                taken[s] += count;
            }
            byte[] packed = StripPacker.Pack(context.StripFormat, strip.Strip, context.ScalesOf(strip.Strip), own, StripPixels.Alpha(raw, context.Facts.HasAlpha));
            context.Report(new StripPacked(strip with { Packed = context.Write("packed", strip.Strip, packed) }));
        }
    }
}

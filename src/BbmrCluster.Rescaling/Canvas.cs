using BbmrCluster.Imaging;

namespace BbmrCluster.Rescaling;

/// <summary>
/// LR blocks of consecutive whole strips: those to be made, and the strips beside them that their context reaches into.
/// </summary>
/// <param name="Grid">The image's grid, strips of <see cref="BlockGrid.TileSize"/> rows.</param>
/// <param name="Scales">The scale set; each scale divides the next.</param>
/// <param name="BitDepth">8 or 16.</param>
/// <param name="FirstStrip">First strip that is here.</param>
/// <param name="StripCount">Strips that are here.</param>
/// <param name="TargetStrip">First strip to be made. The strip above it is here, unless there is none.</param>
/// <param name="TargetCount">Strips to be made. The strip below the last is here, unless there is none.</param>
/// <param name="ScaleIndex">Scale index of each block that is here, raster order.</param>
/// <param name="ByScale">One batch for each scale (it may be empty), blocks in block order.</param>
public sealed record LrContext(BlockGrid Grid, ScaleSet Scales, int BitDepth, int FirstStrip, int StripCount, int TargetStrip, int TargetCount,
    byte[] ScaleIndex, IReadOnlyList<BlockBatch> ByScale)
{
    /// <summary>What does not fit; null when all does.</summary>
    public string? Problem()
    {
        if (FirstStrip < 0 || StripCount < 1 || FirstStrip + StripCount > Grid.Strips || TargetCount < 1
            || Math.Max(TargetStrip - 1, 0) < FirstStrip || Math.Min(TargetStrip + TargetCount + 1, Grid.Strips) > FirstStrip + StripCount)
            return $"strips {FirstStrip} to {FirstStrip + StripCount - 1} do not hold {TargetCount} from {TargetStrip} on with the strips beside them";
        int blocks = Enumerable.Range(FirstStrip, StripCount).Sum(Grid.BlocksOf);
        if (ScaleIndex.Length != blocks || ByScale.Count != Scales.Count)
            return $"{ScaleIndex.Length} scale indices in {ByScale.Count} scales for {blocks} blocks";
        for (int s = 0; s < Scales.Count; s++)
        {
            int wanted = ScaleIndex.Count(index => index == s), side = Grid.BlockSize / Scales[s];
            if (ByScale[s].Count != wanted || (wanted > 0 && (ByScale[s].Side != side || ByScale[s].BitDepth != BitDepth)))
                return $"scale {Scales[s]} has {ByScale[s].Count} blocks of side {ByScale[s].Side} where {wanted} of side {side} are needed";
        }
        return null;
    }
}

/// <summary>
/// For each scale the image at that scale, filled everywhere from the blocks of all scales: what a block's network sees of
/// its neighbours. A block of that scale shows its own LR pixels. A finer one is shrunk (antialiased, from its own pixels
/// alone), a coarser one enlarged from the next coarser canvas (bicubic), which is known everywhere by then. So a canvas
/// pixel depends on nothing farther away than four pixels of the coarsest scale, and a strip's canvas with a halo on its
/// own strip and the two beside it. Integer arithmetic: equal input gives equal samples on any machine.
/// </summary>
public sealed class Canvas
{
    private readonly SampleMap[] _maps;

    private Canvas(SampleMap[] maps) => _maps = maps;

    /// <summary>The map at a scale index: the rows of all strips that were given, the columns of the grid.</summary>
    public SampleMap At(int scaleIndex) => _maps[scaleIndex];

    /// <summary>Whether canvases can be made of a scale set.</summary>
    public static bool Supports(ScaleSet scales)
    {
        for (int s = 1; s < scales.Count; s++)
        {
            if (scales[s] % scales[s - 1] != 0)
                return false;
        }
        return true;
    }

    /// <summary>Fills the canvases of all scales.</summary>
    /// <exception cref="ArgumentException">The parts do not fit each other.</exception>
    public static Canvas Fill(LrContext lr)
    {
        if (lr.Problem() is { } problem)
            throw new ArgumentException($"No canvas: {problem}.", nameof(lr));
        if (!Supports(lr.Scales))
            throw new ArgumentException($"Of the scales {lr.Scales} each must divide the next.", nameof(lr));
        ScaleSet scales = lr.Scales;
        int columns = lr.Grid.Columns, blockRows = lr.ScaleIndex.Length / columns, block = lr.Grid.BlockSize;
        var maps = new SampleMap[scales.Count];
        for (int s = 0; s < scales.Count; s++)
            maps[s] = new SampleMap(columns * block / scales[s], blockRows * block / scales[s], lr.BitDepth);
        // Finer blocks first: what every map knows without its neighbours.
        for (int s = 0; s < scales.Count; s++)
        {
            Place(lr.ByScale[s], lr.ScaleIndex, (byte)s, columns, maps[s]);
            for (int t = s + 1; t < scales.Count && lr.ByScale[s].Count > 0; t++)
            {
                BlockBatch own = lr.ByScale[s];
                var shrunk = new BlockBatch(own.Count, block / scales[t], lr.BitDepth);
                Bicubic.DownscaleBlocks(own.Samples, own.Side, lr.BitDepth, scales[t] / scales[s], shrunk.Samples);
                Place(shrunk, lr.ScaleIndex, (byte)s, columns, maps[t]);
            }
        }
        // The coarsest map is whole now, and each finer one will be.
        for (int s = scales.Count - 2; s >= 0; s--)
            FillCoarser(lr.ScaleIndex, (byte)s, columns, maps[s + 1], maps[s]);
        return new Canvas(maps);
    }

    private static void Place(BlockBatch blocks, byte[] scaleIndex, byte wanted, int columns, SampleMap map)
    {
        for (int at = 0, next = 0; at < scaleIndex.Length; at++)
        {
            if (scaleIndex[at] != wanted)
                continue;
            ReadOnlySpan<ushort> samples = blocks.Block(next++);
            int side = blocks.Side, row = side * 3;
            for (int y = 0; y < side; y++)
                samples.Slice(y * row, row).CopyTo(map.Row((at / columns * side) + y, at % columns * side, side));
        }
    }

    private static void FillCoarser(byte[] scaleIndex, byte scale, int columns, SampleMap coarse, SampleMap map)
    {
        if (!scaleIndex.AsSpan().ContainsAnyExceptInRange((byte)0, scale))
            return;
        int side = map.Width / columns, rows = scaleIndex.Length / columns;
        var enlarged = new SampleMap(map.Width, map.Height, map.BitDepth,
            Bicubic.UpscaleMap(coarse.Samples, coarse.Width, coarse.Height, coarse.BitDepth, map.Width / coarse.Width));
        for (int row = 0; row < rows; row++)
        {
            for (int first = 0; first < columns;)
            {
                if (scaleIndex[(row * columns) + first] <= scale)
                {
                    first++;
                    continue;
                }
                int end = first;
                while (end < columns && scaleIndex[(row * columns) + end] > scale)
                    end++;
                for (int y = row * side; y < (row + 1) * side; y++)
                    enlarged.Row(y, first * side, (end - first) * side).CopyTo(map.Row(y, first * side, (end - first) * side));
                first = end;
            }
        }
    }
}

namespace BbmrCluster.Rescaling;

/// <summary>LR of the whole image on the block grid: beyond the downscaled image its last column and row are repeated.</summary>
public static class WholeImageLr
{
    /// <summary>LR rows of the grid in all.</summary>
    public static int RowsOf(BlockGrid grid, int scale) => grid.BlockRows * grid.BlockSize / scale;

    /// <summary>
    /// Image rows that <see cref="Rows"/> must be given for some rows: as many as the downscaler sees beyond them, as far as
    /// the image goes, and those that stand in for rows beyond its edges (mirrored).
    /// </summary>
    /// <returns>First image row, and the one after the last.</returns>
    public static (int First, int End) Needed(BlockGrid grid, int scale, int reach, int firstRow, int rowCount)
    {
        int last = Math.Min(firstRow + rowCount, (grid.Height + scale - 1) / scale), first = Math.Min(firstRow, last - 1);
        int above = reach - (first * scale), below = (last * scale) + reach - grid.Height;
        return (Math.Max(0, Math.Min(-above, below > 0 ? grid.Height - below : grid.Height - 1)), Math.Min(grid.Height, Math.Max((last * scale) + reach, above)));
    }

    /// <summary>Some rows of the LR image, columns x block side / scale pixels wide.</summary>
    /// <param name="downscaler">The downscaler.</param>
    /// <param name="image">Image rows, at least those of <see cref="Needed"/>.</param>
    /// <param name="grid">The grid.</param>
    /// <param name="scale">Scale factor.</param>
    /// <param name="firstRow">First LR row.</param>
    /// <param name="rowCount">LR rows, all within the grid.</param>
    public static SampleMap Rows(IDownscaler downscaler, ImageRows image, BlockGrid grid, int scale, int firstRow, int rowCount)
    {
        int height = (grid.Height + scale - 1) / scale, first = Math.Min(firstRow, height - 1), end = Math.Min(firstRow + rowCount, height);
        SampleMap real = downscaler.Downscale(image, scale, first, end - first);
        int width = grid.Columns * grid.BlockSize / scale;
        if (real.Width == width && real.Height == rowCount)
            return real;
        var padded = new SampleMap(width, rowCount, real.BitDepth);
        real.CopyArea(0, firstRow - first, width, rowCount, padded.Samples);
        return padded;
    }

    /// <summary>Blocks cut out of rows that begin with a row of blocks.</summary>
    /// <param name="rows">LR rows of the grid at a scale.</param>
    /// <param name="side">Block side at that scale.</param>
    /// <param name="columns">Blocks in a row of blocks.</param>
    /// <param name="blocks">Raster numbers, 0 being the first block of the rows.</param>
    public static BlockBatch Cut(SampleMap rows, int side, int columns, IReadOnlyList<int> blocks)
    {
        var batch = new BlockBatch(blocks.Count, side, rows.BitDepth);
        for (int i = 0; i < blocks.Count; i++)
            rows.CopyArea(blocks[i] % columns * side, blocks[i] / columns * side, side, side, batch.Block(i));
        return batch;
    }
}

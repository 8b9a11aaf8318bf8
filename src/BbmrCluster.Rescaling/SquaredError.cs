using BbmrCluster.Imaging;

namespace BbmrCluster.Rescaling;

/// <summary>Squared error of Y between a raw strip and rows made for it, block by block as the scorer counts it.</summary>
public static class SquaredError
{
    /// <summary>One value per tile (per block where blocks are as large) over all rows of a strip, or of a part of one.</summary>
    /// <param name="raw">Samples of the image, with or without alpha; as wide as the image, at most a strip high.</param>
    /// <param name="rows">Rows of the same size and depth.</param>
    /// <param name="grid">The image's blocks.</param>
    /// <param name="colours">1 or 3: the channels before alpha.</param>
    public static double[] ByTile(PixelBuffer raw, PixelBuffer rows, BlockGrid grid, int colours)
    {
        int side = grid.StripHeight, columns = grid.Tiles;
        ushort[] reference = new ushort[side * side * 3], made = new ushort[side * side * 3];
        var sse = new double[columns];
        for (int column = 0; column < columns; column++)
        {
            StripPixels.CutBlock(raw, column, colours, side, reference);
            StripPixels.CutBlock(rows, column, colours, side, made);
            sse[column] = Metrics.BlockSse(reference, made, side, Math.Min(side, grid.Width - (column * side)), raw.Height, raw.BitDepth);
        }
        return sse;
    }

    /// <summary>Sum over some rows.</summary>
    public static double OfRows(PixelBuffer raw, PixelBuffer rows, BlockGrid grid, int colours, int first, int count) =>
        ByTile(raw.Crop(0, first, raw.Width, count), rows.Crop(0, first, rows.Width, count), grid, colours).Sum();
}

using BbmrCluster.Imaging;

namespace BbmrCluster.Work;

/// <summary>Squared error of Y between a raw strip and rows made for it, block by block as the scorer counts it.</summary>
internal static class SquaredError
{
    /// <summary>One value per tile (per block where blocks are as large) over all rows of a strip, or of a part of one.</summary>
    public static double[] ByTile(PixelBuffer raw, PixelBuffer rows, ImageFacts facts)
    {
        int side = facts.Grid.StripHeight, columns = facts.Grid.Tiles;
        ushort[] reference = new ushort[side * side * 3], made = new ushort[side * side * 3];
        var sse = new double[columns];
        for (int column = 0; column < columns; column++)
        {
            StripPixels.CutBlock(raw, column, facts.ColourChannels, side, reference);
            StripPixels.CutBlock(rows, column, facts.ColourChannels, side, made);
            sse[column] = Metrics.BlockSse(reference, made, side, Math.Min(side, facts.Width - (column * side)), raw.Height, facts.BitDepth);
        }
        return sse;
    }

    /// <summary>Sum over some rows.</summary>
    public static double OfRows(PixelBuffer raw, PixelBuffer rows, ImageFacts facts, int first, int count) =>
        ByTile(raw.Crop(0, first, raw.Width, count), rows.Crop(0, first, rows.Width, count), facts).Sum();
}

using BbmrCluster.Rescaling;

namespace BbmrCluster.Networks.Engine;

/// <summary>
/// A square of <see cref="BlockGrid.StripHeight"/> image pixels: what a network takes in one piece, with a halo around it, where
/// blocks see their neighbours. Tiles lie on a grid of their own, so what comes out does not depend on how work is cut.
/// </summary>
/// <param name="Strip">Strip.</param>
/// <param name="Column">Place in the strip.</param>
internal readonly record struct Tile(int Strip, int Column)
{
    /// <summary>Tiles that hold some consecutive blocks, raster order.</summary>
    public static Tile[] Holding(BlockGrid grid, int firstBlock, int blockCount)
    {
        int strip = grid.StripOf(firstBlock), end = grid.StripOf(firstBlock + blockCount - 1) + 1;
        return [.. from s in Enumerable.Range(strip, end - strip)
                   from column in Enumerable.Range(0, grid.Tiles)
                   let tile = new Tile(s, column)
                   where tile.Blocks(grid, firstBlock, blockCount).Any()
                   select tile];
    }

    /// <summary>The blocks of a range that lie in this tile, raster order.</summary>
    public IEnumerable<int> Blocks(BlockGrid grid, int firstBlock, int blockCount)
    {
        int across = grid.StripHeight / grid.BlockSize, firstColumn = Column * across, columns = Math.Min(across, grid.Columns - firstColumn);
        int firstRow = Strip * across, rows = Math.Min(across, grid.BlockRows - firstRow);
        for (int row = firstRow; row < firstRow + rows; row++)
        {
            for (int column = firstColumn; column < firstColumn + columns; column++)
            {
                int block = (row * grid.Columns) + column;
                if (block >= firstBlock && block < firstBlock + blockCount)
                    yield return block;
            }
        }
    }

    /// <summary>Cuts tiles with their halo out of LR rows; beyond the map its edge is repeated.</summary>
    /// <param name="tiles">Tiles.</param>
    /// <param name="map">LR rows of the grid at one scale.</param>
    /// <param name="firstRow">LR row of the map's first row.</param>
    /// <param name="side">Side of a tile at that scale.</param>
    /// <param name="halo">LR pixels around it.</param>
    public static MapBatch Cut(ReadOnlySpan<Tile> tiles, SampleMap map, int firstRow, int side, int halo)
    {
        int whole = side + (2 * halo), each = whole * whole * 3;
        var samples = new ushort[tiles.Length * each];
        for (int i = 0; i < tiles.Length; i++)
            map.CopyArea((tiles[i].Column * side) - halo, (tiles[i].Strip * side) - halo - firstRow, whole, whole, samples.AsSpan(i * each, each));
        return new MapBatch(tiles.Length, whole, whole, map.BitDepth, samples);
    }
}

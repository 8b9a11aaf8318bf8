namespace BbmrCluster.Rescaling;

/// <summary>
/// The grid of square blocks over an image (paper section 3.1): <c>ceil(W/size) x ceil(H/size)</c> blocks in raster
/// order. The last column and row of pixels are replicated to fill the grid and the result is cropped back. A strip is
/// one row of blocks or, for blocks smaller than <see cref="TileSize"/> that see their neighbours, several.
/// </summary>
public sealed record BlockGrid
{
    /// <summary>Side of a block in HR pixels, as in the paper.</summary>
    public const int DefaultBlockSize = 128;

    /// <summary>Image rows of a strip, and side of a tile, where blocks see their neighbours.</summary>
    public const int TileSize = 128;

    /// <summary>Lays the grid over an image.</summary>
    /// <param name="width">Image width, pixels, at least 1.</param>
    /// <param name="height">Image height, pixels, at least 1.</param>
    /// <param name="blockSize">Block side, HR pixels.</param>
    /// <param name="stripHeight">Image rows of a strip, a multiple of the block side; 0 takes one row of blocks.</param>
    public BlockGrid(int width, int height, int blockSize = DefaultBlockSize, int stripHeight = 0)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(height, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(blockSize, 1);
        (Width, Height, BlockSize, StripHeight) = (width, height, blockSize, stripHeight == 0 ? blockSize : stripHeight);
        if (StripHeight < blockSize || StripHeight % blockSize != 0)
            throw new ArgumentOutOfRangeException(nameof(stripHeight), stripHeight, $"A strip has whole rows of blocks of {blockSize} pixels.");
    }

    /// <summary>The grid of blocks that see their neighbours: strips of <see cref="TileSize"/> rows whatever the block side.</summary>
    public static BlockGrid OfTiles(int width, int height, int blockSize) => new(width, height, blockSize, TileSize);

    /// <summary>Image width, pixels.</summary>
    public int Width { get; }

    /// <summary>Image height, pixels.</summary>
    public int Height { get; }

    /// <summary>Block side, HR pixels.</summary>
    public int BlockSize { get; }

    /// <summary>Image rows of a strip.</summary>
    public int StripHeight { get; }

    /// <summary>Blocks in a row of blocks.</summary>
    public int Columns => (Width + BlockSize - 1) / BlockSize;

    /// <summary>Rows of blocks.</summary>
    public int BlockRows => (Height + BlockSize - 1) / BlockSize;

    /// <summary>Strips.</summary>
    public int Strips => (Height + StripHeight - 1) / StripHeight;

    /// <summary>Blocks in all (N of the paper).</summary>
    public int Count => checked(Columns * BlockRows);

    /// <summary>Blocks of a whole strip.</summary>
    public int BlocksPerStrip => Columns * (StripHeight / BlockSize);

    /// <summary>Tiles in a strip: the unit of work of a network.</summary>
    public int Tiles => (Width + StripHeight - 1) / StripHeight;

    /// <summary>First block of a strip.</summary>
    public int FirstBlockOf(int strip) => strip * BlocksPerStrip;

    /// <summary>Blocks of a strip; the last one may have fewer than the others.</summary>
    public int BlocksOf(int strip) => Math.Min(BlocksPerStrip, Count - FirstBlockOf(strip));

    /// <summary>The strip that holds a block.</summary>
    public int StripOf(int block) => block / BlocksPerStrip;

    /// <summary>Image rows of a strip that lie inside the image, 1 to <see cref="StripHeight"/>.</summary>
    public int RowsOf(int strip) => Math.Min(StripHeight, Height - (strip * StripHeight));

    /// <summary>The part of a block that lies inside the image.</summary>
    public BlockExtent ExtentOf(int block)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(block);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(block, Count);
        int x = block % Columns * BlockSize, y = block / Columns * BlockSize;
        return new BlockExtent(Math.Min(BlockSize, Width - x), Math.Min(BlockSize, Height - y));
    }
}

/// <summary>Pixels of a block that lie inside the image, from its top left corner.</summary>
/// <param name="Width">1 to the block size.</param>
/// <param name="Height">1 to the block size.</param>
public readonly record struct BlockExtent(int Width, int Height)
{
    /// <summary>Pixels inside the image.</summary>
    public int Pixels => Width * Height;
}

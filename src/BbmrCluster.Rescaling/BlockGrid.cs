namespace BbmrCluster.Rescaling;

/// <summary>
/// The grid of square blocks over an image (paper section 3.1): <c>ceil(W/size) x ceil(H/size)</c> blocks in raster
/// order. The last column and row of pixels are replicated to fill the grid and the result is cropped back.
/// </summary>
public sealed record BlockGrid
{
    /// <summary>Side of a block in HR pixels, as in the paper.</summary>
    public const int DefaultBlockSize = 128;

    /// <summary>Lays the grid over an image.</summary>
    /// <param name="width">Image width, pixels, at least 1.</param>
    /// <param name="height">Image height, pixels, at least 1.</param>
    /// <param name="blockSize">Block side, HR pixels.</param>
    public BlockGrid(int width, int height, int blockSize = DefaultBlockSize)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(height, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(blockSize, 1);
        (Width, Height, BlockSize) = (width, height, blockSize);
    }

    /// <summary>Image width, pixels.</summary>
    public int Width { get; }

    /// <summary>Image height, pixels.</summary>
    public int Height { get; }

    /// <summary>Block side, HR pixels.</summary>
    public int BlockSize { get; }

    /// <summary>Blocks in a strip.</summary>
    public int Columns => (Width + BlockSize - 1) / BlockSize;

    /// <summary>Strips (rows of blocks).</summary>
    public int Strips => (Height + BlockSize - 1) / BlockSize;

    /// <summary>Blocks in all (N of the paper).</summary>
    public int Count => checked(Columns * Strips);

    /// <summary>Image rows of a strip that lie inside the image, 1 to <see cref="BlockSize"/>.</summary>
    public int RowsOf(int strip) => Math.Min(BlockSize, Height - (strip * BlockSize));

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

using BbmrCluster.Imaging;
using FsCheck.Xunit;

namespace BbmrCluster.Rescaling.Tests;

public sealed class StripPixelsTests
{
    private const int Side = 8;

    /// <summary>Blocks cut and put together again are the image, whatever its size, depth, colours and alpha.</summary>
    [Property(MaxTest = 200)]
    public void Blocks_cut_and_joined_again_are_the_image(byte widthSeed, byte heightSeed, bool wide, bool grey, bool hasAlpha, int seed)
    {
        int colours = grey ? 1 : 3, width = 1 + (widthSeed % 40), height = 1 + (heightSeed % 40);
        PixelBuffer image = Noise(width, height, colours + (hasAlpha ? 1 : 0), wide ? 16 : 8, seed);
        var grid = new BlockGrid(width, height, Side);
        BlockBatch blocks = StripPixels.CutBlocks(image, colours, Side, [.. Enumerable.Range(0, grid.Count)]);

        var joined = new PixelBuffer(width, height, colours, image.BitDepth);
        double sse = 0;
        for (int strip = 0; strip < grid.Strips; strip++)
        {
            var rgb = new ushort[Side * grid.Columns * Side * 3];
            for (int column = 0; column < grid.Columns; column++)
            {
                ReadOnlySpan<ushort> block = blocks.Block((strip * grid.Columns) + column);
                for (int y = 0; y < Side; y++)
                    block.Slice(y * Side * 3, Side * 3).CopyTo(rgb.AsSpan(((y * grid.Columns) + column) * Side * 3));
            }
            int rows = grid.RowsOf(strip);
            StripPixels.Crop(rgb, grid.Columns * Side, joined, strip * Side, rows);
            PixelBuffer raw = image.Crop(0, strip * Side, width, rows), made = joined.Crop(0, strip * Side, width, rows);
            for (int column = 0; column < grid.Columns; column++)
            {
                var own = new ushort[Side * Side * 3];
                StripPixels.CutBlock(raw, column, colours, Side, own);
                Assert.Equal(blocks.Block((strip * grid.Columns) + column).ToArray(), own);
            }
            sse += SquaredError.ByTile(raw, made, grid, colours).Sum();
        }
        Assert.Equal(0, sse);
        Assert.Equal(image.Data, StripPixels.Join(joined, StripPixels.Alpha(image, hasAlpha), hasAlpha).Data);
    }

    [Fact]
    public void What_lies_beyond_the_image_is_its_last_column_and_row()
    {
        PixelBuffer image = Noise(Side + 3, Side + 2, 3, 8, 1);
        BlockBatch corner = StripPixels.CutBlocks(image, 3, Side, [3]);
        for (int y = 0; y < Side; y++)
        {
            for (int x = 0; x < Side; x++)
            {
                int from = ((Math.Min(Side + y, image.Height - 1) * image.Width) + Math.Min(Side + x, image.Width - 1)) * 3;
                for (int c = 0; c < 3; c++)
                    Assert.Equal(image.Data[from + c], corner.Samples[(((y * Side) + x) * 3) + c]);
            }
        }
    }

    [Fact]
    public void The_error_of_a_block_is_that_of_its_pixels_inside_the_image()
    {
        PixelBuffer raw = Noise(Side + 1, 3, 1, 16, 2), made = raw.Crop(0, 0, raw.Width, raw.Height);
        made.Samples16[Side] ^= 0x4000;
        double[] sse = SquaredError.ByTile(raw, made, new BlockGrid(raw.Width, raw.Height, Side), 1);
        // A quarter of the range of grey, which is 219 of Y in 8-bit units.
        double expected = Math.Pow(219 * 16_384 / 65_535.0, 2);
        Assert.Equal(0, sse[0]);
        Assert.Equal(expected, sse[1], 6);
        Assert.Equal(sse[1], SquaredError.OfRows(raw, made, new BlockGrid(raw.Width, raw.Height, Side), 1, 0, 1));
        Assert.Equal(0, SquaredError.OfRows(raw, made, new BlockGrid(raw.Width, raw.Height, Side), 1, 1, 2));
    }

    [Fact]
    public void A_feature_band_is_read_as_it_was_written_and_nothing_else_is()
    {
        var band = new FeatureBand(2, 3, 2, [.. Enumerable.Range(0, 12).Select(i => i / 3f)]);
        byte[] bytes = StripPixels.Encode(band);
        FeatureBand again = StripPixels.Decode(bytes);
        Assert.Equal((2, 3, 2), (again.Rows, again.Width, again.Channels));
        Assert.Equal(band.Values, again.Values);
        Assert.Throws<FormatException>(() => StripPixels.Decode(bytes[..^1]));
        Assert.Throws<FormatException>(() => StripPixels.Decode(bytes[..8]));
    }

    private static PixelBuffer Noise(int width, int height, int channels, int bitDepth, int seed)
    {
        var image = new PixelBuffer(width, height, channels, bitDepth);
        new Random(seed).NextBytes(image.Data);
        return image;
    }
}

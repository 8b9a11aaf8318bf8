using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Cli.Commands;

/// <summary>The small image that a container holds: its LR blocks side by side, those of other scales brought to one by bicubic.</summary>
internal static class Preview
{
    /// <summary>Writes it.</summary>
    /// <param name="reader">The container.</param>
    /// <param name="scale">One of its scales.</param>
    /// <param name="path">Output; the extension chooses the format.</param>
    /// <returns>Size in pixels: ceil(image / scale); and what of the metadata the file does not hold.</returns>
    public static (int Width, int Height, IReadOnlyList<string> Notes) Write(ContainerReader reader, int scale, string path)
    {
        ContainerHeader header = reader.Header;
        BlockGrid grid = header.Grid;
        int width = (header.Width + scale - 1) / scale, height = (header.Height + scale - 1) / scale, side = grid.BlockSize / scale;
        int sampleBytes = header.BitDepth / 8, channels = header.ColourChannels;
        var preview = new PixelBuffer(width, height, channels, header.BitDepth);
        for (int strip = 0; strip < grid.Strips; strip++)
        {
            UnpackedStrip unpacked = reader.UnpackStrip(strip);
            ReadOnlySpan<byte> indices = reader.ScaleIndexOf(strip);
            int[] next = new int[header.Scales.Count];
            for (int i = 0; i < indices.Length; i++)
            {
                int index = indices[i], column = i % grid.Columns;
                PixelBuffer block = ToBuffer(unpacked.ByScale[index], next[index]++, channels);
                if (header.Scales[index] != scale)
                    block = Bicubic.Resize(block, new ResizeScale(header.Scales[index], scale));
                int x = column * side, y = (strip * grid.StripHeight / scale) + (i / grid.Columns * side), columns = Math.Min(side, width - x), rows = Math.Min(side, height - y);
                for (int row = 0; row < rows; row++)
                    block.Data.AsSpan(row * block.RowBytes, columns * channels * sampleBytes).CopyTo(preview.Data.AsSpan(((y + row) * preview.RowBytes) + (x * channels * sampleBytes)));
            }
        }
        return (width, height, ImageEncoder.Encode(path, preview, header.Metadata, EncodeOptions.Default));
    }

    // Grey blocks come with their channel three times.
    private static PixelBuffer ToBuffer(BlockBatch batch, int block, int channels)
    {
        var buffer = new PixelBuffer(batch.Side, batch.Side, channels, batch.BitDepth);
        StripPixels.Crop(batch.Block(block), batch.Side, buffer, 0, batch.Side);
        return buffer;
    }
}

using System.Numerics;
using System.Runtime.InteropServices;
using BbmrCluster.Imaging;

namespace BbmrCluster.Rescaling;

/// <summary>Between strips of an image (interleaved samples as stored) and RGB blocks (as the networks take them).</summary>
public static class StripPixels
{
    /// <summary>
    /// Brings decoded rows to the channels and bits of the picture that was written: formats keep grey as three channels, drop a channel of nothing but
    /// the largest value, or hold fewer bits.
    /// </summary>
    public static PixelBuffer As(PixelBuffer decoded, ImageInfo written)
    {
        if (decoded.Channels == written.Channels && decoded.BitDepth == written.BitDepth)
            return decoded;
        var rows = new PixelBuffer(decoded.Width, decoded.Height, written.Channels, written.BitDepth);
        bool hasAlpha = decoded.Channels is 2 or 4;
        int colours = decoded.Channels - (hasAlpha ? 1 : 0);
        for (int i = 0; i < decoded.Width * decoded.Height; i++)
        {
            for (int c = 0; c < written.Channels; c++)
            {
                bool alpha = c == written.ColourChannels;
                int value = alpha && !hasAlpha ? decoded.MaxValue : Sample(decoded, (i * decoded.Channels) + (alpha ? colours : Math.Min(c, colours - 1)));
                Set(rows, (i * written.Channels) + c, (int)(((long)value * rows.MaxValue + (decoded.MaxValue / 2)) / decoded.MaxValue));
            }
        }
        return rows;
    }

    private static int Sample(PixelBuffer pixels, int at) => pixels.BitDepth == 8 ? pixels.Data[at] : pixels.Samples16[at];

    private static void Set(PixelBuffer pixels, int at, int value)
    {
        if (pixels.BitDepth == 8)
            pixels.Data[at] = (byte)value;
        else
            pixels.Samples16[at] = (ushort)value;
    }

    /// <summary>
    /// Cuts one block out of a raw strip, or out of an image: edge pixels replicated to the right and below, grey repeated,
    /// alpha left out.
    /// </summary>
    /// <param name="raw">The strip.</param>
    /// <param name="column">Block column.</param>
    /// <param name="colours">1 or 3: the channels before alpha.</param>
    /// <param name="side">Block side.</param>
    /// <param name="block">side x side x 3, filled by the call.</param>
    /// <param name="row">Block row; 0 in a strip.</param>
    public static void CutBlock(PixelBuffer raw, int column, int colours, int side, Span<ushort> block, int row = 0)
    {
        if (raw.BitDepth == 8)
            Cut<byte>(raw.Data, raw, column, colours, side, block, row);
        else
            Cut<ushort>(raw.Samples16, raw, column, colours, side, block, row);
    }

    /// <summary>Copies rows of a raw strip into an RGB map: grey repeated, alpha left out.</summary>
    /// <param name="raw">The strip, as wide as the map.</param>
    /// <param name="firstRow">First row of the strip.</param>
    /// <param name="rows">Rows.</param>
    /// <param name="colours">1 or 3: the channels before alpha.</param>
    /// <param name="map">The map.</param>
    /// <param name="target">Row of the map to begin with.</param>
    public static void CopyRows(PixelBuffer raw, int firstRow, int rows, int colours, SampleMap map, int target)
    {
        for (int y = 0; y < rows; y++)
        {
            if (raw.BitDepth == 8)
                CopyRow<byte>(raw.Data.AsSpan((firstRow + y) * raw.RowBytes, raw.RowBytes), raw.Channels, colours, map.Row(target + y, 0, map.Width));
            else
                CopyRow<ushort>(raw.Samples16.Slice((firstRow + y) * raw.Width * raw.Channels, raw.Width * raw.Channels), raw.Channels, colours, map.Row(target + y, 0, map.Width));
        }
    }

    private static void CopyRow<T>(ReadOnlySpan<T> samples, int channels, int colours, Span<ushort> rgb) where T : IBinaryInteger<T>
    {
        int green = colours == 3 ? 1 : 0, blue = colours == 3 ? 2 : 0;
        for (int i = 0, source = 0; i < rgb.Length; i += 3, source += channels)
        {
            rgb[i] = ushort.CreateTruncating(samples[source]);
            rgb[i + 1] = ushort.CreateTruncating(samples[source + green]);
            rgb[i + 2] = ushort.CreateTruncating(samples[source + blue]);
        }
    }

    /// <summary>Cuts blocks out of a whole image, as <see cref="CutBlock"/> does each.</summary>
    /// <param name="image">The image.</param>
    /// <param name="colours">1 or 3: the channels before alpha.</param>
    /// <param name="side">Block side.</param>
    /// <param name="which">Raster numbers of the blocks wanted.</param>
    public static BlockBatch CutBlocks(PixelBuffer image, int colours, int side, IReadOnlyList<int> which)
    {
        var blocks = new BlockBatch(which.Count, side, image.BitDepth);
        int columns = (image.Width + side - 1) / side;
        for (int i = 0; i < which.Count; i++)
            CutBlock(image, which[i] % columns, colours, side, blocks.Block(i), which[i] / columns);
        return blocks;
    }

    private static void Cut<T>(ReadOnlySpan<T> samples, PixelBuffer raw, int column, int colours, int side, Span<ushort> block, int row) where T : IBinaryInteger<T>
    {
        int left = column * side, top = row * side, inside = Math.Min(side, raw.Width - left), height = Math.Min(side, raw.Height - top);
        int green = colours == 3 ? 1 : 0, blue = colours == 3 ? 2 : 0;
        int rowLength = side * 3;
        for (int y = 0; y < side; y++)
        {
            Span<ushort> target = block.Slice(y * rowLength, rowLength);
            if (y >= height)
            {
                block.Slice((height - 1) * rowLength, rowLength).CopyTo(target);
                continue;
            }
            int source = (((top + y) * raw.Width) + left) * raw.Channels;
            for (int x = 0; x < inside; x++, source += raw.Channels)
            {
                target[x * 3] = ushort.CreateTruncating(samples[source]);
                target[(x * 3) + 1] = ushort.CreateTruncating(samples[source + green]);
                target[(x * 3) + 2] = ushort.CreateTruncating(samples[source + blue]);
            }
            for (int x = inside; x < side; x++)
                target.Slice((inside - 1) * 3, 3).CopyTo(target[(x * 3)..]);
        }
    }

    /// <summary>Alpha of a raw strip, its last channel; null when the image has none.</summary>
    public static PixelBuffer? Alpha(PixelBuffer raw, bool hasAlpha)
    {
        if (!hasAlpha)
            return null;
        var alpha = new PixelBuffer(raw.Width, raw.Height, 1, raw.BitDepth);
        int count = raw.Width * raw.Height;
        if (raw.BitDepth == 8)
        {
            for (int i = 0; i < count; i++)
                alpha.Data[i] = raw.Data[((i + 1) * raw.Channels) - 1];
        }
        else
        {
            Span<ushort> from = raw.Samples16, to = alpha.Samples16;
            for (int i = 0; i < count; i++)
                to[i] = from[((i + 1) * raw.Channels) - 1];
        }
        return alpha;
    }

    /// <summary>
    /// Crops RGB rows of a reconstruction to the image and brings them to its channels: grey is the rounded mean.
    /// </summary>
    /// <param name="rgb">At least <paramref name="target"/>.Height rows of <paramref name="stride"/> x 3 samples.</param>
    /// <param name="stride">Pixels in a row of <paramref name="rgb"/>.</param>
    /// <param name="target">The rows, filled from <paramref name="firstRow"/> on.</param>
    /// <param name="firstRow">First row of the target.</param>
    /// <param name="rows">Rows to fill.</param>
    public static void Crop(ReadOnlySpan<ushort> rgb, int stride, PixelBuffer target, int firstRow, int rows)
    {
        for (int y = 0; y < rows; y++)
        {
            ReadOnlySpan<ushort> source = rgb.Slice(y * stride * 3, target.Width * 3);
            Span<byte> row = target.Data.AsSpan((firstRow + y) * target.RowBytes, target.RowBytes);
            if (target.BitDepth == 16)
            {
                Span<ushort> wide = MemoryMarshal.Cast<byte, ushort>(row);
                if (target.Channels == 3)
                    source.CopyTo(wide);
                else
                {
                    for (int x = 0; x < wide.Length; x++)
                        wide[x] = (ushort)Mean(source.Slice(x * 3, 3));
                }
            }
            else if (target.Channels == 3)
            {
                for (int i = 0; i < source.Length; i++)
                    row[i] = (byte)source[i];
            }
            else
            {
                for (int x = 0; x < row.Length; x++)
                    row[x] = (byte)Mean(source.Slice(x * 3, 3));
            }
        }
    }

    /// <summary>Colours and alpha side by side, as an encoder takes them.</summary>
    public static PixelBuffer Join(PixelBuffer colours, PixelBuffer? alpha, bool hasAlpha)
    {
        if (!hasAlpha)
            return colours;
        var joined = new PixelBuffer(colours.Width, colours.Height, colours.Channels + 1, colours.BitDepth);
        int size = colours.BitDepth / 8, colourBytes = colours.Channels * size, count = colours.Width * colours.Height;
        for (int i = 0; i < count; i++)
        {
            Span<byte> pixel = joined.Data.AsSpan(i * (colourBytes + size), colourBytes + size);
            colours.Data.AsSpan(i * colourBytes, colourBytes).CopyTo(pixel);
            // A missing alpha is opaque: the largest value of either depth is all ones.
            if (alpha is null)
                pixel[colourBytes..].Fill(0xFF);
            else
                alpha.Data.AsSpan(i * size, size).CopyTo(pixel[colourBytes..]);
        }
        return joined;
    }

    /// <summary>A feature band as bytes: rows, width, channels (int32 each), then float32 values, little-endian.</summary>
    public static byte[] Encode(FeatureBand band)
    {
        var bytes = new byte[12 + (band.Values.Length * sizeof(float))];
        MemoryMarshal.Cast<int, byte>([band.Rows, band.Width, band.Channels]).CopyTo(bytes);
        MemoryMarshal.AsBytes(band.Values.AsSpan()).CopyTo(bytes.AsSpan(12));
        return bytes;
    }

    /// <summary>Reads <see cref="Encode"/>'s bytes.</summary>
    /// <exception cref="FormatException">They are not a band.</exception>
    public static FeatureBand Decode(byte[] bytes)
    {
        if (bytes.Length < 12)
            throw new FormatException("The bytes are not a feature band.");
        ReadOnlySpan<int> head = MemoryMarshal.Cast<byte, int>(bytes.AsSpan(0, 12));
        if (head[0] < 1 || head[1] < 1 || head[2] < 1 || (long)head[0] * head[1] * head[2] * sizeof(float) != bytes.Length - 12)
            throw new FormatException("The bytes are not a feature band.");
        return new FeatureBand(head[0], head[1], head[2], MemoryMarshal.Cast<byte, float>(bytes.AsSpan(12)).ToArray());
    }

    // Rounded half up.
    private static int Mean(ReadOnlySpan<ushort> rgb) => ((2 * (rgb[0] + rgb[1] + rgb[2])) + 3) / 6;
}

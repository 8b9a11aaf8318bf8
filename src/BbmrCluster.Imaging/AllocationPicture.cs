using System.Globalization;

namespace BbmrCluster.Imaging;

/// <summary>Draws which scale each block got: the picture, small, tinted block by block, over a legend.</summary>
public static class AllocationPicture
{
    private const int LongSide = 1600, ShortestLongSide = 640, LegendWidth = 560, MinGridPitch = 8;
    private const double Fade = 0.85, Tint = 0.42, Grid = 0.35;
    private static readonly Colour Paper = new(24, 26, 30), Ink = new(232, 232, 228), Quiet = new(150, 152, 156);

    /// <summary>From the finest scale (warm: many LR pixels) by the middle one (untinted grey) to the coarsest (cool).</summary>
    private static readonly Colour[] Fine = [new(255, 106, 26), new(255, 196, 61)], Coarse = [new(38, 132, 255), new(64, 205, 190)];
    private static readonly Colour Neutral = new(150, 150, 150);

    /// <summary>Writes a PNG whose longer side is at most about 1600 pixels; orientation is applied. Same input, same bytes.</summary>
    /// <param name="path">Output, a PNG; replaced when it exists.</param>
    /// <param name="info">The source image.</param>
    /// <param name="rawStripFiles">Its raw strips, top to bottom, as for <see cref="ImageEncoder"/>.</param>
    /// <param name="blockSize">Side of a block, pixels.</param>
    /// <param name="scales">The scale set, ascending.</param>
    /// <param name="scaleIndex">Index into <paramref name="scales"/> of each block in raster order.</param>
    /// <exception cref="InvalidDataException">The strips do not make up the image.</exception>
    /// <exception cref="OutputFullException">The disk is full.</exception>
    public static void Render(string path, ImageInfo info, IReadOnlyList<string> rawStripFiles, int blockSize, IReadOnlyList<int> scales, ReadOnlySpan<byte> scaleIndex)
    {
        int columns = (info.Width + blockSize - 1) / blockSize, rows = (info.Height + blockSize - 1) / blockSize;
        if (scaleIndex.Length != columns * rows)
            throw new ArgumentException($"{scaleIndex.Length} scales are not one for each of {columns}x{rows} blocks.", nameof(scaleIndex));
        int shrink = (Math.Max(info.Width, info.Height) + LongSide - 1) / LongSide;
        PixelBuffer picture = Shrink(info, rawStripFiles, shrink);
        int enlarge = Math.Clamp(ShortestLongSide / Math.Max(picture.Width, picture.Height), 1, 8);
        picture = Enlarge(picture, enlarge);
        Colour[] colours = [.. Enumerable.Range(0, scales.Count).Select(i => ColourOf(i, scales.Count))];
        Overlay(picture, (double)shrink / enlarge, blockSize, columns, scaleIndex, colours);
        picture = Turn(picture, info.Metadata.Orientation);

        long[] counts = new long[scales.Count];
        foreach (byte index in scaleIndex)
            counts[index]++;
        ImageEncoder.Encode(path, WithLegend(picture, scales, counts, colours), ImageMetadata.None, new EncodeOptions(Mark: true));
    }

    private static Colour ColourOf(int index, int count)
    {
        bool hasMiddle = count % 2 == 1;
        int half = count / 2;
        return index < half ? Fine[index]
            : hasMiddle && index == half ? Neutral
            : Coarse[count - 1 - index];
    }

    /// <summary>Means of shrink x shrink pixels as 8-bit RGB, read row by row.</summary>
    private static PixelBuffer Shrink(ImageInfo info, IReadOnlyList<string> files, int shrink)
    {
        int width = (info.Width + shrink - 1) / shrink, height = (info.Height + shrink - 1) / shrink;
        PixelBuffer small = new(width, height, 3, 8);
        PixelBuffer row = new(info.Width, 1, info.Channels, info.BitDepth);
        long[] sums = new long[width * 3];
        int y = 0;
        foreach (string file in files)
        {
            using FileStream stream = new(file, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16);
            for (; stream.Position < stream.Length; y++)
            {
                if (y >= info.Height || stream.ReadAtLeast(row.Data, row.Data.Length, throwOnEndOfStream: false) < row.Data.Length)
                    throw new InvalidDataException($"{file}: the strips do not make up an image of {info.Width}x{info.Height} pixels.");
                AddRow(row, info.ColourChannels, shrink, sums);
                bool last = y == info.Height - 1;
                if ((y + 1) % shrink != 0 && !last)
                    continue;
                int rows = (y % shrink) + 1, unit = info.BitDepth == 16 ? 257 : 1;
                for (int x = 0; x < width; x++)
                {
                    long pixels = (long)rows * Math.Min(shrink, info.Width - (x * shrink)) * unit;
                    for (int c = 0; c < 3; c++)
                        small.Data[(((y / shrink * width) + x) * 3) + c] = (byte)((sums[(x * 3) + c] + (pixels / 2)) / pixels);
                }

                Array.Clear(sums);
            }
        }

        return y == info.Height ? small : throw new InvalidDataException($"The strips hold {y} rows, the image has {info.Height}.");
    }

    private static void AddRow(PixelBuffer row, int colours, int shrink, long[] sums)
    {
        ReadOnlySpan<ushort> words = row.BitDepth == 16 ? row.Samples16 : default;
        for (int x = 0; x < row.Width; x++)
        {
            for (int c = 0; c < 3; c++)
            {
                int index = (x * row.Channels) + (colours == 1 ? 0 : c);
                sums[(x / shrink * 3) + c] += row.BitDepth == 8 ? row.Data[index] : words[index];
            }
        }
    }

    private static PixelBuffer Enlarge(PixelBuffer source, int factor)
    {
        PixelBuffer large = new(source.Width * factor, source.Height * factor, 3, 8);
        for (int i = 0; i < large.Width * large.Height; i++)
            source.Data.AsSpan(((i / large.Width / factor * source.Width) + (i % large.Width / factor)) * 3, 3).CopyTo(large.Data.AsSpan(i * 3));
        return large;
    }

    /// <summary>Tints the picture in place; a unit is the number of source pixels per picture pixel.</summary>
    private static void Overlay(PixelBuffer picture, double unit, int blockSize, int columns, ReadOnlySpan<byte> scaleIndex, Colour[] colours)
    {
        bool grid = blockSize / unit >= MinGridPitch;
        for (int y = 0; y < picture.Height; y++)
        {
            int row = (int)(y * unit / blockSize);
            bool edgeRow = grid && y > 0 && (int)((y - 1) * unit / blockSize) != row;
            for (int x = 0; x < picture.Width; x++)
            {
                int column = (int)(x * unit / blockSize);
                Span<byte> pixel = picture.Data.AsSpan(((y * picture.Width) + x) * 3, 3);
                // Light and dark stay those of the picture; its own colours fade, or a blue sky would look like a coarse scale.
                byte grey = (byte)(((pixel[0] * 77) + (pixel[1] * 151) + (pixel[2] * 28)) >> 8);
                Blend(pixel, new Colour(grey, grey, grey), Fade);
                Colour tint = colours[scaleIndex[(row * columns) + column]];
                if (tint != Neutral)
                    Blend(pixel, tint, Tint);
                if (edgeRow || (grid && x > 0 && (int)((x - 1) * unit / blockSize) != column))
                    Blend(pixel, Paper, Grid);
            }
        }
    }

    private static void Blend(Span<byte> pixel, Colour colour, double share)
    {
        pixel[0] = (byte)((pixel[0] * (1 - share)) + (colour.Red * share) + 0.5);
        pixel[1] = (byte)((pixel[1] * (1 - share)) + (colour.Green * share) + 0.5);
        pixel[2] = (byte)((pixel[2] * (1 - share)) + (colour.Blue * share) + 0.5);
    }

    /// <summary>Applies an EXIF orientation: the pixel at (x, y) of the upright picture is looked up in the stored one.</summary>
    private static PixelBuffer Turn(PixelBuffer stored, int orientation)
    {
        if (orientation == 1)
            return stored;
        bool swaps = orientation >= 5;
        int w = stored.Width, h = stored.Height;
        PixelBuffer upright = new(swaps ? h : w, swaps ? w : h, 3, 8);
        for (int y = 0; y < upright.Height; y++)
        {
            for (int x = 0; x < upright.Width; x++)
            {
                (int sx, int sy) = orientation switch
                {
                    2 => (w - 1 - x, y),
                    3 => (w - 1 - x, h - 1 - y),
                    4 => (x, h - 1 - y),
                    5 => (y, x),
                    6 => (y, h - 1 - x),
                    7 => (w - 1 - y, h - 1 - x),
                    _ => (w - 1 - y, x),
                };
                stored.Data.AsSpan(((sy * w) + sx) * 3, 3).CopyTo(upright.Data.AsSpan(((y * upright.Width) + x) * 3));
            }
        }

        return upright;
    }

    private static PixelBuffer WithLegend(PixelBuffer picture, IReadOnlyList<int> scales, long[] counts, Colour[] colours)
    {
        int width = Math.Max(picture.Width, LegendWidth), unit = Math.Clamp(width / 400, 1, 3);
        int line = 14 * unit, margin = 8 * unit, height = (scales.Count * line) + (2 * margin);
        PixelBuffer canvas = new(width, picture.Height + height, 3, 8);
        for (int i = 0; i < canvas.Data.Length; i += 3)
            (canvas.Data[i], canvas.Data[i + 1], canvas.Data[i + 2]) = (Paper.Red, Paper.Green, Paper.Blue);
        int left = (width - picture.Width) / 2;
        for (int y = 0; y < picture.Height; y++)
            picture.Data.AsSpan(y * picture.RowBytes, picture.RowBytes).CopyTo(canvas.Data.AsSpan((y * canvas.RowBytes) + (left * 3)));

        long blocks = Math.Max(1, counts.Sum());
        int digits = Math.Max(5, counts.Max().ToString(CultureInfo.InvariantCulture).Length);
        for (int i = 0; i < scales.Count; i++)
        {
            int top = picture.Height + margin + (i * line), x = margin;
            Fill(canvas, x, top + unit, 16 * unit, 9 * unit, colours[i]);
            x += 24 * unit;
            x = PixelFont.Draw(canvas, x, top + (2 * unit), unit, Ink, $"x{scales[i]}".PadRight(5));
            x = PixelFont.Draw(canvas, x, top + (2 * unit), unit, Ink, counts[i].ToString(CultureInfo.InvariantCulture).PadLeft(digits));
            x = PixelFont.Draw(canvas, x, top + (2 * unit), unit, Quiet, " blocks ");
            x = PixelFont.Draw(canvas, x, top + (2 * unit), unit, Ink, string.Create(CultureInfo.InvariantCulture, $"{100.0 * counts[i] / blocks,5:F1}%"));
            x += 8 * unit;
            int bar = (int)((width - margin - x) * counts[i] / blocks);
            if (bar > 0)
                Fill(canvas, x, top + (3 * unit), bar, 5 * unit, colours[i]);
        }

        return canvas;
    }

    private static void Fill(PixelBuffer canvas, int x, int y, int width, int height, Colour colour)
    {
        for (int row = y; row < Math.Min(canvas.Height, y + height); row++)
        {
            for (int column = x; column < Math.Min(canvas.Width, x + width); column++)
            {
                int at = ((row * canvas.Width) + column) * 3;
                (canvas.Data[at], canvas.Data[at + 1], canvas.Data[at + 2]) = (colour.Red, colour.Green, colour.Blue);
            }
        }
    }

    /// <summary>The few letters of the legend, 5x7 pixels each: no font of the system is needed, so the bytes are the same everywhere.</summary>
    private static class PixelFont
    {
        private const int Advance = 6, Rows = 7;

        private static readonly Dictionary<char, byte[]> Glyphs = new()
        {
            ['0'] = [0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E],
            ['1'] = [0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E],
            ['2'] = [0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F],
            ['3'] = [0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E],
            ['4'] = [0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02],
            ['5'] = [0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E],
            ['6'] = [0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E],
            ['7'] = [0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
            ['8'] = [0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E],
            ['9'] = [0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C],
            ['.'] = [0x00, 0x00, 0x00, 0x00, 0x00, 0x0C, 0x0C],
            ['%'] = [0x18, 0x19, 0x02, 0x04, 0x08, 0x13, 0x03],
            ['x'] = [0x00, 0x00, 0x11, 0x0A, 0x04, 0x0A, 0x11],
            ['b'] = [0x10, 0x10, 0x16, 0x19, 0x11, 0x11, 0x1E],
            ['l'] = [0x0C, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E],
            ['o'] = [0x00, 0x00, 0x0E, 0x11, 0x11, 0x11, 0x0E],
            ['c'] = [0x00, 0x00, 0x0E, 0x10, 0x10, 0x11, 0x0E],
            ['k'] = [0x10, 0x10, 0x12, 0x14, 0x18, 0x14, 0x12],
            ['s'] = [0x00, 0x00, 0x0E, 0x10, 0x0E, 0x01, 0x1E],
        };

        /// <summary>Draws a line of text and returns where the next one goes on.</summary>
        public static int Draw(PixelBuffer canvas, int x, int y, int unit, Colour colour, string text)
        {
            foreach (char letter in text)
            {
                if (Glyphs.TryGetValue(letter, out byte[]? glyph))
                {
                    for (int i = 0; i < Rows * 5; i++)
                    {
                        if ((glyph[i / 5] >> (4 - (i % 5)) & 1) != 0)
                            Fill(canvas, x + (i % 5 * unit), y + (i / 5 * unit), unit, unit, colour);
                    }
                }

                x += Advance * unit;
            }

            return x;
        }
    }

    private readonly record struct Colour(byte Red, byte Green, byte Blue);
}

namespace BbmrCluster.Imaging;

/// <summary>Quality of an image against its reference; a figure that does not exist is null.</summary>
/// <param name="PsnrY">dB on unrounded Y, at most 100.</param>
/// <param name="PsnrRgb">dB over R, G and B, at most 100.</param>
/// <param name="SsimY">Mean SSIM of Y; null when a side is below 11 pixels.</param>
/// <param name="Seam">Ratio of error steps across block borders to those elsewhere; null without borders or without any error elsewhere.</param>
/// <param name="SseY">Sum of squared errors of Y in 8-bit units.</param>
public sealed record ImageQuality(double PsnrY, double PsnrRgb, double? SsimY, double? Seam, double SseY);

/// <summary>
/// Quality figures. Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, not rounded; grey counts as R = G = B, alpha does
/// not count, 16-bit values are divided by 257.
/// </summary>
public static class Metrics
{
    /// <summary>The largest PSNR given, dB: also that of equal images.</summary>
    public const double MaxPsnr = 100;

    /// <summary>Compares two whole images.</summary>
    /// <param name="reference">The original.</param>
    /// <param name="image">Same width and height; depth and channels may differ.</param>
    /// <param name="crop">Pixels left out at each side.</param>
    /// <param name="blockSize">Pitch of the block borders for the seam figure.</param>
    /// <exception cref="ArgumentException">Sizes differ or nothing is left after the crop.</exception>
    public static ImageQuality Compare(PixelBuffer reference, PixelBuffer image, int crop = 0, int blockSize = 128)
    {
        QualityAccumulator accumulator = new(reference.Width, reference.Height, crop, blockSize);
        accumulator.Add(reference, image);
        return accumulator.Result();
    }

    /// <summary>PSNR of a sum of squared errors over so many values, dB, at most <see cref="MaxPsnr"/>.</summary>
    public static double Psnr(double sse, long values) =>
        sse <= 0 ? MaxPsnr : Math.Min(MaxPsnr, 10 * Math.Log10(255.0 * 255.0 * values / sse));

    /// <summary>
    /// Sum of squared Y differences of two RGB blocks over the part that lies inside the image, in double precision in
    /// raster order.
    /// </summary>
    /// <param name="reference">side x side x 3.</param>
    /// <param name="block">side x side x 3.</param>
    /// <param name="side">Pixels a side.</param>
    /// <param name="width">Columns that count, from the left.</param>
    /// <param name="height">Rows that count, from the top.</param>
    /// <param name="bitDepth">8 or 16.</param>
    public static double BlockSse(ReadOnlySpan<ushort> reference, ReadOnlySpan<ushort> block, int side, int width, int height, int bitDepth) =>
        AreaSse(reference, side, block, side, width, height, bitDepth);

    /// <summary>The same over areas that lie in larger maps.</summary>
    /// <param name="reference">From the area's first sample on.</param>
    /// <param name="referenceWidth">Pixels in a row of the reference's map.</param>
    /// <param name="made">From the area's first sample on.</param>
    /// <param name="madeWidth">Pixels in a row of the other map.</param>
    /// <param name="width">Columns of the area.</param>
    /// <param name="height">Rows of the area.</param>
    /// <param name="bitDepth">8 or 16.</param>
    public static double AreaSse(ReadOnlySpan<ushort> reference, int referenceWidth, ReadOnlySpan<ushort> made, int madeWidth, int width, int height, int bitDepth)
    {
        double sum = 0;
        for (int y = 0; y < height; y++)
        {
            ReadOnlySpan<ushort> a = reference.Slice(y * referenceWidth * 3, width * 3), b = made.Slice(y * madeWidth * 3, width * 3);
            for (int i = 0; i < a.Length; i += 3)
            {
                double difference = Luma.Of(a[i], a[i + 1], a[i + 2], bitDepth) - Luma.Of(b[i], b[i + 1], b[i + 2], bitDepth);
                sum += difference * difference;
            }
        }

        return sum;
    }
}

/// <summary>The Y of BT.601 in 16..235, not rounded, in 8-bit units.</summary>
internal static class Luma
{
    public static double Of(int red, int green, int blue, int bitDepth)
    {
        double weighted = (65.481 * red) + (128.553 * green) + (24.966 * blue);
        return 16 + (bitDepth == 8 ? weighted / 255 : weighted / 65_535);
    }

    /// <summary>RGB of a part of a row in 8-bit units, interleaved; grey is repeated, alpha left out.</summary>
    public static void Row(PixelBuffer image, int y, int x, Span<double> rgb)
    {
        int colours = image.Channels < 3 ? 1 : 3, pixels = rgb.Length / 3;
        int start = ((y * image.Width) + x) * image.Channels;
        ReadOnlySpan<byte> bytes = image.Data;
        ReadOnlySpan<ushort> words = image.BitDepth == 16 ? image.Samples16 : default;
        for (int i = 0; i < pixels; i++)
        {
            for (int c = 0; c < 3; c++)
            {
                int index = start + (i * image.Channels) + (colours == 1 ? 0 : c);
                rgb[(i * 3) + c] = image.BitDepth == 8 ? bytes[index] : words[index] / 257.0;
            }
        }
    }

    public static void FromRgb(ReadOnlySpan<double> rgb, Span<double> y)
    {
        for (int i = 0; i < y.Length; i++)
            y[i] = 16 + (((65.481 * rgb[i * 3]) + (128.553 * rgb[(i * 3) + 1]) + (24.966 * rgb[(i * 3) + 2])) / 255);
    }
}

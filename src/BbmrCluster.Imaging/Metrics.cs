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
    public static double BlockSse(ReadOnlySpan<ushort> reference, ReadOnlySpan<ushort> block, int side, int width, int height, int bitDepth) => throw new NotSupportedException();
}

/// <summary>Compares two images strip by strip, in bounded memory, with the same result as all at once.</summary>
public sealed class QualityAccumulator
{
    /// <summary>Prepares for two images of one size.</summary>
    /// <exception cref="ArgumentException">Nothing is left after the crop.</exception>
    public QualityAccumulator(int width, int height, int crop = 0, int blockSize = 128)
    {
    }

    /// <summary>Takes the next rows of both images.</summary>
    /// <exception cref="ArgumentException">Sizes differ, or more rows than the image has.</exception>
    public void Add(PixelBuffer reference, PixelBuffer image) => throw new NotSupportedException();

    /// <summary>The figures, once all rows are in.</summary>
    /// <exception cref="InvalidOperationException">Rows are missing.</exception>
    public ImageQuality Result() => throw new NotSupportedException();
}

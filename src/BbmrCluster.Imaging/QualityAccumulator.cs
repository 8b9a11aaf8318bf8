using System.Numerics;
using System.Runtime.InteropServices;

namespace BbmrCluster.Imaging;

/// <summary>
/// Compares two images strip by strip, in memory of some rows, with the same result to the last bit as all at once:
/// every sum runs over whole rows from the top.
/// </summary>
public sealed class QualityAccumulator
{
    private readonly int _width, _height, _crop, _blockSize, _columns;
    private readonly double[] _rgbReference, _rgbImage, _lumaReference, _lumaImage, _error, _errorAbove;
    private readonly SsimAccumulator _ssim;
    private int _row;
    private double _sseY, _sseRgb, _borderSum, _otherSum;
    private long _borderCount, _otherCount;

    /// <summary>Prepares for two images of one size.</summary>
    /// <param name="width">Pixels.</param>
    /// <param name="height">Pixels.</param>
    /// <param name="crop">Pixels left out at each side.</param>
    /// <param name="blockSize">Pitch of the block borders from the upper left corner of the uncropped image.</param>
    /// <exception cref="ArgumentException">Nothing is left after the crop.</exception>
    public QualityAccumulator(int width, int height, int crop = 0, int blockSize = 128)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(crop);
        ArgumentOutOfRangeException.ThrowIfLessThan(blockSize, 1);
        _columns = width - (2 * crop);
        if (_columns < 1 || height - (2 * crop) < 1)
            throw new ArgumentException($"Nothing is left of {width}x{height} pixels when {crop} are cropped at each side.", nameof(crop));
        (_width, _height, _crop, _blockSize) = (width, height, crop, blockSize);
        (_rgbReference, _rgbImage) = (new double[_columns * 3], new double[_columns * 3]);
        (_lumaReference, _lumaImage, _error, _errorAbove) = (new double[_columns], new double[_columns], new double[_columns], new double[_columns]);
        _ssim = new SsimAccumulator(_columns);
    }

    /// <summary>Takes the next rows of both images.</summary>
    /// <exception cref="ArgumentException">Sizes differ, or more rows than the image has.</exception>
    public void Add(PixelBuffer reference, PixelBuffer image)
    {
        if (reference.Width != image.Width || reference.Height != image.Height)
            throw new ArgumentException($"The images differ in size: {reference.Width}x{reference.Height} and {image.Width}x{image.Height} pixels.", nameof(image));
        if (reference.Width != _width || _row + reference.Height > _height)
            throw new ArgumentException($"{reference.Height} rows of {reference.Width} pixels do not fit after row {_row} of {_width}x{_height}.", nameof(reference));
        for (int y = 0; y < reference.Height; y++, _row++)
        {
            if (_row >= _crop && _row < _height - _crop)
                AddRow(reference, image, y);
        }
    }

    /// <summary>The figures, once all rows are in.</summary>
    /// <exception cref="InvalidOperationException">Rows are missing.</exception>
    public ImageQuality Result()
    {
        if (_row != _height)
            throw new InvalidOperationException($"{_row} of {_height} rows were compared.");
        long pixels = (long)_columns * (_height - (2 * _crop));
        double? seam = _borderCount > 0 && _otherSum > 0
            ? Math.Sqrt(_borderSum / _borderCount) / Math.Sqrt(_otherSum / _otherCount)
            : null;
        return new ImageQuality(Metrics.Psnr(_sseY, pixels), Metrics.Psnr(_sseRgb, pixels * 3), _ssim.Mean, seam, _sseY);
    }

    private void AddRow(PixelBuffer reference, PixelBuffer image, int y)
    {
        Luma.Row(reference, y, _crop, _rgbReference);
        Luma.Row(image, y, _crop, _rgbImage);
        Luma.FromRgb(_rgbReference, _lumaReference);
        Luma.FromRgb(_rgbImage, _lumaImage);
        double rgb = 0, luma = 0, border = 0, other = 0;
        for (int i = 0; i < _rgbReference.Length; i++)
        {
            double difference = _rgbImage[i] - _rgbReference[i];
            rgb += difference * difference;
        }

        for (int x = 0; x < _columns; x++)
        {
            _error[x] = _lumaImage[x] - _lumaReference[x];
            luma += _error[x] * _error[x];
        }

        int borders = 0;
        for (int x = 1; x < _columns; x++)
        {
            double step = _error[x] - _error[x - 1];
            if ((x + _crop) % _blockSize == 0)
            {
                border += step * step;
                borders++;
            }
            else
            {
                other += step * step;
            }
        }

        _borderCount += borders;
        _otherCount += _columns - 1 - borders;
        if (_row > _crop)
        {
            double down = 0;
            for (int x = 0; x < _columns; x++)
                down += (_error[x] - _errorAbove[x]) * (_error[x] - _errorAbove[x]);
            if (_row % _blockSize == 0)
            {
                border += down;
                _borderCount += _columns;
            }
            else
            {
                other += down;
                _otherCount += _columns;
            }
        }

        _error.CopyTo(_errorAbove, 0);
        (_sseRgb, _sseY, _borderSum, _otherSum) = (_sseRgb + rgb, _sseY + luma, _borderSum + border, _otherSum + other);
        _ssim.Add(_lumaReference, _lumaImage);
    }
}

/// <summary>
/// SSIM as published: Gaussian window 11x11 with sigma 1.5 over the valid area, K1 = 0.01, K2 = 0.03, L = 255. The window
/// is separable: rows are filtered along x as they come, the last eleven along y.
/// </summary>
internal sealed class SsimAccumulator
{
    private const int Window = 11, Moments = 5;
    private const double C1 = 0.01 * 255 * 0.01 * 255, C2 = 0.03 * 255 * 0.03 * 255;
    private static readonly double[] Gaussian = MakeGaussian();

    private readonly int _valid;
    private readonly double[][] _ring;
    private readonly double[] _product, _columnSums;
    private int _rows;
    private double _sum;
    private long _count;

    public SsimAccumulator(int width)
    {
        _valid = Math.Max(0, width - Window + 1);
        _ring = new double[Window][];
        for (int i = 0; i < Window; i++)
            _ring[i] = new double[_valid * Moments];
        (_product, _columnSums) = (new double[width], new double[_valid * Moments]);
    }

    /// <summary>Mean over the valid area, null when there is none.</summary>
    public double? Mean => _count == 0 ? null : _sum / _count;

    public void Add(ReadOnlySpan<double> a, ReadOnlySpan<double> b)
    {
        if (_valid == 0)
            return;
        double[] row = _ring[_rows++ % Window];
        Filter(a, row.AsSpan(0, _valid));
        Filter(b, row.AsSpan(_valid, _valid));
        Filter(Product(a, a), row.AsSpan(2 * _valid, _valid));
        Filter(Product(b, b), row.AsSpan(3 * _valid, _valid));
        Filter(Product(a, b), row.AsSpan(4 * _valid, _valid));
        if (_rows < Window)
            return;
        Array.Clear(_columnSums);
        for (int t = 0; t < Window; t++)
            AddScaled(_ring[(_rows + t) % Window], Gaussian[t], _columnSums);
        double sum = 0;
        for (int x = 0; x < _valid; x++)
        {
            double meanA = _columnSums[x], meanB = _columnSums[_valid + x];
            double varianceA = _columnSums[(2 * _valid) + x] - (meanA * meanA), varianceB = _columnSums[(3 * _valid) + x] - (meanB * meanB);
            double covariance = _columnSums[(4 * _valid) + x] - (meanA * meanB);
            sum += ((2 * meanA * meanB) + C1) * ((2 * covariance) + C2) / (((meanA * meanA) + (meanB * meanB) + C1) * (varianceA + varianceB + C2));
        }

        _sum += sum;
        _count += _valid;
    }

    private ReadOnlySpan<double> Product(ReadOnlySpan<double> a, ReadOnlySpan<double> b)
    {
        for (int i = 0; i < _product.Length; i++)
            _product[i] = a[i] * b[i];
        return _product;
    }

    private static void Filter(ReadOnlySpan<double> source, Span<double> target)
    {
        target.Clear();
        for (int t = 0; t < Window; t++)
            AddScaled(source.Slice(t, target.Length), Gaussian[t], target);
    }

    /// <summary>target += source x weight.</summary>
    internal static void AddScaled(ReadOnlySpan<double> source, double weight, Span<double> target)
    {
        ReadOnlySpan<Vector<double>> from = MemoryMarshal.Cast<double, Vector<double>>(source);
        Span<Vector<double>> to = MemoryMarshal.Cast<double, Vector<double>>(target);
        for (int i = 0; i < to.Length; i++)
            to[i] += from[i] * weight;
        for (int i = to.Length * Vector<double>.Count; i < target.Length; i++)
            target[i] += source[i] * weight;
    }

    private static double[] MakeGaussian()
    {
        double[] values = [.. Enumerable.Range(-(Window / 2), Window).Select(x => Math.Exp(-x * x / (2 * 1.5 * 1.5)))];
        double sum = values.Sum();
        return [.. values.Select(v => v / sum)];
    }
}

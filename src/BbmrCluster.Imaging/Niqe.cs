namespace BbmrCluster.Imaging;

/// <summary>
/// NIQE: naturalness of a picture without a reference, lower is better (Mittal, Soundararajan, Bovik, "Making a completely
/// blind image quality analyzer", 2013). Y rounded to whole numbers, blocks of 96 pixels at full and half size.
/// </summary>
public static class Niqe
{
    private const int Block = 96, BlockFeatures = NiqeParameters.Features / 2;
    private static readonly GammaTable Table = new();

    /// <summary>Scores a picture.</summary>
    /// <param name="image">8 or 16 bits; grey counts as R = G = B, alpha does not count.</param>
    /// <param name="parameters">The pristine model.</param>
    /// <param name="crop">Pixels left out at each side.</param>
    /// <returns>The score, or null when fewer than two whole blocks with texture lie inside.</returns>
    public static double? Score(PixelBuffer image, NiqeParameters parameters, int crop = 0)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(crop);
        int columns = (image.Width - (2 * crop)) / Block, rows = (image.Height - (2 * crop)) / Block;
        if (columns < 1 || rows < 1 || columns * rows < 2)
            return null;
        int width = columns * Block, height = rows * Block;
        double[] luma = new double[width * height], rgb = new double[width * 3];
        for (int y = 0; y < height; y++)
        {
            Span<double> line = luma.AsSpan(y * width, width);
            Luma.Row(image, y + crop, crop, rgb);
            Luma.FromRgb(rgb, line);
            for (int x = 0; x < width; x++)
                line[x] = Math.Round(line[x]);
        }

        double[][] features = new double[columns * rows][];
        for (int i = 0; i < features.Length; i++)
            features[i] = new double[NiqeParameters.Features];
        AddFeatures(luma, width, height, Block, parameters.Window, features, 0);
        double[] half = Bicubic.Resize(luma, width, height, 1, ResizeScale.Down(2));
        AddFeatures(half, width / 2, height / 2, Block / 2, parameters.Window, features, BlockFeatures);
        return Distance(features, parameters);
    }

    private static void AddFeatures(double[] image, int width, int height, int block, double[,] window, double[][] features, int offset)
    {
        int columns = width / block;
        double[] normalised = new double[width * block], one = new double[block * block], product = new double[block * block];
        Normaliser normaliser = new(width, window);
        for (int row = 0; row < height / block; row++)
        {
            normaliser.Fill(image, height, row * block, block, normalised);
            for (int column = 0; column < columns; column++)
            {
                for (int y = 0; y < block; y++)
                    normalised.AsSpan((y * width) + (column * block), block).CopyTo(one.AsSpan(y * block));
                BlockFeaturesOf(one, block, product, features[(row * columns) + column].AsSpan(offset, BlockFeatures));
            }
        }
    }

    private static void BlockFeaturesOf(double[] values, int side, double[] product, Span<double> features)
    {
        Fit fit = Fit.Of(values, Table);
        (features[0], features[1]) = (fit.Alpha, (fit.BetaLeft + fit.BetaRight) / 2);
        ReadOnlySpan<(int Y, int X)> shifts = [(0, 1), (1, 0), (1, 1), (1, -1)];
        for (int s = 0; s < shifts.Length; s++)
        {
            for (int y = 0; y < side; y++)
            {
                int from = (y - shifts[s].Y + side) % side * side;
                for (int x = 0; x < side; x++)
                    product[(y * side) + x] = values[(y * side) + x] * values[from + ((x - shifts[s].X + side) % side)];
            }

            fit = Fit.Of(product, Table);
            Span<double> four = features.Slice(2 + (s * 4), 4);
            four[0] = fit.Alpha;
            four[1] = (fit.BetaRight - fit.BetaLeft) * GammaTable.Gamma(2 / fit.Alpha) / GammaTable.Gamma(1 / fit.Alpha);
            (four[2], four[3]) = (fit.BetaLeft, fit.BetaRight);
        }
    }

    private static double? Distance(double[][] features, NiqeParameters parameters)
    {
        const int Size = NiqeParameters.Features;
        double[] mean = new double[Size];
        for (int i = 0; i < Size; i++)
        {
            double[] known = [.. features.Select(f => f[i]).Where(v => !double.IsNaN(v))];
            if (known.Length == 0)
                return null;
            mean[i] = known.Average();
        }

        // Flat blocks have no fit: they count in the mean by what they have, and not at all in the covariance.
        double[][] whole = [.. features.Where(f => !Array.Exists(f, double.IsNaN))];
        if (whole.Length < 2)
            return null;
        double[] centre = [.. Enumerable.Range(0, Size).Select(i => whole.Average(f => f[i]))];
        double[,] matrix = new double[Size, Size];
        for (int i = 0; i < Size; i++)
        {
            for (int j = 0; j <= i; j++)
            {
                double sum = 0;
                foreach (double[] f in whole)
                    sum += (f[i] - centre[i]) * (f[j] - centre[j]);
                matrix[i, j] = matrix[j, i] = ((sum / (whole.Length - 1)) + parameters.Covariance[i, j]) / 2;
            }
        }

        double[] difference = [.. mean.Select((m, i) => parameters.Mean[i] - m)];
        return Math.Sqrt(SymmetricForm.PseudoInverse(matrix, difference));
    }

    /// <summary>(I - mean) / (sigma + 1) with a 7x7 window and replicated edges, for some rows at a time.</summary>
    private sealed class Normaliser(int width, double[,] window)
    {
        private const int Radius = NiqeParameters.WindowSide / 2;
        private readonly double[] _line = new double[width + (2 * Radius)], _squares = new double[width + (2 * Radius)];
        private readonly double[] _mean = new double[width], _meanOfSquares = new double[width];

        public void Fill(double[] image, int height, int top, int rows, double[] target)
        {
            for (int y = 0; y < rows; y++)
            {
                Array.Clear(_mean);
                Array.Clear(_meanOfSquares);
                for (int dy = -Radius; dy <= Radius; dy++)
                {
                    Load(image.AsSpan(Math.Clamp(top + y + dy, 0, height - 1) * width, width));
                    for (int dx = 0; dx < NiqeParameters.WindowSide; dx++)
                    {
                        double weight = window[dy + Radius, dx];
                        SsimAccumulator.AddScaled(_line.AsSpan(dx, width), weight, _mean);
                        SsimAccumulator.AddScaled(_squares.AsSpan(dx, width), weight, _meanOfSquares);
                    }
                }

                for (int x = 0; x < width; x++)
                {
                    // Rounded to float32: otherwise flat areas would be measured by the rounding errors of the window's sum.
                    float mean = (float)_mean[x];
                    float sigma = MathF.Sqrt(MathF.Abs((float)_meanOfSquares[x] - (mean * mean)));
                    target[(y * width) + x] = ((float)image[((top + y) * width) + x] - mean) / (sigma + 1);
                }
            }
        }

        private void Load(ReadOnlySpan<double> row)
        {
            for (int x = 0; x < _line.Length; x++)
            {
                _line[x] = row[Math.Clamp(x - Radius, 0, width - 1)];
                _squares[x] = _line[x] * _line[x];
            }
        }
    }

    /// <summary>Fit of an asymmetric generalised Gaussian; betas are NaN where one side has no samples.</summary>
    private readonly record struct Fit(double Alpha, double BetaLeft, double BetaRight)
    {
        public static Fit Of(ReadOnlySpan<double> values, GammaTable table)
        {
            double left = 0, right = 0, magnitude = 0;
            long leftCount = 0, rightCount = 0;
            foreach (double v in values)
            {
                magnitude += Math.Abs(v);
                if (v < 0)
                {
                    left += v * v;
                    leftCount++;
                }
                else if (v > 0)
                {
                    right += v * v;
                    rightCount++;
                }
            }

            double leftDeviation = Math.Sqrt(left / leftCount), rightDeviation = Math.Sqrt(right / rightCount), g = leftDeviation / rightDeviation;
            double mean = magnitude / values.Length, ratio = mean * mean / ((left + right) / values.Length);
            double normal = ratio * ((g * g * g) + 1) * (g + 1) / (((g * g) + 1) * ((g * g) + 1));
            double alpha = table.Nearest(normal);
            double scale = Math.Sqrt(GammaTable.Gamma(1 / alpha) / GammaTable.Gamma(3 / alpha));
            return new Fit(alpha, leftDeviation * scale, rightDeviation * scale);
        }
    }
}

/// <summary>r(a) = G(2/a)^2 / (G(1/a) G(3/a)) for a = 0.2, 0.201 ... 10, which rises with a.</summary>
internal sealed class GammaTable
{
    private static readonly double[] Lanczos =
    [
        0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
        12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
    ];

    private readonly double[] _ratios = [.. Enumerable.Range(0, 9801).Select(i => Ratio(Alpha(i)))];

    /// <summary>The a whose r is nearest; the first one when nothing can be compared (NaN).</summary>
    public double Nearest(double ratio)
    {
        if (double.IsNaN(ratio))
            return Alpha(0);
        int index = Array.BinarySearch(_ratios, ratio);
        if (index >= 0)
            return Alpha(index);
        int above = Math.Min(~index, _ratios.Length - 1), below = Math.Max(above - 1, 0);
        return Alpha(ratio - _ratios[below] <= _ratios[above] - ratio ? below : above);
    }

    /// <summary>The gamma function for positive arguments (Lanczos, g = 7, nine terms: 15 digits).</summary>
    public static double Gamma(double x)
    {
        if (x < 0.5)
            return Math.PI / (Math.Sin(Math.PI * x) * Gamma(1 - x));
        x -= 1;
        double sum = Lanczos[0];
        for (int i = 1; i < Lanczos.Length; i++)
            sum += Lanczos[i] / (x + i);
        double t = x + 7.5;
        return Math.Sqrt(2 * Math.PI) * Math.Pow(t, x + 0.5) * Math.Exp(-t) * sum;
    }

    private static double Alpha(int index) => 0.2 + (index * 0.001);

    private static double Ratio(double alpha) => Gamma(2 / alpha) * Gamma(2 / alpha) / (Gamma(1 / alpha) * Gamma(3 / alpha));
}

/// <summary>Quadratic forms with the pseudo-inverse of a symmetric matrix.</summary>
internal static class SymmetricForm
{
    /// <summary>v pinv(M) v^T by the eigenvalues of M (cyclic Jacobi); those below 1e-15 of the largest count as zero.</summary>
    public static double PseudoInverse(double[,] matrix, double[] vector)
    {
        int n = vector.Length;
        double[,] a = (double[,])matrix.Clone();
        double[] v = [.. vector];
        for (int sweep = 0; sweep < 60 && OffDiagonal(a) > 0; sweep++)
        {
            for (int p = 0; p < n - 1; p++)
            {
                for (int q = p + 1; q < n; q++)
                    Rotate(a, v, p, q);
            }
        }

        double largest = Enumerable.Range(0, n).Max(i => Math.Abs(a[i, i]));
        return Enumerable.Range(0, n).Where(i => Math.Abs(a[i, i]) > 1e-15 * largest).Sum(i => v[i] * v[i] / a[i, i]);
    }

    private static double OffDiagonal(double[,] a)
    {
        double sum = 0, diagonal = 0;
        for (int i = 0; i < a.GetLength(0); i++)
        {
            diagonal += a[i, i] * a[i, i];
            for (int j = 0; j < i; j++)
                sum += a[i, j] * a[i, j];
        }

        return sum > 1e-40 * diagonal ? sum : 0;
    }

    /// <summary>Turns the plane of p and q so that a[p,q] vanishes, and the vector with it.</summary>
    private static void Rotate(double[,] a, double[] v, int p, int q)
    {
        if (a[p, q] == 0)
            return;
        double theta = (a[q, q] - a[p, p]) / (2 * a[p, q]);
        double t = (theta >= 0 ? 1 : -1) / (Math.Abs(theta) + Math.Sqrt((theta * theta) + 1));
        double c = 1 / Math.Sqrt((t * t) + 1), s = t * c;
        for (int k = 0; k < v.Length; k++)
            (a[k, p], a[k, q]) = ((c * a[k, p]) - (s * a[k, q]), (s * a[k, p]) + (c * a[k, q]));
        for (int k = 0; k < v.Length; k++)
            (a[p, k], a[q, k]) = ((c * a[p, k]) - (s * a[q, k]), (s * a[p, k]) + (c * a[q, k]));
        (v[p], v[q]) = ((c * v[p]) - (s * v[q]), (s * v[p]) + (c * v[q]));
    }
}

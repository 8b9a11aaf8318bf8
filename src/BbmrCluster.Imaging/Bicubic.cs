using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace BbmrCluster.Imaging;

/// <summary>
/// Bicubic resize equal to MATLAB's <c>imresize</c>: cubic kernel with a = -0.5, antialiased when shrinking, mirrored
/// borders with the edge pixel repeated, height first. Integer images are rounded (half up) and clamped after each of
/// the two passes, as MATLAB does; the real-valued path does not round.
/// </summary>
public static class Bicubic
{
    /// <summary>Resizes an 8- or 16-bit image; every channel by itself.</summary>
    /// <param name="source">H x W x C.</param>
    /// <param name="scale">Same factor for both sides.</param>
    /// <returns>ceil(H s) x ceil(W s) x C at the same bit depth.</returns>
    public static PixelBuffer Resize(PixelBuffer source, ResizeScale scale)
    {
        int width = scale.Apply(source.Width), height = scale.Apply(source.Height);
        BicubicTaps rows = BicubicTaps.Create(source.Height, scale), columns = BicubicTaps.Create(source.Width, scale);
        PixelBuffer result = new(width, height, source.Channels, source.BitDepth);
        int rowLength = source.Width * source.Channels;
        ushort[] middle = new ushort[rowLength + Padding];
        ushort[] line = new ushort[(width * source.Channels) + Padding];
        ReadOnlySpan<ushort> samples16 = MemoryMarshal.Cast<byte, ushort>(source.Data);
        for (int y = 0; y < height; y++)
        {
            if (source.BitDepth == 8)
            {
                BlendRows(source.Data, rowLength, rows, y, middle, source.MaxValue);
                BlendColumns(middle, source.Channels, columns, line, source.MaxValue);
                Span<byte> target = result.Data.AsSpan(y * result.RowBytes, result.RowBytes);
                for (int i = 0; i < target.Length; i++)
                    target[i] = (byte)line[i];
            }
            else
            {
                BlendRows(samples16, rowLength, rows, y, middle, source.MaxValue);
                BlendColumns(middle, source.Channels, columns, line, source.MaxValue);
                line.AsSpan(0, width * source.Channels).CopyTo(result.Samples16[(y * width * source.Channels)..]);
            }
        }

        return result;
    }

    /// <summary>Resizes real values without rounding or clamping (MATLAB's path for double images).</summary>
    /// <param name="source">H x W x C.</param>
    /// <param name="width">W.</param>
    /// <param name="height">H.</param>
    /// <param name="channels">C.</param>
    /// <param name="scale">Same factor for both sides.</param>
    /// <returns>ceil(H s) x ceil(W s) x C.</returns>
    public static double[] Resize(ReadOnlySpan<double> source, int width, int height, int channels, ResizeScale scale)
    {
        if (source.Length != width * height * channels)
            throw new ArgumentException($"{source.Length} values are not {width}x{height}x{channels}.", nameof(source));
        BicubicTaps rows = BicubicTaps.Create(height, scale), columns = BicubicTaps.Create(width, scale);
        int rowLength = width * channels;
        double[] result = new double[rows.Length * columns.Length * channels];
        double[] middle = new double[rowLength];
        for (int y = 0; y < rows.Length; y++)
        {
            Array.Clear(middle);
            for (int t = 0; t < rows.Count; t++)
            {
                double weight = rows.Weights[(y * rows.Count) + t];
                ReadOnlySpan<double> row = source.Slice(rows.Index[(y * rows.Count) + t] * rowLength, rowLength);
                for (int i = 0; i < middle.Length; i++)
                    middle[i] += weight * row[i];
            }

            Span<double> line = result.AsSpan(y * columns.Length * channels, columns.Length * channels);
            for (int x = 0; x < columns.Length; x++)
            {
                for (int c = 0; c < channels; c++)
                {
                    double sum = 0;
                    for (int t = x * columns.Count; t < (x + 1) * columns.Count; t++)
                        sum += columns.Weights[t] * middle[(columns.Index[t] * channels) + c];
                    line[(x * channels) + c] = sum;
                }
            }
        }

        return result;
    }

    /// <summary>Shrinks square RGB blocks, each by itself, on the integer path.</summary>
    /// <param name="hr">N x side x side x 3.</param>
    /// <param name="side">Pixels a side; a multiple of <paramref name="factor"/>.</param>
    /// <param name="bitDepth">8 or 16.</param>
    /// <param name="factor">2 gives half the side.</param>
    /// <param name="lr">N x side/factor x side/factor x 3, filled by the call.</param>
    /// <exception cref="ArgumentException">Lengths or sizes do not fit.</exception>
    public static void DownscaleBlocks(ReadOnlySpan<ushort> hr, int side, int bitDepth, int factor, Span<ushort> lr)
    {
        int small = side / factor;
        int count = CheckBlocks(hr.Length, side, lr.Length, small);
        if (small * factor != side)
            throw new ArgumentException($"Scale {factor} does not divide a block of {side} pixels.", nameof(factor));
        BicubicTaps taps = BicubicTaps.Create(side, ResizeScale.Down(factor));
        int maxValue = (1 << bitDepth) - 1, rowLength = side * 3;
        ushort[] middle = new ushort[rowLength + Padding];
        ushort[] line = new ushort[(small * 3) + Padding];
        for (int n = 0; n < count; n++)
        {
            ReadOnlySpan<ushort> block = hr.Slice(n * side * rowLength, side * rowLength);
            for (int y = 0; y < small; y++)
            {
                BlendRows(block, rowLength, taps, y, middle, maxValue);
                BlendColumns(middle, 3, taps, line, maxValue);
                line.AsSpan(0, small * 3).CopyTo(lr[(((n * small) + y) * small * 3)..]);
            }
        }
    }

    /// <summary>Enlarges square RGB blocks, each by itself, in float32 without rounding or clamping.</summary>
    /// <param name="lr">N x side x side x 3.</param>
    /// <param name="side">Pixels a side.</param>
    /// <param name="factor">2 gives twice the side.</param>
    /// <param name="hr">N x side*factor x side*factor x 3, filled by the call.</param>
    /// <exception cref="ArgumentException">Lengths do not fit.</exception>
    public static void UpscaleBlocks(ReadOnlySpan<ushort> lr, int side, int factor, Span<float> hr)
    {
        int large = side * factor;
        int count = CheckBlocks(lr.Length, side, hr.Length, large);
        BicubicTaps taps = BicubicTaps.Create(side, ResizeScale.Up(factor));
        int rowLength = side * 3;
        float[] middle = new float[rowLength + Padding];
        float[] line = new float[(large * 3) + Padding];
        for (int n = 0; n < count; n++)
        {
            ReadOnlySpan<ushort> block = lr.Slice(n * side * rowLength, side * rowLength);
            for (int y = 0; y < large; y++)
            {
                Array.Clear(middle);
                for (int t = y * taps.Count; t < (y + 1) * taps.Count; t++)
                {
                    float weight = (float)taps.Weights[t];
                    ReadOnlySpan<ushort> row = block.Slice(taps.Index[t] * rowLength, rowLength);
                    for (int i = 0; i < row.Length; i++)
                        middle[i] += weight * row[i];
                }

                BlendColumns(middle, taps, line);
                line.AsSpan(0, large * 3).CopyTo(hr[(((n * large) + y) * large * 3)..]);
            }
        }
    }

    /// <summary>
    /// Some rows of an image shrunk as a whole, from a window of its rows: bit for bit those of <see cref="Resize(PixelBuffer, ResizeScale)"/>.
    /// </summary>
    /// <param name="window">R x W x 3 samples: image rows from <paramref name="firstRow"/> on, with <see cref="Reach"/> rows beyond what the result covers, mirrored at the image's edges.</param>
    /// <param name="width">W, the image's width in pixels.</param>
    /// <param name="firstRow">Image row of the window's first row.</param>
    /// <param name="imageHeight">Rows of the whole image.</param>
    /// <param name="bitDepth">8 or 16.</param>
    /// <param name="factor">2 gives half the side.</param>
    /// <param name="firstResult">First row of the shrunk image to make.</param>
    /// <param name="result">Whole rows of ceil(W / factor) x 3 samples, filled by the call.</param>
    /// <exception cref="ArgumentException">The window lacks rows.</exception>
    public static void DownscaleRows(ReadOnlySpan<ushort> window, int width, int firstRow, int imageHeight, int bitDepth, int factor, int firstResult, Span<ushort> result)
    {
        BicubicTaps rows = BicubicTaps.Create(imageHeight, ResizeScale.Down(factor)), columns = BicubicTaps.Create(width, ResizeScale.Down(factor));
        int maxValue = (1 << bitDepth) - 1, rowLength = width * 3, line = columns.Length * 3, count = result.Length / line;
        if (count * line != result.Length || firstResult < 0 || firstResult + count > rows.Length)
            throw new ArgumentException($"{result.Length} samples from row {firstResult} on are not rows of {columns.Length} pixels of an image of {rows.Length} rows.", nameof(result));
        foreach (int row in rows.Index.AsSpan(firstResult * rows.Count, count * rows.Count))
        {
            if (row < firstRow || (row - firstRow + 1) * rowLength > window.Length)
                throw new ArgumentException($"A window of {window.Length / rowLength} rows from row {firstRow} on lacks row {row}.", nameof(window));
        }
        ushort[] middle = new ushort[rowLength + Padding], blended = new ushort[line + Padding];
        for (int y = 0; y < count; y++)
        {
            BlendRows(window, rowLength, rows, firstResult + y, middle, maxValue, firstRow);
            BlendColumns(middle, 3, columns, blended, maxValue);
            blended.AsSpan(0, line).CopyTo(result[(y * line)..]);
        }
    }

    /// <summary>Image rows beyond an area, above and below, on which its pixels at 1/factor depend: the kernel's half width.</summary>
    public static int Reach(int factor) => 2 * factor;

    /// <summary>Enlarges a map as a whole on the integer path: rounded and clamped.</summary>
    /// <param name="map">H x W x 3.</param>
    /// <param name="width">W.</param>
    /// <param name="height">H.</param>
    /// <param name="bitDepth">8 or 16.</param>
    /// <param name="factor">2 gives twice the side.</param>
    /// <returns>(H factor) x (W factor) x 3.</returns>
    public static ushort[] UpscaleMap(ReadOnlySpan<ushort> map, int width, int height, int bitDepth, int factor)
    {
        BicubicTaps rows = BicubicTaps.Create(height, ResizeScale.Up(factor)), columns = BicubicTaps.Create(width, ResizeScale.Up(factor));
        int maxValue = (1 << bitDepth) - 1, rowLength = width * 3, line = columns.Length * 3;
        ushort[] result = new ushort[checked(rows.Length * line)], middle = new ushort[rowLength + Padding], blended = new ushort[line + Padding];
        for (int y = 0; y < rows.Length; y++)
        {
            BlendRows(map, rowLength, rows, y, middle, maxValue);
            BlendColumns(middle, 3, columns, blended, maxValue);
            blended.AsSpan(0, line).CopyTo(result.AsSpan(y * line));
        }
        return result;
    }

    /// <summary>Enlarges a map of real values as a whole, neither rounded nor clamped.</summary>
    /// <param name="map">H x W x 3.</param>
    /// <param name="width">W.</param>
    /// <param name="height">H.</param>
    /// <param name="factor">2 gives twice the side.</param>
    /// <param name="result">(H factor) x (W factor) x 3, filled by the call.</param>
    public static void UpscaleMap(ReadOnlySpan<float> map, int width, int height, int factor, Span<float> result)
    {
        BicubicTaps rows = BicubicTaps.Create(height, ResizeScale.Up(factor)), columns = BicubicTaps.Create(width, ResizeScale.Up(factor));
        int rowLength = width * 3, line = columns.Length * 3;
        float[] middle = new float[rowLength + Padding], blended = new float[line + Padding];
        for (int y = 0; y < rows.Length; y++)
        {
            Array.Clear(middle);
            for (int t = y * rows.Count; t < (y + 1) * rows.Count; t++)
            {
                float weight = (float)rows.Weights[t];
                ReadOnlySpan<float> row = map.Slice(rows.Index[t] * rowLength, rowLength);
                for (int i = 0; i < row.Length; i++)
                    middle[i] += weight * row[i];
            }
            BlendColumns(middle, columns, blended);
            blended.AsSpan(0, line).CopyTo(result[(y * line)..]);
        }
    }

    /// <summary>Samples past the end of a scratch line that vector loads and stores may touch.</summary>
    private const int Padding = 16;

    private static int CheckBlocks(int source, int sourceSide, int target, int targetSide)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(targetSide, 1);
        int count = source / (sourceSide * sourceSide * 3);
        if (count * sourceSide * sourceSide * 3 != source || count * targetSide * targetSide * 3 != target)
            throw new ArgumentException($"{source} and {target} samples are not equally many RGB blocks of sides {sourceSide} and {targetSide}.", nameof(source));
        return count;
    }

    /// <summary>
    /// Output row <paramref name="y"/> of the height pass into <paramref name="output"/>, rounded and clamped; the source begins
    /// with the row <paramref name="firstRow"/>.
    /// </summary>
    private static void BlendRows<T>(ReadOnlySpan<T> source, int rowLength, BicubicTaps taps, int y, ushort[] output, int maxValue, int firstRow = 0)
        where T : unmanaged
    {
        ReadOnlySpan<int> index = taps.Index.AsSpan(y * taps.Count, taps.Count);
        int i = 0;
        if (maxValue == 255 && taps.WholeWeights is { } whole)
        {
            ReadOnlySpan<int> weights = whole.AsSpan(y * taps.Count, taps.Count);
            Vector256<int> half = Vector256.Create(1 << (taps.Shift - 1)), top = Vector256.Create(255);
            for (; i <= rowLength - 16; i += 16)
            {
                Vector256<int> low = half, high = half;
                for (int t = 0; t < weights.Length; t++)
                {
                    (Vector256<uint> a, Vector256<uint> b) = Vector256.Widen(Load16(source.Slice(((index[t] - firstRow) * rowLength) + i, 16)));
                    low += a.AsInt32() * weights[t];
                    high += b.AsInt32() * weights[t];
                }

                low = Vector256.Clamp(low >> taps.Shift, Vector256<int>.Zero, top);
                high = Vector256.Clamp(high >> taps.Shift, Vector256<int>.Zero, top);
                Vector256.Narrow(low.AsUInt32(), high.AsUInt32()).StoreUnsafe(ref output[i]);
            }
        }

        ReadOnlySpan<double> real = taps.Weights.AsSpan(y * taps.Count, taps.Count);
        for (; i < rowLength; i++)
        {
            double sum = 0;
            for (int t = 0; t < real.Length; t++)
                sum += real[t] * Value(source[((index[t] - firstRow) * rowLength) + i]);
            output[i] = Round(sum, maxValue);
        }
    }

    /// <summary>The width pass of one row. Both arrays have <see cref="Padding"/> spare samples at their end.</summary>
    private static void BlendColumns(ushort[] row, int channels, BicubicTaps taps, ushort[] output, int maxValue)
    {
        if (maxValue == 255 && channels == 3 && taps.WholeWeights is { } whole)
        {
            Vector128<int> half = Vector128.Create(1 << (taps.Shift - 1)), top = Vector128.Create(255);
            for (int x = 0; x < taps.Length; x++)
            {
                Vector128<int> sum = half;
                for (int t = x * taps.Count; t < (x + 1) * taps.Count; t++)
                    sum += Vector128.WidenLower(Vector128.LoadUnsafe(ref row[taps.Index[t] * 3])).AsInt32() * whole[t];
                sum = Vector128.Clamp(sum >> taps.Shift, Vector128<int>.Zero, top);
                output[x * 3] = (ushort)sum[0];
                output[(x * 3) + 1] = (ushort)sum[1];
                output[(x * 3) + 2] = (ushort)sum[2];
            }

            return;
        }

        for (int x = 0; x < taps.Length; x++)
        {
            for (int c = 0; c < channels; c++)
            {
                double sum = 0;
                for (int t = x * taps.Count; t < (x + 1) * taps.Count; t++)
                    sum += taps.Weights[t] * row[(taps.Index[t] * channels) + c];
                output[(x * channels) + c] = Round(sum, maxValue);
            }
        }
    }

    /// <summary>The width pass of one row of real RGB values. Both arrays have <see cref="Padding"/> spare values at their end.</summary>
    private static void BlendColumns(float[] row, BicubicTaps taps, float[] output)
    {
        for (int x = 0; x < taps.Length; x++)
        {
            // Four lanes carry three channels; the fourth is overwritten by the next pixel or is padding.
            Vector128<float> sum = Vector128<float>.Zero;
            for (int t = x * taps.Count; t < (x + 1) * taps.Count; t++)
                sum += Vector128.LoadUnsafe(ref row[taps.Index[t] * 3]) * (float)taps.Weights[t];
            sum.StoreUnsafe(ref output[x * 3]);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<ushort> Load16<T>(ReadOnlySpan<T> source)
        where T : unmanaged
    {
        if (typeof(T) == typeof(ushort))
            return Vector256.Create(MemoryMarshal.Cast<T, ushort>(source));
        (Vector128<ushort> low, Vector128<ushort> high) = Vector128.Widen(Vector128.Create(MemoryMarshal.AsBytes(source)));
        return Vector256.Create(low, high);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int Value<T>(T sample)
        where T : unmanaged => typeof(T) == typeof(byte) ? Unsafe.BitCast<T, byte>(sample) : Unsafe.BitCast<T, ushort>(sample);

    private static ushort Round(double value, int maxValue) => (ushort)Math.Clamp(Math.Floor(value + 0.5), 0, maxValue);
}

/// <summary>Taps of one side: output i is the sum over t of Weights[i * Count + t] * input[Index[i * Count + t]].</summary>
internal sealed class BicubicTaps
{
    private BicubicTaps(int length, int count)
    {
        (Length, Count) = (length, count);
        (Index, Weights) = (new int[length * count], new double[length * count]);
    }

    /// <summary>Output samples.</summary>
    public int Length { get; }

    /// <summary>Taps per output sample.</summary>
    public int Count { get; }

    /// <summary>Input positions, already mirrored into the input.</summary>
    public int[] Index { get; }

    /// <summary>Weights; each output's sum to 1.</summary>
    public double[] Weights { get; }

    /// <summary>Weights times 2^Shift where all of these are whole and an 8-bit sum fits in 32 bits: exact and fast. Else null.</summary>
    public int[]? WholeWeights { get; private set; }

    /// <summary>See <see cref="WholeWeights"/>.</summary>
    public int Shift { get; private set; }

    public static BicubicTaps Create(int inputLength, ResizeScale scale)
    {
        double factor = (double)scale.Numerator / scale.Denominator;
        double stretch = Math.Min(factor, 1), kernelWidth = 4 / stretch;
        int length = scale.Apply(inputLength), wide = (int)Math.Ceiling(kernelWidth) + 2;
        double[] weights = new double[length * wide];
        int[] positions = new int[length * wide];
        bool[] used = new bool[wide];
        for (int i = 0; i < length; i++)
        {
            double centre = ((i + 1) / factor) + (0.5 * (1 - (1 / factor)));
            double left = Math.Floor(centre - (kernelWidth / 2));
            double sum = 0;
            for (int t = 0; t < wide; t++)
            {
                weights[(i * wide) + t] = stretch * Kernel(stretch * (centre - (left + t)));
                positions[(i * wide) + t] = Mirror((int)left + t - 1, inputLength);
                sum += weights[(i * wide) + t];
            }

            for (int t = 0; t < wide; t++)
            {
                weights[(i * wide) + t] /= sum;
                used[t] |= weights[(i * wide) + t] != 0;
            }
        }

        BicubicTaps taps = new(length, used.Count(u => u));
        int next = 0;
        for (int i = 0; i < length; i++)
        {
            for (int t = 0; t < wide; t++)
            {
                if (!used[t])
                    continue;
                taps.Weights[next] = weights[(i * wide) + t];
                taps.Index[next++] = positions[(i * wide) + t];
            }
        }

        taps.FindWholeWeights();
        return taps;
    }

    private void FindWholeWeights()
    {
        for (int shift = 1; shift <= 20; shift++)
        {
            double factor = 1 << shift;
            if (!Weights.All(w => w * factor == Math.Floor(w * factor)))
                continue;
            // No sum of magnitudes of a cubic's weights reaches 2, and 2 x 255 x 2^20 fits in 32 bits with room.
            (Shift, WholeWeights) = (shift, [.. Weights.Select(w => (int)(w * factor))]);
            return;
        }
    }

    private static double Kernel(double x)
    {
        x = Math.Abs(x);
        return x <= 1 ? (((1.5 * x) - 2.5) * x * x) + 1
            : x <= 2 ? (((((-0.5 * x) + 2.5) * x) - 4) * x) + 2
            : 0;
    }

    private static int Mirror(int position, int length)
    {
        int wrapped = ((position % (2 * length)) + (2 * length)) % (2 * length);
        return wrapped < length ? wrapped : (2 * length) - 1 - wrapped;
    }
}

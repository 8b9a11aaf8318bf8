namespace BbmrCluster.Rescaling;

/// <summary>
/// An RGB map: <see cref="Samples"/> is height x width x 3 (channels last), raw integer values 0..255 or 0..65,535 by
/// <see cref="BitDepth"/>. Greyscale sources repeat their channel three times. Plain managed memory.
/// </summary>
public sealed class SampleMap
{
    /// <summary>Allocates a zeroed map.</summary>
    public SampleMap(int width, int height, int bitDepth)
        : this(width, height, bitDepth, new ushort[checked(width * height * 3)])
    {
    }

    /// <summary>Wraps samples without copying.</summary>
    /// <exception cref="ArgumentException">The length does not fit.</exception>
    public SampleMap(int width, int height, int bitDepth, ushort[] samples)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(height, 1);
        if (bitDepth is not (8 or 16))
            throw new ArgumentOutOfRangeException(nameof(bitDepth), bitDepth, "A sample has 8 or 16 bits.");
        if (samples.Length != width * height * 3)
            throw new ArgumentException($"{samples.Length} samples are not {width} x {height} RGB pixels.", nameof(samples));
        (Width, Height, BitDepth, Samples) = (width, height, bitDepth, samples);
    }

    /// <summary>Pixels in a row.</summary>
    public int Width { get; }

    /// <summary>Rows.</summary>
    public int Height { get; }

    /// <summary>8 or 16.</summary>
    public int BitDepth { get; }

    /// <summary>All samples, row after row.</summary>
    public ushort[] Samples { get; }

    /// <summary>Some pixels of a row, 3 samples each.</summary>
    public Span<ushort> Row(int y, int x, int count) => Samples.AsSpan(((y * Width) + x) * 3, count * 3);

    /// <summary>Replaces each pixel's channels by their mean, rounded half up: how a greyscale image keeps a network's result.</summary>
    public static void Average(Span<ushort> rgb)
    {
        for (int i = 0; i + 2 < rgb.Length; i += 3)
        {
            int mean = ((2 * (rgb[i] + rgb[i + 1] + rgb[i + 2])) + 3) / 6;
            rgb.Slice(i, 3).Fill((ushort)mean);
        }
    }

    /// <summary>
    /// Copies an area into height x width x 3 samples; pixels beyond the map are those of its nearest edge.
    /// </summary>
    public void CopyArea(int x, int y, int width, int height, Span<ushort> target)
    {
        int left = Math.Clamp(-x, 0, width), inside = Math.Clamp(Width - Math.Max(x, 0), 0, width - left), row = width * 3;
        for (int line = 0; line < height; line++)
        {
            int source = Math.Clamp(y + line, 0, Height - 1);
            Span<ushort> to = target.Slice(line * row, row);
            Row(source, Math.Clamp(x, 0, Width - 1), Math.Max(inside, 0)).CopyTo(to[(left * 3)..]);
            for (int i = 0; i < left; i++)
                Row(source, 0, 1).CopyTo(to[(i * 3)..]);
            for (int i = left + inside; i < width; i++)
                Row(source, Width - 1, 1).CopyTo(to[(i * 3)..]);
        }
    }
}

/// <summary>Consecutive rows of an image.</summary>
/// <param name="Map">The rows, as wide as the image.</param>
/// <param name="FirstRow">Image row of the first.</param>
/// <param name="ImageHeight">Rows of the whole image.</param>
/// <param name="Grey">Whether the source is greyscale: what comes out of a network is averaged over its channels, as it is stored.</param>
public sealed record ImageRows(SampleMap Map, int FirstRow, int ImageHeight, bool Grey = false)
{
    /// <summary>The image row after the last.</summary>
    public int End => FirstRow + Map.Height;
}

using System.Runtime.InteropServices;

namespace BbmrCluster.Imaging;

/// <summary>
/// A rectangle of interleaved unsigned samples (rows top to bottom, H x W x C), 8 or 16 bits each, little-endian.
/// Plain managed memory: freed by the garbage collector, owned by whoever holds it.
/// </summary>
public sealed class PixelBuffer
{
    /// <summary>Allocates a zeroed buffer.</summary>
    /// <param name="width">Pixels, at least 1.</param>
    /// <param name="height">Pixels, at least 1.</param>
    /// <param name="channels">Samples per pixel, 1 to 4.</param>
    /// <param name="bitDepth">8 or 16 bits a sample.</param>
    /// <exception cref="ArgumentOutOfRangeException">A value is outside its range.</exception>
    public PixelBuffer(int width, int height, int channels, int bitDepth)
        : this(width, height, channels, bitDepth, new byte[checked((long)width * height * channels * (bitDepth / 8))])
    {
    }

    /// <summary>Wraps bytes without copying them.</summary>
    /// <exception cref="ArgumentException">The length does not fit the sizes.</exception>
    public PixelBuffer(int width, int height, int channels, int bitDepth, byte[] data)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(width, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(height, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(channels, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(channels, 4);
        if (bitDepth is not (8 or 16))
            throw new ArgumentOutOfRangeException(nameof(bitDepth), bitDepth, "A sample has 8 or 16 bits.");
        if (data.LongLength != (long)width * height * channels * (bitDepth / 8))
            throw new ArgumentException($"{data.LongLength} bytes do not hold {width}x{height} pixels of {channels} samples of {bitDepth} bits.", nameof(data));
        (Width, Height, Channels, BitDepth, Data) = (width, height, channels, bitDepth, data);
    }

    /// <summary>Pixels in a row.</summary>
    public int Width { get; }

    /// <summary>Rows.</summary>
    public int Height { get; }

    /// <summary>Interleaved samples per pixel.</summary>
    public int Channels { get; }

    /// <summary>8 or 16.</summary>
    public int BitDepth { get; }

    /// <summary>The samples as bytes, row after row without gaps.</summary>
    public byte[] Data { get; }

    /// <summary>Largest sample value: 255 or 65,535.</summary>
    public int MaxValue => (1 << BitDepth) - 1;

    /// <summary>Bytes of one row.</summary>
    public int RowBytes => Width * Channels * (BitDepth / 8);

    /// <summary>The samples of a 16-bit buffer.</summary>
    /// <exception cref="InvalidOperationException">The buffer has 8 bits.</exception>
    public Span<ushort> Samples16 => BitDepth == 16
        ? MemoryMarshal.Cast<byte, ushort>(Data.AsSpan())
        : throw new InvalidOperationException("The buffer holds 8-bit samples.");

    /// <summary>Copies without the channels from a number on.</summary>
    internal PixelBuffer Without(int channels)
    {
        PixelBuffer part = new(Width, Height, channels, BitDepth);
        int from = Channels * (BitDepth / 8), to = channels * (BitDepth / 8);
        for (int i = 0; i < Width * Height; i++)
            Data.AsSpan(i * from, to).CopyTo(part.Data.AsSpan(i * to));
        return part;
    }

    /// <summary>Copies a rectangle.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The rectangle does not lie inside the buffer.</exception>
    public PixelBuffer Crop(int x, int y, int width, int height)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(x);
        ArgumentOutOfRangeException.ThrowIfNegative(y);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((long)x + width, Width, nameof(width));
        ArgumentOutOfRangeException.ThrowIfGreaterThan((long)y + height, Height, nameof(height));
        PixelBuffer part = new(width, height, Channels, BitDepth);
        int pixelBytes = Channels * (BitDepth / 8);
        for (int row = 0; row < height; row++)
            Data.AsSpan(((y + row) * RowBytes) + (x * pixelBytes), part.RowBytes).CopyTo(part.Data.AsSpan(row * part.RowBytes));
        return part;
    }
}

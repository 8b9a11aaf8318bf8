namespace BbmrCluster.Rescaling;

/// <summary>
/// Square RGB blocks of one size: <see cref="Samples"/> is N x side x side x 3 (channels last, raster order), raw
/// integer values 0..255 or 0..65,535 by <see cref="BitDepth"/>. Greyscale sources repeat their channel three times.
/// Plain managed memory.
/// </summary>
public sealed class BlockBatch
{
    /// <summary>Allocates a zeroed batch.</summary>
    public BlockBatch(int count, int side, int bitDepth)
        : this(count, side, bitDepth, new ushort[checked(count * side * side * 3)])
    {
    }

    /// <summary>Wraps samples without copying.</summary>
    /// <exception cref="ArgumentException">The length does not fit.</exception>
    public BlockBatch(int count, int side, int bitDepth, ushort[] samples)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfLessThan(side, 1);
        if (bitDepth is not (8 or 16))
            throw new ArgumentOutOfRangeException(nameof(bitDepth), bitDepth, "A sample has 8 or 16 bits.");
        if (samples.Length != count * side * side * 3)
            throw new ArgumentException($"{samples.Length} samples are not {count} RGB blocks of side {side}.", nameof(samples));
        (Count, Side, BitDepth, Samples) = (count, side, bitDepth, samples);
    }

    /// <summary>Blocks.</summary>
    public int Count { get; }

    /// <summary>Pixels along a side.</summary>
    public int Side { get; }

    /// <summary>8 or 16.</summary>
    public int BitDepth { get; }

    /// <summary>255 or 65,535.</summary>
    public int MaxValue => (1 << BitDepth) - 1;

    /// <summary>All samples, block after block.</summary>
    public ushort[] Samples { get; }

    /// <summary>Samples of one block, side x side x 3.</summary>
    public Span<ushort> Block(int index) => Samples.AsSpan(index * Side * Side * 3, Side * Side * 3);
}

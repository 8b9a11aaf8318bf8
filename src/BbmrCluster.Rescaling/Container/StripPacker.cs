using BbmrCluster.Imaging;

namespace BbmrCluster.Rescaling;

/// <summary>What is needed to pack and unpack the strips of one image.</summary>
/// <param name="Grid">The block grid.</param>
/// <param name="Scales">The scale set.</param>
/// <param name="BitDepth">8 or 16 bits a sample.</param>
/// <param name="ColourChannels">1 (grey: one channel is stored, three are given back) or 3.</param>
/// <param name="Alpha">Packing: anything but <see cref="AlphaKind.None"/> when an alpha buffer is given. Unpacking: as the header says.</param>
public sealed record StripFormat(BlockGrid Grid, ScaleSet Scales, int BitDepth, int ColourChannels, AlphaKind Alpha);

/// <summary>A strip as it comes out of the container.</summary>
/// <param name="ByScale">One batch per scale of the set (it may be empty), blocks in block order.</param>
/// <param name="Alpha">RowsOf(strip) x Width, one channel; null when the image has none or it is opaque everywhere.</param>
public sealed record UnpackedStrip(IReadOnlyList<BlockBatch> ByScale, PixelBuffer? Alpha);

/// <summary>
/// One strip of a container: an atlas of LR blocks per scale, losslessly coded, and alpha. Self-checking: its bytes hold
/// its own number, length and checksum. Layout: docs/container-format.md. Thread-safe.
/// </summary>
public static class StripPacker
{
    /// <summary>Packs a strip. Every coded part is decoded and compared with its source before the strip is accepted.</summary>
    /// <param name="format">The image.</param>
    /// <param name="strip">Strip number.</param>
    /// <param name="scaleIndex">Scale index of each of the strip's blocks.</param>
    /// <param name="byScale">One batch per scale (it may be empty): the blocks of that scale in block order.</param>
    /// <param name="alpha">RowsOf(strip) x Width, one channel of the image's bit depth; null for none.</param>
    /// <returns>The strip's bytes; equal input gives equal bytes.</returns>
    /// <exception cref="ArgumentException">The parts do not fit each other.</exception>
    /// <exception cref="InvalidOperationException">The coder did not give back what it was given.</exception>
    public static byte[] Pack(StripFormat format, int strip, ReadOnlySpan<byte> scaleIndex, IReadOnlyList<BlockBatch> byScale, PixelBuffer? alpha) =>
        throw new NotSupportedException();

    /// <summary>Unpacks a strip, checking everything.</summary>
    /// <param name="bytes">As <see cref="Pack"/> or <see cref="ContainerReader.ReadStrip"/> gave them.</param>
    /// <param name="format">The image.</param>
    /// <param name="strip">Strip number.</param>
    /// <param name="scaleIndex">Scale index of each of the strip's blocks.</param>
    /// <exception cref="FormatException">The bytes are damaged or belong to another strip or image.</exception>
    public static UnpackedStrip Unpack(ReadOnlyMemory<byte> bytes, StripFormat format, int strip, ReadOnlySpan<byte> scaleIndex) =>
        throw new NotSupportedException();

    /// <summary>Whether a packed strip stores alpha. When no strip does, the header says <see cref="AlphaKind.Opaque"/> or <see cref="AlphaKind.None"/>.</summary>
    /// <exception cref="FormatException">The bytes are damaged.</exception>
    public static bool StoresAlpha(ReadOnlySpan<byte> bytes) => throw new NotSupportedException();
}

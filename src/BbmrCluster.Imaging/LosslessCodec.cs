namespace BbmrCluster.Imaging;

/// <summary>A losslessly coded picture.</summary>
/// <param name="Codec">1 PNG, 2 WebP, 3 TIFF.</param>
/// <param name="Bytes">What the codec made.</param>
public sealed record CodedPixels(byte Codec, byte[] Bytes);

/// <summary>Lossless coding of LR atlases: the smallest of what libvips offers, checked by decoding before it is accepted.</summary>
public static class LosslessCodec
{
    /// <summary>Codes a buffer. The bytes depend on the pixels alone.</summary>
    /// <param name="pixels">1 or 3 channels (2 and 4 are taken too), 8 or 16 bits.</param>
    public static CodedPixels Encode(PixelBuffer pixels) => throw new NotSupportedException();

    /// <summary>Decodes bytes that may be hostile into exactly the picture the caller expects.</summary>
    /// <exception cref="InvalidDataException">Unknown codec, damaged bytes, or a picture of another size, depth or number of channels: one sentence.</exception>
    public static PixelBuffer Decode(byte codec, ReadOnlySpan<byte> bytes, int width, int height, int channels, int bitDepth) => throw new NotSupportedException();
}

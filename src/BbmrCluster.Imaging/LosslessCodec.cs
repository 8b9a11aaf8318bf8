using System.Runtime.InteropServices;
using NetVips;

namespace BbmrCluster.Imaging;

/// <summary>A losslessly coded picture.</summary>
/// <param name="Codec">0 plain samples, 1 PNG, 2 WebP, 3 TIFF.</param>
/// <param name="Bytes">What the codec made.</param>
public sealed record CodedPixels(byte Codec, byte[] Bytes);

/// <summary>Lossless coding of LR atlases: the smallest of what libvips offers, checked by decoding before it is accepted.</summary>
public static class LosslessCodec
{
    private const byte Plain = 0, Png = 1, WebP = 2, Tiff = 3;
    private const int MaxWebPSide = 16_383;

    /// <summary>Name of a codec as <c>info</c> prints it: png, webp, ...; null when there is none of that number.</summary>
    public static string? NameOf(byte codec) => codec switch { Plain => "plain", Png => "png", WebP => "webp", Tiff => "tiff", _ => null };

    /// <summary>Codes a buffer. The bytes depend on the pixels alone.</summary>
    /// <param name="pixels">1 to 4 channels, 8 or 16 bits.</param>
    public static CodedPixels Encode(PixelBuffer pixels)
    {
        CodedPixels best = new(Plain, pixels.Data);
        foreach (CodedPixels coded in Candidates(pixels))
        {
            // A codec that alters a value (or cannot be decoded here) is passed over, whatever it promises.
            if (coded.Bytes.Length < best.Bytes.Length && ReadsBack(coded, pixels))
                best = coded;
        }

        return best.Codec == Plain ? new CodedPixels(Plain, (byte[])pixels.Data.Clone()) : best;
    }

    /// <summary>Decodes bytes that may be hostile into exactly the picture the caller expects.</summary>
    /// <param name="codec">As coded.</param>
    /// <param name="bytes">As coded.</param>
    /// <param name="width">Expected pixels; a header that says otherwise is refused before any pixel is decoded.</param>
    /// <param name="height">Expected pixels.</param>
    /// <param name="channels">Expected samples per pixel.</param>
    /// <param name="bitDepth">Expected bits a sample.</param>
    /// <exception cref="InvalidDataException">Unknown codec, damaged bytes, or a picture of another size, depth or number of channels: one sentence.</exception>
    public static PixelBuffer Decode(byte codec, ReadOnlySpan<byte> bytes, int width, int height, int channels, int bitDepth)
    {
        if (codec == Plain)
        {
            return bytes.Length == (long)width * height * channels * (bitDepth / 8)
                ? new PixelBuffer(width, height, channels, bitDepth, bytes.ToArray())
                : throw new InvalidDataException($"{bytes.Length} bytes are not {width}x{height} pixels of {channels} samples of {bitDepth} bits.");
        }

        if (bytes.IsEmpty)
            throw new InvalidDataException("There are no bytes to decode.");
        VipsRuntime.Prepare();
        string loader = codec switch
        {
            Png => "pngload_buffer",
            WebP => "webpload_buffer",
            Tiff => "tiffload_buffer",
            _ => throw new InvalidDataException($"There is no lossless codec with the number {codec}."),
        };
        try
        {
            VOption options = new() { { "access", Enums.Access.Sequential }, { "fail_on", Enums.FailOn.Error } };
            using Image image = (Image)Operation.Call(loader, options, bytes.ToArray());
            // WebP has no greyscale: one channel comes back as three equal ones.
            bool repeated = codec == WebP && channels == 1 && image.Bands == 3;
            if (image.Width != width || image.Height != height || (image.Bands != channels && !repeated)
                || image.Format != (bitDepth == 8 ? Enums.BandFormat.Uchar : Enums.BandFormat.Ushort))
            {
                throw new InvalidDataException("The picture is {image.Width}x{image.Height} pixels of {image.Bands} samples ({image.Format}), expected were {width}x{height} of {channels} ({bitDepth} bits).");
            }

            using Image wanted = repeated ? image[0] : image.Copy();
            byte[] samples = bitDepth == 8 ? wanted.WriteToMemory<byte>() : MemoryMarshal.AsBytes<ushort>(wanted.WriteToMemory<ushort>()).ToArray();
            return new PixelBuffer(width, height, channels, bitDepth, samples);
        }
        catch (VipsException e)
        {
            throw new InvalidDataException("The picture cannot be decoded.", e);
        }
    }

    private static IEnumerable<CodedPixels> Candidates(PixelBuffer pixels)
    {
        using Image image = ImageEncoder.ToImage(pixels);
        if (pixels.BitDepth == 8 && pixels.Channels != 2 && Math.Max(pixels.Width, pixels.Height) <= MaxWebPSide)
            yield return new CodedPixels(WebP, image.WebpsaveBuffer(lossless: true, exact: true, q: 75, effort: 4, keep: Enums.ForeignKeep.None));
        yield return new CodedPixels(Png, image.PngsaveBuffer(compression: 9, filter: Enums.ForeignPngFilter.Paeth, bitdepth: pixels.BitDepth, keep: Enums.ForeignKeep.None));
        if (pixels.BitDepth == 16)
            yield return new CodedPixels(Tiff, image.TiffsaveBuffer(compression: Enums.ForeignTiffCompression.Deflate, predictor: Enums.ForeignTiffPredictor.Horizontal, level: 9, keep: Enums.ForeignKeep.None));
    }

    private static bool ReadsBack(CodedPixels coded, PixelBuffer pixels)
    {
        try
        {
            PixelBuffer decoded = Decode(coded.Codec, coded.Bytes, pixels.Width, pixels.Height, pixels.Channels, pixels.BitDepth);
            return decoded.Data.AsSpan().SequenceEqual(pixels.Data);
        }
        catch (InvalidDataException)
        {
            return false;
        }
    }
}

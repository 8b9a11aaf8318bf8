using System.Buffers.Binary;
using NetVips;

namespace BbmrCluster.Imaging;

/// <summary>Opens image files: what the header says, and why a file is not taken.</summary>
public static class ImageFile
{
    private static ReadOnlySpan<byte> PngSignature => [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A];

    /// <summary>Reads the header, no pixels.</summary>
    /// <param name="path">JPEG, PNG, WebP, TIFF, HEIF or AVIF; told apart by content, not by name.</param>
    /// <param name="limits">Bounds on rows, columns and area.</param>
    /// <exception cref="ImageRefusedException">
    /// Missing, empty, unknown, damaged header, over the limits, CMYK, Lab, float, multi-page or animated: one sentence.
    /// </exception>
    public static ImageInfo Probe(string path, ImageLimits limits)
    {
        using Image image = Open(path, limits, Enums.FailOn.Error, out ImageInfo info);
        return info;
    }

    /// <summary>Decodes a whole image. For small images and tools; archives go by <see cref="StripReader"/>.</summary>
    /// <exception cref="ImageRefusedException">As <see cref="Probe"/>, or the pixel data is damaged.</exception>
    public static PixelBuffer Load(string path, ImageLimits limits, string temporaryDirectory)
    {
        using StripReader reader = StripReader.Open(path, limits, 256, temporaryDirectory);
        ImageInfo info = reader.Info;
        if ((long)info.Width * info.Height * info.Channels * (info.BitDepth / 8) > Array.MaxLength)
            throw new ImageRefusedException(path, $"an image of {info.Width}x{info.Height} pixels is too large to be held in memory at once");
        PixelBuffer whole = new(info.Width, info.Height, info.Channels, info.BitDepth);
        int offset = 0;
        while (reader.ReadNext() is { } strip)
        {
            strip.Data.CopyTo(whole.Data, offset);
            offset += strip.Data.Length;
        }

        return whole;
    }

    /// <summary>Opens for sequential reading from the top. The caller disposes the image.</summary>
    internal static Image Open(string path, ImageLimits limits, Enums.FailOn failOn, out ImageInfo info)
    {
        VipsRuntime.Prepare();
        string format = Sniff(path, limits);
        Image image;
        try
        {
            VOption options = new() { { "access", Enums.Access.Sequential }, { "fail_on", failOn } };
            image = (Image)Operation.Call(format + "load", options, path);
        }
        catch (VipsException e) when (e.Message.Contains("out of range", StringComparison.Ordinal))
        {
            throw new ImageRefusedException(path, $"the size in its header is over the limit of {limits.MaxSide} pixels a side", e);
        }
        catch (VipsException e)
        {
            throw new ImageRefusedException(path, $"the {Name(format)} header cannot be read ({FirstLine(e)})", e);
        }

        try
        {
            info = Describe(path, image, format, limits);
            return image;
        }
        catch
        {
            image.Dispose();
            throw;
        }
    }

    internal static string FirstLine(VipsException exception)
    {
        // "unable to call pngload\nVipsForeignLoad: reason\nreason again": the lines after the first say why.
        string[] lines = [.. exception.Message.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Where(l => !l.StartsWith("unable to ", StringComparison.Ordinal))];
        string line = lines.Length > 0 ? lines[0] : "it ends early or is damaged";
        int colon = line.IndexOf(": ", StringComparison.Ordinal);
        return (colon > 0 && colon < line.Length - 2 ? line[(colon + 2)..] : line).TrimEnd('.');
    }

    private static ImageInfo Describe(string path, Image image, string format, ImageLimits limits)
    {
        CheckSize(path, image.Width, image.Height, limits);
        int pages = Number(image, "n-pages", 1);
        if (pages > 1)
            throw new ImageRefusedException(path, format == "webp" ? $"animated images are not supported (it has {pages} frames)" : $"files of several pages are not supported (it has {pages})");
        if (format == "heif" && image.Contains("heif-compression") && image.Get("heif-compression") is string codec && codec == "hevc")
            throw new ImageRefusedException(path, "HEIC pictures coded with HEVC are not supported (AVIF is)");
        if (image.Interpretation is Enums.Interpretation.Cmyk)
            throw new ImageRefusedException(path, "CMYK images are not supported");
        if (image.Interpretation is Enums.Interpretation.Lab or Enums.Interpretation.Labs or Enums.Interpretation.Labq)
            throw new ImageRefusedException(path, "Lab images are not supported");
        int bitDepth = image.Format switch
        {
            Enums.BandFormat.Uchar => 8,
            Enums.BandFormat.Ushort => 16,
            Enums.BandFormat.Float or Enums.BandFormat.Double => throw new ImageRefusedException(path, "floating-point images are not supported"),
            _ => throw new ImageRefusedException(path, "only samples of up to 16 bits without sign are supported"),
        };
        int colours = image.Interpretation switch
        {
            Enums.Interpretation.Bw or Enums.Interpretation.Grey16 => 1,
            Enums.Interpretation.Srgb or Enums.Interpretation.Rgb or Enums.Interpretation.Rgb16 => 3,
            _ => throw new ImageRefusedException(path, "only greyscale and RGB images are supported"),
        };
        int extra = image.Bands - colours;
        if (extra is not (0 or 1))
            throw new ImageRefusedException(path, $"an image of {image.Bands} channels is not supported (greyscale or RGB, each with or without alpha, are)");
        double x = image.Xres, y = image.Yres;
        // One pixel a millimetre on both sides is what libvips says when the file says nothing.
        if (x == 1 && y == 1)
            (x, y) = (0, 0);
        ImageMetadata metadata = new(Blob(image, "icc-profile-data"), Blob(image, "exif-data"), Blob(image, "xmp-data"), Blob(image, "iptc-data"), Math.Clamp(Number(image, "orientation", 1), 1, 8), x, y);
        return new ImageInfo(image.Width, image.Height, colours, extra == 1, bitDepth, format, metadata);
    }

    internal static int Number(Image image, string field, int otherwise) => image.Contains(field) && image.Get(field) is int value ? value : otherwise;

    private static byte[]? Blob(Image image, string field) => image.Contains(field) && image.Get(field) is byte[] { Length: > 0 } value ? value : null;

    private static void CheckSize(string path, long width, long height, ImageLimits limits)
    {
        if (width < 1 || height < 1)
            throw new ImageRefusedException(path, "the header names no pixels");
        if (width > limits.MaxSide || height > limits.MaxSide)
            throw new ImageRefusedException(path, $"{width}x{height} pixels are over the limit of {limits.MaxSide} a side");
        if (width * height > limits.MaxPixels)
            throw new ImageRefusedException(path, $"{width}x{height} pixels are over the limit of {limits.MaxPixels} in all");
    }

    private static string Name(string format) => format switch { "webp" => "WebP", "heif" => "HEIF", _ => format.ToUpperInvariant() };

    /// <summary>
    /// The format by its first bytes, so that no other loader of libvips is ever tried. Where these bytes give the size
    /// (PNG) it is checked here: the codec has lower limits of its own and a vaguer sentence.
    /// </summary>
    private static string Sniff(string path, ImageLimits limits)
    {
        Span<byte> head = stackalloc byte[32];
        try
        {
            if (Directory.Exists(path))
                throw new ImageRefusedException(path, "this is a folder, not an image");
            using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 1);
            int length = file.ReadAtLeast(head, head.Length, throwOnEndOfStream: false);
            if (length == 0)
                throw new ImageRefusedException(path, "the file is empty");
            head = head[..length];
            if (head.StartsWith(PngSignature))
                return CheckPng(path, file, head, limits);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new ImageRefusedException(path, "there is no such file", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ImageRefusedException(path, "the file cannot be opened", e);
        }

        if (head.Length >= 3 && head[0] == 0xFF && head[1] == 0xD8 && head[2] == 0xFF)
            return "jpeg";
        if (head.Length >= 12 && head.StartsWith("RIFF"u8) && head[8..].StartsWith("WEBP"u8))
            return "webp";
        if (head.StartsWith("II*\0"u8) || head.StartsWith("MM\0*"u8) || head.StartsWith("II+\0"u8) || head.StartsWith("MM\0+"u8))
            return "tiff";
        if (head.Length >= 12 && head[4..].StartsWith("ftyp"u8))
            return "heif";
        throw new ImageRefusedException(path, "it is no image in a known format (JPEG, PNG, WebP, TIFF and AVIF are)");
    }

    private static string CheckPng(string path, FileStream file, ReadOnlySpan<byte> head, ImageLimits limits)
    {
        if (head.Length < 32 || !head[12..].StartsWith("IHDR"u8))
            throw new ImageRefusedException(path, "the PNG header cannot be read");
        CheckSize(path, BinaryPrimitives.ReadUInt32BigEndian(head[16..]), BinaryPrimitives.ReadUInt32BigEndian(head[20..]), limits);
        // Chunks before the pixels: one of them announces an animation, which libvips would show as its first frame.
        Span<byte> chunk = stackalloc byte[8];
        long position = 33;
        for (int i = 0; i < 1000; i++)
        {
            file.Position = position;
            if (file.ReadAtLeast(chunk, 8, throwOnEndOfStream: false) < 8 || chunk[4..].SequenceEqual("IDAT"u8))
                break;
            if (chunk[4..].SequenceEqual("acTL"u8))
                throw new ImageRefusedException(path, "animated images are not supported");
            position += 12L + BinaryPrimitives.ReadUInt32BigEndian(chunk);
        }

        return "png";
    }
}

using System.Buffers.Binary;
using System.Globalization;
using BbmrCluster.Imaging.Formats;
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
        using Image image = Open(path, limits, strict: false, out ImageInfo info, out _);
        return info;
    }

    /// <summary>Decodes a whole image. For small images and tools; archives go by <see cref="StripReader"/>.</summary>
    /// <exception cref="ImageRefusedException">As <see cref="Probe"/>, or the pixel data is damaged.</exception>
    public static PixelBuffer Load(string path, ImageLimits limits, string temporaryDirectory) => Load(path, limits, temporaryDirectory, out _);

    /// <summary>As the other overload, with the header.</summary>
    public static PixelBuffer Load(string path, ImageLimits limits, string temporaryDirectory, out ImageInfo info)
    {
        using StripReader reader = StripReader.Open(path, limits, 256, temporaryDirectory);
        info = reader.Info;
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

    /// <summary>
    /// Follows a whole JPEG, whose codec repairs what it can. Null for other formats: their codecs have errors for damage and warn of trifles.
    /// </summary>
    /// <exception cref="ImageRefusedException">It is damaged.</exception>
    internal static JpegFindings? Judge(string path)
    {
        using FileStream file = OpenFile(path);
        if (!IsJpeg(Head(file, path, stackalloc byte[32])))
            return null;
        try
        {
            file.Position = 0;
            return JpegScan.Run(file);
        }
        catch (Exception e) when (e is FormatException or NotSupportedException)
        {
            throw new ImageRefusedException(path, e.Message, e);
        }
        catch (IOException e)
        {
            throw new ImageRefusedException(path, "the file cannot be read", e);
        }
    }

    /// <summary>Whether a file was written here with <see cref="EncodeOptions.Mark"/>. False for whatever cannot be read.</summary>
    public static bool IsMarked(string path)
    {
        try
        {
            // Pipes and devices have no length; opening one may wait for ever.
            if (new FileInfo(path) is not { Exists: true, Length: > 0 })
                return false;
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 1);
            Span<byte> head = stackalloc byte[256];
            head = head[..file.ReadAtLeast(head, head.Length, throwOnEndOfStream: false)];
            if (head.StartsWith(PngSignature))
                return head.Length > 41 && head[37..].StartsWith(PngMetadata.Mark);
            if (IsJpeg(head) || head.StartsWith("RIFF"u8) || (head.Length > 12 && head[4..].StartsWith("ftyp"u8)))
                return IsJpeg(head) ? JpegMetadata.IsMarked(head) : EndsWithMark(file);
            return (head.StartsWith("II*"u8) || head.StartsWith("II+"u8)) && TiffDirectory.Read(file)?.Fields.ContainsKey(TiffMetadata.Mark) == true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    // The last chunk of a WebP and the last box of an AVIF.
    private static bool EndsWithMark(FileStream file)
    {
        Span<byte> end = stackalloc byte[24];
        if (file.Length < end.Length)
            return false;
        file.Position = file.Length - end.Length;
        file.ReadExactly(end);
        return end.IndexOf(PngMetadata.Mark) >= 0 && end.IndexOf("made by bbmr"u8) >= 0;
    }

    /// <summary>What a JPEG holds behind its end marker, as a note; nothing for a few bytes or zeros.</summary>
    internal static IEnumerable<string> BehindEnd(string path, long end, ImageMetadata metadata)
    {
        using FileStream file = OpenFile(path);
        long bytes = file.Length - end;
        var head = new byte[1 << 14];
        file.Position = Math.Min(end, file.Length);
        int length = file.ReadAtLeast(head, head.Length, throwOnEndOfStream: false);
        ReadOnlySpan<byte> rest = head.AsSpan(0, length).TrimStart((byte)0);
        if (rest.Length < 16 || metadata.Notes.Any(note => note.Contains("(MPO)", StringComparison.Ordinal)))
            return [];
        return [rest.StartsWith((ReadOnlySpan<byte>)[0xFF, 0xD8]) ? "it holds another picture behind the first; only the first is kept"
            : rest.IndexOf("ftyp"u8) >= 0 ? "it holds a video behind the picture; only the picture is kept"
            : string.Create(CultureInfo.InvariantCulture, $"{bytes} bytes behind its end were left out")];
    }

    /// <summary>Opens for sequential reading from the top. The caller disposes the image.</summary>
    /// <param name="path">The file.</param>
    /// <param name="limits">Bounds on rows, columns and area.</param>
    /// <param name="strict">Whether each warning of its codec is an error. A JPEG that was judged needs that no more.</param>
    /// <param name="info">The header.</param>
    /// <param name="extra">What the last channel of the image that is returned means.</param>
    internal static Image Open(string path, ImageLimits limits, bool strict, out ImageInfo info, out ExtraChannel extra)
    {
        string format = Sniff(path, limits);
        (RawMetadata? raw, HeifMetadata? heif, extra) = Examine(path, format);
        Image image;
        try
        {
            image = VipsRuntime.Call(() => Load(path, format, strict));
        }
        catch (VipsException e)
        {
            string? reason = VipsRuntime.ReasonOf(() => Load(path, format, strict).Dispose());
            throw reason?.Contains("out of range", StringComparison.Ordinal) == true
                ? new ImageRefusedException(path, $"the size in its header is over the limit of {limits.MaxSide} pixels a side", e)
                : new ImageRefusedException(path, $"the {Name(format)} header cannot be read ({reason ?? "it ends early or is damaged"})", e);
        }

        try
        {
            info = Describe(path, image, format, limits, raw ?? FromLibrary(image), heif, extra);
            return image;
        }
        catch
        {
            image.Dispose();
            throw;
        }
    }

    private static Image Load(string path, string format, bool strict) => (Image)Operation.Call(format + "load", new VOption
    {
        { "access", Enums.Access.Sequential },
        { "fail_on", strict ? Enums.FailOn.Warning : format == "jpeg" ? Enums.FailOn.None : Enums.FailOn.Error },
    }, path);

    private static ImageInfo Describe(string path, Image image, string format, ImageLimits limits, RawMetadata raw, HeifMetadata? heif, ExtraChannel extraChannel)
    {
        CheckSize(path, image.Width, image.Height, limits);
        int pages = Number(image, "n-pages", 1);
        if (pages > 1)
            throw new ImageRefusedException(path, format == "webp" ? $"animated images are not supported (it has {pages} frames)" : $"files of several pages are not supported (it has {pages})");
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
        ImageMetadata metadata = Metadata(path, image, raw, heif, colours);
        if (extraChannel == ExtraChannel.Unspecified && extra == 1)
            metadata = metadata with { Notes = [.. metadata.Notes, "its extra channel, of which it does not say what it means, was left out"] };
        return new ImageInfo(image.Width, image.Height, colours, extra == 1 && extraChannel != ExtraChannel.Unspecified, bitDepth, format, metadata);
    }

    // Read before the codec opens the file: some of it decides whether it is opened at all. HEIF keeps its blocks where only its codec finds them.
    private static (RawMetadata? Raw, HeifMetadata? Heif, ExtraChannel Extra) Examine(string path, string format)
    {
        using FileStream file = OpenFile(path);
        try
        {
            switch (format)
            {
                case "jpeg":
                    return (JpegMetadata.Read(file), null, ExtraChannel.Straight);
                case "png":
                    return (PngMetadata.Read(file), null, ExtraChannel.Straight);
                case "webp":
                    return (WebPMetadata.Read(file), null, ExtraChannel.Straight);
                case "tiff":
                    return (TiffMetadata.Read(file, out ExtraChannel extra), null, extra);
                default:
                    HeifMetadata heif = HeifMetadata.Read(file);
                    if (heif.Codec is not ("" or "av01"))
                        throw new NotSupportedException($"HEIF pictures coded with {CodecName(heif.Codec)} are not supported (AVIF is)");
                    return (null, heif, heif.Premultiplied ? ExtraChannel.Premultiplied : ExtraChannel.Straight);
            }
        }
        catch (NotSupportedException e)
        {
            throw new ImageRefusedException(path, e.Message, e);
        }
        catch (IOException e)
        {
            throw new ImageRefusedException(path, "the file cannot be read", e);
        }
    }

    private static string CodecName(string type) => type switch
    {
        "hvc1" or "hev1" or "lhv1" => "HEVC",
        "avc1" => "AVC",
        "vvc1" or "vvi1" => "VVC",
        "j2k1" => "JPEG 2000",
        "jpeg" or "mjpg" => "JPEG",
        "unci" => "plain samples",
        _ => $"\"{type}\"",
    };

    private static RawMetadata FromLibrary(Image image) => new()
    {
        Icc = Blob(image, "icc-profile-data"),
        // Whatever it says, the codec has turned the picture as the file's own boxes demand.
        Exif = ExifBlock.Bare(Blob(image, "exif-data")) is { } exif ? ExifBlock.Orientation(exif) is null ? exif : ExifBlock.WithOrientation(exif, 1) : null,
        Xmp = Blob(image, "xmp-data"),
    };

    private static ImageMetadata Metadata(string path, Image image, RawMetadata raw, HeifMetadata? heif, int colours)
    {
        List<string> notes = [.. raw.Notes];
        byte[]? icc = raw.Icc;
        if (icc is not null && IccProfile.Problem(icc, colours) is { } problem)
        {
            notes.Add($"its ICC profile {problem}; it was left out");
            icc = null;
        }

        ColourSpace? named = raw.Colours;
        byte[]? cicp = heif?.Cicp ?? raw.Cicp;
        bool highRange = cicp is not null && ColourSpace.IsHighRange(cicp[1]);
        if (cicp is not null && !highRange && icc is null && !ColourSpace.TryFrom(cicp[0], cicp[1], out named))
            throw new ImageRefusedException(path, $"its colours (H.273 primaries {cicp[0]}, transfer {cicp[1]}) are not supported");
        if (named is not null && icc is null && !highRange)
        {
            icc = IccProfile.Of(named, colours);
            notes.Add("its colours, which it names by numbers, are kept as an ICC profile");
        }

        if (raw.MorePictures)
            notes.Add("it holds more pictures (MPO); only the first is kept");
        if (heif is { Moves: true })
            notes.Add("it holds moving pictures too; only the still one is kept");
        if (heif is { HasAuxiliary: true })
            notes.Add("its further layers (a gain map, depths or the like) were left out");
        if (heif is { Premultiplied: true })
            notes.Add("its colours were multiplied with their transparency; this was undone");
        (byte[]? xmp, string? xmpNote) = Xmp.Joined(raw.Xmp, raw.XmpExtension);
        if (xmpNote is not null)
            notes.Add(xmpNote);
        // Not from libvips: where a file says nothing it says 72 dots an inch.
        (double x, double y) = raw.PixelsPerMillimetre ?? (raw.Exif is not null && TiffDirectory.Read(new MemoryStream(raw.Exif)) is { } exif ? TiffMetadata.Resolution(exif) : null) ?? (0, 0);
        if (!(x > 0 && y > 0))
            (x, y) = (0, 0);
        int orientation = heif is not null ? 1 : Math.Clamp(Number(image, "orientation", 1), 1, 8);
        return new ImageMetadata(icc, raw.Exif, xmp, raw.Iptc, orientation, x, y)
        {
            Cicp = highRange ? [cicp![0], cicp[1], 0, 1] : null,
            Texts = raw.Texts,
            Notes = notes,
        };
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
        using (FileStream file = OpenFile(path))
        {
            head = Head(file, path, head);
            if (head.StartsWith(PngSignature))
                return CheckPng(path, file, head, limits);
        }

        if (IsJpeg(head))
            return "jpeg";
        if (head.Length >= 12 && head.StartsWith("RIFF"u8) && head[8..].StartsWith("WEBP"u8))
            return "webp";
        if (head.StartsWith("II*\0"u8) || head.StartsWith("MM\0*"u8) || head.StartsWith("II+\0"u8) || head.StartsWith("MM\0+"u8))
            return "tiff";
        if (IsCameraRaw(head))
            throw new ImageRefusedException(path, "camera raw files are not supported; develop it first");
        if (head.Length >= 12 && head[4..].StartsWith("ftyp"u8))
            return "heif";
        throw new ImageRefusedException(path, "it is no image in a known format (JPEG, PNG, WebP, TIFF and AVIF are)");
    }

    // Kinds that do not look like TIFF: Fujifilm, Panasonic, Olympus, Canon, Sigma, Minolta.
    private static bool IsCameraRaw(ReadOnlySpan<byte> head) =>
        head.StartsWith("FUJIFILMCCD-RAW"u8) || head.StartsWith("IIU\0"u8) || head.StartsWith("IIRO"u8) || head.StartsWith("IIRS"u8) || head.StartsWith("MMOR"u8)
        || (head.Length >= 14 && head.StartsWith("II\x1A\0"u8) && head[6..].StartsWith("HEAPCCDR"u8)) || head.StartsWith("FOVb"u8) || head.StartsWith("\0MRM"u8)
        || (head.Length >= 12 && head[4..].StartsWith("ftypcrx "u8));

    private static bool IsJpeg(ReadOnlySpan<byte> head) => head.Length >= 3 && head[0] == 0xFF && head[1] == 0xD8 && head[2] == 0xFF;

    private static FileStream OpenFile(string path)
    {
        try
        {
            if (Directory.Exists(path))
                throw new ImageRefusedException(path, "this is a folder, not an image");
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 1);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new ImageRefusedException(path, "there is no such file", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ImageRefusedException(path, "the file cannot be opened", e);
        }
    }

    private static Span<byte> Head(FileStream file, string path, Span<byte> head)
    {
        try
        {
            int length = file.ReadAtLeast(head, head.Length, throwOnEndOfStream: false);
            return length > 0 ? head[..length] : throw new ImageRefusedException(path, "the file is empty");
        }
        catch (IOException e)
        {
            throw new ImageRefusedException(path, "the file cannot be read", e);
        }
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

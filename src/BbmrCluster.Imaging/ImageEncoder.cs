using BbmrCluster.Imaging.Formats;
using NetVips;

namespace BbmrCluster.Imaging;

/// <summary>How to encode.</summary>
/// <param name="Quality">1 to 100 for lossy WebP, AVIF and JPEG. Null: lossless (JPEG, which cannot: quality 95, 4:4:4).</param>
/// <param name="Mark">Say in the file that it was made here, where only programs look: see <see cref="ImageFile.IsMarked"/>.</param>
public sealed record EncodeOptions(int? Quality = null, bool Mark = false)
{
    /// <summary>Lossless where the format can.</summary>
    public static EncodeOptions Default { get; } = new();
}

/// <summary>
/// Writes images from raw strips (plain interleaved samples, little-endian), top to bottom, with ICC profile, EXIF, XMP,
/// IPTC, orientation and resolution. PNG, TIFF and JPEG stream; WebP and AVIF hold the picture while they code it.
/// The bytes depend on the pixels, the metadata and the options alone.
/// </summary>
public static class ImageEncoder
{
    /// <summary>Extensions that can be written, with their dot.</summary>
    public static IReadOnlyList<string> Extensions { get; } = [".png", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".avif"];

    /// <summary>Why an image cannot be written under a name, or null when it can: known before any work is done.</summary>
    /// <param name="path">Name with extension.</param>
    /// <param name="info">The image.</param>
    public static string? WhyNot(string path, ImageInfo info)
    {
        (int limit, string name) = Extension(path) switch
        {
            ".png" => (int.MaxValue, "PNG"),
            ".tif" or ".tiff" => (int.MaxValue, "TIFF"),
            ".webp" => (16_383, "WebP"),
            ".jpg" or ".jpeg" => (65_500, "JPEG"),
            ".avif" => (65_536, "AVIF"),
            _ => (0, ""),
        };
        if (limit == 0)
            return $"the format '{Path.GetExtension(path)}' cannot be written (png, tiff, webp, jpg and avif can)";
        if (Math.Max(info.Width, info.Height) > limit)
            return $"{name} holds at most {limit} pixels a side";
        if (info.Metadata.Cicp is not null && name != "PNG")
            return $"its colours are of high dynamic range (PQ or HLG), which {name} cannot say; choose png";
        return name == "JPEG" && info.HasAlpha ? "JPEG has no alpha channel; choose png, tiff, webp or avif" : null;
    }

    /// <summary>Encodes raw strips; an existing file is replaced. The file is flushed to the disk.</summary>
    /// <param name="path">Output; its extension chooses the format.</param>
    /// <param name="info">Size, channels, depth and metadata of the output.</param>
    /// <param name="rawStripFiles">Whole rows each; all but the last of equal height, the heights adding up to the image's.</param>
    /// <param name="options">Quality.</param>
    /// <exception cref="ImageRefusedException">The format cannot hold the image (see <see cref="WhyNot"/>).</exception>
    /// <exception cref="InvalidDataException">The strips do not make up the image.</exception>
    /// <exception cref="OutputFullException">The disk is full; the partial file is removed.</exception>
    /// <returns>What of the metadata the file does not hold, one sentence each without a full stop: pixels never fail for it.</returns>
    public static IReadOnlyList<string> Encode(string path, ImageInfo info, IReadOnlyList<string> rawStripFiles, EncodeOptions options)
    {
        if (WhyNot(path, info) is { } reason)
            throw new ImageRefusedException(path, reason);
        VipsRuntime.Prepare();
        List<Image> strips = [];
        try
        {
            using Image joined = Join(info, rawStripFiles, strips);
            return Write(path, joined, info, options);
        }
        finally
        {
            strips.ForEach(s => s.Dispose());
        }
    }

    /// <summary>Encodes a buffer; otherwise as the other overload.</summary>
    /// <exception cref="ImageRefusedException">The format cannot hold the image.</exception>
    /// <exception cref="OutputFullException">The disk is full; the partial file is removed.</exception>
    /// <returns>As the other overload.</returns>
    public static IReadOnlyList<string> Encode(string path, PixelBuffer pixels, ImageMetadata metadata, EncodeOptions options)
    {
        bool alpha = pixels.Channels is 2 or 4;
        ImageInfo info = new(pixels.Width, pixels.Height, pixels.Channels - (alpha ? 1 : 0), alpha, pixels.BitDepth, "raw", metadata);
        if (WhyNot(path, info) is { } reason)
            throw new ImageRefusedException(path, reason);
        using Image image = ToImage(pixels);
        return Write(path, image, info, options);
    }

    /// <summary>Whether a file without a quality keeps every sample: also grey as three channels, and no channel of full alpha.</summary>
    public static bool KeepsSamples(string path, ImageInfo info) => Extension(path) switch
    {
        ".png" or ".tif" or ".tiff" => true,
        ".webp" or ".avif" => info.BitDepth == 8,
        _ => false,
    };

    /// <summary>Reads a file's metadata back.</summary>
    /// <param name="path">The file.</param>
    /// <param name="info">What was written.</param>
    /// <param name="told">What is known not to be in it.</param>
    /// <returns>What else did not come back as it was written, one sentence each without a full stop.</returns>
    public static IReadOnlyList<string> CompareMetadata(string path, ImageInfo info, IReadOnlyCollection<string> told)
    {
        string extension = Extension(path);
        bool jpeg = extension is ".jpg" or ".jpeg", tiff = extension is ".tif" or ".tiff", avif = extension == ".avif";
        ImageMetadata wanted = Fitting(info, extension, []), found = ImageFile.Probe(path, new ImageLimits(long.MaxValue, int.MaxValue)).Metadata;
        byte[]? exif = ExifBlock.For(wanted);
        List<string> notes = [];
        Check("ICC", Same(wanted.Icc, found.Icc));
        // TIFF keeps the fields and not the block; libvips changes some in an AVIF; and long XMP is put together anew.
        Check("EXIF", tiff || avif ? exif is null || tiff || found.Exif is not null : Same(exif, found.Exif));
        Check("XMP", jpeg && wanted.Xmp?.Length > 60_000 ? found.Xmp is not null : Same(wanted.Xmp, found.Xmp));
        Check("IPTC", Same(wanted.Iptc, found.Iptc));
        Check("orientation", avif || wanted.Orientation == found.Orientation);
        Check("text", extension == ".png" ? wanted.Texts.SequenceEqual(found.Texts) : !jpeg || wanted.Texts.Count == found.Texts.Count);
        return notes;

        void Check(string what, bool same)
        {
            if (!same && !told.Any(note => note.Contains(what, StringComparison.Ordinal)))
                notes.Add($"the {what} did not read back as it was written");
        }

        static bool Same(byte[]? a, byte[]? b) => (a ?? []).AsSpan().SequenceEqual(b);
    }

    /// <summary>A libvips image over a buffer's bytes. The caller disposes it and keeps the buffer unchanged until then.</summary>
    internal static Image ToImage(PixelBuffer pixels)
    {
        VipsRuntime.Prepare();
        using Image plain = Image.NewFromMemory(pixels.Data, pixels.Width, pixels.Height, pixels.Channels, Format(pixels.BitDepth));
        return plain.Copy(interpretation: Interpretation(pixels.Channels < 3 ? 1 : 3, pixels.BitDepth));
    }

    private static string Extension(string path) => Path.GetExtension(path).ToLowerInvariant();

    private static Enums.BandFormat Format(int bitDepth) => bitDepth == 8 ? Enums.BandFormat.Uchar : Enums.BandFormat.Ushort;

    private static Enums.Interpretation Interpretation(int colourChannels, int bitDepth) => (colourChannels, bitDepth) switch
    {
        (1, 8) => Enums.Interpretation.Bw,
        (1, _) => Enums.Interpretation.Grey16,
        (_, 8) => Enums.Interpretation.Srgb,
        _ => Enums.Interpretation.Rgb16,
    };

    private static Image Join(ImageInfo info, IReadOnlyList<string> files, List<Image> strips)
    {
        long rowBytes = (long)info.Width * info.Channels * (info.BitDepth / 8);
        long rows = 0;
        int first = 0;
        foreach (string file in files)
        {
            long length = new FileInfo(file).Length;
            int height = (int)(length / rowBytes);
            first = first == 0 ? height : first;
            bool last = strips.Count == files.Count - 1;
            if (height < 1 || height * rowBytes != length || height > first || (height < first && !last))
                throw new InvalidDataException($"{file}: a strip of {length} bytes does not fit an image whose rows have {rowBytes}.");
            rows += height;
            strips.Add(Image.Rawload(file, info.Width, height, info.Channels, format: Format(info.BitDepth), interpretation: Interpretation(info.ColourChannels, info.BitDepth), access: Enums.Access.Sequential));
        }

        if (rows != info.Height)
            throw new InvalidDataException($"The strips hold {rows} rows, the image has {info.Height}.");
        if (strips.Count == 1)
            return strips[0].Copy();
        // Cells of the join are equally high: the last one is padded and cropped away again.
        using Image column = Image.Arrayjoin([.. strips], across: 1, vspacing: first);
        return column.Crop(0, 0, info.Width, info.Height);
    }

    // AVIF alone gets its metadata from its codec; in the others we put them in place ourselves.
    private static void Attach(MutableImage image, ImageMetadata metadata, byte[]? exif)
    {
        SetBlob(image, "icc-profile-data", metadata.Icc);
        SetBlob(image, "exif-data", exif);
        SetBlob(image, "xmp-data", metadata.Xmp);
        if (metadata.Orientation != 1)
            image.Set(GValue.GIntType, "orientation", metadata.Orientation);
    }

    private static void SetBlob(MutableImage image, string name, byte[]? value)
    {
        if (value is { Length: > 0 })
            image.Set(GValue.BlobType, name, value);
    }

    private static List<string> Write(string path, Image plain, ImageInfo info, EncodeOptions options)
    {
        List<string> notes = [];
        string extension = Extension(path);
        bool jpeg = extension is ".jpg" or ".jpeg", avif = extension == ".avif";
        ImageMetadata metadata = Fitting(info, extension, notes);
        byte[]? exif = null;
        byte[] insert = [];
        try
        {
            exif = ExifBlock.For(metadata);
            insert = jpeg ? JpegMetadata.Segments(metadata, exif, options.Mark, notes)
                : extension == ".png" ? PngMetadata.Chunks(metadata, exif, options.Mark, notes)
                : [];
        }
        catch (Exception e) when (e is ArgumentException or IOException or OverflowException or IndexOutOfRangeException)
        {
            // Pixels never fail for what is written beside them.
            notes.Add("the metadata cannot be written; they were left out");
            (metadata, exif) = (ImageMetadata.None, null);
            insert = jpeg ? JpegMetadata.Segments(metadata, null, options.Mark, notes) : [];
        }

        info = info with { Metadata = metadata };
        using Image whole = plain.Mutate(image =>
        {
            if (avif)
                Attach(image, metadata, exif);
        });
        Write(path, stream => VipsRuntime.Call(() =>
        {
            switch (extension)
            {
                case ".png" or ".jpg" or ".jpeg":
                    using (var with = new MetadataStream(stream, jpeg, insert))
                        Save(whole, with, extension, info, exif, options);
                    break;
                case ".webp":
                    using (var buffer = new MemoryStream())
                    {
                        Save(whole, buffer, extension, info, exif, options);
                        stream.Write(WebPMetadata.With(buffer.ToArray(), info, exif, options.Mark));
                    }
                    break;
                case ".avif":
                    Save(whole, stream, extension, info, exif, options);
                    // A box that readers pass over.
                    if (options.Mark)
                        stream.Write([0, 0, 0, 24, .. "freebbMRmade by bbmr"u8]);
                    break;
                default:
                    Save(whole, stream, extension, info, exif, options);
                    TiffMetadata.Write(stream, metadata, exif, options.Mark, notes);
                    break;
            }
            return true;
        }));
        return notes;
    }

    // What the format has a place for; the rest is told.
    private static ImageMetadata Fitting(ImageInfo info, string extension, List<string> notes)
    {
        ImageMetadata metadata = info.Metadata;
        if (metadata.Icc is { } icc && IccProfile.Problem(icc, info.ColourChannels) is { } problem)
        {
            notes.Add($"the ICC profile {problem}; it was left out");
            metadata = metadata with { Icc = null };
        }

        byte[]? iptc = Iptc.Bare(metadata.Iptc);
        if (iptc is null && metadata.Iptc is { Length: > 0 })
            notes.Add("the IPTC block cannot be read; it was left out");
        metadata = metadata with { Iptc = iptc };
        if (extension is ".webp" or ".avif")
        {
            if (iptc is not null)
                notes.Add($"{extension[1..]} has no place for IPTC; it was left out");
            foreach (ImageText text in metadata.Texts)
                notes.Add($"{extension[1..]} has no place for the text \"{text.Keyword}\"; it was left out");
            metadata = metadata with { Iptc = null, Texts = [] };
        }

        int bits = extension switch { ".webp" or ".jpg" or ".jpeg" => 8, ".avif" => 12, _ => 16 };
        if (info.BitDepth > bits)
            notes.Add($"its {info.BitDepth} bits a sample were cut to {bits}, the most that {extension[1..]} holds");
        return metadata;
    }

    private static void Save(Image plain, Stream stream, string extension, ImageInfo info, byte[]? exif, EncodeOptions options)
    {
        ImageMetadata metadata = info.Metadata;
        using Image image = metadata is { PixelsPerMillimetreX: > 0, PixelsPerMillimetreY: > 0 }
            ? plain.Copy(xres: metadata.PixelsPerMillimetreX, yres: metadata.PixelsPerMillimetreY)
            : plain.Copy();
        bool lossless = options.Quality is null;
        switch (extension)
        {
            case ".png":
                image.PngsaveStream(stream, keep: Enums.ForeignKeep.None, compression: 6, filter: Enums.ForeignPngFilter.Paeth, bitdepth: info.BitDepth);
                break;
            case ".tif" or ".tiff":
                image.TiffsaveStream(stream, keep: Enums.ForeignKeep.None, compression: Enums.ForeignTiffCompression.Deflate, predictor: Enums.ForeignTiffPredictor.Horizontal, bigtiff: (long)info.Width * info.Height * info.Channels * (info.BitDepth / 8) > 3_000_000_000);
                break;
            case ".webp":
                image.WebpsaveStream(stream, keep: Enums.ForeignKeep.None, q: options.Quality ?? 75, lossless: lossless, exact: true);
                break;
            case ".avif":
                image.HeifsaveStream(stream, keep: Keep(metadata, exif), q: options.Quality ?? 100, lossless: lossless, compression: Enums.ForeignHeifCompression.Av1, bitdepth: info.BitDepth == 16 ? 12 : 8);
                break;
            default:
                image.JpegsaveStream(stream, keep: Enums.ForeignKeep.None, q: options.Quality ?? 95, optimizeCoding: true, subsampleMode: lossless ? Enums.ForeignSubsample.Off : Enums.ForeignSubsample.Auto);
                break;
        }
    }

    // An EXIF block that is not there would be made up.
    private static Enums.ForeignKeep Keep(ImageMetadata metadata, byte[]? exif) =>
        (metadata.Icc is null ? Enums.ForeignKeep.None : Enums.ForeignKeep.Icc) | (metadata.Xmp is null ? Enums.ForeignKeep.None : Enums.ForeignKeep.Xmp)
        | (exif is null ? Enums.ForeignKeep.None : Enums.ForeignKeep.Exif);

    private static void Write(string path, Action<Stream> save)
    {
        try
        {
            using FileStream file = new(path, FileMode.Create, FileAccess.ReadWrite, FileShare.Read, 1 << 16);
            using GuardedStream guarded = new(file);
            try
            {
                save(guarded);
            }
            catch (VipsException) when (guarded.Failure is not null)
            {
                // The codec only knows that writing failed; the stream knows why.
            }

            if (guarded.Failure is { } failure)
                throw new IOException(failure.Message, failure.HResult);
            file.Flush(flushToDisk: true);
        }
        catch (Exception e)
        {
            File.Delete(path);
            if (e is IOException io && OutputFullException.IsFull(io))
                throw new OutputFullException(path, io);
            throw;
        }
    }
}

/// <summary>Keeps the first error of a file that native code writes to through callbacks.</summary>
internal sealed class GuardedStream(Stream inner) : Stream
{
    public IOException? Failure { get; private set; }

    public override bool CanRead => true;

    public override bool CanSeek => true;

    public override bool CanWrite => true;

    public override long Length => inner.Length;

    public override long Position { get => inner.Position; set => inner.Position = value; }

    public override void Flush() => Guard(inner.Flush);

    public override int Read(byte[] buffer, int offset, int count) => inner.Read(buffer, offset, count);

    public override long Seek(long offset, SeekOrigin origin) => inner.Seek(offset, origin);

    public override void SetLength(long value) => inner.SetLength(value);

    public override void Write(byte[] buffer, int offset, int count) => Guard(() => inner.Write(buffer, offset, count));

    private void Guard(Action action)
    {
        try
        {
            if (Failure is null)
                action();
        }
        catch (IOException e)
        {
            Failure = e;
        }
    }
}

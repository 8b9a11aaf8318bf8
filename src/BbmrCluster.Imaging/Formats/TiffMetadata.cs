using System.Text;

namespace BbmrCluster.Imaging.Formats;

/// <summary>What a channel beyond the colours of a picture means.</summary>
internal enum ExtraChannel
{
    /// <summary>There is none, or it is transparency apart from the colours, as everywhere but here.</summary>
    Straight,

    /// <summary>Transparency with which the colours are multiplied.</summary>
    Premultiplied,

    /// <summary>Nothing that a picture shows.</summary>
    Unspecified,
}

/// <summary>What a TIFF says beside its pixels (TIFF 6.0): its kind, its extra channel, its metadata; and where metadata go in one.</summary>
internal static class TiffMetadata
{
    private const ushort SubfileType = 254, Compression = 259, Photometric = 262, Description = 270, XResolution = 282, YResolution = 283, ResolutionUnit = 296,
        Transfer = 301, Artist = 315, WhitePoint = 318, Primaries = 319, ExtraSamples = 338, SamplesPerPixel = 277, Xmp = 700, IptcTag = 33723, Photoshop = 34377,
        Icc = 34675, DngVersion = 50706, Copyright = 33432;

    /// <summary>A private number: the file was made here.</summary>
    public const ushort Mark = 65042;

    /// <summary>Fields about the photograph, not about how its pixels are stored: make, model, software, dates, people, rights, ratings, titles.</summary>
    private static readonly ushort[] About = [Description, 271, 272, 305, 306, Artist, 316, Copyright, 18246, 18249, 40091, 40092, 40093, 40094, 40095];

    private static readonly Dictionary<ulong, string> NotDecoded = new()
    {
        [6] = "JPEG of the old kind", [34661] = "JBIG", [34712] = "JPEG 2000", [33003] = "JPEG 2000", [33004] = "JPEG 2000", [33005] = "JPEG 2000", [34887] = "LERC",
        [34925] = "LZMA", [50000] = "Zstandard", [50001] = "WebP", [50002] = "JPEG XL", [52546] = "JPEG XL", [34892] = "lossy JPEG", [7000] = "JPEG 2000",
    };

    private static readonly ulong[] Decoded = [1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32809, 32909, 32946, 34676, 34677];

    private static readonly ulong[] RawCompressions = [32767, 32769, 32770, 34713, 65000, 65535];

    /// <summary>Reads the first directory and those below it.</summary>
    /// <param name="stream">The file.</param>
    /// <param name="extra">What the channel beyond the colours means.</param>
    /// <exception cref="NotSupportedException">Camera raw, or a compression that is not decoded.</exception>
    public static RawMetadata Read(Stream stream, out ExtraChannel extra)
    {
        extra = ExtraChannel.Straight;
        var found = new RawMetadata();
        Span<byte> head = stackalloc byte[16];
        stream.Position = 0;
        head = head[..stream.ReadAtLeast(head, 16, throwOnEndOfStream: false)];
        if (TiffDirectory.Read(stream) is not { } first)
            return found;
        RequirePicture(first, head, found.Notes);
        found.PixelsPerMillimetre = Resolution(first);
        if (first.NumberOf(SamplesPerPixel) is { } samples && samples > ColoursOf(first))
        {
            // libvips divides colours by an associated alpha (1) itself.
            extra = first.NumberOf(ExtraSamples) is 1 or 2 ? ExtraChannel.Straight : ExtraChannel.Unspecified;
        }
        found.Icc = Bytes(first, Icc);
        found.Xmp = Bytes(first, Xmp);
        found.Iptc = Formats.Iptc.Bare(Bytes(first, IptcTag)) ?? Formats.Iptc.InPhotoshop(Bytes(first, Photoshop));
        found.Exif = About.Any(first.Fields.ContainsKey) || first.Below.ContainsKey(TiffDirectory.ExifDirectory) || first.Below.ContainsKey(TiffDirectory.GpsDirectory)
            ? ToExif(first).ToBlock()
            : null;
        if (HasMakerNote(first))
            found.Notes.Add(MakerNoteMoved);
        if (found.Icc is null && first.RationalsOf(Primaries) is { Length: 6 } primaries && first.RationalsOf(WhitePoint) is { Length: 2 } white)
        {
            double[] all = [.. primaries, .. white];
            if (all.All(value => value is > 0 and < 1) && all.Zip(ColourSpace.SrgbPrimaries, (a, b) => Math.Abs(a - b)).Any(difference => difference > 0.002))
                found.Colours = new ColourSpace(all, ColourSpace.SrgbCurve);
        }
        if (found.Icc is null && first.Fields.ContainsKey(Transfer))
            found.Notes.Add("its table of brightness (TransferFunction) was left out");
        return found;
    }

    /// <summary>
    /// Puts metadata into a TIFF that a codec wrote: its first directory is written once more at the end, with more fields, and without the resolution
    /// that the codec made up.
    /// </summary>
    public static void Write(Stream file, ImageMetadata metadata, byte[]? exif, bool mark, ICollection<string> notes)
    {
        var head = new byte[16];
        file.Position = 0;
        file.ReadExactly(head, 0, 8);
        bool little = head[0] == 'I', big = TiffDirectory.Number(head.AsSpan(2, 2), little) == 43;
        TiffDirectory directory = TiffDirectory.Read(file) ?? throw new InvalidDataException("The TIFF that was written cannot be read.");
        if (metadata is not { PixelsPerMillimetreX: > 0, PixelsPerMillimetreY: > 0 })
        {
            directory.Fields.Remove(XResolution);
            directory.Fields.Remove(YResolution);
            directory.Fields.Remove(ResolutionUnit);
        }
        if (exif is not null && TiffDirectory.Read(new MemoryStream(exif)) is { } source)
        {
            foreach (TiffField field in source.Fields.Values.Where(field => About.Contains(field.Tag)))
                directory.Fields[field.Tag] = field with { Value = source.LittleEndian == little || field.Type is 1 or 2 or 7 ? field.Value : Turned(field) };
            foreach ((ushort tag, List<TiffDirectory> below) in source.Below.Where(pair => pair.Key is TiffDirectory.ExifDirectory or TiffDirectory.GpsDirectory))
                directory.Below[tag] = below;
            if (HasMakerNote(source))
                notes.Add(MakerNoteMoved);
        }
        if (metadata.Orientation != 1)
            directory.Set(ExifBlock.OrientationTag, (ushort)metadata.Orientation);
        SetBytes(directory, Icc, 7, metadata.Icc);
        SetBytes(directory, Xmp, 1, metadata.Xmp);
        SetBytes(directory, IptcTag, 7, metadata.Iptc);
        foreach (ImageText text in metadata.Texts)
        {
            ushort tag = text.Keyword switch { "Author" => Artist, "Copyright" => Copyright, "Description" or "Comment" or "Title" => Description, "Software" => 305, _ => 0 };
            if (tag == 0 || directory.Fields.ContainsKey(tag))
                notes.Add($"the text \"{text.Keyword}\" has no place in a TIFF; it was left out");
            else
                SetBytes(directory, tag, 2, [.. Encoding.UTF8.GetBytes(text.Text), 0]);
        }
        if (mark)
            SetBytes(directory, Mark, 2, [.. "made by bbmr"u8, 0]);
        file.Position = file.Length;
        long at = directory.Write(file, little, big, directory.Next);
        var offset = new byte[big ? 8 : 4];
        for (int i = 0; i < offset.Length; i++)
            offset[little ? i : offset.Length - 1 - i] = (byte)(at >> (8 * i));
        file.Position = big ? 8 : 4;
        file.Write(offset);
        file.Position = file.Length;
    }

    /// <summary>Pixels a millimetre that a directory of TIFF or EXIF names; null when it names none.</summary>
    public static (double X, double Y)? Resolution(TiffDirectory directory)
    {
        double unit = (directory.NumberOf(ResolutionUnit) ?? 2) switch { 2 => 25.4, 3 => 10, _ => 0 };
        return unit > 0 && directory.RationalsOf(XResolution) is [> 0 and < 1e6 and var x] && directory.RationalsOf(YResolution) is [> 0 and < 1e6 and var y]
            ? (x / unit, y / unit)
            : null;
    }

    // Its offsets count from where it was.
    private const string MakerNoteMoved = "the camera maker's own notes were moved: some programs may not read them any more";

    private static bool HasMakerNote(TiffDirectory directory) =>
        directory.Below.TryGetValue(TiffDirectory.ExifDirectory, out List<TiffDirectory>? exif) && exif.Any(d => d.Fields.ContainsKey(0x927C));

    private static void RequirePicture(TiffDirectory first, ReadOnlySpan<byte> head, List<string> notes)
    {
        TiffDirectory[] all = [first, .. first.Below.GetValueOrDefault(TiffDirectory.SubDirectories) ?? []];
        bool raw = first.Fields.ContainsKey(DngVersion) || (head.Length == 16 && head[8..].StartsWith("CR\x02"u8))
            || all.Any(d => d.NumberOf(Photometric) is 32803 or 34892 || (d.NumberOf(Compression) is { } c && RawCompressions.Contains(c)));
        bool preview = all.Length > 1 && (first.NumberOf(SubfileType) & 1) == 1;
        if (all.Length > 1 && !raw && !preview)
            notes.Add("it holds further pictures below the first; only the first is kept");
        if (raw || preview)
            throw new NotSupportedException("it is a camera raw file, of which only the small picture for show could be read; develop it first");
        if (first.NumberOf(Compression) is { } compression && !Decoded.Contains(compression))
            throw new NotSupportedException($"the compression {(NotDecoded.TryGetValue(compression, out string? name) ? name : $"number {compression}")} of a TIFF is not supported");
    }

    private static ulong ColoursOf(TiffDirectory directory) => directory.NumberOf(Photometric) switch { 2 or 6 or 8 => 3, 5 => 4, _ => 1 };

    private static TiffDirectory ToExif(TiffDirectory first)
    {
        var exif = TiffDirectory.Empty(first.LittleEndian);
        foreach (ushort tag in About)
        {
            if (first.Fields.TryGetValue(tag, out TiffField? field))
                exif.Fields[tag] = field;
        }
        foreach (ushort tag in new[] { TiffDirectory.ExifDirectory, TiffDirectory.GpsDirectory })
        {
            if (first.Below.TryGetValue(tag, out List<TiffDirectory>? below))
                exif.Below[tag] = below;
        }
        return exif;
    }

    private static byte[]? Turned(TiffField field)
    {
        byte[]? value = (byte[]?)field.Value?.Clone();
        int unit = field.Type is 3 or 8 ? 2 : field.Type is 12 or 16 or 17 or 18 ? 8 : 4;
        for (int i = 0; value is not null && i + unit <= value.Length; i += unit)
            value.AsSpan(i, unit).Reverse();
        return value;
    }

    private static byte[]? Bytes(TiffDirectory directory, ushort tag) => directory.Fields.TryGetValue(tag, out TiffField? field) && field.Value is { Length: > 0 } value ? value : null;

    private static void SetBytes(TiffDirectory directory, ushort tag, ushort type, byte[]? value)
    {
        if (value is { Length: > 0 })
            directory.Fields[tag] = new TiffField(tag, type, (ulong)value.Length, value);
    }
}

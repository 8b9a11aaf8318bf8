using System.Buffers.Binary;
using System.Globalization;
using System.IO.Compression;
using System.IO.Hashing;
using System.Text;

namespace BbmrCluster.Imaging.Formats;

/// <summary>What a PNG carries beside its pixels (PNG third edition), wherever its chunks stand: before the pixels or after them.</summary>
internal static class PngMetadata
{
    private const int MostMetadata = 48 << 20, SignatureBytes = 8;

    /// <summary>The chunk that says that a file was made here: private, and dropped by editors that change pixels.</summary>
    public static ReadOnlySpan<byte> Mark => "bbMR"u8;

    /// <summary>Reads the chunks.</summary>
    /// <param name="stream">At the beginning of the file.</param>
    public static RawMetadata Read(Stream stream)
    {
        var found = new RawMetadata();
        Span<byte> head = stackalloc byte[8];
        long position = SignatureBytes;
        double gamma = 0;
        double[]? chromaticities = null;
        bool standard = false;
        long total = 0;
        while (true)
        {
            stream.Position = position;
            if (stream.ReadAtLeast(head, 8, throwOnEndOfStream: false) < 8)
                break;
            long length = BinaryPrimitives.ReadUInt32BigEndian(head);
            string type = Encoding.Latin1.GetString(head[4..]);
            position += 12 + length;
            if (type == "IEND" || length > int.MaxValue)
                break;
            if (type is not ("iCCP" or "eXIf" or "iTXt" or "tEXt" or "zTXt" or "cICP" or "gAMA" or "cHRM" or "sRGB" or "pHYs"))
            {
                if (type is "mDCV" or "cLLI" or "mDCv" or "cLLi")
                    found.Notes.Add("its description of the mastering display was left out");
                continue;
            }
            total += length;
            if (total > MostMetadata)
            {
                found.Notes.Add("it has more than 48 MB of metadata; what comes after that was left out");
                break;
            }
            var body = new byte[length];
            if (stream.ReadAtLeast(body, body.Length, throwOnEndOfStream: false) < body.Length)
                break;
            switch (type)
            {
                case "iCCP" when Split(body, out _, out ReadOnlySpan<byte> rest) && rest.Length > 1:
                    found.Icc = Inflate(rest[1..]) ?? [];
                    break;
                case "eXIf":
                    found.Exif = body.AsSpan().StartsWith("Exif\0\0"u8) ? body[6..] : body;
                    break;
                case "cICP" when body.Length == 4:
                    found.Cicp = body;
                    break;
                case "pHYs" when body.Length == 9 && body[8] == 1:
                    found.PixelsPerMillimetre = (BinaryPrimitives.ReadUInt32BigEndian(body) / 1000.0, BinaryPrimitives.ReadUInt32BigEndian(body.AsSpan(4)) / 1000.0);
                    break;
                case "sRGB":
                    standard = true;
                    break;
                case "gAMA" when body.Length == 4:
                    gamma = BinaryPrimitives.ReadUInt32BigEndian(body) / 100_000.0;
                    break;
                case "cHRM" when body.Length == 32:
                    chromaticities = [.. Enumerable.Range(0, 8).Select(i => BinaryPrimitives.ReadUInt32BigEndian(body.AsSpan(4 * i)) / 100_000.0)];
                    // White comes first in the file.
                    chromaticities = [.. chromaticities[2..], .. chromaticities[..2]];
                    break;
                case "tEXt" or "zTXt" or "iTXt":
                    AddText(found, type, body);
                    break;
            }
        }
        if (!standard)
            found.Colours = Colours(gamma, chromaticities);
        return found;
    }

    /// <summary>The chunks for an image's metadata, to stand behind the header.</summary>
    public static byte[] Chunks(ImageMetadata metadata, byte[]? exif, bool mark, ICollection<string> notes)
    {
        using var chunks = new MemoryStream();
        if (mark)
            Add(chunks, Mark, "made by bbmr"u8);
        if (metadata.Cicp is { Length: 4 } cicp)
            Add(chunks, "cICP"u8, cicp);
        if (metadata.Icc is { } icc)
            Add(chunks, "iCCP"u8, [.. "ICC profile\0\0"u8, .. Deflate(icc)]);
        if (metadata is { PixelsPerMillimetreX: > 0, PixelsPerMillimetreY: > 0 })
        {
            var density = new byte[9];
            BinaryPrimitives.WriteUInt32BigEndian(density, (uint)Math.Clamp(Math.Round(1000 * metadata.PixelsPerMillimetreX), 1, int.MaxValue));
            BinaryPrimitives.WriteUInt32BigEndian(density.AsSpan(4), (uint)Math.Clamp(Math.Round(1000 * metadata.PixelsPerMillimetreY), 1, int.MaxValue));
            density[8] = 1;
            Add(chunks, "pHYs"u8, density);
        }
        if (exif is not null)
            Add(chunks, "eXIf"u8, exif);
        if (metadata.Xmp is { } xmp)
            Add(chunks, "iTXt"u8, [.. "XML:com.adobe.xmp\0\0\0\0\0"u8, .. xmp]);
        if (metadata.Iptc is { } iptc)
            Add(chunks, "zTXt"u8, [.. "Raw profile type iptc\0\0"u8, .. Deflate(Encoding.ASCII.GetBytes(RawProfile("iptc", Imaging.Formats.Iptc.ToPhotoshop(iptc))))]);
        foreach (ImageText text in metadata.Texts)
        {
            if (text.Keyword is not { Length: >= 1 and <= 79 } || text.Keyword.Any(c => c is < ' ' or > '~'))
            {
                notes.Add($"the text \"{text.Keyword}\" has a name that PNG cannot hold; it was left out");
                continue;
            }
            byte[] keyword = Encoding.ASCII.GetBytes(text.Keyword);
            if (text.Text.All(c => c is '\n' or (>= ' ' and <= '~') or (>= '\u00A1' and <= '\u00FF')))
                Add(chunks, "tEXt"u8, [.. keyword, 0, .. Encoding.Latin1.GetBytes(text.Text)]);
            else
                Add(chunks, "iTXt"u8, [.. keyword, 0, 0, 0, 0, 0, .. Encoding.UTF8.GetBytes(text.Text)]);
        }
        return chunks.ToArray();
    }

    private static void AddText(RawMetadata found, string type, byte[] body)
    {
        if (!Split(body, out string keyword, out ReadOnlySpan<byte> rest))
            return;
        byte[]? text = rest.ToArray();
        if (type == "zTXt")
        {
            text = rest.Length > 1 ? Inflate(rest[1..]) : null;
        }
        else if (type == "iTXt")
        {
            if (rest.Length < 2)
                return;
            bool packed = rest[0] == 1;
            rest = rest[2..];
            int language = rest.IndexOf((byte)0), translated = language < 0 ? -1 : rest[(language + 1)..].IndexOf((byte)0);
            if (translated < 0)
                return;
            rest = rest[(language + translated + 2)..];
            text = packed ? Inflate(rest) : rest.ToArray();
        }
        if (text is null)
        {
            found.Notes.Add($"the text \"{keyword}\" cannot be read; it was left out");
            return;
        }
        switch (keyword)
        {
            case "XML:com.adobe.xmp" or "Raw profile type xmp":
                found.Xmp ??= keyword[0] == 'X' ? text : FromRawProfile(text);
                break;
            case "Raw profile type exif" or "Raw profile type APP1":
                if (FromRawProfile(text) is { } exif)
                    found.Exif ??= exif.AsSpan().StartsWith("Exif\0\0"u8) ? exif[6..] : exif.AsSpan().StartsWith("II"u8) || exif.AsSpan().StartsWith("MM"u8) ? exif : null;
                break;
            case "Raw profile type iptc" or "Raw profile type 8bim" or "Raw profile type APP13":
                found.Iptc ??= Imaging.Formats.Iptc.Bare(FromRawProfile(text));
                break;
            case "Raw profile type icc" or "Raw profile type icm":
                found.Icc ??= FromRawProfile(text);
                break;
            default:
                found.Texts.Add(new ImageText(keyword, (type == "iTXt" ? Encoding.UTF8 : Encoding.Latin1).GetString(text)));
                break;
        }
    }

    // Without a profile: gamma and chromaticities, unless they are those of sRGB.
    private static ColourSpace? Colours(double gamma, double[]? chromaticities)
    {
        bool plainGamma = gamma == 0 || Math.Abs(gamma - 0.45455) < 0.005, plainColours = chromaticities is null || IsSrgb(chromaticities);
        if ((plainGamma && plainColours) || gamma is < 0 or > 10 or (> 0 and < 0.01) || (chromaticities is not null && chromaticities.Any(value => value is <= 0 or >= 1)))
            return null;
        return new ColourSpace(plainColours ? ColourSpace.SrgbPrimaries : chromaticities!, gamma == 0 ? ColourSpace.SrgbCurve : ColourSpace.Power(1 / gamma));
    }

    private static bool IsSrgb(double[] chromaticities) =>
        chromaticities.Zip(ColourSpace.SrgbPrimaries, (a, b) => Math.Abs(a - b)).All(difference => difference < 0.002);

    private static bool Split(byte[] body, out string keyword, out ReadOnlySpan<byte> rest)
    {
        int end = body.AsSpan().IndexOf((byte)0);
        keyword = end < 0 ? "" : Encoding.Latin1.GetString(body, 0, end);
        rest = end < 0 ? [] : body.AsSpan(end + 1);
        return end > 0;
    }

    private static byte[]? Inflate(ReadOnlySpan<byte> packed)
    {
        try
        {
            using var stream = new ZLibStream(new MemoryStream(packed.ToArray()), CompressionMode.Decompress);
            using var plain = new MemoryStream();
            var buffer = new byte[1 << 16];
            for (int read; (read = stream.Read(buffer)) > 0;)
            {
                plain.Write(buffer, 0, read);
                if (plain.Length > MostMetadata)
                    return null;
            }
            return plain.ToArray();
        }
        catch (InvalidDataException)
        {
            return null;
        }
    }

    private static byte[] Deflate(byte[] plain)
    {
        using var packed = new MemoryStream();
        using (var stream = new ZLibStream(packed, CompressionLevel.Optimal, leaveOpen: true))
            stream.Write(plain);
        return packed.ToArray();
    }

    // ImageMagick's form: a name, a length, and hexadecimal digits in lines.
    private static string RawProfile(string name, byte[] bytes)
    {
        var text = new StringBuilder("\n").Append(name).Append('\n').Append(bytes.Length.ToString(CultureInfo.InvariantCulture).PadLeft(8)).Append('\n');
        string hex = Convert.ToHexStringLower(bytes);
        for (int i = 0; i < hex.Length; i += 72)
            text.Append(hex, i, Math.Min(72, hex.Length - i)).Append('\n');
        return text.ToString();
    }

    private static byte[]? FromRawProfile(byte[]? text)
    {
        string[] lines = Encoding.Latin1.GetString(text ?? []).Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        if (lines.Length < 3)
            return null;
        try
        {
            return Convert.FromHexString(string.Concat(lines.Skip(2)));
        }
        catch (FormatException)
        {
            return null;
        }
    }

    private static void Add(MemoryStream chunks, ReadOnlySpan<byte> type, ReadOnlySpan<byte> body)
    {
        Span<byte> number = stackalloc byte[4];
        BinaryPrimitives.WriteInt32BigEndian(number, body.Length);
        chunks.Write(number);
        chunks.Write(type);
        chunks.Write(body);
        var sum = new Crc32();
        sum.Append(type);
        sum.Append(body);
        BinaryPrimitives.WriteUInt32BigEndian(number, sum.GetCurrentHashAsUInt32());
        chunks.Write(number);
    }
}

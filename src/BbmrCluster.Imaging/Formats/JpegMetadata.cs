using System.Buffers.Binary;
using System.Text;

namespace BbmrCluster.Imaging.Formats;

/// <summary>What a JPEG carries beside its pixels: read from the segments before the first scan, written in their place.</summary>
internal static class JpegMetadata
{
    private const int MostSegment = 65_533, MostMetadata = 48 << 20, BytesOfExtensionHead = 40;

    private static ReadOnlySpan<byte> ExifHead => "Exif\0\0"u8;

    private static ReadOnlySpan<byte> XmpHead => "http://ns.adobe.com/xap/1.0/\0"u8;

    private static ReadOnlySpan<byte> ExtensionHead => "http://ns.adobe.com/xmp/extension/\0"u8;

    private static ReadOnlySpan<byte> IccHead => "ICC_PROFILE\0"u8;

    private static ReadOnlySpan<byte> PhotoshopHead => "Photoshop 3.0\0"u8;

    /// <summary>Whether the second segment, behind that of JFIF, says that the file was made here.</summary>
    public static bool IsMarked(ReadOnlySpan<byte> head) => head.Length > 28 && head[20] == 0xFF && head[21] == 0xEF && head[24..].StartsWith(PngMetadata.Mark);

    /// <summary>Reads the segments.</summary>
    /// <param name="stream">At the beginning of the file.</param>
    public static RawMetadata Read(Stream stream)
    {
        var source = new ByteSource(stream);
        var found = new RawMetadata();
        List<(int Number, byte[] Part)> icc = [];
        SortedDictionary<uint, byte[]> extension = [];
        string? extensionId = null;
        using var photoshop = new MemoryStream();
        long total = 0;
        source.Next();
        source.Next();
        while (true)
        {
            int marker;
            do
                marker = source.Next();
            while (marker is not (0xFF or -1));
            while (marker == 0xFF)
                marker = source.Next();
            if (marker is -1 or 0xD9 or 0xDA)
                break;
            if (marker is 0 or 0x01 or (>= 0xD0 and <= 0xD8))
                continue;
            int length = (source.Next() << 8) | source.Next();
            if (length < 2)
                break;
            var body = new byte[length - 2];
            total += length;
            if (!source.TryRead(body) || total > MostMetadata)
                break;
            ReadOnlySpan<byte> span = body;
            switch (marker)
            {
                case 0xE0 when span.StartsWith("JFIF\0"u8) && span.Length >= 12 && body[7] is (1 or 2):
                    double unit = body[7] == 1 ? 25.4 : 10;
                    found.PixelsPerMillimetre ??= (((body[8] << 8) | body[9]) / unit, ((body[10] << 8) | body[11]) / unit);
                    break;
                case 0xE1 when span.StartsWith(ExifHead):
                    found.Exif ??= body[ExifHead.Length..];
                    break;
                case 0xE1 when span.StartsWith(XmpHead):
                    found.Xmp ??= body[XmpHead.Length..];
                    break;
                case 0xE1 when span.StartsWith(ExtensionHead) && span.Length >= ExtensionHead.Length + BytesOfExtensionHead:
                    extensionId ??= Encoding.Latin1.GetString(span.Slice(ExtensionHead.Length, 32));
                    if (Encoding.Latin1.GetString(span.Slice(ExtensionHead.Length, 32)) == extensionId)
                        extension[BinaryPrimitives.ReadUInt32BigEndian(span[(ExtensionHead.Length + 36)..])] = body[(ExtensionHead.Length + BytesOfExtensionHead)..];
                    break;
                case 0xE2 when span.StartsWith(IccHead) && span.Length > IccHead.Length + 2:
                    icc.Add((body[IccHead.Length], body[(IccHead.Length + 2)..]));
                    break;
                case 0xE2 when span.StartsWith("MPF\0"u8):
                    found.MorePictures = true;
                    break;
                case 0xED when span.StartsWith(PhotoshopHead):
                    photoshop.Write(span[PhotoshopHead.Length..]);
                    break;
                case 0xFE:
                    found.Texts.Add(new ImageText("Comment", TextOf(span)));
                    break;
            }
        }
        if (icc.Count > 0)
            found.Icc = [.. icc.OrderBy(part => part.Number).SelectMany(part => part.Part)];
        if (extension.Count > 0)
            found.XmpExtension = [.. extension.Values.SelectMany(part => part)];
        found.Iptc = Iptc.InPhotoshop(photoshop.ToArray());
        return found;
    }

    /// <summary>The segments for an image's metadata, to stand behind the start marker.</summary>
    public static byte[] Segments(ImageMetadata metadata, byte[]? exif, bool mark, ICollection<string> notes)
    {
        using var segments = new MemoryStream();
        // JFIF with the resolution in whole dots per centimetre or inch, whichever is nearer; or square pixels and no resolution.
        (int unit, int x, int y) = Density(metadata);
        segments.Write([0xFF, 0xE0, 0, 16, .. "JFIF\0"u8, 1, 1, (byte)unit, (byte)(x >> 8), (byte)x, (byte)(y >> 8), (byte)y, 0, 0]);
        if (mark)
            Add(segments, 0xEF, PngMetadata.Mark, "made by bbmr"u8);
        if (exif is not null && !Add(segments, 0xE1, ExifHead, exif))
            notes.Add("the EXIF block is longer than a JPEG can hold; it was left out");
        if (metadata.Xmp is { } xmp)
            AddXmp(segments, xmp, notes);
        if (metadata.Icc is { } icc)
        {
            const int part = MostSegment - 14;
            int count = (icc.Length + part - 1) / part;
            if (count > 255)
                notes.Add("the ICC profile is longer than a JPEG can hold; it was left out");
            for (int i = 0; i < count && count <= 255; i++)
                Add(segments, 0xE2, [.. IccHead, (byte)(i + 1), (byte)count], icc.AsSpan(i * part, Math.Min(part, icc.Length - (i * part))));
        }
        if (metadata.Iptc is { } iptc)
        {
            byte[] resource = Iptc.ToPhotoshop(iptc);
            if (!Add(segments, 0xED, PhotoshopHead, resource))
                notes.Add("the IPTC block is longer than a JPEG can hold; it was left out");
        }
        foreach (ImageText text in metadata.Texts)
        {
            byte[] bytes = Encoding.UTF8.GetBytes(text.Keyword == "Comment" ? text.Text : $"{text.Keyword}: {text.Text}");
            if (!Add(segments, 0xFE, [], bytes))
                notes.Add($"the text \"{text.Keyword}\" is longer than a JPEG can hold; it was left out");
        }
        return segments.ToArray();
    }

    private static (int Unit, int X, int Y) Density(ImageMetadata metadata)
    {
        if (metadata is not { PixelsPerMillimetreX: > 0, PixelsPerMillimetreY: > 0 })
            return (0, 1, 1);
        double inchX = metadata.PixelsPerMillimetreX * 25.4, inchY = metadata.PixelsPerMillimetreY * 25.4;
        double centimetreX = metadata.PixelsPerMillimetreX * 10, centimetreY = metadata.PixelsPerMillimetreY * 10;
        bool inches = Off(inchX) + Off(inchY) <= Off(centimetreX) + Off(centimetreY);
        (double x, double y) = inches ? (inchX, inchY) : (centimetreX, centimetreY);
        return x is < 0.5 or > 65_535 || y is < 0.5 or > 65_535 ? (0, 1, 1) : (inches ? 1 : 2, (int)Math.Round(x), (int)Math.Round(y));

        static double Off(double value) => Math.Abs(value - Math.Round(value)) / value;
    }

    // Over 64 kB the packet goes into numbered parts (XMP specification, part 3, 1.1.3.1), and a short one names them.
    private static void AddXmp(MemoryStream segments, byte[] xmp, ICollection<string> notes)
    {
        if (Add(segments, 0xE1, XmpHead, xmp))
            return;
        if (xmp.Length > MostMetadata)
        {
            notes.Add("the XMP packet is longer than a JPEG can hold; it was left out");
            return;
        }
#pragma warning disable CA5351 // The XMP specification names the parts by MD5.
        string id = Convert.ToHexString(System.Security.Cryptography.MD5.HashData(xmp));
#pragma warning restore CA5351
        Add(segments, 0xE1, XmpHead, Encoding.UTF8.GetBytes("<?xpacket begin=\"\uFEFF\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?><x:xmpmeta xmlns:x=\"adobe:ns:meta/\">"
            + "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\"><rdf:Description rdf:about=\"\" "
            + $"xmlns:xmpNote=\"http://ns.adobe.com/xmp/note/\" xmpNote:HasExtendedXMP=\"{id}\"/></rdf:RDF></x:xmpmeta><?xpacket end=\"w\"?>"));
        const int part = 65_000;
        var head = new byte[ExtensionHead.Length + BytesOfExtensionHead];
        ExtensionHead.CopyTo(head);
        Encoding.ASCII.GetBytes(id, head.AsSpan(ExtensionHead.Length));
        BinaryPrimitives.WriteUInt32BigEndian(head.AsSpan(ExtensionHead.Length + 32), (uint)xmp.Length);
        for (int at = 0; at < xmp.Length; at += part)
        {
            BinaryPrimitives.WriteUInt32BigEndian(head.AsSpan(ExtensionHead.Length + 36), (uint)at);
            Add(segments, 0xE1, head, xmp.AsSpan(at, Math.Min(part, xmp.Length - at)));
        }
    }

    private static bool Add(MemoryStream segments, byte marker, ReadOnlySpan<byte> head, ReadOnlySpan<byte> body)
    {
        int length = head.Length + body.Length + 2;
        if (length > MostSegment + 2)
            return false;
        segments.Write([0xFF, marker, (byte)(length >> 8), (byte)length]);
        segments.Write(head);
        segments.Write(body);
        return true;
    }

    private static string TextOf(ReadOnlySpan<byte> bytes)
    {
        bytes = bytes.TrimEnd((byte)0);
        try
        {
            return new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes);
        }
        catch (DecoderFallbackException)
        {
            return Encoding.Latin1.GetString(bytes);
        }
    }
}

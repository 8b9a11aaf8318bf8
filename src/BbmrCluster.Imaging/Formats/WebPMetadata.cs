using System.Buffers.Binary;
using System.Text;

namespace BbmrCluster.Imaging.Formats;

/// <summary>What a WebP carries beside its pixels, and the file written with other metadata (RFC 9649, 2.7).</summary>
internal static class WebPMetadata
{
    private const int MostMetadata = 48 << 20;

    /// <summary>Reads the chunks.</summary>
    public static RawMetadata Read(Stream stream)
    {
        var found = new RawMetadata();
        Span<byte> head = stackalloc byte[8];
        for (long at = 12; at + 8 <= stream.Length;)
        {
            stream.Position = at;
            stream.ReadExactly(head);
            long size = BinaryPrimitives.ReadUInt32LittleEndian(head[4..]);
            string type = Encoding.Latin1.GetString(head[..4]);
            at += 8 + ((size + 1) & ~1);
            if (type is not ("ICCP" or "EXIF" or "XMP ") || size > MostMetadata || stream.Length - stream.Position < size)
                continue;
            var body = new byte[size];
            stream.ReadExactly(body);
            switch (type)
            {
                case "ICCP":
                    found.Icc ??= body;
                    break;
                case "EXIF":
                    found.Exif ??= ExifBlock.Bare(body);
                    break;
                default:
                    found.Xmp ??= body;
                    break;
            }
        }
        return found;
    }

    /// <summary>Writes a picture that a codec made with other metadata.</summary>
    /// <param name="file">What the codec made.</param>
    /// <param name="info">Sizes, transparency and metadata.</param>
    /// <param name="exif">The EXIF block.</param>
    /// <param name="mark">Say that it was made here.</param>
    public static byte[] With(ReadOnlySpan<byte> file, ImageInfo info, byte[]? exif, bool mark)
    {
        ImageMetadata metadata = info.Metadata;
        using var body = new MemoryStream();
        bool alpha = false;
        var pixels = new MemoryStream();
        for (int at = 12; at + 8 <= file.Length;)
        {
            int size = (int)BinaryPrimitives.ReadUInt32LittleEndian(file[(at + 4)..]), padded = (size + 1) & ~1;
            ReadOnlySpan<byte> type = file.Slice(at, 4);
            if (type.SequenceEqual("VP8 "u8) || type.SequenceEqual("VP8L"u8) || type.SequenceEqual("ALPH"u8))
            {
                // Of a lossless picture the codec says by a bit whether it has transparency.
                alpha |= type.SequenceEqual("ALPH"u8) || (type.SequenceEqual("VP8L"u8) && (file[at + 12] & 0x10) != 0);
                pixels.Write(file.Slice(at, 8 + padded));
            }
            at += 8 + padded;
        }
        if (metadata.Icc is null && exif is null && metadata.Xmp is null && !mark)
            return file.ToArray();
        var header = new byte[10];
        header[0] = (byte)((metadata.Icc is null ? 0 : 0x20) | (alpha ? 0x10 : 0) | (exif is null ? 0 : 0x08) | (metadata.Xmp is null ? 0 : 0x04));
        Put24(header.AsSpan(4), info.Width - 1);
        Put24(header.AsSpan(7), info.Height - 1);
        Add(body, "VP8X"u8, header);
        if (metadata.Icc is { } icc)
            Add(body, "ICCP"u8, icc);
        pixels.WriteTo(body);
        if (exif is not null)
            Add(body, "EXIF"u8, exif);
        if (metadata.Xmp is { } xmp)
            Add(body, "XMP "u8, xmp);
        if (mark)
            Add(body, "bbMR"u8, "made by bbmr"u8);
        var whole = new byte[12 + body.Length];
        "RIFF"u8.CopyTo(whole);
        BinaryPrimitives.WriteUInt32LittleEndian(whole.AsSpan(4), (uint)(body.Length + 4));
        "WEBP"u8.CopyTo(whole.AsSpan(8));
        body.ToArray().CopyTo(whole, 12);
        return whole;
    }

    private static void Put24(Span<byte> into, int value) => (into[0], into[1], into[2]) = ((byte)value, (byte)(value >> 8), (byte)(value >> 16));

    private static void Add(MemoryStream body, ReadOnlySpan<byte> type, ReadOnlySpan<byte> content)
    {
        Span<byte> size = stackalloc byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(size, content.Length);
        body.Write(type);
        body.Write(size);
        body.Write(content);
        if (content.Length % 2 != 0)
            body.WriteByte(0);
    }
}

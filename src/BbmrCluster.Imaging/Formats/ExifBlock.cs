using System.Buffers.Binary;

namespace BbmrCluster.Imaging.Formats;

/// <summary>EXIF blocks: the few fields that have to agree with the picture they go with.</summary>
internal static class ExifBlock
{
    public const ushort OrientationTag = 0x0112;

    /// <summary>Without the head that JPEG puts before it; null when nothing is left.</summary>
    public static byte[]? Bare(byte[]? exif) => exif is null ? null
        : exif.AsSpan().StartsWith("Exif\0\0"u8) ? exif.Length > 6 ? exif[6..] : null
        : exif.Length > 0 ? exif : null;

    /// <summary>
    /// The block to be written for a picture: its own, unchanged where its orientation is the picture's. One with nothing but the orientation is made
    /// where there is none and the picture is turned; nothing else is invented.
    /// </summary>
    public static byte[]? For(ImageMetadata metadata)
    {
        byte[]? exif = Bare(metadata.Exif);
        return exif is null && metadata.Orientation == 1 ? null : WithOrientation(exif, metadata.Orientation);
    }

    /// <summary>The block with another orientation. Bytes move only when it had none.</summary>
    public static byte[]? WithOrientation(byte[]? exif, int orientation)
    {
        if (exif is null || exif.Length < 14)
        {
            var made = TiffDirectory.Empty(littleEndian: true);
            made.Set(OrientationTag, (ushort)orientation);
            return made.ToBlock();
        }
        bool little = exif[0] == 'I';
        if (PlaceOfOrientation(exif, little) is { } place)
        {
            if (TiffDirectory.Number(exif.AsSpan(place, 2), little) == (ulong)orientation)
                return exif;
            byte[] changed = (byte[])exif.Clone();
            if (little)
                BinaryPrimitives.WriteUInt16LittleEndian(changed.AsSpan(place), (ushort)orientation);
            else
                BinaryPrimitives.WriteUInt16BigEndian(changed.AsSpan(place), (ushort)orientation);
            return changed;
        }
        if (orientation == 1)
            return exif;
        using var stream = new MemoryStream(exif);
        TiffDirectory directory = TiffDirectory.Read(stream) ?? TiffDirectory.Empty(littleEndian: true);
        directory.Set(OrientationTag, (ushort)orientation);
        return directory.ToBlock();
    }

    /// <summary>The orientation that a block names, 1 to 8; null when it names none.</summary>
    public static int? Orientation(byte[]? exif) =>
        exif is { Length: >= 14 } && PlaceOfOrientation(exif, exif[0] == 'I') is { } place
        && TiffDirectory.Number(exif.AsSpan(place, 2), exif[0] == 'I') is >= 1 and <= 8 and var value ? (int)value : null;

    private static int? PlaceOfOrientation(byte[] exif, bool little)
    {
        ulong at = TiffDirectory.Number(exif.AsSpan(4, 4), little);
        if (at + 2 > (ulong)exif.Length)
            return null;
        int count = (int)TiffDirectory.Number(exif.AsSpan((int)at, 2), little);
        for (int i = 0; i < count; i++)
        {
            int entry = (int)at + 2 + (12 * i);
            if (entry + 12 > exif.Length)
                return null;
            if (TiffDirectory.Number(exif.AsSpan(entry, 2), little) == OrientationTag && TiffDirectory.Number(exif.AsSpan(entry + 2, 2), little) == 3)
                return entry + 8;
        }
        return null;
    }
}

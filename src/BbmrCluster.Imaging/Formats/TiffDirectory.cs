namespace BbmrCluster.Imaging.Formats;

/// <summary>A field of a TIFF directory.</summary>
/// <param name="Tag">Its number.</param>
/// <param name="Type">1 to 13, BigTIFF also 16 to 18.</param>
/// <param name="Count">Values.</param>
/// <param name="Value">As the file has them; null where they are too large to be kept.</param>
internal sealed record TiffField(ushort Tag, ushort Type, ulong Count, byte[]? Value);

/// <summary>
/// A directory (IFD) of a TIFF file or an EXIF block with the directories below it (TIFF 6.0, BigTIFF, Exif 2.32): read from anywhere, written
/// anywhere, in either byte order. Values larger than a limit, and whatever lies outside the file, are left out.
/// </summary>
internal sealed class TiffDirectory
{
    public const ushort SubDirectories = 0x014A, ExifDirectory = 0x8769, GpsDirectory = 0x8825, InteroperabilityDirectory = 0xA005;

    private const ushort UserComment = 0x9286;

    private const int MostFields = 4096, MostDirectories = 64, LargestValue = 16 << 20;

    private static readonly ushort[] Pointers = [SubDirectories, ExifDirectory, GpsDirectory, InteroperabilityDirectory];

    /// <summary>Whether values are little-endian.</summary>
    public bool LittleEndian { get; private init; } = true;

    /// <summary>Fields but pointers to directories, in the order of their tags.</summary>
    public SortedDictionary<ushort, TiffField> Fields { get; } = [];

    /// <summary>Directories that a field points to, by its tag.</summary>
    public SortedDictionary<ushort, List<TiffDirectory>> Below { get; } = [];

    /// <summary>Offset of the directory that follows; 0 for none.</summary>
    public ulong Next { get; private set; }

    /// <summary>Reads the first directory of a TIFF file or EXIF block and those below it.</summary>
    /// <param name="stream">With the byte order mark at its beginning.</param>
    /// <returns>Null when it is none.</returns>
    public static TiffDirectory? Read(Stream stream)
    {
        Span<byte> head = stackalloc byte[16];
        stream.Position = 0;
        int length = stream.ReadAtLeast(head, 16, throwOnEndOfStream: false);
        bool little = head[0] == 'I';
        if (length < 8 || head[0] != head[1] || head[0] is not ((byte)'I' or (byte)'M'))
            return null;
        bool big = Number(head[2..4], little) == 43;
        // Some cameras write other numbers than 42 for their raw files.
        ulong offset = Number(big ? head[8..16] : head[4..8], little);
        int left = MostDirectories;
        return Read(stream, offset, little, big, ref left);
    }

    /// <summary>A new directory.</summary>
    public static TiffDirectory Empty(bool littleEndian) => new() { LittleEndian = littleEndian };

    /// <summary>The first value of a field as a number, or null.</summary>
    public ulong? NumberOf(ushort tag) => NumbersOf(tag) is [var first, ..] ? first : null;

    /// <summary>All values of a field of whole numbers.</summary>
    public ulong[] NumbersOf(ushort tag)
    {
        if (!Fields.TryGetValue(tag, out TiffField? field) || field.Value is null || field.Type is not (1 or 3 or 4 or 6 or 8 or 9 or 13 or 16 or 17 or 18))
            return [];
        int size = SizeOf(field.Type);
        var values = new ulong[field.Value.Length / size];
        for (int i = 0; i < values.Length; i++)
            values[i] = Number(field.Value.AsSpan(i * size, size), LittleEndian);
        return values;
    }

    /// <summary>Values of a field of rational numbers.</summary>
    public double[] RationalsOf(ushort tag)
    {
        if (!Fields.TryGetValue(tag, out TiffField? field) || field.Value is null || field.Type is not (5 or 10))
            return [];
        var values = new double[field.Value.Length / 8];
        for (int i = 0; i < values.Length; i++)
            values[i] = (double)Number(field.Value.AsSpan(8 * i, 4), LittleEndian) / Number(field.Value.AsSpan((8 * i) + 4, 4), LittleEndian);
        return values;
    }

    /// <summary>Sets a field of one 16-bit number.</summary>
    public void Set(ushort tag, ushort value)
    {
        var bytes = new byte[2];
        Put(bytes, value, LittleEndian);
        Fields[tag] = new TiffField(tag, 3, 1, bytes);
    }

    /// <summary>An EXIF block: byte order mark, this directory and those below it.</summary>
    public byte[] ToBlock()
    {
        var block = new MemoryStream();
        block.Write(LittleEndian ? "II*\0\b\0\0\0"u8 : "MM\0*\0\0\0\b"u8);
        Write(block, LittleEndian, big: false, 0);
        return block.ToArray();
    }

    /// <summary>Appends this directory and those below it to a file, at an even offset.</summary>
    /// <returns>Its offset.</returns>
    public long Write(Stream stream, bool little, bool big, ulong next)
    {
        if (stream.Position % 2 != 0)
            stream.WriteByte(0);
        long at = stream.Position;
        (int countBytes, int entryBytes, int wordBytes) = big ? (8, 20, 8) : (2, 12, 4);
        TiffField[] fields = [.. Fields.Values.Where(field => field.Value is not null)];
        ushort[] tags = [.. fields.Select(field => field.Tag).Concat(Below.Keys).Order()];
        var table = new byte[countBytes + (entryBytes * tags.Length) + wordBytes];
        Put(table.AsSpan(0, countBytes), (ulong)tags.Length, little);
        stream.Write(table);
        for (int i = 0; i < tags.Length; i++)
        {
            Span<byte> entry = table.AsSpan(countBytes + (entryBytes * i), entryBytes), word = entry[^wordBytes..];
            Put(entry[..2], tags[i], little);
            if (Below.TryGetValue(tags[i], out List<TiffDirectory>? below))
            {
                Put(entry[2..4], big ? 18u : 4u, little);
                Put(entry[4..^wordBytes], (ulong)below.Count, little);
                var offsets = new byte[wordBytes * below.Count];
                for (int k = 0; k < below.Count; k++)
                    Put(offsets.AsSpan(wordBytes * k, wordBytes), (ulong)below[k].Write(stream, little, big, 0), little);
                PlaceValue(stream, offsets, word, little);
                continue;
            }
            TiffField field = Fields[tags[i]];
            Put(entry[2..4], field.Type, little);
            Put(entry[4..^wordBytes], field.Count, little);
            PlaceValue(stream, InOrder(field, little), word, little);
        }
        Put(table.AsSpan(table.Length - wordBytes), next, little);
        long end = stream.Position;
        stream.Position = at;
        stream.Write(table);
        stream.Position = end;
        return at;
    }

    /// <summary>A whole number in either byte order.</summary>
    public static ulong Number(ReadOnlySpan<byte> bytes, bool little)
    {
        ulong value = 0;
        for (int i = 0; i < bytes.Length; i++)
            value |= (ulong)bytes[i] << (8 * (little ? i : bytes.Length - 1 - i));
        return value;
    }

    private static void Put(Span<byte> into, ulong value, bool little)
    {
        for (int i = 0; i < into.Length; i++)
            into[little ? i : into.Length - 1 - i] = (byte)(value >> (8 * i));
    }

    private static void PlaceValue(Stream stream, byte[] value, Span<byte> word, bool little)
    {
        if (value.Length <= word.Length)
        {
            value.CopyTo(word);
            return;
        }
        if (stream.Position % 2 != 0)
            stream.WriteByte(0);
        Put(word, (ulong)stream.Position, little);
        stream.Write(value);
    }

    private byte[] InOrder(TiffField field, bool little)
    {
        int unit = field.Type is 5 or 10 ? 4 : SizeOf(field.Type);
        if (little == LittleEndian || (unit == 1 && field.Tag != UserComment))
            return field.Value!;
        byte[] turned = (byte[])field.Value!.Clone();
        // A comment in UTF-16 follows the byte order of its file without saying so by its type.
        if (field.Tag == UserComment && field.Value.AsSpan().StartsWith("UNICODE\0"u8))
        {
            for (int i = 8; i + 2 <= turned.Length; i += 2)
                turned.AsSpan(i, 2).Reverse();
            return turned;
        }
        for (int i = 0; unit > 1 && i + unit <= turned.Length; i += unit)
            turned.AsSpan(i, unit).Reverse();
        return turned;
    }

    private static int SizeOf(ushort type) => type switch { 1 or 2 or 6 or 7 => 1, 3 or 8 => 2, 4 or 9 or 11 or 13 => 4, 5 or 10 or 12 or 16 or 17 or 18 => 8, _ => 0 };

    private static TiffDirectory? Read(Stream stream, ulong offset, bool little, bool big, ref int left)
    {
        (int countBytes, int entryBytes, int wordBytes) = big ? (8, 20, 8) : (2, 12, 4);
        if (left-- <= 0 || offset < 8 || offset + (ulong)countBytes > (ulong)stream.Length)
            return null;
        Span<byte> head = stackalloc byte[8];
        stream.Position = (long)offset;
        stream.ReadExactly(head[..countBytes]);
        ulong count = Number(head[..countBytes], little);
        ulong size = (count * (ulong)entryBytes) + (ulong)wordBytes;
        if (count is 0 or > MostFields)
            return null;
        var table = new byte[size];
        int read = stream.ReadAtLeast(table, table.Length, throwOnEndOfStream: false);
        if (read < table.Length - wordBytes)
            return null;
        var directory = new TiffDirectory { LittleEndian = little, Next = Number(table.AsSpan(table.Length - wordBytes), little) };
        for (int i = 0; i < (int)count; i++)
        {
            ReadOnlySpan<byte> entry = table.AsSpan(entryBytes * i, entryBytes), word = entry[^wordBytes..];
            (ushort tag, ushort type, ulong values) = ((ushort)Number(entry[..2], little), (ushort)Number(entry[2..4], little), Number(entry[4..^wordBytes], little));
            int unit = SizeOf(type);
            if (unit == 0 || directory.Fields.ContainsKey(tag))
                continue;
            byte[]? value = Value(stream, word, unit, values, little);
            bool isPointer = Pointers.Contains(tag) && type is 4 or 13 or 16 or 18 && values is >= 1 and <= MostDirectories && value is not null;
            if (!isPointer)
            {
                directory.Fields.Add(tag, new TiffField(tag, type, values, value));
                continue;
            }
            List<TiffDirectory> below = [];
            for (int k = 0; k < value!.Length / unit; k++)
            {
                if (Read(stream, Number(value.AsSpan(k * unit, unit), little), little, big, ref left) is { } found)
                    below.Add(found);
            }
            if (below.Count > 0)
                directory.Below[tag] = below;
        }
        return directory;
    }

    private static byte[]? Value(Stream stream, ReadOnlySpan<byte> word, int unit, ulong count, bool little)
    {
        if (count > LargestValue || count * (ulong)unit > LargestValue)
            return null;
        int size = (int)count * unit;
        if (size <= word.Length)
            return word[..size].ToArray();
        ulong offset = Number(word, little);
        if (offset > (ulong)stream.Length || offset + (ulong)size > (ulong)stream.Length)
            return null;
        var value = new byte[size];
        stream.Position = (long)offset;
        return stream.ReadAtLeast(value, size, throwOnEndOfStream: false) == size ? value : null;
    }
}

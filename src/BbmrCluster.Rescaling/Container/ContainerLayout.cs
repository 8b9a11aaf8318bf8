using System.Buffers.Binary;
using System.IO.Hashing;
using System.Text;

namespace BbmrCluster.Rescaling.Container;

/// <summary>
/// Byte layout of a container, versions 1 and 2 (docs/container-format.md): what writer and reader share. All numbers are
/// little-endian; a checksum is XXH3-128, seed 0, in its canonical (big-endian) form.
/// </summary>
internal static class ContainerLayout
{
    /// <summary>Blocks by themselves, a strip of one row of blocks.</summary>
    public const int Version1 = 1;

    /// <summary>Blocks that see their neighbours, strips of whole tiles.</summary>
    public const int Version2 = 2;
    public const int ChecksumBytes = 16;
    public const int PreambleBytes = 56;
    public const int IndexEntryBytes = 32;

    /// <summary>Largest label of a quality record, characters.</summary>
    public const int MaxLabel = 1024;

    /// <summary>High bit, name, both line ends, end-of-file of DOS and a zero: each kind of text-mode damage changes it.</summary>
    public static ReadOnlySpan<byte> Magic => [0x8B, (byte)'B', (byte)'B', (byte)'M', (byte)'R', 0x0D, 0x0A, 0x1A, 0x0A, 0x00];

    public static byte[] Checksum(ReadOnlySpan<byte> bytes) => XxHash128.Hash(bytes);

    /// <summary>Whether bytes end with the checksum of what is before it.</summary>
    public static bool ChecksumHolds(ReadOnlySpan<byte> section) =>
        section.Length >= ChecksumBytes && Checksum(section[..^ChecksumBytes]).AsSpan().SequenceEqual(section[^ChecksumBytes..]);

    public static byte[] WithChecksum(ReadOnlySpan<byte> bytes)
    {
        var section = new byte[bytes.Length + ChecksumBytes];
        bytes.CopyTo(section);
        XxHash128.Hash(bytes, section.AsSpan(bytes.Length));
        return section;
    }
}

/// <summary>Section lengths, the first 56 bytes of a container.</summary>
/// <param name="Header">Bytes of the header without its checksum.</param>
/// <param name="ScaleMap">Bytes of the scale map without its checksum.</param>
/// <param name="Quality">Bytes of the quality record without its checksum.</param>
/// <param name="Strips">Number of strips.</param>
/// <param name="FileLength">Bytes of the whole file.</param>
/// <param name="Version">1 or 2.</param>
internal sealed record Preamble(long Header, long ScaleMap, long Quality, long Strips, long FileLength, int Version = ContainerLayout.Version1)
{
    public long ScaleMapAt => ContainerLayout.PreambleBytes + Header + ContainerLayout.ChecksumBytes;

    public long QualityAt => ScaleMapAt + ScaleMap + ContainerLayout.ChecksumBytes;

    public long IndexAt => QualityAt + Quality + ContainerLayout.ChecksumBytes;

    public long StripsAt => IndexAt + (Strips * ContainerLayout.IndexEntryBytes) + ContainerLayout.ChecksumBytes;

    public byte[] Encode()
    {
        Span<byte> bytes = stackalloc byte[ContainerLayout.PreambleBytes - ContainerLayout.ChecksumBytes];
        bytes.Clear();
        ContainerLayout.Magic.CopyTo(bytes);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[10..], (ushort)Version);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[12..], checked((uint)Header));
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[16..], checked((uint)ScaleMap));
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[20..], checked((uint)Quality));
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[24..], checked((uint)Strips));
        BinaryPrimitives.WriteUInt64LittleEndian(bytes[32..], checked((ulong)FileLength));
        return ContainerLayout.WithChecksum(bytes);
    }

    /// <summary>Reads the first bytes of a file; there may be fewer than a preamble has.</summary>
    /// <exception cref="FormatException">Not a container or a damaged one: a sentence without the file's name.</exception>
    public static Preamble Decode(ReadOnlySpan<byte> bytes)
    {
        ReadOnlySpan<byte> magic = ContainerLayout.Magic;
        int common = bytes.CommonPrefixLength(magic);
        if (common < magic.Length)
        {
            if (common == bytes.Length)
                throw new FormatException(bytes.IsEmpty ? "is empty" : $"is truncated to {bytes.Length} bytes");
            // The name is there, the bytes around it are not: something took the file for text.
            if (bytes[..Math.Min(bytes.Length, magic.Length)].IndexOf(magic[1..5]) >= 0)
                throw new FormatException("was damaged by a transfer in text mode; copy it again in binary mode");
            throw new FormatException("is not a .bbmr container");
        }
        if (bytes.Length < ContainerLayout.PreambleBytes)
            throw new FormatException($"is truncated to {bytes.Length} bytes");
        int version = BinaryPrimitives.ReadUInt16LittleEndian(bytes[10..]);
        if (version is not (ContainerLayout.Version1 or ContainerLayout.Version2))
            throw new FormatException($"has container version {version}; this program reads the versions {ContainerLayout.Version1} and {ContainerLayout.Version2}");
        if (!ContainerLayout.ChecksumHolds(bytes[..ContainerLayout.PreambleBytes]))
            throw new FormatException("has a damaged preamble (checksum)");
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(bytes[32..]);
        if (length > long.MaxValue)
            throw new FormatException("states an impossible length");
        return new Preamble(
            BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]), BinaryPrimitives.ReadUInt32LittleEndian(bytes[16..]),
            BinaryPrimitives.ReadUInt32LittleEndian(bytes[20..]), BinaryPrimitives.ReadUInt32LittleEndian(bytes[24..]), (long)length, version);
    }
}

/// <summary>Where a strip lies.</summary>
/// <param name="Offset">From the start of the file, bytes.</param>
/// <param name="Length">Bytes, its checksum included.</param>
/// <param name="Checksum">Its checksum; null when the index is lost and the strip's own has to do.</param>
internal sealed record StripEntry(long Offset, long Length, byte[]? Checksum)
{
    public static byte[] EncodeAll(IReadOnlyList<StripEntry> entries)
    {
        var bytes = new byte[entries.Count * ContainerLayout.IndexEntryBytes];
        for (int i = 0; i < entries.Count; i++)
        {
            Span<byte> entry = bytes.AsSpan(i * ContainerLayout.IndexEntryBytes, ContainerLayout.IndexEntryBytes);
            BinaryPrimitives.WriteUInt64LittleEndian(entry, (ulong)entries[i].Offset);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[8..], (ulong)entries[i].Length);
            entries[i].Checksum.CopyTo(entry[16..]);
        }
        return ContainerLayout.WithChecksum(bytes);
    }

    /// <summary>Reads an index whose checksum holds.</summary>
    /// <exception cref="FormatException">Strips do not follow each other without gaps from first to last byte.</exception>
    public static StripEntry[] DecodeAll(ReadOnlySpan<byte> bytes, int count, long start, long end)
    {
        var entries = new StripEntry[count];
        long offset = start;
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> entry = bytes.Slice(i * ContainerLayout.IndexEntryBytes, ContainerLayout.IndexEntryBytes);
            ulong length = BinaryPrimitives.ReadUInt64LittleEndian(entry[8..]);
            if (BinaryPrimitives.ReadUInt64LittleEndian(entry) != (ulong)offset || length > (ulong)(end - offset))
                throw new FormatException($"strip {i} is not where the one before it ends");
            entries[i] = new StripEntry(offset, (long)length, entry[16..32].ToArray());
            offset += (long)length;
        }
        return offset == end ? entries : throw new FormatException("the strips do not reach the end of the file");
    }
}

/// <summary>The quality record's bytes.</summary>
internal static class QualityRecord
{
    /// <exception cref="FormatException">A value is outside its range.</exception>
    public static byte[] Encode(RecordedQuality quality, int blocks)
    {
        if (Problem(quality, blocks) is { } problem)
            throw new FormatException(problem);
        var bytes = new byte[4 + quality.Label.Length + (4 * blocks)];
        bytes[0] = (byte)quality.Kind;
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(2), (ushort)quality.Label.Length);
        Encoding.ASCII.GetBytes(quality.Label, bytes.AsSpan(4));
        for (int i = 0; i < blocks; i++)
            BinaryPrimitives.WriteSingleLittleEndian(bytes.AsSpan(4 + quality.Label.Length + (4 * i)), (float)quality.Sse[i]);
        return bytes;
    }

    /// <exception cref="FormatException">Not a quality record of so many blocks.</exception>
    public static RecordedQuality Decode(ReadOnlySpan<byte> bytes, int blocks)
    {
        int label = bytes.Length < 4 ? 0 : BinaryPrimitives.ReadUInt16LittleEndian(bytes[2..]);
        if (bytes.Length != 4L + label + (4L * blocks))
            throw new FormatException("the quality record has another length than its blocks need");
        var sse = new double[blocks];
        for (int i = 0; i < blocks; i++)
            sse[i] = BinaryPrimitives.ReadSingleLittleEndian(bytes[(4 + label + (4 * i))..]);
        var quality = new RecordedQuality((QualityKind)bytes[0], Encoding.Latin1.GetString(bytes.Slice(4, label)), sse);
        return Problem(quality, blocks) is { } problem ? throw new FormatException(problem) : quality;
    }

    private static string? Problem(RecordedQuality quality, int blocks)
    {
        if (quality.Kind is not (QualityKind.Estimated or QualityKind.Measured))
            return "the quality record is of an unknown kind";
        if (quality.Label is not { Length: >= 1 and <= ContainerLayout.MaxLabel } || quality.Label.Any(c => c is < ' ' or > '~'))
            return "the quality record has a label that is empty, too long or not printable";
        if (quality.Sse.Length != blocks)
            return $"the quality record has {quality.Sse.Length} values for {blocks} blocks";
        return quality.Sse.All(value => value >= 0 && float.IsFinite((float)value)) ? null : "the quality record holds an impossible squared error";
    }
}

using System.Buffers.Binary;

namespace BbmrCluster.Imaging.Formats;

/// <summary>IPTC records (IIM 4.2) in the coats that formats put around them: bare, and as a resource of Photoshop.</summary>
internal static class Iptc
{
    private const int Resource = 0x0404;

    /// <summary>Finds the records in a block of Photoshop's resources; null when it has none.</summary>
    public static byte[]? InPhotoshop(ReadOnlySpan<byte> resources)
    {
        while (resources.Length >= 12 && resources.StartsWith("8BIM"u8))
        {
            int id = BinaryPrimitives.ReadUInt16BigEndian(resources[4..]), name = (resources[6] + 2) & ~1;
            if (6 + name + 4 > resources.Length)
                return null;
            uint size = BinaryPrimitives.ReadUInt32BigEndian(resources[(6 + name)..]);
            ReadOnlySpan<byte> data = resources[(10 + name)..];
            if (size > data.Length)
                return null;
            if (id == Resource)
                return data[..(int)size].ToArray();
            resources = data[Math.Min(data.Length, (int)((size + 1) & ~1u))..];
        }
        return null;
    }

    /// <summary>The records as a resource of Photoshop.</summary>
    public static byte[] ToPhotoshop(ReadOnlySpan<byte> records)
    {
        var resource = new byte[(12 + records.Length + 1) & ~1];
        "8BIM\x04\x04\0\0"u8.CopyTo(resource);
        BinaryPrimitives.WriteUInt32BigEndian(resource.AsSpan(8), (uint)records.Length);
        records.CopyTo(resource.AsSpan(12));
        return resource;
    }

    /// <summary>The bare records, whatever coat they wear: containers of earlier versions keep the coat of their source.</summary>
    public static byte[]? Bare(byte[]? block)
    {
        ReadOnlySpan<byte> bytes = block;
        if (bytes.StartsWith("Photoshop 3.0\0"u8))
            return InPhotoshop(bytes[14..]);
        return bytes.StartsWith("8BIM"u8) ? InPhotoshop(bytes) : block is [0x1C, ..] ? block : null;
    }
}

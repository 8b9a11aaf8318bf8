using System.Buffers.Binary;
using System.Text;

namespace BbmrCluster.Imaging.Formats;

/// <summary>What the boxes of a HEIF or AVIF file say (ISO/IEC 14496-12, 23008-12): codec, colours, transparency, further pictures.</summary>
internal sealed class HeifMetadata
{
    private const int MostMeta = 64 << 20;

    /// <summary>Type of the primary item: av01, hvc1, grid, ...</summary>
    public string Codec { get; private set; } = "";

    /// <summary>Whether the colours are multiplied with the transparency.</summary>
    public bool Premultiplied { get; private set; }

    /// <summary>Colours by numbers (H.273), 4 bytes; null when it names none.</summary>
    public byte[]? Cicp { get; private set; }

    /// <summary>The file also holds moving pictures.</summary>
    public bool Moves { get; private set; }

    /// <summary>Depth maps, gain maps and the like that belong to the picture.</summary>
    public bool HasAuxiliary { get; private set; }

    /// <summary>Reads the boxes; what cannot be understood is left out.</summary>
    /// <param name="stream">The file.</param>
    public static HeifMetadata Read(Stream stream)
    {
        var found = new HeifMetadata();
        Span<byte> head = stackalloc byte[16];
        for (long at = 0; at + 8 <= stream.Length;)
        {
            stream.Position = at;
            if (stream.ReadAtLeast(head, 16, throwOnEndOfStream: false) < 8)
                break;
            long size = BinaryPrimitives.ReadUInt32BigEndian(head), headBytes = 8;
            string type = Encoding.Latin1.GetString(head[4..8]);
            if (size == 1)
                (size, headBytes) = (BinaryPrimitives.ReadInt64BigEndian(head[8..]), 16);
            else if (size == 0)
                size = stream.Length - at;
            if (size < headBytes || size > stream.Length - at)
                break;
            if (type == "moov")
                found.Moves = true;
            if (type == "meta" && size <= MostMeta)
            {
                var body = new byte[size - headBytes];
                stream.Position = at + headBytes;
                stream.ReadExactly(body);
                found.Meta(body);
            }
            at += size;
        }
        return found;
    }

    private void Meta(ReadOnlySpan<byte> meta)
    {
        if (meta.Length < 4)
            return;
        uint primary = 0;
        Dictionary<uint, string> items = [];
        List<byte[]> properties = [];
        Dictionary<uint, List<int>> of = [];
        List<(string Type, uint From, uint[] To)> references = [];
        foreach ((string type, byte[] body) in Boxes(meta[4..]))
        {
            try
            {
                switch (type)
                {
                    case "pitm":
                        primary = body[0] == 0 ? BinaryPrimitives.ReadUInt16BigEndian(body.AsSpan(4)) : BinaryPrimitives.ReadUInt32BigEndian(body.AsSpan(4));
                        break;
                    case "iinf":
                        foreach ((_, byte[] entry) in Boxes(body.AsSpan(body[0] == 0 ? 6 : 8)).Where(box => box.Type == "infe" && box.Body[0] >= 2))
                        {
                            bool wide = entry[0] > 2;
                            items[Id(entry.AsSpan(4), wide)] = Encoding.Latin1.GetString(entry, wide ? 10 : 8, 4);
                        }
                        break;
                    case "iprp":
                        foreach ((string inner, byte[] part) in Boxes(body))
                        {
                            if (inner == "ipco")
                                properties.AddRange(Boxes(part).Select(box => (byte[])[.. Encoding.Latin1.GetBytes(box.Type), .. box.Body]));
                            else if (inner == "ipma")
                                Associations(part, of);
                        }
                        break;
                    case "iref":
                        bool wideIds = body[0] != 0;
                        foreach ((string kind, byte[] reference) in Boxes(body.AsSpan(4)))
                        {
                            int size = wideIds ? 4 : 2, count = BinaryPrimitives.ReadUInt16BigEndian(reference.AsSpan(size));
                            uint[] to = [.. Enumerable.Range(0, count).Select(i => Id(reference.AsSpan(size + 2 + (size * i)), wideIds))];
                            references.Add((kind, Id(reference, wideIds), to));
                        }
                        break;
                }
            }
            catch (ArgumentOutOfRangeException)
            {
                // A box that is shorter than it must be says nothing.
            }
            catch (IndexOutOfRangeException)
            {
                // As above.
            }
        }
        Codec = items.GetValueOrDefault(primary, "");
        uint[] tiles = [.. references.Where(r => r.Type == "dimg" && r.From == primary).SelectMany(r => r.To)];
        if (tiles.Length > 0 && items.TryGetValue(tiles[0], out string? tile))
            Codec = tile;
        Premultiplied = references.Any(r => r.Type == "prem" && r.From == primary);
        HasAuxiliary = references.Any(r => r.Type == "auxl" && r.To.Contains(primary) && !IsAlpha(r.From, of, properties)) || items.ContainsValue("tmap");
        Cicp = of.GetValueOrDefault(primary, []).Concat(tiles.Take(1).SelectMany(id => of.GetValueOrDefault(id, []))).Where(i => i >= 1 && i <= properties.Count)
            .Select(i => properties[i - 1]).Where(p => p.AsSpan().StartsWith("colrnclx"u8) && p.Length >= 15)
            .Select(p => (byte[])[Code(p, 8), Code(p, 10), Code(p, 12), (byte)(p[14] >> 7)]).FirstOrDefault();
    }

    private static byte Code(byte[] property, int at) => (byte)Math.Min(255, (int)BinaryPrimitives.ReadUInt16BigEndian(property.AsSpan(at)));

    private static bool IsAlpha(uint item, Dictionary<uint, List<int>> of, List<byte[]> properties) =>
        of.GetValueOrDefault(item, []).Where(i => i >= 1 && i <= properties.Count).Select(i => properties[i - 1])
            .Any(p => p.AsSpan().StartsWith("auxC"u8) && Encoding.Latin1.GetString(p).Contains("alpha", StringComparison.OrdinalIgnoreCase)
                || (p.AsSpan().StartsWith("auxC"u8) && Encoding.Latin1.GetString(p).Contains("auxid:1", StringComparison.Ordinal)));

    private static void Associations(byte[] part, Dictionary<uint, List<int>> of)
    {
        bool wideIds = part[0] >= 1, wideIndices = (part[3] & 1) != 0;
        uint count = BinaryPrimitives.ReadUInt32BigEndian(part.AsSpan(4));
        int at = 8;
        for (uint i = 0; i < count; i++)
        {
            uint id = Id(part.AsSpan(at), wideIds);
            at += wideIds ? 4 : 2;
            int properties = part[at++];
            List<int> list = of.TryGetValue(id, out List<int>? known) ? known : of[id] = [];
            for (int k = 0; k < properties; k++)
            {
                list.Add(wideIndices ? BinaryPrimitives.ReadUInt16BigEndian(part.AsSpan(at)) & 0x7FFF : part[at] & 0x7F);
                at += wideIndices ? 2 : 1;
            }
        }
    }

    private static uint Id(ReadOnlySpan<byte> bytes, bool wide) => wide ? BinaryPrimitives.ReadUInt32BigEndian(bytes) : BinaryPrimitives.ReadUInt16BigEndian(bytes);

    private static List<(string Type, byte[] Body)> Boxes(ReadOnlySpan<byte> bytes)
    {
        List<(string Type, byte[] Body)> boxes = [];
        while (bytes.Length >= 8)
        {
            long size = BinaryPrimitives.ReadUInt32BigEndian(bytes);
            int head = 8;
            if (size == 1 && bytes.Length >= 16)
                (size, head) = (BinaryPrimitives.ReadInt64BigEndian(bytes[8..]), 16);
            else if (size == 0)
                size = bytes.Length;
            if (size < head || size > bytes.Length)
                break;
            boxes.Add((Encoding.Latin1.GetString(bytes[4..8]), bytes[head..(int)size].ToArray()));
            bytes = bytes[(int)size..];
        }
        return boxes;
    }
}

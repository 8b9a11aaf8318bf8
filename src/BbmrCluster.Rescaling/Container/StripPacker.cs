using System.Buffers.Binary;
using BbmrCluster.Imaging;

namespace BbmrCluster.Rescaling.Container;

/// <summary>What is needed to pack and unpack the strips of one image.</summary>
/// <param name="Grid">The block grid.</param>
/// <param name="Scales">The scale set.</param>
/// <param name="BitDepth">8 or 16 bits a sample.</param>
/// <param name="ColourChannels">1 (grey: one channel is stored, three are given back) or 3.</param>
/// <param name="Alpha">Packing: anything but <see cref="AlphaKind.None"/> when an alpha buffer is given. Unpacking: as the header says.</param>
public sealed record StripFormat(BlockGrid Grid, ScaleSet Scales, int BitDepth, int ColourChannels, AlphaKind Alpha);

/// <summary>A strip as it comes out of the container.</summary>
/// <param name="ByScale">One batch per scale of the set (it may be empty), blocks in block order.</param>
/// <param name="Alpha">RowsOf(strip) x Width, one channel; null when the image has none or it is opaque everywhere.</param>
public sealed record UnpackedStrip(IReadOnlyList<BlockBatch> ByScale, PixelBuffer? Alpha);

/// <summary>A coded part of a packed strip.</summary>
/// <param name="Codec">Number of the coder, see <see cref="LosslessCodec.NameOf"/>.</param>
/// <param name="Bytes">Coded bytes.</param>
public sealed record StripPart(byte Codec, int Bytes);

/// <summary>
/// One strip of a container: an atlas of LR blocks per scale, losslessly coded, and alpha. Self-checking: its bytes hold
/// its own number, length and checksum. Layout: docs/container-format.md. Thread-safe.
/// </summary>
public static class StripPacker
{
    /// <summary>Magic, length, number and part count.</summary>
    internal const int PrefixBytes = 16;

    private const int PartEntryBytes = 8;

    private static ReadOnlySpan<byte> Magic => "STRP"u8;

    /// <summary>Packs a strip. Every coded part has been decoded again and compared with its source.</summary>
    /// <param name="format">The image.</param>
    /// <param name="strip">Strip number.</param>
    /// <param name="scaleIndex">Scale index of each of the strip's blocks.</param>
    /// <param name="byScale">One batch per scale (it may be empty): the blocks of that scale in block order.</param>
    /// <param name="alpha">RowsOf(strip) x Width, one channel of the image's bit depth; null for none.</param>
    /// <returns>The strip's bytes; equal input gives equal bytes.</returns>
    /// <exception cref="ArgumentException">The parts do not fit each other.</exception>
    public static byte[] Pack(StripFormat format, int strip, ReadOnlySpan<byte> scaleIndex, IReadOnlyList<BlockBatch> byScale, PixelBuffer? alpha)
    {
        int[] counts = Counts(format, strip, scaleIndex);
        if (byScale.Count != counts.Length)
            throw new ArgumentException($"{byScale.Count} batches for {counts.Length} scales.", nameof(byScale));
        var parts = new Part[counts.Length + 1];
        for (int s = 0; s < counts.Length; s++)
        {
            BlockBatch blocks = byScale[s];
            int side = format.Grid.BlockSize / format.Scales[s];
            if (blocks.Count != counts[s] || (blocks.Count > 0 && (blocks.Side != side || blocks.BitDepth != format.BitDepth)))
                throw new ArgumentException($"The batch of scale {format.Scales[s]} does not hold {counts[s]} blocks of {side}x{side} pixels and {format.BitDepth} bits.", nameof(byScale));
            if (blocks.Count > 0)
            {
                Atlas atlas = AtlasOf(format, scaleIndex, (byte)s, AtlasColumns(format, scaleIndex, blocks.Count, side));
                parts[s] = Encode(ToAtlas(blocks, atlas, format.ColourChannels), atlas.Columns);
            }
        }
        if (alpha is not null)
        {
            if (format.Alpha == AlphaKind.None)
                throw new ArgumentException("Alpha for an image without it.", nameof(alpha));
            if (alpha.Width != format.Grid.Width || alpha.Height != format.Grid.RowsOf(strip) || alpha.Channels != 1 || alpha.BitDepth != format.BitDepth)
                throw new ArgumentException("The alpha channel has another size than the strip.", nameof(alpha));
            if (alpha.Data.AsSpan().ContainsAnyExcept((byte)255))
                parts[^1] = Encode(alpha, 0);
        }
        return Assemble(strip, parts);
    }

    /// <summary>Unpacks a strip, checking everything.</summary>
    /// <param name="bytes">As <see cref="Pack"/> or <see cref="ContainerReader.ReadStrip"/> gave them.</param>
    /// <param name="format">The image.</param>
    /// <param name="strip">Strip number.</param>
    /// <param name="scaleIndex">Scale index of each of the strip's blocks.</param>
    /// <exception cref="ArgumentException">The indices do not fit the image.</exception>
    /// <exception cref="FormatException">The bytes are damaged or belong to another strip or image; the message goes on from "strip N ".</exception>
    public static UnpackedStrip Unpack(ReadOnlyMemory<byte> bytes, StripFormat format, int strip, ReadOnlySpan<byte> scaleIndex)
    {
        int[] counts = Counts(format, strip, scaleIndex);
        if (Problem(bytes.Span, strip) is { } problem)
            throw new FormatException(problem);
        Part[] parts = Disassemble(bytes);
        if (parts.Length != counts.Length + 1)
            throw new FormatException($"has {parts.Length} parts where {counts.Length + 1} belong");
        var byScale = new BlockBatch[counts.Length];
        for (int s = 0; s < counts.Length; s++)
        {
            Part part = parts[s];
            int side = format.Grid.BlockSize / format.Scales[s], count = counts[s];
            byScale[s] = new BlockBatch(count, side, format.BitDepth);
            if (count == 0 ? part.Bytes.Length > 0 : part.Bytes.IsEmpty || part.Columns < 1 || part.Columns > count)
                throw new FormatException($"has an atlas of scale {format.Scales[s]} that does not fit its {count} blocks");
            if (count > 0)
            {
                Atlas atlas = AtlasOf(format, scaleIndex, (byte)s, part.Columns);
                FromAtlas(Decode(part, part.Columns * side, atlas.Rows * side, format.ColourChannels, format.BitDepth), byScale[s], atlas);
            }
        }

        PixelBuffer? alpha = null;
        bool stored = !parts[^1].Bytes.IsEmpty;
        if (stored && format.Alpha != AlphaKind.Stored)
            throw new FormatException("stores alpha that the header does not know of");
        if (stored)
        {
            alpha = Decode(parts[^1], format.Grid.Width, format.Grid.RowsOf(strip), 1, format.BitDepth);
        }
        else if (format.Alpha == AlphaKind.Stored)
        {
            alpha = new PixelBuffer(format.Grid.Width, format.Grid.RowsOf(strip), 1, format.BitDepth);
            alpha.Data.AsSpan().Fill(255);
        }
        return new UnpackedStrip(byScale, alpha);
    }

    /// <summary>Whether a packed strip stores alpha. When no strip does, the header says <see cref="AlphaKind.Opaque"/> or <see cref="AlphaKind.None"/>.</summary>
    /// <exception cref="FormatException">Not a strip.</exception>
    public static bool StoresAlpha(ReadOnlyMemory<byte> bytes) => PartsOf(bytes)[^1] is not null;

    /// <summary>Coder and bytes of a packed strip's parts: one per scale, finest first, then alpha; null where there is none.</summary>
    /// <exception cref="FormatException">Not a strip.</exception>
    public static IReadOnlyList<StripPart?> PartsOf(ReadOnlyMemory<byte> bytes) =>
        [.. Disassemble(bytes).Select(part => part.Bytes.IsEmpty ? null : new StripPart(part.Codec, part.Bytes.Length))];

    /// <summary>What is wrong with a strip's own length, number and checksum; null when they hold.</summary>
    internal static string? Problem(ReadOnlySpan<byte> bytes, int strip)
    {
        if (bytes.Length < PrefixBytes + ContainerLayout.ChecksumBytes || BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]) != bytes.Length || !ContainerLayout.ChecksumHolds(bytes))
            return "is damaged (checksum)";
        return IsStrip(bytes, strip) ? null : "is not where it belongs";
    }

    /// <summary>Whether bytes begin like the strip of that number.</summary>
    internal static bool IsStrip(ReadOnlySpan<byte> prefix, int strip) =>
        prefix.StartsWith(Magic) && BinaryPrimitives.ReadUInt32LittleEndian(prefix[8..]) == (uint)strip;

    private static int[] Counts(StripFormat format, int strip, ReadOnlySpan<byte> scaleIndex)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(strip);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(strip, format.Grid.Strips);
        if (scaleIndex.Length != format.Grid.BlocksOf(strip))
            throw new ArgumentException($"{scaleIndex.Length} scale indices for {format.Grid.BlocksOf(strip)} blocks.", nameof(scaleIndex));
        var counts = new int[format.Scales.Count];
        foreach (byte index in scaleIndex)
        {
            if (index >= counts.Length)
                throw new ArgumentException($"The scale index {index} is outside the scale set.", nameof(scaleIndex));
            counts[index]++;
        }
        return counts;
    }

    /// <summary>
    /// The order of a scale's blocks in its atlas. One row of blocks is laid out row by row, in block order. Several rows are
    /// walked column by column, so that blocks above each other mostly stay so, and fill an atlas of as many rows.
    /// </summary>
    /// <param name="Columns">Blocks in a row of the atlas.</param>
    /// <param name="Rows">Rows of blocks.</param>
    /// <param name="Order">The block, by its place among those of its scale, at each place of the walk.</param>
    /// <param name="Down">Whether the walk goes down first.</param>
    private sealed record Atlas(int Columns, int Rows, int[] Order, bool Down)
    {
        public (int X, int Y) PlaceOf(int at, int side) => Down ? (at / Rows * side, at % Rows * side) : (at % Columns * side, at / Columns * side);
    }

    // As high as the strip has rows of blocks, and no wider than every coder takes.
    private static int AtlasColumns(StripFormat format, ReadOnlySpan<byte> scaleIndex, int count, int side)
    {
        int rows = scaleIndex.Length / format.Grid.Columns;
        return Math.Min((count + rows - 1) / rows, Math.Max(1, 16_383 / side));
    }

    private static Atlas AtlasOf(StripFormat format, ReadOnlySpan<byte> scaleIndex, byte scale, int atlasColumns)
    {
        int columns = format.Grid.Columns, blockRows = scaleIndex.Length / columns, count = scaleIndex.Count(scale), rows = (count + atlasColumns - 1) / atlasColumns;
        if (blockRows == 1)
            return new Atlas(atlasColumns, rows, [.. Enumerable.Range(0, count)], false);
        // Numbers among the blocks of this scale, raster order.
        var number = new int[scaleIndex.Length];
        for (int block = 0, next = 0; block < number.Length; block++)
            number[block] = scaleIndex[block] == scale ? next++ : -1;
        var order = new List<int>(count);
        for (int column = 0; column < columns; column++)
        {
            for (int row = 0; row < blockRows; row++)
            {
                if (number[(row * columns) + column] is >= 0 and var here)
                    order.Add(here);
            }
        }
        return new Atlas(atlasColumns, rows, [.. order], true);
    }

    private static PixelBuffer ToAtlas(BlockBatch blocks, Atlas order, int channels)
    {
        int side = blocks.Side;
        var atlas = new PixelBuffer(order.Columns * side, order.Rows * side, channels, blocks.BitDepth);
        for (int b = 0; b < blocks.Count; b++)
        {
            ReadOnlySpan<ushort> samples = blocks.Block(order.Order[b]);
            (int x, int y) = order.PlaceOf(b, side);
            for (int row = 0; row < side; row++)
            {
                int target = (((y + row) * atlas.Width) + x) * channels;
                ReadOnlySpan<ushort> source = samples.Slice(row * side * 3, side * 3);
                for (int pixel = 0; pixel < side; pixel++)
                {
                    ReadOnlySpan<ushort> rgb = source.Slice(pixel * 3, 3);
                    if (channels == 1 && (rgb[0] != rgb[1] || rgb[0] != rgb[2]))
                        throw new ArgumentException("The channels of a grey image differ.", nameof(blocks));
                    for (int c = 0; c < channels; c++)
                        Put(atlas, target + (pixel * channels) + c, rgb[c]);
                }
            }
        }
        return atlas;
    }

    private static void FromAtlas(PixelBuffer atlas, BlockBatch blocks, Atlas order)
    {
        int side = blocks.Side, channels = atlas.Channels;
        ReadOnlySpan<ushort> wide = atlas.BitDepth == 16 ? atlas.Samples16 : [];
        for (int b = 0; b < blocks.Count; b++)
        {
            Span<ushort> samples = blocks.Block(order.Order[b]);
            (int x, int y) = order.PlaceOf(b, side);
            for (int row = 0; row < side; row++)
            {
                int source = (((y + row) * atlas.Width) + x) * channels;
                Span<ushort> target = samples.Slice(row * side * 3, side * 3);
                for (int i = 0; i < target.Length; i++)
                {
                    int from = source + (channels == 3 ? i : i / 3);
                    target[i] = atlas.BitDepth == 16 ? wide[from] : atlas.Data[from];
                }
            }
        }
    }

    private static void Put(PixelBuffer buffer, int index, ushort value)
    {
        if (value > buffer.MaxValue)
            throw new ArgumentException($"A sample is {value}, above {buffer.MaxValue}.", nameof(value));
        if (buffer.BitDepth == 16)
            buffer.Samples16[index] = value;
        else
            buffer.Data[index] = (byte)value;
    }

    // The coder decodes and compares what it made before it gives it out.
    private static Part Encode(PixelBuffer pixels, int columns)
    {
        CodedPixels coded = LosslessCodec.Encode(pixels);
        return new Part(coded.Codec, checked((ushort)columns), coded.Bytes);
    }

    private static PixelBuffer Decode(Part part, int width, int height, int channels, int bitDepth)
    {
        try
        {
            return LosslessCodec.Decode(part.Codec, part.Bytes.Span, width, height, channels, bitDepth);
        }
        catch (InvalidDataException e)
        {
            throw new FormatException($"holds a part that cannot be decoded ({e.Message})", e);
        }
    }

    private static byte[] Assemble(int strip, Part[] parts)
    {
        int length = checked(PrefixBytes + (parts.Length * PartEntryBytes) + parts.Sum(part => part.Bytes.Length) + ContainerLayout.ChecksumBytes);
        var bytes = new byte[length - ContainerLayout.ChecksumBytes];
        Span<byte> prefix = bytes;
        Magic.CopyTo(prefix);
        BinaryPrimitives.WriteUInt32LittleEndian(prefix[4..], (uint)length);
        BinaryPrimitives.WriteUInt32LittleEndian(prefix[8..], (uint)strip);
        BinaryPrimitives.WriteUInt32LittleEndian(prefix[12..], (uint)parts.Length);
        int payload = PrefixBytes + (parts.Length * PartEntryBytes);
        for (int i = 0; i < parts.Length; i++)
        {
            Span<byte> entry = prefix.Slice(PrefixBytes + (i * PartEntryBytes), PartEntryBytes);
            entry[0] = parts[i].Codec;
            BinaryPrimitives.WriteUInt16LittleEndian(entry[2..], parts[i].Columns);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[4..], (uint)parts[i].Bytes.Length);
            parts[i].Bytes.Span.CopyTo(prefix[payload..]);
            payload += parts[i].Bytes.Length;
        }
        return ContainerLayout.WithChecksum(bytes);
    }

    /// <exception cref="FormatException">Lengths do not add up.</exception>
    private static Part[] Disassemble(ReadOnlyMemory<byte> bytes)
    {
        ReadOnlySpan<byte> span = bytes.Span;
        uint count = span.Length < PrefixBytes ? 0 : BinaryPrimitives.ReadUInt32LittleEndian(span[12..]);
        // Two to four scales and alpha.
        if (count is < 3 or > 5 || span.Length < PrefixBytes + (count * PartEntryBytes) + ContainerLayout.ChecksumBytes)
            throw new FormatException($"has {count} parts");
        var parts = new Part[count];
        long payload = PrefixBytes + (count * PartEntryBytes), end = span.Length - ContainerLayout.ChecksumBytes;
        for (int i = 0; i < parts.Length; i++)
        {
            ReadOnlySpan<byte> entry = span.Slice(PrefixBytes + (i * PartEntryBytes), PartEntryBytes);
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(entry[4..]);
            if (length > end - payload)
                throw new FormatException($"has a part of {length} bytes that reaches over its end");
            parts[i] = new Part(entry[0], BinaryPrimitives.ReadUInt16LittleEndian(entry[2..]), bytes.Slice((int)payload, (int)length));
            payload += length;
        }
        return payload == end ? parts : throw new FormatException($"has {end - payload} bytes too many");
    }

    private readonly record struct Part(byte Codec, ushort Columns, ReadOnlyMemory<byte> Bytes);
}

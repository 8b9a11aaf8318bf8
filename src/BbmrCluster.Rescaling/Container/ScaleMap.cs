namespace BbmrCluster.Rescaling.Container;

/// <summary>
/// The scale map's bytes: a method byte, then either two bits a block or, where that is smaller, an adaptive binary
/// arithmetic code over the scales of the left and upper neighbours. Own code rather than a library's, so that the bytes
/// depend on no library version and no processor.
/// </summary>
internal static class ScaleMap
{
    private const byte Packed = 0, Coded = 1;

    // Outside the grid counts as a fifth scale.
    private const int Outside = 4;

    public static byte[] Encode(ReadOnlySpan<byte> scaleIndex, int columns)
    {
        byte[] coded = EncodeCoded(scaleIndex, columns);
        var packed = new byte[1 + ((scaleIndex.Length + 3) / 4)];
        if (coded.Length < packed.Length)
            return coded;
        packed[0] = Packed;
        for (int i = 0; i < scaleIndex.Length; i++)
            packed[1 + (i / 4)] |= (byte)(scaleIndex[i] << (i % 4 * 2));
        return packed;
    }

    /// <exception cref="FormatException">Not the map of so many blocks of so many scales.</exception>
    public static byte[] Decode(ReadOnlySpan<byte> bytes, int blocks, int columns, int scales)
    {
        if (bytes.IsEmpty || bytes[0] > Coded)
            throw new FormatException("has a scale map of an unknown method");
        byte[] map;
        if (bytes[0] == Coded)
        {
            map = DecodeCoded(bytes[1..], blocks, columns);
        }
        else
        {
            if (bytes.Length != 1 + ((blocks + 3L) / 4))
                throw new FormatException("has a scale map of another length than its blocks need");
            map = new byte[blocks];
            for (int i = 0; i < blocks; i++)
                map[i] = (byte)((bytes[1 + (i / 4)] >> (i % 4 * 2)) & 3);
        }
        return map.AsSpan().ContainsAnyExceptInRange((byte)0, (byte)(scales - 1)) ? throw new FormatException("has a scale map with an unknown scale") : map;
    }

    private static byte[] EncodeCoded(ReadOnlySpan<byte> map, int columns)
    {
        var output = new List<byte> { Coded };
        uint low = 0, high = uint.MaxValue;
        ushort[] model = NewModel();
        for (int i = 0; i < map.Length; i++)
        {
            int context = ContextOf(map, i, columns);
            int upper = map[i] >> 1, lower = map[i] & 1;
            Encode(upper, ref model[context]);
            Encode(lower, ref model[context + 1 + upper]);
        }
        // The top bytes differ, so this one byte followed by zeros lies between them.
        output.Add((byte)(high >> 24));
        return [.. output];

        void Encode(int bit, ref ushort probability)
        {
            uint middle = Middle(low, high, probability);
            if (bit == 1)
                high = middle;
            else
                low = middle + 1;
            Adapt(ref probability, bit);
            while ((low ^ high) >> 24 == 0)
            {
                output.Add((byte)(high >> 24));
                low <<= 8;
                high = (high << 8) | 255;
            }
        }
    }

    private static byte[] DecodeCoded(ReadOnlySpan<byte> bytes, int blocks, int columns)
    {
        var map = new byte[blocks];
        uint low = 0, high = uint.MaxValue, value = 0;
        int position = 0;
        for (; position < 4; position++)
            value = (value << 8) | (position < bytes.Length ? bytes[position] : 0u);
        ushort[] model = NewModel();
        for (int i = 0; i < blocks; i++)
        {
            int context = ContextOf(map, i, columns);
            int upper = Decode(bytes, ref model[context]);
            map[i] = (byte)((upper << 1) | Decode(bytes, ref model[context + 1 + upper]));
        }
        return map;

        int Decode(ReadOnlySpan<byte> source, ref ushort probability)
        {
            uint middle = Middle(low, high, probability);
            int bit = value <= middle ? 1 : 0;
            if (bit == 1)
                high = middle;
            else
                low = middle + 1;
            Adapt(ref probability, bit);
            while ((low ^ high) >> 24 == 0)
            {
                low <<= 8;
                high = (high << 8) | 255;
                value = (value << 8) | (position < source.Length ? source[position] : 0u);
                position++;
            }
            return bit;
        }
    }

    // Per pair of neighbours: the upper bit, the lower bit after 0, the lower bit after 1; chance of a 1 in 1/4096.
    private static ushort[] NewModel()
    {
        var model = new ushort[5 * 5 * 3];
        Array.Fill(model, (ushort)2048);
        return model;
    }

    private static int ContextOf(ReadOnlySpan<byte> map, int block, int columns)
    {
        int left = block % columns == 0 ? Outside : map[block - 1];
        int above = block < columns ? Outside : map[block - columns];
        return ((above * 5) + left) * 3;
    }

    private static uint Middle(uint low, uint high, ushort probability) => low + (uint)((ulong)(high - low) * probability >> 12);

    private static void Adapt(ref ushort probability, int bit) =>
        probability = (ushort)(bit == 1 ? probability + ((4096 - probability) >> 4) : probability - (probability >> 4));
}

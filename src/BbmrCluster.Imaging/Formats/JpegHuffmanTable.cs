namespace BbmrCluster.Imaging.Formats;

/// <summary>A Huffman table of a JPEG (ITU-T T.81, annexes C and F.2.2.3), made for looking codes up.</summary>
internal sealed class JpegHuffmanTable
{
    /// <summary>Bits that are looked up at once; longer codes are searched by length.</summary>
    private const int FastBits = 9;

    private readonly ushort[] _fast = new ushort[1 << FastBits];
    private readonly int[] _afterLast = new int[17];
    private readonly int[] _offset = new int[17];
    private readonly byte[] _symbols;

    private JpegHuffmanTable(ReadOnlySpan<byte> counts, byte[] symbols)
    {
        _symbols = symbols;
        int code = 0, index = 0;
        for (int length = 1; length <= 16; length++)
        {
            _offset[length] = index - code;
            for (int i = 0; i < counts[length - 1]; i++, code++, index++)
            {
                if (length > FastBits)
                    continue;
                int shift = FastBits - length;
                _fast.AsSpan(code << shift, 1 << shift).Fill((ushort)((length << 8) | symbols[index]));
            }
            _afterLast[length] = code;
            code <<= 1;
        }
    }

    /// <summary>The tables of annex K.3, which streams of moving JPEG leave out: luma and chroma.</summary>
    public static (JpegHuffmanTable[] Dc, JpegHuffmanTable[] Ac) Typical { get; } = (
        [Parse("00010501010101010100000000000000000102030405060708090A0B"), Parse("00030101010101010101010000000000000102030405060708090A0B")],
        [
            Parse("0002010303020403050504040000017D01020300041105122131410613516107227114328191A1082342B1C11552D1F02433627282090A161718191A25262728292A3435363738393A"
                + "434445464748494A535455565758595A636465666768696A737475767778797A838485868788898A92939495969798999AA2A3A4A5A6A7A8A9AAB2B3B4B5B6B7B8B9BAC2C3C4C5C6C7C8C9CA"
                + "D2D3D4D5D6D7D8D9DAE1E2E3E4E5E6E7E8E9EAF1F2F3F4F5F6F7F8F9FA"),
            Parse("00020102040403040705040400010277000102031104052131061241510761711322328108144291A1B1C109233352F0156272D10A162434E125F11718191A262728292A35363738393A"
                + "434445464748494A535455565758595A636465666768696A737475767778797A82838485868788898A92939495969798999AA2A3A4A5A6A7A8A9AAB2B3B4B5B6B7B8B9BAC2C3C4C5C6C7C8C9CA"
                + "D2D3D4D5D6D7D8D9DAE2E3E4E5E6E7E8E9EAF2F3F4F5F6F7F8F9FA"),
        ]);

    /// <summary>Makes a table from a segment's 16 counts and its symbols; null when no code has these lengths.</summary>
    /// <param name="counts">Codes of 1 to 16 bits.</param>
    /// <param name="symbols">As many as there are codes.</param>
    public static JpegHuffmanTable? Of(ReadOnlySpan<byte> counts, byte[] symbols)
    {
        int code = 0;
        for (int length = 1; length <= 16; length++)
        {
            code += counts[length - 1];
            // The code of all ones is never given away (annex C), but decoders take tables that do.
            if (code > 1 << length)
                return null;
            code <<= 1;
        }
        return new JpegHuffmanTable(counts, symbols);
    }

    /// <summary>Looks a code up.</summary>
    /// <param name="next16">The next 16 bits.</param>
    /// <param name="length">Bits of the code found.</param>
    /// <returns>Its symbol, or -1 when these bits begin no code.</returns>
    public int Find(int next16, out int length)
    {
        int fast = _fast[next16 >> (16 - FastBits)];
        if (fast != 0)
        {
            length = fast >> 8;
            return fast & 0xFF;
        }
        for (length = FastBits + 1; length <= 16; length++)
        {
            int code = next16 >> (16 - length);
            if (code < _afterLast[length])
                return code + _offset[length] is var at and >= 0 && at < _symbols.Length ? _symbols[at] : -1;
        }
        return -1;
    }

    private static JpegHuffmanTable Parse(string hex)
    {
        byte[] bytes = Convert.FromHexString(hex);
        return new JpegHuffmanTable(bytes.AsSpan(0, 16), bytes[16..]);
    }
}

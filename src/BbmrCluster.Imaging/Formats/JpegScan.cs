using System.Globalization;

namespace BbmrCluster.Imaging.Formats;

/// <summary>How the coefficients of a JPEG are coded.</summary>
internal enum JpegCoding
{
    /// <summary>Huffman codes, whole blocks (SOF0, SOF1).</summary>
    Sequential,

    /// <summary>Huffman codes, in several passes (SOF2).</summary>
    Progressive,

    /// <summary>Arithmetic codes, or lossless: only the markers are followed.</summary>
    Other,
}

/// <summary>What following a JPEG from its first to its last marker found.</summary>
/// <param name="Coding">How it is coded.</param>
/// <param name="Notes">Harmless oddities, one sentence each.</param>
/// <param name="End">Offset behind its end marker, bytes.</param>
internal sealed record JpegFindings(JpegCoding Coding, IReadOnlyList<string> Notes, long End);

/// <summary>
/// Judges a JPEG by itself (ITU-T T.81): follows every marker and decodes every Huffman code, keeping no pixels, so that the verdict depends
/// on the file alone. Decoders repair what they can and say so in a shared place or not at all; here a file is either whole or
/// refused with what is wrong and where.
/// <para>
/// Whole means: segments follow each other, every block of every scan is there, each code is one of its table, no block has more than
/// 64 coefficients, DC values are such as samples can have, restart markers come in order and where they are due, and no more than the bits that fill a
/// byte is left before the next marker. Taken with a note: stray bytes between the segments of the header, a few after the last scan, and
/// a missing end marker, each when all pixels are there. Arithmetic codes are not followed: that is a note, too.
/// </para>
/// </summary>
internal sealed class JpegScan
{
    private const int Soi = 0xD8, Eoi = 0xD9, Sos = 0xDA, Dqt = 0xDB, Dnl = 0xDC, Dri = 0xDD, Dht = 0xC4, Dac = 0xCC, Com = 0xFE, EndOfFile = -1;

    /// <summary>Stray bytes after the last scan that cameras and scanners are known to leave; lost sync leaves more.</summary>
    private const int FewFillers = 16, FewOthers = 4;

    private const int MostScans = 1000;

    private readonly ByteSource _source;
    private readonly JpegBits _bits;
    private readonly List<string> _notes = [];
    private readonly JpegHuffmanTable?[] _dc = [JpegHuffmanTable.Typical.Dc[0], JpegHuffmanTable.Typical.Dc[1], null, null];
    private readonly JpegHuffmanTable?[] _ac = [JpegHuffmanTable.Typical.Ac[0], JpegHuffmanTable.Typical.Ac[1], null, null];
    private readonly ushort[]?[] _quantization = new ushort[]?[4];
    private Component[] _components = [];
    private JpegCoding _coding;
    private int _width, _height, _maxH, _maxV, _restartInterval, _scans;
    private long _headerStray;
    private bool _unevenPadding;
    private int _endOfRun;

    private JpegScan(Stream stream)
    {
        _source = new ByteSource(stream);
        _bits = new JpegBits(_source);
    }

    /// <summary>Follows a file from its first byte.</summary>
    /// <param name="stream">At its beginning; stays the caller's.</param>
    /// <exception cref="FormatException">It is damaged; the message says what and where, without a full stop.</exception>
    /// <exception cref="NotSupportedException">It is of a kind that is not supported.</exception>
    public static JpegFindings Run(Stream stream) => new JpegScan(stream).Run(stream.Length);

    private JpegFindings Run(long length)
    {
        try
        {
            return Follow(length);
        }
        catch (FormatException e)
        {
            throw new FormatException(_scans == 0 ? $"the JPEG header cannot be read ({e.Message})" : $"the pixel data is truncated or damaged ({e.Message})", e);
        }
    }

    private JpegFindings Follow(long length)
    {
        if (_source.Next() != 0xFF || _source.Next() != Soi)
            throw new FormatException("it does not begin with a start marker");
        int marker = NextMarker();
        while (marker != Eoi)
        {
            marker = marker switch
            {
                EndOfFile => _scans == 0 ? throw new FormatException("the file ends within the header") : EndWithoutMarker(),
                Sos => Scan(),
                _ => Segment(marker),
            };
        }
        Component? empty = _components.FirstOrDefault(c => c.Scans == 0 || (_coding == JpegCoding.Progressive && c.Low[0] < 0));
        if (empty is not null)
            throw new FormatException($"the pixels of channel {Array.IndexOf(_components, empty) + 1} are missing");
        // A wrong length in the header may lead into the small picture that a camera keeps there.
        if (_headerStray > 0 && length - _source.Position > _source.Position)
            throw new FormatException("the segments of the header do not follow each other, and more data comes after the end marker");
        long end = _source.Position;
        // Behind it cameras put other things, each with a beginning of its own, but no more segments.
        if (_source.Next() == 0xFF && _source.Next() is (>= 0xC0 and < 0xD0) or Sos or Dqt or Dri or (>= 0xE0 and <= 0xEF) or Com)
            throw new FormatException("more segments come behind the end marker");
        return new JpegFindings(_coding, _notes, end);
    }

    private int EndWithoutMarker()
    {
        if (_coding == JpegCoding.Other)
            throw new FormatException("the end marker is missing");
        // Of a progressive picture only the last pass brings the last bits.
        if (_coding == JpegCoding.Progressive && _components.Any(c => c.Low.AsSpan().ContainsAnyExcept(0)))
            throw new FormatException("the file ends before the last pass");
        _notes.Add("the end marker is missing; all pixels are there");
        return Eoi;
    }

    private int NextMarker()
    {
        long stray = 0;
        int marker;
        while (true)
        {
            int value = _source.Next();
            for (; value >= 0 && value != 0xFF; stray++)
                value = _source.Next();
            while (value == 0xFF)
                value = _source.Next();
            marker = value;
            if (marker != 0)
                break;
            stray += 2;
        }
        if (stray > 0 && marker != EndOfFile)
        {
            if (_scans == 0)
            {
                _headerStray += stray;
                _notes.Add(Text($"{stray} stray bytes in the header were passed over"));
            }
            else if (stray > FewFillers)
            {
                throw new FormatException(Text($"{stray} stray bytes before marker {marker:X2}"));
            }
            else
            {
                _notes.Add(Text($"{stray} stray bytes between its parts were passed over"));
            }
        }
        return marker;
    }

    private int Segment(int marker)
    {
        // Without parameters: restart markers after the last block, and TEM.
        if (marker is (>= 0xD0 and <= 0xD7) or 0x01)
            return NextMarker();
        if (marker is Soi or < 0xC0)
            throw new FormatException(Text($"marker {marker:X2} where none belongs"));
        byte[] body = ReadBody(marker);
        switch (marker)
        {
            case Dht:
                HuffmanTables(body);
                break;
            case Dqt:
                QuantizationTables(body);
                break;
            case Dri:
                _restartInterval = body.Length == 2 ? (body[0] << 8) | body[1] : throw Bad("DRI");
                break;
            case >= 0xC0 and <= 0xCF and not (0xC8 or Dac):
                Frame(marker, body);
                break;
            case Dac or Dnl or Com or (>= 0xE0 and <= 0xEF):
                break;
            default:
                throw new FormatException(Text($"unknown marker {marker:X2}"));
        }
        return NextMarker();
    }

    private byte[] ReadBody(int marker)
    {
        int high = _source.Next(), low = _source.Next(), length = (high << 8) | low;
        if (high < 0 || low < 0 || length < 2)
            throw new FormatException(Text($"segment {marker:X2} has no valid length"));
        var body = new byte[length - 2];
        return _source.TryRead(body) ? body : throw new FormatException(Text($"the file ends within segment {marker:X2}"));
    }

    private void HuffmanTables(ReadOnlySpan<byte> body)
    {
        while (body.Length > 0)
        {
            int kind = body[0] >> 4, number = body[0] & 15, count = 0;
            for (int i = 1; i <= 16 && body.Length >= 17; i++)
                count += body[i];
            if (kind > 1 || number > 3 || body.Length < 17 + count || count > 256
                || JpegHuffmanTable.Of(body.Slice(1, 16), body.Slice(17, count).ToArray()) is not { } table)
                throw Bad("DHT");
            // An encoder has one code for a symbol.
            if (body.Slice(17, count).ToArray().Distinct().Count() < count)
                throw Bad("DHT");
            (kind == 0 ? _dc : _ac)[number] = table;
            body = body[(17 + count)..];
        }
    }

    private void QuantizationTables(ReadOnlySpan<byte> body)
    {
        while (body.Length > 0)
        {
            int wide = body[0] >> 4, number = body[0] & 15, size = 1 + (64 << wide);
            if (wide > 1 || number > 3 || body.Length < size)
                throw Bad("DQT");
            var table = new ushort[64];
            for (int i = 0; i < 64; i++)
            {
                table[i] = wide == 0 ? body[1 + i] : (ushort)((body[1 + (2 * i)] << 8) | body[2 + (2 * i)]);
                if (table[i] == 0)
                    throw Bad("DQT");
            }
            _quantization[number] = table;
            body = body[size..];
        }
    }

    private void Frame(int marker, byte[] body)
    {
        if (_components.Length > 0)
            throw new FormatException("it has two frame headers");
        if (body.Length < 6 || body[5] is < 1 or > 4 || body.Length != 6 + (3 * body[5]))
            throw Bad("SOF");
        (int precision, _height, _width) = (body[0], (body[1] << 8) | body[2], (body[3] << 8) | body[4]);
        _coding = marker switch
        {
            0xC0 or 0xC1 => JpegCoding.Sequential,
            0xC2 => JpegCoding.Progressive,
            0xC3 or 0xC9 or 0xCA or 0xCB => JpegCoding.Other,
            _ => throw new NotSupportedException("hierarchical JPEG is not supported"),
        };
        if (precision != 8 && _coding != JpegCoding.Other)
            throw new NotSupportedException(Text($"JPEG with {precision} bits a sample is not supported (8 are)"));
        if (_height == 0)
            throw new NotSupportedException("JPEG that tells its height after the pixels (DNL) is not supported");
        if (_width == 0)
            throw Bad("SOF");
        _components = new Component[body[5]];
        for (int i = 0; i < _components.Length; i++)
        {
            int at = 6 + (3 * i);
            var component = new Component(body[at], body[at + 1] >> 4, body[at + 1] & 15, body[at + 2]);
            if (component.H is < 1 or > 4 || component.V is < 1 or > 4 || component.Table > 3)
                throw Bad("SOF");
            (_maxH, _maxV) = (Math.Max(_maxH, component.H), Math.Max(_maxV, component.V));
            _components[i] = component;
        }
        foreach (Component c in _components)
        {
            c.Columns = Up(Up(_width * c.H, _maxH), 8);
            c.Rows = Up(Up(_height * c.V, _maxV), 8);
            c.Stride = Up(_width, 8 * _maxH) * c.H;
        }
    }

    /// <summary>Reads a scan header and its data, and returns the marker after it.</summary>
    private int Scan()
    {
        byte[] body = ReadBody(Sos);
        if (_components.Length == 0)
            throw new FormatException("pixels come before the frame header");
        if (++_scans > MostScans)
            throw new FormatException(Text($"it has more than {MostScans} scans"));
        int count = body.Length == 0 ? 0 : body[0];
        if (count is < 1 or > 4 || body.Length != 4 + (2 * count))
            throw Bad("SOS");
        var components = new Component[count];
        for (int i = 0; i < count; i++)
        {
            int id = body[1 + (2 * i)], tables = body[2 + (2 * i)];
            Component component = _components.FirstOrDefault(c => c.Id == id && Array.IndexOf(components, c, 0, i) < 0) ?? throw Bad("SOS");
            (component.DcTable, component.AcTable) = (tables >> 4, tables & 15);
            if (component.DcTable > 3 || component.AcTable > 3)
                throw Bad("SOS");
            component.Scans++;
            components[i] = component;
        }
        var band = new Band(body[^3], body[^2], body[^1] >> 4, body[^1] & 15);
        if (_coding == JpegCoding.Other)
        {
            if (_scans == 1)
                _notes.Add("it is coded in a rare way (arithmetic or lossless) whose damage may go unnoticed");
            return PassData();
        }

        foreach (Component c in components)
            c.Quantization = _quantization[c.Table] ?? throw new FormatException("a quantization table is missing");
        if (_coding == JpegCoding.Progressive)
            Check(band, components);
        else if (band != new Band(0, 63, 0, 0))
            _notes.Add("its scan header names parameters of another kind of JPEG; they were passed over");
        Decode(components, band);
        return Leave(components, band);
    }

    // Arithmetic codes are not followed: on to the next marker that is no restart.
    private int PassData()
    {
        do
        {
            _bits.Restart();
            _bits.Finish();
        }
        while (_bits.Marker is >= 0xD0 and <= 0xD7);
        return _bits.Marker;
    }

    private static void Check(Band band, Component[] components)
    {
        bool possible = band.Start == 0 ? band.End == 0 : band.Start <= band.End && band.End <= 63 && components.Length == 1;
        if (!possible || band.Low > 13 || (band.High != 0 && band.High - 1 != band.Low))
            throw Bad("SOS");
        foreach (Component c in components)
        {
            if (band.Start > 0 && c.Low[0] < 0)
                throw new FormatException("a pass for details comes before the first one");
            for (int k = band.Start; k <= band.End; k++)
            {
                if (Math.Max(c.Low[k], 0) != band.High)
                    throw new FormatException("its passes do not follow each other");
                c.Low[k] = band.Low;
            }
        }
    }

    private void Decode(Component[] components, Band band)
    {
        Component first = components[0];
        bool alone = components.Length == 1;
        (int columns, int rows) = alone ? (first.Columns, first.Rows) : (Up(_width, 8 * _maxH), Up(_height, 8 * _maxV));
        if (!alone && components.Sum(c => c.H * c.V) > 10)
            throw Bad("SOS");
        Restart(components);
        int untilRestart = _restartInterval, expected = 0;
        for (int y = 0; y < rows; y++)
        {
            for (int x = 0; x < columns; x++)
            {
                if (_restartInterval > 0 && untilRestart-- == 0)
                {
                    untilRestart = _restartInterval - 1;
                    ExpectRestart(expected, Row());
                    expected = (expected + 1) & 7;
                    Restart(components);
                }
                if (!(alone ? Block(first, band, x, y) : Unit(components, band, x, y)))
                    throw _bits.Overrun ? EndsEarly(Row()) : new FormatException($"impossible code {Row()}");
            }
            if (_bits.Overrun)
                throw EndsEarly(Row());

            string Row() => Text($"near row {Math.Min(_height - 1, alone ? y * 8 * _maxV / first.V : y * 8 * _maxV)}");
        }
        if (_endOfRun > 0)
            throw new FormatException("a run of empty blocks reaches over the end of a scan");
    }

    private void ExpectRestart(int number, string row)
    {
        if (_endOfRun > 0)
            throw new FormatException($"a run of empty blocks reaches over a restart marker {row}");
        JpegBits.Leftover leftover = _bits.Finish();
        if (_bits.Marker != 0xD0 + number)
            throw _bits.Marker < 0 ? EndsEarly(row) : new FormatException(Text($"marker {_bits.Marker:X2} in place of restart marker {0xD0 + number:X2} {row}"));
        if (leftover.StrayBytes > 0)
            throw new FormatException(Text($"{leftover.StrayBytes} stray bytes before a restart marker {row}"));
        if (_bits.Overrun)
            throw EndsEarly(row);
        NotePadding(leftover);
    }

    // Encoders fill with ones, some with zeros. Most damage that still ends at the right place shows here.
    private void NotePadding(JpegBits.Leftover leftover)
    {
        if (!leftover.EvenPadding && !_unevenPadding)
        {
            _unevenPadding = true;
            _notes.Add("the last bits of its data are not those that encoders fill a byte with: the pixels may be damaged before them");
        }
    }

    private void Restart(Component[] components)
    {
        _bits.Restart();
        _endOfRun = 0;
        foreach (Component c in components)
            c.Predicted = 0;
    }

    private int Leave(Component[] components, Band band)
    {
        JpegBits.Leftover leftover = _bits.Finish();
        if (leftover.StrayBytes > 0)
        {
            bool last = _bits.Marker is Eoi or EndOfFile;
            bool few = leftover.StrayBytes <= (leftover.Filler ? FewFillers : FewOthers) && leftover.EvenPadding;
            if (!last || !few)
                throw new FormatException(Text($"{leftover.StrayBytes} stray bytes after the last block of a scan"));
            _notes.Add(Text($"{leftover.StrayBytes} stray bytes after the last block were passed over"));
        }
        NotePadding(leftover);
        return _bits.Marker is EndOfFile or Eoi || _bits.Marker is not (>= 0xD0 and <= 0xD7) ? _bits.Marker : NextMarker();
    }

    // The blocks of all channels at one place of an interleaved scan.
    private bool Unit(Component[] components, Band band, int x, int y)
    {
        foreach (Component c in components)
        {
            for (int v = 0; v < c.V; v++)
            {
                for (int h = 0; h < c.H; h++)
                {
                    if (!Block(c, band, (x * c.H) + h, (y * c.V) + v))
                        return false;
                }
            }
        }
        return true;
    }

    private bool Block(Component c, Band band, int x, int y) =>
        _coding == JpegCoding.Sequential ? Sequential(c)
        : band.Start == 0 ? FirstCoefficient(c, band)
        : band.High == 0 ? Details(ref c.Mask(x, y), c, band)
        : Refinement(ref c.Mask(x, y), c, band);

    private bool Sequential(Component c)
    {
        if (!Dc(c, 0) || _ac[c.AcTable] is not { } table)
            return false;
        for (int k = 1; k < 64;)
        {
            int symbol = _bits.Symbol(table), size = symbol & 15, run = symbol >> 4;
            if (size == 0)
            {
                if (symbol == 0)
                    return true;
                k += 16;
                if (run != 15 || k > 64)
                    return false;
                continue;
            }
            k += run;
            if (symbol < 0 || k > 63 || (1 << (size - 1)) * c.Quantum(k) > MostOf(c.Quantum(k)))
                return false;
            _bits.Skip(size);
            k++;
        }
        return true;
    }

    // Samples of 8 bits give coefficients within 1,024; half as much again is for whoever changed them without decoding.
    private static long MostOf(long quantum) => 1536 + quantum;

    private bool Dc(Component c, int shift)
    {
        if (_dc[c.DcTable] is not { } table || _bits.Symbol(table) is not (>= 0 and <= 11 and var size))
            return false;
        int bits = _bits.Take(size);
        c.Predicted += size == 0 || bits >= 1 << (size - 1) ? bits : bits - (1 << size) + 1;
        return (Math.Abs((long)c.Predicted) << shift) * c.Quantum(0) <= MostOf((long)c.Quantum(0) << shift);
    }

    private bool FirstCoefficient(Component c, Band band)
    {
        if (band.High == 0)
            return Dc(c, band.Low);
        _bits.Take(1);
        return true;
    }

    private bool Details(ref ulong mask, Component c, Band band)
    {
        if (_endOfRun > 0)
        {
            _endOfRun--;
            return true;
        }
        if (_ac[c.AcTable] is not { } table)
            return false;
        for (int k = band.Start; k <= band.End;)
        {
            int symbol = _bits.Symbol(table), size = symbol & 15, run = symbol >> 4;
            if (symbol < 0)
                return false;
            if (size == 0)
            {
                if (run < 15)
                {
                    _endOfRun = (1 << run) - 1 + _bits.Take(run);
                    return true;
                }
                k += 16;
                if (k > band.End + 1)
                    return false;
                continue;
            }
            k += run;
            if (k > band.End || ((1L << (size - 1)) * c.Quantum(k) << band.Low) > MostOf((long)c.Quantum(k) << band.Low))
                return false;
            _bits.Skip(size);
            mask |= 1UL << k++;
        }
        return true;
    }

    private bool Refinement(ref ulong mask, Component c, Band band)
    {
        int k = band.Start;
        if (_endOfRun == 0)
        {
            if (_ac[c.AcTable] is not { } table)
                return false;
            for (; k <= band.End; k++)
            {
                int symbol = _bits.Symbol(table), size = symbol & 15, run = symbol >> 4;
                if (symbol < 0 || size > 1)
                    return false;
                if (size == 1)
                {
                    _bits.Take(1);
                }
                else if (run < 15)
                {
                    _endOfRun = (1 << run) + _bits.Take(run);
                    break;
                }
                for (; k <= band.End; k++)
                {
                    if ((mask >> k & 1) != 0)
                        _bits.Take(1);
                    else if (--run < 0)
                        break;
                }
                if (k > band.End)
                    return false;
                if (size == 1)
                    mask |= 1UL << k;
            }
        }
        if (_endOfRun > 0)
        {
            for (; k <= band.End; k++)
            {
                if ((mask >> k & 1) != 0)
                    _bits.Take(1);
            }
            _endOfRun--;
        }
        return true;
    }

    private static FormatException EndsEarly(string row) => new($"the data of a scan ends early, {row}");

    private static FormatException Bad(string segment) => new($"its segment {segment} is damaged");

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private static int Up(int value, int by) => (value + by - 1) / by;

    /// <summary>Coefficients of a pass: from, to, and their bit before and after it.</summary>
    private readonly record struct Band(int Start, int End, int High, int Low);

    /// <summary>A colour channel.</summary>
    private sealed class Component(int id, int h, int v, int table)
    {
        private ulong[]?[] _masks = [];

        public int Id => id;

        public int H => h;

        public int V => v;

        public int Table => table;

        public int DcTable { get; set; }

        public int AcTable { get; set; }

        public int Scans { get; set; }

        /// <summary>Blocks that show pixels.</summary>
        public int Columns { get; set; }

        public int Rows { get; set; }

        /// <summary>Blocks of a row with those that fill the last unit of an interleaved scan.</summary>
        public int Stride { get; set; }

        public int Predicted { get; set; }

        public ushort[] Quantization { get; set; } = [];

        public int Quantum(int k) => Quantization[k];

        /// <summary>The lowest bit that passes have brought, for each coefficient; -1 for none.</summary>
        public int[] Low { get; } = [.. Enumerable.Repeat(-1, 64)];

        /// <summary>Which coefficients of a block are not zero so far; rows are made when they are met.</summary>
        public ref ulong Mask(int x, int y)
        {
            if (_masks.Length == 0)
                _masks = new ulong[]?[Rows];
            return ref (_masks[y] ??= new ulong[Stride])[x];
        }
    }
}

using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace BbmrCluster.Imaging.Formats;

/// <summary>
/// Bits of the entropy-coded data of a JPEG up to the next marker (stuffed zeros taken out). After the marker it gives zeros
/// and <see cref="Overrun"/> says that some of them were taken.
/// </summary>
internal sealed class JpegBits(ByteSource source)
{
    private ulong _bits;
    private int _count;
    private int _made;
    private bool _atMarker;

    /// <summary>Whether bits were taken that the file does not have.</summary>
    public bool Overrun => _count < _made;

    /// <summary>The marker that ended the data (0xD9 for FF D9), or -1 for the end of the file. Known after <see cref="Finish"/>.</summary>
    public int Marker { get; private set; }

    /// <summary>Begins anew behind a marker.</summary>
    public void Restart() => (_bits, _count, _made, _atMarker) = (0, 0, 0, false);

    /// <summary>Decodes a symbol, or gives -1.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public int Symbol(JpegHuffmanTable table)
    {
        if (_count < 32)
            Fill();
        int symbol = table.Find((int)(_bits >> 48), out int length);
        _bits <<= length;
        _count -= length;
        return symbol;
    }

    /// <summary>Passes over up to 16 bits that follow a symbol.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Skip(int count)
    {
        _bits <<= count;
        _count -= count;
    }

    /// <summary>Takes up to 16 bits.</summary>
    public int Take(int count)
    {
        if (count == 0)
            return 0;
        if (_count < 32)
            Fill();
        int value = (int)(_bits >> (64 - count));
        Skip(count);
        return value;
    }

    /// <summary>Goes on to the marker that ends the data.</summary>
    /// <returns>
    /// What was not decoded: the bits that fill the last byte (their number and whether they are all alike) and the whole bytes after it.
    /// </returns>
    public Leftover Finish()
    {
        int real = Math.Max(0, _count - _made), padding = real % 8;
        ulong pad = padding == 0 ? 0 : _bits >> (64 - padding);
        bool even = pad == 0 || pad == (1UL << padding) - 1;
        Skip(padding);
        long stray = 0;
        bool filler = true;
        for (int i = padding; i < real; i += 8, stray++)
        {
            filler &= (byte)(_bits >> 56) is 0 or 0xFF;
            Skip(8);
        }
        while (!_atMarker && NextByte() is int value and >= 0)
        {
            stray++;
            filler &= value is 0 or 0xFF;
        }
        return new Leftover(even, stray, filler);
    }

    private void Fill()
    {
        ReadOnlySpan<byte> ahead = source.Buffered;
        if (!_atMarker && ahead.Length >= 4)
        {
            uint four = BinaryPrimitives.ReadUInt32BigEndian(ahead), inverse = ~four;
            // No byte of the four is 0xFF.
            if (((inverse - 0x01010101) & ~inverse & 0x80808080) == 0)
            {
                _bits |= (ulong)four << (32 - _count);
                _count += 32;
                source.Advance(4);
                return;
            }
        }
        while (_count <= 56)
        {
            int value = _atMarker ? -1 : NextByte();
            if (value < 0)
                _made += 8;
            else
                _bits |= (ulong)value << (56 - _count);
            _count += 8;
        }
    }

    // A byte of data, or -1 at a marker.
    private int NextByte()
    {
        int value = source.Next();
        if (value != 0xFF)
        {
            if (value < 0)
                (_atMarker, Marker) = (true, -1);
            return value;
        }
        int second;
        do
            second = source.Next();
        while (second == 0xFF);
        if (second == 0)
            return 0xFF;
        (_atMarker, Marker) = (true, second);
        return -1;
    }

    /// <summary>What lies between the last bit decoded and the marker.</summary>
    /// <param name="EvenPadding">The bits up to the end of the byte are all ones (as the standard says) or all zeros, or there are none.</param>
    /// <param name="StrayBytes">Whole bytes after them.</param>
    /// <param name="Filler">All of these are 0x00 or 0xFF.</param>
    public readonly record struct Leftover(bool EvenPadding, long StrayBytes, bool Filler);
}

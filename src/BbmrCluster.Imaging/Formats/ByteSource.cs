namespace BbmrCluster.Imaging.Formats;

/// <summary>A file byte by byte from its beginning, through a buffer. Not thread-safe; the stream stays the caller's.</summary>
internal sealed class ByteSource(Stream stream)
{
    private readonly byte[] _buffer = new byte[1 << 16];
    private int _next;
    private int _end;
    private long _before;

    /// <summary>Offset of the next byte from where the stream stood at first.</summary>
    public long Position => _before + _next;

    /// <summary>Bytes that can be taken without asking the file; at least 1 unless the file has ended.</summary>
    public ReadOnlySpan<byte> Buffered => _buffer.AsSpan(_next, _end - _next);

    /// <summary>The next byte, or -1 at the end of the file.</summary>
    public int Next()
    {
        if (_next == _end && !Refill())
            return -1;
        return _buffer[_next++];
    }

    /// <summary>The next byte without taking it, or -1 at the end of the file.</summary>
    public int Peek() => _next == _end && !Refill() ? -1 : _buffer[_next];

    /// <summary>Passes over bytes of <see cref="Buffered"/>.</summary>
    public void Advance(int count) => _next += count;

    /// <summary>Reads exactly so many bytes; false when the file ends before.</summary>
    public bool TryRead(Span<byte> into)
    {
        while (into.Length > 0)
        {
            if (_next == _end && !Refill())
                return false;
            int count = Math.Min(into.Length, _end - _next);
            _buffer.AsSpan(_next, count).CopyTo(into);
            _next += count;
            into = into[count..];
        }
        return true;
    }

    private bool Refill()
    {
        _before += _end;
        (_next, _end) = (0, 0);
        _end = stream.Read(_buffer);
        return _end > 0;
    }
}

using System.Buffers.Binary;

namespace BbmrCluster.Imaging.Formats;

/// <summary>
/// Takes a file from a codec as it comes and passes it on with other metadata: what the codec itself adds is dropped (it invents
/// resolutions and EXIF blocks), and bytes are put in behind the header. For PNG and JPEG, which codecs write from the front.
/// </summary>
/// <param name="inner">Where the file goes.</param>
/// <param name="jpeg">JPEG, or else PNG.</param>
/// <param name="insert">Segments or chunks to put in.</param>
internal sealed class MetadataStream(Stream inner, bool jpeg, byte[] insert) : Stream
{
    private readonly byte[] _head = new byte[8];
    private int _inHead;
    private long _pass;
    private long _drop;
    private bool _begun;
    private bool _inserted;
    private bool _open;

    public override bool CanRead => false;

    public override bool CanSeek => false;

    public override bool CanWrite => true;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public override void Flush() => inner.Flush();

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count)
    {
        ReadOnlySpan<byte> bytes = buffer.AsSpan(offset, count);
        while (bytes.Length > 0)
        {
            if (_open)
            {
                inner.Write(bytes);
                return;
            }
            if (_pass > 0 || _drop > 0)
            {
                int take = (int)Math.Min(bytes.Length, Math.Max(_pass, _drop));
                if (_pass > 0)
                {
                    inner.Write(bytes[..take]);
                    _pass -= take;
                }
                else
                {
                    _drop -= take;
                }
                bytes = bytes[take..];
                continue;
            }
            // The signature first, then the heads of chunks or segments.
            int wanted = !_begun ? (jpeg ? 2 : 8) : jpeg ? 4 : 8, missing = Math.Min(bytes.Length, wanted - _inHead);
            bytes[..missing].CopyTo(_head.AsSpan(_inHead));
            _inHead += missing;
            bytes = bytes[missing..];
            if (_inHead < wanted)
                return;
            _inHead = 0;
            if (!_begun)
                Begin(wanted);
            else if (jpeg)
                Segment();
            else
                Chunk();
        }
    }

    private void Begin(int length)
    {
        _begun = true;
        inner.Write(_head, 0, length);
        if (jpeg)
            inner.Write(insert);
    }

    private void Segment()
    {
        int marker = _head[1], length = BinaryPrimitives.ReadUInt16BigEndian(_head.AsSpan(2)) - 2;
        if (marker is (>= 0xE0 and <= 0xED) or 0xEF or 0xFE)
        {
            _drop = length;
            return;
        }
        inner.Write(_head, 0, 4);
        _pass = length;
        // What comes behind the first scan header goes through as it is.
        _open = marker == 0xDA;
    }

    private void Chunk()
    {
        long length = BinaryPrimitives.ReadUInt32BigEndian(_head) + 4L;
        ReadOnlySpan<byte> type = _head.AsSpan(4);
        if (!_inserted && !type.SequenceEqual("IHDR"u8))
        {
            inner.Write(insert);
            _inserted = true;
        }
        bool ancillary = (type[0] & 0x20) != 0 && !type.SequenceEqual("tRNS"u8);
        if (ancillary)
        {
            _drop = length;
            return;
        }
        inner.Write(_head, 0, 8);
        _pass = length;
    }
}

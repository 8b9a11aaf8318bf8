using System.Buffers.Binary;
using BbmrCluster.Imaging;
using Microsoft.Win32.SafeHandles;

namespace BbmrCluster.Rescaling.Container;

/// <summary>A part of a container that is not what was written.</summary>
/// <param name="Part">"file", "quality", "index" or "strip".</param>
/// <param name="Strip">Strip number; null for other parts.</param>
/// <param name="Reason">One sentence, without the file's name.</param>
public sealed record ContainerDamage(string Part, int? Strip, string Reason);

/// <summary>
/// Reads a container, trusting nothing in it: lengths are checked against the file before anything is allocated. Damage to
/// preamble, header or scale map is fatal; the quality record, the index and every strip fail on their own. Thread-safe.
/// </summary>
public sealed class ContainerReader : IDisposable
{
    private readonly SafeFileHandle _file;
    private readonly string _path;
    private readonly long _length;
    private readonly StripEntry?[] _strips;
    private readonly List<ContainerDamage> _damage;

    private ContainerReader(SafeFileHandle file, string path, ImageLimits limits)
    {
        (_file, _path) = (file, path);
        _length = RandomAccess.GetLength(file);
        Preamble preamble = Preamble.Decode(Read(0, (int)Math.Min(_length, ContainerLayout.PreambleBytes)));
        if (preamble.Header > ContainerHeader.MaxBytes)
            throw new FormatException($"states a header of {preamble.Header} bytes");
        Header = ContainerHeader.Decode(ReadSection("header", ContainerLayout.PreambleBytes, preamble.Header), limits);

        if (preamble.Version == ContainerLayout.Version1 != (Header.Context == BlockContext.None))
            throw new FormatException($"has a header that does not belong into container version {preamble.Version}");
        BlockGrid grid = Header.Grid;
        if (preamble.Strips != grid.Strips)
            throw new FormatException($"states {preamble.Strips} strips for an image of {grid.Strips}");
        ScaleIndex = ScaleMap.Decode(ReadSection("scale map", preamble.ScaleMapAt, preamble.ScaleMap), grid.Count, grid.Columns, Header.Scales.Count);

        _damage = [];
        if (_length != preamble.FileLength)
        {
            _damage.Add(new ContainerDamage("file", null, _length < preamble.FileLength
                ? $"is truncated to {_length} of {preamble.FileLength} bytes"
                : $"has {_length - preamble.FileLength} bytes after its end"));
        }
        Quality = Try("quality", () => QualityRecord.Decode(ReadSection("quality record", preamble.QualityAt, preamble.Quality), RecordedQuality.ValuesOf(grid)));
        _strips = Try("index", () => StripEntry.DecodeAll(
                ReadSection("index", preamble.IndexAt, (long)grid.Strips * ContainerLayout.IndexEntryBytes), grid.Strips, preamble.StripsAt, preamble.FileLength))
            ?? WalkStrips(preamble.StripsAt);
    }

    /// <summary>What opening alone found: a wrong length, a damaged index or quality record. Strips are not read for it (see <see cref="Verify"/>).</summary>
    public IReadOnlyList<ContainerDamage> DamageAtOpen => _damage;

    /// <summary>The header.</summary>
    public ContainerHeader Header { get; }

    /// <summary>Scale index of every block, raster order.</summary>
    public byte[] ScaleIndex { get; }

    /// <summary>Recorded quality; null when that record alone is damaged (see <see cref="Verify"/>).</summary>
    public RecordedQuality? Quality { get; }

    /// <summary>Strips.</summary>
    public int StripCount => _strips.Length;

    /// <summary>Bytes of the file.</summary>
    public long FileBytes => _length;

    /// <summary>Opens a file and reads everything but the strips.</summary>
    /// <exception cref="ContainerException">Not there, not a container, damaged beyond use, or larger than the limits.</exception>
    public static ContainerReader Open(string path, ImageLimits limits)
    {
        SafeFileHandle? file = null;
        try
        {
            file = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read, FileOptions.RandomAccess);
            return new ContainerReader(file, path, limits);
        }
        catch (Exception e) when (e is FormatException or IOException or UnauthorizedAccessException or NotSupportedException)
        {
            file?.Dispose();
            throw new ContainerException(path, e switch
            {
                FormatException => e.Message,
                FileNotFoundException or DirectoryNotFoundException => "does not exist",
                NotSupportedException => "is not a regular file",
                _ => $"cannot be read ({e.Message})",
            }, e);
        }
    }

    /// <summary>Scale indices of one strip's blocks.</summary>
    public ReadOnlySpan<byte> ScaleIndexOf(int strip) => ScaleIndex.AsSpan(Header.Grid.FirstBlockOf(strip), Header.Grid.BlocksOf(strip));

    /// <summary>A strip's bytes, checked.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such strip.</exception>
    /// <exception cref="ContainerException">The strip is damaged.</exception>
    public byte[] ReadStrip(int strip)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(strip);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(strip, StripCount);
        try
        {
            if (_strips[strip] is not { } entry)
                throw new FormatException("cannot be found (the index is damaged, and so is a strip before it)");
            if (entry.Offset + entry.Length > _length)
                throw new FormatException("reaches over the end of the file");
            byte[] bytes = Read(entry.Offset, checked((int)entry.Length));
            if (StripPacker.Problem(bytes, strip) is { } problem)
                throw new FormatException(problem);
            if (entry.Checksum is { } checksum && !bytes.AsSpan(^ContainerLayout.ChecksumBytes..).SequenceEqual(checksum))
                throw new FormatException("is not the one that the index means");
            return bytes;
        }
        catch (Exception e) when (e is FormatException or IOException or OverflowException)
        {
            throw new ContainerException(_path, $"strip {strip} {e.Message}", e);
        }
    }

    /// <summary>A strip, decoded.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such strip.</exception>
    /// <exception cref="ContainerException">The strip is damaged.</exception>
    public UnpackedStrip UnpackStrip(int strip)
    {
        byte[] bytes = ReadStrip(strip);
        try
        {
            return StripPacker.Unpack(bytes, Header.StripFormat, strip, ScaleIndexOf(strip));
        }
        catch (FormatException e)
        {
            throw new ContainerException(_path, $"strip {strip} {e.Message}", e);
        }
    }

    /// <summary>Checks every byte against its checksum (nothing is decoded).</summary>
    /// <returns>All damaged parts; empty when the file is whole.</returns>
    public IReadOnlyList<ContainerDamage> Verify()
    {
        var damage = new List<ContainerDamage>(_damage);
        for (int strip = 0; strip < StripCount; strip++)
        {
            try
            {
                ReadStrip(strip);
            }
            catch (ContainerException e)
            {
                damage.Add(new ContainerDamage("strip", strip, e.Reason));
            }
        }
        return damage;
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _file.Dispose();

    private T? Try<T>(string part, Func<T> read)
        where T : class
    {
        try
        {
            return read();
        }
        catch (FormatException e)
        {
            _damage.Add(new ContainerDamage(part, null, e.Message));
            return null;
        }
    }

    /// <summary>Without the index: each strip says how long it is.</summary>
    private StripEntry?[] WalkStrips(long offset)
    {
        var entries = new StripEntry?[Header.Grid.Strips];
        for (int strip = 0; strip < entries.Length && offset + StripPacker.PrefixBytes <= _length; strip++)
        {
            byte[] prefix = Read(offset, StripPacker.PrefixBytes);
            long length = BinaryPrimitives.ReadUInt32LittleEndian(prefix.AsSpan(4));
            if (!StripPacker.IsStrip(prefix, strip) || length < StripPacker.PrefixBytes || offset + length > _length)
                break;
            entries[strip] = new StripEntry(offset, length, null);
            offset += length;
        }
        return entries;
    }

    private byte[] ReadSection(string name, long offset, long length)
    {
        if (offset + length + ContainerLayout.ChecksumBytes > _length || length > int.MaxValue - ContainerLayout.ChecksumBytes)
            throw new FormatException($"is truncated: its {name} reaches over the end of the file");
        byte[] section = Read(offset, (int)length + ContainerLayout.ChecksumBytes);
        return ContainerLayout.ChecksumHolds(section) ? section[..^ContainerLayout.ChecksumBytes] : throw new FormatException($"has a damaged {name} (checksum)");
    }

    private byte[] Read(long offset, int length)
    {
        var bytes = new byte[length];
        int done = 0;
        while (done < length)
        {
            int read = RandomAccess.Read(_file, bytes.AsSpan(done), offset + done);
            if (read == 0)
                throw new FormatException("became shorter while it was read");
            done += read;
        }
        return bytes;
    }
}

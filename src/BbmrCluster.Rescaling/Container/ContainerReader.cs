using BbmrCluster.Imaging;
using Microsoft.Win32.SafeHandles;

namespace BbmrCluster.Rescaling;

/// <summary>A part of a container that does not match its checksum.</summary>
/// <param name="Part">"file", "quality", "index" or "strip".</param>
/// <param name="Strip">Strip number; null for other parts.</param>
/// <param name="Reason">One sentence.</param>
public sealed record ContainerDamage(string Part, int? Strip, string Reason);

/// <summary>
/// Reads a container, trusting nothing in it: lengths are checked against the file before anything is allocated. Damage to
/// preamble, header or scale map is fatal; the quality record, the index and every strip fail on their own. Thread-safe.
/// </summary>
public sealed class ContainerReader : IDisposable
{
    private readonly SafeFileHandle _file;

    private ContainerReader(SafeFileHandle file, ContainerHeader header, byte[] scaleIndex, RecordedQuality? quality) =>
        (_file, Header, ScaleIndex, Quality) = (file, header, scaleIndex, quality);

    /// <summary>The header.</summary>
    public ContainerHeader Header { get; }

    /// <summary>Scale index of every block, raster order.</summary>
    public byte[] ScaleIndex { get; }

    /// <summary>Recorded quality; null when that record alone is damaged (see <see cref="Verify"/>).</summary>
    public RecordedQuality? Quality { get; }

    /// <summary>Strips.</summary>
    public int StripCount => Header.Grid.Strips;

    /// <summary>Opens a file and reads everything but the strips.</summary>
    /// <exception cref="ContainerException">Not a container, damaged beyond use, or larger than the limits.</exception>
    /// <exception cref="IOException">The file cannot be read.</exception>
    public static ContainerReader Open(string path, ImageLimits limits) => throw new NotSupportedException();

    /// <summary>Scale indices of one strip's blocks.</summary>
    public ReadOnlySpan<byte> ScaleIndexOf(int strip) => ScaleIndex.AsSpan(strip * Header.Grid.Columns, Header.Grid.Columns);

    /// <summary>A strip's bytes, checked.</summary>
    /// <exception cref="ContainerException">The strip is damaged.</exception>
    public byte[] ReadStrip(int strip) => throw new NotSupportedException();

    /// <summary>A strip, decoded.</summary>
    /// <exception cref="ContainerException">The strip is damaged.</exception>
    public UnpackedStrip UnpackStrip(int strip) => throw new NotSupportedException();

    /// <summary>Checks every byte against its checksum (nothing is decoded).</summary>
    /// <returns>All damaged parts; empty when the file is whole.</returns>
    public IReadOnlyList<ContainerDamage> Verify() => throw new NotSupportedException();

    /// <summary>Closes the file.</summary>
    public void Dispose() => _file.Dispose();
}

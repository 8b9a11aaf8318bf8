namespace BbmrCluster.Rescaling;

/// <summary>Writes containers. Layout: docs/container-format.md.</summary>
public static class ContainerWriter
{
    /// <summary>
    /// Writes a container strip by strip (memory: one strip) and flushes it to the disk. Replaces a file of that name; a file
    /// left behind by a failure starts with zeros and is no container.
    /// </summary>
    /// <param name="path">File to write (callers give a temporary name and rename).</param>
    /// <param name="header">The header.</param>
    /// <param name="scaleIndex">Scale index of every block, raster order.</param>
    /// <param name="quality">Recorded quality.</param>
    /// <param name="strips">All strips in order, as <see cref="StripPacker.Pack"/> made them.</param>
    /// <returns>Bytes written. Equal arguments give equal bytes.</returns>
    /// <exception cref="ArgumentException">Parts do not fit each other, or a strip is damaged.</exception>
    /// <exception cref="IOException">The disk is full or the file cannot be written.</exception>
    public static long Write(string path, ContainerHeader header, byte[] scaleIndex, RecordedQuality quality, IEnumerable<ReadOnlyMemory<byte>> strips) =>
        throw new NotSupportedException();
}

namespace BbmrCluster.Rescaling.Container;

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
    public static long Write(string path, ContainerHeader header, byte[] scaleIndex, RecordedQuality quality, IEnumerable<ReadOnlyMemory<byte>> strips)
    {
        byte[] headerBytes, qualityBytes;
        try
        {
            headerBytes = header.Encode();
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"The header {e.Message}.", nameof(header), e);
        }
        BlockGrid grid = header.Grid;
        if (scaleIndex.Length != grid.Count)
            throw new ArgumentException($"{scaleIndex.Length} scale indices for {grid.Count} blocks.", nameof(scaleIndex));
        if (scaleIndex.AsSpan().ContainsAnyExceptInRange((byte)0, (byte)(header.Scales.Count - 1)))
            throw new ArgumentException("A scale index is outside the scale set.", nameof(scaleIndex));
        try
        {
            qualityBytes = QualityRecord.Encode(quality, RecordedQuality.ValuesOf(grid));
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"Not writable: {e.Message}.", nameof(quality), e);
        }
        byte[] map = ScaleMap.Encode(scaleIndex, grid.Columns);
        var preamble = new Preamble(headerBytes.Length, map.Length, qualityBytes.Length, grid.Strips, 0,
            header.Context == BlockContext.None ? ContainerLayout.Version1 : ContainerLayout.Version2);

        using var file = new FileStream(path, FileMode.Create, FileAccess.Write, FileShare.None, 1 << 16);
        file.Position = preamble.StripsAt;
        var entries = new List<StripEntry>(grid.Strips);
        foreach (ReadOnlyMemory<byte> strip in strips)
        {
            int number = entries.Count;
            if (number == grid.Strips)
                throw new ArgumentException($"More than {grid.Strips} strips.", nameof(strips));
            if (StripPacker.Problem(strip.Span, number) is { } problem)
                throw new ArgumentException($"Strip {number} {problem}.", nameof(strips));
            if (header.Alpha != AlphaKind.Stored && StripPacker.StoresAlpha(strip))
                throw new ArgumentException($"Strip {number} stores alpha and the header says {header.Alpha}.", nameof(strips));
            entries.Add(new StripEntry(file.Position, strip.Length, strip.Span[^ContainerLayout.ChecksumBytes..].ToArray()));
            file.Write(strip.Span);
        }
        if (entries.Count != grid.Strips)
            throw new ArgumentException($"{entries.Count} strips instead of {grid.Strips}.", nameof(strips));

        long length = file.Position;
        // Last, so that a file cut short by a failure has no preamble.
        file.Position = ContainerLayout.PreambleBytes;
        file.Write(ContainerLayout.WithChecksum(headerBytes));
        file.Write(ContainerLayout.WithChecksum(map));
        file.Write(ContainerLayout.WithChecksum(qualityBytes));
        file.Write(StripEntry.EncodeAll(entries));
        file.Position = 0;
        file.Write((preamble with { FileLength = length }).Encode());
        file.Flush(flushToDisk: true);
        return length;
    }
}

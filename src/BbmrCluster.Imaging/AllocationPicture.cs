namespace BbmrCluster.Imaging;

/// <summary>Draws which scale each block got: the picture, small, tinted block by block, with a legend.</summary>
public static class AllocationPicture
{
    /// <summary>Writes a PNG whose longer side is at most about 1600 pixels; orientation is applied. Same input, same bytes.</summary>
    /// <param name="path">Output, a PNG; replaced when it exists.</param>
    /// <param name="info">The source image.</param>
    /// <param name="rawStripFiles">Its raw strips, top to bottom, as for <see cref="ImageEncoder"/>.</param>
    /// <param name="blockSize">Side of a block, pixels.</param>
    /// <param name="scales">The scale set, ascending.</param>
    /// <param name="scaleIndex">Index into <paramref name="scales"/> of each block in raster order.</param>
    /// <exception cref="InvalidDataException">The strips do not make up the image.</exception>
    /// <exception cref="OutputFullException">The disk is full.</exception>
    public static void Render(string path, ImageInfo info, IReadOnlyList<string> rawStripFiles, int blockSize, IReadOnlyList<int> scales, ReadOnlySpan<byte> scaleIndex) => throw new NotSupportedException();
}

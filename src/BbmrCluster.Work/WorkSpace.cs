using BbmrCluster.Rescaling;

namespace BbmrCluster.Work;

/// <summary>Room that the intermediates of an image take in the blob store.</summary>
public static class WorkSpace
{
    // JointSR keeps 8 rows of 12 float32 features at half size on each side of a strip border.
    private const int BandRows = 8, BandBytesPerColumn = BlockGrid.DefaultBlockSize / 2 * 12 * sizeof(float);

    /// <summary>Bytes of all blobs of an image at once: the most it can take, give or take the coding of LR strips.</summary>
    /// <param name="kind">What is done.</param>
    /// <param name="measure">A downscale that measures.</param>
    /// <param name="grid">The image's grid.</param>
    /// <param name="colourChannels">1 or 3.</param>
    /// <param name="hasAlpha">Whether alpha follows.</param>
    /// <param name="bitDepth">8 or 16.</param>
    public static long Estimate(JobKind kind, bool measure, BlockGrid grid, int colourChannels, bool hasAlpha, int bitDepth)
    {
        long pixels = (long)grid.Width * grid.Height, sample = bitDepth / 8;
        long colours = pixels * colourChannels * sample, alpha = hasAlpha ? pixels * sample : 0;
        long bands = (grid.Strips - 1L) * 2 * BandRows * BandBytesPerColumn * grid.Columns;
        long bytes = (colours / 16) + alpha;
        if (kind != JobKind.Upscale)
            bytes += colours + alpha;
        if (kind != JobKind.Downscale || measure)
            bytes += colours + bands;
        if (kind == JobKind.Rescale)
            bytes += bands;
        if (kind != JobKind.Downscale)
            bytes += colours + alpha;
        return bytes;
    }

    /// <summary>As above for a job whose image is known.</summary>
    public static long Estimate(ImageJob job, ImageFacts facts) =>
        Estimate(job.Parameters.Kind, job.Parameters.Measure, facts.Grid, facts.ColourChannels, facts.HasAlpha, facts.BitDepth);
}

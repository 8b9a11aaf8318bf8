namespace BbmrCluster.Networks.Engine;

/// <summary>How many blocks go into one device call.</summary>
internal static class EngineBatch
{
    /// <summary>Larger batches are no faster on the processor, and leave workers idle at the end of a lease.</summary>
    public const int SpeedBest = 16;

    /// <summary>
    /// Memory of a block during a call, bytes, by measure an upper bound over the networks here in either precision: its
    /// maps in the network, its samples and its result.
    /// </summary>
    public static long BytesPerBlock(int scale)
    {
        long side = 128 / scale;
        return (side * side * 4096) + (1 << 20);
    }

    /// <summary>
    /// The largest batch at a scale: as fast as can be, unless a quarter of the machine's memory (or of its container's)
    /// would not hold one batch for every worker. Of the whole memory, not of what is free: it must be the same whenever
    /// a job goes on. A batch that still runs out is halved.
    /// </summary>
    /// <param name="scale">Scale factor.</param>
    /// <param name="workers">Batches on their way at the same time.</param>
    /// <param name="memory">Bytes.</param>
    public static int Largest(int scale, int workers, long memory) => (int)Math.Clamp(memory / 4 / workers / BytesPerBlock(scale), 1, SpeedBest);
}

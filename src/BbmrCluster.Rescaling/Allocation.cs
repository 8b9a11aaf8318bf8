namespace BbmrCluster.Rescaling;

/// <summary>
/// LR pixels an image may store: N blocks x (block side / rate)^2, so that the overall rate is that of one scale
/// (paper eq. 1 in the reading of MODELS.md 6.1).
/// </summary>
/// <param name="Blocks">N.</param>
/// <param name="Rate">The scale whose rate is kept, e.g. 4.</param>
/// <param name="BlockSize">Block side, HR pixels.</param>
public sealed record RateBudget(int Blocks, int Rate, int BlockSize = BlockGrid.DefaultBlockSize)
{
    /// <summary>The budget in LR pixels.</summary>
    public long LrPixels => (long)Blocks * PixelsPerBlock(Rate);

    /// <summary>LR pixels of one block at a scale.</summary>
    public int PixelsPerBlock(int scale) => BlockSize / scale * (BlockSize / scale);
}

/// <summary>SSE of every block at every scale, with the pixels it was summed over.</summary>
public sealed class BlockScores
{
    private readonly double[,] _sse;

    /// <summary>Wraps [block, scale index].</summary>
    /// <exception cref="ArgumentException">Sizes differ, or a value is negative or not finite.</exception>
    public BlockScores(BlockGrid grid, ScaleSet scales, double[,] sse)
    {
        if (sse.GetLength(0) != grid.Count || sse.GetLength(1) != scales.Count)
            throw new ArgumentException($"{sse.GetLength(0)}x{sse.GetLength(1)} scores for {grid.Count} blocks and {scales.Count} scales.", nameof(sse));
        foreach (double value in sse)
        {
            if (!double.IsFinite(value) || value < 0)
                throw new ArgumentException($"A squared error is {value}.", nameof(sse));
        }
        (Grid, Scales, _sse) = (grid, scales, sse);
    }

    /// <summary>The grid.</summary>
    public BlockGrid Grid { get; }

    /// <summary>The scales.</summary>
    public ScaleSet Scales { get; }

    /// <summary>Squared error of a block at a scale index, 8-bit units squared.</summary>
    public double Sse(int block, int scaleIndex) => _sse[block, scaleIndex];

    /// <summary>PSNR-Y of a block at a scale index in dB over the pixels inside the image, capped at 100.</summary>
    public double Psnr(int block, int scaleIndex) => PsnrOf(_sse[block, scaleIndex], Grid.ExtentOf(block).Pixels);

    /// <summary>PSNR in dB of a squared error over a number of pixels (peak 255), capped at 100.</summary>
    public static double PsnrOf(double sse, long pixels) =>
        sse <= 0 ? 100 : Math.Min(100, 10 * Math.Log10(255.0 * 255.0 * pixels / sse));
}

/// <summary>Which scale every block gets.</summary>
/// <param name="ScaleIndex">One index per block, raster order.</param>
/// <param name="LrPixels">LR pixels used; never above the budget.</param>
/// <param name="Sse">Predicted squared error of the whole image.</param>
/// <param name="Method">How it was found: "paper", "dynamic programming", "hull + exchange".</param>
/// <param name="DualBoundSse">Lagrangian lower bound on the squared error of any allocation within the budget; null where the allocator has another aim.</param>
public sealed record Allocation(byte[] ScaleIndex, long LrPixels, double Sse, string Method, double? DualBoundSse)
{
    /// <summary>Blocks at each scale index.</summary>
    public int[] Counts(int scales)
    {
        var counts = new int[scales];
        foreach (byte index in ScaleIndex)
            counts[index]++;
        return counts;
    }
}

/// <summary>Chooses a scale for every block. Pure and deterministic: same scores and budget, same bytes. Thread-safe.</summary>
public interface IAllocator
{
    /// <summary>Canonical name with parameters, e.g. "sse" or "paper:t=0,max=408".</summary>
    string Name { get; }

    /// <summary>Allocates within the budget.</summary>
    /// <exception cref="ArgumentException">The budget cannot hold every block at the coarsest scale.</exception>
    Allocation Allocate(BlockScores scores, RateBudget budget);
}

namespace BbmrCluster.Rescaling;

/// <summary>Brings HR blocks to LR blocks, each block by itself (paper eq. 2). Used on one thread.</summary>
public interface IDownscaler
{
    /// <summary>Name on the command line: bicubic, downnet.</summary>
    string Name { get; }

    /// <summary>Downscales every block: side/scale pixels a side, same bit depth, rounded to whole values.</summary>
    BlockBatch Downscale(BlockBatch hr, int scale);
}

/// <summary>Scores HR blocks at each scale: downscale, super-resolve, measure (paper section 3.2). Used on one thread.</summary>
public interface IBlockScorer
{
    /// <summary>Name on the command line: a network, same or bicubic.</summary>
    string Name { get; }

    /// <summary>
    /// Sum of squared errors of each block at each scale on unrounded Y (BT.601, 16-235) of the RGB rounded to 8 bits
    /// (16-bit sources: not rounded, in 8-bit units), over the pixels inside the image, in double precision in raster order.
    /// </summary>
    /// <param name="hr">128x128 blocks, edge-replicated where they reach over the image.</param>
    /// <param name="extents">The part of each block inside the image.</param>
    /// <param name="scales">The scales to try.</param>
    /// <returns>SSE indexed [block, scale index]; a value that is not finite marks a block that could not be scored.</returns>
    double[,] Score(BlockBatch hr, IReadOnlyList<BlockExtent> extents, ScaleSet scales);
}

/// <summary>
/// LR blocks of whole consecutive strips, as the reconstructor takes them. <see cref="ByScale"/>[s] holds the blocks
/// whose <see cref="ScaleIndex"/> is s, in block order.
/// </summary>
/// <param name="Columns">Blocks in a strip.</param>
/// <param name="Strips">Strips.</param>
/// <param name="Scales">The scale set.</param>
/// <param name="ScaleIndex">One index per block in raster order, Columns x Strips.</param>
/// <param name="ByScale">One batch per scale (it may be empty).</param>
public sealed record LrStrips(int Columns, int Strips, ScaleSet Scales, byte[] ScaleIndex, IReadOnlyList<BlockBatch> ByScale);

/// <summary>
/// Feature rows next to a strip border: <see cref="Rows"/> x width x channels, float32, channels last. JointSR keeps
/// 8 rows of F_r; with 8 from each side the border's 8 image rows on each side are exact (MODELS.md 5.5: deblock
/// radius 3 + band 3 + final conv 1, and one row that the band's own zero padding would reach).
/// </summary>
public sealed record FeatureBand(int Rows, int Width, int Channels, float[] Values);

/// <summary>One reconstructed strip.</summary>
/// <param name="Rows">RGB samples, (128 x Columns*128 x 3), raw integer values at the source's bit depth, before cropping.</param>
/// <param name="Top">Feature rows at the upper border.</param>
/// <param name="Bottom">Feature rows at the lower border.</param>
public sealed record ReconstructedStrip(ushort[] Rows, FeatureBand Top, FeatureBand Bottom);

/// <summary>Turns LR blocks into image rows (JointSR, paper section 3.4). Used on one thread, the owner of its tensors.</summary>
public interface IReconstructor
{
    /// <summary>Network name, e.g. omnisr-light.</summary>
    string Name { get; }

    /// <summary>Image rows on each side of a strip border that <see cref="JoinBorder"/> replaces (8).</summary>
    int BorderRows { get; }

    /// <summary>
    /// Reconstructs strips, each as if nothing lay above and below it. Blocks of one scale are batched over the whole
    /// call in block order, so equal calls give equal bytes.
    /// </summary>
    /// <exception cref="NonFiniteOutputException">A block came out as NaN or infinity even in float32.</exception>
    IReadOnlyList<ReconstructedStrip> Reconstruct(LrStrips strips);

    /// <summary>
    /// The image rows around the border between two strips: <see cref="BorderRows"/> rows above it, then as many below,
    /// each Columns*128 x 3 samples, equal to those of a reconstruction of the whole image.
    /// </summary>
    /// <param name="above">Bottom band of the upper strip.</param>
    /// <param name="below">Top band of the lower strip.</param>
    /// <param name="bitDepth">8 or 16.</param>
    ushort[] JoinBorder(FeatureBand above, FeatureBand below, int bitDepth);
}

/// <summary>
/// All that one device does for one job: made, used and disposed on one thread, the only owner of its tensors.
/// </summary>
public interface IEngine : IDisposable
{
    /// <summary>The downscaler.</summary>
    IDownscaler Downscaler { get; }

    /// <summary>The scorer.</summary>
    IBlockScorer Scorer { get; }

    /// <summary>The reconstructor.</summary>
    IReconstructor Reconstructor { get; }

    /// <summary>Device calls, blocks and retries since the last call; clears the counters.</summary>
    DeviceCounts TakeCounts();
}

/// <summary>Makes engines. Thread-safe; the weights it names are read once and checked against their cards.</summary>
public interface IEngineFactory
{
    /// <summary>Weight files the settings need, name to SHA-256 (lower-case hex). Part of a job's fingerprint.</summary>
    /// <exception cref="EngineUnavailableException">A network has no weights or the device is not there: one sentence for the user.</exception>
    IReadOnlyDictionary<string, string> WeightHashes(EngineSettings settings);

    /// <summary>What must be equal for equal bytes: device kind and instruction set, e.g. "cpu-avx512-bf16" or "cuda-sm90".</summary>
    string DeviceClass(EngineSettings settings);

    /// <summary>Creates an engine on the calling thread.</summary>
    /// <exception cref="EngineUnavailableException">As above.</exception>
    IEngine Create(EngineSettings settings);
}

/// <summary>What an engine is made for; recorded at submission and never changed during a job.</summary>
/// <param name="Network">Reconstruction network.</param>
/// <param name="Scorer">A network, same (the reconstruction network) or bicubic (no network); none for an engine that only reconstructs and needs no downscaler either.</param>
/// <param name="Downscaler">bicubic or downnet; also decides which networks reconstruct, those trained on its LR.</param>
/// <param name="Scales">The scale set.</param>
/// <param name="Precision">auto, float32 or bfloat16.</param>
/// <param name="Device">auto, cpu or cuda:N.</param>
/// <param name="Threads">libtorch threads of one engine; 0 lets the engine choose.</param>
/// <param name="MaxBatch">Largest number of blocks in a device call (B); 0 lets the engine choose.</param>
/// <param name="Joint">
/// What reconstructs: trained (a joint model, whose scales must be these), blockwise (the single-scale networks, joined
/// exactly as if each block were super-resolved by itself), or auto (trained where there is such a model for these scales).
/// </param>
public sealed record EngineSettings(string Network, string Scorer, string Downscaler, ScaleSet Scales, string Precision, string Device, int Threads, int MaxBatch,
    string Joint = "auto")
{
    /// <summary>The defaults of the command line.</summary>
    public static EngineSettings Default { get; } = new("omnisr-light", "omnisr-light", "bicubic", ScaleSet.Default, "auto", "auto", 0, 0);
}

/// <summary>Device calls and blocks of one purpose and scale.</summary>
/// <param name="Purpose">score, reconstruct or downscale.</param>
/// <param name="Scale">Scale factor of the batch.</param>
/// <param name="Calls">Device calls.</param>
/// <param name="Blocks">Blocks in them.</param>
public sealed record DeviceCallCount(string Purpose, int Scale, long Calls, long Blocks);

/// <summary>What an engine did since it was last asked.</summary>
/// <param name="Calls">By purpose and scale.</param>
/// <param name="PrecisionRetries">Blocks done again in float32 because their output was not finite.</param>
/// <param name="SmallerBatches">Times the batch was halved after running out of memory (gives up byte identity).</param>
public sealed record DeviceCounts(IReadOnlyList<DeviceCallCount> Calls, long PrecisionRetries, long SmallerBatches);

/// <summary>A network, its weights or a device is not there; the message is one sentence that says what to do.</summary>
public sealed class EngineUnavailableException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>A network's output was NaN or infinite in float32 too.</summary>
public sealed class NonFiniteOutputException(string message) : Exception(message);

namespace BbmrCluster.Rescaling;

/// <summary>Brings HR to LR. Used on one thread.</summary>
public interface IDownscaler
{
    /// <summary>Name on the command line: bicubic, downnet.</summary>
    string Name { get; }

    /// <summary>
    /// Downscales every block, which sees nothing but itself (paper eq. 2): side/scale pixels a side, same bit depth, rounded
    /// to whole values.
    /// </summary>
    BlockBatch Downscale(BlockBatch hr, int scale);

    /// <summary>
    /// Some rows of the downscaled whole image, ceil(width / scale) pixels wide: every pixel sees what lies around it, however
    /// the image is cut into strips.
    /// </summary>
    /// <param name="image">Image rows, with <see cref="Reach"/> rows beyond the result's own above and below, as far as the image goes.</param>
    /// <param name="scale">Scale factor.</param>
    /// <param name="firstRow">First LR row, of ceil(height / scale).</param>
    /// <param name="rowCount">LR rows.</param>
    SampleMap Downscale(ImageRows image, int scale, int firstRow, int rowCount);

    /// <summary>Image rows beyond an area on which its LR may depend.</summary>
    int Reach(int scale);
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

    /// <summary>
    /// The same for blocks in their place: LR is that of the whole image, and a network sees a halo of LR pixels around each
    /// tile, at the block's own scale. Scale 1 costs no error. Results do not depend on which blocks are asked for together.
    /// </summary>
    /// <param name="image">Image rows, at least those of <see cref="RowsFor"/>.</param>
    /// <param name="grid">Grid with strips of whole tiles.</param>
    /// <param name="firstBlock">First block, raster order.</param>
    /// <param name="blockCount">Blocks.</param>
    /// <param name="scales">The scales to try, some of those that the scorer was made for.</param>
    double[,] Score(ImageRows image, BlockGrid grid, int firstBlock, int blockCount, IReadOnlyList<int> scales);

    /// <summary>Image rows that scoring some blocks in their place needs: the first, and the one after the last.</summary>
    (int First, int End) RowsFor(BlockGrid grid, int firstBlock, int blockCount, IReadOnlyList<int> scales);
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

/// <summary>
/// Turns LR blocks, each of which sees nothing but itself, into image rows (JointSR, paper section 3.4). Used on one thread, the
/// owner of its tensors.
/// </summary>
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
/// Turns LR blocks that see their neighbours into image rows: the network of a scale runs over the canvas of that scale, tile by
/// tile with a halo, and a block takes its part from the canvas of its own scale. Strips need no joining. Used on one thread.
/// </summary>
public interface ICanvasReconstructor
{
    /// <summary>Network name.</summary>
    string Name { get; }

    /// <summary>Reconstructs strips. Results do not depend on which strips are asked for together, nor on batch or threads.</summary>
    /// <returns>For each strip its rows over all columns of the grid, before cropping.</returns>
    /// <exception cref="NonFiniteOutputException">A tile came out as NaN or infinity even in float32.</exception>
    IReadOnlyList<SampleMap> Reconstruct(LrContext strips);
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

    /// <summary>The reconstructor of blocks by themselves (context none).</summary>
    IReconstructor Reconstructor { get; }

    /// <summary>The reconstructor of blocks that see their neighbours (context canvas).</summary>
    ICanvasReconstructor CanvasReconstructor { get; }

    /// <summary>Scores by the network that reconstructs over canvases: at one scale, what that scale for all blocks would cost.</summary>
    IBlockScorer UniformScorer { get; }

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
    /// <summary>What blocks see of each other.</summary>
    public BlockContext Context { get; init; }

    /// <summary>Block side, HR pixels: a divisor of 128; 128 where blocks see nothing.</summary>
    public int BlockSize { get; init; } = BlockGrid.DefaultBlockSize;

    /// <summary>Largest halo: a strip's context is the strips beside it.</summary>
    public const int MaxHalo = 16;

    /// <summary>LR pixels beyond a tile that a network sees on every side; 0 where blocks see nothing.</summary>
    public int Halo { get; init; }

    /// <summary>
    /// Whether a block's score is also its error in the reconstruction of the whole image at that scale: then the gain over one
    /// scale for all needs no work of its own.
    /// </summary>
    public bool ScoresByReconstruction => Context == BlockContext.Canvas && (Scorer == "same" || Scorer == Network);

    /// <summary>The grid over an image of some size.</summary>
    public BlockGrid GridOf(int width, int height) => GridOf(width, height, Context, BlockSize);

    /// <summary>The grid of blocks of a side with a context.</summary>
    public static BlockGrid GridOf(int width, int height, BlockContext context, int blockSize) =>
        context == BlockContext.Canvas ? BlockGrid.OfTiles(width, height, blockSize) : new BlockGrid(width, height, blockSize);

    /// <summary>The paper's way: blocks by themselves.</summary>
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

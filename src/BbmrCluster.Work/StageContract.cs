using BbmrCluster.Rescaling;

namespace BbmrCluster.Work;

// The contract between the coordination (actors, pure state, journal) and the work (stages that touch pixels).
// Coordinators build a LeaseWork from journaled facts alone; a stage runner turns it into StageReports. Everything
// a later stage needs travels as a BlobRef inside those reports, so any worker that reaches the blob store can do it.

/// <summary>The leased stages of an image, in order. Allocation lies between Score and Pack and is not leased.</summary>
public enum Stage
{
    /// <summary>Check outputs of an earlier run, decode once from the top into raw strips. One lease for the image.</summary>
    Ingest,

    /// <summary>Squared error of blocks at each scale.</summary>
    Score,

    /// <summary>LR atlases of whole strips, losslessly coded.</summary>
    Pack,

    /// <summary>Image rows and border features of whole strips.</summary>
    Reconstruct,

    /// <summary>Join borders, encode to temporary names, decode again, verify. One lease for the image.</summary>
    Finish,

    /// <summary>Rename the finished files, report last. One lease, after the journal holds all hashes.</summary>
    Commit,
}

/// <summary>Identity of one image of a job; safe as a file and actor name.</summary>
public readonly record struct ImageId
{
    /// <summary>Checks the form: 1 to 64 characters of a-z, 0-9 and '-'.</summary>
    /// <exception cref="ArgumentException">Another form.</exception>
    public ImageId(string value)
    {
        if (value is not { Length: >= 1 and <= 64 } || value.Any(c => !(c is (>= 'a' and <= 'z') or (>= '0' and <= '9') or '-')))
            throw new ArgumentException($"'{value}' is not an image id.", nameof(value));
        Value = value;
    }

    /// <summary>The text.</summary>
    public string Value { get; }

    /// <inheritdoc/>
    public override string ToString() => Value;
}

/// <summary>A blob in the store: checked against its hash whenever it is read.</summary>
/// <param name="Name">Relative name with '/' between parts; never absolute, never with "..".</param>
/// <param name="Length">Bytes.</param>
/// <param name="Hash">XXH3-128, 32 lower-case hex digits.</param>
public sealed record BlobRef(string Name, long Length, string Hash);

/// <summary>Final output names, absolute paths. Null where the job does not make that file.</summary>
/// <param name="Container">NAME.bbmr (an input when the job is an upscale).</param>
/// <param name="Image">NAME.png or another format by extension.</param>
/// <param name="AllocationPicture">NAME.allocation.png.</param>
/// <param name="Report">NAME.report.json, renamed last: the mark of done.</param>
public sealed record OutputPaths(string? Container, string? Image, string? AllocationPicture, string Report);

/// <summary>One image of a job as journaled at submission; it never changes.</summary>
/// <param name="Id">Identity: see <see cref="JobIdentity"/>.</param>
/// <param name="Source">Absolute path of the image, or of the container for an upscale.</param>
/// <param name="DisplayName">The input as the user gave it, for messages.</param>
/// <param name="Outputs">Where results go.</param>
/// <param name="Parameters">What the images of the job have in common, fixed and with weights.</param>
public sealed record ImageJob(ImageId Id, string Source, string DisplayName, OutputPaths Outputs, JobParameters Parameters)
{
    /// <summary>A planned image with the parameters of its job; the id follows from both.</summary>
    public static ImageJob Of(PlannedImage image, JobParameters parameters)
    {
        OutputPaths outputs = image.Outputs;
        return new ImageJob(JobIdentity.Of(image.Source, outputs, parameters), image.Source, image.DisplayName, outputs, parameters);
    }
}

/// <summary>What probing found out; journaled once.</summary>
/// <param name="Width">Image width, pixels.</param>
/// <param name="Height">Image height, pixels.</param>
/// <param name="ColourChannels">1 or 3.</param>
/// <param name="HasAlpha">Whether an alpha channel is there (opaque or not).</param>
/// <param name="BitDepth">8 or 16.</param>
/// <param name="Format">Source format.</param>
/// <param name="SourceBytes">File size.</param>
/// <param name="SourceModified">Last write time of the source, UTC.</param>
/// <param name="SourceSha256">SHA-256 of the source file, lower-case hex.</param>
/// <param name="Metadata">ICC, EXIF, ... as a blob; null when there is none.</param>
public sealed record ImageFacts(int Width, int Height, int ColourChannels, bool HasAlpha, int BitDepth, string Format, long SourceBytes, DateTime SourceModified,
    string SourceSha256, BlobRef? Metadata)
{
    /// <summary>The block grid.</summary>
    public BlockGrid Grid => EngineSettings.GridOf(Width, Height, Context, BlockSize);

    /// <summary>What the job's blocks see of each other; with <see cref="BlockSize"/> it decides the grid.</summary>
    public BlockContext Context { get; init; }

    /// <summary>Block side, HR pixels.</summary>
    public int BlockSize { get; init; } = BlockGrid.DefaultBlockSize;

    /// <summary>Whether a file is the one that these facts describe: a touched one counts as the same when its bytes are.</summary>
    internal bool IsOf(FileInfo source, CancellationToken cancellation) =>
        source.Length == SourceBytes && (source.LastWriteTimeUtc == SourceModified || FileSystem.Sha256(source.FullName, cancellation) == SourceSha256);
}

/// <summary>Blobs of one strip that exist so far.</summary>
/// <param name="Strip">Strip number.</param>
/// <param name="Raw">Interleaved source samples, RowsOf(strip) x Width x channels.</param>
/// <param name="Packed">Container strip.</param>
/// <param name="Rows">Reconstructed rows, RowsOf(strip) x Width x colour channels.</param>
/// <param name="Top">Feature band at the upper border (inner borders only).</param>
/// <param name="Bottom">Feature band at the lower border.</param>
/// <param name="UniformTop">Feature band of the uniform reconstruction (every block at the middle scale, rescale jobs); its border rows follow from the bands alone.</param>
/// <param name="UniformBottom">Feature band of the uniform reconstruction.</param>
/// <param name="UniformSse">Squared Y error of the uniform reconstruction over the rows that no border join changes.</param>
public sealed record StripBlobs(int Strip, BlobRef? Raw = null, BlobRef? Packed = null, BlobRef? Rows = null, BlobRef? Top = null, BlobRef? Bottom = null,
    BlobRef? UniformTop = null, BlobRef? UniformBottom = null, double? UniformSse = null);

/// <summary>A piece of work, complete in itself.</summary>
/// <param name="Job">The image's job.</param>
/// <param name="Stage">What to do.</param>
/// <param name="FirstBlock">First block in raster order (Score; other stages: first block of the first strip).</param>
/// <param name="BlockCount">Blocks; whole strips in all stages but Score.</param>
/// <param name="Attempt">1 for the first try; part of every temporary name.</param>
/// <param name="Facts">Known from the end of probing on; null for the first Ingest.</param>
/// <param name="Strips">Inputs, ascending. Ingest: strips that exist already (they are not written again). Score: strips that hold the blocks. Pack, Reconstruct: the leased strips. All three with the strips beside them where blocks see their neighbours. Finish: all.</param>
/// <param name="Scales">Scale index of every block of those strips (Pack and later).</param>
/// <param name="Scores">SSE of every block at its scale index as the scorer saw it (Finish; the estimated quality).</param>
/// <param name="Quarantined">Blocks that could not be scored and got the fallback scale.</param>
/// <param name="Outputs">Files that an earlier Finish prepared, with hashes (Commit).</param>
/// <param name="Tally">Counters of the job so far, for the report (Finish).</param>
public sealed record LeaseWork(
    ImageJob Job, Stage Stage, int FirstBlock, int BlockCount, int Attempt, ImageFacts? Facts, IReadOnlyList<StripBlobs> Strips,
    byte[]? Scales, double[]? Scores, IReadOnlyList<int> Quarantined, IReadOnlyList<OutputFile> Outputs, JobTally Tally)
{
    /// <summary>Squared error of the whole image at the middle scale where scores tell it (Finish of a rescale with context); else null.</summary>
    public double? UniformSse { get; init; }
}

/// <summary>Counters over all leases of an image, resumed runs included.</summary>
/// <param name="Calls">Device calls by purpose and scale.</param>
/// <param name="PrecisionRetries">Blocks redone in float32.</param>
/// <param name="SmallerBatches">Batches halved after out-of-memory.</param>
/// <param name="BisectedLeases">Leases granted smaller because a block in them failed.</param>
/// <param name="ResumedLeases">Leases whose results an earlier process left behind.</param>
/// <param name="Seconds">Wall time of earlier processes and this one up to now.</param>
/// <param name="AllocationMethod">How scales were found.</param>
/// <param name="AllocationSse">Predicted squared error.</param>
/// <param name="AllocationDualBound">Lagrangian bound, or null.</param>
public sealed record JobTally(IReadOnlyList<DeviceCallCount> Calls, long PrecisionRetries, long SmallerBatches, int BisectedLeases, int ResumedLeases, double Seconds,
    string? AllocationMethod, double? AllocationSse, double? AllocationDualBound)
{
    /// <summary>Nothing done yet.</summary>
    public static JobTally Empty { get; } = new([], 0, 0, 0, 0, 0, null, null, null);
}

/// <summary>A finished output under its temporary name.</summary>
/// <param name="Path">Final absolute path.</param>
/// <param name="TemporaryPath">Where it lies until the commit.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Sha256">Lower-case hex.</param>
public sealed record OutputFile(string Path, string TemporaryPath, long Length, string Sha256);

/// <summary>What a stage reports while it works; each is a fact that the coordinator may journal.</summary>
public abstract record StageReport;

/// <summary>The header is read (Ingest).</summary>
public sealed record ImageProbed(ImageFacts Facts) : StageReport;

/// <summary>A finished output of the same fingerprint is there already (Ingest): nothing to do.</summary>
/// <param name="ReportJson">The stored report, verbatim.</param>
public sealed record AlreadyDone(string ReportJson) : StageReport;

/// <summary>A raw strip is stored (Ingest; for an upscale a container strip as <see cref="StripBlobs.Packed"/>).</summary>
public sealed record StripIngested(StripBlobs Strip) : StageReport;

/// <summary>An upscale's container is read: its scale map (Ingest).</summary>
public sealed record ScalesRead(byte[] Scales) : StageReport;

/// <summary>Scores of consecutive blocks. A block whose scores are not finite is reported as such and judged by its block actor.</summary>
/// <param name="FirstBlock">Raster index of the first.</param>
/// <param name="Sse">[block, scale index].</param>
public sealed record BlocksScored(int FirstBlock, double[,] Sse) : StageReport;

/// <summary>A strip is packed (Pack).</summary>
public sealed record StripPacked(StripBlobs Strip) : StageReport;

/// <summary>A strip is reconstructed (Reconstruct).</summary>
public sealed record StripReconstructed(StripBlobs Strip) : StageReport;

/// <summary>All outputs lie verified under temporary names (Finish).</summary>
/// <param name="Outputs">In commit order, the report last.</param>
/// <param name="ReportJson">The report's text.</param>
public sealed record OutputsPrepared(IReadOnlyList<OutputFile> Outputs, string ReportJson) : StageReport;

/// <summary>All outputs bear their final names (Commit).</summary>
public sealed record OutputsCommitted : StageReport;

/// <summary>Progress without a result, to renew the lease.</summary>
public sealed record Working : StageReport;

/// <summary>Runs leases for one device on one thread; owns that device's engines.</summary>
public interface IStageRunner : IDisposable
{
    /// <summary>
    /// Does the work, reporting results as they come. Returns what the device did meanwhile.
    /// </summary>
    /// <exception cref="StageFailedException">With the class of the failure; any other exception counts as <see cref="FailureClass.Transient"/>.</exception>
    /// <exception cref="OperationCanceledException">The lease was taken back.</exception>
    DeviceCounts Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation);
}

/// <summary>What a failure means for the lease and the image.</summary>
public enum FailureClass
{
    /// <summary>Try again, up to the attempt limit.</summary>
    Transient,

    /// <summary>Some block of the lease cannot be done: try halves.</summary>
    Block,

    /// <summary>A blob is missing or damaged: redo what made it, then this lease.</summary>
    BlobLost,

    /// <summary>The store or the output disk is full, or the store cannot be reached: pause and try again when that is over. No attempt is counted.</summary>
    StoreFull,

    /// <summary>The source, its outputs or the weights make the job impossible: the image fails with the message.</summary>
    Permanent,
}

/// <summary>A lease failed; the message is one sentence for the user.</summary>
public sealed class StageFailedException(FailureClass failure, string message, BlobRef? lost = null, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>The class.</summary>
    public FailureClass Failure { get; } = failure;

    /// <summary>The blob that is missing or damaged (<see cref="FailureClass.BlobLost"/>).</summary>
    public BlobRef? Lost { get; } = lost;

    /// <summary>Stable error code for machines, e.g. "refused", "conflict", "full"; null when there is none.</summary>
    public string? Code { get; init; }
}

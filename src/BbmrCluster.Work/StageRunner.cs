using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Work;

/// <summary>What a stage runner needs to know about its machine.</summary>
/// <param name="Scratch">Existing folder for temporary files, swept at start by its owner.</param>
public sealed record StageRunnerOptions(string Scratch);

/// <summary>
/// Runs leases one after another on one thread. Engines are made on that thread when a lease first needs one, kept as long
/// as the settings stay, and disposed here. Failures of the rooms below become classes of failure with one sentence.
/// </summary>
public sealed class StageRunner(IEngineFactory engines, IBlobStore blobs, StageRunnerOptions options) : IStageRunner
{
    private static readonly DeviceCounts Nothing = new([], 0, 0);

    private EngineSettings? _settings;
    private IEngine? _engine;

    /// <inheritdoc/>
    public DeviceCounts Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation)
    {
        using var context = new StageContext(work, blobs, options.Scratch, () => Engine(work.Job.Parameters.Engine), report, cancellation);
        try
        {
            cancellation.ThrowIfCancellationRequested();
            switch (work.Stage)
            {
                case Stage.Ingest when work.Job.Parameters.Kind == JobKind.Upscale:
                    IngestStage.RunContainer(context);
                    break;
                case Stage.Ingest:
                    IngestStage.RunImage(context);
                    break;
                case Stage.Score or Stage.Pack or Stage.Reconstruct when work.Job.Parameters.Engine.Context == BlockContext.Canvas:
                    CanvasStages.Run(context);
                    break;
                case Stage.Score:
                    BlockStages.Score(context);
                    break;
                case Stage.Pack:
                    BlockStages.Pack(context);
                    break;
                case Stage.Reconstruct:
                    ReconstructStage.Run(context);
                    break;
                case Stage.Finish:
                    new FinishStage(context).Run();
                    break;
                case Stage.Commit:
                    CommitStage.Run(work, report, cancellation);
                    break;
                default:
                    throw new ArgumentOutOfRangeException(nameof(work), work.Stage, "There is no such stage.");
            }
            return _engine?.TakeCounts() ?? Nothing;
        }
        catch (Exception error) when (error is not (StageFailedException or OperationCanceledException))
        {
            throw Classified(work.Job, error);
        }
        finally
        {
            // What a failed lease did must not be counted for the next one, which may be of another image.
            _ = _engine?.TakeCounts();
        }
    }

    /// <summary>Disposes the engine. Called on the runner's thread.</summary>
    public void Dispose()
    {
        _engine?.Dispose();
        (_engine, _settings) = (null, null);
    }

    private IEngine Engine(EngineSettings settings)
    {
        if (_engine is null || _settings != settings)
        {
            Dispose();
            _engine = engines.Create(settings);
            _settings = settings;
        }
        return _engine;
    }

    private static StageFailedException Classified(ImageJob job, Exception error) => error switch
    {
        OutputFullException => new StageFailedException(FailureClass.StoreFull, error.Message, inner: error) { Code = "full" },
        IOException when FileSystem.IsFull(error) => new StageFailedException(FailureClass.StoreFull, $"the disk is full: {error.Message}", inner: error) { Code = "full" },
        ImageRefusedException refused => Permanent(job, refused.Reason, "refused", error),
        ContainerException refused => Permanent(job, refused.Reason, "refused", error),
        EngineUnavailableException => Permanent(job, error.Message, "unavailable", error),
        NonFiniteOutputException => new StageFailedException(FailureClass.Block, $"{job.DisplayName}: {error.Message}", inner: error) { Code = "not_finite" },
        OutOfMemoryException => new StageFailedException(FailureClass.Block, $"{job.DisplayName}: out of memory", inner: error) { Code = "out_of_memory" },
        UnauthorizedAccessException => Permanent(job, error.Message, "access", error),
        // Native libraries say it in several lines.
        _ => new StageFailedException(FailureClass.Transient, $"{job.DisplayName}: {error.Message.Trim().ReplaceLineEndings("; ")}", inner: error),
    };

    private static StageFailedException Permanent(ImageJob job, string reason, string code, Exception inner) =>
        new(FailureClass.Permanent, $"{job.DisplayName}: {reason}", inner: inner) { Code = code };
}

/// <summary>A strip that a lease keeps for itself.</summary>
/// <param name="Hash">XXH3-128 of its bytes.</param>
/// <param name="Blob">In the store; null where it is a file.</param>
/// <param name="File">In the scratch folder; null where it is a blob.</param>
internal sealed record KeptStrip(string Hash, BlobRef? Blob, string? File);

/// <summary>A lease with all that its stage may use.</summary>
internal sealed class StageContext(LeaseWork work, IBlobStore blobs, string scratch, Func<IEngine> engine, Action<StageReport> report, CancellationToken cancellation) : IDisposable
{
    private static readonly TimeSpan Heartbeat = TimeSpan.FromSeconds(2);

    private readonly Lazy<string> _scratch = new(() => Directory.CreateDirectory(Path.Combine(scratch, "lease-" + Guid.NewGuid().ToString("N"))).FullName);

    public LeaseWork Work => work;

    public ImageJob Job => work.Job;

    /// <summary>Facts of the image; every stage after the first ingest has them.</summary>
    public ImageFacts Facts => work.Facts ?? throw new InvalidOperationException($"A lease of {work.Stage} has no facts of its image.");

    /// <summary>Scale index of every block of the strips that the lease has.</summary>
    public byte[] Scales => work.Scales ?? throw new InvalidOperationException($"A lease of {work.Stage} has no scales.");

    public IEngine Engine => engine();

    public IBlobStore Blobs => blobs;

    /// <summary>A folder of this lease alone, which goes with it: copies of blobs do not pile up.</summary>
    public string Scratch => _scratch.Value;

    public CancellationToken Cancellation => cancellation;

    public void Report(StageReport what) => report(what);

    public BlobRef Write(string label, int strip, ReadOnlySpan<byte> content) => blobs.Write(Job.Id, $"{label}-{strip:D5}", work.Attempt, content);

    /// <summary>
    /// Writes what this lease alone reads again: into a store on this machine, whose quota counts it and from which the lease
    /// deletes it; where the store is elsewhere, into the scratch folder.
    /// </summary>
    public KeptStrip Keep(string label, int strip, ReadOnlySpan<byte> content)
    {
        if (blobs.IsHere)
        {
            BlobRef blob = Write(label, strip, content);
            return new KeptStrip(blob.Hash, blob, null);
        }
        string file = Path.Combine(Scratch, $"{label}-{strip:D5}");
        File.WriteAllBytes(file, content);
        return new KeptStrip(BlobNames.Hash(content), null, file);
    }

    /// <summary>Reads a blob that an earlier stage must have made.</summary>
    public byte[] Read(BlobRef? blob, string what, int strip) =>
        blobs.Read(blob ?? throw new InvalidOperationException($"A lease of {work.Stage} lacks the {what} of strip {strip}."));

    /// <summary>Raw samples of a strip.</summary>
    public PixelBuffer ReadRaw(StripBlobs strip) =>
        new(Facts.Width, Facts.Grid.RowsOf(strip.Strip), Facts.ColourChannels + (Facts.HasAlpha ? 1 : 0), Facts.BitDepth, Read(strip.Raw, "raw samples", strip.Strip));

    /// <summary>Reconstructed rows of a strip, without alpha.</summary>
    public PixelBuffer ReadRows(StripBlobs strip) =>
        new(Facts.Width, Facts.Grid.RowsOf(strip.Strip), Facts.ColourChannels, Facts.BitDepth, Read(strip.Rows, "rows", strip.Strip));

    /// <summary>Downscales blocks of raw strips in the order given.</summary>
    public BlockBatch Downscale(int scale, IReadOnlyList<(PixelBuffer Raw, int Column)> blocks)
    {
        int side = Facts.Grid.BlockSize;
        if (blocks.Count == 0)
            return new BlockBatch(0, side / scale, Facts.BitDepth);
        BlockBatch lr = Engine.Downscaler.Downscale(LrBlocks.Cut(blocks, Facts.ColourChannels, side, Facts.BitDepth), scale);
        if (Facts.ColourChannels == 1)
            LrBlocks.ToGrey(lr);
        return lr;
    }

    public ImageMetadata Metadata => Facts.Metadata is { } blob ? MetadataCodec.Decode(blobs.Read(blob)) : ImageMetadata.None;

    /// <summary>Format of the packed strips of this image.</summary>
    public StripFormat StripFormat => new(Facts.Grid, Job.Parameters.Engine.Scales, Facts.BitDepth, Facts.ColourChannels, Facts.HasAlpha ? AlphaKind.Stored : AlphaKind.None);

    /// <summary>Scale indices of one strip's blocks.</summary>
    public ReadOnlySpan<byte> ScalesOf(int strip)
    {
        BlockGrid grid = Facts.Grid;
        return Scales.AsSpan(grid.FirstBlockOf(strip) - grid.FirstBlockOf(work.Strips[0].Strip), grid.BlocksOf(strip));
    }

    /// <summary>The strips that the lease's blocks lie in, without those beside them.</summary>
    public IEnumerable<StripBlobs> OwnStrips
    {
        get
        {
            BlockGrid grid = Facts.Grid;
            int first = grid.StripOf(work.FirstBlock), last = grid.StripOf(work.FirstBlock + work.BlockCount - 1);
            return work.Strips.Where(strip => strip.Strip >= first && strip.Strip <= last);
        }
    }

    public UnpackedStrip Unpack(StripBlobs strip)
    {
        byte[] packed = Read(strip.Packed, "packed blocks", strip.Strip);
        try
        {
            return StripPacker.Unpack(packed, StripFormat, strip.Strip, ScalesOf(strip.Strip));
        }
        catch (FormatException error)
        {
            throw new StageFailedException(FailureClass.BlobLost, $"packed strip {strip.Strip} cannot be read: {error.Message}", strip.Packed, error) { Code = "blob_lost" };
        }
    }

    /// <summary>
    /// Runs a long call into a library that does not report progress on another thread and reports
    /// <see cref="Working"/> on this one meanwhile, so that the lease stays renewed.
    /// </summary>
    public T Busy<T>(Func<T> call)
    {
        var task = Task.Run(call, CancellationToken.None);
        while (Task.WaitAny([task], Heartbeat) < 0)
            report(new Working());
        T result = task.GetAwaiter().GetResult();
        cancellation.ThrowIfCancellationRequested();
        return result;
    }

    /// <summary>Deletes the lease's scratch folder.</summary>
    public void Dispose()
    {
        if (!_scratch.IsValueCreated)
            return;
        try
        {
            Directory.Delete(_scratch.Value, recursive: true);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // The next start sweeps it.
        }
    }

    /// <summary>As <see cref="Busy{T}"/> without a result.</summary>
    public void Busy(Action call) => Busy(() =>
    {
        call();
        return true;
    });
}

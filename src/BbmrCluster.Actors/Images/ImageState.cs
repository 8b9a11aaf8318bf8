using System.Collections.Immutable;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using static BbmrCluster.Actors.Protocol.ImageEvents;

namespace BbmrCluster.Actors.Images;

/// <summary>
/// What the journal knows of one image. Pure: <c>Decide...</c> turns what happened into events, <see cref="Apply"/> is the
/// only change. Deciding is idempotent: the first correct result of a range counts, later ones give no event.
/// </summary>
internal sealed record ImageState
{
    // Cost of a block at each stage, for progress in units of work: Ingest, Score, Pack, Reconstruct, Finish, Commit.
    private static readonly int[] Weights = [1, 8, 2, 8, 3, 0];

    public static ImageState Empty { get; } = new();

    public ImageJob? Job { get; private init; }

    public RunId Run { get; private init; }

    public WorkPolicy Policy { get; private init; } = new();

    public ImageFacts? Facts { get; private init; }

    public LeasePlan? Plan { get; private init; }

    /// <summary>One per strip once the image is probed.</summary>
    public ImmutableArray<StripBlobs> Strips { get; private init; } = [];

    /// <summary>Settled scores by the first block of their Score lease.</summary>
    public ImmutableDictionary<int, double[]> Scores { get; private init; } = ImmutableDictionary<int, double[]>.Empty;

    public ImmutableSortedSet<int> Quarantined { get; private init; } = [];

    /// <summary>Scale index per block; treated as immutable.</summary>
    public byte[]? Scales { get; private init; }

    public ImmutableArray<OutputFile> Outputs { get; private init; } = [];

    public string? ReportJson { get; private init; }

    public JobTally Tally { get; private init; } = JobTally.Empty;

    public ImageOutcome? Outcome { get; private init; }

    /// <summary>Submitted and neither done nor failed.</summary>
    public bool InProgress => Job is not null && Outcome is null;

    /// <summary>The metadata blob was lost and is not made again yet.</summary>
    public bool MetadataLost { get; private init; }

    public bool Ingested => Facts is not null && !MetadataLost && (Job!.Parameters.Kind != JobKind.Upscale || Scales is not null)
        && Strips.All(strip => Source(strip) is not null);

    public bool Scored => Job!.Parameters.Kind == JobKind.Upscale || (Plan is not null && Scores.Count == Plan.Score.Count);

    public bool Prepared => Outputs.Length > 0;

    /// <summary>Stages that this job has, in order.</summary>
    public IEnumerable<Stage> Stages => Enum.GetValues<Stage>().Where(stage => stage switch
    {
        Stage.Score or Stage.Pack => Job!.Parameters.Kind != JobKind.Upscale,
        Stage.Reconstruct => Job!.Parameters.Reconstructs,
        _ => true,
    });

    public bool IsDone(WorkUnit unit) => unit.Stage switch
    {
        Stage.Ingest => Prepared || Ingested,
        Stage.Score => Scores.ContainsKey(unit.FirstBlock),
        Stage.Pack or Stage.Reconstruct => Prepared || Each(unit, strip => Product(unit.Stage, strip) is not null),
        Stage.Finish => Prepared,
        _ => Outcome is not null,
    };

    /// <summary>Whether everything that the unit reads is there.</summary>
    public bool IsReady(WorkUnit unit) => unit.Stage switch
    {
        Stage.Ingest => true,
        Stage.Score => EachInput(unit, strip => strip.Raw is not null),
        Stage.Pack => Scales is not null && EachInput(unit, strip => strip.Raw is not null),
        Stage.Reconstruct => Scales is not null && EachInput(unit, strip => strip.Packed is not null),
        Stage.Finish => Facts is not null && Ingested && Scales is not null && Strips.All(strip => Product(LastStripStage, strip) is not null),
        _ => Prepared,
    };

    /// <summary>Planned leases whose results are in the journal.</summary>
    public int FinishedLeases => Plan is null ? 0 : Stages.Where(stage => stage != Stage.Commit).SelectMany(Plan.Of).Count(IsDone);

    public ImageProgress Progress
    {
        get
        {
            int total = Facts?.Grid.Count ?? 0;
            var stages = Stages.Where(stage => stage != Stage.Commit).Select(stage => new StageProgress(stage, DoneBlocks(stage, total), total)).ToList();
            return new ImageProgress(stages, stages.Sum(s => (long)s.DoneBlocks * Weights[(int)s.Stage]), stages.Sum(s => (long)s.TotalBlocks * Weights[(int)s.Stage]));
        }
    }

    private Stage LastStripStage => Job!.Parameters.Reconstructs ? Stage.Reconstruct : Stage.Pack;

    /// <summary>A lease's work from the facts in the journal alone.</summary>
    public LeaseWork WorkOf(WorkUnit unit, int attempt, double seconds)
    {
        IReadOnlyList<StripBlobs> strips = unit.Stage switch
        {
            Stage.Ingest => [.. Strips.Where(strip => Source(strip) is not null)],
            Stage.Score or Stage.Pack or Stage.Reconstruct => [.. Strips[Plan!.Inputs(unit, Job!.Parameters.Engine.Context)]],
            Stage.Finish => Strips,
            _ => [],
        };
        return new LeaseWork(Job!, unit.Stage, unit.FirstBlock, unit.BlockCount, attempt, Facts, strips, unit.Stage switch
            {
                Stage.Pack or Stage.Reconstruct => Scales![Facts!.Grid.FirstBlockOf(strips[0].Strip)..(Facts.Grid.FirstBlockOf(strips[^1].Strip) + Facts.Grid.BlocksOf(strips[^1].Strip))],
                Stage.Finish => Scales,
                _ => null,
            },
            unit.Stage == Stage.Finish && Job!.Parameters.Kind != JobKind.Upscale ? ScoresAtScales() : null, [.. Quarantined],
            unit.Stage == Stage.Commit ? Outputs : [], unit.Stage == Stage.Finish ? Tally with { Seconds = Tally.Seconds + seconds } : JobTally.Empty)
        {
            UniformSse = unit.Stage == Stage.Finish && Job!.Parameters.Kind == JobKind.Rescale && Job.Parameters.Engine.ScoresByReconstruction && Quarantined.Count == 0 ? SumAtMiddle() : null,
        };
    }

    /// <summary>SSE as [block, scale index]; zeros for quarantined blocks.</summary>
    public double[,] AllScores()
    {
        int scales = Job!.Parameters.Engine.Scales.Count;
        var all = new double[Facts!.Grid.Count, scales];
        foreach (var (first, sse) in Scores)
            Buffer.BlockCopy(sse, 0, all, first * scales * sizeof(double), sse.Length * sizeof(double));
        return all;
    }

    public IReadOnlyList<IImageEvent> DecideOpen(RunId run, WorkPolicy policy, ImageJob job) =>
        InProgress && job.Id == Job!.Id ? [new Resumed(run, policy, FinishedLeases)]
        : Outcome is not null && Run == run ? []
        : [new Submitted(run, policy, job)];

    /// <summary>What a report means. Reports that are malformed or already known give nothing.</summary>
    /// <param name="report">Any report but scores, which blocks judge first.</param>
    /// <param name="current">Whether it comes from a lease granted in this epoch and still held: only such a one may prepare or commit outputs.</param>
    public IReadOnlyList<IImageEvent> Decide(StageReport report, bool current)
    {
        if (!InProgress)
            return [];
        switch (report)
        {
            case ImageProbed probed when Facts is null || (MetadataLost && Facts.SourceSha256 == probed.Facts.SourceSha256):
                return [new Probed(probed.Facts)];
            // Another file under the old name: what was made of the old one is void.
            case ImageProbed probed when Facts!.SourceSha256 != probed.Facts.SourceSha256:
                return [new Submitted(Run, Policy, Job!), new Probed(probed.Facts)];
            case AlreadyDone done when current:
                return [new Closed(new ImageOutcome.Skipped(done.ReportJson))];
            case ScalesRead read when Facts is not null && Scales is null && read.Scales.Length == Facts.Grid.Count && read.Scales.All(scale => scale < Job!.Parameters.Engine.Scales.Count):
                return [new ScalesAllocated(read.Scales, null, null, null)];
            case StripIngested { Strip: var strip } when IsStrip(strip) && Source(strip) is not null && Source(Strips[strip.Strip]) is null:
                return [new StripStored(Stage.Ingest, strip)];
            case StripPacked { Strip: var strip } when IsStrip(strip) && strip.Packed is not null && Scales is not null && Strips[strip.Strip].Packed is null:
                return [new StripStored(Stage.Pack, strip)];
            case StripReconstructed { Strip: var strip } when IsStrip(strip) && strip.Rows is not null && Scales is not null && Strips[strip.Strip].Rows is null:
                return [new StripStored(Stage.Reconstruct, strip)];
            case Work.OutputsPrepared prepared when current && !Prepared && prepared.Outputs.Count > 0:
                return [new ImageEvents.OutputsPrepared(prepared.Outputs, prepared.ReportJson)];
            case OutputsCommitted when current && Prepared:
                return [new Closed(new ImageOutcome.Done(ReportJson!))];
            default:
                return [];
        }
    }

    /// <summary>All blocks of a planned Score lease are settled.</summary>
    public IReadOnlyList<IImageEvent> DecideScores(BlocksSettled scores) =>
        InProgress && Plan is not null && !Scores.ContainsKey(scores.FirstBlock)
        && Plan.Score.Any(unit => unit.FirstBlock == scores.FirstBlock && scores.Sse.Length == unit.BlockCount * Job!.Parameters.Engine.Scales.Count)
            ? [scores]
            : [];

    public IReadOnlyList<IImageEvent> DecideAllocation(Allocation allocation) =>
        InProgress && Scales is null && Facts is not null && allocation.ScaleIndex.Length == Facts.Grid.Count
            ? [new ScalesAllocated(allocation.ScaleIndex, allocation.Method, allocation.Sse, allocation.DualBoundSse)]
            : [];

    /// <summary>A blob was found missing or damaged.</summary>
    public IReadOnlyList<IImageEvent> DecideLost(Stage stage, BlobRef? lost)
    {
        if (!InProgress)
            return [];
        if (stage == Stage.Commit)
            return Prepared ? [new OutputsReopened()] : [];
        bool known = lost is not null && (Facts?.Metadata?.Name == lost.Name || Strips.Any(strip => Without(strip, lost.Name) != strip));
        return known ? [new BlobReopened(lost!.Name)] : [];
    }

    public IReadOnlyList<IImageEvent> DecideFailure(string code, string message) =>
        InProgress ? [new Closed(new ImageOutcome.Failed(code, message))] : [];

    public ImageState Apply(IImageEvent one)
    {
        // Written by a coordinator that was frozen while another one finished the image and deleted its events: void.
        if (Job is null && one is not Submitted)
            return this;
        switch (one)
        {
            case Submitted e:
                return Empty with { Run = e.Run, Policy = e.Policy, Job = e.Job };
            case Resumed e:
                return this with { Run = e.Run, Policy = e.Policy, Tally = Tally with { ResumedLeases = e.Leases } };
            case Probed e:
                var grid = e.Facts.Grid;
                return Facts is not null
                    ? this with { Facts = e.Facts, MetadataLost = false }
                    : this with { Facts = e.Facts, Plan = new LeasePlan(grid), Strips = [.. Enumerable.Range(0, grid.Strips).Select(strip => new StripBlobs(strip))] };
            case StripStored e:
                return this with { Strips = Strips.SetItem(e.Strip.Strip, Merge(Strips[e.Strip.Strip], e.Strip)) };
            case BlocksSettled e:
                return this with { Scores = Scores.SetItem(e.FirstBlock, e.Sse), Quarantined = Quarantined.Union(e.Quarantined) };
            case ScalesAllocated e:
                return this with { Scales = e.Scales, Tally = Tally with { AllocationMethod = e.Method, AllocationSse = e.Sse, AllocationDualBound = e.DualBound } };
            case BlobReopened e:
                return this with
                {
                    MetadataLost = MetadataLost || Facts?.Metadata?.Name == e.Name,
                    Strips = [.. Strips.Select(strip => Without(strip, e.Name))],
                };
            case OutputsReopened:
                return this with { Outputs = [], ReportJson = null };
            case ImageEvents.OutputsPrepared e:
                return this with { Outputs = [.. e.Outputs], ReportJson = e.ReportJson };
            case WorkCounted e:
                return this with { Tally = Add(Tally, e) };
            case Closed e:
                return this with { Outcome = e.Outcome };
            default:
                throw new InvalidOperationException($"{one.GetType().Name} is no event of an image.");
        }
    }

    private static JobTally Add(JobTally tally, WorkCounted more)
    {
        var calls = tally.Calls.Concat(more.Counts.Calls).GroupBy(call => (call.Purpose, call.Scale))
            .Select(group => new DeviceCallCount(group.Key.Purpose, group.Key.Scale, group.Sum(c => c.Calls), group.Sum(c => c.Blocks)))
            .OrderBy(call => call.Purpose, StringComparer.Ordinal).ThenBy(call => call.Scale).ToList();
        return tally with
        {
            Calls = calls,
            PrecisionRetries = tally.PrecisionRetries + more.Counts.PrecisionRetries,
            SmallerBatches = tally.SmallerBatches + more.Counts.SmallerBatches,
            BisectedLeases = tally.BisectedLeases + more.Bisected,
            Seconds = tally.Seconds + more.Seconds,
        };
    }

    private static StripBlobs Merge(StripBlobs old, StripBlobs one) => new(old.Strip, one.Raw ?? old.Raw, one.Packed ?? old.Packed, one.Rows ?? old.Rows,
        one.Top ?? old.Top, one.Bottom ?? old.Bottom, one.UniformTop ?? old.UniformTop, one.UniformBottom ?? old.UniformBottom, one.UniformSse ?? old.UniformSse);

    // What a reconstruct lease makes counts only as a whole: when one blob is lost, all of the strip's are made again.
    private static StripBlobs Without(StripBlobs strip, string name) =>
        strip.Raw?.Name == name ? strip with { Raw = null }
        : strip.Packed?.Name == name ? strip with { Packed = null }
        : new[] { strip.Rows, strip.Top, strip.Bottom, strip.UniformTop, strip.UniformBottom }.Any(blob => blob?.Name == name)
            ? new StripBlobs(strip.Strip, strip.Raw, strip.Packed)
            : strip;

    private static BlobRef? Product(Stage stage, StripBlobs strip) => stage == Stage.Pack ? strip.Packed : strip.Rows;

    private bool IsStrip(StripBlobs strip) => strip.Strip >= 0 && strip.Strip < Strips.Length;

    private BlobRef? Source(StripBlobs strip) => Job!.Parameters.Kind == JobKind.Upscale ? strip.Packed : strip.Raw;

    private double SumAtMiddle()
    {
        double[,] all = AllScores();
        int middle = Job!.Parameters.Engine.Scales.MiddleIndex;
        return Enumerable.Range(0, all.GetLength(0)).Sum(block => all[block, middle]);
    }

    private bool Each(WorkUnit unit, Func<StripBlobs, bool> predicate) => Plan is not null && Each(Plan.Strips(unit), predicate);

    private bool EachInput(WorkUnit unit, Func<StripBlobs, bool> predicate) => Plan is not null && Each(Plan.Inputs(unit, Job!.Parameters.Engine.Context), predicate);

    private bool Each(Range range, Func<StripBlobs, bool> predicate)
    {
        for (int strip = range.Start.Value; strip < range.End.Value; strip++)
        {
            if (!predicate(Strips[strip]))
                return false;
        }
        return true;
    }

    private double[] ScoresAtScales()
    {
        var all = AllScores();
        return [.. Scales!.Select((scale, block) => all[block, scale])];
    }

    private int DoneBlocks(Stage stage, int total)
    {
        if (Facts is null || total == 0)
            return 0;
        if (Prepared)
            return total;
        BlockGrid grid = Facts.Grid;
        return stage switch
        {
            Stage.Ingest => Strips.Where(strip => Source(strip) is not null).Sum(strip => grid.BlocksOf(strip.Strip)),
            Stage.Score => Scores.Sum(range => range.Value.Length) / Job!.Parameters.Engine.Scales.Count,
            Stage.Pack or Stage.Reconstruct => Strips.Where(strip => Product(stage, strip) is not null).Sum(strip => grid.BlocksOf(strip.Strip)),
            _ => 0,
        };
    }
}

using BbmrCluster.Rescaling;

namespace BbmrCluster.Work.Tests;

/// <summary>Does what the coordination does, without it: one lease after the other.</summary>
public sealed class SequentialDriver(IStageRunner runner, ImageJob job)
{
    private readonly List<DeviceCallCount> _calls = [];

    public ImageJob Job => job;

    public int BlocksPerScore { get; set; } = 64;

    public int StripsPerLease { get; set; } = 1;

    public ImageFacts? Facts { get; set; }

    public SortedDictionary<int, StripBlobs> Strips { get; } = [];

    public double[,]? Sse { get; private set; }

    public byte[]? Scales { get; set; }

    public Allocation? Allocation { get; private set; }

    public List<int> Quarantined { get; } = [];

    public IReadOnlyList<OutputFile> Outputs { get; private set; } = [];

    public string? ReportJson { get; private set; }

    public bool Done { get; private set; }

    public List<StageReport> Reports { get; } = [];

    public JobReport Report => JobReport.Parse(ReportJson!);

    public void RunAll()
    {
        Ingest();
        if (!Done)
            RunFromScore();
    }

    /// <summary>Everything after Ingest.</summary>
    public void RunFromScore()
    {
        if (job.Parameters.Kind != JobKind.Upscale)
        {
            Score();
            Allocate();
            Each(Stage.Pack);
        }
        if (job.Parameters.Reconstructs)
            Each(Stage.Reconstruct);
        Lease(Stage.Finish);
        Lease(Stage.Commit);
    }

    public void Ingest() => Lease(Stage.Ingest);

    public void Score()
    {
        BlockGrid grid = Facts!.Grid;
        Sse = new double[grid.Count, job.Parameters.Engine.Scales.Count];
        for (int first = 0; first < grid.Count; first += BlocksPerScore)
        {
            int count = Math.Min(BlocksPerScore, grid.Count - first);
            Lease(Stage.Score, first, count, Inputs(grid.StripOf(first), grid.StripOf(first + count - 1)));
        }
    }

    public void Allocate()
    {
        BlockGrid grid = Facts!.Grid;
        Allocation = new SseAllocator().Allocate(new BlockScores(grid, job.Parameters.Engine.Scales, Sse!), new RateBudget(grid.Count, job.Parameters.Rate, grid.BlockSize));
        Scales = Allocation.ScaleIndex;
    }

    public void Each(Stage stage)
    {
        BlockGrid grid = Facts!.Grid;
        for (int first = 0; first < grid.Strips; first += StripsPerLease)
        {
            int count = Math.Min(StripsPerLease, grid.Strips - first);
            Lease(stage, grid.FirstBlockOf(first), Enumerable.Range(first, count).Sum(grid.BlocksOf), Inputs(first, first + count - 1));
        }
    }

    private StripBlobs[] Inputs(int first, int last)
    {
        int beside = job.Parameters.Engine.Context == BlockContext.Canvas ? 1 : 0;
        return [.. Strips.Values.Where(strip => strip.Strip >= first - beside && strip.Strip <= last + beside)];
    }

    public void Lease(Stage stage, int attempt = 1, CancellationToken cancellation = default) =>
        Lease(stage, 0, Facts?.Grid.Count ?? 0, [.. Strips.Values], attempt, cancellation);

    private void Lease(Stage stage, int firstBlock, int blocks, StripBlobs[] strips, int attempt = 1, CancellationToken cancellation = default)
    {
        double[]? scores = Sse is null || Scales is null ? null : [.. Scales.Select((s, b) => Sse[b, s])];
        byte[]? scales = Scales is null || strips.Length == 0 ? Scales
            : Scales[Facts!.Grid.FirstBlockOf(strips[0].Strip)..(Facts.Grid.FirstBlockOf(strips[^1].Strip) + Facts.Grid.BlocksOf(strips[^1].Strip))];
        var work = new LeaseWork(job, stage, firstBlock, blocks, attempt, Facts, strips, scales, scores, Quarantined, Outputs,
            new JobTally(_calls, 0, 0, 0, 0, 0, Allocation?.Method, Allocation?.Sse, Allocation?.DualBoundSse));
        DeviceCounts counts = runner.Run(work, Take, cancellation);
        _calls.AddRange(counts.Calls);
    }

    private void Take(StageReport report)
    {
        Reports.Add(report);
        switch (report)
        {
            case ImageProbed probed:
                Facts = probed.Facts;
                break;
            case AlreadyDone done:
                (Done, ReportJson) = (true, done.ReportJson);
                break;
            case StripIngested strip:
                Strips[strip.Strip.Strip] = strip.Strip;
                break;
            case ScalesRead read:
                Scales = read.Scales;
                break;
            case BlocksScored scored:
                Array.Copy(scored.Sse, 0, Sse!, scored.FirstBlock * scored.Sse.GetLength(1), scored.Sse.Length);
                break;
            case StripPacked strip:
                Strips[strip.Strip.Strip] = strip.Strip;
                break;
            case StripReconstructed strip:
                Strips[strip.Strip.Strip] = strip.Strip;
                break;
            case OutputsPrepared prepared:
                (Outputs, ReportJson) = (prepared.Outputs, prepared.ReportJson);
                break;
            case OutputsCommitted:
                Done = true;
                break;
        }
    }
}

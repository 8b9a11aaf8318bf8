using System.Collections.Concurrent;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>A lease as the fake devices saw it.</summary>
internal sealed record Ran(ImageId Image, Stage Stage, int FirstBlock, int BlockCount, int Thread, LeaseWork Work);

/// <summary>
/// Sources, outputs and blobs that exist by name only, shared by all fake devices of a test. A source is named by its
/// size, "/in/NAME-WIDTHxHEIGHT".
/// </summary>
internal sealed class FakeWorld
{
    private int _gate = int.MaxValue;

    /// <summary>Everything that was begun, in order.</summary>
    public ConcurrentQueue<Ran> Log { get; } = new();

    /// <summary>Outputs that were committed.</summary>
    public ConcurrentDictionary<string, string> Committed { get; } = new();

    /// <summary>Called before a lease does anything; throws to fail it.</summary>
    public Action<LeaseWork> Before { get; set; } = _ => { };

    /// <summary>Called before each report.</summary>
    public Action<LeaseWork, StageReport> Reporting { get; set; } = (_, _) => { };

    /// <summary>Scores of a block.</summary>
    public Func<int, double[]> Sse { get; set; } = block => [1 + (block % 7), 10 + (block % 11), 100 + (block % 13)];

    /// <summary>Devices stop here at the given stage until they are cancelled or let go.</summary>
    public Stage? HoldAt { get; set; }

    public ManualResetEventSlim Held { get; } = new();

    public ManualResetEventSlim LetGo { get; } = new();

    public IStageRunner Runner() => new FakeRunner(this);

    /// <summary>From now on devices hold at a stage after so many of its leases.</summary>
    public void Hold(Stage stage, int after = 0) => (HoldAt, _gate) = (stage, after);

    public void Release()
    {
        HoldAt = null;
        LetGo.Set();
    }

    public IEnumerable<Ran> Of(Stage stage) => Log.Where(ran => ran.Stage == stage);

    public static JobParameters Parameters { get; } = new()
    {
        Engine = EngineSettings.Default with { Joint = "blockwise" }, DeviceClass = "fake", WeightHashes = new([new("w", "00")]), Rate = 4,
    };

    public static ImageJob Job(string name, int width, int height, JobKind kind = JobKind.Rescale)
    {
        string path = $"/in/{name}-{width}x{height}";
        var outputs = new OutputPaths($"/out/{name}.bbmr", $"/out/{name}.png", null, $"/out/{name}.report.json");
        var parameters = Parameters with { Kind = kind };
        return new ImageJob(JobIdentity.Of(path, outputs, parameters), path, name, outputs, parameters);
    }

    private sealed class FakeRunner(FakeWorld world) : IStageRunner
    {
        private readonly int _thread = Environment.CurrentManagedThreadId;

        public DeviceCounts Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation)
        {
            Assert.Equal(_thread, Environment.CurrentManagedThreadId);
            if (work.Stage == world.HoldAt && Interlocked.Decrement(ref world._gate) < 0)
            {
                world.Held.Set();
                WaitHandle.WaitAny([world.LetGo.WaitHandle, cancellation.WaitHandle]);
                cancellation.ThrowIfCancellationRequested();
            }
            world.Log.Enqueue(new Ran(work.Job.Id, work.Stage, work.FirstBlock, work.BlockCount, _thread, work));
            world.Before(work);
            int calls = 0;
            foreach (var one in Results(work))
            {
                cancellation.ThrowIfCancellationRequested();
                world.Reporting(work, one);
                report(one);
                calls++;
            }
            return new DeviceCounts([new DeviceCallCount(work.Stage.ToString(), 4, calls, work.BlockCount)], 0, 0);
        }

        public void Dispose()
        {
        }

        private IEnumerable<StageReport> Results(LeaseWork work)
        {
            var job = work.Job;
            bool upscale = job.Parameters.Kind == JobKind.Upscale;
            var facts = work.Facts ?? Facts(job);
            var grid = facts.Grid;
            int first = work.FirstBlock / grid.Columns;
            switch (work.Stage)
            {
                case Stage.Ingest:
                    if (world.Committed.TryGetValue(job.Outputs.Report, out string? report))
                    {
                        yield return new AlreadyDone(report);
                        yield break;
                    }
                    yield return new ImageProbed(facts);
                    if (upscale)
                        yield return new ScalesRead([.. Enumerable.Repeat((byte)1, grid.Count)]);
                    for (int strip = 0; strip < grid.Strips; strip++)
                    {
                        if (work.Strips.Any(known => known.Strip == strip))
                            continue;
                        var blob = Blob(job, $"source-{strip}");
                        yield return new StripIngested(upscale ? new StripBlobs(strip, Packed: blob) : new StripBlobs(strip, Raw: blob));
                    }
                    break;
                case Stage.Score:
                    Assert.All(work.Strips, strip => Assert.NotNull(strip.Raw));
                    for (int at = work.FirstBlock; at < work.FirstBlock + work.BlockCount; at += 16)
                    {
                        int count = Math.Min(16, work.FirstBlock + work.BlockCount - at);
                        var sse = new double[count, 3];
                        for (int i = 0; i < count; i++)
                        {
                            double[] one = world.Sse(at + i);
                            (sse[i, 0], sse[i, 1], sse[i, 2]) = (one[0], one[1], one[2]);
                        }
                        yield return new BlocksScored(at, sse);
                    }
                    break;
                case Stage.Pack:
                    Assert.Equal(work.Strips.Sum(strip => grid.BlocksOf(strip.Strip)), work.Scales!.Length);
                    foreach (var strip in work.Strips)
                        yield return new StripPacked(strip with { Packed = Blob(job, $"packed-{strip.Strip}") });
                    break;
                case Stage.Reconstruct:
                    foreach (var strip in work.Strips)
                    {
                        Assert.NotNull(strip.Packed);
                        yield return new StripReconstructed(strip with { Rows = Blob(job, $"rows-{strip.Strip}"), Top = Blob(job, $"top-{strip.Strip}") });
                    }
                    break;
                case Stage.Finish:
                    Assert.Equal(grid.Strips, work.Strips.Count);
                    Assert.All(work.Strips, strip => Assert.NotNull(strip.Rows));
                    Assert.Equal(0, first);
                    string text = $"{{\"resumed\":{work.Tally.ResumedLeases},\"bisected\":{work.Tally.BisectedLeases},\"quarantined\":{work.Quarantined.Count},\"scales\":\"{string.Concat(work.Scales!)}\"}}";
                    yield return new OutputsPrepared([new OutputFile(job.Outputs.Report, job.Outputs.Report + ".tmp", 1, "00")], text);
                    break;
                default:
                    Assert.Single(work.Outputs);
                    world.Committed[job.Outputs.Report] = $"report of {job.DisplayName}";
                    yield return new OutputsCommitted();
                    break;
            }
        }

        private static ImageFacts Facts(ImageJob job)
        {
            int[] size = [.. job.Source[(job.Source.LastIndexOf('-') + 1)..].Split('x').Select(int.Parse)];
            return new ImageFacts(size[0], size[1], 3, false, 8, "png", 1000, DateTime.UnixEpoch, "cafe", null);
        }

        private static BlobRef Blob(ImageJob job, string label) => new($"{job.Id}/{label}", 10, new string('0', 32));
    }
}

using System.Diagnostics;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Benchmarks;

/// <summary>What all stand-ins of a run did.</summary>
internal sealed class StandInCounts
{
    private long _leases, _busy;

    public long Leases => Interlocked.Read(ref _leases);

    public TimeSpan Busy => Stopwatch.GetElapsedTime(0, Interlocked.Read(ref _busy));

    public void Add(long ticks)
    {
        Interlocked.Increment(ref _leases);
        Interlocked.Add(ref _busy, ticks);
    }
}

/// <summary>A device that takes a fixed time for any lease and invents its results; a source is named by its size, "/in/NAME-WIDTHxHEIGHT".</summary>
internal sealed class StandIn(TimeSpan lease, StandInCounts counts) : IStageRunner
{
    private const int Batch = 16;

    public static ImageJob Job(string name, int width, int height)
    {
        var job = new ImageJob(new ImageId("none"), JobKind.Rescale, $"/in/{name}-{width}x{height}", name,
            new OutputPaths($"/out/{name}.bbmr", $"/out/{name}.png", null, $"/out/{name}.report.json"), EngineSettings.Default, "stand-in",
            new Dictionary<string, string>(StringComparer.Ordinal) { ["w"] = "00" }, "sse", 4, false, false, ImageLimits.Default);
        return job with { Id = JobIdentity.Of(job) };
    }

    public DeviceCounts Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation)
    {
        long begin = Stopwatch.GetTimestamp();
        if (lease > TimeSpan.Zero && cancellation.WaitHandle.WaitOne(lease))
            cancellation.ThrowIfCancellationRequested();
        counts.Add(Stopwatch.GetTimestamp() - begin);
        foreach (var one in Results(work))
            report(one);
        return new DeviceCounts([new DeviceCallCount("stand-in", 4, 1, work.BlockCount)], 0, 0);
    }

    public void Dispose()
    {
    }

    private static IEnumerable<StageReport> Results(LeaseWork work)
    {
        var job = work.Job;
        var facts = work.Facts ?? Facts(job);
        switch (work.Stage)
        {
            case Stage.Ingest:
                yield return new ImageProbed(facts);
                for (int strip = 0; strip < facts.Grid.Strips; strip++)
                    yield return new StripIngested(new StripBlobs(strip, Raw: Blob(job, "raw", strip)));
                break;
            case Stage.Score:
                for (int at = 0; at < work.BlockCount; at += Batch)
                {
                    int count = Math.Min(Batch, work.BlockCount - at);
                    var sse = new double[count, 3];
                    for (int i = 0; i < count; i++)
                    {
                        int block = work.FirstBlock + at + i;
                        (sse[i, 0], sse[i, 1], sse[i, 2]) = (1 + (block % 7), 10 + (block % 11), 100 + (block % 13));
                    }
                    yield return new BlocksScored(work.FirstBlock + at, sse);
                }
                break;
            case Stage.Pack:
                foreach (var strip in work.Strips)
                    yield return new StripPacked(strip with { Packed = Blob(job, "packed", strip.Strip) });
                break;
            case Stage.Reconstruct:
                foreach (var strip in work.Strips)
                    yield return new StripReconstructed(strip with { Rows = Blob(job, "rows", strip.Strip), Top = Blob(job, "top", strip.Strip), Bottom = Blob(job, "bottom", strip.Strip) });
                break;
            case Stage.Finish:
                yield return new OutputsPrepared([new OutputFile(job.Outputs.Report, job.Outputs.Report + ".tmp", 1, "00")], "{}");
                break;
            default:
                yield return new OutputsCommitted();
                break;
        }
    }

    private static ImageFacts Facts(ImageJob job)
    {
        int[] size = [.. job.Source[(job.Source.LastIndexOf('-') + 1)..].Split('x').Select(part => int.Parse(part, System.Globalization.CultureInfo.InvariantCulture))];
        return new ImageFacts(size[0], size[1], 3, false, 8, "png", 1000, DateTime.UnixEpoch, new string('0', 64), null);
    }

    private static BlobRef Blob(ImageJob job, string label, int strip) => new($"{job.Id}/{label}-{strip:d5}.0123456789abcdef", 2_949_120, new string('0', 32));
}

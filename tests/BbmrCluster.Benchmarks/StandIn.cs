using System.Diagnostics;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Benchmarks;

/// <summary>What stand-ins did. Thread-safe.</summary>
internal sealed class StandInCounts
{
    private long _leases, _ticks, _blocks;

    public long Leases => Interlocked.Read(ref _leases);

    /// <summary>Blocks scored and reconstructed. Those that are packed cost an eighth of the time and fall to whoever is free.</summary>
    public long Blocks => Interlocked.Read(ref _blocks);

    public double BusySeconds => (double)Interlocked.Read(ref _ticks) / Stopwatch.Frequency;

    public void Add(LeaseWork work, long ticks)
    {
        Interlocked.Increment(ref _leases);
        Interlocked.Add(ref _ticks, ticks);
        if (work.Stage is Stage.Score or Stage.Reconstruct)
            Interlocked.Add(ref _blocks, work.BlockCount);
    }
}

/// <summary>
/// A device that takes a given time for a lease and invents its results, which are as many and as large as those of a real
/// one. A source is named by its size, "/in/NAME-WIDTHxHEIGHT".
/// </summary>
/// <param name="time">Time of a lease.</param>
/// <param name="done">Is told of every lease with the ticks that it took.</param>
internal sealed class StandIn(Func<LeaseWork, TimeSpan> time, Action<LeaseWork, long> done) : IStageRunner
{
    private const int Batch = 16;

    private static readonly JobParameters Parameters = new() { DeviceClass = "stand-in", WeightHashes = new([new("w", "00")]), Rate = 4 };

    public static ImageJob Job(string name, int width, int height)
    {
        string source = $"/in/{name}-{width}x{height}";
        var outputs = new OutputPaths($"/out/{name}.bbmr", $"/out/{name}.png", null, $"/out/{name}.report.json");
        return new ImageJob(JobIdentity.Of(source, outputs, Parameters), source, name, outputs, Parameters);
    }

    public DeviceCounts Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation)
    {
        long begin = Stopwatch.GetTimestamp();
        var lease = time(work);
        if (lease > TimeSpan.Zero)
            Thread.Sleep(lease);
        done(work, Stopwatch.GetTimestamp() - begin);
        cancellation.ThrowIfCancellationRequested();
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

using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// How a cluster's time is shared, with real actors and journal and timed devices: the same four questions that the specs
/// ask of the pure placement and lease book in virtual time. Stand-ins take some milliseconds a block.
/// </summary>
internal static class SharingBenchmark
{
    public static void Run(string[] args)
    {
        string? server = args is ["--postgres", var connection] ? connection : args.Length == 0 ? null : throw new ArgumentException("sharing [--postgres CONNECTION]", nameof(args));
        ThreadPool.SetMinThreads(32, 32);
        Console.WriteLine("| question | workers | wanted | measured | |");
        Console.WriteLine("|---|---|---|---|---|");
        foreach (var question in new[] { EqualAsync, FasterAsync, UrgentAsync, TailAsync })
            Console.WriteLine(question(server).GetAwaiter().GetResult());
    }

    private static async Task<string> EqualAsync(string? server)
    {
        const int images = 60;
        await using var cluster = await TimedCluster.StartAsync(server, Enumerable.Repeat(2.5, 8), 16);
        await using var one = await cluster.SubmitAsync("one", images, 20, 8);
        await using var other = await cluster.SubmitAsync("other", images, 20, 8);
        // Both are under way from here on.
        await cluster.UntilAsync(() => cluster.Done("one") >= 4 && cluster.Done("other") >= 4);
        double first = cluster.Seconds("one"), second = cluster.Seconds("other");
        await cluster.UntilAsync(() => cluster.Done("one") >= images * 3 / 4 || cluster.Done("other") >= images * 3 / 4);
        return Row("device time of one of two equal archives over that of the other", 8, 0.9, 1.1, (cluster.Seconds("one") - first) / (cluster.Seconds("other") - second));
    }

    private static async Task<string> FasterAsync(string? server)
    {
        await using var cluster = await TimedCluster.StartAsync(server, [3, 3, 1, 1], 8);
        await using var all = await cluster.SubmitAsync("all", 40, 30, 10);
        await all.Completion;
        return Row("blocks scored and reconstructed by a worker three times as fast over those by another", 4, 2.5, 3.5, (double)(cluster.Blocks(2) + cluster.Blocks(3)) / (cluster.Blocks(0) + cluster.Blocks(1)));
    }

    private static async Task<string> UrgentAsync(string? server)
    {
        await using var cluster = await TimedCluster.StartAsync(server, Enumerable.Repeat(5.0, 8), 16);
        await using var thousand = await cluster.SubmitAsync("thousand", 1000, 10, 6);
        await cluster.UntilAsync(() => cluster.Done("thousand") >= 10);
        await using var urgent = await cluster.SubmitAsync("urgent", 1, 10, 6, priority: 5);
        await urgent.Completion;
        return Row("percent of 1,000 images done when a more important one behind them is", 8, 1, 5, cluster.Done("thousand") / 10.0);
    }

    private static async Task<string> TailAsync(string? server)
    {
        const int images = 400;
        // One device is half as fast as the others.
        await using var cluster = await TimedCluster.StartAsync(server, Enumerable.Repeat(8.0, 31).Append(16.0), 64);
        long begin = Stopwatch.GetTimestamp();
        await using var all = await cluster.SubmitAsync("all", images, 12, 8);
        await cluster.UntilAsync(() => cluster.Done("all") >= images * 95 / 100);
        double most = Stopwatch.GetElapsedTime(begin).TotalSeconds;
        await all.Completion;
        double whole = Stopwatch.GetElapsedTime(begin).TotalSeconds;
        return Row("percent of an archive's time that its last 5 % take", 32, 0, 8, 100 * (whole - most) / whole);
    }

    private static string Row(string question, int workers, double from, double to, double measured) =>
        string.Create(CultureInfo.InvariantCulture, $"| {question} | {workers} | {from:0.#} to {to:0.#} | {measured:0.00} | {(measured >= from && measured <= to ? "yes" : "NO")} |");
}

/// <summary>A cluster of workers of one device each, which takes so many milliseconds a block.</summary>
internal sealed class TimedCluster : IAsyncDisposable
{
    private readonly BenchmarkJournal _journal;
    private readonly ConcurrentDictionary<string, double> _seconds = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, int> _done = new(StringComparer.Ordinal);
    private readonly StandInCounts[] _workers;
    private StandInNode? _node;

    private TimedCluster(BenchmarkJournal journal, int workers) => (_journal, _workers) = (journal, [.. Enumerable.Range(0, workers).Select(_ => new StandInCounts())]);

    public static async Task<TimedCluster> StartAsync(string? server, IEnumerable<double> millisecondsPerBlock, int window)
    {
        double[] speeds = [.. millisecondsPerBlock];
        var cluster = new TimedCluster(await BenchmarkJournal.CreateAsync(server), speeds.Length);
        cluster._node = await StandInNode.StartAsync(cluster._journal, null,
            [.. speeds.Select((speed, i) => (Func<IStageRunner>)(() => new StandIn(work => Time(work, speed), (work, ticks) => cluster.Count(i, work, ticks))))],
            new CoordinationSettings { OpenImages = window });
        return cluster;
    }

    /// <summary>Images of an archive that are closed.</summary>
    public int Done(string archive) => _done.GetValueOrDefault(archive);

    /// <summary>Device time that an archive has had.</summary>
    public double Seconds(string archive) => _seconds.GetValueOrDefault(archive);

    /// <summary>Blocks that a worker has scored and reconstructed.</summary>
    public long Blocks(int worker) => _workers[worker].Blocks;

    /// <summary>Submits images of so many blocks and counts those that end.</summary>
    public async Task<ArchiveRun> SubmitAsync(string name, int images, int columns, int rows, int priority = 0)
    {
        var jobs = Enumerable.Range(0, images).Select(i => StandIn.Job($"{name}-{i}", columns * BlockGrid.DefaultBlockSize, rows * BlockGrid.DefaultBlockSize)).ToList();
        var run = await _node!.Client.SubmitAsync(new ArchiveSpec(jobs, new WorkPolicy(new Priority(priority))));
        _ = Task.Run(async () =>
        {
            await foreach (var one in run.Notifications)
            {
                if (one is JobNotification.ImageFinished)
                    _done.AddOrUpdate(name, 1, (_, count) => count + 1);
            }
        });
        return run;
    }

    public async Task UntilAsync(Func<bool> holds)
    {
        while (!holds())
            await Task.Delay(10);
    }

    public async ValueTask DisposeAsync()
    {
        if (_node is not null)
            await _node.DisposeAsync();
        await _journal.DisposeAsync();
    }

    // As of a real engine: networks in Score and Reconstruct, copying elsewhere.
    private static TimeSpan Time(LeaseWork work, double perBlock) =>
        TimeSpan.FromMilliseconds(perBlock * Math.Max(4, work.BlockCount) / (work.Stage is Stage.Score or Stage.Reconstruct ? 1 : 8));

    private void Count(int worker, LeaseWork work, long ticks)
    {
        _workers[worker].Add(work, ticks);
        _seconds.AddOrUpdate(work.Job.DisplayName.Split('-')[0], Stopwatch.GetElapsedTime(0, ticks).TotalSeconds, (_, sum) => sum + Stopwatch.GetElapsedTime(0, ticks).TotalSeconds);
    }
}

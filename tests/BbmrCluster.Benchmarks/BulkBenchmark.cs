using System.Diagnostics;
using System.Globalization;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// An archive of many small images with stand-ins that answer at once, in a process of its own: memory and journal as it
/// goes on, and how long a second process takes to go on after the first was killed (-9) in the middle.
/// </summary>
internal static class BulkBenchmark
{
    private const int Workers = 8;

    public static void Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    /// <summary>The process that is measured: submits an archive, or goes on with one, and tells how far it is.</summary>
    public static void RunNode(string[] args) => RunNodeAsync(args).GetAwaiter().GetResult();

    private static async Task RunAsync(string[] args)
    {
        int images = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 100_000;
        string? server = args.Length > 1 ? args[1] : null;
        await using var journal = await BenchmarkJournal.CreateAsync(server);
        Console.WriteLine($"{images:n0} images of 4 blocks, {Workers} devices that answer at once, journal in {journal.Kind}; the coordinator is killed (-9) at half.");
        Console.WriteLine();
        Console.WriteLine("| images closed | seconds | images/s | resident MB | managed MB | journal MB |");
        Console.WriteLine("|---|---|---|---|---|---|");
        int[] marks = [images / 100, images / 10, images / 4, images / 2, 3 * images / 4, images];
        long begin = Stopwatch.GetTimestamp();
        int closed = 0;
        double restart = 0;
        for (int life = 0; life < 2; life++)
        {
            long start = Stopwatch.GetTimestamp();
            using var node = new OtherProcess("bulk-node", journal.Key, images.ToString(CultureInfo.InvariantCulture), life.ToString(CultureInfo.InvariantCulture));
            var (lastClosed, lastAt) = (closed, start);
            while (await node.ReadLineAsync() is { } line)
            {
                double[] parts = [.. line.Split(' ').Select(part => double.Parse(part, CultureInfo.InvariantCulture))];
                if (life == 1 && restart == 0 && parts[0] > closed)
                    restart = Stopwatch.GetElapsedTime(start).TotalSeconds;
                int next = Array.FindIndex(marks, mark => mark > lastClosed);
                if (next < 0 || parts[0] < marks[next])
                    continue;
                double bytes = await journal.BytesAsync();
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"| {parts[0]:n0} | {Stopwatch.GetElapsedTime(begin).TotalSeconds:0} | {(parts[0] - lastClosed) / Stopwatch.GetElapsedTime(lastAt).TotalSeconds:0} | {parts[1] / 1e6:0} | {parts[2] / 1e6:0} | {bytes / 1e6:0} |"));
                (lastClosed, lastAt) = ((int)parts[0], Stopwatch.GetTimestamp());
                if (life == 0 && lastClosed >= images / 2)
                    break;
            }
            closed = lastClosed;
            if (life == 0)
                node.Kill();
        }
        Console.WriteLine();
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"From the start of the second process to the first image that it closed: {restart:0.0} s. Closed in all: {closed:n0} of {images:n0}."));
    }

    private static async Task RunNodeAsync(string[] args)
    {
        var (journal, images, first) = (BenchmarkJournal.Of(args[0]), int.Parse(args[1], CultureInfo.InvariantCulture), args[2] == "0");
        ThreadPool.SetMinThreads(32, 32);
        // Ends with the process that started it.
        _ = Task.Run(() =>
        {
            while (Console.In.ReadLine() is not null)
            {
            }
            Environment.Exit(0);
        });
        var counts = new StandInCounts();
        await using var node = await StandInNode.StartAsync(journal, null, [.. Enumerable.Repeat(() => new StandIn(_ => TimeSpan.Zero, counts.Add), Workers)], new CoordinationSettings { OpenImages = 64 });
        var id = first ? await SubmitAsync(node.Client, images) : (await WaitAsync(async () => await node.Client.ListAsync() is [var one, ..] ? one : null)).Id;
        while (true)
        {
            var one = await WaitAsync(() => node.Client.FindAsync(id));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{one.Closed} {Environment.WorkingSet} {GC.GetTotalMemory(false)}"));
            if (one.Phase == ArchivePhase.Finished)
                return;
            await Task.Delay(100);
        }
    }

    // The list of jobs is garbage when the submission is through.
    private static async Task<ArchiveId> SubmitAsync(BbmrClient client, int images)
    {
        await using var run = await client.SubmitAsync(new ArchiveSpec([.. Enumerable.Range(0, images).Select(i => StandIn.Job($"some/folder/image-{i:d7}", 256, 256))]));
        return run.Id;
    }

    // A node that has just started may not find its singletons yet.
    private static async Task<T> WaitAsync<T>(Func<Task<T?>> ask)
        where T : class
    {
        while (true)
        {
            try
            {
                if (await ask() is { } answer)
                    return answer;
            }
            catch (Exception error) when (error is Akka.Actor.AskTimeoutException or TimeoutException)
            {
            }
            await Task.Delay(20);
        }
    }
}

using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Protocol;
using Microsoft.Data.Sqlite;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// An archive of many small images with stand-ins that answer at once: managed memory and journal as it goes on, and how
/// long a second process takes from start to the first image that it closes.
/// </summary>
internal static class BulkBenchmark
{
    private const int Workers = 8;

    public static void Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    private static async Task RunAsync(string[] args)
    {
        int images = args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 100_000;
        double most = args.Length > 1 ? double.Parse(args[1], CultureInfo.InvariantCulture) : 600;
        ThreadPool.SetMinThreads(32, 32);
        string folder = Directory.CreateTempSubdirectory("bbmr-bulk-").FullName;
        try
        {
            var settings = new CoordinationSettings { OpenImages = 64 };
            var counts = new StandInCounts();
            ArchiveId id;
            int half;
            await using (var node = await Coordination.StartAsync(folder, Workers, TimeSpan.Zero, counts, settings))
            {
                long begin = Stopwatch.GetTimestamp();
                id = await SubmitAsync(node.Client, images);
                Line(new { submitted = images, seconds = Seconds(begin), managed_megabytes = Managed() });
                half = await WatchAsync(node.Client, id, most, one => one.Closed >= images / 2);
            }
            long restart = Stopwatch.GetTimestamp();
            await using (var node = await Coordination.StartAsync(folder, Workers, TimeSpan.Zero, counts, settings))
            {
                double started = Seconds(restart);
                while (await node.Client.FindAsync(id) is not { } one || one.Closed <= half)
                    await Task.Delay(20);
                Line(new { restarted_after = half, node_started_seconds = started, next_image_closed_seconds = Seconds(restart) });
                await WatchAsync(node.Client, id, most, one => one.Phase == ArchivePhase.Finished);
            }
        }
        finally
        {
            SqliteConnection.ClearAllPools();
            Directory.Delete(folder, recursive: true);
        }
    }

    // The list of jobs is garbage when the submission is through.
    private static async Task<ArchiveId> SubmitAsync(BbmrClient client, int images)
    {
        await using var run = await client.SubmitAsync(new ArchiveSpec([.. Enumerable.Range(0, images).Select(i => StandIn.Job($"some/folder/image-{i:d7}", 256, 256))]));
        return run.Id;
    }

    private static async Task<int> WatchAsync(BbmrClient client, ArchiveId id, double most, Func<ArchiveOverview, bool> enough)
    {
        long begin = Stopwatch.GetTimestamp(), said = 0;
        int before = -1;
        while (true)
        {
            var one = await client.FindAsync(id);
            if (one is not null)
            {
                bool end = enough(one) || Seconds(begin) > most;
                if (end || said == 0 || Seconds(said) >= 10)
                {
                    double span = said == 0 ? 0 : Seconds(said);
                    Line(new { one.Closed, images_per_second = before < 0 || span == 0 ? null : (double?)Math.Round((one.Closed - before) / span, 1), managed_megabytes = Managed(), remaining_seconds = one.RemainingSeconds });
                    (said, before) = (Stopwatch.GetTimestamp(), one.Closed);
                }
                if (end)
                    return one.Closed;
            }
            await Task.Delay(200);
        }
    }

    private static long Managed() => GC.GetTotalMemory(forceFullCollection: true) / 1_000_000;

    private static double Seconds(long since) => Math.Round(Stopwatch.GetElapsedTime(since).TotalSeconds, 2);

    private static void Line(object what) => Console.WriteLine(JsonSerializer.Serialize(what));
}

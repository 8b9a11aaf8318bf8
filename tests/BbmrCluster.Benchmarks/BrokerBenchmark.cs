using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Akka.Actor;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Hosting;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// Leases per second and utilisation of 16, 64 and 256 workers whose leases take 50 ms: an archive of 8K images (34
/// strips of 60 blocks), journal on. With "kill" the broker dies every five seconds of the measured time.
/// </summary>
internal static class BrokerBenchmark
{
    public static void Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    private static async Task RunAsync(string[] args)
    {
        int[] sizes = args.Length > 0 ? [.. args[0].Split(',').Select(size => int.Parse(size, CultureInfo.InvariantCulture))] : [16, 64, 256];
        double seconds = args.Length > 1 ? double.Parse(args[1], CultureInfo.InvariantCulture) : 20;
        var lease = TimeSpan.FromMilliseconds(args.Length > 2 ? double.Parse(args[2], CultureInfo.InvariantCulture) : 50);
        bool kill = args.Contains("kill", StringComparer.Ordinal);
        // Each device blocks a thread of its own; the pool must not take minutes to grow beside them.
        ThreadPool.SetMinThreads(32, 32);
        foreach (int workers in sizes)
            Console.WriteLine(JsonSerializer.Serialize(await MeasureAsync(workers, seconds, lease, kill)));
    }

    private static async Task<object> MeasureAsync(int workers, double seconds, TimeSpan lease, bool kill)
    {
        string folder = Directory.CreateTempSubdirectory("bbmr-broker-").FullName;
        try
        {
            var counts = new StandInCounts();
            await using var node = await Coordination.StartAsync(folder, workers, lease, counts, new CoordinationSettings { OpenImages = 2 * workers });
            var jobs = Enumerable.Range(0, 2000).Select(i => StandIn.Job($"a{i}", 60 * 128, 34 * 128)).ToList();
            await using var run = await node.Client.SubmitAsync(new ArchiveSpec(jobs));
            await Task.Delay(TimeSpan.FromSeconds(15));

            using var process = Process.GetCurrentProcess();
            var (leases, busy, begin, processor) = (counts.Leases, counts.Busy, Stopwatch.GetTimestamp(), process.TotalProcessorTime);
            int kills = 0;
            while (Stopwatch.GetElapsedTime(begin).TotalSeconds < seconds)
            {
                if (kill && Stopwatch.GetElapsedTime(begin).TotalSeconds > 2.5 + (5 * kills))
                {
                    node.System.ActorSelection("/user/work-broker/work-broker/work-broker").Tell(Kill.Instance);
                    kills++;
                }
                await Task.Delay(100);
            }
            double elapsed = Stopwatch.GetElapsedTime(begin).TotalSeconds;
            process.Refresh();
            return new
            {
                workers,
                lease_ms = lease.TotalMilliseconds,
                seconds = Math.Round(elapsed, 1),
                broker_kills = kills,
                leases_per_second = Math.Round((counts.Leases - leases) / elapsed, 1),
                utilisation = Math.Round((counts.Busy - busy).TotalSeconds / (workers * elapsed), 4),
                processor_cores = Math.Round((process.TotalProcessorTime - processor).TotalSeconds / elapsed, 2),
                managed_megabytes = GC.GetTotalMemory(false) / 1_000_000,
            };
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}

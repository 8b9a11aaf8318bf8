using System.Diagnostics;
using System.Globalization;
using Akka.Actor;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// How many devices coordination can feed: workers whose leases take 50 ms, an archive of 8K images (60 x 34 blocks, 105
/// leases each), the registrations of a cluster's node, journal on. Workers are in the process of the coordinator, where
/// messages are not serialized, or ("--apart") in a process of their own on loopback, where all are.
/// </summary>
internal static class BrokerBenchmark
{
    private const int LeasesOfImage = (3 * 34) + 3, LeasesToBegin = 20;

    public static void Run(string[] args) => RunAsync(args).GetAwaiter().GetResult();

    /// <summary>The other process of "--apart": answers each line on standard input with its counters.</summary>
    public static void RunStandIns(string[] args) => RunStandInsAsync(args).GetAwaiter().GetResult();

    private static async Task RunAsync(string[] args)
    {
        int[] sizes = [16, 64, 256];
        double seconds = 20, warm = 10, lease = 50;
        bool kill = false, apart = false;
        string? server = null;
        for (int i = 0; i < args.Length; i++)
        {
            switch (args[i])
            {
                case "--workers": sizes = [.. Value().Split(',').Select(size => int.Parse(size, CultureInfo.InvariantCulture))]; break;
                case "--seconds": seconds = Number(Value()); break;
                case "--warm": warm = Number(Value()); break;
                case "--lease-ms": lease = Number(Value()); break;
                case "--postgres": server = Value(); break;
                case "--kill": kill = true; break;
                case "--apart": apart = true; break;
                default: throw new ArgumentException($"There is no option {args[i]}.", nameof(args));
            }

            string Value() => ++i < args.Length ? args[i] : throw new ArgumentException($"{args[i - 1]} needs a value.", nameof(args));
        }
        Console.WriteLine($"Leases of {lease:0} ms, {seconds:0} s after {warm:0} s of running in, workers in {(apart ? "a process of their own (loopback)" : "the coordinator's process")}{(kill ? ", the broker killed every 5 s" : "")}.");
        Console.WriteLine();
        Console.WriteLine("| workers | journal | utilisation | leases/s | mean lease ms | CPU us/lease | cores used | entries/s | managed MB |");
        Console.WriteLine("|---|---|---|---|---|---|---|---|---|");
        foreach (int workers in sizes)
            Console.WriteLine(await MeasureAsync(workers, seconds, warm, lease, kill, apart, server));
    }

    private static async Task<string> MeasureAsync(int workers, double seconds, double warm, double lease, bool kill, bool apart, string? server)
    {
        await using var journal = await BenchmarkJournal.CreateAsync(server);
        var here = new StandInCounts();
        var settings = Settings(workers);
        await using var node = await StandInNode.StartAsync(journal, null, apart ? [] : Devices(workers, lease, here), settings);
        using var other = apart ? new OtherProcess("stand-ins", node.Address.ToString(), workers.ToString(CultureInfo.InvariantCulture), lease.ToString(CultureInfo.InvariantCulture)) : null;
        int images = (int)(workers * (seconds + warm + 10) * 1000 / (LeasesOfImage * lease)) + workers;
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec([.. Enumerable.Range(0, images).Select(i => StandIn.Job($"a{i}", 60 * 128, 34 * 128))]));
        // Start and compilation are over when every worker has had some leases.
        while ((await CountAsync()).Leases < LeasesToBegin * workers)
            await Task.Delay(100);
        await Task.Delay(TimeSpan.FromSeconds(warm));

        var before = await CountAsync();
        long entries = await journal.EntriesAsync(), begin = Stopwatch.GetTimestamp();
        for (int kills = 0; Stopwatch.GetElapsedTime(begin).TotalSeconds < seconds;)
        {
            if (kill && Stopwatch.GetElapsedTime(begin).TotalSeconds > 2.5 + (5 * kills))
            {
                node.System.ActorSelection("/user/work-broker/work-broker/work-broker").Tell(Kill.Instance);
                kills++;
            }
            await Task.Delay(50);
        }
        var after = await CountAsync();
        double elapsed = Stopwatch.GetElapsedTime(begin).TotalSeconds;
        entries = await journal.EntriesAsync() - entries;
        double leases = after.Leases - before.Leases, busy = after.Busy - before.Busy, cpu = after.Cpu - before.Cpu;
        return string.Create(CultureInfo.InvariantCulture,
            $"| {workers} | {journal.Kind} | {100 * busy / (workers * elapsed):0.0} % | {leases / elapsed:0} | {1000 * busy / leases:0.0} | {1e6 * cpu / leases:0} | {cpu / elapsed:0.00} | {entries / elapsed:0} | {GC.GetTotalMemory(false) / 1e6:0} |");

        async Task<Counters> CountAsync() => Counters.Here(here) + (other is null ? default : Counters.Parse(await other.AskAsync()));
    }

    private static async Task RunStandInsAsync(string[] args)
    {
        var (seed, workers, lease) = (Address.Parse(args[0]), int.Parse(args[1], CultureInfo.InvariantCulture), Number(args[2]));
        var counts = new StandInCounts();
        await using var node = await StandInNode.StartAsync(null, seed, Devices(workers, lease, counts), Settings(workers));
        while (await Console.In.ReadLineAsync() is not null)
            Console.WriteLine(Counters.Here(counts).ToString());
        // The node that it would take its leave of has gone, or does not matter any more.
        Environment.Exit(0);
    }

    // An 8K image has work for 34 workers at a time, less between its stages.
    private static CoordinationSettings Settings(int workers) => new() { OpenImages = Math.Max(8, workers / 2) };

    private static Func<IStageRunner>[] Devices(int workers, double lease, StandInCounts counts)
    {
        // Each device blocks a thread of its own; the pool must not take minutes to grow beside them.
        ThreadPool.SetMinThreads(32, 32);
        var time = TimeSpan.FromMilliseconds(lease);
        return [.. Enumerable.Repeat<Func<IStageRunner>>(() => new StandIn(_ => time, counts.Add), workers)];
    }

    private static double Number(string value) => double.Parse(value, CultureInfo.InvariantCulture);

    private readonly record struct Counters(double Leases, double Busy, double Cpu)
    {
        public static Counters operator +(Counters one, Counters other) => new(one.Leases + other.Leases, one.Busy + other.Busy, one.Cpu + other.Cpu);

        public static Counters Here(StandInCounts counts) => new(counts.Leases, counts.BusySeconds, Environment.CpuUsage.TotalTime.TotalSeconds);

        public static Counters Parse(string text)
        {
            double[] parts = [.. text.Split(' ').Select(Number)];
            return new Counters(parts[0], parts[1], parts[2]);
        }

        public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Leases} {Busy:r} {Cpu:r}");
    }
}

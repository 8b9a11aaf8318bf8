using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using BbmrCluster.Faults.Harness;

namespace BbmrCluster.Faults;

/// <summary>
/// The long run: <c>dotnet run -c Release --project tests/BbmrCluster.Faults -- --rounds 100 --seed 1</c>. Two thirds of the
/// rounds are with three coordinators and PostgreSQL (<c>--postgres</c> names the folder of its programs), the others with one
/// coordinator and SQLite; <c>--topology three</c> or <c>one</c> takes one of them. <c>--kind RollingRestart</c> has this kind of
/// disturbance alone happen in every round. <c>--pause 30</c> has nodes wait for so many seconds before they count another as
/// unreachable: on a busy machine they are then silent for so long only when something is wrong. What happened goes to stdout; logs of the
/// nodes stay in the folder that <c>--keep</c> names.
/// </summary>
internal static class Program
{
    public static async Task<int> Main(string[] arguments)
    {
        string Value(string name, string otherwise) => Array.IndexOf(arguments, name) is >= 0 and var at && at + 1 < arguments.Length ? arguments[at + 1] : otherwise;
        int rounds = int.Parse(Value("--rounds", "100"), CultureInfo.InvariantCulture), seed = int.Parse(Value("--seed", Random.Shared.Next(1, 100_000).ToString(CultureInfo.InvariantCulture)), CultureInfo.InvariantCulture);
        string topology = Value("--topology", "both"), keep = Path.GetFullPath(Value("--keep", Path.Combine(Path.GetTempPath(), string.Create(CultureInfo.InvariantCulture, $"bbmr-faults-{seed}"))));
        DisturbanceKind? kind = Value("--kind", "") is { Length: > 0 } named ? Enum.Parse<DisturbanceKind>(named, ignoreCase: true) : null;
        int pause = int.Parse(Value("--pause", "6"), CultureInfo.InvariantCulture);
        int three = topology switch { "three" => rounds, "one" => 0, _ => (rounds * 2 / 3) };
        Directory.CreateDirectory(keep);
        if (Directory.EnumerateFileSystemEntries(keep).Any())
        {
            Console.Error.WriteLine($"{keep} is not empty; name another folder with --keep.");
            return 2;
        }
        // The round under way ends, and everything is taken down.
        using var stop = new CancellationTokenSource();
        void Stop(PosixSignalContext context)
        {
            context.Cancel = true;
            stop.Cancel();
        }
        using PosixSignalRegistration interrupted = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop), terminated = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        await using var log = new StreamWriter(Path.Combine(keep, "run.log")) { AutoFlush = true };
        var sync = new Lock();
        void Say(string line)
        {
            lock (sync)
            {
                Console.WriteLine(line);
                log.WriteLine(line);
            }
        }
        Say(string.Create(CultureInfo.InvariantCulture, $"seed {seed}, {rounds} rounds, logs in {keep}"));
        long started = Stopwatch.GetTimestamp();
        var pool = new JobPool(Directory.CreateDirectory(Path.Combine(keep, "pool")).FullName);
        var counts = new SortedDictionary<DisturbanceKind, int>();
        int ran = 0, failed = 0, janitor = 0;
        foreach ((RigShape wanted, int share) in new[] { (new RigShape(3, 2, true, true, true, pause), three), (new RigShape(1, 2, true, true, false, pause), rounds - three) })
        {
            for (int done = 0, attempt = 0; done < share && !stop.IsCancellationRequested; attempt++)
            {
                RigShape shape = wanted.Possible();
                Say($"=== {shape}");
                Say(TestNetwork.WhyNot ?? TestDisk.WhyNot ?? "nothing is left out");
                string folder = Directory.CreateDirectory(Path.Combine(keep, string.Create(CultureInfo.InvariantCulture, $"rig-{shape.Coordinators}-{attempt}"))).FullName;
                await using Rig rig = await Rig.StartAsync(shape, folder, pool.Models, Say);
                var run = new FaultRounds(rig, pool, unchecked(seed + (1000 * attempt) + shape.Coordinators));
                bool good = true;
                while (good && done < share && !stop.IsCancellationRequested)
                {
                    done++;
                    ran++;
                    try
                    {
                        await (kind is { } only ? run.RunAsync(only) : run.RunAsync());
                    }
                    catch (Exception error) when (error is not OutOfMemoryException)
                    {
                        // A cluster that failed is taken down with its logs kept, and the run goes on with a new one.
                        good = false;
                        failed++;
                        Say($"FAILED (seed {seed}): {(error is FaultException ? error.Message : error)}");
                        Say(await run.LogsAsync(60));
                    }
                }
                janitor += run.Janitor;
                foreach ((DisturbanceKind happened, int count) in run.Counts)
                    counts[happened] = counts.GetValueOrDefault(happened) + count;
            }
        }
        Say(string.Create(CultureInfo.InvariantCulture, $"seed {seed}: {ran} rounds, {failed} failed, {janitor} files left for the janitor, {Stopwatch.GetElapsedTime(started).TotalMinutes:0.0} minutes"));
        Say(string.Join(", ", counts.Select(pair => $"{pair.Key} {pair.Value}")));
        return failed == 0 ? 0 : 1;
    }
}

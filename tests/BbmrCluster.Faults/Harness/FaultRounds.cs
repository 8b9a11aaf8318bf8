using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults.Harness;

/// <summary>
/// Rounds of a rig: a job is submitted, things happen, all is made whole again, and then the job must have ended as if
/// nothing had happened.
/// </summary>
public sealed class FaultRounds(Rig rig, JobPool pool, int seed)
{
    // Only detects what hangs: a round takes seconds.
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(5);

    private readonly Dealer _dealer = new(rig.Shape, new Random(seed));
    private readonly Random _random = new(unchecked(seed * 31));
    private readonly List<string> _jobs = [];
    private readonly HashSet<string> _told = new(StringComparer.Ordinal);
    private int _round;

    /// <summary>How often each kind happened.</summary>
    public SortedDictionary<DisturbanceKind, int> Counts { get; } = [];

    /// <summary>Files that a round left in the store for the janitor.</summary>
    public int Janitor { get; private set; }

    /// <summary>A round with the next disturbances of the deck.</summary>
    public Task RunAsync() => RunAsync(_dealer.Next());

    /// <summary>A round in which this and nothing else happens.</summary>
    public Task RunAsync(DisturbanceKind kind) => RunAsync([_dealer.Deal(kind)]);

    /// <summary>A round with these disturbances.</summary>
    /// <exception cref="FaultException">The system broke a promise.</exception>
    public Task RunAsync(IReadOnlyList<Disturbance> disturbances) => RunAsync(string.Join(", ", disturbances), async job =>
    {
        await Task.WhenAll(disturbances.Select(one => Task.Run(() => Disturber.RunAsync(rig, job, one, alone: disturbances.Count == 1))));
        foreach (Disturbance one in disturbances)
            Counts[one.Kind] = Counts.GetValueOrDefault(one.Kind) + 1;
    }, mayBeSkipped: disturbances.Any(one => one.Kind == DisturbanceKind.JobCancel));

    /// <summary>A round in which something happens to a job while it runs; all is whole again when that ends.</summary>
    /// <param name="what">For the log.</param>
    /// <param name="during">Is told the job's id.</param>
    /// <param name="images">Images of the job; null for some.</param>
    /// <param name="mayBeSkipped">Whether an image that was finished when the job was given up may count as skipped by the next try.</param>
    /// <exception cref="FaultException">The system broke a promise.</exception>
    public async Task RunAsync(string what, Func<string, Task> during, int? images = null, bool mayBeSkipped = false)
    {
        int round = ++_round;
        string kind = images is null ? JobPool.Kinds[_random.Next(JobPool.Kinds.Length)] : "rescale";
        IReadOnlyList<PoolItem> items = pool.Choose(kind, images ?? (2 + _random.Next(5)), failing: _random.Next(4) == 0, _random);
        rig.Say($"--- round {round}: {kind} of {string.Join(' ', items.Select(item => item.Name))}; {what}");
        string inputs = Path.Combine(rig.Folder, string.Create(CultureInfo.InvariantCulture, $"in-{round}")), outputs = Path.Combine(rig.Data, string.Create(CultureInfo.InvariantCulture, $"out-{round}"));
        Directory.CreateDirectory(inputs);
        foreach (PoolItem item in items)
            File.Copy(pool.PathOf(kind, item), Path.Combine(inputs, item.Name));
        int[] ended = [.. rig.Nodes.Select(node => node.Exits.Count)];

        long started = Stopwatch.GetTimestamp();
        string job = await SubmitAsync(kind, inputs, outputs, round);
        await during(job);
        JsonElement status = await FinishedAsync(job);
        rig.Say(string.Create(CultureInfo.InvariantCulture, $"finished after {Stopwatch.GetElapsedTime(started).TotalSeconds:0.0} s: {status.GetProperty("done").GetInt32()} done, {status.GetProperty("failed").GetInt32()} failed"));
        await CheckJobsAsync(job, status, items, mayBeSkipped);
        CheckOutputs(outputs, items, round);
        await NothingLeftAsync();
        await rig.ReadyAsync();
        foreach ((RigNode node, int before) in rig.Nodes.Zip(ended))
        {
            // 1: the database or the disk was away at the start, or the port was not free yet. 143: terminated during its start, or twice.
            if (node.Exits.Skip(before).FirstOrDefault(exit => !exit.Killed && exit.Code is not (0 or 1 or 4 or 143)) is { } odd)
                throw new FaultException($"{node.Name} ended with code {odd.Code}.");
        }
        Directory.Delete(inputs, recursive: true);
        Directory.Delete(outputs, recursive: true);
    }

    /// <summary>What nodes said last and the journal holds of the last job, for a report.</summary>
    public async Task<string> LogsAsync(int lines)
    {
        if (rig.Postgres is not { } postgres || _jobs.Count == 0 || await Rig.GetAsync(rig.Coordinators.First(), $"/v1/jobs/{_jobs[^1]}/images") is not { } images)
            return Logs(lines);
        return Logs(lines) + "\n" + postgres.Entries([_jobs[^1], .. images.GetProperty("items").EnumerateArray().Select(image => image.GetProperty("image").GetString()!)]);
    }

    private string Logs(int lines) => string.Join('\n', rig.Nodes.Select(node => $"=== {node.Name}\n{node.LogTail(lines)}"));

    private async Task<string> SubmitAsync(string kind, string inputs, string outputs, int round)
    {
        object request = kind == "upscale"
            ? new { kind, inputs = new[] { inputs }, output = outputs }
            : new { kind, inputs = new[] { inputs }, output = outputs, scorer = "bicubic", precision = "float32" };
        string key = string.Create(CultureInfo.InvariantCulture, $"round-{round}");
        string job = (await rig.SendAsync(HttpMethod.Post, "/v1/jobs", request, key))!.Value.GetProperty("id").GetString()!;
        _jobs.Add(job);
        return job;
    }

    private async Task<JsonElement> FinishedAsync(string job)
    {
        JsonElement last = default;
        try
        {
            await rig.UntilAsync(async () => (last = await rig.AskAsync("/v1/jobs/" + job)).GetProperty("state").GetString() == "finished", $"job {job} finished", Patience);
        }
        catch (FaultException error)
        {
            throw new FaultException($"{error.Message} {last}", error);
        }
        return last;
    }

    // Every image is counted once, in the right way, and no earlier job is forgotten.
    private async Task CheckJobsAsync(string job, JsonElement status, IReadOnlyList<PoolItem> items, bool mayBeSkipped)
    {
        int good = items.Count(item => item.Hashes is not null);
        var counts = (Images: status.GetProperty("images").GetInt32(), Done: status.GetProperty("done").GetInt32(), Skipped: status.GetProperty("skipped").GetInt32(), Failed: status.GetProperty("failed").GetInt32());
        JsonElement listed = (await rig.AskAsync($"/v1/jobs/{job}/images")).GetProperty("items");
        int skipped = mayBeSkipped ? counts.Skipped : 0;
        if (counts != (items.Count, good - skipped, skipped, items.Count - good))
            throw new FaultException($"{good} of {items.Count} images are good, and the job says {counts}: {listed}");
        foreach (JsonElement image in listed.EnumerateArray())
        {
            PoolItem item = items.Single(item => image.GetProperty("input").GetString()!.EndsWith("/" + item.Name, StringComparison.Ordinal));
            string state = image.GetProperty("state").GetString()!;
            if (state != (item.Hashes is null ? "failed" : "done") && !(mayBeSkipped && state == "skipped"))
                throw new FaultException($"{item.Name}: {image}");
        }
        Dictionary<string, string> all = (await rig.AskAsync("/v1/jobs?count=1000")).GetProperty("items").EnumerateArray()
            .ToDictionary(one => one.GetProperty("id").GetString()!, one => one.GetProperty("state").GetString()!, StringComparer.Ordinal);
        if (_jobs.Find(known => all.GetValueOrDefault(known) != "finished") is { } lost)
            throw new FaultException($"Job {lost} of an earlier round is {all.GetValueOrDefault(lost) ?? "forgotten"}.");
    }

    // Exactly the files of an undisturbed run, with its bytes; containers verify.
    private void CheckOutputs(string outputs, IReadOnlyList<PoolItem> items, int round)
    {
        string report = ".report.json";
        var expected = new SortedDictionary<string, string?>(StringComparer.Ordinal);
        foreach (PoolItem item in items.Where(item => item.Hashes is not null))
        {
            foreach ((string name, string hash) in item.Hashes!)
                expected[name] = hash;
            expected[Path.GetFileNameWithoutExtension(item.Name) + (Path.GetExtension(item.Name) == ".bbmr" ? ".upscale" : "") + report] = null;
        }
        string[] there = [.. Directory.EnumerateFileSystemEntries(outputs, "*", SearchOption.AllDirectories).Select(file => Path.GetRelativePath(outputs, file)).Order(StringComparer.Ordinal)];
        if (!there.SequenceEqual(expected.Keys, StringComparer.Ordinal))
            throw new FaultException($"Outputs: missing {string.Join(' ', expected.Keys.Except(there, StringComparer.Ordinal))}; too many {string.Join(' ', there.Except(expected.Keys, StringComparer.Ordinal))}.");
        foreach ((string name, string? hash) in expected)
        {
            if (hash is not null && UndisturbedRun.HashOf(Path.Combine(outputs, name)) != hash)
                throw new FaultException($"{name} differs from an undisturbed run.");
            if (hash is null)
                CheckReport(Path.Combine(outputs, name));
        }
        string[] containers = [.. there.Where(name => name.EndsWith(".bbmr", StringComparison.Ordinal))];
        if (containers.Length == 0)
            return;
        BbmrResult verified = Bbmr.Run(outputs, pool.Models, ["verify", "--json", .. containers]);
        if (verified.ExitCode != 0)
            throw new FaultException($"bbmr verify of round {round}: {verified}");
    }

    // A report tells the truth about the files beside it.
    private static void CheckReport(string path)
    {
        using JsonDocument report = JsonDocument.Parse(File.ReadAllText(path));
        foreach (JsonElement output in report.RootElement.GetProperty("outputs").EnumerateArray())
        {
            string file = Path.Combine(Path.GetDirectoryName(path)!, output.GetProperty("name").GetString()!);
            if (UndisturbedRun.HashOf(file) != output.GetProperty("sha256").GetString())
                throw new FaultException($"{Path.GetFileName(path)} does not tell the hash of {Path.GetFileName(file)}.");
        }
    }

    // Blobs go a moment after the job has ended. What a frozen worker wrote when it woke, or a coordinator that was killed had
    // no time to delete, is the janitor's, which believes so after a minute here.
    private async Task NothingLeftAsync()
    {
        string[] left = [];
        try
        {
            for (int i = 0; i < 100 && Litter().Any(); i++)
                await Task.Delay(100);
            foreach (string file in Litter().Where(file => file.StartsWith(rig.Store + "/", StringComparison.Ordinal)))
            {
                Janitor++;
                rig.Say("left for the janitor: " + Path.GetRelativePath(rig.Store, file));
            }
            await rig.UntilAsync(() =>
            {
                left = [.. Litter()];
                return Task.FromResult(left.Length == 0);
            }, "nothing left in store and work folders");
        }
        catch (FaultException error)
        {
            // Told once: later rounds are not to blame for it.
            _told.UnionWith(left);
            throw new FaultException($"{error.Message} {string.Join(' ', left)}", error);
        }
    }

    private IEnumerable<string> Litter() =>
        new[] { rig.Store }.Concat(rig.Nodes.SelectMany(node => new[] { "tmp", "blobs" }.Select(name => Path.Combine(rig.Folder, "work-" + node.Name, name))))
            .Where(Directory.Exists).SelectMany(folder => Directory.EnumerateFiles(folder, "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.None, IgnoreInaccessible = true }))
            // A health check at work.
            .Where(file => !Path.GetFileName(file).StartsWith(".ready-", StringComparison.Ordinal) && !_told.Contains(file));
}

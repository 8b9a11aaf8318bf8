using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Text.Json;

namespace BbmrCluster.Faults.Harness;

/// <summary>What a rig consists of.</summary>
/// <param name="Coordinators">1 (with SQLite) or 3 (with PostgreSQL); each serves the API.</param>
/// <param name="Workers">Workers.</param>
/// <param name="Network">A network that can be cut; else all nodes are on loopback.</param>
/// <param name="Disk">Store and outputs on a disk that can be filled.</param>
/// <param name="Postgres">Journal in a PostgreSQL server of its own.</param>
/// <param name="HeartbeatPause">Seconds that nodes may be silent before the others count them as unreachable.</param>
public sealed record RigShape(int Coordinators, int Workers, bool Network, bool Disk, bool Postgres, int HeartbeatPause = 6)
{
    /// <summary>Whether a node is silent for so long only when something is wrong with it, and not because the machine is busy.</summary>
    public bool IsPatient => HeartbeatPause >= 20;

    /// <summary>As much of it as the machine allows.</summary>
    public RigShape Possible() => this with { Network = Network && TestNetwork.WhyNot is null, Disk = Disk && TestDisk.WhyNot is null };

    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{Coordinators} coordinator{(Coordinators == 1 ? "" : "s")}, {Workers} workers, journal in {(Postgres ? "PostgreSQL" : "SQLite")}, {(Network ? "a network to cut" : "loopback")}, {(Disk ? "a disk to fill" : "a large disk")}");
}

/// <summary>
/// A cluster of real processes with its database, network and disk, and a supervisor that starts again what ended. Unless told
/// otherwise nodes are impatient with each other (6 s of silence, 3 s until removal), so that rounds are short.
/// </summary>
public sealed class Rig : IAsyncDisposable
{
    private const int NodePort = 4053, HttpPort = 8080, StableAfter = 3;

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(4);

    private readonly Dictionary<string, RigNode> _nodes = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> _addresses = new(StringComparer.Ordinal);
    private readonly IReadOnlyDictionary<string, string> _environment;
    private readonly Action<string> _say;
    private readonly long _started = Stopwatch.GetTimestamp();

    private Rig(RigShape shape, string folder, IReadOnlyDictionary<string, string> environment, Action<string> say)
    {
        (Shape, Folder, _environment, _say) = (shape, folder, environment, say);
        Directory.CreateDirectory(Path.Combine(folder, "logs"));
    }

    public RigShape Shape { get; }

    /// <summary>How long it takes at most until a silent node is removed.</summary>
    public TimeSpan RemovalTime => TimeSpan.FromSeconds(Shape.HeartbeatPause + StableAfter + 4);

    /// <summary>Everything of the rig lies below.</summary>
    public string Folder { get; }

    public PrivatePostgres? Postgres { get; private set; }

    public TestNetwork? Network { get; private set; }

    public TestDisk? Disk { get; private set; }

    public string Store => Path.Combine(Data, "store");

    /// <summary>Outputs of jobs go below; on the small disk where there is one.</summary>
    public string Data => Disk?.Path ?? Folder;

    public IReadOnlyCollection<RigNode> Nodes => _nodes.Values;

    public IEnumerable<RigNode> Coordinators => _nodes.Values.Where(node => node.IsCoordinator);

    public IEnumerable<RigNode> Workers => _nodes.Values.Where(node => !node.IsCoordinator);

    public RigNode this[string name] => _nodes[name];

    /// <summary>Starts everything and waits until all nodes have joined.</summary>
    /// <param name="shape">What to start.</param>
    /// <param name="folder">An existing empty folder.</param>
    /// <param name="environment">For all nodes, e.g. where weights are.</param>
    /// <param name="say">Takes lines of the disturbance log.</param>
    public static async Task<Rig> StartAsync(RigShape shape, string folder, IReadOnlyDictionary<string, string> environment, Action<string> say)
    {
        var rig = new Rig(shape, folder, environment, say);
        try
        {
            rig.Start();
            await rig.ReadyAsync();
            return rig;
        }
        catch
        {
            await rig.DisposeAsync();
            throw;
        }
    }

    /// <summary>One line of the log of what was done and what happened, with the seconds since the start.</summary>
    public void Say(string what) => _say(string.Create(CultureInfo.InvariantCulture, $"[{Stopwatch.GetElapsedTime(_started).TotalSeconds,7:0.0}] {what}"));

    /// <summary>Waits until every node is a member and nobody else, and all workers take work.</summary>
    public Task ReadyAsync() => UntilAsync(async () =>
    {
        foreach (RigNode coordinator in Coordinators)
        {
            IReadOnlyList<RigMember> members = await MembersAsync(coordinator);
            if (members.Count != _nodes.Count || members.Any(member => member.State != "up") || Workers.Any(worker => members.All(member => member.Name != worker.Name || member.Worker != "active")))
                return false;
        }
        return true;
    }, "all nodes up, all workers active");

    /// <summary>Members as a node tells them; empty while it does not answer.</summary>
    public async Task<IReadOnlyList<RigMember>> MembersAsync(RigNode node) => await GetAsync(node, "/v1/nodes") is { } nodes
        ? [.. nodes.GetProperty("items").EnumerateArray().Select(one => new RigMember(one.GetProperty("address").GetString()!, one.GetProperty("name").GetString(), one.GetProperty("state").GetString()!, one.GetProperty("worker").GetString()))]
        : [];

    /// <summary>Whether some node still has this one as a member.</summary>
    public async Task<bool> IsMemberAsync(RigNode node, RigNode according) =>
        await MembersAsync(according) is var members && (members.Count == 0 || members.Any(member => member.Address.EndsWith("@" + AddressOf(node), StringComparison.Ordinal)));

    /// <summary>What a node answers; null while it does not.</summary>
    public static async Task<JsonElement?> GetAsync(RigNode node, string path)
    {
        try
        {
            using HttpResponseMessage answer = await node.Http.GetAsync(new Uri(path, UriKind.Relative));
            return answer.IsSuccessStatusCode ? await answer.Content.ReadFromJsonAsync<JsonElement>() : null;
        }
        catch (Exception error) when (error is HttpRequestException or TaskCanceledException or JsonException or IOException or InvalidOperationException)
        {
            return null;
        }
    }

    /// <summary>Asks the coordinators in turn until one answers.</summary>
    public async Task<JsonElement> AskAsync(string path)
    {
        JsonElement? answer = null;
        await UntilAsync(async () =>
        {
            foreach (RigNode node in Coordinators)
            {
                if ((answer = await GetAsync(node, path)) is not null)
                    return true;
            }
            return false;
        }, "an answer to " + path);
        return answer!.Value;
    }

    /// <summary>Sends a request to the coordinators in turn until one accepts it; a refusal fails the round. An order that comes too late is no refusal where it <paramref name="mayConflict"/>.</summary>
    public async Task<JsonElement?> SendAsync(HttpMethod method, string path, object? body = null, string? key = null, bool mayConflict = false)
    {
        JsonElement? accepted = null;
        await UntilAsync(async () =>
        {
            foreach (RigNode node in Coordinators)
            {
                try
                {
                    using var request = new HttpRequestMessage(method, new Uri(path, UriKind.Relative));
                    if (body is not null)
                        request.Content = JsonContent.Create(body);
                    if (key is not null)
                        request.Headers.Add("Idempotency-Key", key);
                    using HttpResponseMessage answer = await node.Http.SendAsync(request);
                    string text = await answer.Content.ReadAsStringAsync();
                    if (answer.IsSuccessStatusCode)
                    {
                        accepted = text.Length == 0 ? null : JsonDocument.Parse(text).RootElement;
                        return true;
                    }
                    if ((int)answer.StatusCode == 409 && mayConflict)
                        return true;
                    if ((int)answer.StatusCode is 400 or 409 or 422)
                        throw new FaultException($"{method} {path} was refused by {node.Name}: {text}");
                }
                catch (Exception error) when (error is HttpRequestException or TaskCanceledException or IOException or InvalidOperationException and not FaultException)
                {
                    // Dead, frozen or cut off: the next one.
                }
            }
            return false;
        }, $"{method} {path} accepted");
        return accepted;
    }

    /// <summary>Waits for a condition; one that never comes is a finding.</summary>
    public async Task UntilAsync(Func<Task<bool>> condition, string what, TimeSpan? patience = null)
    {
        long start = Stopwatch.GetTimestamp();
        while (!await condition())
        {
            if (Stopwatch.GetElapsedTime(start) > (patience ?? Patience))
                throw new FaultException($"Not reached in time: {what}.");
            await Task.Delay(200);
        }
    }

    /// <summary>Host and port under which other nodes know a node.</summary>
    public string AddressOf(RigNode node) => _addresses[node.Name];

    public async ValueTask DisposeAsync()
    {
        Network?.Heal();
        foreach (RigNode node in _nodes.Values)
            node.Hold();
        await Task.WhenAll(_nodes.Values.Select(node => node.DisposeAsync().AsTask()));
        Postgres?.Dispose();
        Network?.Dispose();
        Disk?.Dispose();
    }

    private void Start()
    {
        string[] coordinators = [.. Enumerable.Range(0, Shape.Coordinators).Select(i => $"c{i}")], workers = [.. Enumerable.Range(0, Shape.Workers).Select(i => $"w{i}")];
        if (Shape.Postgres)
            Postgres = PrivatePostgres.Start();
        if (Shape.Disk)
            Disk = new TestDisk(Folder);
        if (Shape.Network)
            Network = new TestNetwork([.. coordinators, .. workers]);
        foreach (string name in (string[])[.. coordinators, .. workers])
            _addresses[name] = Network is { } network ? $"{network.AddressOf(name)}:{NodePort}" : string.Create(CultureInfo.InvariantCulture, $"127.0.0.1:{LoopbackCluster.FreePort()}");
        string seeds = string.Join(',', coordinators.Select(name => _addresses[name]));
        foreach (string name in coordinators)
            Add(name, "coordinator,api", seeds);
        foreach (string name in workers)
            Add(name, "worker", seeds);
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);

    private void Add(string name, string roles, string seeds)
    {
        string host = _addresses[name].Split(':')[0], port = _addresses[name].Split(':')[1];
        int http = Network is null ? LoopbackCluster.FreePort() : HttpPort;
        string[] node =
        [
            Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet", Path.Combine(AppContext.BaseDirectory, "bbmr.dll"), "node", "--name", name, "--roles", roles,
            "--host", host, "--port", port, "--http", string.Create(CultureInfo.InvariantCulture, $"{host}:{http}"), "--seed-nodes", seeds, "--insecure",
            "--work", Path.Combine(Folder, "work-" + name), "--store", Store, "--threads", "1",
            "--stable-after-seconds", Text(StableAfter), "--heartbeat-pause-seconds", Text(Shape.HeartbeatPause), "--drain-seconds", "5", "--janitor-minutes", "1", "--orphan-minutes", "1",
        ];
        if (Network is not null)
            node = ["nsenter", "--net=/run/netns/" + Network.NamespaceOf(name), "--", .. node];
        _nodes[name] = new RigNode(name, roles, new HostPortOf(host, http), Network?.NamespaceOf(name), Path.Combine(Folder, "logs", name + ".log"), Say, () =>
        {
            var start = new ProcessStartInfo(node[0], node[1..]) { UseShellExecute = false, WorkingDirectory = Folder, RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
            foreach ((string key, string value) in _environment)
                start.Environment[key] = value;
            if (Postgres is not null && roles.Contains("coordinator", StringComparison.Ordinal))
                start.Environment["BBMR_JOURNAL"] = Postgres.Connection;
            return start;
        });
    }
}

/// <summary>A member of the cluster as a node tells it.</summary>
public sealed record RigMember(string Address, string? Name, string State, string? Worker);

/// <summary>A finding: the system did not do what it promises.</summary>
public sealed class FaultException(string message, Exception? inner = null) : InvalidOperationException(message, inner);

using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults;

/// <summary>
/// A small cluster of real processes on loopback: a coordinator that also serves the API, and a worker, with one store.
/// Only as patient with silent nodes as a machine that is busy with other tests demands.
/// </summary>
public sealed class LoopbackCluster : IAsyncLifetime, IDisposable
{
    private readonly ScratchFolder _scratch = new();
    private readonly Dictionary<string, Bbmr> _nodes = new(StringComparer.Ordinal);
    private readonly HttpClient _http = new() { Timeout = TimeSpan.FromSeconds(60) };
    private readonly int _port = FreePort(), _httpPort = FreePort();
    private IReadOnlyDictionary<string, string> _models = new Dictionary<string, string>(StringComparer.Ordinal);

    /// <summary>The store of all nodes that are not told another one; null for a folder.</summary>
    public string? Store { get; init; }

    /// <summary>Variables of all nodes.</summary>
    public IReadOnlyDictionary<string, string> NodeEnvironment { get; init; } = new Dictionary<string, string>(StringComparer.Ordinal);

    public string Server => string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{_httpPort}");

    /// <summary>For client commands: where the cluster is.</summary>
    public IReadOnlyDictionary<string, string> ClientEnvironment => new Dictionary<string, string>(_models, StringComparer.Ordinal) { ["BBMR_SERVER"] = Server };

    public IReadOnlyDictionary<string, string> Models => _models;

    public string Folder => _scratch.Path;

    public Bbmr this[string node] => _nodes[node];

    public async Task InitializeAsync()
    {
        _models = TestModels.EnvironmentFor(_scratch["models"]);
        StartCoordinator();
        StartWorker("w1");
        await ReadyAsync(workers: 1);
    }

    public Task DisposeAsync()
    {
        Dispose();
        return Task.CompletedTask;
    }

    public void StartCoordinator() => Start("c", ["--roles", "coordinator,api", "--port", Text(_port), "--http", $"127.0.0.1:{_httpPort}"]);

    public void StartWorker(string name, IReadOnlyDictionary<string, string>? environment = null, params string[] more) =>
        Start(name, ["--roles", "worker", "--port", "0", "--seed-nodes", $"127.0.0.1:{_port}", "--threads", "1", .. more], environment);

    /// <summary>Waits until the API answers and so many workers have joined.</summary>
    public async Task ReadyAsync(int workers)
    {
        await UntilAsync(async () => await MembersAsync() is { } members && members.All(node => node.State == "up") && members.Count(node => node.Roles.Contains("worker")) == workers, $"{workers} workers up");
    }

    /// <summary>Members as the API tells them; empty while it does not answer.</summary>
    public async Task<IReadOnlyList<(string State, string Roles)>> MembersAsync()
    {
        try
        {
            using JsonDocument answer = JsonDocument.Parse(await _http.GetStringAsync($"{Server}/v1/nodes"));
            return [.. answer.RootElement.GetProperty("items").EnumerateArray().Select(node =>
                (node.GetProperty("state").GetString()!, string.Join(',', node.GetProperty("roles").EnumerateArray().Select(role => role.GetString()))))];
        }
        catch (Exception error) when (error is HttpRequestException or TaskCanceledException)
        {
            return [];
        }
    }

    public async Task<JsonElement> GetAsync(string path)
    {
        using JsonDocument answer = JsonDocument.Parse(await _http.GetStringAsync(Server + path));
        return answer.RootElement.Clone();
    }

    public BbmrResult Client(params string[] arguments) => Bbmr.Run(_scratch.Path, ClientEnvironment, arguments);

    /// <summary>Waits for a condition of the cluster; one that never comes fails the test with what the nodes said.</summary>
    public async Task UntilAsync(Func<Task<bool>> condition, string what)
    {
        long until = Environment.TickCount64 + 180_000;
        while (!await condition())
        {
            if (Environment.TickCount64 > until)
                throw new InvalidOperationException($"Not reached: {what}.\n{string.Join('\n', _nodes.Select(node => $"--- {node.Key}\n{node.Value.Error}"))}");
            await Task.Delay(200);
        }
    }

    public void Dispose()
    {
        _http.Dispose();
        foreach (Bbmr node in _nodes.Values)
            node.Dispose();
        _nodes.Clear();
        _scratch.Dispose();
    }

    public static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);

    private void Start(string name, string[] arguments, IReadOnlyDictionary<string, string>? environment = null)
    {
        if (_nodes.Remove(name, out Bbmr? old))
            old.Dispose();
        var all = new Dictionary<string, string>(_models, StringComparer.Ordinal);
        foreach ((string key, string value) in NodeEnvironment.Concat(environment ?? new Dictionary<string, string>(StringComparer.Ordinal)))
            all[key] = value;
        string[] store = arguments.Contains("--store") ? [] : ["--store", Store ?? _scratch["store"]];
        _nodes[name] = Bbmr.Start(_scratch.Path, all,
            ["node", "--name", name, "--work", _scratch["work-" + name], .. store, "--stable-after-seconds", "5", "--heartbeat-pause-seconds", "10", "--json", .. arguments]);
    }
}

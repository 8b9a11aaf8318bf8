using BbmrCluster.Tests;
using Npgsql;

namespace BbmrCluster.Faults;

/// <summary>Three coordinators with one journal in PostgreSQL.</summary>
public sealed class PostgresTests : IAsyncLifetime, IDisposable
{
    private readonly string _name = "bbmr_" + Guid.NewGuid().ToString("n");
    private readonly ScratchFolder _scratch = new();
    private readonly List<Bbmr> _nodes = [];

    private string Journal => new NpgsqlConnectionStringBuilder(Postgres.Server) { Database = _name, Pooling = false }.ConnectionString;

    public Task InitializeAsync() => Postgres.Server is null ? Task.CompletedTask : ExecuteAsync($"CREATE DATABASE {_name}");

    public async Task DisposeAsync()
    {
        Dispose();
        if (Postgres.Server is not null)
            await ExecuteAsync($"DROP DATABASE {_name} WITH (FORCE)");
    }

    public void Dispose()
    {
        foreach (Bbmr node in _nodes)
            node.Dispose();
        _nodes.Clear();
        _scratch.Dispose();
    }

    [PostgresFact]
    public void Tables_are_made_by_command_or_at_start_as_configured()
    {
        BbmrResult refused = Bbmr.Run(_scratch.Path, Settings(("BBMR_CREATE_SCHEMA", "false")), "node", "--roles", "coordinator", "--port", "0");
        Assert.Equal(1, refused.ExitCode);
        Assert.Matches(@"^bbmr: the database bbmr_\w+ on \S+ has no tables for the journal; [^\n]+\n$", refused.Error);
        Assert.Contains("are made", Bbmr.Run(_scratch.Path, Settings(), "node", "--create-schema").Output, StringComparison.Ordinal);
        Assert.Contains("were there already", Bbmr.Run(_scratch.Path, Settings(), "node", "--create-schema").Output, StringComparison.Ordinal);
    }

    [PostgresFact]
    public async Task Two_of_three_coordinators_go_on_when_the_third_is_killed()
    {
        IReadOnlyDictionary<string, string> models = TestModels.EnvironmentFor(_scratch["models"]);
        int[] ports = [LoopbackCluster.FreePort(), LoopbackCluster.FreePort(), LoopbackCluster.FreePort()];
        int http = LoopbackCluster.FreePort();
        string seeds = string.Join(',', ports.Select(port => $"127.0.0.1:{port}"));
        for (int i = 0; i < 3; i++)
            Start($"c{i}", "--roles", i == 0 ? "coordinator" : "coordinator,api", "--port", $"{ports[i]}", "--http", i == 1 ? $"127.0.0.1:{http}" : "127.0.0.1:0");
        Start("w", "--roles", "worker", "--port", "0", "--threads", "1");
        var client = new Dictionary<string, string>(StringComparer.Ordinal) { ["BBMR_SERVER"] = $"http://127.0.0.1:{http}" };
        await UntilAsync(() => Members(client) == 4);

        for (int i = 0; i < 4; i++)
            Pictures.Write(_scratch["in", $"{i}.png"], 256, 250 + i);
        BbmrResult submitted = Bbmr.Run(_scratch.Path, client, "submit", "in", "-o", "out", "--scorer", "bicubic", "--json");
        Assert.True(submitted.ExitCode == 0, submitted.ToString());
        string job = submitted.Lines[0].GetProperty("id").GetString()!;
        _nodes[0].Signal("KILL");
        await UntilAsync(() => Bbmr.Run(_scratch.Path, client, "status", job, "--json") is { ExitCode: 0 } status && status.Lines[0].GetProperty("state").GetString() == "finished");
        Assert.Equal(4, Bbmr.Run(_scratch.Path, client, "status", job, "--json").Lines[0].GetProperty("done").GetInt32());
        await UntilAsync(() => Members(client) == 3);

        void Start(string name, params string[] arguments) => _nodes.Add(Bbmr.Start(_scratch.Path, Settings([.. models.Select(pair => (pair.Key, pair.Value))]),
            ["node", "--name", name, "--work", _scratch["work-" + name], "--store", _scratch["store"], "--seed-nodes", seeds, "--stable-after-seconds", "5", "--heartbeat-pause-seconds", "10", .. arguments]));
    }

    private int Members(IReadOnlyDictionary<string, string> client) =>
        Bbmr.Run(_scratch.Path, client, "nodes", "--json") is { ExitCode: 0 } nodes ? nodes.Lines.Count(node => node.GetProperty("state").GetString() == "up") : 0;

    private async Task UntilAsync(Func<bool> condition)
    {
        long until = Environment.TickCount64 + 180_000;
        while (!condition())
        {
            Assert.True(Environment.TickCount64 < until, string.Join('\n', _nodes.Select(node => node.Error)));
            await Task.Delay(500);
        }
    }

    private Dictionary<string, string> Settings(params (string Key, string Value)[] more)
    {
        var settings = new Dictionary<string, string>(StringComparer.Ordinal) { ["BBMR_JOURNAL"] = Journal };
        foreach ((string key, string value) in more)
            settings[key] = value;
        return settings;
    }

    private static async Task ExecuteAsync(string statement)
    {
        await using var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(Postgres.Server) { Pooling = false }.ConnectionString);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(statement, connection);
        await command.ExecuteNonQueryAsync();
    }
}

using BbmrCluster.Actors.Journal;
using BbmrCluster.Tests;
using Npgsql;

namespace BbmrCluster.Faults;

/// <summary>Tables of the journal in PostgreSQL.</summary>
public sealed class PostgresTests : IAsyncLifetime, IDisposable
{
    private readonly string _name = "bbmr_" + Guid.NewGuid().ToString("n");
    private readonly ScratchFolder _scratch = new();

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
    public async Task The_lock_under_which_tables_are_made_is_given_up_although_connections_are_kept()
    {
        Assert.True(await PostgresJournal.CreateSchemaAsync(new NpgsqlConnectionStringBuilder(Journal) { Pooling = true }.ConnectionString, create: true, CancellationToken.None));
        // A session that a pool keeps would keep it for minutes, and another node that starts would wait for that.
        long until = Environment.TickCount64 + 60_000;
        while (await ExecuteAsync($"SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database WHERE locktype = 'advisory' AND datname = '{_name}'") is not 0L)
        {
            Assert.True(Environment.TickCount64 < until, "the lock is still held");
            await Task.Delay(100);
        }
    }

    private Dictionary<string, string> Settings(params (string Key, string Value)[] more)
    {
        var settings = new Dictionary<string, string>(StringComparer.Ordinal) { ["BBMR_JOURNAL"] = Journal };
        foreach ((string key, string value) in more)
            settings[key] = value;
        return settings;
    }

    private static async Task<object?> ExecuteAsync(string statement)
    {
        await using var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(Postgres.Server) { Pooling = false }.ConnectionString);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(statement, connection);
        return await command.ExecuteScalarAsync();
    }
}

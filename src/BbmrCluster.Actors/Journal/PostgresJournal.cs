using Akka.Actor;
using Akka.Configuration;
using Akka.Persistence;
using Akka.Persistence.Sql;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;
using Npgsql;

namespace BbmrCluster.Actors.Journal;

/// <summary>The journal of a cluster.</summary>
public static class PostgresJournal
{
    // One node at a time makes the tables, however many start at once.
    private const long SchemaLock = 0x62626d72;

    private static readonly string[] Tables = ["journal", "tags", "snapshot"];

    /// <summary>Checks that the database is there and has the tables; makes them when it may.</summary>
    /// <param name="connection">Connection string.</param>
    /// <param name="create">Make missing tables.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <returns>Whether tables were made.</returns>
    /// <exception cref="WorkDirectoryException">The database cannot be used: one sentence.</exception>
    public static async Task<bool> CreateSchemaAsync(string connection, bool create, CancellationToken cancellation)
    {
        var where = new NpgsqlConnectionStringBuilder(connection);
        // Without a pool: a session that goes back to it keeps its lock, and the other nodes would wait for that.
        string session = new NpgsqlConnectionStringBuilder(connection) { Pooling = false }.ConnectionString;
        try
        {
            await using var opened = new NpgsqlConnection(session);
            await opened.OpenAsync(cancellation);
            if (await HasTablesAsync(opened, cancellation))
                return false;
            if (!create)
                throw new WorkDirectoryException($"the database {where.Database} on {where.Host} has no tables for the journal; make them once with 'bbmr node --create-schema', or set create_schema to true");
            await ExecuteAsync(opened, $"SELECT pg_advisory_lock({SchemaLock})", cancellation);
            if (await HasTablesAsync(opened, cancellation))
                return false;
            await InitializeAsync(connection);
            return await HasTablesAsync(opened, cancellation) ? true
                : throw new WorkDirectoryException($"the tables of the journal could not be made in the database {where.Database} on {where.Host}; may {where.Username ?? "the user"} create tables there?");
        }
        catch (Exception error) when (error is NpgsqlException or System.Net.Sockets.SocketException or TimeoutException)
        {
            throw new WorkDirectoryException($"the database {where.Database} on {where.Host} cannot be used: {error.Message}", error);
        }
    }

    /// <summary>Whether the database answers.</summary>
    /// <param name="connection">Connection string.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="NpgsqlException">It does not.</exception>
    public static async Task PingAsync(string connection, CancellationToken cancellation)
    {
        await using var opened = new NpgsqlConnection(connection);
        await opened.OpenAsync(cancellation);
        await ExecuteAsync(opened, "SELECT 1", cancellation);
    }

    /// <summary>
    /// Images that have entries, with the time of the latest: at most 1,000, the oldest first. For the janitor: what a process
    /// that died did not delete. Deletes the last entries of images that were deleted an hour ago, which keep their numbers.
    /// </summary>
    /// <param name="connection">Connection string.</param>
    /// <exception cref="NpgsqlException">The database does not answer.</exception>
    public static IReadOnlyList<StoredImage> Images(string connection)
    {
        using var opened = new NpgsqlConnection(connection);
        opened.Open();
        using (var purge = new NpgsqlCommand("DELETE FROM journal WHERE deleted AND persistence_id LIKE 'image-%' AND created < $1", opened))
        {
            purge.Parameters.Add(new NpgsqlParameter { Value = DateTime.UtcNow.AddHours(-1).Ticks });
            purge.ExecuteNonQuery();
        }
        using var command = new NpgsqlCommand("SELECT persistence_id, max(created) FROM journal WHERE persistence_id LIKE 'image-%' AND NOT deleted GROUP BY persistence_id ORDER BY 2 LIMIT 1000", opened);
        using var row = command.ExecuteReader();
        var images = new List<StoredImage>();
        while (row.Read())
            images.Add(SqliteJournal.Image(row.GetString(0), row.GetInt64(1)));
        return images;
    }

    internal static Config Configuration(string connection, bool createSchema)
    {
        string initialize = createSchema ? "on" : "off";
        return ConfigurationFactory.ParseString($$"""
            akka.persistence.journal.sql { connection-string = {{HoconFiles.Quote(connection)}}, auto-initialize = {{initialize}} }
            akka.persistence.snapshot-store.sql { connection-string = {{HoconFiles.Quote(connection)}}, auto-initialize = {{initialize}} }
            """).WithFallback(HoconFiles.Load("persistence.postgres")).WithFallback(SqlPersistence.DefaultConfiguration);
    }

    // The plugin knows its tables: it makes them when it starts with leave to.
    private static async Task InitializeAsync(string connection)
    {
        var config = Configuration(connection, createSchema: true).WithFallback(HoconFiles.Load("dispatchers"));
        using var system = ActorSystem.Create("schema", config);
        var persistence = Persistence.Instance.Apply(system);
        _ = persistence.JournalFor(null);
        _ = persistence.SnapshotStoreFor(null);
        await using var opened = new NpgsqlConnection(connection);
        await opened.OpenAsync();
        for (int i = 0; i < 150 && !await HasTablesAsync(opened, CancellationToken.None); i++)
            await Task.Delay(100);
        await system.Terminate();
    }

    private static async Task<bool> HasTablesAsync(NpgsqlConnection connection, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand("SELECT count(*) FROM information_schema.tables WHERE table_schema = ANY (current_schemas(false)) AND table_name = ANY ($1)", connection);
        command.Parameters.Add(new NpgsqlParameter { Value = Tables });
        return (long)(await command.ExecuteScalarAsync(cancellation))! == Tables.Length;
    }

    private static async Task ExecuteAsync(NpgsqlConnection connection, string statement, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(statement, connection);
        await command.ExecuteNonQueryAsync(cancellation);
    }
}

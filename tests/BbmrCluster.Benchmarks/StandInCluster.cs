using Akka.Actor;
using Akka.Cluster.Hosting;
using Akka.Hosting;
using Akka.Remote.Hosting;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Npgsql;

namespace BbmrCluster.Benchmarks;

/// <summary>Where a benchmark keeps its journal: a SQLite file in a temporary folder, or a PostgreSQL database made for it. Disposing deletes it.</summary>
internal sealed class BenchmarkJournal : IAsyncDisposable
{
    private readonly string? _server;
    private readonly string _name;

    private BenchmarkJournal(string? server, string name) => (_server, _name) = (server, name);

    /// <summary>Names it to another process: <see cref="Of"/>.</summary>
    public string Key => $"{_name}|{_server}";

    public string Kind => _server is null ? "SQLite" : "PostgreSQL";

    private string Path => System.IO.Path.Combine(System.IO.Path.GetTempPath(), _name);

    private string Database => new NpgsqlConnectionStringBuilder(_server) { Database = _name }.ToString();

    /// <param name="server">Connection string of a user who may create databases; null for SQLite.</param>
    public static async Task<BenchmarkJournal> CreateAsync(string? server)
    {
        var journal = new BenchmarkJournal(server, "bbmr-benchmark-" + Guid.NewGuid().ToString("n")[..8]);
        if (server is null)
        {
            Directory.CreateDirectory(journal.Path);
        }
        else
        {
            await ServerAsync(server, $"CREATE DATABASE \"{journal._name}\"");
            await PostgresJournal.CreateSchemaAsync(journal.Database, create: true, CancellationToken.None);
        }
        return journal;
    }

    /// <summary>The journal that another process made. Not to be disposed here.</summary>
    public static BenchmarkJournal Of(string key) => key.Split('|', 2) is [var name, var server] ? new BenchmarkJournal(server is "" ? null : server, name)
        : throw new ArgumentException("That is no key of a journal.", nameof(key));

    public AkkaConfigurationBuilder Configure(AkkaConfigurationBuilder builder) =>
        _server is null ? builder.WithSqliteJournal(System.IO.Path.Combine(Path, "journal.db")) : builder.WithPostgresJournal(Database);

    /// <summary>Entries ever written.</summary>
    public async Task<long> EntriesAsync()
    {
        const string query = "SELECT coalesce(max(ordering), 0) FROM journal";
        if (_server is not null)
        {
            await using var source = new NpgsqlConnection(Database);
            await source.OpenAsync();
            await using var command = new NpgsqlCommand(query, source);
            return (long)(await command.ExecuteScalarAsync())!;
        }
        await using var connection = new SqliteConnection($"Data Source={System.IO.Path.Combine(Path, "journal.db")}");
        await connection.OpenAsync();
        await using var text = connection.CreateCommand();
        text.CommandText = query;
        return (long)(await text.ExecuteScalarAsync())!;
    }

    /// <summary>Bytes on disk.</summary>
    public async Task<long> BytesAsync()
    {
        if (_server is null)
            return new DirectoryInfo(Path).EnumerateFiles().Sum(file => file.Length);
        await using var source = new NpgsqlConnection(Database);
        await source.OpenAsync();
        await using var command = new NpgsqlCommand("SELECT pg_database_size(current_database())", source);
        return (long)(await command.ExecuteScalarAsync())!;
    }

    public async ValueTask DisposeAsync()
    {
        if (_server is null)
        {
            SqliteConnection.ClearAllPools();
            Directory.Delete(Path, recursive: true);
            return;
        }
        NpgsqlConnection.ClearAllPools();
        await ServerAsync(_server, $"DROP DATABASE \"{_name}\" WITH (FORCE)");
    }

    private static async Task ServerAsync(string server, string statement)
    {
        await using var connection = new NpgsqlConnection(server);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(statement, connection);
        await command.ExecuteNonQueryAsync();
    }
}

/// <summary>A node of a cluster with the registrations of the program and stand-ins for devices.</summary>
internal sealed class StandInNode : IAsyncDisposable
{
    private readonly IHost _host;

    private StandInNode(IHost host) => _host = host;

    public BbmrClient Client => _host.Services.GetRequiredService<BbmrClient>();

    public ActorSystem System => _host.Services.GetRequiredService<ActorSystem>();

    public Address Address => Akka.Cluster.Cluster.Get(System).SelfAddress;

    /// <summary>Starts one.</summary>
    /// <param name="journal">Of a coordinator; null for a node of workers alone.</param>
    /// <param name="seed">The node to join; null for the first.</param>
    /// <param name="devices">One worker each.</param>
    /// <param name="settings">How coordinators work.</param>
    public static async Task<StandInNode> StartAsync(BenchmarkJournal? journal, Address? seed, IReadOnlyList<Func<IStageRunner>> devices, CoordinationSettings settings)
    {
        Environment.SetEnvironmentVariable("DOTNET_HOSTBUILDER__RELOADCONFIGONCHANGE", "false");
        settings.Validate();
        var host = new HostBuilder().ConfigureServices(services =>
        {
            services.AddAkka(BbmrHosting.SystemName, (builder, _) =>
            {
                builder.WithBbmrNode(journal is not null, new WorkerId("none"), [], Allocators.Parse, settings)
                    .WithRemoting("127.0.0.1", 0)
                    .WithClustering(new ClusterOptions { Roles = [journal is null ? "worker" : BbmrHosting.CoordinatorRole] })
                    .AddStartup((system, registry) =>
                    {
                        var cluster = Akka.Cluster.Cluster.Get(system);
                        cluster.Join(seed ?? cluster.SelfAddress);
                        for (int i = 0; i < devices.Count; i++)
                        {
                            system.ActorOf(WorkerManager.Props(new WorkerId($"w{i}"), registry.Get<WorkBrokerKey>(), registry.Get<ImageCoordinatorKey>(),
                                [new DeviceSlot("stand-in", devices[i], "stand-in")], settings));
                        }
                    });
                journal?.Configure(builder);
            });
            services.AddBbmrClient(settings);
        }).Build();
        await host.StartAsync();
        return new StandInNode(host);
    }

    public async ValueTask DisposeAsync()
    {
        await _host.StopAsync();
        _host.Dispose();
    }
}

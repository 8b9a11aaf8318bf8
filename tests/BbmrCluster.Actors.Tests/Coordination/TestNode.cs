using System.Collections.Concurrent;
using Akka.Actor;
using Akka.Cluster.Hosting;
using Akka.Event;
using Akka.Hosting;
using Akka.Remote.Hosting;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>A folder with a journal that outlives nodes.</summary>
internal sealed class JournalFolder : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("bbmr-journal-").FullName;

    public string Journal => Path.Combine(_root, "journal.db");

    /// <summary>Journal entries of an image.</summary>
    public long Entries(ImageId image) => Count($"SELECT count(*) FROM journal WHERE persistence_id = 'image-{image}' AND deleted = 0");

    public long Count(string query)
    {
        using var connection = new SqliteConnection($"Data Source={Journal}");
        connection.Open();
        using var command = connection.CreateCommand();
        command.CommandText = query;
        return (long)command.ExecuteScalar()!;
    }

    public void Execute(string statement)
    {
        using var connection = new SqliteConnection($"Data Source={Journal};Pooling=False");
        connection.Open();
        using var command = connection.CreateCommand();
        command.CommandText = statement;
        command.ExecuteNonQuery();
    }

    public void Dispose()
    {
        SqliteConnection.ClearAllPools();
        Directory.Delete(_root, recursive: true);
    }
}

/// <summary>A node with fake devices: the registrations of the program, strict serialization included.</summary>
internal sealed class TestNode : IAsyncDisposable
{
    public static readonly CoordinationSettings Fast = new()
    {
        RetryDelay = TimeSpan.FromMilliseconds(10),
        TickInterval = TimeSpan.FromMilliseconds(50),
        ReminderInterval = TimeSpan.FromMilliseconds(500),
        FullPollInterval = TimeSpan.FromMilliseconds(100),
        CommitInterval = TimeSpan.FromMilliseconds(50),
    };

    private readonly IHost _host;

    private readonly ConcurrentQueue<string> _problems = new();

    private TestNode(IHost host)
    {
        _host = host;
        var collector = System.ActorOf(Props.Create(() => new Collector(_problems)));
        foreach (var kind in new[] { typeof(Warning), typeof(Error), typeof(UnhandledMessage), typeof(DeadLetter) })
            System.EventStream.Subscribe(collector, kind);
    }

    public ActorSystem System => _host.Services.GetRequiredService<ActorSystem>();

    public BbmrClient Client => _host.Services.GetRequiredService<BbmrClient>();

    public IActorRef Images => _host.Services.GetRequiredService<IActorRegistry>().Get<ImageCoordinatorKey>();

    public IActorRef Broker => _host.Services.GetRequiredService<IActorRegistry>().Get<WorkBrokerKey>();

    public static async Task<TestNode> StartAsync(FakeWorld world, JournalFolder folder, int devices = 1, AkkaExecutionMode mode = AkkaExecutionMode.Local, CoordinationSettings? settings = null,
        ActorSystem? joins = null, IImageBlobs? blobs = null)
    {
        Environment.SetEnvironmentVariable("DOTNET_HOSTBUILDER__RELOADCONFIGONCHANGE", "false");
        var used = (settings ?? Fast).Validate();
        var host = new HostBuilder().ConfigureServices(services =>
        {
            services.AddAkka(BbmrHosting.SystemName, (builder, _) =>
            {
                builder.WithBbmrDefaults().WithSqliteJournal(folder.Journal);
                if (mode == AkkaExecutionMode.Clustered)
                {
                    builder.AddHocon(HoconFiles.Load("cluster"), HoconAddMode.Prepend)
                        .WithRemoting("127.0.0.1", 0)
                        .WithClustering(new ClusterOptions { Roles = [joins is null ? BbmrHosting.CoordinatorRole : "worker"] });
                }
                if (joins is not null)
                    builder.WithCoordinatorProxies();
                else
                    builder.WithWorkBroker(mode, used).WithImageCoordinators(mode, Allocators.Parse, used, blobs).WithArchiveIndex(mode).WithArchiveCoordinators(mode, used);
                if (mode == AkkaExecutionMode.Clustered && joins is null && blobs is not null)
                    builder.WithStoreJanitor(blobs, used);
                if (devices > 0)
                    builder.WithWorker(new WorkerId("w"), [.. Enumerable.Range(0, devices).Select(i => new DeviceSlot($"fake-{i}", world.Runner, Blobs: blobs))], used);
                if (mode == AkkaExecutionMode.Clustered)
                {
                    builder.AddStartup((system, _) =>
                    {
                        var cluster = Akka.Cluster.Cluster.Get(system);
                        cluster.Join(joins is null ? cluster.SelfAddress : Akka.Cluster.Cluster.Get(joins).SelfAddress);
                    });
                }
            });
            services.AddBbmrClient(used);
        }).Build();
        await host.StartAsync();
        return new TestNode(host);
    }

    /// <summary>Submits and waits for the end; returns all notifications.</summary>
    public async Task<List<JobNotification>> RunAsync(params ImageJob[] jobs)
    {
        try
        {
            await using var run = await Client.SubmitAsync(new ArchiveSpec(jobs)).WaitAsync(TimeSpan.FromSeconds(120));
            return await Collect(run);
        }
        catch (Exception error) when (error is TimeoutException or OperationCanceledException)
        {
            throw new InvalidOperationException("The archive did not end. What the system logged:\n" + string.Join('\n', _problems), error);
        }
    }

    public static async Task<List<JobNotification>> Collect(ArchiveRun run)
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(120));
        var all = new List<JobNotification>();
        await foreach (var one in run.Notifications.WithCancellation(limit.Token))
            all.Add(one);
        return all;
    }

    public async ValueTask DisposeAsync()
    {
        await _host.StopAsync();
        _host.Dispose();
    }

    private sealed class Collector : ReceiveActor
    {
        public Collector(ConcurrentQueue<string> problems) => ReceiveAny(message => problems.Enqueue(message.ToString()!));
    }
}

internal static class NotificationExtensions
{
    public static ImageOutcome Outcome(this IEnumerable<JobNotification> all, ImageId image) =>
        all.OfType<JobNotification.ImageFinished>().Single(finished => finished.ImageId == image).Outcome;

    public static ArchiveSummary Summary(this IEnumerable<JobNotification> all) => all.OfType<JobNotification.ArchiveFinished>().Single().Summary;
}

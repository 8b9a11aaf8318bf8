using Akka.Actor;
using Akka.Cluster.Hosting;
using Akka.Cluster.Sharding;
using Akka.Configuration;
using Akka.Hosting;
using Akka.Pattern;
using BbmrCluster.Actors.Archives;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Images;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using Microsoft.Extensions.DependencyInjection;

namespace BbmrCluster.Actors.Hosting;

/// <summary>Where coordinators live.</summary>
public enum AkkaExecutionMode
{
    /// <summary>In this process: no port, no membership.</summary>
    Local,

    /// <summary>Sharded over the coordinators of a cluster.</summary>
    Clustered,
}

/// <summary>All that an embedded node needs.</summary>
/// <param name="Journal">SQLite file of the journal; its folder exists.</param>
/// <param name="Devices">At least one.</param>
/// <param name="Allocators">Makes an allocator from its canonical name, e.g. "sse".</param>
/// <param name="Settings">How coordinators work.</param>
/// <param name="Blobs">The store, from which images delete their blobs; null where it is swept otherwise.</param>
public sealed record EmbeddedOptions(
    string Journal, IReadOnlyList<DeviceSlot> Devices, Func<string, IAllocator> Allocators, CoordinationSettings? Settings = null, IImageBlobs? Blobs = null);

/// <summary>Registers actors, journal and serializer. Local and clustered registrations share their keys, so callers never know the mode.</summary>
public static class BbmrHosting
{
    /// <summary>Role of nodes that hold coordinators and the broker.</summary>
    public const string CoordinatorRole = "coordinator";

    /// <summary>Name of the actor system.</summary>
    public const string SystemName = "bbmr";

    /// <summary>An embedded node with its client: provider local, no port, journal in one SQLite file.</summary>
    public static IServiceCollection AddBbmrEmbedded(this IServiceCollection services, EmbeddedOptions options)
    {
        var settings = (options.Settings ?? new CoordinationSettings()).Validate();
        services.AddAkka(SystemName, (builder, _) => builder
            .WithBbmrDefaults()
            .WithSqliteJournal(options.Journal)
            .WithWorkBroker(AkkaExecutionMode.Local, settings)
            .WithImageCoordinators(AkkaExecutionMode.Local, options.Allocators, settings, options.Blobs)
            .WithArchiveCoordinators(AkkaExecutionMode.Local, settings)
            .WithWorker(new WorkerId("local"), options.Devices, settings));
        return services.AddBbmrClient(settings);
    }

    /// <summary>The client as a service.</summary>
    public static IServiceCollection AddBbmrClient(this IServiceCollection services, CoordinationSettings settings) =>
        services.AddSingleton(provider => new BbmrClient(provider.GetRequiredService<ActorSystem>(), provider.GetRequiredService<IActorRegistry>(), settings));

    /// <summary>Dispatchers, serializer (strict: unregistered types do not travel) and logging for every mode.</summary>
    public static AkkaConfigurationBuilder WithBbmrDefaults(this AkkaConfigurationBuilder builder) => builder
        .AddHocon(HoconFiles.Load("dispatchers"), HoconAddMode.Prepend)
        .WithStrictSerialization()
        // Through the host's logging; the loggers that Akka brings write to stdout, which belongs to results.
        .ConfigureLoggers(loggers =>
        {
            loggers.ClearLoggers();
            loggers.AddLoggerFactory();
        })
        .WithCustomSerializer("bbmr", [typeof(IWireMessage)], system => new ProtocolSerializer(system));

    /// <summary>Journal in one SQLite file (write-ahead log, one writer) on a local disk, used by one process at a time.</summary>
    /// <param name="builder">The builder.</param>
    /// <param name="path">The file; made when it is not there.</param>
    public static AkkaConfigurationBuilder WithSqliteJournal(this AkkaConfigurationBuilder builder, string path)
    {
        string connection = SqliteJournal.Prepare(path);
        return builder.AddHocon(
            ConfigurationFactory.ParseString($"akka.persistence.journal.sqlite.connection-string = {HoconFiles.Quote(connection)}")
                .WithFallback(HoconFiles.Load("persistence.sqlite")), HoconAddMode.Prepend);
    }

    /// <summary>Journal and snapshots in a PostgreSQL database, shared by all coordinators. The tables are there already: <see cref="PostgresJournal.CreateSchemaAsync"/>.</summary>
    /// <param name="builder">The builder.</param>
    /// <param name="connection">Connection string.</param>
    public static AkkaConfigurationBuilder WithPostgresJournal(this AkkaConfigurationBuilder builder, string connection) =>
        builder.AddHocon(PostgresJournal.Configuration(connection, createSchema: false), HoconAddMode.Prepend);

    /// <summary>
    /// What a node of a cluster holds by its roles: coordinators, broker and directory, or the ways to them; and devices.
    /// Remoting, clustering and (for coordinators) the journal are configured besides.
    /// </summary>
    /// <param name="builder">The builder.</param>
    /// <param name="coordinator">Whether the node has the role <see cref="CoordinatorRole"/>.</param>
    /// <param name="worker">Name of its worker.</param>
    /// <param name="devices">Its devices; empty when it is no worker.</param>
    /// <param name="allocators">Makes an allocator from its canonical name.</param>
    /// <param name="settings">How coordinators work; the same on every node.</param>
    /// <param name="blobs">The store; null where it is swept otherwise.</param>
    public static AkkaConfigurationBuilder WithBbmrNode(this AkkaConfigurationBuilder builder, bool coordinator, WorkerId worker, IReadOnlyList<DeviceSlot> devices,
        Func<string, IAllocator> allocators, CoordinationSettings settings, IImageBlobs? blobs = null)
    {
        builder.WithBbmrDefaults().AddHocon(HoconFiles.Load("cluster"), HoconAddMode.Prepend);
        if (coordinator)
        {
            builder.WithWorkBroker(AkkaExecutionMode.Clustered, settings)
                .WithImageCoordinators(AkkaExecutionMode.Clustered, allocators, settings, blobs)
                .WithArchiveIndex(AkkaExecutionMode.Clustered)
                .WithArchiveCoordinators(AkkaExecutionMode.Clustered, settings);
            if (blobs is not null && settings.JanitorInterval > TimeSpan.Zero)
                builder.WithStoreJanitor(blobs, settings);
        }
        else
        {
            builder.WithCoordinatorProxies();
        }
        return devices.Count == 0 ? builder : builder.WithWorker(worker, devices, settings);
    }

    /// <summary>The work broker: a plain actor, or a cluster singleton with its proxy.</summary>
    public static AkkaConfigurationBuilder WithWorkBroker(this AkkaConfigurationBuilder builder, AkkaExecutionMode mode, CoordinationSettings settings) =>
        builder.WithOne<WorkBrokerKey>("work-broker", mode, WorkBroker.Props(settings));

    /// <summary>The coordinators of images. Needs the broker.</summary>
    /// <param name="builder">The builder.</param>
    /// <param name="mode">Children of one parent, or shards.</param>
    /// <param name="allocators">Makes an allocator from its canonical name.</param>
    /// <param name="settings">How they work.</param>
    /// <param name="blobs">The store; null where it is swept otherwise.</param>
    public static AkkaConfigurationBuilder WithImageCoordinators(this AkkaConfigurationBuilder builder, AkkaExecutionMode mode, Func<string, IAllocator> allocators,
        CoordinationSettings settings, IImageBlobs? blobs = null) =>
        builder.WithEntities<ImageCoordinatorKey>("image-coordinator", mode, remember: false,
            registry => id => ImageCoordinator.Props(new ImageId(id), registry.Get<WorkBrokerKey>(), allocators, settings, blobs));

    /// <summary>The read model of archives: a plain actor, or a cluster singleton with its proxy. An embedded node has none.</summary>
    public static AkkaConfigurationBuilder WithArchiveIndex(this AkkaConfigurationBuilder builder, AkkaExecutionMode mode) =>
        builder.WithOne<ArchiveIndexKey>("archive-index", mode, ArchiveIndex.Props());

    /// <summary>The coordinators of archives; in a cluster they are remembered and go on by themselves. Needs the image coordinators, and the read model where there is one.</summary>
    public static AkkaConfigurationBuilder WithArchiveCoordinators(this AkkaConfigurationBuilder builder, AkkaExecutionMode mode, CoordinationSettings settings) =>
        builder.WithEntities<ArchiveCoordinatorKey>("archive-coordinator", mode, remember: true,
            registry => id => ArchiveCoordinator.Props(new ArchiveId(id), registry.Get<ImageCoordinatorKey>(),
                registry.TryGet<ArchiveIndexKey>(out var index) ? index : ActorRefs.Nobody, mode == AkkaExecutionMode.Clustered, settings));

    /// <summary>The janitor of the store, one in a cluster. Needs the image coordinators.</summary>
    public static AkkaConfigurationBuilder WithStoreJanitor(this AkkaConfigurationBuilder builder, IImageBlobs blobs, CoordinationSettings settings) =>
        builder.WithSingleton<StoreJanitorKey>("store-janitor", (_, registry, _) => StoreJanitor.Props(registry.Get<ImageCoordinatorKey>(), blobs, settings),
            new ClusterSingletonOptions { Role = CoordinatorRole }, createProxyToo: false);

    /// <summary>For nodes without the coordinator role: ways to broker and coordinators under the same keys.</summary>
    public static AkkaConfigurationBuilder WithCoordinatorProxies(this AkkaConfigurationBuilder builder) => builder
        .WithSingletonProxy<WorkBrokerKey>("work-broker", new ClusterSingletonOptions { Role = CoordinatorRole })
        .WithSingletonProxy<ArchiveIndexKey>("archive-index", new ClusterSingletonOptions { Role = CoordinatorRole })
        .WithShardRegionProxy<ImageCoordinatorKey>("image-coordinator", CoordinatorRole, new EntityExtractor())
        .WithShardRegionProxy<ArchiveCoordinatorKey>("archive-coordinator", CoordinatorRole, new EntityExtractor());

    /// <summary>This process's worker with its devices. Needs broker and image coordinators (or their proxies).</summary>
    public static AkkaConfigurationBuilder WithWorker(this AkkaConfigurationBuilder builder, WorkerId id, IReadOnlyList<DeviceSlot> devices, CoordinationSettings settings)
    {
        if (devices.Count == 0)
            throw new ArgumentException("A worker has at least one device.", nameof(devices));
        return builder.WithActors((system, registry) => registry.Register<WorkerManagerKey>(system.ActorOf(
            WorkerManager.Props(id, registry.Get<WorkBrokerKey>(), registry.Get<ImageCoordinatorKey>(), devices, settings), "worker-manager")));
    }

    // Something that there is one of. What ends it (a failed write, a defect) is over soon, and a cluster does not start a
    // singleton again that has stopped.
    private static AkkaConfigurationBuilder WithOne<TKey>(this AkkaConfigurationBuilder builder, string name, AkkaExecutionMode mode, Props props)
    {
        var supervised = BackoffSupervisor.Props(Backoff.OnStop(props, name, TimeSpan.FromMilliseconds(200), TimeSpan.FromSeconds(10), 0.2, -1)
            .WithFinalStopMessage(message => message is StopWhenWritten));
        return mode == AkkaExecutionMode.Local
            ? builder.WithActors((system, registry) => registry.Register<TKey>(system.ActorOf(supervised, name)))
            : builder.WithSingleton<TKey>(name, (_, _, _) => supervised, new ClusterSingletonOptions { Role = CoordinatorRole, TerminationMessage = StopWhenWritten.Instance }, createProxyToo: true);
    }

    private static AkkaConfigurationBuilder WithEntities<TKey>(this AkkaConfigurationBuilder builder, string name, AkkaExecutionMode mode, bool remember, Func<IActorRegistry, Func<string, Props>> props)
    {
        var extractor = new EntityExtractor();
        return mode == AkkaExecutionMode.Local
            ? builder.WithActors((system, registry) => registry.Register<TKey>(system.ActorOf(ChildPerEntity.Props(extractor, props(registry)), name)))
            : builder.WithShardRegion<TKey>(name, (_, registry, _) => props(registry), extractor, new ShardOptions
            {
                Role = CoordinatorRole,
                StateStoreMode = StateStoreMode.DData,
                RememberEntities = remember,
                RememberEntitiesStore = RememberEntitiesStore.Eventsourced,
                HandOffStopMessage = StopWhenWritten.Instance,
            });
    }
}

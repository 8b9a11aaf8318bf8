using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Akka.Cluster.Hosting;
using Akka.Configuration;
using Akka.Hosting;
using Akka.Remote.Hosting;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Node.Api;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace BbmrCluster.Node.Cluster;

/// <summary>How a node came to its end.</summary>
public enum NodeEnd
{
    /// <summary>It was asked to: leases are finished or given back, and the cluster knows that it left.</summary>
    Stopped,

    /// <summary>The others removed it, or it removed itself on the smaller side of a split: start it again.</summary>
    Removed,
}

/// <summary>
/// A process of a cluster: coordinators, a worker with its devices, the HTTP API, or any of them together. The actors are
/// registered as in an embedded node; what differs is the mode.
/// </summary>
public sealed class ClusterNode : IAsyncDisposable
{
    // Beyond the time in which the others remove an unreachable member, which holds up whoever joins.
    private static readonly TimeSpan JoinTime = TimeSpan.FromSeconds(20);

    private readonly WorkDirectory _work;
    private readonly IHost _host;
    private readonly ActorSystem _system;

    private ClusterNode(WorkDirectory work, IHost host)
    {
        (_work, _host) = (work, host);
        _system = host.Services.GetRequiredService<ActorSystem>();
        Address = Akka.Cluster.Cluster.Get(_system).SelfAddress.ToString();
        Http = host.Services.GetService<IServer>()?.Features.Get<IServerAddressesFeature>()?.Addresses.FirstOrDefault();
    }

    /// <summary>Where other nodes reach it, e.g. "akka.tcp://bbmr@10.0.0.5:4053".</summary>
    public string Address { get; }

    /// <summary>Where HTTP is served, e.g. "http://127.0.0.1:8080"; null for nowhere.</summary>
    public string? Http { get; }

    /// <summary>Starts and begins to join.</summary>
    /// <param name="options">Checked options.</param>
    /// <param name="log">Takes log entries, one line each.</param>
    /// <param name="details">Log stack traces too.</param>
    /// <param name="cancellation">Ends the start.</param>
    /// <exception cref="NodeConfigurationException">A certificate, port or device cannot be used.</exception>
    /// <exception cref="WorkDirectoryException">Work folder or database cannot be used.</exception>
    /// <exception cref="EngineUnavailableException">A worker without device or weights.</exception>
    public static async Task<ClusterNode> StartAsync(NodeOptions options, Action<string> log, bool details = false, CancellationToken cancellation = default)
    {
        CheckPort(options.Bind);
        WorkDirectory work = WorkDirectory.Open(options.Work);
        IHost? host = null;
        try
        {
            VipsRuntime.UseTemporaryDirectory(work.Temporary);
            IBlobStore blobs = options.Store.Open(options);
            var engines = new EngineFactory(new ModelCatalog(options.Models));
            if (options.IsWorker || options.IsApi)
                _ = engines.WeightHashes(EngineSettings.Default);
            if (options is { IsCoordinator: true, Postgres: { } postgres })
                await PostgresJournal.CreateSchemaAsync(postgres, options.CreateSchema, cancellation);

            IHostApplicationBuilder builder = options.Http is { } http ? Web(http) : Microsoft.Extensions.Hosting.Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
            builder.Logging.SetMinimumLevel(LogLevel.Warning).AddProvider(new LineLoggerProvider(log, details));
            builder.Services
                // Signals are the command line's business.
                .AddSingleton<IHostLifetime, NoLifetime>()
                .Configure<HostOptions>(hosting => hosting.ShutdownTimeout = options.Drain + TimeSpan.FromSeconds(60))
                .AddSingleton(options).AddSingleton(blobs).AddSingleton(engines).AddSingleton<NodeHealth>();
            if (options.IsApi)
                ApiEndpoints.AddServices(builder.Services);
            AddActors(builder.Services, options, work, blobs, engines, log);
            host = Build(builder);
            await host.StartAsync(cancellation);
            return new ClusterNode(work, host);
        }
        catch (Exception error)
        {
            // Of a port in use the actor system knows nothing: it did not start, and asking for it would start another.
            bool busy = PortInUse(error), untrusted = !busy && host?.Services.GetService<ActorSystem>() is { } system && IsUntrusted(system);
            host?.Dispose();
            work.Dispose();
            if (untrusted)
                throw Untrusted();
            if (busy)
                throw new NodeConfigurationException([string.Create(CultureInfo.InvariantCulture, $"The port of {options.Bind}{(options.Http is null ? "" : $" or of {options.Http}")} cannot be used: {Innermost(error).Message}.")]);
            throw;
        }
    }

    /// <summary>Waits until it is told to stop or is removed from the cluster, and ends in order.</summary>
    /// <param name="stop">Tells it to stop.</param>
    /// <exception cref="NodeConfigurationException">Its certificate and those of the other nodes do not fit.</exception>
    public async Task<NodeEnd> RunAsync(CancellationToken stop)
    {
        var lifetime = _host.Services.GetRequiredService<IHostApplicationLifetime>();
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using CancellationTokenRegistration asked = stop.Register(() => ended.TrySetResult());
        await using CancellationTokenRegistration stopping = lifetime.ApplicationStopping.Register(() => ended.TrySetResult());
        _ = _system.WhenTerminated.ContinueWith(_ => ended.TrySetResult(), TaskScheduler.Default);
        await ended.Task;
        await _host.StopAsync(CancellationToken.None);
        if (IsUntrusted(_system))
            throw Untrusted();
        return stop.IsCancellationRequested && CoordinatedShutdown.Get(_system).ShutdownReason is not CoordinatedShutdown.ClusterDowningReason ? NodeEnd.Stopped : NodeEnd.Removed;
    }

    /// <summary>Stops at once what is still running, and gives the work folder up.</summary>
    public async ValueTask DisposeAsync()
    {
        await _system.Terminate();
        if (_host is IAsyncDisposable host)
            await host.DisposeAsync();
        else
            _host.Dispose();
        _work.Dispose();
    }

    private static WebApplicationBuilder Web(HostPort http)
    {
        WebApplicationBuilder builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ApplicationName = typeof(ClusterNode).Assembly.GetName().Name });
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            // A hundred thousand inputs; more of them come as a manifest.
            kestrel.Limits.MaxRequestBodySize = 16 << 20;
            if (http.IsAny)
                kestrel.ListenAnyIP(http.Port);
            else
                kestrel.Listen(http.Host is "localhost" ? IPAddress.Loopback : IPAddress.TryParse(http.Host, out IPAddress? address) ? address : Dns.GetHostAddresses(http.Host)[0], http.Port);
        });
        builder.Services.AddRoutingCore();
        return builder;
    }

    private static IHost Build(IHostApplicationBuilder builder)
    {
        if (builder is not WebApplicationBuilder web)
            return ((HostApplicationBuilder)builder).Build();
        WebApplication app = web.Build();
        HealthEndpoints.Map(app);
        NodeOptions options = app.Services.GetRequiredService<NodeOptions>();
        if (options.IsApi || options.ServesStore)
            ApiEndpoints.Guard(app);
        if (options.IsApi)
            ApiEndpoints.Map(app);
        if (options.ServesStore)
            StoreEndpoints.Map(app, (DirectoryBlobStore)app.Services.GetRequiredService<IBlobStore>());
        return app;
    }

    private static void AddActors(IServiceCollection services, NodeOptions options, WorkDirectory work, IBlobStore blobs, EngineFactory engines, Action<string> log)
    {
        CoordinationSettings settings = new CoordinationSettings
        {
            OpenImages = options.OpenImages,
            JanitorInterval = options.Janitor,
            OrphanAge = options.OrphanAge,
            BetweenNodes = true,
            DrainTime = options.Drain,
        }.Validate();
        IReadOnlyList<DeviceSlot> devices = options.IsWorker ? NodeDevices.Slots(options, engines, blobs, work.Temporary, StandStill.FromEnvironment()) : [];
        SslOptions? tls = options.Certificate is null ? null : NodeCertificate.Options(options);
        string protocol = tls is null ? "akka.tcp" : "akka.ssl.tcp";
        var remote = new RemoteOptions
        {
            HostName = options.Bind.Host,
            Port = options.Bind.Port,
            PublicHostName = options.Public.Host,
            PublicPort = options.Public.Port == 0 ? null : options.Public.Port,
        };
        if (tls is not null)
            (remote.EnableSsl, remote.Ssl) = (true, tls);
        services.AddAkka(BbmrHosting.SystemName, (builder, _) =>
        {
            builder.WithBbmrNode(options.IsCoordinator, new WorkerId(options.Name), devices, Allocators.Parse, settings, new StoreAndJournal(blobs, options, work));
            if (options is { IsCoordinator: true, Postgres: { } postgres })
                builder.WithPostgresJournal(postgres);
            else if (options.IsCoordinator)
                builder.WithSqliteJournal(work.Journal);
            builder
                .WithRemoting(remote)
                .WithClustering(new ClusterOptions
                {
                    Roles = [.. options.Roles],
                    SeedNodes = [.. options.Seeds.Select(seed => $"{protocol}://{BbmrHosting.SystemName}@{seed}")],
                    AppVersion = options.AppVersion,
                })
                .AddHocon(Timing(options), HoconAddMode.Prepend);
            builder.AddStartup((system, _) => system.ActorOf(JoinWatch.Props(options.StableAfter + options.HeartbeatPause + JoinTime, string.Join(", ", options.Seeds)), "join-watch"));
            builder.AddStartup((system, _) => system.ActorOf(options.IsCoordinator ? NewsLog.Props(log) : Props.Create<LastCoordinator>(), options.IsCoordinator ? "news-log" : "last-coordinator"));
            if (options.Seeds.Count == 0)
            {
                builder.AddStartup((system, _) =>
                {
                    var cluster = Akka.Cluster.Cluster.Get(system);
                    cluster.Join(cluster.SelfAddress);
                });
            }
        });
        services.AddBbmrClient(settings);
    }

    private static Config Timing(NodeOptions options) => ConfigurationFactory.ParseString(string.Create(CultureInfo.InvariantCulture, $$"""
        akka.cluster.failure-detector.acceptable-heartbeat-pause = {{options.HeartbeatPause.TotalSeconds}}s
        akka.cluster.split-brain-resolver.stable-after = {{options.StableAfter.TotalSeconds}}s
        # Seeds are the coordinators. A first seed that is started while it reaches nobody must not go on by itself beside the
        # others; and a node that was frozen, wakes, and takes those for lost who removed it meanwhile must not count itself as
        # the majority of whoever is left: the number that goes on is fixed.
        akka.cluster.role.coordinator.min-nr-of-members = {{Quorum(options)}}
        akka.cluster.split-brain-resolver.active-strategy = {{(options.Seeds.Count > 1 ? "static-quorum" : "keep-majority")}}
        akka.cluster.split-brain-resolver.static-quorum { quorum-size = {{Quorum(options)}}, role = coordinator }
        # Signals are the command line's business: a hook that shuts the system down first makes an order to stop look like a removal.
        akka.coordinated-shutdown.run-by-clr-shutdown-hook = off
        akka.coordinated-shutdown.phases.service-requests-done.timeout = {{(options.Drain + CoordinationSettings.ReturnTime).TotalSeconds + 5}}s
        """));

    private static int Quorum(NodeOptions options) => (options.Seeds.Count / 2) + 1;

    // The transport ends a node whose own connections fail at the handshake: it would never join.
    private static bool IsUntrusted(ActorSystem system) => CoordinatedShutdown.Get(system).ShutdownReason?.GetType().Name.StartsWith("Tls", StringComparison.Ordinal) == true;

    private static NodeConfigurationException Untrusted() =>
        new(["A node to join does not accept this node's certificate, or this node not that one's: all certificates must be signed by an authority in tls_authority."]);

    // The transport would say it in eighty lines.
    private static void CheckPort(HostPort bind)
    {
        if (bind.Port == 0)
            return;
        try
        {
            IPAddress address = bind.IsAny ? IPAddress.Any : IPAddress.TryParse(bind.Host, out IPAddress? given) ? given : Dns.GetHostAddresses(bind.Host)[0];
            using var listener = new TcpListener(address, bind.Port);
            listener.Start();
        }
        catch (SocketException error)
        {
            throw new NodeConfigurationException([$"The port of {bind} cannot be used: {error.Message}."]);
        }
    }

    // A database that is away may say so by the same errors.
    private static bool PortInUse(Exception error) => error is not (NodeConfigurationException or WorkDirectoryException) && Innermost(error) is SocketException { SocketErrorCode: SocketError.AddressAlreadyInUse or SocketError.AccessDenied or SocketError.AddressNotAvailable };

    private static Exception Innermost(Exception error) => error.InnerException is { } inner ? Innermost(inner) : error;

    private sealed class NoLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}

using Akka.Actor;
using Akka.Cluster.Hosting;
using Akka.Hosting;
using Akka.Remote.Hosting;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Rescaling;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace BbmrCluster.Benchmarks;

/// <summary>A cluster node that joined itself, with the registrations of the program, a SQLite journal and stand-ins as workers.</summary>
internal sealed class Coordination : IAsyncDisposable
{
    private readonly IHost _host;

    private Coordination(IHost host) => _host = host;

    public BbmrClient Client => _host.Services.GetRequiredService<BbmrClient>();

    public ActorSystem System => _host.Services.GetRequiredService<ActorSystem>();

    public static async Task<Coordination> StartAsync(string folder, int workers, TimeSpan lease, StandInCounts counts, CoordinationSettings settings)
    {
        Environment.SetEnvironmentVariable("DOTNET_HOSTBUILDER__RELOADCONFIGONCHANGE", "false");
        settings.Validate();
        const AkkaExecutionMode mode = AkkaExecutionMode.Clustered;
        var host = new HostBuilder().ConfigureServices(services =>
        {
            services.AddAkka(BbmrHosting.SystemName, (builder, _) => builder
                .WithBbmrDefaults()
                .WithSqliteJournal(Path.Combine(folder, "journal.db"))
                .AddHocon(HoconFiles.Load("cluster"), HoconAddMode.Prepend)
                .WithRemoting("127.0.0.1", 0)
                .WithClustering(new ClusterOptions { Roles = [BbmrHosting.CoordinatorRole] })
                .WithWorkBroker(mode, settings).WithImageCoordinators(mode, Allocators.Parse, settings).WithArchiveIndex(mode).WithArchiveCoordinators(mode, settings)
                .AddStartup((system, registry) =>
                {
                    var cluster = Akka.Cluster.Cluster.Get(system);
                    cluster.Join(cluster.SelfAddress);
                    for (int i = 0; i < workers; i++)
                    {
                        var slot = new DeviceSlot("stand-in", () => new StandIn(lease, counts), "stand-in");
                        system.ActorOf(WorkerManager.Props(new WorkerId($"w{i}"), registry.Get<WorkBrokerKey>(), registry.Get<ImageCoordinatorKey>(), [slot], settings));
                    }
                }));
            services.AddBbmrClient(settings);
        }).Build();
        await host.StartAsync();
        return new Coordination(host);
    }

    public async ValueTask DisposeAsync()
    {
        await _host.StopAsync();
        _host.Dispose();
    }
}

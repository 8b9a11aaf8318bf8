using Akka.Actor;
using Akka.Configuration;
using Akka.Hosting;
using Akka.TestKit.Xunit2;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Images;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Work;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>
/// Every message between actors is serialized here, also inside the process. Persistent actors are left out: the
/// journal's own messages cannot be.
/// </summary>
[Collection("nodes")]
public sealed class StrictSerializationSpecs : IAsyncLifetime
{
    private readonly FakeWorld _world = new();
    private IHost _host = null!;
    private TestKit _kit = null!;

    public async Task InitializeAsync()
    {
        _host = new HostBuilder().ConfigureServices(services => services.AddAkka("strict", (builder, _) => builder
            .WithBbmrDefaults()
            .AddHocon(ConfigurationFactory.ParseString("akka.actor.serialize-messages = on"), HoconAddMode.Prepend)
            .WithWorkBroker(AkkaExecutionMode.Local, TestNode.Fast))).Build();
        await _host.StartAsync();
        _kit = new TestKit(_host.Services.GetRequiredService<ActorSystem>());
    }

    public async Task DisposeAsync()
    {
        await _host.StopAsync();
        _host.Dispose();
        _kit.Dispose();
    }

    [Fact]
    public async Task Broker_manager_and_device_speak_only_what_survives_the_wire()
    {
        var job = FakeWorld.Job("a", 300, 200);
        var broker = _host.Services.GetRequiredService<IActorRegistry>().Get<WorkBrokerKey>();
        var images = _kit.CreateTestProbe();
        var manager = _kit.Sys.ActorOf(WorkerManager.Props(new WorkerId("w"), broker, images.Ref, [new DeviceSlot("d", _world.Runner)], TestNode.Fast));
        broker.Tell(new BrokerFacts.ImageWaiting(job.Id, new ArchiveId("x"), default, "fake", 5), images.Ref);

        // The broker may hear of the image before it hears of the worker, and say so.
        var request = (ImageCommands.RequestLeases)await images.FishForMessageAsync(message => message is ImageCommands.RequestLeases, TimeSpan.FromSeconds(120));
        Assert.Equal(2, request.Count);
        var work = new LeaseWork(job, Stage.Ingest, 0, 0, 1, null, [], null, null, [], [], JobTally.Empty);
        manager.Tell(new LeaseReplies.LeasesGranted(job.Id, [new(new LeaseId(1, 1), work)], false), images.Ref);
        // With one message, or with several where the machine is slow.
        var facts = new List<LeaseFacts.ILeaseFact>();
        while (facts.LastOrDefault() is not LeaseFacts.ILeaseEnd)
            facts.AddRange(((LeaseFacts.LeasesTold)await images.FishForMessageAsync(message => message is LeaseFacts.LeasesTold, TimeSpan.FromSeconds(120))).Facts);
        Assert.IsType<ImageProbed>(Assert.IsType<LeaseFacts.LeaseReported>(facts[0]).Report);
        Assert.Equal(new LeaseId(1, 1), Assert.IsType<LeaseFacts.LeaseEnded>(facts[^1]).Lease);
        // The end is said again until it is acknowledged.
        await images.FishForMessageAsync(message => message is LeaseFacts.LeasesTold { Facts: [LeaseFacts.LeaseEnded] }, TimeSpan.FromSeconds(120));

        // A drained worker is asked for nothing more: its assignment is empty.
        var drained = _kit.CreateTestProbe();
        var there = new WorkerOverview(new WorkerId("drained"), "", 1, [], WorkerPhase.Active, 0, [], []);
        // Again, since the broker forgets whoever is silent for long.
        broker.Tell(new BrokerFacts.ImageWaiting(job.Id, new ArchiveId("x"), default, "fake", 5), images.Ref);
        broker.Tell(new BrokerFacts.WorkerPresent(there), drained.Ref);
        await drained.FishForMessageAsync(message => message is BrokerNotices.Assignment { Shares.Count: > 0, Draining: false }, TimeSpan.FromSeconds(120));
        broker.Tell(new BrokerCommands.DrainWorker(there.Id), drained.Ref);
        await drained.FishForMessageAsync(message => message is BrokerNotices.Assignment { Shares.Count: 0, Draining: true }, TimeSpan.FromSeconds(120));
        await drained.FishForMessageAsync(message => message is BrokerCommands.Workers { Items: [{ Phase: WorkerPhase.Drained }] }, TimeSpan.FromSeconds(120));
        // The next broker learns of it from the worker, and of an end of draining from the operator.
        var next = _kit.Sys.ActorOf(WorkBroker.Props(TestNode.Fast));
        next.Tell(new BrokerFacts.ImageWaiting(job.Id, new ArchiveId("x"), default, "fake", 5), images.Ref);
        next.Tell(new BrokerFacts.WorkerPresent(there with { Phase = WorkerPhase.Draining }), drained.Ref);
        next.Tell(new BrokerCommands.ListWorkers(0), drained.Ref);
        await drained.FishForMessageAsync(message => message is BrokerCommands.Workers { Items: [{ Phase: WorkerPhase.Drained }] }, TimeSpan.FromSeconds(120));
        next.Tell(new BrokerCommands.UndrainWorker(there.Id), drained.Ref);
        await drained.FishForMessageAsync(message => message is BrokerNotices.Assignment { Shares.Count: > 0, Draining: false }, TimeSpan.FromSeconds(120));
    }

    [Fact]
    public async Task Messages_of_block_actors_are_marked_as_staying_inside()
    {
        var parent = _kit.CreateTestProbe();
        var block = parent.ChildActorOf(BlockActor.Props(new BlockFate(3, 100, 3, 3)));
        block.Tell(new ImageChildren.BlockLeaseFailed(FailureClass.Block, 60), parent.Ref);
        Assert.Equal(30, (await parent.ExpectMsgAsync<ImageChildren.BlockWantsLease>(TimeSpan.FromSeconds(120))).MaxBlocks);
        block.Tell(new ImageChildren.BlockResult([1, 2, 3], 30), parent.Ref);
        double[]? settled = (await parent.ExpectMsgAsync<ImageChildren.BlockSettled>(TimeSpan.FromSeconds(120))).Sse;
        Assert.Equal([1, 2, 3], settled!);
    }
}

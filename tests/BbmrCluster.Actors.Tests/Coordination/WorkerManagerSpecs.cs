using Akka.Actor;
using Akka.TestKit;
using Akka.TestKit.Xunit2;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>A worker whose device does not let go of a lease, with the test in the place of broker and images.</summary>
[Collection("nodes")]
public sealed class WorkerManagerSpecs : IAsyncLifetime
{
    private static readonly TimeSpan Long = TimeSpan.FromMinutes(2);
    private readonly ImageJob _one = FakeWorld.Job("a", 200, 200), _other = FakeWorld.Job("b", 200, 200);
    private readonly JournalFolder _folder = new();
    private readonly FakeWorld _world = new();
    private readonly ManualResetEventSlim _blocked = new(), _letGo = new();
    private TestNode _node = null!;
    private TestKit _kit = null!;
    private TestProbe _images = null!;

    public async Task InitializeAsync()
    {
        _world.Before = work =>
        {
            if (work.Job.Id != _one.Id)
                return;
            _blocked.Set();
            _letGo.Wait(Long);
        };
        _node = await TestNode.StartAsync(_world, _folder, devices: 0);
        _kit = new TestKit(_node.System);
        _images = _kit.CreateTestProbe();
    }

    public async Task DisposeAsync()
    {
        _letGo.Set();
        await _node.DisposeAsync();
        _kit.Dispose();
        _folder.Dispose();
        _blocked.Dispose();
        _letGo.Dispose();
    }

    [Fact]
    public async Task A_lease_that_waits_for_a_busy_device_is_given_back_at_once_when_it_is_cancelled()
    {
        var manager = Start(TestNode.Fast);
        Grant(manager, _one, 1);
        Assert.True(_blocked.Wait(Long));
        Grant(manager, _other, 1);
        manager.Tell(new LeaseReplies.LeaseCancelled(_other.Id, new LeaseId(1, 1)), _images.Ref);
        await ReturnedAsync(_other);
    }

    [Fact]
    public async Task What_waits_for_a_device_that_gives_no_sign_of_life_is_given_back()
    {
        var manager = Start(TestNode.Fast with { FirstDeadline = TimeSpan.FromSeconds(1) });
        Grant(manager, _one, 1);
        Assert.True(_blocked.Wait(Long));
        Grant(manager, _other, 1);
        await ReturnedAsync(_other);
    }

    private IActorRef Start(CoordinationSettings settings)
    {
        var manager = _node.System.ActorOf(WorkerManager.Props(new WorkerId("w"), _kit.CreateTestProbe().Ref, _images.Ref, [new DeviceSlot("a", _world.Runner)], settings));
        manager.Tell(new BrokerNotices.Assignment([new ArchiveShare(new ArchiveId("x"), 1, [_one.Id, _other.Id])], false), _images.Ref);
        return manager;
    }

    private void Grant(IActorRef manager, ImageJob job, int number) =>
        manager.Tell(new LeaseReplies.LeasesGranted(job.Id, [new LeaseReplies.GrantedLease(new LeaseId(1, number), new LeaseWork(job, Stage.Ingest, 0, 0, 1, null, [], null, null, [], [], JobTally.Empty))], true), _images.Ref);

    private async Task ReturnedAsync(ImageJob job) => await _images.FishForMessageAsync(message => message is LeaseFacts.LeasesTold told && told.ImageId == job.Id && told.Facts.OfType<LeaseFacts.LeaseReturned>().Any(), Long);
}

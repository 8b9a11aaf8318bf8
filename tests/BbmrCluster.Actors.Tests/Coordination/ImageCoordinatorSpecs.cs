using Akka.Actor;
using Akka.TestKit.Xunit2;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>The protocol of one image coordinator, with the test in the place of archive and worker.</summary>
[Collection("nodes")]
public sealed class ImageCoordinatorSpecs : IAsyncLifetime
{
    private static readonly WorkerId Worker = new("probe");
    private readonly FakeWorld _world = new();
    private readonly JournalFolder _folder = new();
    private readonly ImageJob _job = FakeWorld.Job("a", 60 * 128, 2 * 128);
    private TestNode _node = null!;
    private TestKit _kit = null!;

    public async Task InitializeAsync()
    {
        _node = await TestNode.StartAsync(_world, _folder, devices: 0);
        _kit = new TestKit(_node.System);
    }

    public async Task DisposeAsync()
    {
        await DisposeNodeAsync();
        _folder.Dispose();
    }

    private async Task DisposeNodeAsync()
    {
        await _node.DisposeAsync();
        _kit.Dispose();
    }

    [Fact]
    public async Task The_first_result_of_a_range_counts_and_late_ones_are_acknowledged()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        Report(ingest, new ImageProbed(Facts()));
        Report(ingest, new StripIngested(new StripBlobs(0, Raw: new BlobRef("first", 1, "h"))));
        Report(ingest, new StripIngested(new StripBlobs(0, Raw: new BlobRef("second", 1, "h"))));
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseReported(new LeaseId(7, 7), new StripIngested(new StripBlobs(1, Raw: new BlobRef("other-epoch", 1, "h"))))]));
        await End(ingest);

        var score = await Grant();
        Assert.Equal(Stage.Score, score.Work.Stage);
        Assert.Equal("first", score.Work.Strips[0].Raw!.Name);
        var other = await Grant();
        Assert.Equal("other-epoch", other.Work.Strips[0].Raw!.Name);

        // Acknowledged, though nobody knows that lease (any more).
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseEnded(new LeaseId(7, 7), new DeviceCounts([], 0, 0))]));
        Assert.Equal(new LeaseId(7, 7), Assert.Single((await Expect<LeaseReplies.LeasesAcknowledged>()).Leases));
        await End(ingest);
    }

    [Fact]
    public async Task Only_a_lease_of_this_epoch_commits()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseReported(new LeaseId(7, 7), new OutputsCommitted())]));
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseReported(new LeaseId(7, 8), new AlreadyDone("forged"))]));
        Report(ingest, new AlreadyDone("the report"));
        Assert.Equal(new ImageOutcome.Skipped("the report"), (await Expect<ArchiveFacts.ImageClosed>()).Outcome);
    }

    [Fact]
    public async Task A_closed_image_tells_its_outcome_to_the_same_run_and_starts_anew_for_another()
    {
        Open(new RunId("one"));
        Report(await Grant(), new AlreadyDone("the report"));
        await Expect<ArchiveFacts.ImageClosed>();
        Open(new RunId("one"));
        Assert.Equal(new RunId("one"), (await Expect<ArchiveFacts.ImageClosed>()).Run);
        Open(new RunId("two"));
        await Expect<ArchiveFacts.ImageNotified>();
        Assert.Equal(Stage.Ingest, (await Grant()).Work.Stage);
    }

    [Fact]
    public async Task An_outcome_is_kept_until_its_archive_has_heard_it_though_a_worker_brings_the_image_back_first()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        Report(ingest, new AlreadyDone("the report"));
        await Expect<ArchiveFacts.ImageClosed>();
        // The coordinator dies before the archive has written that down. The worker still waits for an answer.
        await GoneAsync(kill: true);
        await End(ingest);
        await GoneAsync(kill: false);
        Open(new RunId("one"));
        var answer = await _kit.FishForMessageAsync(message => message is ArchiveFacts.ImageClosed or ArchiveFacts.ImageNotified, TimeSpan.FromSeconds(120));
        Assert.Equal(new ImageOutcome.Skipped("the report"), Assert.IsType<ArchiveFacts.ImageClosed>(answer).Outcome);
        // Now it has.
        Tell(new ImageCommands.AcknowledgeOutcome(_job.Id, new RunId("one")));
        await GoneAsync(kill: false);
        Assert.Equal(0, _folder.Entries(_job.Id));
    }

    [Fact]
    public async Task An_outcome_is_told_until_it_is_acknowledged()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        Report(ingest, new AlreadyDone("the report"));
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseEnded(ingest.Lease, new DeviceCounts([], 0, 0))]));
        for (int i = 0; i < 3; i++)
            Assert.Equal(new ImageOutcome.Skipped("the report"), (await Expect<ArchiveFacts.ImageClosed>()).Outcome);
        Tell(new ImageCommands.AcknowledgeOutcome(_job.Id, new RunId("one")));
        await GoneAsync(kill: false);
        Assert.Equal(0, _folder.Entries(_job.Id));
    }

    [Fact]
    public async Task A_grant_that_got_lost_is_granted_again_and_one_that_its_worker_tells_of_is_not()
    {
        await RestartAsync(TestNode.Fast with { GrantDeadline = TestNode.Fast.ReminderInterval });
        Open(new RunId("one"));
        var lost = await Grant();
        // Nobody says a word of it.
        var again = await Grant();
        Assert.Equal((Stage.Ingest, Stage.Ingest), (lost.Work.Stage, again.Work.Stage));
        Tell(new LeaseFacts.LeasesHeld(_job.Id, [], [again.Lease]));
        await Task.Delay(TestNode.Fast.ReminderInterval * 3);
        Tell(new ImageCommands.RequestLeases(_job.Id, Worker, 1, []));
        Assert.Empty((await Expect<LeaseReplies.LeasesGranted>()).Leases);
    }

    [Fact]
    public async Task Leases_of_a_worker_that_was_started_again_are_lost_though_it_asks_before_the_end_of_the_first_is_known()
    {
        Open(new RunId("one"));
        var first = _kit.CreateTestProbe();
        await Expect<ArchiveFacts.ImageNotified>();
        _node.Images.Tell(new ImageCommands.RequestLeases(_job.Id, Worker, 1, []), first.Ref);
        Assert.Single((await first.ExpectMsgAsync<LeaseReplies.LeasesGranted>(TimeSpan.FromSeconds(120))).Leases);
        Tell(new ImageCommands.RequestLeases(_job.Id, Worker, 1, []));
        Assert.Empty((await Expect<LeaseReplies.LeasesGranted>()).Leases);
        _node.System.Stop(first.Ref);
        Assert.Equal(Stage.Ingest, (await Grant()).Work.Stage);
    }

    [Fact]
    public async Task An_image_that_waited_for_room_goes_on_when_another_did_what_there_was_none_for()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        Report(ingest, new ImageProbed(Facts()));
        Report(ingest, new StripIngested(new StripBlobs(0, Raw: new BlobRef("first", 1, "h"))));
        Report(ingest, new StripIngested(new StripBlobs(1, Raw: new BlobRef("second", 1, "h"))));
        await End(ingest);
        var score = await Grant();
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseFailed(score.Lease, FailureClass.StoreFull, "no room", null, null)]));
        await Notified<JobNotification.ImagePaused>();
        // Whoever has it open is told every time it asks.
        Open(new RunId("one"));
        Assert.Equal("no room", (await Notified<JobNotification.ImagePaused>()).Reason);

        var sse = new double[60, 3];
        for (int block = 0; block < 60; block++)
            (sse[block, 0], sse[block, 1], sse[block, 2]) = (1, 2, 3);
        // A late result of a lease of before.
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseReported(new LeaseId(7, 7), new BlocksScored(score.Work.FirstBlock, sse))]));
        await Notified<JobNotification.ImageResumed>();
        var other = await Grant();
        Assert.Equal((Stage.Score, 60), (other.Work.Stage, other.Work.FirstBlock + score.Work.FirstBlock));
    }

    [Fact]
    public async Task Results_that_got_lost_are_made_again_and_use_up_no_attempt()
    {
        Open(new RunId("one"));
        for (int i = 0; i < new WorkPolicy().Attempts + 1; i++)
            await End(await Grant());
        Assert.Equal(Stage.Ingest, (await Grant()).Work.Stage);
    }

    [Fact]
    public async Task An_outcome_is_kept_when_its_image_is_stopped_before_its_archive_has_heard_it()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        Report(ingest, new AlreadyDone("the report"));
        await Expect<ArchiveFacts.ImageClosed>();
        Tell(new ImageCommands.StopImage(_job.Id, new ArchiveId("x"), new RunId("one"), false));
        await Expect<ArchiveFacts.ImageStopped>();
        await End(ingest);
        await GoneAsync(kill: false);
        Open(new RunId("one"));
        var answer = await _kit.FishForMessageAsync(message => message is ArchiveFacts.ImageClosed or ArchiveFacts.ImageNotified, TimeSpan.FromSeconds(120));
        Assert.Equal(new ImageOutcome.Skipped("the report"), Assert.IsType<ArchiveFacts.ImageClosed>(answer).Outcome);
    }

    [Fact]
    public async Task An_image_that_no_archive_asks_for_any_more_stops_and_keeps_what_is_done()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        Report(ingest, new ImageProbed(Facts()));
        await End(ingest);
        await GoneAsync(kill: false);
        Open(new RunId("one"));
        Assert.NotNull((await Grant()).Work.Facts);
    }

    [Fact]
    public async Task What_one_job_has_begun_another_that_is_cancelled_does_not_discard()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        Report(ingest, new ImageProbed(Facts()));
        await End(ingest);
        Tell(new ImageCommands.StopImage(_job.Id, new ArchiveId("x"), new RunId("one"), false));
        await Expect<ArchiveFacts.ImageStopped>();
        Tell(new ImageCommands.StopImage(_job.Id, new ArchiveId("y"), new RunId("two"), true));
        await Expect<ArchiveFacts.ImageStopped>();
        Open(new RunId("one"));
        Assert.NotNull((await Grant()).Work.Facts);
    }

    [Fact]
    public async Task An_image_that_closes_after_its_job_was_retried_tells_that_try()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        Open(new RunId("one-1"));
        Report(ingest, new AlreadyDone("the report"));
        await End(ingest);
        await Expect<ArchiveFacts.ImageClosed>();
        // Nobody has written it down.
        await GoneAsync(kill: true);
        Open(new RunId("one-1"));
        var answer = await _kit.FishForMessageAsync(message => message is ArchiveFacts.ImageClosed or ArchiveFacts.ImageNotified { Notification: JobNotification.ImageStarted }, TimeSpan.FromSeconds(120));
        Assert.Equal(new RunId("one-1"), Assert.IsType<ArchiveFacts.ImageClosed>(answer).Run);
    }

    [Fact]
    public async Task A_running_lease_that_is_held_no_more_is_cancelled_again()
    {
        Open(new RunId("one"));
        var ingest = await Grant();
        await End(ingest);
        // It is held until its counts are written, which is later than the end is acknowledged; a worker says again what it holds.
        var repeat = _node.System.Scheduler.Advanced.ScheduleRepeatedlyCancelable(
            TimeSpan.Zero, TimeSpan.FromMilliseconds(20), () => Tell(new LeaseFacts.LeasesHeld(_job.Id, [], [ingest.Lease, new LeaseId(999, 1)])));
        Assert.Equal(ingest.Lease, (await Expect<LeaseReplies.LeaseCancelled>()).Lease);
        repeat.Cancel();
    }

    [Fact]
    public async Task An_archive_that_was_started_again_stops_what_it_opened_before()
    {
        Open(new RunId("one"));
        await Expect<ArchiveFacts.ImageNotified>();
        var again = _kit.CreateTestProbe();
        _node.Images.Tell(new ImageCommands.StopImage(_job.Id, new ArchiveId("x"), new RunId("one"), false), again.Ref);
        await again.ExpectMsgAsync<ArchiveFacts.ImageStopped>(TimeSpan.FromSeconds(120));
        await GoneAsync(kill: false);
    }

    [Fact]
    public async Task An_image_that_is_stopped_while_it_is_being_opened_stops()
    {
        Open(new RunId("one"));
        Tell(new ImageCommands.StopImage(_job.Id, new ArchiveId("x"), new RunId("one"), false));
        await Expect<ArchiveFacts.ImageStopped>();
        Assert.Equal(1, _folder.Entries(_job.Id));
        Tell(new ImageCommands.RequestLeases(_job.Id, Worker, 1, []));
        Assert.Empty((await Expect<LeaseReplies.LeasesGranted>()).Leases);
        Open(new RunId("one"));
        Assert.Equal(Stage.Ingest, (await Grant()).Work.Stage);
    }

    [Fact]
    public async Task A_worker_of_another_device_class_gets_no_lease()
    {
        Open(new RunId("one"));
        await Expect<ArchiveFacts.ImageNotified>();
        _node.Images.Tell(new ImageCommands.RequestLeases(_job.Id, Worker, 2, ["cuda-sm90"]), _kit.TestActor);
        Assert.Empty((await Expect<LeaseReplies.LeasesGranted>()).Leases);
        _node.Images.Tell(new ImageCommands.RequestLeases(_job.Id, Worker, 2, ["cuda-sm90", "fake"]), _kit.TestActor);
        Assert.Single((await Expect<LeaseReplies.LeasesGranted>()).Leases);
    }

    [Fact]
    public async Task Results_that_come_in_during_a_write_are_journaled_with_one_entry()
    {
        var job = FakeWorld.Job("b", 128, 200 * 128);
        _node.Images.Tell(new ImageCommands.OpenImage(job.Id, new ArchiveId("x"), new RunId("one"), new WorkPolicy(), job), _kit.TestActor);
        await Expect<ArchiveFacts.ImageNotified>();
        _node.Images.Tell(new ImageCommands.RequestLeases(job.Id, Worker, 1, []), _kit.TestActor);
        var ingest = (await Expect<LeaseReplies.LeasesGranted>()).Leases[0];
        Tell(new LeaseFacts.LeasesTold(job.Id, [new LeaseFacts.LeaseReported(ingest.Lease, new ImageProbed(Facts() with { Width = 128, Height = 200 * 128 }))]));
        for (int strip = 0; strip < 200; strip++)
            Tell(new LeaseFacts.LeasesTold(job.Id, [new LeaseFacts.LeaseReported(ingest.Lease, new StripIngested(new StripBlobs(strip, Raw: new BlobRef($"s{strip}", 1, "h"))))]));
        Tell(new LeaseFacts.LeasesTold(job.Id, [new LeaseFacts.LeaseEnded(ingest.Lease, new DeviceCounts([], 0, 0))]));
        await Expect<LeaseReplies.LeasesAcknowledged>();
        for (int i = 0; i < 4; i++)
            Assert.Equal(Stage.Score, (await Grant(job.Id)).Work.Stage);
        Assert.InRange(_folder.Entries(job.Id), 2, 30);
    }

    private async Task RestartAsync(CoordinationSettings settings)
    {
        await DisposeNodeAsync();
        _node = await TestNode.StartAsync(_world, _folder, devices: 0, settings: settings);
        _kit = new TestKit(_node.System);
    }

    private static ImageFacts Facts() => new(60 * 128, 2 * 128, 3, false, 8, "png", 1000, DateTime.UnixEpoch, "cafe", null);

    private void Open(RunId run) => Tell(new ImageCommands.OpenImage(_job.Id, new ArchiveId("x"), run, new WorkPolicy(), _job));

    private void Tell(object message) => _node.Images.Tell(message, _kit.TestActor);

    private void Report(LeaseReplies.GrantedLease lease, StageReport report) => Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseReported(lease.Lease, report)]));

    private async Task End(LeaseReplies.GrantedLease lease)
    {
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseEnded(lease.Lease, new DeviceCounts([], 0, 0))]));
        Assert.Equal(lease.Lease, Assert.Single((await Expect<LeaseReplies.LeasesAcknowledged>()).Leases));
    }

    /// <summary>Asks until there is a lease.</summary>
    private async Task<LeaseReplies.GrantedLease> Grant(ImageId? image = null)
    {
        for (int i = 0; i < 100; i++)
        {
            Tell(new ImageCommands.RequestLeases(image ?? _job.Id, Worker, 1, []));
            if ((await Expect<LeaseReplies.LeasesGranted>()).Leases is [var granted])
                return granted;
            await Task.Delay(50);
        }
        throw new InvalidOperationException("No lease was granted.");
    }

    /// <summary>Waits until the coordinator of the image has stopped.</summary>
    private async Task GoneAsync(bool kill)
    {
        var probe = _kit.CreateTestProbe();
        try
        {
            var coordinator = await _node.System.ActorSelection($"/user/image-coordinator/{_job.Id}").ResolveOne(TimeSpan.FromSeconds(5));
            await probe.WatchAsync(coordinator);
            if (kill)
                coordinator.Tell(Kill.Instance);
            await probe.ExpectTerminatedAsync(coordinator, TimeSpan.FromSeconds(120));
        }
        catch (ActorNotFoundException)
        {
            // It was quick.
        }
    }

    private async Task<T> Notified<T>()
        where T : JobNotification => (T)((ArchiveFacts.ImageNotified)await _kit.FishForMessageAsync(message => message is ArchiveFacts.ImageNotified { Notification: T }, TimeSpan.FromSeconds(120))).Notification;

    private async Task<T> Expect<T>() => (T)await _kit.FishForMessageAsync(message => message is T, TimeSpan.FromSeconds(120));
}

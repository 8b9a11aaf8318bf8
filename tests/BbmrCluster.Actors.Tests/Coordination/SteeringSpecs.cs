using Akka.Actor;
using Akka.TestKit.Xunit2;
using BbmrCluster.Actors.Archives;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>Orders of operators that come while devices do not let go of what they have, or after the actors that knew of it have died.</summary>
[Collection("nodes")]
public sealed class SteeringSpecs : IDisposable
{
    // A limit for what never comes, not a measure of speed: the machine may be busy.
    private static readonly TimeSpan Long = TimeSpan.FromMinutes(2);
    private static readonly CoordinationSettings OnePage = TestNode.Fast with { OpenImages = 2, MostOpenImages = 2 };
    private readonly FakeWorld _world = new();
    private readonly JournalFolder _folder = new();
    private readonly ManualResetEventSlim _blocked = new(), _letGo = new();

    public void Dispose()
    {
        _letGo.Set();
        _folder.Dispose();
        _blocked.Dispose();
        _letGo.Dispose();
    }

    [Fact]
    public async Task A_job_that_is_resumed_before_it_has_stopped_goes_on()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, settings: OnePage);
        await using var run = await SubmitAsync(node, 6, blockedAt: Stage.Score);
        Assert.True(await node.Client.PauseAsync(run.Id));
        Assert.True(await node.Client.ResumeAsync(run.Id));
        _letGo.Set();
        Assert.Equal(new ArchiveSummary(6, 0, 0, 0), await run.Completion.WaitAsync(Long));
    }

    [Fact]
    public async Task A_job_that_is_paused_after_its_coordinator_died_stops_what_that_had_opened()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, settings: OnePage);
        await using var run = await SubmitAsync(node, 6, blockedAt: Stage.Score);
        await KillAsync(node, run.Id);
        Assert.True(await node.Client.PauseAsync(run.Id));
        await Eventually(async () => await node.Client.FindAsync(run.Id) is { Phase: ArchivePhase.Paused });
        _letGo.Set();
        await Task.Delay(TestNode.Fast.ReminderInterval * 4);
        Assert.Empty(_world.Of(Stage.Finish));

        Assert.True(await node.Client.ResumeAsync(run.Id));
        await Eventually(async () => await node.Client.FindAsync(run.Id) is { Phase: ArchivePhase.Finished, Done: 6 });
    }

    [Fact]
    public async Task A_job_whose_coordinator_dies_when_it_was_paused_is_stopped_by_the_next()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, settings: OnePage);
        await using var run = await SubmitAsync(node, 6, blockedAt: Stage.Score);
        Assert.True(await node.Client.PauseAsync(run.Id));
        await KillAsync(node, run.Id);
        // Whoever asks brings it back.
        Assert.Equal(6, (await node.Client.ItemsAsync(run.Id, 0, 10))!.Count);
        _letGo.Set();
        await Task.Delay(TestNode.Fast.ReminderInterval * 4);
        Assert.Empty(_world.Of(Stage.Finish));
    }

    [Fact]
    public async Task What_is_done_while_failed_ones_are_retried_counts_as_done()
    {
        var jobs = Jobs(3);
        bool mended = false;
        Block(work => work.Stage == Stage.Commit && work.Job.Id == jobs[1].Id);
        var before = _world.Before;
        _world.Before = work =>
        {
            before(work);
            if (!mended && work.Job.Id == jobs[0].Id)
                throw new StageFailedException(FailureClass.Permanent, "a0: no") { Code = "refused" };
        };
        await using var node = await TestNode.StartAsync(_world, _folder, settings: OnePage);
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec(jobs));
        Assert.True(_blocked.Wait(Long));
        await Eventually(async () => await node.Client.ItemsAsync(run.Id, 0, 3, ItemState.Failed) is { Count: 1 });
        mended = true;
        Assert.True(await node.Client.RetryAsync(run.Id));
        _letGo.Set();
        await Eventually(async () => await node.Client.FindAsync(run.Id) is { Phase: ArchivePhase.Finished });
        Assert.Equal((3, 0, 0), await node.Client.FindAsync(run.Id) is { } ended ? (ended.Done, ended.Skipped, ended.Failed) : default);
    }

    [Fact]
    public async Task A_job_that_is_retried_before_its_cancelled_images_have_stopped_does_them()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, settings: OnePage);
        await using var run = await SubmitAsync(node, 4, blockedAt: Stage.Score);
        Assert.True(await node.Client.CancelAsync(run.Id));
        Assert.True(await node.Client.RetryAsync(run.Id));
        await Task.Delay(TestNode.Fast.ReminderInterval * 3);
        _letGo.Set();
        await Eventually(async () => await node.Client.FindAsync(run.Id) is { Phase: ArchivePhase.Finished, Done: 4, Failed: 0 });
    }

    [Fact]
    public async Task The_overview_of_a_cancelled_job_tells_what_became_of_it_after_the_order()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, settings: OnePage);
        await using var run = await SubmitAsync(node, 1, blockedAt: Stage.Commit);
        Assert.True(await node.Client.CancelAsync(run.Id));
        await Eventually(async () => await node.Client.FindAsync(run.Id) is { Phase: ArchivePhase.Cancelled, Open: 1 });
        _letGo.Set();
        await Eventually(async () => await node.Client.FindAsync(run.Id) is { Phase: ArchivePhase.Cancelled, Open: 0 });
    }

    [Fact]
    public async Task Pages_that_were_only_listed_go_again_and_closed_ones_answer_for_a_while()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, devices: 0);
        using var kit = new TestKit(node.System);
        var (images, client) = (kit.CreateTestProbe(), kit.CreateTestProbe());
        var (run, jobs) = (new RunId("one"), Jobs(6));
        var spec = new ArchiveSpec(jobs, id: new ArchiveId("x"));
        var archive = node.System.ActorOf(ArchiveCoordinator.Props(spec.Id, images.Ref, ActorRefs.Nobody, continues: true, TestNode.Fast with { PageSize = 3 }), "an-archive");
        archive.Tell(new ArchiveCommands.SubmitArchive(spec.Id, run, "", new WorkPolicy(), 6, 3, spec.Digest), client.Ref);
        await client.ExpectMsgAsync<ArchiveReplies.ItemsWanted>(Long);
        archive.Tell(new ArchiveCommands.AddItems(spec.Id, run, 0, jobs[..3]), client.Ref);
        await client.ExpectMsgAsync<ArchiveReplies.ItemsWanted>(Long);
        archive.Tell(new ArchiveCommands.AddItems(spec.Id, run, 3, jobs[3..]), client.Ref);
        await client.FishForMessageAsync(message => message is ArchiveReplies.ArchiveAccepted, Long);
        var page = await OpenedAsync(jobs[0]);

        // The second page is listed while nobody works on it: paused.
        archive.Tell(new ArchiveCommands.ControlArchive(spec.Id, ArchiveControl.Pause), client.Ref);
        await Eventually(() =>
        {
            while (images.HasMessages)
            {
                if (images.ReceiveOne(TimeSpan.Zero) is ImageCommands.StopImage stop)
                    images.LastSender.Tell(new ArchiveFacts.ImageStopped(stop.ImageId), images.Ref);
            }
            return PagesAsync().ContinueWith(pages => pages.Result == 0, TaskScheduler.Default);
        });
        archive.Tell(new ArchiveCommands.ListItems(spec.Id, 3, 3, null), client.Ref);
        Assert.Equal(3, ((ArchiveReplies.ItemsListed)await client.FishForMessageAsync(message => message is ArchiveReplies.ItemsListed, Long)).Items.Count);
        Assert.Equal(1, await PagesAsync());
        await Eventually(async () => await PagesAsync() == 0);

        archive.Tell(new ArchiveCommands.ControlArchive(spec.Id, ArchiveControl.Resume), client.Ref);
        page = await OpenedAsync(jobs[0]);
        foreach (var job in jobs[..3])
            page.Tell(new ArchiveFacts.ImageClosed(job.Id, run, new ImageOutcome.Done("")), images.Ref);
        await AcknowledgedAsync(jobs[2]);
        // It did not get that, and says so once more.
        page.Tell(new ArchiveFacts.ImageClosed(jobs[2].Id, run, new ImageOutcome.Done("")), images.Ref);
        await AcknowledgedAsync(jobs[2]);
        var probe = kit.CreateTestProbe();
        await probe.WatchAsync(page);
        await probe.ExpectTerminatedAsync(page, Long);

        async Task<IActorRef> OpenedAsync(ImageJob job)
        {
            await images.FishForMessageAsync(message => message is ImageCommands.OpenImage open && open.ImageId == job.Id, Long);
            return images.LastSender;
        }

        Task AcknowledgedAsync(ImageJob job) => images.FishForMessageAsync(message => message is ImageCommands.AcknowledgeOutcome known && known.ImageId == job.Id, Long).AsTask();

        async Task<int> PagesAsync()
        {
            var asking = kit.CreateTestProbe();
            node.System.ActorSelection(archive.Path / "*").Tell(new Identify(1), asking.Ref);
            int count = 0;
            while (await asking.ReceiveOneAsync(TimeSpan.FromMilliseconds(400)) is ActorIdentity identity)
                count += identity.Subject is null ? 0 : 1;
            return count;
        }
    }

    [Fact]
    public async Task A_submission_that_waits_for_another_of_the_same_is_not_taken_for_unanswered()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, settings: TestNode.Fast with { PageSize = 10 });
        var archives = await Akka.Hosting.ActorRegistry.For(node.System).GetAsync<ArchiveCoordinatorKey>();
        using var kit = new TestKit(node.System);
        var jobs = Jobs(5);
        var spec = new ArchiveSpec(jobs, id: new ArchiveId("key"));
        var (slow, run) = (kit.CreateTestProbe(), new RunId("one"));
        archives.Tell(new ArchiveCommands.SubmitArchive(spec.Id, run, "", new WorkPolicy(), 5, 10, spec.Digest, Once: true), slow.Ref);
        await slow.ExpectMsgAsync<ArchiveReplies.ItemsWanted>(Long);
        var second = node.Client.SubmitOnceAsync(spec, TestNode.Fast.ReminderInterval * 3);
        await Task.Delay(TestNode.Fast.ReminderInterval * 8);
        Assert.False(second.IsCompleted);
        archives.Tell(new ArchiveCommands.AddItems(spec.Id, run, 0, jobs), slow.Ref);
        await second.WaitAsync(Long);
    }

    /// <summary>A job whose first lease of a stage is under way, and is not to be disturbed until it is let go.</summary>
    private async Task<ArchiveRun> SubmitAsync(TestNode node, int images, Stage blockedAt)
    {
        Block(work => work.Stage == blockedAt);
        var run = await node.Client.SubmitAsync(new ArchiveSpec(Jobs(images)));
        Assert.True(_blocked.Wait(Long));
        return run;
    }

    // The first lease of that kind hears nothing until it is let go.
    private void Block(Func<LeaseWork, bool> which)
    {
        int first = 0;
        _world.Before = work =>
        {
            if (!which(work) || Interlocked.Exchange(ref first, 1) == 1)
                return;
            _blocked.Set();
            _letGo.Wait(Long);
        };
    }

    private static async Task KillAsync(TestNode node, ArchiveId id)
    {
        var archive = await node.System.ActorSelection($"/user/archive-coordinator/{id}").ResolveOne(TimeSpan.FromSeconds(30));
        var gone = archive.WatchAsync();
        archive.Tell(Kill.Instance);
        await gone.WaitAsync(Long);
        // Its parent has to hear of it, too: in between messages are lost.
        await Task.Delay(TestNode.Fast.ReminderInterval);
    }

    private static ImageJob[] Jobs(int count) => [.. Enumerable.Range(0, count).Select(i => FakeWorld.Job($"a{i}", 200, 200))];

    private static async Task Eventually(Func<Task<bool>> holds)
    {
        using var limit = new CancellationTokenSource(Long);
        while (!await holds())
            await Task.Delay(50, limit.Token);
    }
}

using System.Collections.Concurrent;
using Akka.Actor;
using Akka.TestKit.Xunit2;
using BbmrCluster.Actors.Archives;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>Archives of many images, and what operators do with them.</summary>
[Collection("nodes")]
public sealed class BulkSpecs : IDisposable
{
    // A limit for what never comes, not a measure of speed: the machine may be busy.
    private static readonly TimeSpan Long = TimeSpan.FromMinutes(3);
    private readonly FakeWorld _world = new();
    private readonly JournalFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Outcomes_lie_in_pages_and_failures_are_listed_without_ending_the_archive()
    {
        _world.Before = work =>
        {
            if (work.Job.DisplayName.EndsWith('7'))
                throw new StageFailedException(FailureClass.Permanent, $"{work.Job.DisplayName}: no") { Code = "refused" };
        };
        var jobs = Jobs(120);
        await using var node = await TestNode.StartAsync(_world, _folder, devices: 4, settings: Pages);
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec(jobs, name: "bulk"));
        Assert.Equal(new ArchiveSummary(108, 0, 12, 0), await run.Completion.WaitAsync(Long));

        var failed = await node.Client.ItemsAsync(run.Id, 0, 1000, ItemState.Failed);
        Assert.Equal(Enumerable.Range(0, 12).Select(i => (10 * i) + 7), failed!.Select(item => item.Item));
        Assert.Equal(("refused", "a117: no"), (failed![^1].Code, failed[^1].Message));
        Assert.Equal(jobs.Skip(45).Take(20).Select(job => job.Id), (await node.Client.ItemsAsync(run.Id, 45, 20))!.Select(item => item.ImageId));
        Assert.Null(await node.Client.ItemsAsync(new ArchiveId("unknown"), 0, 10));

        var listed = Assert.Single(await node.Client.ListAsync());
        Assert.Equal(("bulk", ArchivePhase.Finished, 120, 108, 12, 1.0), (listed.Name, listed.Phase, listed.Images, listed.Done, listed.Failed, listed.Progress));
        Assert.Equal(0, _folder.Count("SELECT count(*) FROM journal WHERE persistence_id LIKE 'image-%' AND deleted = 0"));

        // What failed is tried again, and nothing else.
        _world.Before = _ => { };
        int before = _world.Of(Stage.Commit).Count();
        Assert.True(await node.Client.RetryAsync(run.Id));
        await Eventually(async () => (await node.Client.FindAsync(run.Id)) is { Phase: ArchivePhase.Finished, Done: 120, Failed: 0 });
        Assert.Equal(12, _world.Of(Stage.Commit).Count() - before);
        Assert.False(await node.Client.RetryAsync(new ArchiveId("unknown")));
        await Assert.ThrowsAsync<ArchiveRefusedException>(() => node.Client.PauseAsync(run.Id));
    }

    [Fact]
    public async Task A_paused_archive_does_nothing_until_it_is_resumed_also_after_a_restart()
    {
        // One page, so that nothing of it is closed as a whole.
        var (jobs, one) = (Jobs(60), Pages with { PageSize = 60 });
        _world.Hold(Stage.Score, after: 20);
        ArchiveId id;
        int ran, done;
        await using (var node = await TestNode.StartAsync(_world, _folder, settings: one))
        {
            await using var run = await node.Client.SubmitAsync(new ArchiveSpec(jobs));
            id = run.Id;
            Assert.True(_world.Held.Wait(Long));
            Assert.True(await node.Client.PauseAsync(id));
            await Eventually(async () => await node.Client.FindAsync(id) is { Phase: ArchivePhase.Paused, Open: 0 });
            done = (await node.Client.FindAsync(id))!.Done;
            Assert.NotEqual(0, done);
            _world.Release();
            ran = _world.Log.Count;
            await Task.Delay(TestNode.Fast.ReminderInterval * 3);
            Assert.Equal(ran, _world.Log.Count);
        }
        await using var second = await TestNode.StartAsync(_world, _folder, settings: one);
        // How far it is, also within a page that nobody works on.
        await Task.Delay(TestNode.Fast.ReminderInterval * 3);
        Assert.Equal((ArchivePhase.Paused, done), await second.Client.FindAsync(id) is { } paused ? (paused.Phase, paused.Done) : default);
        Assert.True(await second.Client.ResumeAsync(id));
        await Eventually(async () => await second.Client.FindAsync(id) is { Phase: ArchivePhase.Finished, Done: 60 });
        Assert.All(_world.Of(Stage.Commit).GroupBy(ran => ran.Image), same => Assert.Single(same));
    }

    [Fact]
    public async Task A_cancelled_archive_leaves_no_work_behind_and_keeps_what_is_done()
    {
        var deleted = new ConcurrentDictionary<ImageId, bool>();
        _world.Hold(Stage.Pack, after: 10);
        await using var node = await TestNode.StartAsync(_world, _folder, settings: Pages, blobs: new FakeBlobs { Deleting = image => deleted[image] = true });
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec(Jobs(40)));
        await using var watch = await node.Client.WatchAsync(run.Id);
        Assert.True(_world.Held.Wait(Long));
        Assert.True(await node.Client.CancelAsync(run.Id));
        var summary = await run.Completion.WaitAsync(Long);
        Assert.True(summary.Interrupted > 0);
        Assert.Equal(summary, await watch!.Completion.WaitAsync(Long));
        await Eventually(() => Task.FromResult(_folder.Count("SELECT count(*) FROM journal WHERE persistence_id LIKE 'image-%' AND deleted = 0") == 0));
        Assert.Empty(_world.Log.Select(ran => ran.Image).Except(deleted.Keys));
        await Assert.ThrowsAsync<ArchiveRefusedException>(() => node.Client.ResumeAsync(run.Id));
        _world.Release();
        Assert.True(await node.Client.RetryAsync(run.Id));
        await Eventually(async () => await node.Client.FindAsync(run.Id) is { Phase: ArchivePhase.Finished, Done: 40 });
    }

    [Fact]
    public async Task An_archive_that_is_cancelled_while_it_is_paused_leaves_no_work_behind_either()
    {
        ArchiveId id;
        _world.Hold(Stage.Pack, after: 10);
        await using (var first = await TestNode.StartAsync(_world, _folder, settings: Pages))
        {
            await using var run = await first.Client.SubmitAsync(new ArchiveSpec(Jobs(40)));
            id = run.Id;
            Assert.True(_world.Held.Wait(Long));
            Assert.True(await first.Client.PauseAsync(id));
            await Eventually(async () => await first.Client.FindAsync(id) is { Phase: ArchivePhase.Paused, Open: 0 });
        }
        Assert.True(Unfinished() > 0);
        var deleted = new ConcurrentDictionary<ImageId, bool>();
        await using var second = await TestNode.StartAsync(_world, _folder, settings: Pages, blobs: new FakeBlobs { Deleting = image => deleted[image] = true });
        Assert.True(await second.Client.CancelAsync(id));
        await Eventually(() => Task.FromResult(Unfinished() == 0));
        Assert.NotEmpty(deleted);

        long Unfinished() => _folder.Count("SELECT count(*) FROM journal WHERE persistence_id LIKE 'image-%' AND deleted = 0");
    }

    [Fact]
    public async Task Another_archive_under_a_submitters_key_is_refused()
    {
        await using var node = await TestNode.StartAsync(_world, _folder);
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec(Jobs(2), id: new ArchiveId("key")));
        Assert.Equal("key", run.Id.Value);
        await run.Completion.WaitAsync(Long);
        await Assert.ThrowsAsync<ArchiveRefusedException>(() => node.Client.SubmitAsync(new ArchiveSpec(Jobs(3), id: new ArchiveId("key"))));
        await using var again = await node.Client.SubmitAsync(new ArchiveSpec(Jobs(2), id: new ArchiveId("key")));
        Assert.Equal(new ArchiveSummary(0, 2, 0, 0), await again.Completion.WaitAsync(Long));
    }

    [Fact]
    public async Task What_is_submitted_once_is_one_run_however_often_it_is_sent()
    {
        _world.Hold(Stage.Score);
        await using var node = await TestNode.StartAsync(_world, _folder, settings: Pages);
        var spec = new ArchiveSpec(Jobs(25), id: new ArchiveId("key"));
        await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => node.Client.SubmitOnceAsync(new ArchiveSpec(Jobs(25), id: new ArchiveId("key")))));
        Assert.True(_world.Held.Wait(Long));
        // The last image differs, which neither the count nor the first page shows.
        var other = await Assert.ThrowsAsync<ArchiveRefusedException>(() => node.Client.SubmitOnceAsync(new ArchiveSpec([.. Jobs(24), FakeWorld.Job("z", 100, 100)], id: new ArchiveId("key"))));
        Assert.True(other.IsOther);
        _world.Release();
        await Eventually(async () => await node.Client.FindAsync(spec.Id) is { Phase: ArchivePhase.Finished, Done: 25 });
        var ended = (await node.Client.FindAsync(spec.Id))!;
        int ran = _world.Log.Count;
        await node.Client.SubmitOnceAsync(spec);
        Assert.Equal((ended, ran), ((await node.Client.FindAsync(spec.Id))!, _world.Log.Count));
    }

    [Fact]
    public async Task A_submission_that_never_became_complete_can_be_cancelled_and_sent_again()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, settings: Pages);
        var archives = await Akka.Hosting.ActorRegistry.For(node.System).GetAsync<ArchiveCoordinatorKey>();
        using var kit = new TestKit(node.System);
        var jobs = Jobs(25);
        var spec = new ArchiveSpec(jobs, id: new ArchiveId("half"));
        var gone = kit.CreateTestProbe();
        archives.Tell(new ArchiveCommands.SubmitArchive(spec.Id, new RunId("one"), "", new WorkPolicy(), 25, 10, spec.Digest), gone.Ref);
        await gone.ExpectMsgAsync<ArchiveReplies.ItemsWanted>(TimeSpan.FromSeconds(120));
        archives.Tell(new ArchiveCommands.AddItems(spec.Id, new RunId("one"), 0, jobs[..10]), gone.Ref);
        Assert.Equal(10, (await gone.ExpectMsgAsync<ArchiveReplies.ItemsWanted>(TimeSpan.FromSeconds(120))).First);
        await Assert.ThrowsAsync<ArchiveRefusedException>(() => node.Client.PauseAsync(spec.Id));
        Assert.True(await node.Client.CancelAsync(spec.Id));
        await Eventually(async () => await node.Client.FindAsync(spec.Id) is { Phase: ArchivePhase.Cancelled });
        Assert.Empty(_world.Log);

        await node.Client.SubmitOnceAsync(spec);
        await Eventually(async () => await node.Client.FindAsync(spec.Id) is { Phase: ArchivePhase.Finished, Done: 25 });
    }

    [Fact]
    public async Task A_page_that_was_started_again_lets_the_images_go_that_it_closed_before()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, devices: 0);
        using var kit = new TestKit(node.System);
        var images = kit.CreateTestProbe();
        var (archive, run, jobs) = (new ArchiveId("x"), new RunId("one"), Jobs(3));
        var page = Start();
        page.Tell(new PageMessages.Fill(0, jobs, 3));
        page.Tell(new PageMessages.Work(run, 0, new WorkPolicy(), 3));
        await Until<ImageCommands.OpenImage>(jobs[0].Id);
        page.Tell(new ArchiveFacts.ImageClosed(jobs[0].Id, run, new ImageOutcome.Done("")));
        // Which the image may never get.
        await Until<ImageCommands.AcknowledgeOutcome>(jobs[0].Id);
        await GoneAsync(page);

        page = Start();
        page.Tell(new PageMessages.Work(run, 0, new WorkPolicy(), 3));
        Assert.Equal(run, (await Until<ImageCommands.AcknowledgeOutcome>(jobs[0].Id)).Run);
        await Until<ImageCommands.OpenImage>(jobs[1].Id);
        await GoneAsync(page);

        // In another run all are opened, and what the one before said of them means nothing.
        page = Start();
        page.Tell(new PageMessages.Work(new RunId("two"), 0, new WorkPolicy(), 3));
        var first = await images.FishForMessageAsync(message => message is ImageCommands.AcknowledgeOutcome || (message is ImageCommands.OpenImage open && open.Run != run), Long);
        Assert.Equal(jobs[0].Id, Assert.IsType<ImageCommands.OpenImage>(first).ImageId);

        async Task GoneAsync(IActorRef actor)
        {
            var probe = kit.CreateTestProbe();
            await probe.WatchAsync(actor);
            actor.Tell(Kill.Instance);
            await probe.ExpectTerminatedAsync(actor, Long);
        }

        IActorRef Start() => node.System.ActorOf(ArchivePage.Props(archive, 0, images.Ref, TestNode.Fast));

        async Task<T> Until<T>(ImageId image)
            where T : class, IWithImageId => (T)await images.FishForMessageAsync(message => message is T told && told.ImageId == image, Long);
    }

    [Fact]
    public async Task A_submission_that_nobody_answers_ends_and_one_that_only_takes_long_does_not()
    {
        await using var node = await TestNode.StartAsync(_world, _folder);
        using var kit = new TestKit(node.System);
        var (archives, registry) = (kit.CreateTestProbe(), Akka.Hosting.ActorRegistry.For(node.System));
        registry.Register<ArchiveCoordinatorKey>(archives.Ref, overwrite: true);
        var client = new BbmrClient(node.System, registry, TestNode.Fast);
        var silence = TimeSpan.FromSeconds(1);
        await Assert.ThrowsAsync<TimeoutException>(() => client.SubmitAsync(new ArchiveSpec(Jobs(2)), silence).WaitAsync(Long));

        var slow = client.SubmitAsync(new ArchiveSpec(Jobs(3)), silence);
        var submitted = (ArchiveCommands.SubmitArchive)await archives.FishForMessageAsync(message => message is ArchiveCommands.SubmitArchive { Images: 3 }, Long);
        var submitter = archives.LastSender;
        for (int i = 0; i < 15; i++)
        {
            submitter.Tell(new ArchiveReplies.ItemsWanted(submitted.ArchiveId, submitted.Run, 0, 1));
            await Task.Delay(200);
        }
        Assert.False(slow.IsCompleted);
        submitter.Tell(new ArchiveReplies.ArchiveAccepted(submitted.ArchiveId, submitted.Run, 3));
        await (await slow.WaitAsync(Long)).DisposeAsync();
    }

    [Fact]
    public async Task Of_small_images_more_are_open_at_once()
    {
        var open = new HashSet<ImageId>();
        int most = 0;
        _world.Before = work =>
        {
            lock (open)
            {
                if (work.Stage == Stage.Ingest)
                    open.Add(work.Job.Id);
                else if (work.Stage == Stage.Commit)
                    open.Remove(work.Job.Id);
                most = Math.Max(most, open.Count);
            }
        };
        await using var node = await TestNode.StartAsync(_world, _folder, devices: 4, settings: TestNode.Fast with { OpenImages = 1, MostOpenImages = 8 });
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec(Jobs(150)));
        Assert.Equal(new ArchiveSummary(150, 0, 0, 0), await run.Completion.WaitAsync(Long));
        Assert.InRange(most, 2, 8);
    }

    [Fact]
    public async Task An_image_whose_entry_the_journal_refuses_fails_and_the_archive_goes_on()
    {
        var jobs = Jobs(5);
        // A report that is none: the entry that would hold it cannot be written.
        _world.Committed[jobs[2].Outputs.Report] = null!;
        await using var node = await TestNode.StartAsync(_world, _folder);
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec(jobs));
        Assert.Equal(new ArchiveSummary(4, 0, 1, 0), await run.Completion.WaitAsync(Long));
        var failed = Assert.Single((await node.Client.ItemsAsync(run.Id, 0, 10, ItemState.Failed))!);
        Assert.Equal((2, "journal"), (failed.Item, failed.Code));
        Assert.StartsWith("a2: the journal refuses an entry: ", failed.Message, StringComparison.Ordinal);
        await Eventually(() => Task.FromResult(_folder.Count("SELECT count(*) FROM journal WHERE persistence_id LIKE 'image-%' AND deleted = 0") == 0));
    }

    [Fact]
    public async Task A_block_that_cannot_be_scored_fails_the_image_when_the_submitter_wants_that()
    {
        var good = _world.Sse;
        _world.Sse = block => block == 5 ? [1, double.NaN, 100] : good(block);
        var job = FakeWorld.Job("a", 60 * 128, 128);
        await using var node = await TestNode.StartAsync(_world, _folder);
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec([job], new WorkPolicy(Poison: PoisonRule.Fail)));
        Assert.Equal(new ImageOutcome.Failed("poison", "a: block 5 cannot be scored"), (await TestNode.Collect(run)).Outcome(job.Id));
    }

    [Fact]
    public async Task Images_of_a_submission_travel_in_messages_that_hold_nothing_up()
    {
        await using var node = await TestNode.StartAsync(_world, _folder, devices: 0);
        using var kit = new TestKit(node.System);
        var archive = kit.CreateTestProbe();
        string deep = string.Concat(Enumerable.Repeat("/a-folder-with-a-long-näme", 20));
        var jobs = Jobs(2500).Select(job => job with { Source = deep + job.Source, Outputs = job.Outputs with { Container = deep + job.Outputs.Container } }).ToList();
        var run = new ArchiveRun(new ArchiveId("x"));
        var actor = node.System.ActorOf(Props.Create(() => new ArchiveRunActor(new ArchiveSpec(jobs, null, "", new ArchiveId("x")), run, archive.Ref, new CoordinationSettings(), false)));
        var submit = await archive.ExpectMsgAsync<ArchiveCommands.SubmitArchive>(TimeSpan.FromSeconds(120));
        actor.Tell(new ArchiveReplies.ItemsWanted(run.Id, submit.Run, 1000, 1000));
        var serializer = new ProtocolSerializer((ExtendedActorSystem)node.System);
        var came = new List<ImageId>();
        while (came.Count < 1000)
        {
            var items = await archive.ExpectMsgAsync<ArchiveCommands.AddItems>(TimeSpan.FromSeconds(120));
            Assert.Equal(1000 + came.Count, items.First);
            Assert.InRange(serializer.ToBinary(items).Length, 1, 64 * 1024);
            came.AddRange(items.Jobs.Select(job => job.Id));
        }
        Assert.Equal(jobs.Skip(1000).Take(1000).Select(job => job.Id), came);
    }

    private static CoordinationSettings Pages => TestNode.Fast with { PageSize = 10, OpenImages = 7, MostOpenImages = 7 };

    private static ImageJob[] Jobs(int count) => [.. Enumerable.Range(0, count).Select(i => FakeWorld.Job($"a{i}", 100, 100))];

    private static async Task Eventually(Func<Task<bool>> holds)
    {
        var limit = DateTimeOffset.UtcNow + Long;
        while (!await holds())
        {
            Assert.True(DateTimeOffset.UtcNow < limit, "It did not come true.");
            await Task.Delay(50);
        }
    }
}

using System.Collections.Concurrent;
using Akka.Actor;
using Akka.TestKit.Xunit2;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>Whole nodes in local mode, from submission to the last notification, with fake devices.</summary>
[Collection("nodes")]
public sealed class LocalNodeSpecs : IDisposable
{
    private readonly FakeWorld _world = new();
    private readonly JournalFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(JobKind.Rescale, 700, 500)]
    [InlineData(JobKind.Rescale, 1, 1)]
    [InlineData(JobKind.Rescale, 20000, 200)]
    [InlineData(JobKind.Upscale, 700, 500)]
    public async Task An_image_goes_through_all_its_stages_once(JobKind kind, int width, int height)
    {
        var job = FakeWorld.Job("a", width, height, kind);
        await using var node = await TestNode.StartAsync(_world, _folder);
        var all = await node.RunAsync(job);

        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        Assert.Equal(new ArchiveSummary(1, 0, 0, 0), all.Summary());
        Assert.IsType<JobNotification.ImageStarted>(all[0]);
        Assert.IsType<JobNotification.ArchiveFinished>(all[^1]);
        var grid = new Rescaling.BlockGrid(width, height);
        foreach (var stage in kind == JobKind.Upscale ? new[] { Stage.Reconstruct } : [Stage.Score, Stage.Pack, Stage.Reconstruct])
            Assert.Equal(Enumerable.Range(0, grid.Count), _world.Of(stage).SelectMany(ran => Enumerable.Range(ran.FirstBlock, ran.BlockCount)).Order());
        Assert.All(_world.Of(Stage.Score), ran => Assert.InRange(ran.BlockCount, 1, 64));
        Assert.Single(_world.Of(Stage.Ingest));
        Assert.Single(_world.Of(Stage.Finish));
        Assert.Single(_world.Of(Stage.Commit));
        var last = all.OfType<JobNotification.ImageProgressed>().Last().Progress;
        Assert.Equal(last.TotalUnits, last.DoneUnits);
    }

    [Fact]
    public async Task A_closed_image_leaves_no_events_behind()
    {
        var job = FakeWorld.Job("a", 700, 500);
        await using var node = await TestNode.StartAsync(_world, _folder);
        await node.RunAsync(job);
        await Eventually(() => _folder.Entries(job.Id) == 0);
    }

    [Fact]
    public async Task One_poison_block_of_sixty_is_quarantined_in_at_most_fourteen_leases()
    {
        _world.Before = work =>
        {
            if (work.Stage == Stage.Score && work.FirstBlock <= 17 && 17 < work.FirstBlock + work.BlockCount)
                throw new StageFailedException(FailureClass.Block, "block 17 is poison");
        };
        var job = FakeWorld.Job("a", 60 * 128, 128);
        await using var node = await TestNode.StartAsync(_world, _folder);
        var all = await node.RunAsync(job);

        var done = Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        Assert.Contains("\"quarantined\":1,", done.ReportJson, StringComparison.Ordinal);
        Assert.InRange(_world.Of(Stage.Score).Count(), 2, 14);
        var finish = _world.Of(Stage.Finish).Single().Work;
        Assert.Equal([17], finish.Quarantined);
        Assert.Equal(1, finish.Scales![17]);
        Assert.True(finish.Tally.BisectedLeases > 0);
        Assert.All(Enumerable.Range(0, 60).Where(block => block != 17), block => Assert.Equal(_world.Sse(block)[finish.Scales[block]], finish.Scores![block]));
    }

    [Fact]
    public async Task A_block_without_finite_scores_is_tried_alone_and_quarantined()
    {
        var good = _world.Sse;
        _world.Sse = block => block == 5 ? [1, double.NaN, 100] : good(block);
        var job = FakeWorld.Job("a", 60 * 128, 128);
        await using var node = await TestNode.StartAsync(_world, _folder);
        var all = await node.RunAsync(job);

        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        Assert.Equal([(0, 60), (5, 1)], _world.Of(Stage.Score).Select(ran => (ran.FirstBlock, ran.BlockCount)));
        Assert.Equal([5], _world.Of(Stage.Finish).Single().Work.Quarantined);
    }

    [Theory]
    [InlineData(Stage.Score, "source-1")]
    [InlineData(Stage.Pack, "source-0")]
    [InlineData(Stage.Reconstruct, "packed-2")]
    [InlineData(Stage.Finish, "rows-3")]
    [InlineData(Stage.Finish, "top-1")]
    public async Task A_lost_blob_reopens_the_lease_that_made_it(Stage reader, string label)
    {
        var job = FakeWorld.Job("a", 60 * 128, 4 * 128);
        bool lost = false;
        _world.Before = work =>
        {
            var blob = work.Strips.SelectMany(strip => new[] { strip.Raw, strip.Packed, strip.Rows, strip.Top }).FirstOrDefault(blob => blob?.Name == $"{work.Job.Id}/{label}");
            if (!lost && work.Stage == reader && blob is not null)
            {
                lost = true;
                throw new StageFailedException(FailureClass.BlobLost, "a blob is gone", blob);
            }
        };
        await using var node = await TestNode.StartAsync(_world, _folder);
        var all = await node.RunAsync(job);

        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        Assert.True(lost);
        int strip = label[^1] - '0';
        var (maker, expected) = label[..^2] switch
        {
            "source" => (Stage.Ingest, 2),
            "packed" => (Stage.Pack, 5),
            _ => (Stage.Reconstruct, 5),
        };
        Assert.Equal(expected, _world.Of(maker).Count());
        if (maker == Stage.Ingest)
            Assert.DoesNotContain(_world.Of(Stage.Ingest).Last().Work.Strips, known => known.Strip == strip);
        else
            Assert.Equal(2, _world.Of(maker).Count(ran => ran.FirstBlock == strip * 60));
    }

    [Fact]
    public async Task A_blob_that_is_lost_again_and_again_fails_the_image()
    {
        _world.Before = work =>
        {
            if (work.Stage == Stage.Score)
                throw new StageFailedException(FailureClass.BlobLost, "a.png: strip 0 is damaged", work.Strips[0].Raw);
        };
        var job = FakeWorld.Job("a", 128, 128);
        await using var node = await TestNode.StartAsync(_world, _folder);
        var all = await node.RunAsync(job);
        Assert.Equal(new ImageOutcome.Failed("lost", "a.png: strip 0 is damaged"), all.Outcome(job.Id));
    }

    [Fact]
    public async Task Prepared_files_that_are_gone_are_prepared_again()
    {
        bool lost = false;
        _world.Before = work =>
        {
            if (work.Stage == Stage.Commit && !lost)
            {
                lost = true;
                throw new StageFailedException(FailureClass.BlobLost, "the prepared file is gone");
            }
        };
        var job = FakeWorld.Job("a", 300, 300);
        await using var node = await TestNode.StartAsync(_world, _folder);
        var all = await node.RunAsync(job);
        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        Assert.Equal(2, _world.Of(Stage.Finish).Count());
        Assert.Equal(2, _world.Of(Stage.Commit).Count());
    }

    [Fact]
    public async Task A_full_store_pauses_with_one_line_and_goes_on_when_there_is_room()
    {
        int tries = 0;
        _world.Before = work =>
        {
            if (work.Stage == Stage.Pack && work.FirstBlock == 60 && ++tries <= 4)
                throw new StageFailedException(FailureClass.StoreFull, "the work directory is full");
        };
        var job = FakeWorld.Job("a", 60 * 128, 6 * 128);
        await using var node = await TestNode.StartAsync(_world, _folder);
        var all = await node.RunAsync(job);

        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        Assert.Equal("the work directory is full", Assert.Single(all.OfType<JobNotification.ImagePaused>()).Reason);
        Assert.Single(all.OfType<JobNotification.ImageResumed>());
        // A try that met a full store is no attempt.
        Assert.All(_world.Of(Stage.Pack).Where(ran => ran.FirstBlock == 60), ran => Assert.Equal(1, ran.Work.Attempt));
        Assert.Equal(5, tries);
    }

    [Fact]
    public async Task A_passing_failure_is_tried_again_and_a_lasting_one_fails_the_image_alone()
    {
        int tries = 0;
        _world.Before = work =>
        {
            if (work.Stage == Stage.Pack && work.Job.DisplayName == "shaky" && ++tries < 3)
                throw new InvalidOperationException("the device hiccuped");
            if (work.Stage == Stage.Reconstruct && work.Job.DisplayName == "broken")
                throw new InvalidOperationException("broken: the device always fails");
            if (work.Stage == Stage.Ingest && work.Job.DisplayName == "bad")
                throw new StageFailedException(FailureClass.Permanent, "bad: not an image") { Code = "refused" };
        };
        ImageJob shaky = FakeWorld.Job("shaky", 200, 200), broken = FakeWorld.Job("broken", 200, 200), bad = FakeWorld.Job("bad", 200, 200), good = FakeWorld.Job("good", 200, 200);
        await using var node = await TestNode.StartAsync(_world, _folder);
        var all = await node.RunAsync(bad, shaky, broken, good);

        Assert.IsType<ImageOutcome.Done>(all.Outcome(shaky.Id));
        Assert.IsType<ImageOutcome.Done>(all.Outcome(good.Id));
        Assert.Equal(new ImageOutcome.Failed("failed", "broken: the device always fails"), all.Outcome(broken.Id));
        Assert.Equal(new ImageOutcome.Failed("refused", "bad: not an image"), all.Outcome(bad.Id));
        Assert.Equal(3, _world.Of(Stage.Reconstruct).Count(ran => ran.Image == broken.Id));
        Assert.Equal(new ArchiveSummary(2, 0, 2, 0), all.Summary());
    }

    [Fact]
    public async Task Devices_that_cannot_be_made_fail_the_image_with_their_sentence()
    {
        var job = FakeWorld.Job("a", 200, 200);
        var broken = new FakeWorld();
        await using var node = await TestNode.StartAsync(broken, _folder, devices: 0);
        node.System.ActorOf(Workers.WorkerManager.Props(new WorkerId("x"), node.Broker, node.Images,
            [new DeviceSlot("x", () => throw new InvalidOperationException("there is no such device"))], TestNode.Fast));
        var all = await node.RunAsync(job);
        Assert.Equal(new ImageOutcome.Failed("device", "there is no such device"), all.Outcome(job.Id));
    }

    [Fact]
    public async Task An_8K_image_takes_about_forty_journal_entries()
    {
        var job = FakeWorld.Job("a", 7680, 4320);
        _world.Hold(Stage.Commit);
        await using var node = await TestNode.StartAsync(_world, _folder, devices: 2, settings: TestNode.Fast with { CommitInterval = new CoordinationSettings().CommitInterval });
        var run = node.RunAsync(job);
        Assert.True(_world.Held.Wait(TimeSpan.FromSeconds(60)));
        Assert.InRange(_folder.Entries(job.Id), 3, 60);
        _world.Release();
        Assert.IsType<ImageOutcome.Done>((await run).Outcome(job.Id));
        Assert.Equal(34, _world.Of(Stage.Score).Count());
    }

    [Theory]
    [InlineData(Stage.Ingest)]
    [InlineData(Stage.Score)]
    [InlineData(Stage.Pack)]
    [InlineData(Stage.Reconstruct)]
    [InlineData(Stage.Finish)]
    [InlineData(Stage.Commit)]
    public async Task A_node_lost_at_any_stage_is_continued_by_the_next_without_redoing_finished_strips(Stage stage)
    {
        var job = FakeWorld.Job("a", 60 * 128, 8 * 128);
        _world.Hold(stage, after: stage is Stage.Score or Stage.Pack or Stage.Reconstruct ? 4 : 0);
        await using (var first = await TestNode.StartAsync(_world, _folder))
        {
            await using var run = await first.Client.SubmitAsync(new ArchiveSpec([job]));
            // Finish and Commit are granted only when everything before them is written; four leases of the others are.
            await foreach (var one in run.Notifications)
            {
                if (stage is Stage.Ingest or Stage.Finish or Stage.Commit
                    || (one is JobNotification.ImageProgressed { Progress: var progress } && progress.Stages.Single(s => s.Stage == stage).DoneBlocks == 4 * 60))
                    break;
            }
            Assert.True(_world.Held.Wait(TimeSpan.FromSeconds(120)));
            await first.System.Terminate();
        }
        _world.Release();
        await using var second = await TestNode.StartAsync(_world, _folder);
        var all = await second.RunAsync(job);

        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        foreach (var whole in new[] { Stage.Score, Stage.Pack, Stage.Reconstruct })
            Assert.All(_world.Of(whole).GroupBy(ran => ran.FirstBlock), same => Assert.Single(same));
        int resumed = all.OfType<JobNotification.ImageStarted>().Single().ResumedLeases;
        Assert.Equal(stage switch { Stage.Ingest => 0, Stage.Score => 5, Stage.Pack => 13, Stage.Reconstruct => 21, Stage.Finish => 25, _ => 26 }, resumed);
    }

    [Theory]
    [InlineData("image")]
    [InlineData("archive")]
    public async Task A_damaged_journal_entry_ends_the_run_in_place_of_trying_for_ever(string entity)
    {
        var job = FakeWorld.Job("a", 300, 300);
        _world.Hold(Stage.Pack);
        await using (var first = await TestNode.StartAsync(_world, _folder))
        {
            await first.Client.SubmitAsync(new ArchiveSpec([job]));
            Assert.True(_world.Held.Wait(TimeSpan.FromSeconds(120)));
            await first.System.Terminate();
        }
        _folder.Execute($"UPDATE journal SET message = substr(message, 1, length(message) - 9) WHERE persistence_id LIKE '{entity}-%' AND sequence_number = 2");
        _world.Release();
        await using var second = await TestNode.StartAsync(_world, _folder);
        var error = await Assert.ThrowsAsync<JournalUnreadableException>(() => second.RunAsync(job));
        Assert.Contains(entity, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(100)]
    [InlineData(5000)]
    public void A_damaged_journal_file_is_refused_with_a_sentence_that_says_what_to_do(int from)
    {
        SqliteJournal.Prepare(_folder.Journal);
        _folder.Execute("CREATE TABLE filler (x TEXT)");
        for (int i = 0; i < 40; i++)
            _folder.Execute("INSERT INTO filler VALUES (hex(randomblob(2000)))");
        SqliteJournal.Release(_folder.Journal);
        using (var file = File.OpenWrite(_folder.Journal))
        {
            file.Position = from;
            file.Write(Enumerable.Repeat((byte)0x5a, 60_000).ToArray());
        }
        var error = Assert.Throws<WorkDirectoryException>(() => SqliteJournal.Prepare(_folder.Journal));
        Assert.StartsWith($"the journal {_folder.Journal} is damaged; delete {Path.GetDirectoryName(_folder.Journal)} and run the same command again", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_image_coordinator_that_dies_is_brought_back_and_goes_on()
    {
        var job = FakeWorld.Job("a", 60 * 128, 8 * 128);
        _world.Hold(Stage.Score, after: 3);
        await using var node = await TestNode.StartAsync(_world, _folder);
        var run = node.RunAsync(job);
        Assert.True(_world.Held.Wait(TimeSpan.FromSeconds(120)));
        node.System.ActorSelection($"/user/image-coordinator/{job.Id}").Tell(Kill.Instance);
        await Task.Delay(100);
        _world.Release();
        Assert.IsType<ImageOutcome.Done>((await run).Outcome(job.Id));
    }

    [Fact]
    public async Task A_worker_that_is_lost_gives_its_leases_to_the_next()
    {
        var job = FakeWorld.Job("a", 60 * 128, 4 * 128);
        _world.Hold(Stage.Score, after: 1);
        await using var node = await TestNode.StartAsync(_world, _folder);
        var run = node.RunAsync(job);
        Assert.True(_world.Held.Wait(TimeSpan.FromSeconds(120)));
        node.System.ActorSelection("/user/worker-manager").Tell(PoisonPill.Instance);
        _world.Release();
        node.System.ActorOf(Workers.WorkerManager.Props(new WorkerId("next"), node.Broker, node.Images, [new DeviceSlot("b", _world.Runner)], TestNode.Fast));
        Assert.IsType<ImageOutcome.Done>((await run).Outcome(job.Id));
    }

    [Fact]
    public async Task A_worker_with_other_weights_is_passed_over_and_a_job_that_no_worker_has_the_weights_of_says_so()
    {
        var job = FakeWorld.Job("a", 200, 200);
        var (wrong, models) = (new FakeWorld(), new ConcurrentDictionary<string, string> { ["w"] = "ff" });
        await using var node = await TestNode.StartAsync(_world, _folder, devices: 0);
        node.System.ActorOf(Workers.WorkerManager.Props(new WorkerId("other"), node.Broker, node.Images,
            [new DeviceSlot("b", wrong.Runner, Weights: () => new Dictionary<string, string> { ["w"] = "ff" })], TestNode.Fast));
        node.System.ActorOf(Workers.WorkerManager.Props(new WorkerId("later"), node.Broker, node.Images, [new DeviceSlot("c", _world.Runner, Weights: () => models)], TestNode.Fast));
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec([job]));
        var all = new List<JobNotification>();
        await foreach (var one in run.Notifications)
        {
            all.Add(one);
            // The right ones arrive while the worker runs.
            if (one is JobNotification.ImagePaused)
                models["w"] = "00";
        }
        Assert.Contains("no worker has the weights that the job names (w)", Assert.Single(all.OfType<JobNotification.ImagePaused>()).Reason, StringComparison.Ordinal);
        Assert.Single(all.OfType<JobNotification.ImageResumed>());
        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        Assert.Empty(wrong.Log);
    }

    [Fact]
    public async Task A_job_without_workers_says_so_until_one_is_there()
    {
        var job = FakeWorld.Job("a", 200, 200);
        await using var node = await TestNode.StartAsync(_world, _folder, devices: 0);
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec([job]));
        var all = new List<JobNotification>();
        await foreach (var one in run.Notifications)
        {
            all.Add(one);
            if (one is JobNotification.ImagePaused)
                node.System.ActorOf(Workers.WorkerManager.Props(new WorkerId("late"), node.Broker, node.Images, [new DeviceSlot("a", _world.Runner)], TestNode.Fast));
        }
        Assert.Equal("no worker is there, or all are drained", Assert.Single(all.OfType<JobNotification.ImagePaused>()).Reason);
        Assert.Single(all.OfType<JobNotification.ImageResumed>());
        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
    }

    [Fact]
    public async Task A_silent_lease_is_granted_again_after_its_deadline()
    {
        var job = FakeWorld.Job("a", 60 * 128, 128);
        using var never = new ManualResetEventSlim();
        int tries = 0;
        // The first lease hangs and does not even hear that it is cancelled.
        _world.Before = work =>
        {
            if (work.Stage == Stage.Score && Interlocked.Increment(ref tries) == 1)
                never.Wait(TimeSpan.FromSeconds(120));
        };
        var settings = TestNode.Fast with { FirstDeadline = TimeSpan.FromMilliseconds(300), MinimumDeadline = TimeSpan.FromMilliseconds(300) };
        await using (var node = await TestNode.StartAsync(_world, _folder, devices: 2, settings: settings))
        {
            var all = await node.RunAsync(job);
            Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
            Assert.True(tries >= 2);
            never.Set();
        }
    }

    [Fact]
    public async Task Stopping_gives_leases_back_and_the_same_archive_goes_on_later()
    {
        var jobs = Enumerable.Range(0, 6).Select(i => FakeWorld.Job($"a{i}", 60 * 128, 3 * 128)).ToArray();
        _world.Hold(Stage.Reconstruct, after: 1);
        await using var node = await TestNode.StartAsync(_world, _folder);
        await using var run = await node.Client.SubmitAsync(new ArchiveSpec(jobs));
        Assert.True(_world.Held.Wait(TimeSpan.FromSeconds(120)));
        var summary = await run.StopAsync().WaitAsync(TimeSpan.FromSeconds(120));
        var all = await TestNode.Collect(run);

        Assert.Equal(new ArchiveSummary(0, 0, 0, 6), summary);
        Assert.All(jobs, job => Assert.IsType<ImageOutcome.Interrupted>(all.Outcome(job.Id)));
        _world.Release();
        var again = await node.RunAsync(jobs);
        Assert.Equal(new ArchiveSummary(6, 0, 0, 0), again.Summary());
        Assert.All(_world.Of(Stage.Score).GroupBy(ran => (ran.Image, ran.FirstBlock)), same => Assert.Single(same));
    }

    [Fact]
    public async Task A_finished_archive_asks_its_images_again_and_redoes_only_what_is_gone()
    {
        var jobs = Enumerable.Range(0, 3).Select(i => FakeWorld.Job($"a{i}", 300, 200)).ToArray();
        await using var node = await TestNode.StartAsync(_world, _folder);
        Assert.Equal(3, (await node.RunAsync(jobs)).Summary().Done);
        _world.Committed.TryRemove(jobs[1].Outputs.Report, out _);
        var again = await node.RunAsync(jobs);

        Assert.Equal(new ArchiveSummary(1, 2, 0, 0), again.Summary());
        Assert.Equal(new ImageOutcome.Skipped("report of a0"), again.Outcome(jobs[0].Id));
        Assert.IsType<ImageOutcome.Done>(again.Outcome(jobs[1].Id));
    }

    [Fact]
    public async Task An_archive_of_25_images_is_done_by_two_devices()
    {
        var jobs = Enumerable.Range(0, 25).Select(i => FakeWorld.Job($"a{i}", 100 + (60 * i), 100 + (30 * i))).ToArray();
        await using var node = await TestNode.StartAsync(_world, _folder, devices: 2, settings: TestNode.Fast with { PageSize = 10 });
        var all = await node.RunAsync(jobs);
        Assert.Equal(new ArchiveSummary(25, 0, 0, 0), all.Summary());
        Assert.Equal(25, all.OfType<JobNotification.ImageFinished>().Select(finished => finished.ImageId).Distinct().Count());
        Assert.Equal(2, _world.Log.Select(ran => ran.Thread).Distinct().Count());
    }

    [Fact]
    public async Task The_more_important_archive_is_served_first()
    {
        ImageJob[] low = [FakeWorld.Job("low", 60 * 128, 20 * 128)], high = [FakeWorld.Job("high", 60 * 128, 2 * 128)];
        _world.Hold(Stage.Score, after: 2);
        // Leases take a while, as real ones do: otherwise the rest of the first archive fits into a few messages.
        _world.Before = _ => Thread.Sleep(10);
        await using var node = await TestNode.StartAsync(_world, _folder);
        await using var first = await node.Client.SubmitAsync(new ArchiveSpec(low));
        Assert.True(_world.Held.Wait(TimeSpan.FromSeconds(120)));
        await using var second = await node.Client.SubmitAsync(new ArchiveSpec(high, new WorkPolicy(new Priority(5))));
        await foreach (var one in second.Notifications)
        {
            if (one is JobNotification.ImageStarted)
                break;
        }
        _world.Release();
        await second.Completion.WaitAsync(TimeSpan.FromSeconds(120));
        Assert.False(first.Completion.IsCompleted);
        await first.Completion.WaitAsync(TimeSpan.FromSeconds(120));
    }

    [Fact]
    public async Task The_blobs_of_a_closed_image_are_deleted()
    {
        var job = FakeWorld.Job("a", 300, 200);
        var deleted = new TaskCompletionSource<ImageId>();
        await using var node = await TestNode.StartAsync(_world, _folder, settings: TestNode.Fast, blobs: new FakeBlobs { Deleting = image => deleted.TrySetResult(image) });
        await node.RunAsync(job);
        Assert.Equal(job.Id, await deleted.Task.WaitAsync(TimeSpan.FromSeconds(120)));
    }

    [Fact]
    public async Task A_watcher_that_goes_after_the_end_does_not_take_the_archive_with_it()
    {
        var job = FakeWorld.Job("a", 300, 200);
        await using var node = await TestNode.StartAsync(_world, _folder);
        using var kit = new TestKit(node.System);
        var errors = kit.CreateTestProbe();
        node.System.EventStream.Subscribe(errors.Ref, typeof(Akka.Event.Error));
        // Its parent does not stop it when it is idle, as a busy one would not yet have.
        var archive = node.System.ActorOf(Archives.ArchiveCoordinator.Props(new ArchiveId("x"), node.Images, ActorRefs.Nobody, continues: false, TestNode.Fast));
        var watcher = kit.CreateTestProbe();
        var submit = new ArchiveCommands.SubmitArchive(new ArchiveId("x"), new RunId("one"), "", new WorkPolicy(), 1, 10, "digest");
        archive.Tell(submit, watcher.Ref);
        Assert.Equal(1, (await watcher.ExpectMsgAsync<ArchiveReplies.ItemsWanted>(TimeSpan.FromSeconds(120))).Count);
        archive.Tell(new ArchiveCommands.AddItems(new ArchiveId("x"), new RunId("one"), 0, [job]), watcher.Ref);
        await watcher.FishForMessageAsync(message => message is ArchiveReplies.Notified { Notification: JobNotification.ArchiveFinished }, TimeSpan.FromSeconds(120));
        kit.Watch(watcher.Ref);
        node.System.Stop(watcher.Ref);
        await kit.ExpectTerminatedAsync(watcher.Ref, TimeSpan.FromSeconds(120));

        archive.Tell(submit, kit.TestActor);
        await kit.FishForMessageAsync(message => message is ArchiveReplies.ArchiveAccepted, TimeSpan.FromSeconds(120));
        await errors.ExpectNoMsgAsync(TimeSpan.FromMilliseconds(200));
    }

    private static async Task Eventually(Func<bool> holds)
    {
        for (int i = 0; i < 200 && !holds(); i++)
            await Task.Delay(50);
        Assert.True(holds());
    }
}

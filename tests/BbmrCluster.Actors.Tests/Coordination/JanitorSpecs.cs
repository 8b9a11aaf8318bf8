using Akka.TestKit;
using Akka.TestKit.Xunit2;
using BbmrCluster.Actors.Images;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>The janitor by itself, its clock in the hands of the test.</summary>
public sealed class JanitorSpecs() : TestKit("akka.scheduler.implementation = \"Akka.TestKit.TestScheduler, Akka.TestKit\"")
{
    private static readonly ImageId Fresh = new("fresh"), Orphan = new("orphan"), Idle = new("idle");
    private static readonly DateTimeOffset At = new(2026, 1, 31, 12, 0, 0, TimeSpan.Zero);

    [Fact]
    public void It_asks_about_what_was_not_written_in_a_long_time_the_oldest_first()
    {
        StoredImage[] stored = [new(Fresh, At.AddMinutes(-59)), new(Orphan, At.AddMinutes(-60)), new(Idle, At.AddDays(-7)), new(new ImageId("ahead"), At.AddDays(1))];
        Assert.Equal([new ImageCommands.SweepImage(Idle, true), new ImageCommands.SweepImage(Orphan, false)], StoreJanitor.Questions(stored, At, new CoordinationSettings(), new HashSet<ImageId>()));
        Assert.Equal([Orphan, Idle], StoreJanitor.Questions(stored, At, new CoordinationSettings(), new HashSet<ImageId> { Idle }).Select(question => question.ImageId));
    }

    [Fact]
    public void It_asks_about_so_many_at_once_and_about_the_others_the_next_time()
    {
        StoredImage[] stored = [.. Enumerable.Range(0, 300).Select(i => new StoredImage(new ImageId($"i{i}"), At.AddDays(-1)))];
        var first = StoreJanitor.Questions(stored, At, new CoordinationSettings(), new HashSet<ImageId>()).Select(question => question.ImageId).ToHashSet();
        var second = StoreJanitor.Questions(stored, At, new CoordinationSettings(), first).Select(question => question.ImageId).ToHashSet();
        Assert.Equal((200, 200, 300), (first.Count, second.Count, first.Union(second).Count()));
    }

    [Fact]
    public async Task It_looks_again_and_again_also_after_the_store_was_away()
    {
        int looks = 0;
        var clock = (TestScheduler)Sys.Scheduler;
        var settings = new CoordinationSettings();
        var blobs = new FakeBlobs
        {
            Stored = () => ++looks == 1 ? throw new StageFailedException(FailureClass.StoreFull, "away") : [new StoredImage(Orphan, clock.Now.AddHours(-2)), new StoredImage(Fresh, clock.Now)],
        };
        var away = CreateTestProbe();
        Sys.EventStream.Subscribe(away.Ref, typeof(Akka.Event.Warning));
        Sys.ActorOf(StoreJanitor.Props(TestActor, blobs, settings));
        // A message in its mailbox first: timers are set when it starts.
        clock.Advance(TimeSpan.Zero);
        await AwaitConditionAsync(() =>
        {
            clock.Advance(settings.JanitorInterval);
            return Task.FromResult(Volatile.Read(ref looks) >= 1);
        });
        await away.ExpectMsgAsync<Akka.Event.Warning>(warning => Assert.Contains("away", warning.ToString(), StringComparison.Ordinal));
        for (int i = 0; i < 2; i++)
        {
            clock.Advance(settings.JanitorInterval);
            Assert.Equal(new ImageCommands.SweepImage(Orphan, false), await ExpectMsgAsync<ImageCommands.SweepImage>());
        }
    }
}

/// <summary>What a coordinator does when it is asked, with the test in the place of archive and worker.</summary>
[Collection("nodes")]
public sealed class SweepSpecs : IAsyncLifetime
{
    private static readonly WorkerId Worker = new("probe");
    private static readonly RunId Run = new("one");
    private readonly FakeWorld _world = new();
    private readonly JournalFolder _folder = new();
    private readonly string _outputs = Directory.CreateTempSubdirectory("bbmr-outputs-").FullName;
    private readonly System.Collections.Concurrent.ConcurrentQueue<ImageId> _deleted = new();
    private readonly ManualResetEventSlim _mayDelete = new(initialState: true);
    private ImageJob _job = FakeWorld.Job("a", 300, 200);
    private TestNode _node = null!;
    private TestKit _kit = null!;

    public async Task InitializeAsync()
    {
        _job = _job with { Outputs = new OutputPaths(Path.Combine(_outputs, "a.bbmr"), Path.Combine(_outputs, "a.png"), null, Path.Combine(_outputs, "a.report.json")) };
        _job = _job with { Id = JobIdentity.Of(_job) };
        _node = await TestNode.StartAsync(_world, _folder, devices: 0, settings: TestNode.Fast, blobs: new FakeBlobs
        {
            Deleting = image =>
            {
                _deleted.Enqueue(image);
                _mayDelete.Wait(TimeSpan.FromSeconds(60));
            },
        });
        _kit = new TestKit(_node.System);
    }

    public async Task DisposeAsync()
    {
        _mayDelete.Set();
        await _node.DisposeAsync();
        _kit.Dispose();
        _folder.Dispose();
        Directory.Delete(_outputs, recursive: true);
    }

    [Fact]
    public async Task Blobs_of_an_image_that_nobody_knows_are_deleted()
    {
        Sweep(unfinished: false);
        await Eventually(() => _deleted.Count == 1);
        Assert.Equal(_job.Id, Assert.Single(_deleted));
        Assert.Equal(0, _folder.Entries(_job.Id));
    }

    [Fact]
    public async Task Blobs_of_a_closed_image_whose_archive_never_says_that_it_heard_are_deleted_and_its_outcome_is_kept()
    {
        Open();
        Report(await Grant(), new AlreadyDone("the report"));
        await Expect<ArchiveFacts.ImageClosed>();
        // While it may still be heard the question changes nothing; then the coordinator goes.
        Sweep(unfinished: false);
        var probe = _kit.CreateTestProbe();
        var coordinator = await _node.System.ActorSelection($"/user/image-coordinator/{_job.Id}").ResolveOne(TimeSpan.FromSeconds(5));
        await probe.WatchAsync(coordinator);
        await probe.ExpectTerminatedAsync(coordinator, TimeSpan.FromSeconds(120));
        Assert.Empty(_deleted);

        Sweep(unfinished: false);
        await Eventually(() => !_deleted.IsEmpty);
        Open();
        Assert.Equal(new ImageOutcome.Skipped("the report"), (await Expect<ArchiveFacts.ImageClosed>()).Outcome);
    }

    [Fact]
    public async Task An_outcome_that_no_archive_asks_for_in_days_is_forgotten()
    {
        Open();
        Report(await Grant(), new AlreadyDone("the report"));
        await Expect<ArchiveFacts.ImageClosed>();
        await Eventually(() =>
        {
            // Refused while it may still be heard.
            Sweep(unfinished: true);
            return !_deleted.IsEmpty && _folder.Entries(_job.Id) == 0;
        }, tries: 600);
    }

    [Fact]
    public async Task An_image_that_is_worked_on_keeps_its_blobs_whatever_their_age()
    {
        Open();
        var ingest = await Grant();
        Sweep(unfinished: true);
        Report(ingest, new ImageProbed(Facts));
        Report(ingest, new StripIngested(new StripBlobs(0, Raw: new BlobRef("raw", 1, "h"))));
        Report(ingest, new StripIngested(new StripBlobs(1, Raw: new BlobRef("raw", 1, "h"))));
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseEnded(ingest.Lease, new DeviceCounts([], 0, 0))]));
        Assert.Equal(Stage.Score, (await Grant()).Work.Stage);
        Assert.Empty(_deleted);
    }

    [Fact]
    public async Task An_image_that_waits_for_its_paused_job_keeps_its_blobs_for_long_and_starts_anew_without_them()
    {
        await IngestAndStopAsync();
        Sweep(unfinished: false);
        Open();
        Assert.Equal(Stage.Score, (await Grant()).Work.Stage);
        Assert.Empty(_deleted);
        await StopAsync(discard: false);

        Sweep(unfinished: true);
        await Eventually(() => _deleted.Count == 1 && _folder.Entries(_job.Id) == 0);
        // As a page does, until it is heard.
        LeaseReplies.GrantedLease? granted = null;
        await Eventually(() =>
        {
            if (granted is not null)
                return true;
            Open();
            Tell(new ImageCommands.RequestLeases(_job.Id, Worker, 1, []));
            return (granted = Expect<LeaseReplies.LeasesGranted>().Result.Leases is [var one, ..] ? one : null) is not null;
        });
        var anew = granted!;
        Assert.Equal(Stage.Ingest, anew.Work.Stage);
        Assert.Empty(anew.Work.Strips);
    }

    [Fact]
    public async Task The_janitor_of_a_cluster_clears_its_store_of_what_nobody_knows()
    {
        var store = new DirectoryBlobStore(_outputs, new DirectoryBlobStoreOptions(Exclusive: false));
        BlobRef orphan = store.Write(new ImageId("orphan"), "raw", 1, [1]), fresh = store.Write(new ImageId("fresh"), "raw", 1, [2]);
        string foreign = Path.Combine(Directory.CreateDirectory(Path.Combine(_outputs, "holiday")).FullName, "beach.jpg"), killed = Path.Combine(_outputs, orphan.Name + ".1-0123456789ab-7.tmp");
        await File.WriteAllBytesAsync(foreign, [3]);
        await File.WriteAllBytesAsync(killed, [3]);
        foreach (string old in (string[])[Path.Combine(_outputs, orphan.Name), foreign, killed])
            File.SetLastWriteTimeUtc(old, DateTime.UtcNow.AddDays(-30));
        using var folder = new JournalFolder();
        await using var cluster = await TestNode.StartAsync(_world, folder, devices: 0, Hosting.AkkaExecutionMode.Clustered,
            TestNode.Fast with { JanitorInterval = TimeSpan.FromMilliseconds(100) }, blobs: new ImageBlobs(store));
        string gone = Path.Combine(_outputs, "orphan");
        for (int i = 0; i < 600 && Directory.Exists(gone); i++)
            await Task.Delay(50);
        Assert.False(Directory.Exists(gone));
        Assert.Equal([2], store.Read(fresh));
        Assert.True(File.Exists(foreign));
    }

    [Fact]
    public async Task No_lease_is_granted_while_blobs_are_being_deleted()
    {
        await IngestAndStopAsync();
        _mayDelete.Reset();
        Sweep(unfinished: true);
        await Eventually(() => _deleted.Count == 1);
        Open();
        await Expect<ArchiveFacts.ImageNotified>();
        Tell(new ImageCommands.RequestLeases(_job.Id, Worker, 1, []));
        Assert.Empty((await Expect<LeaseReplies.LeasesGranted>()).Leases);
        _mayDelete.Set();
        // It says so by itself when there is work.
        await Expect<LeaseReplies.WorkReady>();
        Assert.Equal(Stage.Ingest, (await Grant()).Work.Stage);
    }

    [Fact]
    public async Task A_cancelled_image_leaves_neither_blobs_nor_pieces_of_outputs()
    {
        await IngestAndStopAsync();
        string prepared = CommitStage.TemporaryPath(_job, "1-a", _job.Outputs.Image!), other = Path.Combine(_outputs, "other.png");
        await File.WriteAllBytesAsync(prepared, [1]);
        await File.WriteAllBytesAsync(other, [1]);
        await StopAsync(discard: true);
        await Eventually(() => !File.Exists(prepared) && _deleted.Contains(_job.Id));
        Assert.True(File.Exists(other));
    }

    private static ImageFacts Facts => new(300, 200, 3, false, 8, "png", 1000, DateTime.UnixEpoch, "cafe", null);

    private async Task IngestAndStopAsync()
    {
        Open();
        var ingest = await Grant();
        Report(ingest, new ImageProbed(Facts));
        Report(ingest, new StripIngested(new StripBlobs(0, Raw: new BlobRef("raw-0", 1, "h"))));
        Report(ingest, new StripIngested(new StripBlobs(1, Raw: new BlobRef("raw-1", 1, "h"))));
        Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseEnded(ingest.Lease, new DeviceCounts([], 0, 0))]));
        await Expect<LeaseReplies.LeasesAcknowledged>();
        await StopAsync(discard: false);
    }

    private async Task StopAsync(bool discard)
    {
        Tell(new ImageCommands.StopImage(_job.Id, new ArchiveId("x"), new RunId("one"), discard));
        // Whatever lease it holds is given back.
        await _kit.FishForMessageAsync(message =>
        {
            if (message is LeaseReplies.LeaseCancelled cancelled)
                Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseReturned(cancelled.Lease)]));
            return message is ArchiveFacts.ImageStopped;
        }, TimeSpan.FromSeconds(120));
    }

    private void Open() => Tell(new ImageCommands.OpenImage(_job.Id, new ArchiveId("x"), Run, new WorkPolicy(), _job));

    private void Sweep(bool unfinished) => Tell(new ImageCommands.SweepImage(_job.Id, unfinished));

    private void Tell(object message) => _node.Images.Tell(message, _kit.TestActor);

    private void Report(LeaseReplies.GrantedLease lease, StageReport report) => Tell(new LeaseFacts.LeasesTold(_job.Id, [new LeaseFacts.LeaseReported(lease.Lease, report)]));

    private async Task<LeaseReplies.GrantedLease> Grant()
    {
        for (int i = 0; i < 200; i++)
        {
            Tell(new ImageCommands.RequestLeases(_job.Id, Worker, 1, []));
            if ((await Expect<LeaseReplies.LeasesGranted>()).Leases is [var granted])
                return granted;
            await Task.Delay(50);
        }
        throw new InvalidOperationException("No lease was granted.");
    }

    private async Task<T> Expect<T>() => (T)await _kit.FishForMessageAsync(message => message is T, TimeSpan.FromSeconds(120));

    private static async Task Eventually(Func<bool> holds, int tries = 200)
    {
        for (int i = 0; i < tries && !holds(); i++)
            await Task.Delay(50);
        Assert.True(holds());
    }
}

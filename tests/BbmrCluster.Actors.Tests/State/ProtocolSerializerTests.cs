using System.Collections;
using System.Reflection;
using System.Runtime.CompilerServices;
using Akka.Actor;
using Akka.Configuration;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Tests.Coordination;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.State;

/// <summary>Every message and event survives the wire, and journaled bytes never change their meaning.</summary>
public sealed class ProtocolSerializerTests : IDisposable
{
    private static readonly ImageId Image = new("img");
    private static readonly ArchiveId Archive = new("arc");
    private static readonly RunId Run = new("run");
    private static readonly LeaseId Lease = new(12, 3);
    private static readonly BlobRef Blob = new("img/raw-1", 123456789012, "00ff");
    private static readonly ImageJob Job = With(FakeWorld.Job("a", 300, 200), p => p with { Measure = true, AllowOtherWeights = true, Limits = new Imaging.ImageLimits(5, 6) });
    private static readonly ImageJob Other = Job with { Id = new ImageId("other"), Source = "/in/other", DisplayName = "other", Outputs = new OutputPaths(null, null, "/o.png", "/o.json") };
    private static readonly WorkPolicy Policy = new(new Priority(3), 7, PoisonRule.Fail);
    private static readonly DateTimeOffset At = new(2026, 1, 2, 3, 4, 5, TimeSpan.Zero);
    private static readonly ArchiveOverview Overview = new(Archive, "name", new Priority(2), ArchivePhase.Paused, 9, 1, 2, 3, 4, 0.75, At, At, 12.5, "full");
    private static readonly ImageFacts Facts = new(300, 200, 3, true, 16, "tiff", 99, new DateTime(2026, 1, 2, 3, 4, 5, DateTimeKind.Utc), "cafe", Blob);
    private static readonly StripBlobs Strip = new(1, Blob, Blob with { Name = "p" }, Blob with { Name = "r" }, Blob with { Name = "t" }, Blob with { Name = "b" }, Blob with { Name = "ut" }, Blob with { Name = "ub" }, 1.5);
    private static readonly DeviceCounts Counts = new([new DeviceCallCount("score", 4, 5, 60)], 2, 1);
    private static readonly OutputFile File = new("/out/a.png", "/out/.a.tmp", 77, "beef");
    private static readonly LeaseWork Work = new(Job, Stage.Finish, 0, 6, 2, Facts, [Strip, new StripBlobs(0)], [0, 1, 2, 1, 1, 1], [1, 2, 3, 4, 5, 6], [3], [File],
        new JobTally(Counts.Calls, 1, 2, 3, 4, 5.5, "dynamic programming", 6.5, 7.5));

    private readonly ActorSystem _system = ActorSystem.Create("serializer", ConfigurationFactory.ParseString("akka.loglevel = OFF"));

    public static TheoryData<string> Manifests => [.. Samples().Select(sample => sample.GetType().FullName!).Distinct()];

    public void Dispose() => _system.Dispose();

    [Theory]
    [MemberData(nameof(Manifests))]
    public void Every_message_comes_back_as_it_was(string type)
    {
        var serializer = new ProtocolSerializer((ExtendedActorSystem)_system);
        foreach (object sample in Samples().Where(sample => sample.GetType().FullName == type))
        {
            object back = serializer.FromBinary(serializer.ToBinary(sample), serializer.Manifest(sample));
            Same(sample, back, type);
        }
    }

    [Fact]
    public void Every_wire_message_has_a_manifest_and_a_sample()
    {
        var types = typeof(IWireMessage).Assembly.GetTypes().Where(type => typeof(IWireMessage).IsAssignableFrom(type) && !type.IsInterface).ToHashSet();
        Assert.Equal(types.Select(type => type.FullName).Order(), Samples().Select(sample => sample.GetType().FullName).Distinct().Order());
        Assert.Equal(types.Count, ProtocolSerializer.AllManifests.Distinct().Count());
    }

    [Fact]
    public void An_unknown_manifest_is_refused() =>
        Assert.Throws<ArgumentException>(() => new ProtocolSerializer((ExtendedActorSystem)_system).FromBinary([], "zz"));

    [Fact]
    public void Journaled_bytes_are_read_for_ever()
    {
        // Written by version 0.1.0. A change here means that journals of running jobs can no longer be read.
        var serializer = new ProtocolSerializer((ExtendedActorSystem)_system);
        foreach (object entry in Entries())
        {
            string manifest = serializer.Manifest(entry), path = Path.Combine(Golden(), manifest + ".hex");
            if (!System.IO.File.Exists(path))
            {
                System.IO.File.WriteAllText(path, Convert.ToHexStringLower(serializer.ToBinary(entry)) + "\n");
                Assert.Fail($"The bytes of {manifest} are written down now, to be held from here on.");
            }
            byte[] golden = Convert.FromHexString(System.IO.File.ReadAllText(path).Trim());
            Assert.Equal(golden, serializer.ToBinary(entry));
            Same(entry, serializer.FromBinary(golden, manifest), manifest);
        }
    }

    [Fact]
    public void Entries_of_version_0_1_0_are_read_for_ever()
    {
        var serializer = new ProtocolSerializer((ExtendedActorSystem)_system);
        var image = (ImageEvents.Batch)serializer.FromBinary(Convert.FromHexString(System.IO.File.ReadAllText(Path.Combine(Golden(), "0.1.0", "ie.hex")).Trim()), "ie");
        Same(new ImageEvents.Submitted(Run, new WorkPolicy(new Priority(3)), Job), image.Events[0], "ie");
        Same(new ImageEvents.Resumed(Run, new WorkPolicy(new Priority(3)), 17), image.Events[1], "ie");
        Same(ImageSamples().Skip(2).ToList(), image.Events.Skip(2).ToList(), "ie");
        // Archives held their images then: they are submitted again.
        var archive = (ArchiveEvents.Batch)serializer.FromBinary(Convert.FromHexString(System.IO.File.ReadAllText(Path.Combine(Golden(), "0.1.0", "ae.hex")).Trim()), "ae");
        Assert.Null(archive.Events.Aggregate(Archives.ArchiveState.Empty, (state, one) => state.Apply(one)).Run);
    }

    [Fact]
    public void A_journal_entry_with_any_byte_changed_or_cut_off_is_refused()
    {
        var serializer = new ProtocolSerializer((ExtendedActorSystem)_system);
        byte[] entry = serializer.ToBinary(new ImageEvents.Batch([new ImageEvents.ScalesAllocated([0, 1, 2], "hull", 1.5, 1.25)]));
        for (int i = 0; i < entry.Length; i++)
        {
            byte[] damaged = (byte[])entry.Clone();
            damaged[i] ^= 1;
            Assert.Throws<InvalidDataException>(() => serializer.FromBinary(damaged, "ie"));
            Assert.Throws<InvalidDataException>(() => serializer.FromBinary(entry[..i], "ie"));
        }
    }

    private static ImageJob With(ImageJob job, Func<JobParameters, JobParameters> change) => job with { Parameters = change(job.Parameters) };

    private static string Golden([CallerFilePath] string here = "") => Path.Combine(Path.GetDirectoryName(here)!, "golden");

    private static IEnumerable<ImageEvents.IImageEvent> ImageSamples() =>
    [
        new ImageEvents.Submitted(Run, Policy, Job), new ImageEvents.Resumed(Run, Policy, 17), new ImageEvents.Probed(Facts),
        new ImageEvents.StripStored(Stage.Pack, Strip), new ImageEvents.BlocksSettled(64, [1.5, 2.5, 0], [65]), new ImageEvents.ScalesAllocated([0, 1, 2], "hull", 1.5, 1.25),
        new ImageEvents.ScalesAllocated([1], null, null, null), new ImageEvents.BlobReopened("img/raw-1"), new ImageEvents.OutputsReopened(),
        new ImageEvents.OutputsPrepared([File], "{}"), new ImageEvents.WorkCounted(Counts, 2, 3.25), new ImageEvents.Closed(new ImageOutcome.Done("{}")),
        new ImageEvents.Closed(new ImageOutcome.Skipped("{}")), new ImageEvents.Closed(new ImageOutcome.Failed("refused", "a.png: no")),
    ];

    private static IEnumerable<ArchiveEvents.IArchiveEvent> ArchiveSamples() =>
    [
        new ArchiveEvents.Submitted(Run, "name", Policy, 1001, 1000, "digest", At), new ArchiveEvents.PageStored(1), new ArchiveEvents.Reopened(Run, "name", Policy, At),
        new ArchiveEvents.Retried(At), new ArchiveEvents.PageClosed(1, new PageCounts(1, 2, 3)), new ArchiveEvents.Paused(), new ArchiveEvents.Resumed(),
        new ArchiveEvents.Cancelled(At), new ArchiveEvents.Finished(At), new ArchiveEvents.OldLayout(),
    ];

    private static IEnumerable<PageEvents.IPageEvent> PageSamples() =>
    [
        new PageEvents.Filled([Job, Other]), new PageEvents.Opened(Run, 2), new PageEvents.ItemClosed(5, ItemState.Failed, "refused", "a.png: no"),
        new PageEvents.ItemClosed(6, ItemState.Done, null, null),
    ];

    private static IEnumerable<object> Entries() =>
    [
        new ImageEvents.Batch([.. ImageSamples()]), new ArchiveEvents.Batch([.. ArchiveSamples()]), new PageEvents.Batch([.. PageSamples()]), new IndexEvents.Batch([Overview]),
    ];

    private static IEnumerable<object> Samples()
    {
        foreach (object entry in Entries())
            yield return entry;
        yield return new ArchiveCommands.SubmitArchive(Archive, Run, "name", Policy, 2000, 1000, "digest");
        yield return new ArchiveCommands.SubmitArchive(Archive, Run, "name", Policy, 2000, 1000, "digest", Once: true);
        yield return new ArchiveCommands.AddItems(Archive, Run, 1, [Job, Other, With(Job, p => p with { Kind = JobKind.Downscale }), With(Job, p => p with { Engine = p.Engine with { Joint = "trained" } })]);
        yield return new ArchiveCommands.WatchArchive(Archive, Run, true);
        yield return new ArchiveCommands.ControlArchive(Archive, ArchiveControl.Retry);
        yield return new ArchiveCommands.ListItems(Archive, 1000, 50, ItemState.Pending);
        yield return new ArchiveCommands.ListItems(Archive, 0, 1, null);
        yield return new ArchiveReplies.ArchiveRefused(Archive, Run, "no");
        yield return new ArchiveReplies.ItemsWanted(Archive, Run, 3000, 1000);
        yield return new ArchiveReplies.ControlAnswered(Archive, true, "it is finished");
        yield return new ArchiveReplies.ControlAnswered(Archive, false, null);
        yield return new ArchiveReplies.ItemsListed(Archive, true, [new ArchiveItem(3, Image, "a.png", ItemState.Failed, "c", "m", null), new ArchiveItem(4, Image, "b", ItemState.Pending, null, null, 0.5)], 0);
        yield return new ArchiveReplies.ItemsListed(Archive, false, [], null);
        yield return new IndexMessages.ArchiveTold(Overview);
        yield return new IndexMessages.ArchiveListed(Archive, ArchivePhase.Finished, At);
        yield return new IndexMessages.ListArchives(100, 50);
        yield return new IndexMessages.FindArchive(Archive);
        yield return new IndexMessages.Archives([Overview, Overview with { FinishedAt = null, RemainingSeconds = null, Waiting = null }]);
        yield return new ArchiveCommands.StopArchive(Archive, Run);
        yield return new ArchiveReplies.ArchiveAccepted(Archive, Run, 7);
        yield return new ArchiveReplies.RunUnknown(Archive, Run);
        JobNotification[] notifications =
        [
            new JobNotification.ImageStarted(Image, "a.png", 3),
            new JobNotification.ImageProgressed(Image, new ImageProgress([new StageProgress(Stage.Score, 3, 9)], 24, 99)),
            new JobNotification.ImagePaused(Image, "full"),
            new JobNotification.ImageResumed(Image),
            new JobNotification.ImageFinished(Image, new ImageOutcome.Interrupted()),
            new JobNotification.ArchiveFinished(Archive, new ArchiveSummary(1, 2, 3, 4)),
        ];
        foreach (var notification in notifications)
        {
            yield return new ArchiveReplies.Notified(Run, notification);
            yield return new ArchiveFacts.ImageNotified(Image, notification);
        }
        yield return new ArchiveFacts.ImageClosed(Image, Run, new ImageOutcome.Failed("c", "m"));
        yield return new ArchiveFacts.ImageStopped(Image);
        yield return new ImageCommands.OpenImage(Image, Archive, Run, Policy, Job);
        yield return new ImageCommands.StopImage(Image, Archive, Run, true);
        yield return new ImageCommands.AcknowledgeOutcome(Image, Run);
        yield return new ImageCommands.SweepImage(Image, true);
        yield return new ImageCommands.RequestLeases(Image, new WorkerId("w"), 2, ["cpu", "cuda"]);
        yield return new ImageCommands.RequestLeases(Image, new WorkerId("w"), 1, [], Second: true);
        yield return new LeaseReplies.LeasesGranted(Image,
            [new(Lease, Work), new(Lease, new LeaseWork(Job, Stage.Ingest, 0, 0, 1, null, [], null, null, [], [], JobTally.Empty)), new(Lease, Work, Blob)], true);
        yield return new LeaseReplies.LeasesGranted(Image, [], false);
        yield return new LeaseReplies.WorkReady(Image);
        yield return new LeaseReplies.LeaseCancelled(Image, Lease);
        yield return new LeaseReplies.LeasesAcknowledged(Image, [Lease, new LeaseId(0, 1)]);
        StageReport[] reports =
        [
            new ImageProbed(Facts), new AlreadyDone("{}"), new StripIngested(Strip), new ScalesRead([1, 2]), new BlocksScored(5, new double[,] { { 1, 2, 3 }, { 4, 5, double.NaN } }),
            new StripPacked(Strip), new StripReconstructed(Strip), new OutputsPrepared([File], "{}"), new OutputsCommitted(), new Working(),
        ];
        yield return new LeaseFacts.LeasesTold(Image,
        [
            .. reports.Select(report => new LeaseFacts.LeaseReported(Lease, report)), new LeaseFacts.LeaseEnded(Lease, Counts),
            new LeaseFacts.LeaseFailed(Lease, FailureClass.BlobLost, "gone", Blob, "blob_lost"), new LeaseFacts.LeaseFailed(Lease, FailureClass.Transient, "again", null, null),
            new LeaseFacts.LeaseReturned(Lease),
        ]);
        yield return new LeaseFacts.LeasesHeld(Image, [Lease, new LeaseId(0, 1)], [new LeaseId(3, 4)]);
        var worker = new WorkerOverview(new WorkerId("w"), "akka.tcp://x", 2, ["cpu"], WorkerPhase.Draining, 12.5, [Image], [new LeaseOverview(Image, "12.3", Stage.Score, 64, 60, 1.5, true)]);
        yield return new BrokerFacts.WorkerPresent(worker);
        yield return new BrokerFacts.WorkerPresent(worker, ["00ff", "11ee"]);
        yield return new BrokerFacts.ImageWaiting(Image, Archive, new Priority(2), "cpu", 30, "00ff,11ee");
        yield return new BrokerCommands.UndrainWorker(new WorkerId("w"));
        yield return new BrokerCommands.ListWorkers(50);
        yield return new BrokerCommands.Workers([worker, worker with { Leases = [] }]);
        yield return new BrokerFacts.ImageGone(Image);
        yield return new BrokerCommands.DrainWorker(new WorkerId("w"));
        yield return new BrokerNotices.Assignment([new ArchiveShare(Archive, 0.5, [Image])], true);
        yield return new BrokerNotices.Assignment([], false, Partial: true);
        yield return new BrokerNotices.NobodyServes(Image, Lack.Weights);
    }

    // Equality of records stops at their lists, so values are compared part by part.
    private static void Same(object? expected, object? actual, string where)
    {
        if (expected is null || actual is null || expected is string || expected.GetType().IsPrimitive || expected is DateTime or DateTimeOffset or Enum or ScaleSet)
        {
            Assert.True(Equals(expected, actual), $"{where}: {expected} became {actual}");
            return;
        }
        if (expected is IEnumerable list)
        {
            object?[] one = [.. list.Cast<object?>()], other = [.. ((IEnumerable)actual).Cast<object?>()];
            Assert.Equal(one.Length, other.Length);
            for (int i = 0; i < one.Length; i++)
                Same(one[i], other[i], $"{where}[{i}]");
            return;
        }
        Assert.Equal(expected.GetType(), actual.GetType());
        foreach (var property in expected.GetType().GetProperties(BindingFlags.Public | BindingFlags.Instance).Where(p => p.GetIndexParameters().Length == 0 && p.Name != "Grid"))
            Same(property.GetValue(expected), property.GetValue(actual), $"{where}.{property.Name}");
    }
}

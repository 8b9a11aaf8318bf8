using System.Collections;
using System.Reflection;
using System.Runtime.CompilerServices;
using Akka.Actor;
using Akka.Configuration;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Tests.Coordination;
using BbmrCluster.Actors.Work;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Actors.Tests.State;

/// <summary>Every message and event survives the wire, and journaled bytes never change their meaning.</summary>
public sealed class ProtocolSerializerTests : IDisposable
{
    private static readonly ImageId Image = new("img");
    private static readonly ArchiveId Archive = new("arc");
    private static readonly RunId Run = new("run");
    private static readonly LeaseId Lease = new(12, 3);
    private static readonly BlobRef Blob = new("img/raw-1", 123456789012, "00ff");
    private static readonly ImageJob Job = FakeWorld.Job("a", 300, 200) with { Measure = true, AllowOtherWeights = true, Limits = new Imaging.ImageLimits(5, 6) };
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
        foreach (object entry in new object[] { new ImageEvents.Batch([.. ImageSamples()]), new ArchiveEvents.Batch([.. ArchiveSamples()]) })
        {
            string manifest = serializer.Manifest(entry), path = Path.Combine(Golden(), manifest + ".hex");
            byte[] golden = Convert.FromHexString(System.IO.File.ReadAllText(path).Trim());
            Assert.Equal(golden, serializer.ToBinary(entry));
            Same(entry, serializer.FromBinary(golden, manifest), manifest);
        }
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

    private static string Golden([CallerFilePath] string here = "") => Path.Combine(Path.GetDirectoryName(here)!, "golden");

    private static IEnumerable<ImageEvents.IImageEvent> ImageSamples() =>
    [
        new ImageEvents.Submitted(Run, new Priority(3), Job), new ImageEvents.Resumed(Run, new Priority(3), 17), new ImageEvents.Probed(Facts),
        new ImageEvents.StripStored(Stage.Pack, Strip), new ImageEvents.BlocksSettled(64, [1.5, 2.5, 0], [65]), new ImageEvents.ScalesAllocated([0, 1, 2], "hull", 1.5, 1.25),
        new ImageEvents.ScalesAllocated([1], null, null, null), new ImageEvents.BlobReopened("img/raw-1"), new ImageEvents.OutputsReopened(),
        new ImageEvents.OutputsPrepared([File], "{}"), new ImageEvents.WorkCounted(Counts, 2, 3.25), new ImageEvents.Closed(new ImageOutcome.Done("{}")),
        new ImageEvents.Closed(new ImageOutcome.Skipped("{}")), new ImageEvents.Closed(new ImageOutcome.Failed("refused", "a.png: no")),
    ];

    private static IEnumerable<ArchiveEvents.IArchiveEvent> ArchiveSamples() =>
    [
        new ArchiveEvents.Submitted(Run, new Priority(1), 1001), new ArchiveEvents.PageAdded(1, [Job]), new ArchiveEvents.Reopened(Run, default),
        new ArchiveEvents.ItemClosed(5, ItemState.Failed, "refused", "a.png: no"), new ArchiveEvents.ItemClosed(6, ItemState.Done, null, null),
        new ArchiveEvents.Finished(new DateTimeOffset(2026, 1, 2, 3, 4, 5, TimeSpan.Zero)),
    ];

    private static IEnumerable<object> Samples()
    {
        yield return new ImageEvents.Batch([.. ImageSamples()]);
        yield return new ArchiveEvents.Batch([.. ArchiveSamples()]);
        yield return new ArchiveEvents.Batch([new ArchiveEvents.PageAdded(2, [Job with { Engine = Job.Engine with { Joint = "trained" } }])]);
        yield return new ArchiveCommands.SubmitArchive(Archive, Run, new Priority(4), 2000);
        yield return new ArchiveCommands.AddPage(Archive, Run, 1, [Job, Job with { Kind = JobKind.Downscale }]);
        yield return new ArchiveCommands.WatchArchive(Archive, Run);
        yield return new ArchiveCommands.StopArchive(Archive, Run);
        yield return new ArchiveReplies.ArchiveAccepted(Archive, Run, 7);
        yield return new ArchiveReplies.PageAccepted(Archive, Run, 7);
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
        yield return new ImageCommands.OpenImage(Image, Archive, Run, new Priority(9), Job);
        yield return new ImageCommands.StopImage(Image);
        yield return new ImageCommands.AcknowledgeOutcome(Image, Run);
        yield return new ImageCommands.RequestLeases(Image, new WorkerId("w"), 2, ["cpu", "cuda"]);
        yield return new LeaseReplies.LeaseGranted(Image, Lease, Work);
        yield return new LeaseReplies.LeaseGranted(Image, Lease, new LeaseWork(Job, Stage.Ingest, 0, 0, 1, null, [], null, null, [], [], JobTally.Empty));
        yield return new LeaseReplies.LeaseGranted(Image, Lease, Work, Blob);
        yield return new LeaseReplies.LeasesExhausted(Image);
        yield return new LeaseReplies.WorkReady(Image);
        yield return new LeaseReplies.LeaseCancelled(Image, Lease);
        yield return new LeaseReplies.LeaseAcknowledged(Image, Lease);
        StageReport[] reports =
        [
            new ImageProbed(Facts), new AlreadyDone("{}"), new StripIngested(Strip), new ScalesRead([1, 2]), new BlocksScored(5, new double[,] { { 1, 2, 3 }, { 4, 5, double.NaN } }),
            new StripPacked(Strip), new StripReconstructed(Strip), new OutputsPrepared([File], "{}"), new OutputsCommitted(), new Working(),
        ];
        foreach (var report in reports)
            yield return new LeaseFacts.LeaseReported(Image, Lease, report);
        yield return new LeaseFacts.LeaseEnded(Image, Lease, Counts);
        yield return new LeaseFacts.LeaseFailed(Image, Lease, FailureClass.BlobLost, "gone", Blob, "blob_lost");
        yield return new LeaseFacts.LeaseFailed(Image, Lease, FailureClass.Transient, "again", null, null);
        yield return new LeaseFacts.LeaseReturned(Image, Lease);
        yield return new LeaseFacts.LeasesHeld(Image, [Lease, new LeaseId(0, 1)]);
        yield return new BrokerFacts.WorkerPresent(new WorkerId("w"), 2);
        yield return new BrokerFacts.ImageWaiting(Image, Archive, new Priority(2), 30);
        yield return new BrokerFacts.ImageGone(Image);
        yield return new BrokerCommands.DrainWorker(new WorkerId("w"));
        yield return new BrokerNotices.Assignment([Image]);
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

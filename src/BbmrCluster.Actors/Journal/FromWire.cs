using System.Runtime.InteropServices;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using W = BbmrCluster.Actors.Journal.Wire;

namespace BbmrCluster.Actors.Journal;

/// <summary>Protobuf to our types. What a newer version added and we do not know is passed over where that is harmless and refused where not.</summary>
internal static class FromWire
{
    public static ImageEvents.Batch ImageBatch(W.ImageEvents wire) => new([.. wire.Events.Select(ImageEvent)]);

    public static ArchiveEvents.Batch ArchiveBatch(W.ArchiveEvents wire) => new([.. wire.Events.Select(ArchiveEvent)]);

    public static object Message(string manifest, W.Message m) => manifest switch
    {
        "as" => new ArchiveCommands.SubmitArchive(new(m.Archive), new(m.Run), new(m.Priority), m.Number),
        "ap" => new ArchiveCommands.AddPage(new(m.Archive), new(m.Run), m.Number, [.. m.Jobs.Select(Job)]),
        "aw" => new ArchiveCommands.WatchArchive(new(m.Archive), new(m.Run)),
        "ax" => new ArchiveCommands.StopArchive(new(m.Archive), new(m.Run)),
        "aa" => new ArchiveReplies.ArchiveAccepted(new(m.Archive), new(m.Run), m.Number),
        "ak" => new ArchiveReplies.PageAccepted(new(m.Archive), new(m.Run), m.Number),
        "au" => new ArchiveReplies.RunUnknown(new(m.Archive), new(m.Run)),
        "an" => new ArchiveReplies.Notified(new(m.Run), Notification(m.Notification)),
        "in" => new ArchiveFacts.ImageNotified(new(m.Image), Notification(m.Notification)),
        "ic" => new ArchiveFacts.ImageClosed(new(m.Image), new(m.Run), Outcome(m.Outcome)),
        "is" => new ArchiveFacts.ImageStopped(new(m.Image)),
        "io" => new ImageCommands.OpenImage(new(m.Image), new(m.Archive), new(m.Run), new(m.Priority), Job(m.Jobs[0])),
        "ix" => new ImageCommands.StopImage(new(m.Image)),
        "ia" => new ImageCommands.AcknowledgeOutcome(new(m.Image), new(m.Run)),
        "lq" => new ImageCommands.RequestLeases(new(m.Image), new(m.Worker), m.Number, [.. m.Names]),
        "lg" => new LeaseReplies.LeaseGranted(new(m.Image), Lease(m.Lease), Work(m.Work), Blob(m.Blob)),
        "ln" => new LeaseReplies.LeasesExhausted(new(m.Image)),
        "lw" => new LeaseReplies.WorkReady(new(m.Image)),
        "lx" => new LeaseReplies.LeaseCancelled(new(m.Image), Lease(m.Lease)),
        "la" => new LeaseReplies.LeaseAcknowledged(new(m.Image), Lease(m.Lease)),
        "lr" => new LeaseFacts.LeaseReported(new(m.Image), Lease(m.Lease), Report(m.Report)),
        "le" => new LeaseFacts.LeaseEnded(new(m.Image), Lease(m.Lease), Counts(m.Counts)),
        "lf" => new LeaseFacts.LeaseFailed(new(m.Image), Lease(m.Lease), (FailureClass)m.Number, m.Text, Blob(m.Blob), m.HasCode ? m.Code : null),
        "lb" => new LeaseFacts.LeaseReturned(new(m.Image), Lease(m.Lease)),
        "lh" => new LeaseFacts.LeasesHeld(new(m.Image), [.. m.Leases.Select(Lease)]),
        "bw" => new BrokerFacts.WorkerPresent(new(m.Worker), m.Number),
        "bi" => new BrokerFacts.ImageWaiting(new(m.Image), new(m.Archive), new(m.Priority), m.Number),
        "bg" => new BrokerFacts.ImageGone(new(m.Image)),
        "bd" => new BrokerCommands.DrainWorker(new(m.Worker)),
        "ba" => new BrokerNotices.Assignment([.. m.Names.Select(name => new ImageId(name))]),
        _ => throw new ArgumentException($"'{manifest}' is not a manifest of this version.", nameof(manifest)),
    };

    private static ImageEvents.IImageEvent ImageEvent(W.ImageEvent wire) => wire.EventCase switch
    {
        W.ImageEvent.EventOneofCase.Submitted => new ImageEvents.Submitted(new(wire.Submitted.Run), new(wire.Submitted.Priority), Job(wire.Submitted.Job)),
        W.ImageEvent.EventOneofCase.Resumed => new ImageEvents.Resumed(new(wire.Resumed.Run), new(wire.Resumed.Priority), wire.Resumed.Leases),
        W.ImageEvent.EventOneofCase.Probed => new ImageEvents.Probed(Facts(wire.Probed)),
        W.ImageEvent.EventOneofCase.Stored => new ImageEvents.StripStored((Stage)wire.Stored.Stage, Strip(wire.Stored.Strip)),
        W.ImageEvent.EventOneofCase.Settled => new ImageEvents.BlocksSettled(wire.Settled.FirstBlock, [.. wire.Settled.Sse], [.. wire.Settled.Quarantined]),
        W.ImageEvent.EventOneofCase.Allocated => Allocated(wire.Allocated),
        W.ImageEvent.EventOneofCase.BlobReopened => new ImageEvents.BlobReopened(wire.BlobReopened),
        W.ImageEvent.EventOneofCase.OutputsReopened => new ImageEvents.OutputsReopened(),
        W.ImageEvent.EventOneofCase.Prepared => new ImageEvents.OutputsPrepared([.. wire.Prepared.Outputs.Select(File)], wire.Prepared.ReportJson),
        W.ImageEvent.EventOneofCase.Counted => new ImageEvents.WorkCounted(Counts(wire.Counted.Counts), wire.Counted.Bisected, wire.Counted.Seconds),
        W.ImageEvent.EventOneofCase.Closed => new ImageEvents.Closed(Outcome(wire.Closed)),
        _ => throw new ArgumentException("An event of a newer version lies in the journal of an image.", nameof(wire)),
    };

    private static ArchiveEvents.IArchiveEvent ArchiveEvent(W.ArchiveEvent wire) => wire.EventCase switch
    {
        W.ArchiveEvent.EventOneofCase.Submitted => new ArchiveEvents.Submitted(new(wire.Submitted.Run), new(wire.Submitted.Priority), wire.Submitted.Images),
        W.ArchiveEvent.EventOneofCase.PageAdded => new ArchiveEvents.PageAdded(wire.PageAdded.Page, [.. wire.PageAdded.Jobs.Select(Job)]),
        W.ArchiveEvent.EventOneofCase.Reopened => new ArchiveEvents.Reopened(new(wire.Reopened.Run), new(wire.Reopened.Priority)),
        W.ArchiveEvent.EventOneofCase.Closed => new ArchiveEvents.ItemClosed(wire.Closed.Item, (ItemState)wire.Closed.State,
            wire.Closed.HasCode ? wire.Closed.Code : null, wire.Closed.HasMessage ? wire.Closed.Message : null),
        W.ArchiveEvent.EventOneofCase.FinishedTicks => new ArchiveEvents.Finished(new DateTimeOffset(wire.FinishedTicks, TimeSpan.Zero)),
        _ => throw new ArgumentException("An event of a newer version lies in the journal of an archive.", nameof(wire)),
    };

    private static ImageEvents.ScalesAllocated Allocated(W.Allocated wire) => new(wire.Scales.ToByteArray(), wire.HasMethod ? wire.Method : null,
        wire.HasSse ? wire.Sse : null, wire.HasDualBound ? wire.DualBound : null);

    private static LeaseId Lease(W.Lease wire) => new(wire.Epoch, wire.Number);

    private static BlobRef? Blob(W.Blob? wire) => wire is null ? null : new(wire.Name, wire.Length, wire.Hash);

    private static ImageJob Job(W.Job wire) => new(
        new(wire.Id), (JobKind)wire.Kind, wire.Source, wire.DisplayName,
        new(wire.Outputs.HasContainer ? wire.Outputs.Container : null, wire.Outputs.HasImage ? wire.Outputs.Image : null,
            wire.Outputs.HasAllocationPicture ? wire.Outputs.AllocationPicture : null, wire.Outputs.Report),
        new(wire.Engine.Network, wire.Engine.Scorer, wire.Engine.Downscaler, new ScaleSet(wire.Engine.Scales), wire.Engine.Precision, wire.Engine.Device, wire.Engine.Threads, wire.Engine.MaxBatch,
            wire.Engine.Joint is "" ? "blockwise" : wire.Engine.Joint),
        wire.DeviceClass, new Dictionary<string, string>(wire.WeightHashes, StringComparer.Ordinal), wire.Allocator, wire.Rate, wire.Measure, wire.Force,
        new ImageLimits(wire.MaxPixels, wire.MaxSide), wire.AllowOtherWeights);

    private static ImageFacts Facts(W.Facts wire) => new(wire.Width, wire.Height, wire.ColourChannels, wire.HasAlpha, wire.BitDepth, wire.Format, wire.SourceBytes,
        new DateTime(wire.SourceModifiedTicks, DateTimeKind.Utc), wire.SourceSha256, Blob(wire.Metadata));

    private static StripBlobs Strip(W.Strip wire) => new(wire.Strip_, Blob(wire.Raw), Blob(wire.Packed), Blob(wire.Rows), Blob(wire.Top), Blob(wire.Bottom),
        Blob(wire.UniformTop), Blob(wire.UniformBottom), wire.HasUniformSse ? wire.UniformSse : null);

    private static OutputFile File(W.File wire) => new(wire.Path, wire.TemporaryPath, wire.Length, wire.Sha256);

    private static DeviceCounts Counts(W.Counts wire) => new([.. wire.Calls.Select(Call)], wire.PrecisionRetries, wire.SmallerBatches);

    private static DeviceCallCount Call(W.CallCount wire) => new(wire.Purpose, wire.Scale, wire.Calls, wire.Blocks);

    private static JobTally Tally(W.Tally wire) => new([.. wire.Counts.Calls.Select(Call)], wire.Counts.PrecisionRetries, wire.Counts.SmallerBatches,
        wire.BisectedLeases, wire.ResumedLeases, wire.Seconds, wire.HasAllocationMethod ? wire.AllocationMethod : null,
        wire.HasAllocationSse ? wire.AllocationSse : null, wire.HasAllocationDualBound ? wire.AllocationDualBound : null);

    public static LeaseWork Work(W.Work wire) => new(
        Job(wire.Job), (Stage)wire.Stage, wire.FirstBlock, wire.BlockCount, wire.Attempt, wire.Facts is { } facts ? Facts(facts) : null,
        [.. wire.Strips.Select(Strip)], wire.HasScales ? wire.Scales.ToByteArray() : null, wire.HasScores ? [.. wire.Scores] : null,
        [.. wire.Quarantined], [.. wire.Outputs.Select(File)], Tally(wire.Tally));

    private static StageReport Report(W.Report wire) => wire.ReportCase switch
    {
        W.Report.ReportOneofCase.Probed => new ImageProbed(Facts(wire.Probed)),
        W.Report.ReportOneofCase.AlreadyDone => new AlreadyDone(wire.AlreadyDone),
        W.Report.ReportOneofCase.Ingested => new StripIngested(Strip(wire.Ingested)),
        W.Report.ReportOneofCase.Scales => new ScalesRead(wire.Scales.ToByteArray()),
        W.Report.ReportOneofCase.Scores => Scores(wire.Scores),
        W.Report.ReportOneofCase.Packed => new StripPacked(Strip(wire.Packed)),
        W.Report.ReportOneofCase.Reconstructed => new StripReconstructed(Strip(wire.Reconstructed)),
        W.Report.ReportOneofCase.Prepared => new OutputsPrepared([.. wire.Prepared.Outputs.Select(File)], wire.Prepared.ReportJson),
        W.Report.ReportOneofCase.Committed => new OutputsCommitted(),
        // A report that is not known here is still a sign of life.
        _ => new Working(),
    };

    private static BlocksScored Scores(W.Scores wire)
    {
        var sse = new double[wire.Scales == 0 ? 0 : wire.Sse.Count / wire.Scales, wire.Scales];
        double[] flat = [.. wire.Sse];
        if (sse.Length > 0)
            flat.AsSpan(0, sse.Length).CopyTo(MemoryMarshal.CreateSpan(ref sse[0, 0], sse.Length));
        return new BlocksScored(wire.FirstBlock, sse);
    }

    private static ImageOutcome Outcome(W.Outcome wire) => wire.Kind switch
    {
        0 => new ImageOutcome.Done(wire.ReportJson),
        1 => new ImageOutcome.Skipped(wire.ReportJson),
        2 => new ImageOutcome.Failed(wire.Code, wire.Message),
        _ => new ImageOutcome.Interrupted(),
    };

    private static JobNotification Notification(W.Notification wire) => wire.Kind switch
    {
        0 => new JobNotification.ImageStarted(new(wire.Id), wire.Text, wire.Number),
        1 => new JobNotification.ImageProgressed(new(wire.Id), new([.. wire.Stages.Select(stage => new StageProgress((Stage)stage.Stage, stage.Done, stage.Total))], wire.DoneUnits, wire.TotalUnits)),
        2 => new JobNotification.ImagePaused(new(wire.Id), wire.Text),
        3 => new JobNotification.ImageResumed(new(wire.Id)),
        4 => new JobNotification.ImageFinished(new(wire.Id), Outcome(wire.Outcome)),
        5 => new JobNotification.ArchiveFinished(new(wire.Id), new(wire.Done, wire.Skipped, wire.Failed, wire.Interrupted)),
        _ => throw new ArgumentException($"{wire.Kind} is not a notification of this version.", nameof(wire)),
    };
}

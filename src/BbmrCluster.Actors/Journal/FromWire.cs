using System.Globalization;
using System.Runtime.InteropServices;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using Google.Protobuf.Collections;
using W = BbmrCluster.Actors.Journal.Wire;

namespace BbmrCluster.Actors.Journal;

/// <summary>Protobuf to our types. What a newer version added and we do not know is passed over where that is harmless and refused where not.</summary>
internal static class FromWire
{
    public static ImageEvents.Batch ImageBatch(W.ImageEvents wire) => new([.. wire.Events.Select(ImageEvent)]);

    public static PageEvents.Batch PageBatch(W.PageEvents wire) => new([.. wire.Events.Select(PageEvent)]);

    public static IndexEvents.Batch IndexBatch(W.IndexEvents wire) => new([.. wire.Listed.Select(Overview)]);

    public static ArchiveEvents.Batch ArchiveBatch(W.ArchiveEvents wire) => new([.. wire.Events.Select(ArchiveEvent)]);

    public static object Message(string manifest, W.Message m) => manifest switch
    {
        "as" => new ArchiveCommands.SubmitArchive(new(m.Archive), new(m.Run), m.Names[0], Policy(m.Policy, 0), m.Number, m.Number2, m.Names[1], m.Flag),
        "ai" => new ArchiveCommands.AddItems(new(m.Archive), new(m.Run), m.Number, Items(m.Items)),
        "aw" => new ArchiveCommands.WatchArchive(new(m.Archive), new(m.Run), m.Flag),
        "ax" => new ArchiveCommands.StopArchive(new(m.Archive), new(m.Run)),
        "ac" => new ArchiveCommands.ControlArchive(new(m.Archive), (ArchiveControl)m.Number),
        "al" => new ArchiveCommands.ListItems(new(m.Archive), m.Number, m.Number2, m.HasChoice ? (ItemState)m.Choice : null),
        "aa" => new ArchiveReplies.ArchiveAccepted(new(m.Archive), new(m.Run), m.Number),
        "ar" => new ArchiveReplies.ArchiveRefused(new(m.Archive), new(m.Run), m.Text),
        "aq" => new ArchiveReplies.ItemsWanted(new(m.Archive), new(m.Run), m.Number, m.Number2),
        "ad" => new ArchiveReplies.ControlAnswered(new(m.Archive), m.Flag, m.HasCode ? m.Code : null),
        "at" => new ArchiveReplies.ItemsListed(new(m.Archive), m.Flag, [.. m.Listed.Select(Listed)], m.HasChoice ? m.Choice : null),
        "xt" => new IndexMessages.ArchiveTold(Overview(m.Overviews[0])),
        "xl" => new IndexMessages.ArchiveListed(new(m.Archive), (ArchivePhase)m.Number, At(long.Parse(m.Text, CultureInfo.InvariantCulture))),
        "xq" => new IndexMessages.ListArchives(m.Number, m.Number2),
        "xf" => new IndexMessages.FindArchive(new(m.Archive)),
        "xa" => new IndexMessages.Archives([.. m.Overviews.Select(Overview)]),
        "au" => new ArchiveReplies.RunUnknown(new(m.Archive), new(m.Run)),
        "an" => new ArchiveReplies.Notified(new(m.Run), Notification(m.Notification)),
        "in" => new ArchiveFacts.ImageNotified(new(m.Image), Notification(m.Notification)),
        "ic" => new ArchiveFacts.ImageClosed(new(m.Image), new(m.Run), Outcome(m.Outcome)),
        "is" => new ArchiveFacts.ImageStopped(new(m.Image)),
        "io" => new ImageCommands.OpenImage(new(m.Image), new(m.Archive), new(m.Run), Policy(m.Policy, 0), Job(m.Jobs[0])),
        "ix" => new ImageCommands.StopImage(new(m.Image), new(m.Archive), new(m.Run), m.Flag),
        "ia" => new ImageCommands.AcknowledgeOutcome(new(m.Image), new(m.Run)),
        "iw" => new ImageCommands.SweepImage(new(m.Image), m.Flag),
        "lq" => new ImageCommands.RequestLeases(new(m.Image), new(m.Worker), m.Number, [.. m.Names], m.Flag),
        "lm" => new LeaseReplies.LeasesGranted(new(m.Image), Granted(m.Granted), m.Flag),
        "lw" => new LeaseReplies.WorkReady(new(m.Image)),
        "lx" => new LeaseReplies.LeaseCancelled(new(m.Image), Lease(m.Lease)),
        "lk" => new LeaseReplies.LeasesAcknowledged(new(m.Image), [.. m.Leases.Select(Lease)]),
        "lt" => new LeaseFacts.LeasesTold(new(m.Image), [.. m.Facts.Select(LeaseFact)]),
        "lh" => new LeaseFacts.LeasesHeld(new(m.Image), [.. m.Leases.SkipLast(m.Number).Select(Lease)], [.. m.Leases.TakeLast(m.Number).Select(Lease)]),
        "bw" => new BrokerFacts.WorkerPresent(Worker(m.Workers[0]), m.Flag ? [.. m.Names] : null),
        "bi" => new BrokerFacts.ImageWaiting(new(m.Image), new(m.Archive), new(m.Priority), m.Text, m.Number, m.Code),
        "bg" => new BrokerFacts.ImageGone(new(m.Image)),
        "bd" => new BrokerCommands.DrainWorker(new(m.Worker)),
        "bu" => new BrokerCommands.UndrainWorker(new(m.Worker)),
        "bl" => new BrokerCommands.ListWorkers(m.Number),
        "bv" => new BrokerCommands.Workers([.. m.Workers.Select(Worker)]),
        "bn" => new BrokerNotices.NobodyServes(new(m.Image), (Lack)m.Number),
        "ba" => new BrokerNotices.Assignment(
            [.. m.Shares.Select(share => new ArchiveShare(new(share.Archive), share.Weight, [.. share.Images.Select(image => new ImageId(image))]))], m.Flag, m.Number != 0),
        _ => throw new ArgumentException($"'{manifest}' is not a manifest of this version.", nameof(manifest)),
    };

    private static ImageEvents.IImageEvent ImageEvent(W.ImageEvent wire) => wire.EventCase switch
    {
        W.ImageEvent.EventOneofCase.Submitted => new ImageEvents.Submitted(new(wire.Submitted.Run), Policy(wire.Submitted.Policy, wire.Submitted.Priority), Job(wire.Submitted.Job)),
        W.ImageEvent.EventOneofCase.Resumed => new ImageEvents.Resumed(new(wire.Resumed.Run), Policy(wire.Resumed.Policy, wire.Resumed.Priority), wire.Resumed.Leases),
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
        W.ArchiveEvent.EventOneofCase.Submitted when wire.Submitted.PageSize > 0 => new ArchiveEvents.Submitted(new(wire.Submitted.Run), wire.Submitted.Name,
            Policy(wire.Submitted.Policy, 0), wire.Submitted.Images, wire.Submitted.PageSize, wire.Submitted.Digest, At(wire.Submitted.Ticks)),
        W.ArchiveEvent.EventOneofCase.Submitted or W.ArchiveEvent.EventOneofCase.OldPage or W.ArchiveEvent.EventOneofCase.OldClosed => new ArchiveEvents.OldLayout(),
        W.ArchiveEvent.EventOneofCase.PageStored => new ArchiveEvents.PageStored(wire.PageStored),
        W.ArchiveEvent.EventOneofCase.Reopened => new ArchiveEvents.Reopened(new(wire.Reopened.Run), wire.Reopened.Name,
            Policy(wire.Reopened.Policy, wire.Reopened.Priority), At(wire.Reopened.Ticks)),
        W.ArchiveEvent.EventOneofCase.RetriedTicks => new ArchiveEvents.Retried(At(wire.RetriedTicks)),
        W.ArchiveEvent.EventOneofCase.PageClosed => new ArchiveEvents.PageClosed(wire.PageClosed.Page, new(wire.PageClosed.Done, wire.PageClosed.Skipped, wire.PageClosed.Failed)),
        W.ArchiveEvent.EventOneofCase.Paused => new ArchiveEvents.Paused(),
        W.ArchiveEvent.EventOneofCase.Resumed => new ArchiveEvents.Resumed(),
        W.ArchiveEvent.EventOneofCase.CancelledTicks => new ArchiveEvents.Cancelled(At(wire.CancelledTicks)),
        W.ArchiveEvent.EventOneofCase.FinishedTicks => new ArchiveEvents.Finished(At(wire.FinishedTicks)),
        _ => throw new ArgumentException("An event of a newer version lies in the journal of an archive.", nameof(wire)),
    };

    private static PageEvents.IPageEvent PageEvent(W.PageEvent wire) => wire.EventCase switch
    {
        W.PageEvent.EventOneofCase.Filled => new PageEvents.Filled(Items(wire.Filled)),
        W.PageEvent.EventOneofCase.Opened => new PageEvents.Opened(new(wire.Opened.Run), wire.Opened.Retry),
        W.PageEvent.EventOneofCase.Closed => new PageEvents.ItemClosed(wire.Closed.Item, (ItemState)wire.Closed.State,
            wire.Closed.HasCode ? wire.Closed.Code : null, wire.Closed.HasMessage ? wire.Closed.Message : null),
        _ => throw new ArgumentException("An event of a newer version lies in the journal of a page.", nameof(wire)),
    };

    // Entries of version 0.1.0 hold the priority alone.
    private static WorkPolicy Policy(W.Policy? wire, int priority) =>
        wire is null ? new WorkPolicy(new(priority)) : new WorkPolicy(new(wire.Priority), wire.Attempts, (PoisonRule)wire.Poison);

    private static DateTimeOffset At(long ticks) => new(ticks, TimeSpan.Zero);

    private static List<ImageJob> Items(W.Items wire)
    {
        // What jobs have in common is held once.
        var common = new Dictionary<(int Template, string Format), JobParameters>();
        return [.. wire.Items_.Select(item =>
        {
            var outputs = Paths(item.Outputs);
            string format = JobParameters.FormatOf(outputs.Image);
            if (!common.TryGetValue((item.Template, format), out var parameters))
                common.Add((item.Template, format), parameters = Parameters(wire.Templates[item.Template], format));
            return new ImageJob(new(item.Id), item.Source, item.DisplayName, outputs, parameters);
        })];
    }

    private static ArchiveOverview Overview(W.Overview wire) => new(new(wire.Id), wire.Name, new(wire.Priority), (ArchivePhase)wire.Phase, wire.Images, wire.Done, wire.Skipped,
        wire.Failed, wire.Open, wire.Progress, At(wire.SubmittedTicks), wire.HasFinishedTicks ? At(wire.FinishedTicks) : null,
        wire.HasRemainingSeconds ? wire.RemainingSeconds : null, wire.HasWaiting ? wire.Waiting : null);

    private static WorkerOverview Worker(W.WorkerView wire) => new(new(wire.Id), wire.Address, wire.Devices, [.. wire.DeviceClasses], (WorkerPhase)wire.Phase, wire.BlocksPerSecond,
        [.. wire.Images.Select(image => new ImageId(image))],
        [.. wire.Leases.Select(lease => new LeaseOverview(new(lease.Image), lease.Lease, (Stage)lease.Stage, lease.FirstBlock, lease.BlockCount, lease.Seconds, lease.Running))]);

    private static ArchiveItem Listed(W.ListedItem wire) => new(wire.Item, new(wire.Id), wire.DisplayName, (ItemState)wire.State, wire.HasCode ? wire.Code : null,
        wire.HasMessage ? wire.Message : null, wire.HasProgress ? wire.Progress : null);

    private static ImageEvents.ScalesAllocated Allocated(W.Allocated wire) => new(wire.Scales.ToByteArray(), wire.HasMethod ? wire.Method : null,
        wire.HasSse ? wire.Sse : null, wire.HasDualBound ? wire.DualBound : null);

    private static List<LeaseReplies.GrantedLease> Granted(RepeatedField<W.Granted> wires)
    {
        if (wires.Count == 0)
            return [];
        var job = Job(wires[0].Work.Job);
        return [.. wires.Select(wire => new LeaseReplies.GrantedLease(Lease(wire.Lease), Work(wire.Work, job), Blob(wire.Whole)))];
    }

    private static LeaseFacts.ILeaseFact LeaseFact(W.LeaseFact wire) =>
        wire.Report is { } report ? new LeaseFacts.LeaseReported(Lease(wire.Lease), Report(report))
        : wire.Ended is { } ended ? new LeaseFacts.LeaseEnded(Lease(wire.Lease), Counts(ended))
        : wire.Failed is { } failed ? new LeaseFacts.LeaseFailed(Lease(wire.Lease), (FailureClass)failed.Failure_, failed.Message, Blob(failed.Lost), failed.HasCode ? failed.Code : null)
        : new LeaseFacts.LeaseReturned(Lease(wire.Lease));

    private static LeaseId Lease(W.Lease wire) => new(wire.Epoch, wire.Number);

    private static BlobRef? Blob(W.Blob? wire) => wire is null ? null : new(wire.Name, wire.Length, wire.Hash);

    private static ImageJob Job(W.Job wire)
    {
        var outputs = Paths(wire.Outputs);
        return new(new(wire.Id), wire.Source, wire.DisplayName, outputs, Parameters(wire, JobParameters.FormatOf(outputs.Image)));
    }

    private static JobParameters Parameters(W.Job wire, string format)
    {
        var parameters = new JobParameters
        {
            Kind = (JobKind)wire.Kind,
            Format = format,
            Engine = new(wire.Engine.Network, wire.Engine.Scorer, wire.Engine.Downscaler, new ScaleSet(wire.Engine.Scales), wire.Engine.Precision, wire.Engine.Device,
                wire.Engine.Threads, wire.Engine.MaxBatch, wire.Engine.Joint is "" ? "blockwise" : wire.Engine.Joint),
            Allocator = wire.Allocator,
            Rate = wire.Rate,
            Measure = wire.Measure,
            Force = wire.Force,
            AllowOtherWeights = wire.AllowOtherWeights,
            Limits = new ImageLimits(wire.MaxPixels, wire.MaxSide),
            DeviceClass = wire.DeviceClass,
            WeightHashes = new WeightHashes(wire.WeightHashes),
        };
        // One that is not known here would be left out of the work, and the bytes would be others than were asked for.
        return wire.Options.Aggregate(parameters, (known, option) => JobOption.Get(option.Key).Set(known, option.Value));
    }

    private static OutputPaths Paths(W.Paths wire) => new(wire.HasContainer ? wire.Container : null, wire.HasImage ? wire.Image : null,
        wire.HasAllocationPicture ? wire.AllocationPicture : null, wire.Report);

    private static ImageFacts Facts(W.Facts wire) => new(wire.Width, wire.Height, wire.ColourChannels, wire.HasAlpha, wire.BitDepth, wire.Format, wire.SourceBytes,
        new DateTime(wire.SourceModifiedTicks, DateTimeKind.Utc), wire.SourceSha256, Blob(wire.Metadata))
    {
        Context = (BlockContext)wire.Context,
        BlockSize = wire.BlockSize == 0 ? BlockGrid.DefaultBlockSize : wire.BlockSize,
    };

    private static StripBlobs Strip(W.Strip wire) => new(wire.Strip_, Blob(wire.Raw), Blob(wire.Packed), Blob(wire.Rows), Blob(wire.Top), Blob(wire.Bottom),
        Blob(wire.UniformTop), Blob(wire.UniformBottom), wire.HasUniformSse ? wire.UniformSse : null);

    private static OutputFile File(W.File wire) => new(wire.Path, wire.TemporaryPath, wire.Length, wire.Sha256);

    private static DeviceCounts Counts(W.Counts wire) => new([.. wire.Calls.Select(Call)], wire.PrecisionRetries, wire.SmallerBatches);

    private static DeviceCallCount Call(W.CallCount wire) => new(wire.Purpose, wire.Scale, wire.Calls, wire.Blocks);

    private static JobTally Tally(W.Tally wire) => new([.. wire.Counts.Calls.Select(Call)], wire.Counts.PrecisionRetries, wire.Counts.SmallerBatches,
        wire.BisectedLeases, wire.ResumedLeases, wire.Seconds, wire.HasAllocationMethod ? wire.AllocationMethod : null,
        wire.HasAllocationSse ? wire.AllocationSse : null, wire.HasAllocationDualBound ? wire.AllocationDualBound : null);

    public static LeaseWork Work(W.Work wire) => Work(wire, Job(wire.Job));

    private static LeaseWork Work(W.Work wire, ImageJob job) => new(
        job, (Stage)wire.Stage, wire.FirstBlock, wire.BlockCount, wire.Attempt, wire.Facts is { } facts ? Facts(facts) : null,
        [.. wire.Strips.Select(Strip)], wire.HasScales ? wire.Scales.ToByteArray() : null, wire.HasScores ? [.. wire.Scores] : null,
        [.. wire.Quarantined], [.. wire.Outputs.Select(File)], Tally(wire.Tally))
    {
        UniformSse = wire.HasUniformSse ? wire.UniformSse : null,
    };

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

using System.Globalization;
using System.Runtime.InteropServices;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using Google.Protobuf;
using W = BbmrCluster.Actors.Journal.Wire;

namespace BbmrCluster.Actors.Journal;

/// <summary>Our types to protobuf.</summary>
internal static class ToWire
{
    public static W.ImageEvents ImageBatch(ImageEvents.Batch batch) => new() { Events = { batch.Events.Select(ImageEvent) } };

    public static W.PageEvents PageBatch(PageEvents.Batch batch) => new() { Events = { batch.Events.Select(PageEvent) } };

    public static W.IndexEvents IndexBatch(IndexEvents.Batch batch) => new() { Listed = { batch.Events.Select(Overview) } };

    public static W.ArchiveEvents ArchiveBatch(ArchiveEvents.Batch batch) => new() { Events = { batch.Events.Select(ArchiveEvent) } };

    public static W.Message Message(object message) => message switch
    {
        ArchiveCommands.SubmitArchive m => new()
        {
            Archive = m.ArchiveId.Value, Run = m.Run.Value, Names = { m.Name, m.Digest }, Policy = Policy(m.Policy), Number = m.Images, Number2 = m.PageSize, Flag = m.Once,
        },
        ArchiveCommands.AddItems m => new() { Archive = m.ArchiveId.Value, Run = m.Run.Value, Number = m.First, Items = Items(m.Jobs) },
        ArchiveCommands.WatchArchive m => new() { Archive = m.ArchiveId.Value, Run = m.Run.Value, Flag = m.AnyRun },
        ArchiveCommands.StopArchive m => new() { Archive = m.ArchiveId.Value, Run = m.Run.Value },
        ArchiveCommands.ControlArchive m => new() { Archive = m.ArchiveId.Value, Number = (int)m.Control },
        ArchiveCommands.ListItems m => Choosing(new() { Archive = m.ArchiveId.Value, Number = m.From, Number2 = m.Count }, (int?)m.State),
        ArchiveReplies.ArchiveAccepted m => new() { Archive = m.ArchiveId.Value, Run = m.Run.Value, Number = m.Images },
        ArchiveReplies.ArchiveRefused m => new() { Archive = m.ArchiveId.Value, Run = m.Run.Value, Text = m.Reason },
        ArchiveReplies.ItemsWanted m => new() { Archive = m.ArchiveId.Value, Run = m.Run.Value, Number = m.First, Number2 = m.Count },
        ArchiveReplies.ControlAnswered m => With(new() { Archive = m.ArchiveId.Value, Flag = m.Known }, m.Refusal),
        ArchiveReplies.ItemsListed m => Choosing(new() { Archive = m.ArchiveId.Value, Flag = m.Known, Listed = { m.Items.Select(Listed) } }, m.Next),
        IndexMessages.ArchiveTold m => new() { Overviews = { Overview(m.Overview) } },
        IndexMessages.ArchiveListed m => new() { Archive = m.ArchiveId.Value, Number = (int)m.Phase, Text = m.SubmittedAt.UtcTicks.ToString(CultureInfo.InvariantCulture) },
        IndexMessages.ListArchives m => new() { Number = m.From, Number2 = m.Count },
        IndexMessages.FindArchive m => new() { Archive = m.ArchiveId.Value },
        IndexMessages.Archives m => new() { Overviews = { m.Items.Select(Overview) } },
        ArchiveReplies.RunUnknown m => new() { Archive = m.ArchiveId.Value, Run = m.Run.Value },
        ArchiveReplies.Notified m => new() { Run = m.Run.Value, Notification = Notification(m.Notification) },
        ArchiveFacts.ImageNotified m => new() { Image = m.ImageId.Value, Notification = Notification(m.Notification) },
        ArchiveFacts.ImageClosed m => new() { Image = m.ImageId.Value, Run = m.Run.Value, Outcome = Outcome(m.Outcome) },
        ArchiveFacts.ImageStopped m => new() { Image = m.ImageId.Value },
        ImageCommands.OpenImage m => new() { Image = m.ImageId.Value, Archive = m.ArchiveId.Value, Run = m.Run.Value, Policy = Policy(m.Policy), Jobs = { Job(m.Job) } },
        ImageCommands.StopImage m => new() { Image = m.ImageId.Value, Archive = m.ArchiveId.Value, Run = m.Run.Value, Flag = m.Discard },
        ImageCommands.AcknowledgeOutcome m => new() { Image = m.ImageId.Value, Run = m.Run.Value },
        ImageCommands.SweepImage m => new() { Image = m.ImageId.Value, Flag = m.Unfinished },
        ImageCommands.RequestLeases m => new() { Image = m.ImageId.Value, Worker = m.Worker.Value, Number = m.Count, Names = { m.DeviceClasses }, Flag = m.Second },
        LeaseReplies.LeasesGranted m => new()
        {
            Image = m.ImageId.Value, Granted = { m.Leases.Select((lease, i) => new W.Granted { Lease = Lease(lease.Lease), Work = Work(lease.Work, withJob: i == 0), Whole = Blob(lease.Whole) }) },
            Flag = m.Exhausted,
        },
        LeaseReplies.WorkReady m => new() { Image = m.ImageId.Value },
        LeaseReplies.LeaseCancelled m => new() { Image = m.ImageId.Value, Lease = Lease(m.Lease) },
        LeaseReplies.LeasesAcknowledged m => new() { Image = m.ImageId.Value, Leases = { m.Leases.Select(Lease) } },
        LeaseFacts.LeasesTold m => new() { Image = m.ImageId.Value, Facts = { m.Facts.Select(LeaseFact) } },
        LeaseFacts.LeasesHeld m => new() { Image = m.ImageId.Value, Leases = { m.Waiting.Concat(m.Running).Select(Lease) }, Number = m.Running.Count },
        BrokerFacts.WorkerPresent m => new() { Workers = { Worker(m.Worker) }, Names = { m.Weights ?? [] }, Flag = m.Weights is not null },
        BrokerFacts.ImageWaiting m => new()
        {
            Image = m.ImageId.Value, Archive = m.ArchiveId.Value, Priority = m.Priority.Value, Text = m.DeviceClass, Number = m.Useful, Code = m.Weights,
        },
        BrokerFacts.ImageGone m => new() { Image = m.ImageId.Value },
        BrokerCommands.DrainWorker m => new() { Worker = m.Worker.Value },
        BrokerCommands.UndrainWorker m => new() { Worker = m.Worker.Value },
        BrokerCommands.ListWorkers m => new() { Number = m.From },
        BrokerCommands.Workers m => new() { Workers = { m.Items.Select(Worker) } },
        BrokerNotices.NobodyServes m => new() { Image = m.ImageId.Value, Number = (int)m.Lacks },
        BrokerNotices.Assignment m => new()
        {
            Shares = { m.Shares.Select(share => new W.Share { Archive = share.Archive.Value, Weight = share.Weight, Images = { share.Images.Select(image => image.Value) } }) },
            Flag = m.Draining,
            Number = m.Partial ? 1 : 0,
        },
        _ => throw new ArgumentException($"{message.GetType()} is not a message between nodes.", nameof(message)),
    };

    private static W.LeaseFact LeaseFact(LeaseFacts.ILeaseFact fact)
    {
        var wire = new W.LeaseFact { Lease = Lease(fact.Lease) };
        switch (fact)
        {
            case LeaseFacts.LeaseReported reported:
                wire.Report = Report(reported.Report);
                break;
            case LeaseFacts.LeaseEnded ended:
                wire.Ended = Counts(ended.Counts);
                break;
            case LeaseFacts.LeaseFailed failed:
                wire.Failed = new W.Failure { Failure_ = (int)failed.Failure, Message = failed.Message, Lost = Blob(failed.Lost) };
                if (failed.Code is { } code)
                    wire.Failed.Code = code;
                break;
        }
        return wire;
    }

    private static W.ImageEvent ImageEvent(ImageEvents.IImageEvent one) => one switch
    {
        ImageEvents.Submitted e => new() { Submitted = new() { Run = e.Run.Value, Policy = Policy(e.Policy), Job = Job(e.Job) } },
        ImageEvents.Resumed e => new() { Resumed = new() { Run = e.Run.Value, Policy = Policy(e.Policy), Leases = e.Leases } },
        ImageEvents.Probed e => new() { Probed = Facts(e.Facts) },
        ImageEvents.StripStored e => new() { Stored = new() { Stage = (int)e.Stage, Strip = Strip(e.Strip) } },
        ImageEvents.BlocksSettled e => new() { Settled = new() { FirstBlock = e.FirstBlock, Sse = { e.Sse }, Quarantined = { e.Quarantined } } },
        ImageEvents.ScalesAllocated e => new() { Allocated = Allocated(e) },
        ImageEvents.BlobReopened e => new() { BlobReopened = e.Name },
        ImageEvents.OutputsReopened => new() { OutputsReopened = true },
        ImageEvents.OutputsPrepared e => new() { Prepared = Prepared(e.Outputs, e.ReportJson) },
        ImageEvents.WorkCounted e => new() { Counted = new() { Counts = Counts(e.Counts), Bisected = e.Bisected, Seconds = e.Seconds } },
        ImageEvents.Closed e => new() { Closed = Outcome(e.Outcome) },
        _ => throw new ArgumentException($"{one.GetType()} is not an event of an image.", nameof(one)),
    };

    private static W.ArchiveEvent ArchiveEvent(ArchiveEvents.IArchiveEvent one) => one switch
    {
        ArchiveEvents.Submitted e => new()
        {
            Submitted = new()
            {
                Run = e.Run.Value, Name = e.Name, Policy = Policy(e.Policy), Images = e.Images, PageSize = e.PageSize, Digest = e.Digest, Ticks = e.At.UtcTicks,
            },
        },
        ArchiveEvents.PageStored e => new() { PageStored = e.Page },
        ArchiveEvents.Reopened e => new() { Reopened = new() { Run = e.Run.Value, Name = e.Name, Policy = Policy(e.Policy), Ticks = e.At.UtcTicks } },
        ArchiveEvents.Retried e => new() { RetriedTicks = e.At.UtcTicks },
        ArchiveEvents.PageClosed e => new() { PageClosed = new() { Page = e.Page, Done = e.Counts.Done, Skipped = e.Counts.Skipped, Failed = e.Counts.Failed } },
        ArchiveEvents.Paused => new() { Paused = true },
        ArchiveEvents.Resumed => new() { Resumed = true },
        ArchiveEvents.Cancelled e => new() { CancelledTicks = e.At.UtcTicks },
        ArchiveEvents.Finished e => new() { FinishedTicks = e.At.UtcTicks },
        ArchiveEvents.OldLayout => new() { OldPage = new() },
        _ => throw new ArgumentException($"{one.GetType()} is not an event of an archive.", nameof(one)),
    };

    private static W.PageEvent PageEvent(PageEvents.IPageEvent one) => one switch
    {
        PageEvents.Filled e => new() { Filled = Items(e.Jobs) },
        PageEvents.Opened e => new() { Opened = new() { Run = e.Run.Value, Retry = e.Retry } },
        PageEvents.ItemClosed e => new() { Closed = Closed(e) },
        _ => throw new ArgumentException($"{one.GetType()} is not an event of a page.", nameof(one)),
    };

    private static W.Policy Policy(WorkPolicy policy) => new() { Priority = policy.Priority.Value, Attempts = policy.Attempts, Poison = (int)policy.Poison };

    private static W.Items Items(IReadOnlyList<ImageJob> jobs)
    {
        var wire = new W.Items();
        var templates = new Dictionary<JobParameters, int>();
        foreach (var job in jobs)
        {
            if (!templates.TryGetValue(job.Parameters, out int number))
            {
                templates.Add(job.Parameters, number = templates.Count);
                wire.Templates.Add(Parameters(job.Parameters));
            }
            wire.Items_.Add(new W.Item { Template = number, Id = job.Id.Value, Source = job.Source, DisplayName = job.DisplayName, Outputs = Paths(job.Outputs) });
        }
        return wire;
    }

    private static W.Overview Overview(ArchiveOverview one)
    {
        var wire = new W.Overview
        {
            Id = one.Id.Value, Name = one.Name, Priority = one.Priority.Value, Phase = (int)one.Phase, Images = one.Images, Done = one.Done, Skipped = one.Skipped,
            Failed = one.Failed, Open = one.Open, Progress = one.Progress, SubmittedTicks = one.SubmittedAt.UtcTicks,
        };
        if (one.FinishedAt is { } finished)
            wire.FinishedTicks = finished.UtcTicks;
        if (one.RemainingSeconds is { } remaining)
            wire.RemainingSeconds = remaining;
        if (one.Waiting is { } waiting)
            wire.Waiting = waiting;
        return wire;
    }

    private static W.WorkerView Worker(WorkerOverview one) => new()
    {
        Id = one.Id.Value, Address = one.Address, Devices = one.Devices, DeviceClasses = { one.DeviceClasses }, Phase = (int)one.Phase, BlocksPerSecond = one.BlocksPerSecond,
        Images = { one.Images.Select(image => image.Value) },
        Leases =
        {
            one.Leases.Select(lease => new W.LeaseView
            {
                Image = lease.ImageId.Value, Lease = lease.Lease, Stage = (int)lease.Stage, FirstBlock = lease.FirstBlock, BlockCount = lease.BlockCount,
                Seconds = lease.Seconds, Running = lease.Running,
            }),
        },
    };

    private static W.ListedItem Listed(ArchiveItem item)
    {
        var wire = new W.ListedItem { Item = item.Item, Id = item.ImageId.Value, DisplayName = item.DisplayName, State = (int)item.State };
        if (item.Code is { } code)
            wire.Code = code;
        if (item.Message is { } message)
            wire.Message = message;
        if (item.Progress is { } progress)
            wire.Progress = progress;
        return wire;
    }

    private static W.ItemClosed Closed(PageEvents.ItemClosed e)
    {
        var wire = new W.ItemClosed { Item = e.Index, State = (int)e.State };
        if (e.Code is { } code)
            wire.Code = code;
        if (e.Message is { } message)
            wire.Message = message;
        return wire;
    }

    private static W.Allocated Allocated(ImageEvents.ScalesAllocated e)
    {
        var wire = new W.Allocated { Scales = ByteString.CopyFrom(e.Scales) };
        if (e.Method is { } method)
            wire.Method = method;
        if (e.Sse is { } sse)
            wire.Sse = sse;
        if (e.DualBound is { } bound)
            wire.DualBound = bound;
        return wire;
    }

    private static W.Message With(W.Message message, string? code)
    {
        if (code is not null)
            message.Code = code;
        return message;
    }

    private static W.Message Choosing(W.Message message, int? choice)
    {
        if (choice is { } one)
            message.Choice = one;
        return message;
    }

    private static W.Lease Lease(LeaseId lease) => new() { Epoch = lease.Epoch, Number = lease.Number };

    private static W.Blob? Blob(BlobRef? blob) => blob is null ? null : new() { Name = blob.Name, Length = blob.Length, Hash = blob.Hash };

    private static W.Job Job(ImageJob job)
    {
        var wire = Parameters(job.Parameters);
        (wire.Id, wire.Source, wire.DisplayName, wire.Outputs) = (job.Id.Value, job.Source, job.DisplayName, Paths(job.Outputs));
        return wire;
    }

    private static W.Paths Paths(OutputPaths paths)
    {
        var wire = new W.Paths { Report = paths.Report };
        if (paths.Container is { } container)
            wire.Container = container;
        if (paths.Image is { } image)
            wire.Image = image;
        if (paths.AllocationPicture is { } picture)
            wire.AllocationPicture = picture;
        return wire;
    }

    // The format of restored images stands in their names.
    private static W.Job Parameters(JobParameters parameters)
    {
        var engine = parameters.Engine;
        var wire = new W.Job
        {
            Kind = (int)parameters.Kind,
            Engine = new()
            {
                Network = engine.Network,
                Scorer = engine.Scorer,
                Downscaler = engine.Downscaler,
                Scales = { engine.Scales.Scales },
                Precision = engine.Precision,
                Device = engine.Device,
                Threads = engine.Threads,
                MaxBatch = engine.MaxBatch,
                // Journals written before there was a choice lack it: block by block was all there was.
                Joint = engine.Joint is "blockwise" ? "" : engine.Joint,
            },
            DeviceClass = parameters.DeviceClass,
            Allocator = parameters.Allocator,
            Rate = parameters.Rate,
            Measure = parameters.Measure,
            Force = parameters.Force,
            MaxPixels = parameters.Limits.MaxPixels,
            MaxSide = parameters.Limits.MaxSide,
            AllowOtherWeights = parameters.AllowOtherWeights,
        };
        foreach (var (name, hash) in parameters.WeightHashes)
            wire.WeightHashes.Add(name, hash);
        foreach (var (option, value) in JobOption.SetByName(parameters))
            wire.Options.Add(option.Name, value);
        return wire;
    }

    private static W.Facts Facts(ImageFacts facts) => new()
    {
        Width = facts.Width,
        Height = facts.Height,
        ColourChannels = facts.ColourChannels,
        HasAlpha = facts.HasAlpha,
        BitDepth = facts.BitDepth,
        Format = facts.Format,
        SourceBytes = facts.SourceBytes,
        SourceModifiedTicks = facts.SourceModified.Ticks,
        SourceSha256 = facts.SourceSha256,
        Metadata = Blob(facts.Metadata),
        Context = (int)facts.Context,
        BlockSize = facts.BlockSize == BlockGrid.DefaultBlockSize ? 0 : facts.BlockSize,
    };

    private static W.Strip Strip(StripBlobs strip)
    {
        var wire = new W.Strip
        {
            Strip_ = strip.Strip,
            Raw = Blob(strip.Raw),
            Packed = Blob(strip.Packed),
            Rows = Blob(strip.Rows),
            Top = Blob(strip.Top),
            Bottom = Blob(strip.Bottom),
            UniformTop = Blob(strip.UniformTop),
            UniformBottom = Blob(strip.UniformBottom),
        };
        if (strip.UniformSse is { } sse)
            wire.UniformSse = sse;
        return wire;
    }

    private static W.File File(OutputFile file) => new() { Path = file.Path, TemporaryPath = file.TemporaryPath, Length = file.Length, Sha256 = file.Sha256 };

    private static W.Prepared Prepared(IEnumerable<OutputFile> outputs, string report) => new() { Outputs = { outputs.Select(File) }, ReportJson = report };

    private static W.Counts Counts(DeviceCounts counts) => Counts(counts.Calls, counts.PrecisionRetries, counts.SmallerBatches);

    private static W.Counts Counts(IEnumerable<DeviceCallCount> calls, long retries, long smaller) => new()
    {
        Calls = { calls.Select(call => new W.CallCount { Purpose = call.Purpose, Scale = call.Scale, Calls = call.Calls, Blocks = call.Blocks }) },
        PrecisionRetries = retries,
        SmallerBatches = smaller,
    };

    private static W.Tally Tally(JobTally tally)
    {
        var wire = new W.Tally
        {
            Counts = Counts(tally.Calls, tally.PrecisionRetries, tally.SmallerBatches),
            BisectedLeases = tally.BisectedLeases,
            ResumedLeases = tally.ResumedLeases,
            Seconds = tally.Seconds,
        };
        if (tally.AllocationMethod is { } method)
            wire.AllocationMethod = method;
        if (tally.AllocationSse is { } sse)
            wire.AllocationSse = sse;
        if (tally.AllocationDualBound is { } bound)
            wire.AllocationDualBound = bound;
        return wire;
    }

    public static W.Work Work(LeaseWork work, bool withJob = true)
    {
        var wire = new W.Work
        {
            Job = withJob ? Job(work.Job) : null,
            Stage = (int)work.Stage,
            FirstBlock = work.FirstBlock,
            BlockCount = work.BlockCount,
            Attempt = work.Attempt,
            Facts = work.Facts is { } facts ? Facts(facts) : null,
            Strips = { work.Strips.Select(Strip) },
            HasScores = work.Scores is not null,
            Scores = { work.Scores ?? [] },
            Quarantined = { work.Quarantined },
            Outputs = { work.Outputs.Select(File) },
            Tally = Tally(work.Tally),
        };
        if (work.Scales is { } scales)
            wire.Scales = ByteString.CopyFrom(scales);
        if (work.UniformSse is { } uniform)
            wire.UniformSse = uniform;
        return wire;
    }

    private static W.Report Report(StageReport report) => report switch
    {
        ImageProbed r => new() { Probed = Facts(r.Facts) },
        AlreadyDone r => new() { AlreadyDone = r.ReportJson },
        StripIngested r => new() { Ingested = Strip(r.Strip) },
        ScalesRead r => new() { Scales = ByteString.CopyFrom(r.Scales) },
        BlocksScored r => new()
        {
            Scores = new() { FirstBlock = r.FirstBlock, Scales = r.Sse.GetLength(1), Sse = { MemoryMarshal.CreateSpan(ref r.Sse[0, 0], r.Sse.Length).ToArray() } },
        },
        StripPacked r => new() { Packed = Strip(r.Strip) },
        StripReconstructed r => new() { Reconstructed = Strip(r.Strip) },
        OutputsPrepared r => new() { Prepared = Prepared(r.Outputs, r.ReportJson) },
        OutputsCommitted => new() { Committed = true },
        Working => new() { Working = true },
        _ => throw new ArgumentException($"{report.GetType()} is not a report of a stage.", nameof(report)),
    };

    private static W.Outcome Outcome(ImageOutcome outcome) => outcome switch
    {
        ImageOutcome.Done o => new() { Kind = 0, ReportJson = o.ReportJson },
        ImageOutcome.Skipped o => new() { Kind = 1, ReportJson = o.ReportJson },
        ImageOutcome.Failed o => new() { Kind = 2, Code = o.Code, Message = o.Message },
        _ => new() { Kind = 3 },
    };

    private static W.Notification Notification(JobNotification notification) => notification switch
    {
        JobNotification.ImageStarted n => new() { Kind = 0, Id = n.ImageId.Value, Text = n.DisplayName, Number = n.ResumedLeases },
        JobNotification.ImageProgressed n => new()
        {
            Kind = 1,
            Id = n.ImageId.Value,
            Stages = { n.Progress.Stages.Select(stage => new W.StageCount { Stage = (int)stage.Stage, Done = stage.DoneBlocks, Total = stage.TotalBlocks }) },
            DoneUnits = n.Progress.DoneUnits,
            TotalUnits = n.Progress.TotalUnits,
        },
        JobNotification.ImagePaused n => new() { Kind = 2, Id = n.ImageId.Value, Text = n.Reason },
        JobNotification.ImageResumed n => new() { Kind = 3, Id = n.ImageId.Value },
        JobNotification.ImageFinished n => new() { Kind = 4, Id = n.ImageId.Value, Outcome = Outcome(n.Outcome) },
        JobNotification.ArchiveFinished n => new()
        {
            Kind = 5,
            Id = n.ArchiveId.Value,
            Done = n.Summary.Done,
            Skipped = n.Summary.Skipped,
            Failed = n.Summary.Failed,
            Interrupted = n.Summary.Interrupted,
        },
        _ => throw new ArgumentException($"{notification.GetType()} is not a notification.", nameof(notification)),
    };
}

using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Work;

namespace BbmrCluster.Actors.Protocol;

/// <summary>May be rejected, and are answered.</summary>
internal static class ArchiveCommands
{
    /// <summary>Opens a run; the pages follow. The sender watches it from now on.</summary>
    public sealed record SubmitArchive(ArchiveId ArchiveId, RunId Run, Priority Priority, int Images) : IWithArchiveId, IWireMessage;

    /// <summary>One page of at most 1,000 images; a page that is known is passed over.</summary>
    public sealed record AddPage(ArchiveId ArchiveId, RunId Run, int Page, IReadOnlyList<ImageJob> Jobs) : IWithArchiveId, IWireMessage;

    /// <summary>The sender still wants notifications of that run; repeated, so that a restarted coordinator knows its watchers and goes on.</summary>
    public sealed record WatchArchive(ArchiveId ArchiveId, RunId Run) : IWithArchiveId, IWireMessage;

    /// <summary>Takes all leases back and closes the run; everything finished so far stays in the journal.</summary>
    public sealed record StopArchive(ArchiveId ArchiveId, RunId Run) : IWithArchiveId, IWireMessage;
}

/// <summary>Answers to commands.</summary>
internal static class ArchiveReplies
{
    /// <summary>All pages are journaled.</summary>
    public sealed record ArchiveAccepted(ArchiveId ArchiveId, RunId Run, int Images) : IWireMessage;

    /// <summary>A page is journaled.</summary>
    public sealed record PageAccepted(ArchiveId ArchiveId, RunId Run, int Page) : IWireMessage;

    /// <summary>The run is unknown here (the coordinator lost it before it was journaled): submit again.</summary>
    public sealed record RunUnknown(ArchiveId ArchiveId, RunId Run) : IWireMessage;

    /// <summary>A notification for the watchers of a run.</summary>
    public sealed record Notified(RunId Run, JobNotification Notification) : IWireMessage;
}

/// <summary>Happened elsewhere and cannot be rejected: what image coordinators tell.</summary>
internal static class ArchiveFacts
{
    /// <summary>Something to pass on to the watchers.</summary>
    public sealed record ImageNotified(ImageId ImageId, JobNotification Notification) : IWireMessage;

    /// <summary>An image of this run is closed. Repeated until it is acknowledged.</summary>
    public sealed record ImageClosed(ImageId ImageId, RunId Run, ImageOutcome Outcome) : IWireMessage;

    /// <summary>An image holds no lease any more after a stop.</summary>
    public sealed record ImageStopped(ImageId ImageId) : IWireMessage;
}

/// <summary>What the journal of an archive holds.</summary>
internal static class ArchiveEvents
{
    public interface IArchiveEvent;

    /// <summary>Events written in one transaction.</summary>
    public sealed record Batch(IReadOnlyList<IArchiveEvent> Events) : IWireMessage;

    /// <summary>First submission.</summary>
    public sealed record Submitted(RunId Run, Priority Priority, int Images) : IArchiveEvent;

    /// <summary>Images of one page.</summary>
    public sealed record PageAdded(int Page, IReadOnlyList<ImageJob> Jobs) : IArchiveEvent;

    /// <summary>Submitted again: every closed image is asked again.</summary>
    public sealed record Reopened(RunId Run, Priority Priority) : IArchiveEvent;

    /// <summary>An image ended. The report itself lies beside the outputs, not here.</summary>
    public sealed record ItemClosed(int Item, ItemState State, string? Code, string? Message) : IArchiveEvent;

    /// <summary>Every image is closed.</summary>
    public sealed record Finished(DateTimeOffset At) : IArchiveEvent;
}

/// <summary>Own stop message: a poison pill would overtake outstanding writes.</summary>
internal sealed record StopWhenWritten : INoSerializationVerificationNeeded, IDeadLetterSuppression
{
    public static StopWhenWritten Instance { get; } = new();
}

using Akka.Actor;
using Akka.Event;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Protocol;

/// <summary>May be rejected, and are answered.</summary>
internal static class ArchiveCommands
{
    /// <summary>
    /// Opens a run; the sender watches it from now on. Answered by <see cref="ArchiveReplies.ItemsWanted"/> for one page
    /// after the other and then <see cref="ArchiveReplies.ArchiveAccepted"/>, or by <see cref="ArchiveReplies.ArchiveRefused"/>.
    /// </summary>
    /// <param name="ArchiveId">The archive.</param>
    /// <param name="Run">This submission.</param>
    /// <param name="Name">For people; may be empty.</param>
    /// <param name="Policy">What is asked of the coordination.</param>
    /// <param name="Images">Images in all.</param>
    /// <param name="PageSize">Images in a page, 1 to 1,000.</param>
    /// <param name="Digest">Hash of all image ids in order: another one under the same id is another archive, and is refused.</param>
    /// <param name="Once">An archive that is there already stays in the run it is in, which is accepted for this one too.</param>
    public sealed record SubmitArchive(ArchiveId ArchiveId, RunId Run, string Name, WorkPolicy Policy, int Images, int PageSize, string Digest, bool Once = false) : IWithArchiveId, IWireMessage;

    /// <summary>Some of the images that were asked for; small enough for one message.</summary>
    public sealed record AddItems(ArchiveId ArchiveId, RunId Run, int First, IReadOnlyList<ImageJob> Jobs) : IWithArchiveId, IWireMessage;

    /// <summary>
    /// The sender wants notifications; repeated, so that a restarted coordinator knows its watchers and goes on. Of that
    /// run alone, or of whatever run there is (<paramref name="Run"/> then only names the watcher).
    /// </summary>
    public sealed record WatchArchive(ArchiveId ArchiveId, RunId Run, bool AnyRun) : IWithArchiveId, IWireMessage;

    /// <summary>Takes all leases back and closes the run; everything finished so far stays in the journal.</summary>
    public sealed record StopArchive(ArchiveId ArchiveId, RunId Run) : IWithArchiveId, IWireMessage;

    /// <summary>What an operator wants. Answered by <see cref="ArchiveReplies.ControlAnswered"/>.</summary>
    public sealed record ControlArchive(ArchiveId ArchiveId, ArchiveControl Control) : IWithArchiveId, IWireMessage;

    /// <summary>Asks for images from a place on, in one state or any. Answered by <see cref="ArchiveReplies.ItemsListed"/>.</summary>
    public sealed record ListItems(ArchiveId ArchiveId, int From, int Count, ItemState? State) : IWithArchiveId, IWireMessage;
}

/// <summary>What an operator can do with an archive.</summary>
internal enum ArchiveControl : byte
{
    Pause,
    Resume,
    Cancel,
    Retry,
}

/// <summary>Answers to commands.</summary>
internal static class ArchiveReplies
{
    /// <summary>All images are journaled.</summary>
    public sealed record ArchiveAccepted(ArchiveId ArchiveId, RunId Run, int Images) : IWireMessage;

    /// <summary>The submission cannot be taken; one sentence for the user.</summary>
    public sealed record ArchiveRefused(ArchiveId ArchiveId, RunId Run, string Reason) : IWireMessage;

    /// <summary>These images are to be sent now, in as many messages as they need.</summary>
    public sealed record ItemsWanted(ArchiveId ArchiveId, RunId Run, int First, int Count) : IWireMessage;

    /// <summary>The run is unknown here (the coordinator lost it before it was journaled): submit again.</summary>
    public sealed record RunUnknown(ArchiveId ArchiveId, RunId Run) : IWireMessage;

    /// <summary>A notification for the watchers of a run.</summary>
    public sealed record Notified(RunId Run, JobNotification Notification) : IWireMessage;

    /// <summary>What became of an operator's command; the reason is null when it was carried out.</summary>
    public sealed record ControlAnswered(ArchiveId ArchiveId, bool Known, string? Refusal) : IWireMessage;

    /// <summary>Images found, and where to go on; null at the end.</summary>
    public sealed record ItemsListed(ArchiveId ArchiveId, bool Known, IReadOnlyList<ArchiveItem> Items, int? Next) : IWireMessage;
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

/// <summary>What the journal of an archive holds. Its images lie in the journals of its pages.</summary>
internal static class ArchiveEvents
{
    public interface IArchiveEvent;

    /// <summary>Events written in one transaction.</summary>
    public sealed record Batch(IReadOnlyList<IArchiveEvent> Events) : IWireMessage;

    /// <summary>First submission.</summary>
    public sealed record Submitted(RunId Run, string Name, WorkPolicy Policy, int Images, int PageSize, string Digest, DateTimeOffset At) : IArchiveEvent;

    /// <summary>The next page holds its images.</summary>
    public sealed record PageStored(int Page) : IArchiveEvent;

    /// <summary>Submitted again: every closed image is asked again.</summary>
    public sealed record Reopened(RunId Run, string Name, WorkPolicy Policy, DateTimeOffset At) : IArchiveEvent;

    /// <summary>Failed images are tried again.</summary>
    public sealed record Retried(DateTimeOffset At) : IArchiveEvent;

    /// <summary>Every image of a page is closed.</summary>
    public sealed record PageClosed(int Page, PageCounts Counts) : IArchiveEvent;

    public sealed record Paused : IArchiveEvent;

    public sealed record Resumed : IArchiveEvent;

    public sealed record Cancelled(DateTimeOffset At) : IArchiveEvent;

    /// <summary>Every image is closed.</summary>
    public sealed record Finished(DateTimeOffset At) : IArchiveEvent;

    /// <summary>Written by version 0.1.0, which kept images here: they are submitted again, and finished outputs are found.</summary>
    public sealed record OldLayout : IArchiveEvent;
}

/// <summary>Closed images of a page.</summary>
internal readonly record struct PageCounts(int Done, int Skipped, int Failed)
{
    public int Closed => Done + Skipped + Failed;

    public static PageCounts operator +(PageCounts a, PageCounts b) => new(a.Done + b.Done, a.Skipped + b.Skipped, a.Failed + b.Failed);

    public static PageCounts operator -(PageCounts a, PageCounts b) => new(a.Done - b.Done, a.Skipped - b.Skipped, a.Failed - b.Failed);
}

/// <summary>What the journal of a page holds.</summary>
internal static class PageEvents
{
    public interface IPageEvent;

    /// <summary>Events written in one transaction.</summary>
    public sealed record Batch(IReadOnlyList<IPageEvent> Events) : IWireMessage;

    /// <summary>Its images.</summary>
    public sealed record Filled(IReadOnlyList<ImageJob> Jobs) : IPageEvent;

    /// <summary>A later run opens every image again, a retry of the same run those that failed.</summary>
    public sealed record Opened(RunId Run, int Retry) : IPageEvent;

    /// <summary>An image ended; it is named by its place in the page. The report itself lies beside the outputs, not here.</summary>
    public sealed record ItemClosed(int Index, ItemState State, string? Code, string? Message) : IPageEvent;
}

/// <summary>Between an archive and its pages; never leaves the process.</summary>
internal static class PageMessages
{
    /// <summary>Images for a page of so many.</summary>
    public sealed record Fill(int Index, IReadOnlyList<ImageJob> Jobs, int Count) : INoSerializationVerificationNeeded;

    /// <summary>The page is journaled.</summary>
    public sealed record Stored(int Page) : INoSerializationVerificationNeeded;

    /// <summary>Work on it in this run, with at most so many images open; repeated and absolute.</summary>
    public sealed record Work(RunId Run, int Retry, WorkPolicy Policy, int Open) : INoSerializationVerificationNeeded;

    /// <summary>Stop all open images; answered by <see cref="Changed"/> with none open and <see cref="Changed.Halting"/>.</summary>
    public sealed record Halt(bool Discard) : INoSerializationVerificationNeeded;

    /// <summary>Where the page stands in its run; absolute. <paramref name="Fraction"/> is the sum over open images of what is done of them.</summary>
    public sealed record Changed(int Page, RunId? Run, int Retry, PageCounts Counts, int Open, int Pending, double Fraction, string? Waiting, bool Halting) : INoSerializationVerificationNeeded;

    public sealed record List(ArchiveId ArchiveId, int First, int From, int Count, ItemState? State, IActorRef ReplyTo, int? Next) : INoSerializationVerificationNeeded;
}

/// <summary>The read model.</summary>
internal static class IndexMessages
{
    /// <summary>An archive tells where it stands; repeated while it lives, and at its end until <see cref="ArchiveListed"/>.</summary>
    public sealed record ArchiveTold(ArchiveOverview Overview) : IWireMessage;

    /// <summary>Journaled in this phase of this run.</summary>
    public sealed record ArchiveListed(ArchiveId ArchiveId, ArchivePhase Phase, DateTimeOffset SubmittedAt) : IWireMessage;

    /// <summary>Asks for archives, the latest submission first, from a place on.</summary>
    public sealed record ListArchives(int From, int Count) : IWireMessage;

    /// <summary>Asks for one. Answered by a list of one or none.</summary>
    public sealed record FindArchive(ArchiveId ArchiveId) : IWireMessage;

    public sealed record Archives(IReadOnlyList<ArchiveOverview> Items) : IWireMessage;
}

/// <summary>What the journal of the read model holds.</summary>
internal static class IndexEvents
{
    /// <summary>Events written in one transaction: archives as they were told last.</summary>
    public sealed record Batch(IReadOnlyList<ArchiveOverview> Events) : IWireMessage;
}

/// <summary>Own stop message: a poison pill would overtake outstanding writes.</summary>
internal sealed record StopWhenWritten : INoSerializationVerificationNeeded, IDeadLetterSuppression
{
    public static StopWhenWritten Instance { get; } = new();
}

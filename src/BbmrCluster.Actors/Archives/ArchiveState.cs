using System.Collections.Immutable;
using BbmrCluster.Actors.Protocol;
using static BbmrCluster.Actors.Protocol.ArchiveEvents;

namespace BbmrCluster.Actors.Archives;

/// <summary>
/// What the journal of an archive knows: its run, which pages hold their images, and the counts of pages that are
/// closed. Pure, and small however many images there are: they lie in pages, which are read only while they are worked on.
/// </summary>
internal sealed record ArchiveState
{
    public static ArchiveState Empty { get; } = new();

    public RunId? Run { get; private init; }

    /// <summary>How often failed images of this run were opened again.</summary>
    public int Retry { get; private init; }

    public string Name { get; private init; } = "";

    public WorkPolicy Policy { get; private init; } = new();

    public int Images { get; private init; }

    public int PageSize { get; private init; }

    public string Digest { get; private init; } = "";

    /// <summary>Pages that hold their images; they come in order.</summary>
    public int StoredPages { get; private init; }

    public ImmutableDictionary<int, PageCounts> ClosedPages { get; private init; } = ImmutableDictionary<int, PageCounts>.Empty;

    /// <summary>Sum over closed pages.</summary>
    public PageCounts Closed { get; private init; }

    public bool Paused { get; private init; }

    public bool Cancelled { get; private init; }

    public bool Finished { get; private init; }

    public DateTimeOffset SubmittedAt { get; private init; }

    public DateTimeOffset? EndedAt { get; private init; }

    public int Pages => PageSize == 0 ? 0 : (int)(((long)Images + PageSize - 1) / PageSize);

    public bool Complete => Run is not null && StoredPages == Pages;

    /// <summary>Nothing is to be done before someone asks.</summary>
    public bool Ended => Finished || Cancelled;

    public ArchivePhase Phase => Cancelled ? ArchivePhase.Cancelled
        : !Complete ? ArchivePhase.Submitting
        : Finished ? ArchivePhase.Finished
        : Paused ? ArchivePhase.Paused
        : ArchivePhase.Running;

    public int First(int page) => page * PageSize;

    public int Count(int page) => Math.Min(PageSize, Images - First(page));

    /// <summary>Why a submission cannot be taken; null when it can.</summary>
    public string? WhyNot(ArchiveCommands.SubmitArchive command) =>
        command.Images < 1 || command.PageSize is < 1 or > 1000 ? "the submission is malformed"
        : Run is not null && (Images != command.Images || Digest != command.Digest) ? "another archive was submitted under this id"
        : null;

    public IReadOnlyList<IArchiveEvent> Decide(ArchiveCommands.SubmitArchive command, DateTimeOffset now) =>
        WhyNot(command) is not null || Run == command.Run || (command.Once && Complete) ? []
        : Run is null ? [new Submitted(command.Run, command.Name, command.Policy, command.Images, command.PageSize, command.Digest, now)]
        : [new Reopened(command.Run, command.Name, command.Policy, now)];

    public IReadOnlyList<IArchiveEvent> DecideStored(int page) => Run is not null && page == StoredPages && page < Pages ? [new PageStored(page)] : [];

    /// <summary>Every image of a page is closed.</summary>
    public IReadOnlyList<IArchiveEvent> DecideClosed(int page, int retry, PageCounts counts, DateTimeOffset now)
    {
        if (!Complete || Ended || retry != Retry || page >= Pages || ClosedPages.ContainsKey(page) || counts.Closed != Count(page))
            return [];
        var closed = new PageClosed(page, counts);
        return ClosedPages.Count + 1 == Pages ? [closed, new Finished(now)] : [closed];
    }

    /// <summary>Why a command cannot be carried out; null when it can, or changes nothing.</summary>
    public string? WhyNot(ArchiveControl control) =>
        !Complete && control != ArchiveControl.Cancel ? "its images are still coming in"
        : control is ArchiveControl.Pause or ArchiveControl.Cancel && Finished ? "it is finished"
        : control is ArchiveControl.Pause or ArchiveControl.Resume && Cancelled ? "it is cancelled"
        : null;

    public IReadOnlyList<IArchiveEvent> Decide(ArchiveControl control, DateTimeOffset now) => WhyNot(control) is not null ? [] : control switch
    {
        ArchiveControl.Pause => Paused ? [] : [new Paused()],
        ArchiveControl.Resume => Paused ? [new Resumed()] : [],
        ArchiveControl.Cancel => Cancelled ? [] : [new Cancelled(now)],
        _ => Finished && Closed.Failed == 0 ? [] : [new Retried(now)],
    };

    public ArchiveState Apply(IArchiveEvent one)
    {
        switch (one)
        {
            case Submitted e:
                return Empty with
                {
                    Run = e.Run, Name = e.Name, Policy = e.Policy, Images = e.Images, PageSize = e.PageSize, Digest = e.Digest, SubmittedAt = e.At,
                };
            case OldLayout:
                return Empty;
            case var _ when Run is null:
                return this;
            case PageStored:
                return this with { StoredPages = StoredPages + 1 };
            case Reopened e:
                return this with
                {
                    Run = e.Run, Retry = 0, Name = e.Name, Policy = e.Policy, SubmittedAt = e.At, EndedAt = null, Paused = false, Cancelled = false, Finished = false,
                    ClosedPages = ImmutableDictionary<int, PageCounts>.Empty, Closed = default,
                };
            case Retried:
                var failed = ClosedPages.Where(page => page.Value.Failed > 0).ToList();
                return this with
                {
                    Retry = Retry + 1, EndedAt = null, Paused = false, Cancelled = false, Finished = false,
                    ClosedPages = ClosedPages.RemoveRange(failed.Select(page => page.Key)),
                    Closed = failed.Aggregate(Closed, (sum, page) => sum - page.Value),
                };
            case PageClosed e:
                return this with { ClosedPages = ClosedPages.SetItem(e.Page, e.Counts), Closed = Closed + e.Counts };
            case ArchiveEvents.Paused:
                return this with { Paused = true };
            case Resumed:
                return this with { Paused = false };
            case ArchiveEvents.Cancelled e:
                return this with { Cancelled = true, Paused = false, EndedAt = e.At };
            case ArchiveEvents.Finished e:
                return this with { Finished = true, EndedAt = e.At };
            default:
                throw new InvalidOperationException($"{one.GetType().Name} is no event of an archive.");
        }
    }
}

using System.Collections.Immutable;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;
using static BbmrCluster.Actors.Protocol.ArchiveEvents;

namespace BbmrCluster.Actors.Archives;

/// <summary>Images of an archive that came together, with the state of each.</summary>
internal sealed record Page(ImmutableArray<ImageJob> Jobs, ImmutableArray<ItemState> States)
{
    public static Page Of(IReadOnlyList<ImageJob> jobs) => new([.. jobs], [.. Enumerable.Repeat(ItemState.Pending, jobs.Count)]);
}

/// <summary>
/// What the journal knows of an archive: its images in pages, and which of them are closed in this run. Pure. An item is
/// named by its place; all pages but the last have the same size.
/// </summary>
internal sealed record ArchiveState
{
    public static ArchiveState Empty { get; } = new();

    public RunId? Run { get; private init; }

    public Priority Priority { get; private init; }

    /// <summary>Images in all, known from the submission on.</summary>
    public int Images { get; private init; }

    public ImmutableSortedDictionary<int, Page> Pages { get; private init; } = ImmutableSortedDictionary<int, Page>.Empty;

    public bool Finished { get; private init; }

    public int Done { get; private init; }

    public int Skipped { get; private init; }

    public int Failed { get; private init; }

    public int Known { get; private init; }

    public bool Complete => Run is not null && Known == Images;

    public int Closed => Done + Skipped + Failed;

    public int PageSize => Pages.TryGetValue(0, out var first) ? first.Jobs.Length : 0;

    public ImageJob Job(int item) => Pages[item / PageSize].Jobs[item % PageSize];

    public ItemState State(int item) => Pages[item / PageSize].States[item % PageSize];

    /// <summary>The next item from a place on that is not closed, or null.</summary>
    public int? NextPending(int from)
    {
        for (int item = from; item < Known; item++)
        {
            if (State(item) == ItemState.Pending)
                return item;
        }
        return null;
    }

    public IReadOnlyList<IArchiveEvent> Decide(ArchiveCommands.SubmitArchive command) =>
        Run is null ? [new Submitted(command.Run, command.Priority, command.Images)]
        : Run == command.Run ? []
        : [new Reopened(command.Run, command.Priority)];

    public IReadOnlyList<IArchiveEvent> Decide(ArchiveCommands.AddPage command) =>
        Run == command.Run && !Pages.ContainsKey(command.Page) ? [new PageAdded(command.Page, command.Jobs)] : [];

    /// <summary>Records an image's outcome in this run; null items and repeated outcomes give nothing.</summary>
    public IReadOnlyList<IArchiveEvent> DecideClosed(int item, RunId run, ImageOutcome outcome, DateTimeOffset now)
    {
        if (Run != run || State(item) != ItemState.Pending)
            return [];
        IArchiveEvent closed = outcome switch
        {
            ImageOutcome.Done => new ItemClosed(item, ItemState.Done, null, null),
            ImageOutcome.Skipped => new ItemClosed(item, ItemState.Skipped, null, null),
            ImageOutcome.Failed failed => new ItemClosed(item, ItemState.Failed, failed.Code, failed.Message),
            _ => throw new ArgumentException("An interrupted image is not closed.", nameof(outcome)),
        };
        return Closed + 1 == Images ? [closed, new Finished(now)] : [closed];
    }

    public ArchiveState Apply(IArchiveEvent one)
    {
        switch (one)
        {
            case Submitted e:
                return Empty with { Run = e.Run, Priority = e.Priority, Images = e.Images };
            case PageAdded e:
                return this with { Pages = Pages.SetItem(e.Page, Page.Of(e.Jobs)), Known = Known + e.Jobs.Count };
            case Reopened e:
                return this with
                {
                    Run = e.Run,
                    Priority = e.Priority,
                    Finished = false,
                    Done = 0,
                    Skipped = 0,
                    Failed = 0,
                    Pages = Pages.ToImmutableSortedDictionary(page => page.Key, page => Page.Of(page.Value.Jobs)),
                };
            case ItemClosed e:
                int number = e.Item / PageSize;
                var changed = Pages[number];
                return this with
                {
                    Pages = Pages.SetItem(number, changed with { States = changed.States.SetItem(e.Item % PageSize, e.State) }),
                    Done = Done + (e.State == ItemState.Done ? 1 : 0),
                    Skipped = Skipped + (e.State == ItemState.Skipped ? 1 : 0),
                    Failed = Failed + (e.State == ItemState.Failed ? 1 : 0),
                };
            case ArchiveEvents.Finished:
                return this with { Finished = true };
            default:
                throw new InvalidOperationException($"{one.GetType().Name} is no event of an archive.");
        }
    }
}

using System.Collections.Immutable;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;
using static BbmrCluster.Actors.Protocol.PageEvents;

namespace BbmrCluster.Actors.Archives;

/// <summary>At most 1,000 images of an archive, and how each ended in this run. Pure.</summary>
internal sealed record PageState
{
    public static PageState Empty { get; } = new();

    public ImmutableArray<ImageJob> Jobs { get; private init; } = [];

    public ImmutableArray<ItemState> States { get; private init; } = [];

    public ImmutableDictionary<int, (string? Code, string? Message)> Failures { get; private init; } = ImmutableDictionary<int, (string?, string?)>.Empty;

    public RunId? Run { get; private init; }

    public int Retry { get; private init; }

    public PageCounts Counts { get; private init; }

    public bool IsFilled => Jobs.Length > 0;

    public int Pending => Jobs.Length - Counts.Closed;

    public IReadOnlyList<IPageEvent> DecideFill(IReadOnlyList<ImageJob> jobs) => IsFilled ? [] : [new Filled(jobs)];

    public IReadOnlyList<IPageEvent> DecideOpen(RunId run, int retry) => !IsFilled || (Run == run && Retry == retry) ? [] : [new Opened(run, retry)];

    /// <summary>Records an image's outcome; one that is closed gives nothing.</summary>
    public IReadOnlyList<IPageEvent> DecideClosed(int index, ImageOutcome outcome) => States[index] != ItemState.Pending ? [] : outcome switch
    {
        ImageOutcome.Done => [new ItemClosed(index, ItemState.Done, null, null)],
        ImageOutcome.Skipped => [new ItemClosed(index, ItemState.Skipped, null, null)],
        ImageOutcome.Failed failed => [new ItemClosed(index, ItemState.Failed, failed.Code, failed.Message)],
        _ => throw new ArgumentException("An interrupted image is not closed.", nameof(outcome)),
    };

    public PageState Apply(IPageEvent one)
    {
        switch (one)
        {
            case Filled e:
                return Empty with { Jobs = [.. e.Jobs], States = [.. Enumerable.Repeat(ItemState.Pending, e.Jobs.Count)] };
            case Opened e when Run == e.Run:
                return this with
                {
                    Retry = e.Retry,
                    States = [.. States.Select(state => state == ItemState.Failed ? ItemState.Pending : state)],
                    Failures = Failures.Clear(),
                    Counts = Counts with { Failed = 0 },
                };
            case Opened e:
                return this with { Run = e.Run, Retry = e.Retry, States = [.. States.Select(_ => ItemState.Pending)], Failures = Failures.Clear(), Counts = default };
            case ItemClosed e:
                return this with
                {
                    States = States.SetItem(e.Index, e.State),
                    Failures = e.State == ItemState.Failed ? Failures.SetItem(e.Index, (e.Code, e.Message)) : Failures,
                    Counts = Counts + new PageCounts(e.State == ItemState.Done ? 1 : 0, e.State == ItemState.Skipped ? 1 : 0, e.State == ItemState.Failed ? 1 : 0),
                };
            default:
                throw new InvalidOperationException($"{one.GetType().Name} is no event of a page.");
        }
    }
}

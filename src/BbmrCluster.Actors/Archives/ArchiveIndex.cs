using System.Collections.Immutable;
using System.Globalization;
using Akka.Actor;
using Akka.Persistence;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;

namespace BbmrCluster.Actors.Archives;

/// <summary>
/// The read model: all archives with their counts, so that a list wakes none of them. Archives tell it where they stand
/// every few seconds; what outlives them (that they are there, and how they ended) is journaled.
/// </summary>
internal sealed class ArchiveIndex : GroupCommitActor<ImmutableDictionary<ArchiveId, ArchiveOverview>, ArchiveOverview>
{
    // Soft: as told last.
    private readonly Dictionary<ArchiveId, ArchiveOverview> _told = [];

    public ArchiveIndex()
        : base(ImmutableDictionary<ArchiveId, ArchiveOverview>.Empty)
    {
        Recover<IndexEvents.Batch>(batch => Restore(batch.Events));
        Recover<RecoveryCompleted>(_ =>
        {
            foreach (var (id, overview) in State)
                _told[id] = overview;
        });
        Command<IndexMessages.ArchiveTold>(told =>
        {
            var (sender, overview) = (Sender, told.Overview);
            _told[overview.Id] = overview;
            Enqueue(state => state.TryGetValue(overview.Id, out var known) && IsSame(known, overview) ? [] : [overview.FinishedAt is null ? overview : overview with { Open = 0 }],
                () => sender.Tell(new IndexMessages.ArchiveListed(overview.Id, overview.Phase, overview.SubmittedAt)));
            Flush();
        });
        Command<IndexMessages.ListArchives>(list => Sender.Tell(new IndexMessages.Archives(
            [.. _told.Values.OrderByDescending(one => one.SubmittedAt).ThenBy(one => one.Id.Value, StringComparer.Ordinal).Skip(list.From).Take(Math.Clamp(list.Count, 1, 100))])));
        Command<IndexMessages.FindArchive>(find => Sender.Tell(new IndexMessages.Archives(_told.TryGetValue(find.ArchiveId, out var one) ? [one] : [])));
        Command<StopWhenWritten>(_ =>
        {
            Enqueue(_ => [], () => Context.Stop(Self));
            Flush();
        });
    }

    public override string PersistenceId => "archive-index";

    public static Props Props() => Akka.Actor.Props.Create(() => new ArchiveIndex());

    protected override ImmutableDictionary<ArchiveId, ArchiveOverview> Apply(ImmutableDictionary<ArchiveId, ArchiveOverview> state, ArchiveOverview one) => state.SetItem(one.Id, one);

    protected override object Wrap(IReadOnlyList<ArchiveOverview> events) => new IndexEvents.Batch(events);

    protected override void Committed(IReadOnlyList<ArchiveOverview> events)
    {
        foreach (var one in events.Where(one => one.Phase != ArchivePhase.Submitting))
            Context.System.EventStream.Publish(new ClusterNews(Sentence(one)));
        Flush();
    }

    private static string Sentence(ArchiveOverview one) => string.Create(CultureInfo.InvariantCulture,
        $"job {one.Id}{(one.Name.Length == 0 ? "" : $" ({one.Name})")} is {one.Phase.ToString().ToLowerInvariant()}: ")
        + (one.Phase is ArchivePhase.Finished or ArchivePhase.Cancelled
            ? string.Create(CultureInfo.InvariantCulture, $"{one.Done} done, {one.Skipped} skipped, {one.Failed} failed")
            : string.Create(CultureInfo.InvariantCulture, $"{one.Images} {(one.Images == 1 ? "image" : "images")}"));

    // Counts on the way are not worth a write, those at the end are.
    private static bool IsSame(ArchiveOverview a, ArchiveOverview b) => a.Phase == b.Phase && a.SubmittedAt == b.SubmittedAt && a.Name == b.Name && a.Priority == b.Priority
        && (b.Phase is not (ArchivePhase.Finished or ArchivePhase.Cancelled) || (a.Done, a.Skipped, a.Failed) == (b.Done, b.Skipped, b.Failed));
}

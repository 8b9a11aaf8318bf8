using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Node.Cluster;

/// <summary>The blobs of a node's store; what a process that died did not delete lies in the store, in the journal, or in both.</summary>
internal sealed class StoreAndJournal(IBlobStore store, NodeOptions options, WorkDirectory work) : ImageBlobs(store)
{
    /// <inheritdoc/>
    public override IReadOnlyList<StoredImage> Images() => [.. base.Images().Concat(Journaled()).GroupBy(one => one.Image).Select(same => same.MaxBy(one => one.Written)!)];

    private IEnumerable<StoredImage> Journaled() =>
        !options.IsCoordinator ? [] : options.Postgres is { } server ? PostgresJournal.Images(server) : SqliteJournal.Images(work.Journal);
}

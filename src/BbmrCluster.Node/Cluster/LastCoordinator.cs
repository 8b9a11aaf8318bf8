using Akka.Actor;
using Akka.Cluster;
using BbmrCluster.Actors.Hosting;

namespace BbmrCluster.Node.Cluster;

/// <summary>
/// Ends a node without the coordinator role when the last coordinator is no longer a member: coordinators that start
/// later form a cluster anew, which this node would never join.
/// </summary>
internal sealed class LastCoordinator : ReceiveActor
{
    private readonly Akka.Cluster.Cluster _cluster = Akka.Cluster.Cluster.Get(Context.System);
    private readonly HashSet<UniqueAddress> _coordinators = [];

    public LastCoordinator()
    {
        Receive<ClusterEvent.MemberRemoved>(removed =>
        {
            if (_coordinators.Remove(removed.Member.UniqueAddress) && _coordinators.Count == 0)
                _ = CoordinatedShutdown.Get(Context.System).Run(CoordinatedShutdown.ClusterDowningReason.Instance);
        });
        Receive<ClusterEvent.IMemberEvent>(news =>
        {
            if (news.Member.HasRole(BbmrHosting.CoordinatorRole))
                _coordinators.Add(news.Member.UniqueAddress);
        });
    }

    protected override void PreStart() => _cluster.Subscribe(Self, ClusterEvent.InitialStateAsEvents, typeof(ClusterEvent.IMemberEvent));

    protected override void PostStop() => _cluster.Unsubscribe(Self);
}

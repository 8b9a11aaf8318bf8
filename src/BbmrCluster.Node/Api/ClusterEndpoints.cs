using Akka.Actor;
using Akka.Cluster;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace BbmrCluster.Node.Api;

/// <summary>A node of the cluster.</summary>
/// <param name="Address">Where other nodes reach it.</param>
/// <param name="Roles">coordinator, worker, api.</param>
/// <param name="State">joining, weaklyup, up, leaving, exiting or down, and unreachable.</param>
/// <param name="Version">Its program's version.</param>
public sealed record NodeModel(string Address, IReadOnlyList<string> Roles, string State, string Version);

/// <summary>Nodes under /v1.</summary>
internal static class ClusterEndpoints
{
    public static void Map(RouteGroupBuilder v1) =>
        v1.MapGet("/nodes", Nodes).WithTags("nodes").WithName("nodes").WithSummary("Members of the cluster.");

    private static Listing<NodeModel> Nodes(ActorSystem system)
    {
        ClusterEvent.CurrentClusterState state = Akka.Cluster.Cluster.Get(system).State;
        return new Listing<NodeModel>([.. state.Members.OrderBy(member => member.Address.ToString(), StringComparer.Ordinal).Select(member =>
            new NodeModel(member.Address.ToString(), [.. member.Roles.Order(StringComparer.Ordinal)],
                state.Unreachable.Contains(member) ? "unreachable" : member.Status.ToString().ToLowerInvariant(), member.AppVersion.ToString()))]);
    }
}

using Akka.Actor;
using Akka.Cluster;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Protocol;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Routing;

namespace BbmrCluster.Node.Api;

/// <summary>A node of the cluster.</summary>
/// <param name="Name">Of its worker; null for a node that has none.</param>
/// <param name="Address">Where other nodes reach it.</param>
/// <param name="Roles">coordinator, worker, api.</param>
/// <param name="State">joining, weaklyup, up, leaving, exiting or down, and unreachable.</param>
/// <param name="Version">Its program's version.</param>
/// <param name="Worker">active, draining or drained; null for a node that has no worker.</param>
/// <param name="Devices">Devices of its worker.</param>
/// <param name="DeviceClasses">Their classes.</param>
/// <param name="BlocksPerSecond">Blocks (all stages) that its worker did per second of late.</param>
/// <param name="Images">Images it serves.</param>
/// <param name="Leases">Leases it holds.</param>
public sealed record NodeModel(string? Name, string Address, IReadOnlyList<string> Roles, string State, string Version, string? Worker, int Devices, IReadOnlyList<string> DeviceClasses,
    double BlocksPerSecond, int Images, int Leases);

/// <summary>A lease in a worker's hands.</summary>
/// <param name="Worker">Who holds it.</param>
/// <param name="Image">The image.</param>
/// <param name="Lease">Its number.</param>
/// <param name="Stage">ingest, score, pack, reconstruct, finish or commit.</param>
/// <param name="FirstBlock">First block.</param>
/// <param name="Blocks">Blocks.</param>
/// <param name="Seconds">How long it has been held.</param>
/// <param name="Running">Whether a device works on it.</param>
public sealed record LeaseModel(string Worker, string Image, string Lease, string Stage, int FirstBlock, int Blocks, double Seconds, bool Running);

/// <summary>Nodes and leases under /v1.</summary>
internal static class ClusterEndpoints
{
    public static void Map(RouteGroupBuilder v1)
    {
        RouteGroupBuilder nodes = v1.MapGroup("/nodes").WithTags("nodes");
        nodes.MapGet("/", NodesAsync).WithName("nodes").WithSummary("Members of the cluster and what their workers do.");
        nodes.MapPost("/{name}/drain", (string name, BbmrClient client, CancellationToken stop) => DrainAsync(name, client, drain: true, stop)).WithName("drain").ProducesProblem(404)
            .WithSummary("The worker gets no more leases and finishes those it holds.");
        nodes.MapDelete("/{name}/drain", (string name, BbmrClient client, CancellationToken stop) => DrainAsync(name, client, drain: false, stop)).WithName("undrain").ProducesProblem(404)
            .WithSummary("The worker gets leases again.");
        v1.MapGet("/leases", LeasesAsync).WithTags("nodes").WithName("leases").WithSummary("Leases in the hands of workers, as the broker last heard.");
    }

    /// <summary>The device class that most devices have; null when there is none.</summary>
    public static async Task<string?> UsualDeviceClassAsync(BbmrClient client, CancellationToken stop) =>
        (await client.WorkersAsync(stop)).Where(worker => worker.DeviceClasses.Count > 0)
            .SelectMany(worker => worker.DeviceClasses.Select(name => (Name: name, Devices: (double)worker.Devices / worker.DeviceClasses.Count)))
            .GroupBy(one => one.Name, StringComparer.Ordinal).OrderByDescending(group => group.Sum(one => one.Devices)).ThenBy(group => group.Key, StringComparer.Ordinal)
            .FirstOrDefault()?.Key;

    private static async Task<Listing<NodeModel>> NodesAsync(ActorSystem system, BbmrClient client, CancellationToken stop)
    {
        ClusterEvent.CurrentClusterState state = Akka.Cluster.Cluster.Get(system).State;
        Dictionary<string, WorkerOverview> workers = (await KnownWorkersAsync(client, stop)).GroupBy(worker => worker.Address, StringComparer.Ordinal).ToDictionary(group => group.Key, group => group.First(), StringComparer.Ordinal);
        return new Listing<NodeModel>([.. state.Members.OrderBy(member => member.Address.ToString(), StringComparer.Ordinal).Select(member =>
        {
            string address = member.Address.ToString();
            WorkerOverview? worker = workers.GetValueOrDefault(address);
            return new NodeModel(worker?.Id.Value, address, [.. member.Roles.Order(StringComparer.Ordinal)],
                state.Unreachable.Contains(member) ? "unreachable" : member.Status.ToString().ToLowerInvariant(), member.AppVersion.ToString(),
                worker?.Phase.ToString().ToLowerInvariant(), worker?.Devices ?? 0, worker?.DeviceClasses ?? [], worker?.BlocksPerSecond ?? 0, worker?.Images.Count ?? 0, worker?.Leases.Count ?? 0);
        })]);
    }

    // Who is a member is known even when no broker answers, and most wanted then.
    private static async Task<IReadOnlyList<WorkerOverview>> KnownWorkersAsync(BbmrClient client, CancellationToken stop)
    {
        try
        {
            return await client.WorkersAsync(stop).WaitAsync(TimeSpan.FromSeconds(3), stop);
        }
        catch (Exception error) when (error is AskTimeoutException or TimeoutException)
        {
            return [];
        }
    }

    private static async Task<Listing<LeaseModel>> LeasesAsync(BbmrClient client, CancellationToken stop) =>
        new([.. (await client.WorkersAsync(stop)).SelectMany(worker => worker.Leases.Select(lease =>
            new LeaseModel(worker.Id.Value, lease.ImageId.Value, lease.Lease, lease.Stage.ToString().ToLowerInvariant(), lease.FirstBlock, lease.BlockCount, lease.Seconds, lease.Running)))]);

    private static WorkerId? WorkerIdOf(string name)
    {
        try
        {
            return new WorkerId(name);
        }
        catch (ArgumentException)
        {
            return null;
        }
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> DrainAsync(string name, BbmrClient client, bool drain, CancellationToken stop)
    {
        WorkerOverview? worker = null;
        if (WorkerIdOf(name) is { } id)
            worker = await (drain ? client.DrainAsync(id, stop) : client.UndrainAsync(id, stop));
        return worker is null ? ApiEndpoints.Problem(404, "No such worker", $"There is no worker '{name}'.") : TypedResults.NoContent();
    }
}

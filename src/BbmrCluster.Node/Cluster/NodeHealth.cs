using System.Diagnostics;
using Akka.Actor;
using Akka.Cluster;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace BbmrCluster.Node.Cluster;

/// <summary>One thing that a node needs.</summary>
/// <param name="Name">joined, journal, models or store.</param>
/// <param name="Ok">Whether it is there.</param>
/// <param name="Detail">What was found, or what is wrong.</param>
/// <param name="Seconds">How long it took to find out.</param>
public sealed record HealthCheck(string Name, bool Ok, string Detail, double Seconds);

/// <summary>Tries what a node needs to take part in the work.</summary>
/// <param name="options">The node's options.</param>
/// <param name="system">Its actors.</param>
/// <param name="engines">Its networks.</param>
/// <param name="blobs">Its way to intermediate results.</param>
public sealed class NodeHealth(NodeOptions options, ActorSystem system, EngineFactory engines, IBlobStore blobs)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(3);

    /// <summary>Whether the process is of any use: the actors run.</summary>
    public bool IsAlive => !system.WhenTerminated.IsCompleted;

    /// <summary>All that this node's roles need.</summary>
    public async Task<IReadOnlyList<HealthCheck>> CheckAsync(CancellationToken cancellation)
    {
        var checks = new List<(string Name, Func<CancellationToken, Task<string>> Try)> { ("joined", _ => Task.FromResult(Joined())) };
        if (options is { IsCoordinator: true, Postgres: { } postgres })
        {
            checks.Add(("journal", async token =>
            {
                await PostgresJournal.PingAsync(postgres, token);
                return "PostgreSQL";
            }));
        }
        else if (options.IsCoordinator)
        {
            checks.Add(("journal", _ => Task.FromResult("SQLite " + NodeChecks.TryDatabase(options.Work))));
        }
        if (options.IsWorker || options.IsApi)
            checks.Add(("models", _ => Task.FromResult($"{engines.WeightHashes(EngineSettings.Default).Count} files of {EngineSettings.Default.Network}")));
        checks.Add(("store", _ => Task.FromResult(blobs.Check())));
        return await Task.WhenAll(checks.Select(check => RunAsync(check.Name, check.Try, cancellation)));
    }

    private static async Task<HealthCheck> RunAsync(string name, Func<CancellationToken, Task<string>> attempt, CancellationToken cancellation)
    {
        var clock = Stopwatch.StartNew();
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(Patience);
        try
        {
            string detail = await Task.Run(() => attempt(limit.Token), limit.Token).WaitAsync(limit.Token);
            return new HealthCheck(name, true, detail, clock.Elapsed.TotalSeconds);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            return new HealthCheck(name, false, "no answer in time", clock.Elapsed.TotalSeconds);
        }
        catch (Exception error) when (error is not OperationCanceledException)
        {
            return new HealthCheck(name, false, error.Message, clock.Elapsed.TotalSeconds);
        }
    }

    private string Joined()
    {
        var cluster = Akka.Cluster.Cluster.Get(system);
        MemberStatus status = cluster.SelfMember.Status;
        if (cluster.IsTerminated || status != MemberStatus.Up)
            throw new InvalidOperationException($"this node is not a member of the cluster yet or any more ({status})");
        int unreachable = cluster.State.Unreachable.Count;
        if (!cluster.State.Members.Except(cluster.State.Unreachable).Any(member => member.HasRole("coordinator")))
            throw new InvalidOperationException("no coordinator can be reached");
        return $"{cluster.State.Members.Count(member => member.Status == MemberStatus.Up)} members{(unreachable == 0 ? "" : $", {unreachable} of them unreachable")}";
    }
}

/// <summary>GET /healthz/live and /healthz/ready, for whoever starts and watches processes; they need no token.</summary>
internal static class HealthEndpoints
{
    public static void Map(IEndpointRouteBuilder app)
    {
        app.MapGet("/healthz/live", (NodeHealth health) => health.IsAlive ? Results.Ok(new { status = "live" }) : Results.Json(new { status = "stopped" }, statusCode: 503))
            .ExcludeFromDescription();
        app.MapGet("/healthz/ready", async (NodeHealth health, NodeOptions options, HttpContext context) =>
        {
            IReadOnlyList<HealthCheck> checks = await health.CheckAsync(context.RequestAborted);
            bool ready = checks.All(check => check.Ok);
            return Results.Json(new
            {
                status = ready ? "ready" : "not_ready", node = options.Name, roles = options.Roles, version = options.AppVersion,
                checks = checks.Select(check => new { name = check.Name, ok = check.Ok, detail = check.Detail, seconds = check.Seconds }),
            }, statusCode: ready ? 200 : 503);
        }).ExcludeFromDescription();
    }
}

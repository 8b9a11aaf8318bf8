using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>The same registrations on a real cluster node that joined itself.</summary>
[Collection("nodes")]
public sealed class ClusterNodeSpecs
{
    [Fact]
    public async Task A_self_joined_cluster_node_gives_the_outcomes_and_leases_of_local_mode()
    {
        ImageJob[] jobs = [FakeWorld.Job("a", 60 * 128, 5 * 128), FakeWorld.Job("b", 300, 200), FakeWorld.Job("c", 300, 200, JobKind.Upscale)];
        var local = await Run(AkkaExecutionMode.Local, jobs);
        var clustered = await Run(AkkaExecutionMode.Clustered, jobs);

        Assert.Equal(new ArchiveSummary(3, 0, 0, 0), clustered.Summary);
        Assert.Equal(local.Summary, clustered.Summary);
        Assert.Equal(local.Outcomes, clustered.Outcomes);
        Assert.Equal(local.Leases, clustered.Leases);
    }

    [Fact]
    public async Task Worker_and_client_on_another_node_do_the_same_over_the_wire()
    {
        ImageJob[] jobs = [FakeWorld.Job("a", 60 * 128, 5 * 128), FakeWorld.Job("b", 300, 200, JobKind.Upscale)];
        var world = new FakeWorld();
        using JournalFolder folder = new(), other = new();
        await using var coordinator = await TestNode.StartAsync(world, folder, devices: 0, mode: AkkaExecutionMode.Clustered);
        await using var worker = await TestNode.StartAsync(world, other, mode: AkkaExecutionMode.Clustered, joins: coordinator.System);
        var all = await worker.RunAsync(jobs);

        Assert.Equal(new ArchiveSummary(2, 0, 0, 0), all.Summary());
        Assert.All(world.Log.GroupBy(ran => (ran.Image, ran.Stage, ran.FirstBlock)), same => Assert.Single(same));
        Assert.Equal(0, other.Count("SELECT count(*) FROM sqlite_master WHERE name = 'journal'"));
    }

    private static async Task<(ArchiveSummary Summary, List<ImageOutcome> Outcomes, List<(string, Stage, int, int)> Leases)> Run(AkkaExecutionMode mode, ImageJob[] jobs)
    {
        var world = new FakeWorld();
        using var folder = new JournalFolder();
        await using var node = await TestNode.StartAsync(world, folder, mode: mode, settings: TestNode.Fast with { PageSize = 2 });
        var all = await node.RunAsync(jobs);
        return (all.Summary(), [.. jobs.Select(job => all.Outcome(job.Id))],
            [.. world.Log.Select(ran => (ran.Work.Job.DisplayName, ran.Stage, ran.FirstBlock, ran.BlockCount)).Order()]);
    }
}

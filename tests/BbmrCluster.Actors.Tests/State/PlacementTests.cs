using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Tests.Coordination;
using BbmrCluster.Actors.Work;
using BbmrCluster.Actors.Workers;

namespace BbmrCluster.Actors.Tests.State;

/// <summary>Who serves what.</summary>
public sealed class PlacementTests
{
    private static readonly Dictionary<WorkerId, List<ImageId>> None = [];

    [Fact]
    public void Every_image_has_a_worker_and_idle_workers_join_the_one_with_most_work()
    {
        var assigned = Placement.Assign([Image("a", 1, open: 5), Image("b", 2, open: 50)], Workers(4), None);
        Assert.All(assigned.Values, images => Assert.Single(images));
        Assert.Equal(3, assigned.Values.Count(images => images[0].Value == "b"));
    }

    [Fact]
    public void No_more_workers_than_leases_join_an_image() =>
        Assert.Equal(1, Placement.Assign([Image("a", 1, open: 1)], Workers(3), None).Values.Count(images => images.Count > 0));

    [Fact]
    public void Images_keep_their_worker_when_others_come_and_go()
    {
        var before = Placement.Assign([Image("a", 1), Image("b", 2)], Workers(2), None);
        var after = Placement.Assign([Image("b", 2), Image("c", 3)], Workers(2), before);
        Assert.Equal(before.Single(pair => pair.Value.Contains(new ImageId("b"))).Key, after.Single(pair => pair.Value.Contains(new ImageId("b"))).Key);
        Assert.All(after.Values, images => Assert.Single(images));
    }

    [Fact]
    public void Important_archives_come_first_and_equal_ones_take_turns()
    {
        WaitingImage[] images = [Image("a1", 1, "a"), Image("a2", 2, "a"), Image("a3", 3, "a"), Image("b1", 4, "b"), Image("c1", 5, "c", priority: 9)];
        Assert.Equal(["c1", "a1", "b1", "a2", "a3"], Placement.Order(images).Select(image => image.Id.Value));
    }

    [Fact]
    public void Without_workers_nothing_is_assigned() => Assert.Empty(Placement.Assign([Image("a", 1)], [], None));

    [Fact]
    public void Ids_depend_on_everything_that_decides_bytes_and_outputs()
    {
        var job = FakeWorld.Job("a", 10, 10);
        ImageJob[] others =
        [
            job with { Kind = JobKind.Downscale }, job with { Source = "/in/b" }, job with { Outputs = job.Outputs with { Image = null } },
            job with { Engine = job.Engine with { MaxBatch = 3 } }, job with { DeviceClass = "other" }, job with { Allocator = "paper" }, job with { Rate = 8 },
            job with { Measure = true }, job with { Force = true }, job with { WeightHashes = new Dictionary<string, string> { ["w"] = "01" } },
        ];
        Assert.Equal(JobIdentity.Of(job), JobIdentity.Of(job with { Id = new ImageId("x"), DisplayName = "elsewhere" }));
        Assert.Equal(others.Length + 1, others.Append(job).Select(JobIdentity.Of).Distinct().Count());
    }

    private static WorkerId[] Workers(int count) => [.. Enumerable.Range(0, count).Select(i => new WorkerId($"w{i}"))];

    private static WaitingImage Image(string id, long arrival, string archive = "x", int priority = 0, int open = 10) =>
        new(new ImageId(id), new ArchiveId(archive), new Priority(priority), open, arrival);
}

using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.State;

/// <summary>Who serves what.</summary>
public sealed class PlacementTests
{
    private static readonly Dictionary<WorkerId, List<ArchiveShare>> None = [];

    [Fact]
    public void Workers_of_an_archive_are_spread_over_its_images_as_far_as_those_can_use_them()
    {
        var assigned = Placement.Assign([Image("a", 1, useful: 2), Image("b", 2, useful: 50)], Workers(4), None);
        Assert.Equal(1, assigned.Values.Count(shares => Served(shares).Contains("a")));
        Assert.Equal(3, assigned.Values.Count(shares => Served(shares).Contains("b")));
        Assert.All(assigned.Values, shares => Assert.Single(Served(shares)));
    }

    [Fact]
    public void Workers_that_an_image_cannot_use_keep_it_as_a_spare()
    {
        var assigned = Placement.Assign([Image("a", 1, useful: 1)], Workers(3), None);
        Assert.Single(assigned.Values, shares => Served(shares).Any());
        Assert.All(assigned.Values, shares => Assert.Equal(["a"], shares.SelectMany(share => share.Images).Select(image => image.Value)));
    }

    [Fact]
    public void Images_keep_their_worker_when_others_come_and_go()
    {
        var before = Placement.Assign([Image("a", 1, useful: 2), Image("b", 2, useful: 2)], Workers(2), None);
        var after = Placement.Assign([Image("b", 2, useful: 2), Image("c", 3, useful: 2)], Workers(2), before);
        Assert.Equal(WorkersOf("b", before), WorkersOf("b", after));
        Assert.All(after.Values, shares => Assert.Single(Served(shares)));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(64)]
    public void Equal_archives_have_equal_parts_whatever_the_number_of_their_images_and_workers(int workers)
    {
        var images = Enumerable.Range(0, 30).Select(i => Image($"a{i}", i, "a", useful: 20)).Append(Image("b", 99, "b", useful: 200));
        var assigned = Placement.Assign(images, Workers(workers), None);
        Assert.Equal(PartOf("a", assigned), PartOf("b", assigned), 6);
        Assert.Equal(workers, PartOf("a", assigned) + PartOf("b", assigned), 6);
    }

    [Fact]
    public void What_an_archive_cannot_use_others_get()
    {
        var assigned = Placement.Assign([Image("a", 1, "a", useful: 2), Image("b", 2, "b", useful: 100)], Workers(10), None);
        Assert.Equal(2, PartOf("a", assigned), 6);
        Assert.Equal(8, PartOf("b", assigned), 6);
    }

    [Fact]
    public void A_step_of_priority_is_worth_four_times_the_workers_and_nobody_is_left_without()
    {
        WaitingImage[] images = [Image("low", 1, "low", useful: 100), Image("high", 2, "high", priority: 1, useful: 100), Image("top", 3, "top", priority: 9, useful: 100)];
        var two = Placement.Assign(images.Take(2), Workers(10), None);
        Assert.Equal(4, PartOf("high", two) / PartOf("low", two), 1);
        var all = Placement.Assign(images, Workers(1), None);
        Assert.InRange(PartOf("top", all) / PartOf("low", all), 1e5, 1e6);
        Assert.True(PartOf("low", all) > 0);
    }

    [Fact]
    public void Faster_workers_count_for_more()
    {
        PresentWorker[] workers = [.. Workers(3).Select((worker, i) => worker with { Speed = i == 0 ? 20 : 10 })];
        var assigned = Placement.Assign([Image("a", 1, "a", useful: 9), Image("b", 2, "b", useful: 9)], workers, None);
        Assert.Equal(PartOf("a", assigned), PartOf("b", assigned), 6);
        // The two slow ones together are worth the fast one.
        Assert.Contains(assigned.Values, shares => shares.Count(share => share.Weight > 0) == 1);
    }

    [Fact]
    public void Workers_of_another_class_get_nothing_not_even_as_a_spare()
    {
        PresentWorker[] workers = [new(new WorkerId("cpu"), 1, ["cpu"], 0), new(new WorkerId("gpu"), 1, ["gpu"], 0), new(new WorkerId("both"), 2, ["cpu", "gpu"], 0)];
        WaitingImage[] images = [Image("c", 1, "c", useful: 50) with { DeviceClass = "cpu" }, Image("g", 2, "g", useful: 50) with { DeviceClass = "gpu" }];
        var assigned = Placement.Assign(images, workers, None);
        Assert.All(assigned[new WorkerId("cpu")], share => Assert.Equal("c", share.Archive.Value));
        Assert.All(assigned[new WorkerId("gpu")], share => Assert.Equal("g", share.Archive.Value));
        Assert.Equal(2, PartOf("c", assigned), 6);
        Assert.Equal(2, PartOf("g", assigned), 6);
        Assert.All(Placement.Assign([images[0]], [workers[1]], None).Values, Assert.Empty);
    }

    [Fact]
    public void Workers_without_the_weights_get_nothing_not_even_as_a_spare()
    {
        PresentWorker[] workers =
        [
            new(new WorkerId("both"), 1, [], 0, new HashSet<string> { "x2", "x4", "more" }), new(new WorkerId("one"), 1, [], 0, new HashSet<string> { "x2", "other-x4" }),
            new(new WorkerId("any"), 1, [], 0), new(new WorkerId("none"), 1, [], 0, new HashSet<string>()),
        ];
        // Two sets of weights in one archive, as containers of two networks bring them.
        WaitingImage[] images = [Image("a", 1, "x", useful: 50) with { Weights = "x2,x4" }, Image("b", 2, "x", useful: 50) with { Weights = "other-x4" }];
        var assigned = Placement.Assign(images, workers, None);
        Assert.All(assigned[new WorkerId("both")], share => Assert.Equal([new ImageId("a")], share.Images));
        Assert.All(assigned[new WorkerId("one")], share => Assert.Equal([new ImageId("b")], share.Images));
        Assert.Empty(assigned[new WorkerId("none")]);
        Assert.Equal(3, PartOf("x", assigned), 6);
    }

    [Fact]
    public void Without_workers_nothing_is_assigned() => Assert.Empty(Placement.Assign([Image("a", 1)], [], None));

    [Fact]
    public void A_worker_shares_its_time_by_weight_and_turns_to_spares_last()
    {
        var order = new PullOrder();
        order.Assign([new ArchiveShare(new("a"), 0.75, [new("a1"), new("a2")]), new ArchiveShare(new("b"), 0.25, [new("b1")]), new ArchiveShare(new("s"), 0, [new("s1")])]);
        var taken = new List<string>();
        for (int i = 0; i < 400; i++)
        {
            var image = order.Next(_ => false)!.Value;
            taken.Add(image.Value);
            order.Settle(image, order.Taken(image), image.Value == "b1" ? 2 : 1);
        }
        // Time counts, not leases: those of b take twice as long.
        Assert.InRange((double)taken.Count(image => image == "a1") / (2 * taken.Count(image => image == "b1")), 2.8, 3.2);
        Assert.DoesNotContain("s1", taken);
        order.SetDry(new("a1"));
        Assert.Contains(order.Next(_ => false)!.Value.Value, new[] { "a2", "b1" });
        order.SetDry(new("b1"));
        Assert.Equal("s1", order.Next(image => image.Value == "a2")!.Value.Value);
        order.SetDry(new("s1"));
        Assert.Null(order.Next(image => image.Value == "a2"));
    }

    [Fact]
    public void Who_comes_later_has_no_claim_on_the_time_before()
    {
        var order = new PullOrder();
        order.Assign([new ArchiveShare(new("a"), 1, [new("a1")])]);
        for (int i = 0; i < 100; i++)
            order.Settle(new("a1"), order.Taken(order.Next(_ => false)!.Value), 1);
        order.Assign([new ArchiveShare(new("a"), 1, [new("a1")]), new ArchiveShare(new("b"), 1, [new("b1")])]);
        var taken = Enumerable.Range(0, 20).Select(_ =>
        {
            var image = order.Next(_ => false)!.Value;
            order.Settle(image, order.Taken(image), 1);
            return image.Value;
        }).ToList();
        Assert.InRange(taken.Count(image => image == "b1"), 9, 12);
    }

    private static PresentWorker[] Workers(int count) => [.. Enumerable.Range(0, count).Select(i => new PresentWorker(new WorkerId($"w{i:000}"), 1, [], 0))];

    private static WaitingImage Image(string id, long arrival, string archive = "x", int priority = 0, int useful = 10) =>
        new(new ImageId(id), new ArchiveId(archive), new Priority(priority), "cpu", useful, arrival);

    private static IEnumerable<string> Served(IEnumerable<ArchiveShare> shares) => shares.Where(share => share.Weight > 0).SelectMany(share => share.Images).Select(image => image.Value);

    private static List<WorkerId> WorkersOf(string image, Dictionary<WorkerId, List<ArchiveShare>> assigned) =>
        [.. assigned.Where(pair => Served(pair.Value).Contains(image)).Select(pair => pair.Key)];

    private static double PartOf(string archive, Dictionary<WorkerId, List<ArchiveShare>> assigned) =>
        assigned.Values.SelectMany(shares => shares).Where(share => share.Archive.Value == archive).Sum(share => share.Weight);
}

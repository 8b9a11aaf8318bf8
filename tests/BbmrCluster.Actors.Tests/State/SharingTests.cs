namespace BbmrCluster.Actors.Tests.State;

/// <summary>How a cluster's time is shared, in virtual time with timed devices.</summary>
public sealed class SharingTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(8)]
    public void Two_equal_archives_go_on_within_ten_percent_of_each_other(int workers)
    {
        var cluster = new ClusterSimulation(Workers(workers));
        var one = cluster.Submit("one", 60, 20 * 128, 8 * 128);
        var other = cluster.Submit("other", 60, 20 * 128, 8 * 128);
        Assert.True(cluster.RunUntil(() => one.Done == 30 || other.Done == 30));
        Assert.InRange(one.Seconds / other.Seconds, 0.9, 1.1);
        Assert.True(cluster.RunUntil(() => one.Done == 60 && other.Done == 60));
        Assert.InRange(cluster.Closed.Last(closed => closed.Archive == one).At / cluster.Closed.Last(closed => closed.Archive == other).At, 0.9, 1.1);
    }

    [Fact]
    public void An_archive_of_one_huge_image_has_about_the_part_of_one_of_many_small_ones()
    {
        var cluster = new ClusterSimulation(Workers(6));
        var huge = cluster.Submit("huge", 1, 60 * 128, 200 * 128);
        var many = cluster.Submit("many", 400, 10 * 128, 6 * 128);
        // The huge one is ingested by one worker first. Small ones cannot use all of their part at every moment.
        cluster.RunUntil(() => huge.Seconds > 60);
        double before = huge.Seconds, beforeMany = many.Seconds;
        Assert.True(cluster.RunUntil(() => huge.Seconds > 200));
        Assert.InRange((huge.Seconds - before) / (many.Seconds - beforeMany), 0.8, 1.25);
    }

    [Fact]
    public void A_worker_three_times_as_fast_does_about_three_times_the_blocks()
    {
        SimulatedWorker[] workers = [.. Enumerable.Range(0, 4).Select(i => new SimulatedWorker(i, i < 2 ? 0.03 : 0.01))];
        var cluster = new ClusterSimulation(workers);
        var archive = cluster.Submit("all", 80, 30 * 128, 10 * 128);
        Assert.True(cluster.RunUntil(() => archive.Done == 80));
        Assert.InRange((double)(workers[2].Blocks + workers[3].Blocks) / (workers[0].Blocks + workers[1].Blocks), 2.5, 3.5);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    [InlineData(16)]
    public void An_important_image_behind_a_thousand_is_done_before_five_percent_of_them(int workers)
    {
        var cluster = new ClusterSimulation(Workers(workers));
        var thousand = cluster.Submit("thousand", 1000, 10 * 128, 6 * 128);
        Assert.True(cluster.RunUntil(() => thousand.Done == 10));
        var urgent = cluster.Submit("urgent", 1, 10 * 128, 6 * 128, priority: 5);
        Assert.True(cluster.RunUntil(() => urgent.Done == 1));
        Assert.InRange(thousand.Done, 10, 49);
    }

    [Fact]
    public void An_archive_of_low_priority_is_never_left_without()
    {
        var cluster = new ClusterSimulation(Workers(1));
        var low = cluster.Submit("low", 100, 10 * 128, 6 * 128);
        var high = cluster.Submit("high", 2000, 10 * 128, 6 * 128, priority: 2);
        Assert.True(cluster.RunUntil(() => high.Done == 500));
        Assert.InRange(low.Seconds / high.Seconds, 0.5 / 16, 2.0 / 16);
    }

    [Theory]
    [InlineData(8, 0.01)]
    [InlineData(8, 0.05)]
    [InlineData(32, 0.02)]
    public void The_last_five_percent_of_an_archive_take_at_most_eight_percent_of_its_time(int workers, double slowest)
    {
        var cluster = new ClusterSimulation([.. Workers(workers - 1), new SimulatedWorker(99, slowest)]);
        var archive = cluster.Submit("all", 400, 12 * 128, 8 * 128, window: 2 * workers);
        Assert.True(cluster.RunUntil(() => archive.Done == 400));
        double tail = cluster.Now - cluster.Closed[379].At;
        Assert.InRange(tail / cluster.Now, 0, 0.08);
    }

    [Fact]
    public void A_device_that_hangs_holds_up_nothing_but_itself()
    {
        SimulatedWorker[] workers = [.. Workers(3), new SimulatedWorker(9, 0.01, hangsAt: 5)];
        var cluster = new ClusterSimulation(workers);
        var archive = cluster.Submit("all", 60, 12 * 128, 8 * 128);
        // A whole-image lease in its hands would wait for its deadline; this one hangs with strips.
        Assert.True(cluster.RunUntil(() => archive.Done >= 59, limit: 1000));
    }

    private static SimulatedWorker[] Workers(int count) => [.. Enumerable.Range(0, count).Select(i => new SimulatedWorker(i, 0.01))];
}

using FsCheck.Xunit;

namespace BbmrCluster.Rescaling.Tests;

public sealed class PaperAllocatorTests
{
    private const string Seed = "(1618033988,1414213563)";

    [Property(Arbitrary = [typeof(PaperCases)], MaxTest = 300, Replay = Seed)]
    public void The_lists_are_disjoint_in_the_ratio_of_the_rate_and_use_exactly_the_budget(AllocationCase c)
    {
        Allocation allocation = new PaperAllocator().Allocate(c.Scores, c.Budget);
        (int a, int b) = PaperAllocator.GroupOf(c.Scales);
        int[] counts = allocation.Counts(3);
        Assert.Equal(c.Scores.Grid.Count, counts.Sum());
        Assert.Equal(counts[0] * b, counts[2] * a);
        Assert.Equal(0, counts[0] % a);
        Assert.Equal(c.Budget.LrPixels, allocation.LrPixels);
        Assert.Null(allocation.DualBoundSse);
    }

    [Property(Arbitrary = [typeof(PaperCases)], MaxTest = 300, Replay = Seed)]
    public void The_sum_of_block_dB_never_falls_below_uniform_and_rises_by_the_threshold_at_least(AllocationCase c)
    {
        double Sum(Func<int, int> scale) => Enumerable.Range(0, c.Scores.Grid.Count).Sum(block => c.Scores.Psnr(block, scale(block)));
        double uniform = Sum(_ => 1);
        foreach (double t in new[] { 0, 0.5, 3 })
        {
            byte[] scaleIndex = new PaperAllocator(t).Allocate(c.Scores, c.Budget).ScaleIndex;
            int groups = scaleIndex.Count(index => index == 0) / PaperAllocator.GroupOf(c.Scales).Finer;
            Assert.True(Sum(block => scaleIndex[block]) >= uniform + (groups * t) - 1e-6);
        }
    }

    [Property(Arbitrary = [typeof(PaperCases)], MaxTest = 100, Replay = Seed)]
    public void Max_bounds_the_groups_and_fewer_groups_are_the_first_of_more(AllocationCase c)
    {
        byte[] all = new PaperAllocator().Allocate(c.Scores, c.Budget).ScaleIndex, some = new PaperAllocator(0, 2).Allocate(c.Scores, c.Budget).ScaleIndex;
        Assert.True(some.Count(index => index == 0) <= 2 * PaperAllocator.GroupOf(c.Scales).Finer);
        Assert.All(Enumerable.Range(0, all.Length).Where(block => some[block] != 1), block => Assert.Equal(all[block], some[block]));
        Assert.DoesNotContain(new PaperAllocator(0, 0).Allocate(c.Scores, c.Budget).ScaleIndex, index => index != 1);
    }

    [Fact]
    public void A_hand_worked_image_of_eleven_blocks()
    {
        // dB at scales 2, 4, 8. Block 3 earns most (9) and would cost 8 to coarsen; 0, 5, 6, 8 lose 1 each: 4 < 9, taken.
        // Then block 1 earns 5; 2, 4, 7, 9 lose 1.5 each: 6 > 5, stop.
        (double, double, double)[] dB =
        [
            (41, 40, 39), (45, 40, 30), (42, 40, 38.5), (49, 40, 32), (43, 40, 38.5), (41, 40, 39),
            (42, 40, 39), (40.5, 40, 38.5), (41, 40, 39), (40, 40, 38.5), (40, 40, 30),
        ];
        Allocation allocation = Allocate(new PaperAllocator(), dB);
        Assert.Equal([2, 1, 1, 0, 1, 2, 2, 1, 2, 1, 1], allocation.ScaleIndex);
        Assert.Equal(11 * 1024, allocation.LrPixels);
        // With t = 6 the first group does not pay either: 4 + 6 > 9.
        Assert.All(Allocate(new PaperAllocator(6), dB).ScaleIndex, index => Assert.Equal(1, index));
        Assert.Contains((byte)0, Allocate(new PaperAllocator(4.9), dB).ScaleIndex);
    }

    [Fact]
    public void A_block_that_earns_most_and_loses_least_is_taken_once()
    {
        // Block 0 is first in both lists; the coarser list goes on to the next unused ones.
        (double, double, double)[] dB = [(60, 40, 40), (41, 40, 39), (41, 40, 38), (41, 40, 37), (41, 40, 36)];
        Assert.Equal([0, 2, 2, 2, 2], Allocate(new PaperAllocator(), dB).ScaleIndex);
    }

    [Fact]
    public void Ties_go_to_the_lower_block_number()
    {
        var dB = Enumerable.Repeat((42.0, 40.0, 39.9), 12).ToArray();
        Assert.Equal([0, 2, 2, 2, 2, 0, 2, 2, 2, 2, 1, 1], Allocate(new PaperAllocator(), dB).ScaleIndex);
    }

    [Fact]
    public void Blocks_without_error_count_as_100_dB_and_give_no_NaN()
    {
        var sse = new double[10, 3];
        (sse[4, 0], sse[4, 1], sse[4, 2]) = (1e4, 1e6, 1e7);
        Allocation allocation = new PaperAllocator().Allocate(new BlockScores(new BlockGrid(1280, 128), ScaleSet.Default, sse), new RateBudget(10, 4));
        // The first group pays nothing for 20 dB; the second has equal sums of zero, which the algorithm takes.
        Assert.Equal(0, allocation.ScaleIndex[4]);
        Assert.Equal([2, 0, 8], allocation.Counts(3));
        Assert.Equal(1e4, allocation.Sse);
    }

    [Theory]
    [InlineData("2,4,8", 1, 4)]
    [InlineData("1,2,4", 1, 4)]
    [InlineData("1,4,8", 1, 20)]
    public void The_group_keeps_the_rate(string scales, int finer, int coarser) =>
        Assert.Equal((finer, coarser), PaperAllocator.GroupOf(ScaleSet.Parse(scales)));

    [Fact]
    public void Other_scale_sets_and_rates_are_refused()
    {
        var two = new BlockScores(new BlockGrid(128, 128), ScaleSet.Parse("2,4"), new double[1, 2]);
        Assert.Contains("three scales", Assert.Throws<ArgumentException>(() => new PaperAllocator().Allocate(two, new RateBudget(1, 4))).Message);
        var three = new BlockScores(new BlockGrid(128, 128), ScaleSet.Default, new double[1, 3]);
        Assert.Contains("middle scale", Assert.Throws<ArgumentException>(() => new PaperAllocator().Allocate(three, new RateBudget(1, 2))).Message);
    }

    private static Allocation Allocate(PaperAllocator allocator, (double At2, double At4, double At8)[] dB)
    {
        var sse = new double[dB.Length, 3];
        for (int block = 0; block < dB.Length; block++)
            (sse[block, 0], sse[block, 1], sse[block, 2]) = (Sse(dB[block].At2), Sse(dB[block].At4), Sse(dB[block].At8));
        return allocator.Allocate(new BlockScores(new BlockGrid(dB.Length * 128, 128), ScaleSet.Default, sse), new RateBudget(dB.Length, 4));
    }

    private static double Sse(double dB) => 255.0 * 255 * 128 * 128 / Math.Pow(10, dB / 10);
}

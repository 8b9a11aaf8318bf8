using FsCheck.Xunit;

namespace BbmrCluster.Rescaling.Tests;

public sealed class SseAllocatorTests
{
    private const string Seed = "(2718281828,3141592653)";

    // Cells of the largest table: no table at all.
    private const long Never = -1;

    [Property(Arbitrary = [typeof(LargeCases)], MaxTest = 300, Replay = Seed)]
    public void Every_block_gets_one_scale_and_the_budget_is_never_exceeded(AllocationCase c)
    {
        foreach (Allocation allocation in new[] { new SseAllocator().Allocate(c.Scores, c.Budget), SseAllocator.Allocate(c.Scores, c.Budget, Never) })
        {
            Assert.Equal(c.Scores.Grid.Count, allocation.ScaleIndex.Length);
            Assert.All(allocation.ScaleIndex, index => Assert.InRange(index, 0, c.Scales.Count - 1));
            Assert.Equal(allocation.ScaleIndex.Sum(index => (long)c.Budget.PixelsPerBlock(c.Scales[index])), allocation.LrPixels);
            Assert.True(allocation.LrPixels <= c.Budget.LrPixels);
            Assert.Equal(allocation.ScaleIndex.Select((index, block) => c.Sse[block, index]).Sum(), allocation.Sse, 1e-9 * allocation.Sse);
        }
    }

    [Property(Arbitrary = [typeof(LargeCases)], MaxTest = 300, Replay = Seed)]
    public void The_error_is_never_above_that_of_any_affordable_uniform_scale(AllocationCase c)
    {
        double exact = new SseAllocator().Allocate(c.Scores, c.Budget).Sse, approximate = SseAllocator.Allocate(c.Scores, c.Budget, Never).Sse;
        for (int s = 0; s < c.Scales.Count; s++)
        {
            if (c.Scales[s] < c.Rate)
                continue;
            Assert.True(exact <= c.UniformSse(s));
            Assert.True(approximate <= c.UniformSse(s));
        }
    }

    [Property(Arbitrary = [typeof(SmallCases)], MaxTest = 500, Replay = Seed)]
    public void Small_cases_equal_the_best_of_all_allocations_and_the_bound_lies_below_it(AllocationCase c)
    {
        double best = BruteForce(c);
        Allocation exact = new SseAllocator().Allocate(c.Scores, c.Budget);
        Assert.Equal("dynamic programming", exact.Method);
        Assert.Equal(best, exact.Sse);
        Assert.InRange(exact.DualBoundSse!.Value, 0, best);
    }

    [Property(Arbitrary = [typeof(LargeCases)], MaxTest = 300, Replay = Seed)]
    public void Hull_and_exchange_lies_between_the_optimum_and_one_block_above_the_bound(AllocationCase c)
    {
        Allocation exact = new SseAllocator().Allocate(c.Scores, c.Budget), approximate = SseAllocator.Allocate(c.Scores, c.Budget, Never);
        Assert.Equal("hull + exchange", approximate.Method);
        // The greedy misses the bound by less than the one step that did not fit.
        double largestStep = Enumerable.Range(0, c.Scores.Grid.Count)
            .Max(block => Enumerable.Range(0, c.Scales.Count).Max(s => c.Sse[block, s]) - Enumerable.Range(0, c.Scales.Count).Min(s => c.Sse[block, s]));
        double rounding = 1e-9 * approximate.Sse;
        Assert.InRange(approximate.Sse, exact.Sse - rounding, approximate.DualBoundSse!.Value + largestStep + rounding);
        Assert.True(exact.DualBoundSse <= exact.Sse);
    }

    [Property(Arbitrary = [typeof(LargeCases)], MaxTest = 100, Replay = Seed)]
    public void Equal_scores_give_equal_allocations(AllocationCase c)
    {
        AllocationCase copy = c with { Sse = (double[,])c.Sse.Clone() };
        Assert.Equal(new SseAllocator().Allocate(c.Scores, c.Budget).ScaleIndex, new SseAllocator().Allocate(copy.Scores, copy.Budget).ScaleIndex);
        Assert.Equal(SseAllocator.Allocate(c.Scores, c.Budget, Never).ScaleIndex, SseAllocator.Allocate(copy.Scores, copy.Budget, Never).ScaleIndex);
    }

    [Fact]
    public void A_hand_worked_image_of_six_blocks()
    {
        // One block gains 900 by the finest scale; of the five others four must go to the coarsest, which costs 10+20+30+40.
        double[,] sse =
        {
            { 100, 1000, 1500 },
            { 90, 100, 110 },
            { 90, 100, 120 },
            { 90, 100, 130 },
            { 90, 100, 140 },
            { 90, 100, 150 },
        };
        Allocation allocation = new SseAllocator().Allocate(new BlockScores(new BlockGrid(768, 128), ScaleSet.Default, sse), new RateBudget(6, 4));
        Assert.Equal([0, 2, 2, 2, 2, 1], allocation.ScaleIndex);
        Assert.Equal(6 * 1024, allocation.LrPixels);
        Assert.Equal(100 + 110 + 120 + 130 + 140 + 100, allocation.Sse);
    }

    [Fact]
    public void An_8k_image_is_exact_and_larger_ones_stay_within_a_hundredth_of_a_dB_of_the_bound()
    {
        (BlockScores scores, RateBudget budget) = Photograph(60 * 128, 34 * 128);
        Assert.Equal("dynamic programming", new SseAllocator().Allocate(scores, budget).Method);
        (scores, budget) = Photograph(128 * 128, 64 * 128);
        Assert.Equal("dynamic programming", new SseAllocator().Allocate(scores, budget).Method);
        (scores, budget) = Photograph(128 * 128, 65 * 128);
        Allocation allocation = new SseAllocator().Allocate(scores, budget);
        Assert.Equal("hull + exchange", allocation.Method);
        Assert.InRange(10 * Math.Log10(allocation.Sse / allocation.DualBoundSse!.Value), 0, 0.01);
    }

    [Theory]
    [InlineData(13 * 128, 9 * 128)]
    [InlineData(20 * 128, 31 * 128)]
    public void The_table_is_that_of_the_plain_recurrence_ties_included(int width, int height)
    {
        (BlockScores scores, RateBudget budget) = Photograph(width, height);
        var rounded = new double[scores.Grid.Count, 3];
        for (int block = 0; block < scores.Grid.Count; block++)
        {
            for (int s = 0; s < 3; s++)
                rounded[block, s] = Math.Round(Math.Log2(scores.Sse(block, s)));
        }
        Assert.Equal(Plain(rounded), new SseAllocator().Allocate(new BlockScores(scores.Grid, ScaleSet.Default, rounded), budget).ScaleIndex);
    }

    [Fact]
    public void A_budget_below_the_coarsest_scale_or_of_another_image_is_refused()
    {
        var scores = new BlockScores(new BlockGrid(256, 128), ScaleSet.Default, new double[2, 3]);
        Assert.Contains("Rate 16", Assert.Throws<ArgumentException>(() => new SseAllocator().Allocate(scores, new RateBudget(2, 16))).Message);
        Assert.Throws<ArgumentException>(() => new SseAllocator().Allocate(scores, new RateBudget(3, 4)));
    }

    /// <summary>Least error with at most u units of 5, 1 and 0; ties go to the coarser scale.</summary>
    private static byte[] Plain(double[,] sse)
    {
        int blocks = sse.GetLength(0);
        int[] units = [5, 1, 0];
        var least = new double[blocks + 1, blocks + 1];
        var choice = new byte[blocks, blocks + 1];
        for (int block = 0; block < blocks; block++)
        {
            for (int u = 0; u <= blocks; u++)
            {
                least[block + 1, u] = double.PositiveInfinity;
                for (int s = 2; s >= 0 && units[s] <= u; s--)
                {
                    if (least[block, u - units[s]] + sse[block, s] is var value && value < least[block + 1, u])
                        (least[block + 1, u], choice[block, u]) = (value, (byte)s);
                }
            }
        }
        var scales = new byte[blocks];
        for (int block = blocks - 1, left = blocks; block >= 0; left -= units[scales[block]], block--)
            scales[block] = choice[block, left = Math.Min(left, 5 * (block + 1))];
        return scales;
    }

    /// <summary>Errors over many decades, falling with the scale by random factors, the same on every run.</summary>
    private static (BlockScores Scores, RateBudget Budget) Photograph(int width, int height)
    {
        var grid = new BlockGrid(width, height);
        var random = new Random(grid.Count);
        var sse = new double[grid.Count, 3];
        for (int block = 0; block < grid.Count; block++)
        {
            double at4 = Math.Pow(10, 2 + (5 * random.NextDouble()));
            (sse[block, 0], sse[block, 1], sse[block, 2]) = (at4 * (0.1 + (0.6 * random.NextDouble())), at4, at4 * (1.2 + (2 * random.NextDouble())));
        }
        return (new BlockScores(grid, ScaleSet.Default, sse), new RateBudget(grid.Count, 4));
    }

    private static double BruteForce(AllocationCase c)
    {
        int blocks = c.Scores.Grid.Count, scales = c.Scales.Count;
        double best = double.PositiveInfinity;
        for (int code = 0; code < (int)Math.Pow(scales, blocks); code++)
        {
            double sse = 0;
            long pixels = 0;
            for (int block = 0, rest = code; block < blocks; block++, rest /= scales)
            {
                sse += c.Sse[block, rest % scales];
                pixels += c.Budget.PixelsPerBlock(c.Scales[rest % scales]);
            }
            if (pixels <= c.Budget.LrPixels)
                best = Math.Min(best, sse);
        }
        return best;
    }
}

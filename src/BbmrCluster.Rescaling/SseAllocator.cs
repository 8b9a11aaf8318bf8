using System.Runtime.Intrinsics;

namespace BbmrCluster.Rescaling;

/// <summary>
/// The least squared error of the whole image within the budget: a multiple-choice knapsack (one scale per block). Exact by
/// dynamic programming while the table is small; otherwise convex hull, greedy and exchanges, never worse than every block at
/// one scale. The Lagrangian dual bound says how far from the optimum the result can be at most.
/// </summary>
public sealed class SseAllocator : IAllocator
{
    /// <summary>The name.</summary>
    public const string Id = "sse";

    /// <summary>Cells of the largest table: 8,192 blocks of {2,4,8} at rate 4; 16 MiB of choices.</summary>
    internal const long MaxCells = 1L << 26;

    // Bit n of four at bit 2n.
    private static ReadOnlySpan<byte> Spread => [0b0000_0000, 0b0000_0001, 0b0000_0100, 0b0000_0101, 0b0001_0000, 0b0001_0001, 0b0001_0100, 0b0001_0101,
        0b0100_0000, 0b0100_0001, 0b0100_0100, 0b0100_0101, 0b0101_0000, 0b0101_0001, 0b0101_0100, 0b0101_0101];

    /// <inheritdoc/>
    public string Name => Id;

    /// <inheritdoc/>
    public Allocation Allocate(BlockScores scores, RateBudget budget) => Allocate(scores, budget, MaxCells);

    internal static Allocation Allocate(BlockScores scores, RateBudget budget, long maxCells)
    {
        Knapsack problem = Knapsack.Of(scores, budget);
        Hull hull = Hull.Of(problem);
        (byte[] scaleIndex, string method) = problem.Blocks * problem.Capacity <= maxCells
            ? (Dynamic(problem), "dynamic programming")
            : (HullAndExchange(problem, hull), "hull + exchange");
        return Summarise(scores, budget, scaleIndex, method, hull.DualBound);
    }

    /// <summary>Blocks, checked against the budget.</summary>
    internal static int CheckedBlocks(BlockScores scores, RateBudget budget)
    {
        int blocks = scores.Grid.Count;
        if (budget.Blocks != blocks || budget.BlockSize != scores.Grid.BlockSize)
            throw new ArgumentException($"A budget for {budget.Blocks} blocks of {budget.BlockSize} pixels, and scores of {blocks} blocks of {scores.Grid.BlockSize}.", nameof(budget));
        return (long)blocks * budget.PixelsPerBlock(scores.Scales[^1]) <= budget.LrPixels
            ? blocks
            : throw new ArgumentException($"Rate {budget.Rate} leaves less than every block at scale {scores.Scales[^1]} needs.", nameof(budget));
    }

    internal static Allocation Summarise(BlockScores scores, RateBudget budget, byte[] scaleIndex, string method, double? dualBound)
    {
        long pixels = 0;
        double sse = 0;
        for (int block = 0; block < scaleIndex.Length; block++)
        {
            pixels += budget.PixelsPerBlock(scores.Scales[scaleIndex[block]]);
            sse += scores.Sse(block, scaleIndex[block]);
        }
        // Mathematically the bound is never above any result; rounding could put it there by a few units in the last place.
        return new Allocation(scaleIndex, pixels, sse, method, dualBound is { } bound ? Math.Clamp(bound, 0, sse) : null);
    }

    internal static long GreatestCommonDivisor(long a, long b)
    {
        while (b != 0)
            (a, b) = (b, a % b);
        return a;
    }

    /// <summary>
    /// least[u] = least error of the blocks so far with at most u units. A path's value is the sum in block order and rounding
    /// is monotone, so the result is the optimum of the rounded sums too, not only nearly so.
    /// </summary>
    private static byte[] Dynamic(Knapsack problem)
    {
        int capacity = checked((int)problem.Capacity), scales = problem.Units.Length;
        double[] least = new double[capacity + 1], next = new double[capacity + 1], errors = new double[scales];
        int[] units = [.. problem.Units.Select(unit => (int)Math.Min(unit, int.MaxValue))];
        var choices = new byte[problem.Blocks][];
        for (int block = 0; block < problem.Blocks; block++)
        {
            var row = new byte[(capacity / 4) + 1];
            // No more units than this can be spent so far: beyond it every cell equals the last.
            int reach = (int)Math.Min(capacity, (block + 1) * problem.Units[0]);
            for (int s = 0; s < scales; s++)
                errors[s] = problem.Sse(block, s);
            Extend(least, next, row, errors, units, reach);
            next.AsSpan(reach + 1).Fill(next[reach]);
            choices[block] = row;
            (least, next) = (next, least);
        }

        var scaleIndex = new byte[problem.Blocks];
        long left = capacity;
        for (int block = problem.Blocks - 1; block >= 0; block--)
        {
            left = Math.Min(left, (block + 1) * problem.Units[0]);
            scaleIndex[block] = (byte)((choices[block][left >> 2] >> ((int)(left & 3) * 2)) & 3);
            left -= problem.Units[scaleIndex[block]];
        }
        return scaleIndex;
    }

    // One more block: from the least errors without it to those with it, and which scale each cell takes. Four cells, the
    // byte of their choices, at a time where every scale can be reached.
    private static void Extend(double[] least, double[] next, byte[] row, double[] errors, int[] units, int reach)
    {
        int coarsest = errors.Length - 1, first = (int)Math.Min(reach + 1L, (units[0] + 3L) & ~3L), fours = first + ((reach + 1 - first) & ~3);
        for (int u = 0; u <= reach; u = u + 1 == first ? fours : u + 1)
        {
            // Ties go to the coarser scale: fewer pixels for the same error.
            double best = least[u] + errors[coarsest];
            int choice = coarsest;
            for (int s = coarsest - 1; s >= 0 && units[s] <= u; s--)
            {
                double value = least[u - units[s]] + errors[s];
                if (value < best)
                    (best, choice) = (value, s);
            }
            next[u] = best;
            row[u >> 2] |= (byte)(choice << ((u & 3) * 2));
        }
        for (int u = first; u < fours; u += 4)
        {
            var best = Vector256.LoadUnsafe(ref least[u]) + Vector256.Create(errors[coarsest]);
            // The bits of the four choices.
            uint low = (uint)(coarsest & 1) * 15, high = (uint)(coarsest >> 1) * 15;
            for (int s = coarsest - 1; s >= 0; s--)
            {
                var value = Vector256.LoadUnsafe(ref least[u - units[s]]) + Vector256.Create(errors[s]);
                var better = Vector256.LessThan(value, best);
                uint mask = better.ExtractMostSignificantBits();
                best = Vector256.ConditionalSelect(better, value, best);
                low = (s & 1) == 0 ? low & ~mask : low | mask;
                high = s >> 1 == 0 ? high & ~mask : high | mask;
            }
            best.StoreUnsafe(ref next[u]);
            row[u >> 2] = (byte)(Spread[(int)low] | (Spread[(int)high] << 1));
        }
    }

    private static byte[] HullAndExchange(Knapsack problem, Hull hull)
    {
        byte[] scaleIndex = hull.Greedy(problem);
        Exchange.Improve(problem, scaleIndex);
        // Where a scale lies above the hull, mixing its neighbours can miss by one block.
        double least = problem.SumSse(scaleIndex);
        for (int s = 0; s < problem.Units.Length; s++)
        {
            var uniform = new byte[problem.Blocks];
            Array.Fill(uniform, (byte)s);
            if (problem.Units[s] * problem.Blocks <= problem.Capacity && problem.SumSse(uniform) is var sse && sse < least)
                (scaleIndex, least) = (uniform, sse);
        }
        return scaleIndex;
    }
}

/// <summary>The allocation problem in whole units of LR pixels above the coarsest scale.</summary>
/// <param name="Scores">Squared errors.</param>
/// <param name="Units">Cost of each scale; 5, 1, 0 for {2,4,8}.</param>
/// <param name="Capacity">Units to spend; N for {2,4,8} at rate 4.</param>
internal sealed record Knapsack(BlockScores Scores, long[] Units, long Capacity)
{
    public int Blocks { get; } = Scores.Grid.Count;

    public static Knapsack Of(BlockScores scores, RateBudget budget)
    {
        int blocks = SseAllocator.CheckedBlocks(scores, budget);
        long coarsest = budget.PixelsPerBlock(scores.Scales[^1]);
        long[] extra = [.. scores.Scales.Scales.Select(scale => budget.PixelsPerBlock(scale) - coarsest)];
        long unit = extra.Aggregate(0L, SseAllocator.GreatestCommonDivisor);
        long[] units = [.. extra.Select(pixels => pixels / unit)];
        // More than every block at the finest scale cannot be spent.
        return new Knapsack(scores, units, Math.Min((budget.LrPixels - (blocks * coarsest)) / unit, blocks * units[0]));
    }

    public double Sse(int block, int scaleIndex) => Scores.Sse(block, scaleIndex);

    public double SumSse(byte[] scaleIndex)
    {
        double sum = 0;
        for (int block = 0; block < scaleIndex.Length; block++)
            sum += Sse(block, scaleIndex[block]);
        return sum;
    }
}

/// <summary>The steps along each block's lower convex hull of error over units, steepest first.</summary>
internal sealed class Hull
{
    private readonly Step[] _steps;

    private Hull(Step[] steps, double dualBound) => (_steps, DualBound) = (steps, dualBound);

    /// <summary>
    /// max over lambda of sum over blocks of min over scales (error + lambda units) - lambda capacity: no allocation within the
    /// budget has less error. The best lambda is the slope of the first step that does not fit.
    /// </summary>
    public double DualBound { get; }

    public static Hull Of(Knapsack problem)
    {
        var steps = new List<Step>(problem.Blocks * (problem.Units.Length - 1));
        for (int block = 0; block < problem.Blocks; block++)
            AddSteps(problem, block, steps);
        Step[] sorted = [.. steps];
        Array.Sort(sorted);

        long left = problem.Capacity;
        double lambda = 0;
        foreach (Step step in sorted)
        {
            left -= step.Units;
            if (left < 0)
            {
                lambda = step.Slope;
                break;
            }
        }
        double bound = 0;
        for (int block = 0; block < problem.Blocks; block++)
        {
            double least = double.PositiveInfinity;
            for (int s = 0; s < problem.Units.Length; s++)
                least = Math.Min(least, problem.Sse(block, s) + (lambda * problem.Units[s]));
            bound += least;
        }
        return new Hull(sorted, bound - (lambda * problem.Capacity));
    }

    /// <summary>Takes steps, steepest first, as long as they fit.</summary>
    public byte[] Greedy(Knapsack problem)
    {
        var scaleIndex = new byte[problem.Blocks];
        Array.Fill(scaleIndex, (byte)(problem.Units.Length - 1));
        long left = problem.Capacity;
        foreach (Step step in _steps)
        {
            // A step goes on from where the one before it on the same hull has led.
            if (scaleIndex[step.Block] == step.From && step.Units <= left)
            {
                scaleIndex[step.Block] = step.To;
                left -= step.Units;
            }
        }
        return scaleIndex;
    }

    private static void AddSteps(Knapsack problem, int block, List<Step> steps)
    {
        // From each hull vertex the steepest descent leads to the next; equal slopes take the longer step.
        for (int from = problem.Units.Length - 1; from > 0;)
        {
            int to = -1;
            double slope = 0;
            for (int s = from - 1; s >= 0; s--)
            {
                double candidate = (problem.Sse(block, from) - problem.Sse(block, s)) / (problem.Units[s] - problem.Units[from]);
                if (candidate > 0 && candidate >= slope)
                    (to, slope) = (s, candidate);
            }
            if (to < 0)
                break;
            steps.Add(new Step(block, (byte)from, (byte)to, problem.Units[to] - problem.Units[from], slope));
            from = to;
        }
    }

    private readonly record struct Step(int Block, byte From, byte To, long Units, double Slope) : IComparable<Step>
    {
        // Steepest first, ties by block and along its hull: a total order, so that the sort is deterministic.
        public int CompareTo(Step other)
        {
            int bySlope = other.Slope.CompareTo(Slope);
            if (bySlope != 0)
                return bySlope;
            return Block != other.Block ? Block.CompareTo(other.Block) : other.From.CompareTo(From);
        }
    }
}

/// <summary>
/// Local search after the greedy pass: up to five equal moves of one kind together with up to five of another (a move changes
/// one block's scale), taken while they lower the error within the capacity.
/// </summary>
internal static class Exchange
{
    private const int MovesOfAKind = 5, MaxRounds = 256;

    public static void Improve(Knapsack problem, byte[] scaleIndex)
    {
        for (int round = 0; round < MaxRounds && ImproveOnce(problem, scaleIndex); round++)
        {
        }
    }

    private static bool ImproveOnce(Knapsack problem, byte[] scaleIndex)
    {
        long left = problem.Capacity - scaleIndex.Sum(index => problem.Units[index]);
        List<Move>[] kinds = BestMoves(problem, scaleIndex);
        double best = 0;
        Move[] chosen = [];
        foreach (List<Move> first in kinds)
        {
            for (int a = 1; a <= first.Count; a++)
            {
                Consider(first.Take(a));
                foreach (List<Move> second in kinds.Where(kind => kind != first))
                {
                    for (int b = 1; b <= second.Count; b++)
                        Consider(first.Take(a).Concat(second.Take(b)));
                }
            }
        }
        // A gain within rounding of the sums could go round in circles.
        if (best > -1e-12 * problem.SumSse(scaleIndex) || chosen.Length == 0)
            return false;
        foreach (Move move in chosen)
            scaleIndex[move.Block] = move.To;
        return true;

        void Consider(IEnumerable<Move> moves)
        {
            Move[] set = [.. moves];
            double change = set.Sum(move => move.Sse);
            if (change < best && set.Sum(move => move.Units) <= left && set.DistinctBy(move => move.Block).Count() == set.Length)
                (best, chosen) = (change, set);
        }
    }

    /// <summary>Per kind of move (from scale, to scale) those that lower the error most, or raise it least.</summary>
    private static List<Move>[] BestMoves(Knapsack problem, byte[] scaleIndex)
    {
        int scales = problem.Units.Length;
        var kinds = new List<Move>[scales * scales];
        for (int i = 0; i < kinds.Length; i++)
            kinds[i] = [];
        for (int block = 0; block < scaleIndex.Length; block++)
        {
            byte from = scaleIndex[block];
            for (byte to = 0; to < scales; to++)
            {
                if (to == from)
                    continue;
                var move = new Move(block, to, problem.Units[to] - problem.Units[from], problem.Sse(block, to) - problem.Sse(block, from));
                List<Move> kind = kinds[(from * scales) + to];
                int at = kind.FindIndex(other => move.Sse < other.Sse);
                if (at < 0 && kind.Count < MovesOfAKind)
                    kind.Add(move);
                else if (at >= 0)
                    kind.Insert(at, move);
                if (kind.Count > MovesOfAKind)
                    kind.RemoveAt(MovesOfAKind);
            }
        }
        return kinds;
    }

    private readonly record struct Move(int Block, byte To, long Units, double Sse);
}

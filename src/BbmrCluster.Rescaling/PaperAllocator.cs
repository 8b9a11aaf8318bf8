using System.Globalization;

namespace BbmrCluster.Rescaling;

/// <summary>
/// Algorithm 1 of the paper on differences of block PSNR in dB: again and again, the a blocks that earn most from the finer
/// scale are paid for by the c blocks that lose least at the coarser one, until the loss and <c>t</c> exceed the gain. The
/// printed contradictions (sort order, index base, overlapping lists) are read as docs/allocation.md says.
/// </summary>
/// <param name="threshold">t: dB by which a group must win, 0 to 100.</param>
/// <param name="maxGroups">Largest number of groups; null: as many as the blocks allow, floor(N / (a + c)).</param>
public sealed class PaperAllocator(double threshold = 0, int? maxGroups = null) : IAllocator
{
    /// <summary>The name without parameters.</summary>
    public const string Id = "paper";

    /// <inheritdoc/>
    public string Name { get; } =
        $"{Id}:t={Plain(threshold)}" + (maxGroups is { } max ? string.Create(CultureInfo.InvariantCulture, $",max={max}") : "");

    /// <summary>
    /// Blocks of a group, a at the finest and c at the coarsest scale, so that the LR pixels stay those of the middle one:
    /// a/k1^2 + c/k3^2 = (a+c)/k2^2 (paper eq. 1); 1 and 4 for scales 2, 4, 8.
    /// </summary>
    /// <exception cref="ArgumentException">Not three scales.</exception>
    public static (int Finer, int Coarser) GroupOf(ScaleSet scales)
    {
        if (scales.Count != 3)
            throw new ArgumentException($"The allocator paper needs three scales, not {scales}.", nameof(scales));
        long k1 = (long)scales[0] * scales[0], k2 = (long)scales[1] * scales[1], k3 = (long)scales[2] * scales[2];
        long a = k1 * (k3 - k2), c = k3 * (k2 - k1), divisor = SseAllocator.GreatestCommonDivisor(a, c);
        return ((int)(a / divisor), (int)(c / divisor));
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">Not three scales, or the rate is not the middle one's.</exception>
    public Allocation Allocate(BlockScores scores, RateBudget budget)
    {
        ScaleSet scales = scores.Scales;
        (int a, int c) = GroupOf(scales);
        if (budget.Rate != scales.Middle)
            throw new ArgumentException($"The allocator paper keeps the rate of the middle scale {scales.Middle}, not {budget.Rate}.", nameof(budget));
        int blocks = SseAllocator.CheckedBlocks(scores, budget);

        double[] earn = Differences(scores, blocks, 0, 1), pay = Differences(scores, blocks, 1, 2);
        // Stable sorts: ties go to the lower block number.
        int[] byEarn = [.. Enumerable.Range(0, blocks).OrderByDescending(block => earn[block])];
        int[] byPay = [.. Enumerable.Range(0, blocks).OrderBy(block => pay[block])];

        var scaleIndex = new byte[blocks];
        Array.Fill(scaleIndex, (byte)1);
        int nextEarn = 0, nextPay = 0;
        int groups = Math.Min(maxGroups ?? int.MaxValue, blocks / (a + c));
        for (int group = 0; group < groups; group++)
        {
            List<int> finer = Next(byEarn, ref nextEarn, a, scaleIndex, []);
            List<int> coarser = Next(byPay, ref nextPay, c, scaleIndex, finer);
            if (coarser.Sum(block => pay[block]) + threshold > finer.Sum(block => earn[block]))
                break;
            finer.ForEach(block => scaleIndex[block] = 0);
            coarser.ForEach(block => scaleIndex[block] = 2);
        }
        return SseAllocator.Summarise(scores, budget, scaleIndex, "paper", null);
    }

    // Without an exponent, as people write it, unless digits would be lost.
    private static string Plain(double value) =>
        value is 0 or >= 1e-20 and <= 1000 && (double)(decimal)value == value ? ((decimal)value).ToString(CultureInfo.InvariantCulture) : value.ToString("R", CultureInfo.InvariantCulture);

    private static double[] Differences(BlockScores scores, int blocks, int better, int worse) =>
        [.. Enumerable.Range(0, blocks).Select(block => scores.Psnr(block, better) - scores.Psnr(block, worse))];

    // There are always enough: a group is only begun while a + c blocks are left.
    private static List<int> Next(int[] order, ref int position, int count, byte[] scaleIndex, List<int> taken)
    {
        var chosen = new List<int>(count);
        for (int i = position; chosen.Count < count; i++)
        {
            if (scaleIndex[order[i]] == 1 && !taken.Contains(order[i]))
                chosen.Add(order[i]);
        }
        while (position < order.Length && scaleIndex[order[position]] != 1)
            position++;
        return chosen;
    }
}

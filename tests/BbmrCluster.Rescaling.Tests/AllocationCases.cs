using FsCheck;
using FsCheck.Fluent;

namespace BbmrCluster.Rescaling.Tests;

/// <summary>A random allocation problem: an image of whole and cut blocks, a scale set, a rate and squared errors.</summary>
public sealed record AllocationCase(int Width, int Height, ScaleSet Scales, int Rate, double[,] Sse)
{
    public BlockScores Scores => new(new BlockGrid(Width, Height), Scales, Sse);

    public RateBudget Budget => new(Scores.Grid.Count, Rate);

    public double UniformSse(int scaleIndex) => Enumerable.Range(0, Scores.Grid.Count).Sum(block => Sse[block, scaleIndex]);

    public override string ToString() =>
        $"{Width}x{Height}, scales {Scales}, rate {Rate}: {string.Join(" | ", Enumerable.Range(0, Sse.GetLength(0)).Select(b => string.Join(' ', Enumerable.Range(0, Sse.GetLength(1)).Select(s => Sse[b, s].ToString("R")))))}";
}

/// <summary>At most 6 blocks, any scale set: small enough to try every allocation.</summary>
public static class SmallCases
{
    public static Arbitrary<AllocationCase> Case() => Cases.Of(maxColumns: 3, maxRows: 2, Cases.AnyScales).ToArbitrary();
}

/// <summary>At most 150 blocks of any scale set.</summary>
public static class LargeCases
{
    public static Arbitrary<AllocationCase> Case() => Cases.Of(maxColumns: 15, maxRows: 10, Cases.AnyScales).ToArbitrary();
}

/// <summary>At most 150 blocks of the three-scale sets at the middle scale's rate.</summary>
public static class PaperCases
{
    public static Arbitrary<AllocationCase> Case() =>
        Cases.Of(maxColumns: 15, maxRows: 10, Gen.Elements("2,4,8", "1,2,4", "4,8,16", "1,4,8")).Select(c => c with { Rate = c.Scales.Middle }).ToArbitrary();
}

internal static class Cases
{
    public static Gen<string> AnyScales { get; } = Gen.Elements("2,4,8", "1,2,4", "2,4", "4,8", "1,2,4,8", "2,4,8,16", "1,16", "2,8,16");

    public static Gen<AllocationCase> Of(int maxColumns, int maxRows, Gen<string> sets) =>
        from columns in Gen.Choose(1, maxColumns)
        from rows in Gen.Choose(1, maxRows)
        from cutX in Gen.Choose(0, 127)
        from cutY in Gen.Choose(0, 127)
        from scales in sets.Select(ScaleSet.Parse)
        from rate in Gen.Elements(scales.Scales.ToArray())
        from falling in Gen.Elements(true, true, false)
        from values in Gen.ArrayOf(Values, columns * rows * scales.Count)
        select new AllocationCase((columns * 128) - cutX, (rows * 128) - cutY, scales, rate, Table(values, columns * rows, scales.Count, falling));

    // Zeros and ties as often as photographs' many decades.
    private static Gen<double> Values { get; } = Gen.OneOf(
        Gen.Constant(0.0),
        Gen.Choose(0, 3).Select(value => (double)value),
        Gen.Choose(0, 1_000_000).Select(value => Math.Pow(10, value / 100_000.0)));

    // Falling: finer scales have less error, as nearly always; otherwise anything goes.
    private static double[,] Table(double[] values, int blocks, int scales, bool falling)
    {
        var sse = new double[blocks, scales];
        for (int block = 0; block < blocks; block++)
        {
            double[] row = values[(block * scales)..((block + 1) * scales)];
            if (falling)
                Array.Sort(row);
            for (int s = 0; s < scales; s++)
                sse[block, s] = row[s];
        }
        return sse;
    }
}

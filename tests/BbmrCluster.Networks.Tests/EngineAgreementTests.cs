using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Rescaling;
using BbmrCluster.Tests;

namespace BbmrCluster.Networks.Tests;

/// <summary>What of the engine's results agrees with what, on real blocks and the weights that are shipped.</summary>
public sealed class EngineAgreementTests
{
    private static readonly ModelCatalog Shipped = new(Path.Combine(Fixtures.Repository(), "models"));

    private static IEngine Engine(string precision, int threads = 2, int maxBatch = 0) =>
        new EngineFactory(Shipped).Create(EngineSettings.Default with { Precision = precision, Threads = threads, MaxBatch = maxBatch, Device = "cpu" });

    /// <summary>The middle blocks of a sample photograph.</summary>
    private static BlockBatch Crop(string sample, int columns, int rows)
    {
        PixelBuffer image = ImageFile.Load(Path.Combine(Fixtures.Repository(), "samples", sample), ImageLimits.Default, Path.GetTempPath());
        int left = (image.Width - (columns * 128)) / 2, top = (image.Height - (rows * 128)) / 2;
        var blocks = new BlockBatch(columns * rows, 128, 8);
        for (int block = 0; block < blocks.Count; block++)
        {
            for (int i = 0; i < 128 * 128 * 3; i++)
            {
                int y = top + (block / columns * 128) + (i / 384), x = left + (block % columns * 128) + (i / 3 % 128);
                blocks.Samples[(block * 128 * 128 * 3) + i] = image.Data[(((y * image.Width) + x) * 3) + (i % 3)];
            }
        }
        return blocks;
    }

    private static BlockExtent[] Full(int count) => [.. Enumerable.Repeat(new BlockExtent(128, 128), count)];

    [Theory]
    [InlineData("float32")]
    [InlineData("auto")]
    public void Scores_and_rows_are_the_same_bits_in_batches_of_1_7_and_16_and_with_1_and_2_threads(string precision)
    {
        BlockBatch hr = Crop("colosseum.jpg", 6, 3);
        byte[] index = [.. Enumerable.Range(0, hr.Count).Select(i => (byte)(i % 3))];
        double[]? scores = null;
        ushort[]? rows = null;
        foreach ((int batch, int threads) in ((int, int)[])[(1, 1), (7, 1), (16, 1), (7, 2), (16, 2)])
        {
            using IEngine engine = Engine(precision, threads, batch);
            double[] scored = [.. engine.Scorer.Score(hr, Full(hr.Count), ScaleSet.Default).Cast<double>()];
            BlockBatch[] lr = [.. Enumerable.Range(0, 3).Select(s =>
            {
                int[] places = [.. Enumerable.Range(0, hr.Count).Where(i => index[i] == s)];
                BlockBatch all = engine.Downscaler.Downscale(hr, ScaleSet.Default[s]);
                var own = new BlockBatch(places.Length, all.Side, 8);
                for (int i = 0; i < places.Length; i++)
                    all.Block(places[i]).CopyTo(own.Samples.AsSpan(i * all.Side * all.Side * 3));
                return own;
            })];
            ushort[] made = [.. engine.Reconstructor.Reconstruct(new LrStrips(6, 3, ScaleSet.Default, index, lr)).SelectMany(strip => strip.Rows)];
            Assert.Equal(scores ?? scored, scored);
            Assert.Equal(rows ?? made, made);
            (scores, rows) = (scored, made);
        }
    }

    [Fact]
    public void Bfloat16_bodies_move_no_block_by_more_than_two_hundredths_of_a_decibel_and_hardly_any_scale()
    {
        int blocks = 0, otherScale = 0;
        foreach ((string sample, int columns, int rows) in ((string, int, int)[])[("colosseum.jpg", 12, 8), ("osprey.jpg", 10, 7), ("beacon-street.png", 10, 7)])
        {
            BlockBatch hr = Crop(sample, columns, rows);
            BlockScores[] scores = [.. ((string[])["float32", "auto"]).Select(precision =>
            {
                using IEngine engine = Engine(precision);
                return new BlockScores(new BlockGrid(columns * 128, rows * 128), ScaleSet.Default, engine.Scorer.Score(hr, Full(hr.Count), ScaleSet.Default));
            })];
            for (int block = 0; block < hr.Count; block++)
            {
                for (int s = 0; s < 3; s++)
                {
                    double exact = scores[0].Psnr(block, s);
                    if (exact is > 25 and < 50)
                        Assert.InRange(scores[1].Psnr(block, s) - exact, -0.02, 0.02);
                }
            }
            var allocator = new SseAllocator();
            byte[][] chosen = [.. scores.Select(score => allocator.Allocate(score, new RateBudget(hr.Count, 4)).ScaleIndex)];
            blocks += hr.Count;
            otherScale += chosen[0].Zip(chosen[1]).Count(pair => pair.First != pair.Second);
        }
        Assert.InRange(otherScale, 0, blocks / 100);
    }

    [Fact]
    public void Batches_are_as_large_as_is_fast_unless_memory_is_short()
    {
        Assert.Equal([16, 16, 16], ((int[])[2, 4, 8]).Select(scale => EngineBatch.Largest(scale, 2, 24L << 30)));
        Assert.Equal(7, EngineBatch.Largest(2, 2, 7 * 8 * EngineBatch.BytesPerBlock(2)));
        Assert.Equal(1, EngineBatch.Largest(2, 64, 1 << 20));
        EngineSettings settings = EngineSettings.Default with { Device = "cpu", Threads = 2 };
        Assert.Equal(0, EngineFactory.BatchOfMemory(settings, 24L << 30));
        Assert.Equal(7, EngineFactory.BatchOfMemory(settings, 7 * 8 * EngineBatch.BytesPerBlock(2)));
        Assert.Equal(5, new EngineFactory(Shipped).Resolve(settings with { MaxBatch = 5 }).MaxBatch);
    }
}

using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Networks.Tests;

public sealed class CanvasEngineTests : IDisposable
{
    private const int Width = 300, Height = 290;

    private readonly TemporaryFolder _models = new();

    public CanvasEngineTests()
    {
        foreach (int scale in (int[])[2, 4, 8])
            SafetensorsFile.Write(_models.File($"omnisr-light-x{scale}.safetensors"), ReferenceNumbers.Weights(new OmniSrShape(scale, 1).Parameters));
    }

    public void Dispose() => _models.Dispose();

    private IEngine Create(int block, int threads = 1, int maxBatch = 0, string scorer = "same", int[]? scales = null) =>
        new EngineFactory(new ModelCatalog(_models.Root)).Create(EngineSettings.Default with
        {
            Precision = "float32", Threads = threads, MaxBatch = maxBatch, Scorer = scorer, Device = "cpu", Context = BlockContext.Canvas, BlockSize = block, Halo = 4,
            Scales = new ScaleSet(scales ?? [2, 4, 8], block),
        });

    private static ImageRows Image(int bitDepth = 8)
    {
        var map = new SampleMap(Width, Height, bitDepth);
        var random = new Random(1);
        for (int i = 0; i < map.Samples.Length; i++)
            map.Samples[i] = (ushort)((0.5 + (0.3 * Math.Sin(i * 0.013)) + (0.15 * random.NextDouble())) * ((1 << bitDepth) - 1));
        return new ImageRows(map, 0, Height);
    }

    private static ImageRows Window(ImageRows image, (int First, int End) rows) =>
        new(new SampleMap(Width, rows.End - rows.First, image.Map.BitDepth, image.Map.Samples[(rows.First * Width * 3)..(rows.End * Width * 3)]), rows.First, Height);

    private static LrContext Lr(IEngine engine, ImageRows image, BlockGrid grid, ScaleSet scales, byte[] index)
    {
        BlockBatch[] byScale = [.. Enumerable.Range(0, scales.Count).Select(s =>
        {
            int[] blocks = [.. Enumerable.Range(0, grid.Count).Where(block => index[block] == s)];
            SampleMap rows = WholeImageLr.Rows(engine.Downscaler, image, grid, scales[s], 0, WholeImageLr.RowsOf(grid, scales[s]));
            return WholeImageLr.Cut(rows, grid.BlockSize / scales[s], grid.Columns, blocks);
        })];
        return new LrContext(grid, scales, image.Map.BitDepth, 0, grid.Strips, 0, grid.Strips, index, byScale);
    }

    [Theory]
    [InlineData(32)]
    [InlineData(128)]
    public void Scores_do_not_depend_on_what_is_asked_for_together_nor_on_batch_and_threads(int block)
    {
        ImageRows image = Image();
        var grid = BlockGrid.OfTiles(Width, Height, block);
        int[] scales = [2, 4, 8];
        using IEngine one = Create(block), other = Create(block, threads: 2, maxBatch: 3);
        double[,] all = one.Scorer.Score(image, grid, 0, grid.Count, scales);
        for (int first = 0; first < grid.Count; first += 23)
        {
            int count = Math.Min(23, grid.Count - first);
            double[,] part = other.Scorer.Score(Window(image, other.Scorer.RowsFor(grid, first, count, scales)), grid, first, count, scales);
            for (int b = 0; b < count; b++)
            {
                for (int s = 0; s < 3; s++)
                    Assert.Equal(all[first + b, s], part[b, s]);
            }
        }
    }

    [Theory]
    [InlineData(8)]
    [InlineData(16)]
    public void With_one_scale_everywhere_the_reconstruction_has_the_error_that_was_scored(int bitDepth)
    {
        ImageRows image = Image(bitDepth);
        var grid = BlockGrid.OfTiles(Width, Height, 32);
        using IEngine engine = Create(32);
        for (int s = 0; s < 3; s++)
        {
            byte[] index = new byte[grid.Count];
            Array.Fill(index, (byte)s);
            double sse = 0;
            foreach ((SampleMap rows, int strip) in engine.CanvasReconstructor.Reconstruct(Lr(engine, image, grid, ScaleSet.Default, index)).Select((rows, strip) => (rows, strip)))
                sse += Metrics.AreaSse(image.Map.Samples.AsSpan(strip * 128 * Width * 3), Width, rows.Samples, rows.Width, Width, grid.RowsOf(strip), bitDepth);
            double scored = engine.UniformScorer.Score(image, grid, 0, grid.Count, [ScaleSet.Default[s]]).Cast<double>().Sum();
            Assert.Equal(1, scored / sse, 9);
        }
    }

    [Fact]
    public void Strips_are_the_same_one_by_one_and_together()
    {
        ImageRows image = Image();
        var grid = BlockGrid.OfTiles(Width, Height, 32);
        byte[] index = [.. Enumerable.Range(0, grid.Count).Select(i => (byte)(i * 7 % 3))];
        using IEngine one = Create(32), other = Create(32, threads: 2, maxBatch: 2);
        LrContext all = Lr(one, image, grid, ScaleSet.Default, index);
        IReadOnlyList<SampleMap> together = one.CanvasReconstructor.Reconstruct(all);
        for (int strip = 0; strip < grid.Strips; strip++)
            Assert.Equal(together[strip].Samples, other.CanvasReconstructor.Reconstruct(all with { TargetStrip = strip, TargetCount = 1 })[0].Samples);
    }

    [Fact]
    public void Scale_1_keeps_pixels_and_scale_16_goes_by_the_network_of_8()
    {
        ImageRows image = Image();
        var grid = BlockGrid.OfTiles(Width, Height, 16);
        int[] scales = [1, 4, 8, 16];
        var set = new ScaleSet(scales, 16);
        using IEngine engine = Create(16, scales: scales);
        double[,] scores = engine.Scorer.Score(image, grid, 0, grid.Count, scales);
        Assert.Equal(0, Enumerable.Range(0, grid.Count).Sum(block => scores[block, 0]));
        Assert.True(Enumerable.Range(0, grid.Count).All(block => double.IsFinite(scores[block, 3])));
        byte[] index = [.. Enumerable.Range(0, grid.Count).Select(i => (byte)(i % 2 * 3))];
        IReadOnlyList<SampleMap> rows = engine.CanvasReconstructor.Reconstruct(Lr(engine, image, grid, set, index));
        for (int block = 0; block < grid.Count; block += 2)
        {
            BlockExtent extent = grid.ExtentOf(block);
            int x = block % grid.Columns * 16, y = block / grid.Columns * 16;
            for (int row = 0; row < extent.Height; row++)
                Assert.Equal(image.Map.Row(y + row, x, extent.Width).ToArray(), rows[y / 128].Row((y % 128) + row, x, extent.Width).ToArray());
        }
    }

    [Fact]
    public void A_halo_lets_a_tile_see_its_neighbours()
    {
        ImageRows image = Image();
        var grid = BlockGrid.OfTiles(Width, Height, 128);
        using IEngine engine = Create(128);
        double[,] before = engine.Scorer.Score(image, grid, 0, 1, [4]);
        // Right beyond the first tile.
        for (int y = 0; y < 128; y++)
            image.Map.Row(y, 128, 8).Fill(255);
        Assert.NotEqual(before[0, 0], engine.Scorer.Score(image, grid, 0, 1, [4])[0, 0]);
    }
}

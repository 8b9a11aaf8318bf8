using BbmrCluster.Imaging;

namespace BbmrCluster.Rescaling.Tests;

public sealed class CanvasTests
{
    private static LrContext Random(int width, int height, int block, ScaleSet scales, int seed, int bitDepth = 8)
    {
        var grid = BlockGrid.OfTiles(width, height, block);
        var random = new Random(seed);
        byte[] index = [.. Enumerable.Range(0, grid.Count).Select(_ => (byte)random.Next(scales.Count))];
        BlockBatch[] lr = [.. Enumerable.Range(0, scales.Count).Select(s =>
        {
            var batch = new BlockBatch(index.Count(i => i == s), block / scales[s], bitDepth);
            for (int i = 0; i < batch.Samples.Length; i++)
                batch.Samples[i] = (ushort)random.Next(batch.MaxValue + 1);
            return batch;
        })];
        return new LrContext(grid, scales, bitDepth, 0, grid.Strips, 0, grid.Strips, index, lr);
    }

    // The strips around one of them, as a lease has them.
    private static LrContext Around(LrContext all, int strip)
    {
        int first = Math.Max(0, strip - 1), end = Math.Min(all.Grid.Strips, strip + 2);
        int from = all.Grid.FirstBlockOf(first), to = all.Grid.FirstBlockOf(end - 1) + all.Grid.BlocksOf(end - 1);
        BlockBatch[] part = [.. all.ByScale.Select((batch, s) =>
        {
            int skip = all.ScaleIndex.AsSpan(0, from).Count((byte)s), take = all.ScaleIndex.AsSpan(from, to - from).Count((byte)s), size = batch.Side * batch.Side * 3;
            return new BlockBatch(take, batch.Side, batch.BitDepth, batch.Samples[(skip * size)..((skip + take) * size)]);
        })];
        return all with { FirstStrip = first, StripCount = end - first, TargetStrip = strip, TargetCount = 1, ScaleIndex = all.ScaleIndex[from..to], ByScale = part };
    }

    [Theory]
    [InlineData(32, new[] { 2, 4, 8 }, 4, 8)]
    [InlineData(16, new[] { 1, 2, 4, 8 }, 4, 8)]
    [InlineData(128, new[] { 2, 4, 8, 16 }, 4, 16)]
    [InlineData(64, new[] { 2, 8 }, 8, 8)]
    public void A_strip_with_its_halo_needs_the_strips_beside_it_and_nothing_else(int block, int[] scales, int halo, int bitDepth)
    {
        LrContext all = Random(300, 600, block, new ScaleSet(scales, block), 1, bitDepth);
        var whole = Canvas.Fill(all);
        for (int strip = 0; strip < all.Grid.Strips; strip++)
        {
            LrContext around = Around(all, strip);
            Assert.Null(around.Problem());
            var part = Canvas.Fill(around);
            for (int s = 0; s < scales.Length; s++)
            {
                int side = 128 / scales[s], first = Math.Max(0, (strip * side) - halo), end = Math.Min(whole.At(s).Height, ((strip + 1) * side) + halo), skip = around.FirstStrip * side;
                for (int y = first; y < end; y++)
                    Assert.Equal(whole.At(s).Row(y, 0, whole.At(s).Width).ToArray(), part.At(s).Row(y - skip, 0, whole.At(s).Width).ToArray());
            }
        }
    }

    [Fact]
    public void A_block_shows_its_own_pixels_on_the_canvas_of_its_scale()
    {
        LrContext all = Random(256, 256, 32, ScaleSet.Default, 2);
        var canvas = Canvas.Fill(all);
        int[] next = new int[3];
        for (int block = 0; block < all.ScaleIndex.Length; block++)
        {
            int s = all.ScaleIndex[block], side = 32 / all.Scales[s];
            var own = new ushort[side * side * 3];
            canvas.At(s).CopyArea(block % all.Grid.Columns * side, block / all.Grid.Columns * side, side, side, own);
            Assert.Equal(all.ByScale[s].Block(next[s]++).ToArray(), own);
        }
    }

    [Fact]
    public void Of_one_flat_image_every_canvas_is_flat_and_of_a_ramp_nearly_the_ramp()
    {
        LrContext all = Random(384, 256, 32, ScaleSet.Default, 3);
        // A horizontal ramp, as each scale sees it: the value at the centre of an LR pixel.
        for (int s = 0; s < 3; s++)
        {
            int next = 0;
            for (int block = 0; block < all.ScaleIndex.Length; block++)
            {
                if (all.ScaleIndex[block] != s)
                    continue;
                Span<ushort> samples = all.ByScale[s].Block(next++);
                int side = all.ByScale[s].Side, scale = all.Scales[s];
                for (int i = 0; i < samples.Length; i++)
                    samples[i] = Ramp((((block % all.Grid.Columns * side) + (i / 3 % side) + 0.5) * scale) - 0.5);
            }
        }
        var canvas = Canvas.Fill(all);
        for (int s = 0; s < 3; s++)
        {
            SampleMap map = canvas.At(s);
            for (int x = 8; x < map.Width - 8; x++)
                Assert.InRange(map.Row(map.Height / 2, x, 1)[0] - Ramp(((x + 0.5) * all.Scales[s]) - 0.5), -2, 2);
        }

        static ushort Ramp(double x) => (ushort)Math.Round(20 + (x / 2));
    }

    [Fact]
    public void Parts_that_do_not_fit_are_refused()
    {
        LrContext all = Random(256, 256, 32, ScaleSet.Default, 4);
        Assert.NotNull((all with { StripCount = 1 }).Problem());
        Assert.NotNull((all with { ScaleIndex = all.ScaleIndex[1..] }).Problem());
        Assert.NotNull((all with { ByScale = [.. all.ByScale.Take(2)] }).Problem());
        Assert.Throws<ArgumentException>(() => Canvas.Fill(all with { TargetCount = 0 }));
        Assert.False(Canvas.Supports(new ScaleSet([2, 3], 12)));
    }

    [Theory]
    [InlineData(300, 203, 2, 8)]
    [InlineData(301, 290, 4, 8)]
    [InlineData(77, 401, 8, 16)]
    [InlineData(5, 3, 16, 8)]
    public void Rows_of_a_window_are_those_of_the_whole_image_downscaled(int width, int height, int factor, int bitDepth)
    {
        var image = new PixelBuffer(width, height, 3, bitDepth);
        new Random(5).NextBytes(image.Data);
        var map = new SampleMap(width, height, bitDepth);
        for (int i = 0; i < map.Samples.Length; i++)
            map.Samples[i] = bitDepth == 8 ? image.Data[i] : image.Samples16[i];
        PixelBuffer whole = Bicubic.Resize(image, ResizeScale.Down(factor));
        for (int first = 0; first < whole.Height; first += 5)
        {
            int count = Math.Min(5, whole.Height - first);
            (int from, int to) = WholeImageLr.Needed(new BlockGrid(width, height, 16), factor, Bicubic.Reach(factor), first, count);
            var rows = new ushort[count * whole.Width * 3];
            Bicubic.DownscaleRows(map.Samples.AsSpan(from * width * 3, (to - from) * width * 3), width, from, height, bitDepth, factor, first, rows);
            for (int i = 0; i < rows.Length; i++)
                Assert.Equal(bitDepth == 8 ? whole.Data[(first * whole.Width * 3) + i] : whole.Samples16[(first * whole.Width * 3) + i], rows[i]);
        }
    }
}

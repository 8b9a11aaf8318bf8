using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Work.Tests;

/// <summary>The stages of blocks that see their neighbours, from image to container and back.</summary>
public sealed class CanvasChainTests
{
    private static EngineSettings Engine(int block, string scorer = "bicubic", int[]? scales = null) =>
        EngineSettings.Default with
        {
            Network = "fake", Scorer = scorer, Precision = "float32", Device = "cpu", Context = BlockContext.Canvas, BlockSize = block, Halo = 4,
            Scales = new ScaleSet(scales ?? [2, 4, 8], block),
        };

    public static TheoryData<int, int, int, int, int> Sizes => new()
    {
        { 1, 1, 3, 8, 32 }, { 1, 1000, 3, 8, 16 }, { 129, 1, 3, 8, 64 }, { 300, 200, 1, 8, 32 }, { 260, 131, 3, 16, 32 }, { 300, 290, 4, 8, 16 },
        { 200, 300, 2, 16, 128 }, { 128, 128, 3, 8, 32 }, { 401, 385, 3, 8, 128 },
    };

    [Theory]
    [MemberData(nameof(Sizes))]
    public void A_rescale_of_any_size_depth_and_block_gives_what_its_report_says_and_its_container_gives_the_image_again(int width, int height, int channels, int bitDepth, int block)
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", width, height, channels, bitDepth);
        SequentialDriver driver = bench.Finish(bench.Job(source, engine: Engine(block)));
        OutputPaths outputs = driver.Job.Outputs;
        using (ContainerReader container = ContainerReader.Open(outputs.Container!, ImageLimits.Default))
        {
            Assert.Equal((width, height, block, BlockContext.Canvas, 4), (container.Header.Width, container.Header.Height, container.Header.BlockSize, container.Header.Context, container.Header.Halo));
            Assert.Equal((height + 127) / 128, container.StripCount);
            Assert.Empty(container.Verify());
            Assert.Equal(driver.Report.PsnrY!.Value, container.Quality!.Psnr(container.Header.Grid), 4);
        }
        PixelBuffer original = ImageFile.Load(source, ImageLimits.Default, bench.Scratch), image = ImageFile.Load(outputs.Image!, ImageLimits.Default, bench.Scratch);
        Assert.Equal((width, height, channels, bitDepth), (image.Width, image.Height, image.Channels, image.BitDepth));
        Assert.Equal(Metrics.Compare(original, image).PsnrY, driver.Report.PsnrY!.Value, 9);
        Assert.Equal(driver.Facts!.Grid.Count, driver.Report.Counts.Values.Sum());
        Assert.True(driver.Report.RatePixels <= 1.0 / 16);

        ImageJob upscale = bench.Job(outputs.Container!, JobKind.Upscale, id: "up", outputs: Path.Combine(bench.Root, "up"), engine: Engine(block));
        bench.Finish(upscale, stripsPerLease: 3);
        Assert.Equal(File.ReadAllBytes(outputs.Image!), File.ReadAllBytes(upscale.Outputs.Image!));
    }

    [Theory]
    [InlineData(7, 1, 32)]
    [InlineData(100, 2, 16)]
    [InlineData(1, 4, 128)]
    public void Outputs_have_the_same_bytes_whatever_the_leases(int blocksPerScore, int stripsPerLease, int block)
    {
        using Bench first = new(), second = new();
        ImageJob a = first.Job(first.Picture("in.png", 400, 450, 4), engine: Engine(block)), b = second.Job(second.Picture("in.png", 400, 450, 4), id: "another-job", engine: Engine(block));
        first.Finish(a);
        second.Finish(b, blocksPerScore, stripsPerLease);
        Assert.Equal(File.ReadAllBytes(a.Outputs.Container!), File.ReadAllBytes(b.Outputs.Container!));
        Assert.Equal(File.ReadAllBytes(a.Outputs.Image!), File.ReadAllBytes(b.Outputs.Image!));
        Assert.Equal(File.ReadAllBytes(a.Outputs.AllocationPicture!), File.ReadAllBytes(b.Outputs.AllocationPicture!));
    }

    [Theory]
    [InlineData(32)]
    [InlineData(128)]
    public void The_lr_of_every_block_is_cut_from_the_downscaled_whole_image(int block)
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 403, 290);
        SequentialDriver driver = bench.Finish(bench.Job(source, engine: Engine(block)));
        PixelBuffer original = ImageFile.Load(source, ImageLimits.Default, bench.Scratch);
        using ContainerReader container = ContainerReader.Open(driver.Job.Outputs.Container!, ImageLimits.Default);
        BlockGrid grid = container.Header.Grid;
        for (int s = 0; s < 3; s++)
        {
            int scale = container.Header.Scales[s], side = block / scale;
            PixelBuffer whole = Bicubic.Resize(original, ResizeScale.Down(scale));
            for (int strip = 0; strip < grid.Strips; strip++)
            {
                UnpackedStrip unpacked = container.UnpackStrip(strip);
                int next = 0;
                for (int i = 0; i < grid.BlocksOf(strip); i++)
                {
                    int number = grid.FirstBlockOf(strip) + i;
                    if (container.ScaleIndex[number] != s)
                        continue;
                    ReadOnlySpan<ushort> lr = unpacked.ByScale[s].Block(next++);
                    for (int y = 0; y < side; y++)
                    {
                        for (int x = 0; x < side; x++)
                        {
                            int wx = Math.Min((number % grid.Columns * side) + x, whole.Width - 1), wy = Math.Min((number / grid.Columns * side) + y, whole.Height - 1);
                            Assert.Equal(whole.Data[((wy * whole.Width) + wx) * 3], lr[((y * side) + x) * 3]);
                        }
                    }
                }
            }
        }
    }

    [Fact]
    public void The_gain_is_that_over_the_whole_image_at_the_middle_scale_whoever_scores()
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 300, 290);
        SequentialDriver measured = bench.Finish(bench.Job(source, id: "m", outputs: Path.Combine(bench.Root, "m"), engine: Engine(32)));
        PixelBuffer original = ImageFile.Load(source, ImageLimits.Default, bench.Scratch);
        // The fake scorer repeats each LR pixel.
        PixelBuffer lr = Bicubic.Resize(original, ResizeScale.Down(4)), up = new(300, 290, 3, 8);
        for (int i = 0; i < up.Data.Length; i++)
            up.Data[i] = lr.Data[(((i / 900 / 4 * lr.Width) + (i / 3 % 300 / 4)) * 3) + (i % 3)];
        Assert.Equal(Metrics.Compare(original, up).PsnrY, measured.Report.PsnrYUniform!.Value, 9);
    }

    [Theory]
    [InlineData(new[] { 2, 4, 8, 16 })]
    [InlineData(new[] { 1, 2, 4, 8 })]
    [InlineData(new[] { 2, 4 })]
    public void Other_scale_sets_are_packed_and_brought_back(int[] scales)
    {
        using var bench = new Bench();
        SequentialDriver driver = bench.Finish(bench.Job(bench.Picture("in.png", 300, 290), engine: Engine(16, scales: scales)));
        Assert.Equal(driver.Facts!.Grid.Count, driver.Report.Counts.Values.Sum());
        using ContainerReader container = ContainerReader.Open(driver.Job.Outputs.Container!, ImageLimits.Default);
        Assert.Equal(scales, container.Header.Scales.Scales);
    }
}

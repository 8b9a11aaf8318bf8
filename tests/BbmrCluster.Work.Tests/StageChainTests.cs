using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Work.Tests;

public sealed class StageChainTests
{
    public static TheoryData<int, int, int, int> Sizes => new()
    {
        { 1, 1, 3, 8 }, { 1, 5000, 3, 8 }, { 129, 1, 3, 8 }, { 300, 200, 1, 8 }, { 260, 131, 3, 16 }, { 300, 200, 4, 8 }, { 200, 300, 2, 16 }, { 128, 128, 3, 8 }, { 256, 384, 3, 8 },
    };

    [Theory]
    [MemberData(nameof(Sizes))]
    public void A_rescale_of_any_size_and_depth_gives_container_image_picture_and_report(int width, int height, int channels, int bitDepth)
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", width, height, channels, bitDepth);
        SequentialDriver driver = bench.Finish(bench.Job(source));

        OutputPaths outputs = driver.Job.Outputs;
        using (ContainerReader container = ContainerReader.Open(outputs.Container!, ImageLimits.Default))
        {
            Assert.Equal((width, height), (container.Header.Width, container.Header.Height));
            Assert.Empty(container.Verify());
            Assert.Equal(QualityKind.Measured, container.Quality!.Kind);
            Assert.Equal(driver.Report.PsnrY!.Value, container.Quality.Psnr(container.Header.Grid), 4);
        }
        PixelBuffer image = ImageFile.Load(outputs.Image!, ImageLimits.Default, bench.Scratch);
        Assert.Equal((width, height, channels, bitDepth), (image.Width, image.Height, image.Channels, image.BitDepth));
        Assert.True(new FileInfo(outputs.AllocationPicture!).Length > 0);

        JobReport report = driver.Report;
        PixelBuffer original = ImageFile.Load(source, ImageLimits.Default, bench.Scratch);
        ImageQuality quality = Metrics.Compare(original, image);
        Assert.Equal(quality.PsnrY, report.PsnrY!.Value, 9);
        Assert.Equal(quality.SsimY, report.SsimY);
        Assert.Equal(quality.Seam, report.Seam);
        Assert.Equal(report.PsnrY - report.PsnrYUniform, report.GainDb);
        Assert.Equal(driver.Facts!.Grid.Count, report.Blocks);
        Assert.Equal(report.Blocks, report.Counts.Values.Sum());
        Assert.True(report.RatePixels <= 1.0 / 16);
        Assert.Equal(8.0 * new FileInfo(outputs.Container!).Length / (width * height), report.BitsPerPixel);
        Assert.True(report.PeakMemoryBytes > 0);
        Assert.Equal(File.ReadAllText(outputs.Report), driver.ReportJson);
        if (channels is 2 or 4)
        {
            for (int i = channels - 1; i < width * height * channels; i += channels)
                Assert.Equal(Sample(original, i), Sample(image, i));
        }
        Assert.Equal(4, Directory.GetFiles(bench.Out).Length);
    }

    [Fact]
    public void Joined_strips_equal_the_reconstruction_of_the_whole_image_and_so_does_the_uniform_figure()
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 400, 450);
        SequentialDriver driver = bench.Finish(bench.Job(source));
        PixelBuffer original = ImageFile.Load(source, ImageLimits.Default, bench.Scratch), image = ImageFile.Load(driver.Job.Outputs.Image!, ImageLimits.Default, bench.Scratch);

        Assert.True(driver.Report.Counts["2"] > 0 && driver.Report.Counts["8"] > 0);
        Assert.Equal(Whole(original, driver.Scales!).Data, image.Data);
        PixelBuffer uniform = Whole(original, [.. driver.Scales!.Select(_ => (byte)1)]);
        Assert.Equal(Metrics.Compare(original, uniform).PsnrY, driver.Report.PsnrYUniform!.Value, 9);
        Assert.NotEqual(0, driver.Report.GainDb);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(5, 2)]
    [InlineData(64, 4)]
    public void Outputs_have_the_same_bytes_whatever_the_leases(int blocksPerScore, int stripsPerLease)
    {
        using Bench first = new(), second = new();
        ImageJob a = first.Job(first.Picture("in.png", 400, 450, 4)), b = second.Job(second.Picture("in.png", 400, 450, 4), id: "another-job");
        first.Finish(a);
        second.Finish(b, blocksPerScore, stripsPerLease);
        Assert.Equal(File.ReadAllBytes(a.Outputs.Container!), File.ReadAllBytes(b.Outputs.Container!));
        Assert.Equal(File.ReadAllBytes(a.Outputs.Image!), File.ReadAllBytes(b.Outputs.Image!));
        Assert.Equal(File.ReadAllBytes(a.Outputs.AllocationPicture!), File.ReadAllBytes(b.Outputs.AllocationPicture!));
    }

    [Theory]
    [InlineData(300, 200, 3, 8)]
    [InlineData(300, 290, 4, 8)]
    [InlineData(200, 300, 2, 16)]
    [InlineData(1, 1, 1, 8)]
    public void Upscaling_the_container_gives_the_bytes_of_the_rescaled_image(int width, int height, int channels, int bitDepth)
    {
        using var bench = new Bench();
        ImageJob rescale = bench.Job(bench.Picture("in.png", width, height, channels, bitDepth));
        bench.Finish(rescale);
        ImageJob upscale = bench.Job(rescale.Outputs.Container!, JobKind.Upscale, id: "up", outputs: Path.Combine(bench.Root, "up"));
        SequentialDriver driver = bench.Finish(upscale, stripsPerLease: 2);
        Assert.Equal(File.ReadAllBytes(rescale.Outputs.Image!), File.ReadAllBytes(upscale.Outputs.Image!));
        Assert.Null(driver.Report.PsnrY);
        Assert.Equal([Path.GetFileName(upscale.Outputs.Image), Path.GetFileName(upscale.Outputs.Report)], Directory.GetFiles(Path.Combine(bench.Root, "up")).Select(Path.GetFileName).Order());
    }

    [Fact]
    public void A_downscale_records_what_its_scorer_estimated_and_with_measure_what_the_reconstruction_gives()
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 300, 200);
        SequentialDriver estimated = bench.Finish(bench.Job(source, JobKind.Downscale, outputs: Path.Combine(bench.Root, "e")));
        SequentialDriver measured = bench.Finish(bench.Job(source, JobKind.Downscale, measure: true, id: "m", outputs: Path.Combine(bench.Root, "m")));
        SequentialDriver rescaled = bench.Finish(bench.Job(source, id: "r"));

        using ContainerReader e = ContainerReader.Open(estimated.Job.Outputs.Container!, ImageLimits.Default), m = ContainerReader.Open(measured.Job.Outputs.Container!, ImageLimits.Default);
        Assert.Equal(QualityKind.Estimated, e.Quality!.Kind);
        Assert.Equal(estimated.Scales!.Select((s, b) => (float)estimated.Sse![b, s]), e.Quality.Sse.Select(v => (float)v));
        Assert.Null(estimated.Report.PsnrY);
        Assert.NotNull(estimated.Report.PsnrYEstimated);
        Assert.Equal(QualityKind.Measured, m.Quality!.Kind);
        Assert.Equal(rescaled.Report.PsnrY, measured.Report.PsnrY);
        Assert.Null(measured.Report.PsnrYUniform);
        Assert.Equal(3, Directory.GetFiles(Path.Combine(bench.Root, "m")).Length);
        Assert.Equal(File.ReadAllBytes(measured.Job.Outputs.Container!), File.ReadAllBytes(rescaled.Job.Outputs.Container!));
    }

    [Fact]
    public void Metadata_is_carried_into_image_and_container_and_an_opaque_alpha_is_a_flag()
    {
        using var bench = new Bench();
        var metadata = new ImageMetadata(Icc: null, Exif: null, Xmp: "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"u8.ToArray(), Iptc: null, Orientation: 6, 10, 10);
        SequentialDriver driver = bench.Finish(bench.Job(bench.Picture("in.png", 150, 140, 4, metadata: metadata, opaque: true)));
        ImageInfo image = ImageFile.Probe(driver.Job.Outputs.Image!, ImageLimits.Default);
        Assert.Equal(6, image.Metadata.Orientation);
        Assert.Equal(metadata.Xmp, image.Metadata.Xmp);
        Assert.True(image.HasAlpha);
        using ContainerReader container = ContainerReader.Open(driver.Job.Outputs.Container!, ImageLimits.Default);
        Assert.Equal(AlphaKind.Opaque, container.Header.Alpha);
        Assert.Equal(6, container.Header.Metadata.Orientation);
        Assert.Equal(metadata.Xmp, container.Header.Metadata.Xmp);
        Assert.Equal("in.png", container.Header.Source.Name);
        Assert.Equal(driver.Facts!.SourceSha256, container.Header.Source.Sha256);
    }

    [Fact]
    public void A_flat_image_gains_nothing_exactly()
    {
        using var bench = new Bench();
        var flat = new PixelBuffer(256, 256, 3, 8);
        flat.Data.AsSpan().Fill(77);
        string source = Path.Combine(bench.Root, "flat.png");
        ImageEncoder.Encode(source, flat, ImageMetadata.None, EncodeOptions.Default);
        SequentialDriver driver = bench.Driver(bench.Job(source));
        driver.Ingest();
        driver.Score();
        driver.Scales = [1, 1, 1, 1];
        driver.Each(Stage.Pack);
        driver.Each(Stage.Reconstruct);
        driver.Lease(Stage.Finish);
        Assert.Equal(0, driver.Report.GainDb);
        Assert.All(driver.Strips.Values, strip => Assert.Equal((strip.Top, strip.Bottom), (strip.UniformTop, strip.UniformBottom)));
    }

    [Fact]
    public void Lossy_formats_are_read_back_and_keep_their_size()
    {
        using var bench = new Bench();
        SequentialDriver driver = bench.Finish(bench.Job(bench.Picture("in.png", 300, 200), format: "jpg"));
        Assert.Equal((300, 200), (ImageFile.Probe(driver.Job.Outputs.Image!, ImageLimits.Default).Width, 200));
        Assert.EndsWith(".jpg", driver.Job.Outputs.Image, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("webp", 3, 8)]
    [InlineData("webp", 4, 8)]
    [InlineData("webp", 1, 8)]
    [InlineData("tif", 1, 16)]
    [InlineData("tif", 4, 16)]
    [InlineData("avif", 3, 8)]
    public void Other_formats_are_written_and_verified(string format, int channels, int bitDepth)
    {
        using var bench = new Bench();
        SequentialDriver driver = bench.Finish(bench.Job(bench.Picture("in.png", 200, 150, channels, bitDepth), format: format));
        Assert.Equal(200, ImageFile.Probe(driver.Job.Outputs.Image!, ImageLimits.Default).Width);
    }

    [Fact]
    public void The_report_counts_device_calls_of_all_leases_by_stage_and_scale()
    {
        using var bench = new Bench();
        SequentialDriver driver = bench.Finish(bench.Job(bench.Picture("in.png", 400, 450)), blocksPerScore: 8);
        DeviceCallReport score = driver.Report.Device.Calls.Single(call => call is { Stage: "score", Scale: 4 });
        Assert.Equal((2, 16, 8.0), (score.Calls, score.Blocks, score.MeanBatch));
        Assert.Equal("dynamic programming", driver.Report.Allocation!.Method);
        Assert.InRange(driver.Report.Allocation.GapDb!.Value, 0, 3);
        Assert.Single(bench.Engines.Made);
    }

    [Fact]
    public void An_engine_is_replaced_when_the_settings_change_and_disposed_with_the_runner()
    {
        var bench = new Bench();
        string source = bench.Picture("in.png", 140, 20);
        bench.Finish(bench.Job(source));
        bench.Finish(bench.Job(source, id: "b", outputs: Path.Combine(bench.Root, "b"), engine: EngineSettings.Default with { Network = "fake2", Scorer = "bicubic" }));
        Assert.Equal(2, bench.Engines.Made.Count);
        Assert.True(bench.Engines.Made[0].Disposed);
        Assert.False(bench.Engines.Made[1].Disposed);
        bench.Dispose();
        Assert.True(bench.Engines.Made[1].Disposed);
    }

    [Theory]
    [InlineData(double.NaN)]
    [InlineData(0)]
    public void A_block_without_scores_is_estimated_from_what_is_stored(double placeholder)
    {
        using var bench = new Bench();
        SequentialDriver driver = bench.Driver(bench.Job(bench.Picture("in.png", 256, 128), JobKind.Downscale));
        driver.Ingest();
        driver.Score();
        driver.Scales = [1, 2];
        double known = driver.Sse![1, 2];
        driver.Sse[1, 2] = placeholder;
        driver.Quarantined.Add(1);
        driver.Each(Stage.Pack);
        driver.Lease(Stage.Finish);
        driver.Lease(Stage.Commit);
        using ContainerReader container = ContainerReader.Open(driver.Job.Outputs.Container!, ImageLimits.Default);
        // The fake scorer is the bicubic round trip itself.
        Assert.Equal(known, container.Quality!.Sse[1], known * 1e-6);
        Assert.Null(driver.Report.PsnrYEstimated);
        Assert.Equal([1], driver.Report.QuarantinedBlocks);
    }

    private static int Sample(PixelBuffer pixels, int index) => pixels.BitDepth == 8 ? pixels.Data[index] : pixels.Samples16[index];

    private static PixelBuffer Whole(PixelBuffer original, byte[] scaleIndex)
    {
        var grid = new BlockGrid(original.Width, original.Height);
        using var engine = new FakeEngine();
        var batches = new List<BlockBatch>();
        for (int s = 0; s < 3; s++)
        {
            int[] blocks = [.. Enumerable.Range(0, grid.Count).Where(b => scaleIndex[b] == s)];
            var hr = new BlockBatch(blocks.Length, 128, original.BitDepth);
            for (int i = 0; i < blocks.Length; i++)
            {
                for (int y = 0; y < 128; y++)
                {
                    for (int x = 0; x < 128; x++)
                    {
                        for (int c = 0; c < 3; c++)
                        {
                            int fromY = Math.Min(original.Height - 1, (blocks[i] / grid.Columns * 128) + y), fromX = Math.Min(original.Width - 1, (blocks[i] % grid.Columns * 128) + x);
                            hr.Block(i)[(((y * 128) + x) * 3) + c] = original.Data[(((fromY * original.Width) + fromX) * 3) + c];
                        }
                    }
                }
            }
            batches.Add(engine.Downscale(hr, ScaleSet.Default[s]));
        }
        ushort[] rows = FakeEngine.Whole(new LrStrips(grid.Columns, grid.Strips, ScaleSet.Default, scaleIndex, batches));
        var image = new PixelBuffer(original.Width, original.Height, 3, 8);
        for (int y = 0; y < image.Height; y++)
        {
            for (int i = 0; i < image.Width * 3; i++)
                image.Data[(y * image.Width * 3) + i] = (byte)rows[(y * grid.Columns * 128 * 3) + i];
        }
        return image;
    }
}

using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Work.Tests;

/// <summary>Whole jobs over pictures of odd kinds.</summary>
public sealed class PictureTests : IDisposable
{
    private readonly Bench _bench = new();

    public void Dispose() => _bench.Dispose();

    [Fact]
    public void An_oddity_of_the_source_is_a_note_in_report_and_container()
    {
        string source = _bench.Picture("in.jpg", 200, 150);
        File.WriteAllBytes(source, File.ReadAllBytes(source)[..^2]);
        ImageJob job = Finished(_bench.Job(source));
        Assert.Contains("end marker", Assert.Single(ReportOf(job).Notes), StringComparison.Ordinal);
        using var container = ContainerReader.Open(job.Outputs.Container!, ImageLimits.Default);
        Assert.Equal(ReportOf(job).Notes, container.Header.Metadata.Notes);
    }

    [Fact]
    public void A_container_with_a_profile_that_no_writer_takes_is_restored_without_it()
    {
        ImageJob job = Finished(_bench.Job(_bench.Picture("in.png", 200, 150)));
        string container = Path.Combine(_bench.Root, "old.bbmr");
        using (var reader = ContainerReader.Open(job.Outputs.Container!, ImageLimits.Default))
        {
            ContainerHeader header = reader.Header with { Metadata = reader.Header.Metadata with { Icc = new byte[588] } };
            ContainerWriter.Write(container, header, reader.ScaleIndex, reader.Quality!, Enumerable.Range(0, reader.StripCount).Select(strip => (ReadOnlyMemory<byte>)reader.ReadStrip(strip)));
        }
        ImageJob upscale = Finished(_bench.Job(container, JobKind.Upscale));
        Assert.Contains("ICC profile", Assert.Single(ReportOf(upscale).Notes), StringComparison.Ordinal);
        Assert.Equal(ImageFile.Load(job.Outputs.Image!, ImageLimits.Default, _bench.Root).Data, ImageFile.Load(upscale.Outputs.Image!, ImageLimits.Default, _bench.Root).Data);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void A_grey_image_goes_through_a_downscaler_that_makes_its_channels_differ(int channels)
    {
        _bench.Engines.Tints = true;
        ImageJob job = Finished(_bench.Job(_bench.Picture("in.png", 300, 200, channels)));
        Assert.True(ReportOf(job).PsnrY > 10);
        using var container = ContainerReader.Open(job.Outputs.Container!, ImageLimits.Default);
        Assert.Equal(1, container.Header.ColourChannels);
    }

    [Theory]
    [InlineData("webp", 4)]
    [InlineData("webp", 2)]
    [InlineData("webp", 1)]
    [InlineData("avif", 4)]
    [InlineData("avif", 1)]
    public void An_image_whose_alpha_is_opaque_or_that_is_grey_can_be_written_in_formats_that_drop_that(string format, int channels)
    {
        ImageJob job = Finished(_bench.Job(_bench.Picture("in.png", 200, 150, channels, opaque: true), format: format));
        Assert.Null(ReportOf(job).PsnrYFile);
        Assert.Empty(ReportOf(job).Notes);
    }

    [Fact]
    public void The_file_of_a_format_that_loses_some_is_measured_too()
    {
        ImageJob job = Finished(_bench.Job(_bench.Picture("in.png", 200, 150), format: "jpg"));
        JobReport report = ReportOf(job);
        PixelBuffer source = ImageFile.Load(job.Source, ImageLimits.Default, _bench.Root), made = ImageFile.Load(job.Outputs.Image!, ImageLimits.Default, _bench.Root);
        Assert.Equal(Metrics.Compare(source, made).PsnrY, report.PsnrYFile!.Value, 1e-9);
        Assert.NotEqual(report.PsnrY, report.PsnrYFile);
        Assert.Contains("before the picture was coded", Assert.Single(report.Notes), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("png")]
    [InlineData("tiff")]
    [InlineData("webp")]
    [InlineData("jpg")]
    [InlineData("avif")]
    public void A_restored_picture_is_known_without_its_report(string format)
    {
        string folder = Path.Combine(_bench.Root, "archive");
        Directory.CreateDirectory(folder);
        File.Move(_bench.Picture("in.bmp.png", 200, 150), Path.Combine(folder, "a.gif"));
        string source = Path.Combine(folder, "a.gif");
        ImageJob job = Finished(_bench.Job(source, format: format, outputs: folder));
        File.Delete(job.Outputs.Report);
        File.Move(job.Outputs.AllocationPicture!, Path.Combine(folder, "picture.png"));
        OutputPlan plan = OutputNaming.Plan([folder], folder, JobKind.Rescale, format, recursive: false);
        Assert.Equal([source], plan.Images.Select(image => image.Source));
        Assert.Equal(2, plan.PassedOver.Count(file => file.Made));
    }

    private ImageJob Finished(ImageJob job)
    {
        _bench.Finish(job);
        return job;
    }

    private static JobReport ReportOf(ImageJob job) => JobReport.Load(job.Outputs.Report, out _)!;
}

using BbmrCluster.Actors.Protocol;
using BbmrCluster.Imaging;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Node;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;
using BbmrCluster.Work;

namespace BbmrCluster.Tests;

/// <summary>The embedded node in this process: real actors, journal and stages; the bicubic scorer and a container job need no weights.</summary>
public sealed class EmbeddedNodeTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("bbmr-node-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task A_run_tells_every_image_from_start_to_outcome_and_leaves_no_work_behind()
    {
        ImageJob job = Downscale(Picture("small.png", 200, 150));
        string work = Path.Combine(_folder, "work");
        var told = new List<JobNotification>();
        await using (EmbeddedNode node = await EmbeddedNode.StartAsync(new EmbeddedNodeOptions(work), new EngineFactory()))
        {
            await foreach (JobNotification one in node.RunAsync([job], CancellationToken.None))
                told.Add(one);
        }

        Assert.IsType<JobNotification.ImageStarted>(told[0]);
        Assert.Contains(told, one => one is JobNotification.ImageProgressed);
        Assert.IsType<ImageOutcome.Done>(Assert.Single(told.OfType<JobNotification.ImageFinished>()).Outcome);
        Assert.IsType<JobNotification.ArchiveFinished>(told[^1]);
        using (ContainerReader container = ContainerReader.Open(job.Outputs.Container!, ImageLimits.Default))
            Assert.Equal((200, 150, 4), (container.Header.Width, container.Header.Height, container.ScaleIndex.Length));
        Assert.False(Directory.Exists(work), "the work directory of a settled run is removed");
    }

    [Fact]
    public async Task A_bad_image_fails_alone()
    {
        string text = Path.Combine(_folder, "text.png");
        await File.WriteAllTextAsync(text, "no picture");
        var outcomes = new List<ImageOutcome>();
        await using EmbeddedNode node = await EmbeddedNode.StartAsync(new EmbeddedNodeOptions(Path.Combine(_folder, "work")), new EngineFactory());
        await foreach (JobNotification one in node.RunAsync([Downscale(text), Downscale(Picture("good.png", 130, 20))], CancellationToken.None))
        {
            if (one is JobNotification.ImageFinished finished)
                outcomes.Add(finished.Outcome);
        }

        Assert.Contains("text.png", Assert.Single(outcomes.OfType<ImageOutcome.Failed>()).Message, StringComparison.Ordinal);
        Assert.Single(outcomes.OfType<ImageOutcome.Done>());
    }

    [Fact]
    public async Task One_work_directory_serves_one_node()
    {
        var options = new EmbeddedNodeOptions(Path.Combine(_folder, "work"));
        await using EmbeddedNode first = await EmbeddedNode.StartAsync(options, new EngineFactory());
        await Assert.ThrowsAsync<WorkDirectoryException>(() => EmbeddedNode.StartAsync(options, new EngineFactory()));
    }

    [Fact]
    public void The_checks_of_a_disk_leave_nothing_on_it()
    {
        string missing = Path.Combine(_folder, "not", "there", "yet");
        Assert.True(NodeChecks.FreeBytes(missing) > 0);
        Assert.Matches(@"^3\.\d+", NodeChecks.TryDatabase(missing));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder));
    }

    private string Picture(string name, int width, int height)
    {
        var pixels = new PixelBuffer(width, height, 3, 8);
        for (int i = 0; i < pixels.Data.Length; i++)
            pixels.Data[i] = (byte)(i * 31 % 251);
        string path = Path.Combine(_folder, name);
        ImageEncoder.Encode(path, pixels, ImageMetadata.None, EncodeOptions.Default);
        return path;
    }

    private ImageJob Downscale(string source)
    {
        PlannedImage planned = Assert.Single(OutputNaming.Plan([source], Path.Combine(_folder, "out"), JobKind.Downscale, "png", recursive: false).Images);
        Directory.CreateDirectory(Path.Combine(_folder, "out"));
        var parameters = new JobParameters { Kind = JobKind.Downscale, Engine = EngineSettings.Default with { Scorer = "bicubic", Precision = "float32" } };
        return ImageJob.Of(planned, new EngineFactory().Pin(parameters.Validated()));
    }
}

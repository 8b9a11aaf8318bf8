using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using BbmrCluster.Work.Tests;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>The stages under the real actors, with the engine that has no network.</summary>
public sealed class EmbeddedRunTests
{
    [Fact]
    public async Task The_actors_make_the_same_files_as_one_lease_after_the_other_and_go_on_past_a_bad_file()
    {
        using Bench bench = new(), reference = new();
        string text = Path.Combine(bench.Root, "text.png");
        await File.WriteAllTextAsync(text, "no picture");
        string[] sources = [bench.Picture("a.png", 400, 450), text, bench.Picture("b.png", 140, 300, 4, 16)];
        ImageJob[] jobs = [.. sources.Select(source => Identified(bench.Job(source)))];
        var outcomes = await RunAsync(bench, jobs, bench.Runner);

        Assert.Equal("refused", Assert.IsType<ImageOutcome.Failed>(outcomes[jobs[1].Id]).Code);
        foreach (int i in new[] { 0, 2 })
        {
            var done = Assert.IsType<ImageOutcome.Done>(outcomes[jobs[i].Id]);
            Assert.Equal(await File.ReadAllTextAsync(jobs[i].Outputs.Report), done.ReportJson);
            AssertSameFiles(reference, jobs[i]);
        }
        Assert.Equal(8, Directory.GetFileSystemEntries(bench.Out).Length);
        Assert.Equal(0, bench.Store.Room.Used);

        var again = await RunAsync(bench, jobs, bench.Runner);
        Assert.IsType<ImageOutcome.Skipped>(again[jobs[0].Id]);
        Assert.IsType<ImageOutcome.Skipped>(again[jobs[2].Id]);
    }

    [Theory]
    [InlineData(Stage.Score, "raw")]
    [InlineData(Stage.Reconstruct, "packed")]
    [InlineData(Stage.Finish, "metadata")]
    [InlineData(Stage.Finish, "raw")]
    [InlineData(Stage.Finish, "bottom")]
    [InlineData(Stage.Finish, "rows")]
    public async Task A_blob_that_is_lost_before_its_reader_comes_is_made_again(Stage before, string label)
    {
        using Bench bench = new(), reference = new();
        ImageJob job = Identified(bench.Job(bench.Picture("a.png", 300, 450, metadata: new(null, null, "<x/>"u8.ToArray(), null, 6, 0, 0))));
        var outcomes = await RunAsync(bench, [job], new Vandal(bench, before, label));
        Assert.IsType<ImageOutcome.Done>(outcomes[job.Id]);
        AssertSameFiles(reference, job);
    }

    [Fact]
    public async Task Prepared_outputs_that_vanish_before_the_commit_are_made_again()
    {
        using Bench bench = new(), reference = new();
        ImageJob job = Identified(bench.Job(bench.Picture("a.png", 300, 450)));
        var outcomes = await RunAsync(bench, [job], new Vandal(bench, Stage.Commit, ".bbmr-"));
        Assert.IsType<ImageOutcome.Done>(outcomes[job.Id]);
        AssertSameFiles(reference, job);
        Assert.Equal(4, Directory.GetFileSystemEntries(bench.Out).Length);
    }

    private static ImageJob Identified(ImageJob job) => job with { Id = JobIdentity.Of(job) };

    private static void AssertSameFiles(Bench reference, ImageJob job)
    {
        ImageJob other = reference.Job(job.Source);
        if (!File.Exists(other.Outputs.Report))
            reference.Finish(other);
        Assert.Equal(File.ReadAllBytes(other.Outputs.Container!), File.ReadAllBytes(job.Outputs.Container!));
        Assert.Equal(File.ReadAllBytes(other.Outputs.Image!), File.ReadAllBytes(job.Outputs.Image!));
        Assert.Equal(File.ReadAllBytes(other.Outputs.AllocationPicture!), File.ReadAllBytes(job.Outputs.AllocationPicture!));
    }

    private static async Task<Dictionary<ImageId, ImageOutcome>> RunAsync(Bench bench, IReadOnlyList<ImageJob> jobs, IStageRunner runner)
    {
        string journal = Path.Combine(bench.Root, $"journal-{Guid.NewGuid():n}.db");
        var settings = new CoordinationSettings { OpenImages = 1 };
        using IHost host = new HostBuilder().ConfigureServices(services => services
            .AddBbmrEmbedded(new EmbeddedOptions(journal, [new DeviceSlot("device-0", () => runner)], Allocators.Parse, settings, new ImageBlobs(bench.Store)))).Build();
        await host.StartAsync();
        var outcomes = new Dictionary<ImageId, ImageOutcome>();
        await using (ArchiveRun run = await host.Services.GetRequiredService<BbmrClient>().SubmitAsync(new ArchiveSpec(jobs)))
        {
            await foreach (JobNotification notification in run.Notifications)
            {
                if (notification is JobNotification.ImageFinished finished)
                    outcomes[finished.ImageId] = finished.Outcome;
            }
        }
        await host.StopAsync();
        return outcomes;
    }

    /// <summary>Deletes files of one kind before the first lease of a stage.</summary>
    private sealed class Vandal(Bench bench, Stage before, string label) : IStageRunner
    {
        private bool _done;

        public DeviceCounts Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation)
        {
            if (work.Stage == before && !_done)
            {
                _done = true;
                string[] files = Directory.GetFiles(bench.Root, $"{label}*", SearchOption.AllDirectories);
                Assert.NotEmpty(files);
                File.Delete(files.Order(StringComparer.Ordinal).First());
            }
            return bench.Runner.Run(work, report, cancellation);
        }

        public void Dispose()
        {
        }
    }
}

using System.Runtime.CompilerServices;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace BbmrCluster.Node;

/// <summary>What an embedded node is told.</summary>
/// <param name="WorkDirectory">Journal and intermediate files; see <see cref="WorkDirectory"/>.</param>
/// <param name="MaxWork">Most bytes of intermediate files; null takes half of the free space.</param>
/// <param name="Log">Takes warnings of the actor system, one line each; null drops them.</param>
public sealed record EmbeddedNodeOptions(string WorkDirectory, long? MaxWork = null, Action<string>? Log = null);

/// <summary>
/// Coordinators, broker and one worker in this process, without a port: what a local run of the command line uses. The
/// registrations are those of a cluster in local mode. One device executor uses all threads: libtorch spreads each
/// operation over the cores, which keeps batches whole and memory at one set of weights.
/// </summary>
public sealed class EmbeddedNode : IAsyncDisposable
{
    private readonly WorkDirectory _work;
    private readonly IHost _host;
    private bool _settled;

    private EmbeddedNode(WorkDirectory work, IHost host) => (_work, _host) = (work, host);

    /// <summary>Takes the work directory and starts.</summary>
    /// <param name="options">Options.</param>
    /// <param name="engines">Makes the engine on the device's own thread.</param>
    /// <exception cref="WorkDirectoryException">The work directory is in use or cannot be used.</exception>
    /// <exception cref="FormatException">BBMR_FAULT_STOP_AT names no stage.</exception>
    public static async Task<EmbeddedNode> StartAsync(EmbeddedNodeOptions options, IEngineFactory engines)
    {
        StandStill? fault = StandStill.FromEnvironment();
        WorkDirectory work = WorkDirectory.Open(options.WorkDirectory);
        try
        {
            VipsRuntime.UseTemporaryDirectory(work.Temporary);
            var blobs = new DirectoryBlobStore(work.Blobs, new DirectoryBlobStoreOptions(options.MaxWork));
            var settings = new CoordinationSettings { OpenImages = 1, MostOpenImages = 1 };
            var device = new DeviceSlot("device-0", () =>
            {
                var runner = new StageRunner(engines, blobs, new StageRunnerOptions(work.Temporary));
                return fault is null ? runner : new StandStillRunner(runner, fault);
            });
            IHost host = new HostBuilder()
                .ConfigureLogging(logging =>
                {
                    logging.SetMinimumLevel(LogLevel.Warning);
                    if (options.Log is not null)
                        logging.AddProvider(new LineLoggerProvider(options.Log));
                })
                .ConfigureServices(services => services
                    // Signals are the command line's business.
                    .AddSingleton<IHostLifetime, NoLifetime>()
                    .AddBbmrEmbedded(new EmbeddedOptions(work.Journal, [device], Allocators.Parse, settings, new ImageBlobs(blobs))))
                .Build();
            await host.StartAsync();
            return new EmbeddedNode(work, host);
        }
        catch
        {
            work.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Works on an archive and tells what happens until every image is closed, or until <paramref name="stop"/>: then
    /// leases are taken back, the journal is brought up to date, and the images left say <see cref="ImageOutcome.Interrupted"/>.
    /// </summary>
    /// <param name="jobs">At least one; each once.</param>
    /// <param name="stop">Ends the work in order; enumeration goes on to the last notification.</param>
    /// <exception cref="WorkDirectoryException">The journal is damaged.</exception>
    public async IAsyncEnumerable<JobNotification> RunAsync(IReadOnlyList<ImageJob> jobs, [EnumeratorCancellation] CancellationToken stop)
    {
        // Results that are there need no journal: a second run over a large folder is through with them at once.
        var left = new List<ImageJob>();
        foreach (ImageJob job in jobs)
        {
            if (!stop.IsCancellationRequested && FinishedImage.ReportOf(job, stop) is { } report)
                yield return new JobNotification.ImageFinished(job.Id, new ImageOutcome.Skipped(report));
            else
                left.Add(job);
        }
        int skipped = jobs.Count - left.Count;
        if (left.Count == 0)
        {
            _settled = true;
            yield return new JobNotification.ArchiveFinished(new ArchiveSpec(jobs).Id, new ArchiveSummary(0, skipped, 0, 0));
            yield break;
        }
        BbmrClient client = _host.Services.GetRequiredService<BbmrClient>();
        await using ArchiveRun run = await Readable(() => client.SubmitAsync(new ArchiveSpec(left)));
        await using CancellationTokenRegistration registration = stop.Register(() => _ = run.StopAsync(CancellationToken.None));
        await using IAsyncEnumerator<JobNotification> notifications = run.Notifications.GetAsyncEnumerator(CancellationToken.None);
        while (await Readable(() => notifications.MoveNextAsync().AsTask()))
        {
            JobNotification notification = notifications.Current;
            if (notification is JobNotification.ArchiveFinished finished)
            {
                _settled = finished.Summary.Interrupted == 0;
                notification = finished with { Summary = finished.Summary with { Skipped = finished.Summary.Skipped + skipped } };
            }
            yield return notification;
        }
    }

    private async Task<T> Readable<T>(Func<Task<T>> call)
    {
        try
        {
            return await call();
        }
        catch (JournalUnreadableException error)
        {
            throw SqliteJournal.Damaged(_work.Journal, error);
        }
    }

    /// <summary>Stops the actor system; removes the work directory's content when every image of the run is settled.</summary>
    public async ValueTask DisposeAsync()
    {
        await _host.StopAsync();
        _host.Dispose();
        _work.Close(unfinished: !_settled);
    }

    private sealed class NoLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}

using System.IO.Hashing;
using System.Runtime.InteropServices;
using System.Threading.Channels;
using Akka.Actor;
using Akka.Hosting;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Client;

/// <summary>A job over one or many images. Equal images in equal order are the same archive, unless it is given an id.</summary>
public sealed class ArchiveSpec
{
    /// <summary>Derives the archive's id from its images unless one is given.</summary>
    /// <param name="images">At least one; ids as of <see cref="JobIdentity"/>. Read once here and then page by page as it is submitted: a query that makes them holds none of them.</param>
    /// <param name="policy">What is asked of the coordination.</param>
    /// <param name="name">For people.</param>
    /// <param name="id">The submitter's own key: another list of images under the same id is refused.</param>
    /// <exception cref="ArgumentException">No image, or two with one id.</exception>
    public ArchiveSpec(IEnumerable<ImageJob> images, WorkPolicy? policy = null, string name = "", ArchiveId? id = null)
    {
        // Of a hundred thousand ids the texts would be most of what a submission takes.
        var ids = new HashSet<UInt128>();
        var different = images.Select(image => ids.Add(XxHash128.HashToUInt128(MemoryMarshal.AsBytes(image.Id.Value.AsSpan()))) ? image.Id
            : throw new ArgumentException("An image appears twice in the archive.", nameof(images)));
        (Images, Policy, Name, Digest) = (images, policy?.Validate() ?? new WorkPolicy(), name, ArchiveId.Of(different).Value);
        Count = ids.Count > 0 ? ids.Count : throw new ArgumentException("An archive has at least one image.", nameof(images));
        Id = id ?? new ArchiveId(Digest);
    }

    /// <summary>Identity.</summary>
    public ArchiveId Id { get; }

    /// <summary>For people; may be empty.</summary>
    public string Name { get; }

    /// <summary>The images, in the order they are opened.</summary>
    public IEnumerable<ImageJob> Images { get; }

    /// <summary>How many they are.</summary>
    public int Count { get; }

    /// <summary>What is asked of the coordination.</summary>
    public WorkPolicy Policy { get; }

    internal string Digest { get; }
}

/// <summary>A submission or an operator's command cannot be carried out; the message is one sentence.</summary>
/// <param name="reason">Why.</param>
/// <param name="isOther">Another archive bears the id.</param>
public sealed class ArchiveRefusedException(string reason, bool isOther = false) : Exception(reason)
{
    /// <summary>Whether another archive bears the id.</summary>
    public bool IsOther => isOther;
}

/// <summary>Submits archives, tells what becomes of them and carries operators' wishes. Thread-safe; the same in embedded and cluster mode.</summary>
public sealed class BbmrClient
{
    private const int ListPage = 100;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(15);

    private readonly ActorSystem _system;
    private readonly IActorRegistry _registry;
    private readonly CoordinationSettings _settings;

    /// <summary>Made by the hosting extensions.</summary>
    public BbmrClient(ActorSystem system, IActorRegistry registry, CoordinationSettings settings) =>
        (_system, _registry, _settings) = (system, registry, settings);

    /// <summary>
    /// Submits an archive. One that is known is taken up again: unfinished images go on where the journal says,
    /// closed ones are asked again (outputs that are still there make them skipped).
    /// </summary>
    /// <param name="spec">What to do.</param>
    /// <param name="silence">Give up when nothing was answered for so long, e.g. since the database is away; null to wait for as long as it takes. The same submission again goes on with it.</param>
    /// <param name="cancellation">Ends waiting.</param>
    /// <returns>The run, once the journal holds the submission.</returns>
    /// <exception cref="ArchiveRefusedException">Another archive bears the id.</exception>
    /// <exception cref="TimeoutException">Nothing was answered.</exception>
    public Task<ArchiveRun> SubmitAsync(ArchiveSpec spec, TimeSpan? silence = null, CancellationToken cancellation = default) => SubmitAsync(spec, once: false, silence, cancellation);

    /// <summary>Submits an archive unless it is known already: then it stays as it is, whether it goes on, is paused or has ended.</summary>
    /// <inheritdoc cref="SubmitAsync(ArchiveSpec, TimeSpan?, CancellationToken)"/>
    public async Task SubmitOnceAsync(ArchiveSpec spec, TimeSpan? silence = null, CancellationToken cancellation = default)
    {
        await using var run = await SubmitAsync(spec, once: true, silence, cancellation);
    }

    private async Task<ArchiveRun> SubmitAsync(ArchiveSpec spec, bool once, TimeSpan? silence, CancellationToken cancellation)
    {
        var archives = await _registry.GetAsync<ArchiveCoordinatorKey>(cancellation);
        var run = new ArchiveRun(spec.Id);
        run.Actor = _system.ActorOf(Props.Create(() => new ArchiveRunActor(spec, run, archives, _settings, once)));
        try
        {
            long heard = 0;
            while (silence is { } most && await Task.WhenAny(run.Accepted, Task.Delay(most, cancellation)) != run.Accepted)
            {
                cancellation.ThrowIfCancellationRequested();
                if (heard == run.Heard)
                    throw new TimeoutException("Nobody answers the submission.");
                heard = run.Heard;
            }
            await run.Accepted.WaitAsync(cancellation);
            return run;
        }
        catch
        {
            await run.DisposeAsync();
            throw;
        }
    }

    /// <summary>Notifications of an archive that was submitted elsewhere, from now on; null when there is none. Disposing ends watching.</summary>
    public async Task<ArchiveRun?> WatchAsync(ArchiveId id, CancellationToken cancellation = default)
    {
        var archives = await _registry.GetAsync<ArchiveCoordinatorKey>(cancellation);
        if (await ItemsAsync(id, 0, 1, null, cancellation) is null)
            return null;
        var run = new ArchiveRun(id);
        run.Actor = _system.ActorOf(Props.Create(() => new ArchiveWatchActor(run, archives, _settings)));
        return run;
    }

    /// <summary>All archives, the latest submission first. Wakes none of them.</summary>
    public async Task<IReadOnlyList<ArchiveOverview>> ListAsync(CancellationToken cancellation = default)
    {
        var index = await _registry.GetAsync<ArchiveIndexKey>(cancellation);
        var all = new List<ArchiveOverview>();
        while (true)
        {
            var some = await index.Ask<IndexMessages.Archives>(new IndexMessages.ListArchives(all.Count, ListPage), Patience, cancellation);
            all.AddRange(some.Items);
            if (some.Items.Count < ListPage)
                return [.. all.DistinctBy(one => one.Id)];
        }
    }

    /// <summary>One archive; null when there is none. Does not wake it.</summary>
    public async Task<ArchiveOverview?> FindAsync(ArchiveId id, CancellationToken cancellation = default)
    {
        var index = await _registry.GetAsync<ArchiveIndexKey>(cancellation);
        var found = await index.Ask<IndexMessages.Archives>(new IndexMessages.FindArchive(id), Patience, cancellation);
        return found.Items.Count == 0 ? null : found.Items[0];
    }

    /// <summary>Images of an archive with their outcomes, in order; null when there is no such archive.</summary>
    /// <param name="id">The archive.</param>
    /// <param name="from">Place of the first.</param>
    /// <param name="count">At most so many.</param>
    /// <param name="state">Only these; null for all.</param>
    /// <param name="cancellation">Ends waiting.</param>
    public async Task<IReadOnlyList<ArchiveItem>?> ItemsAsync(ArchiveId id, int from, int count, ItemState? state = null, CancellationToken cancellation = default)
    {
        var archives = await _registry.GetAsync<ArchiveCoordinatorKey>(cancellation);
        var found = new List<ArchiveItem>();
        int? next = from;
        while (next is { } place && found.Count < count)
        {
            var some = await archives.Ask<ArchiveReplies.ItemsListed>(
                new ArchiveCommands.ListItems(id, place, Math.Min(ListPage, count - found.Count), state), Patience, cancellation);
            if (!some.Known)
                return null;
            found.AddRange(some.Items);
            // A page that is being put away is there again in a moment.
            if (some.Next == place && some.Items.Count == 0)
                await Task.Delay(TimeSpan.FromMilliseconds(50), cancellation);
            next = some.Next;
        }
        return found;
    }

    /// <summary>Takes back all leases of an archive and grants none until it is resumed.</summary>
    /// <returns>False when there is no such archive.</returns>
    /// <exception cref="ArchiveRefusedException">It is finished or cancelled.</exception>
    public Task<bool> PauseAsync(ArchiveId id, CancellationToken cancellation = default) => ControlAsync(id, ArchiveControl.Pause, cancellation);

    /// <summary>Goes on with an archive that was paused.</summary>
    /// <returns>False when there is no such archive.</returns>
    /// <exception cref="ArchiveRefusedException">It is cancelled.</exception>
    public Task<bool> ResumeAsync(ArchiveId id, CancellationToken cancellation = default) => ControlAsync(id, ArchiveControl.Resume, cancellation);

    /// <summary>Ends an archive: leases are taken back, intermediate results deleted. Images that are done stay.</summary>
    /// <returns>False when there is no such archive.</returns>
    /// <exception cref="ArchiveRefusedException">It is finished.</exception>
    public Task<bool> CancelAsync(ArchiveId id, CancellationToken cancellation = default) => ControlAsync(id, ArchiveControl.Cancel, cancellation);

    /// <summary>Tries the failed images of an archive again; one that was cancelled goes on.</summary>
    /// <returns>False when there is no such archive.</returns>
    /// <exception cref="ArchiveRefusedException">Its images are still coming in.</exception>
    public Task<bool> RetryAsync(ArchiveId id, CancellationToken cancellation = default) => ControlAsync(id, ArchiveControl.Retry, cancellation);

    /// <summary>All workers with the leases they hold, by id.</summary>
    public async Task<IReadOnlyList<WorkerOverview>> WorkersAsync(CancellationToken cancellation = default)
    {
        var broker = await _registry.GetAsync<WorkBrokerKey>(cancellation);
        var all = new List<WorkerOverview>();
        while (true)
        {
            var some = await broker.Ask<BrokerCommands.Workers>(new BrokerCommands.ListWorkers(all.Count), Patience, cancellation);
            all.AddRange(some.Items);
            if (some.Items.Count == 0)
                return [.. all.DistinctBy(one => one.Id)];
        }
    }

    /// <summary>A worker gets no more leases: it finishes what its devices have begun, returns the rest and is then <see cref="WorkerPhase.Drained"/>.</summary>
    /// <returns>Null when there is no such worker.</returns>
    public Task<WorkerOverview?> DrainAsync(WorkerId id, CancellationToken cancellation = default) => ManageAsync(new BrokerCommands.DrainWorker(id), cancellation);

    /// <summary>A worker that was drained gets leases again.</summary>
    /// <returns>Null when there is no such worker.</returns>
    public Task<WorkerOverview?> UndrainAsync(WorkerId id, CancellationToken cancellation = default) => ManageAsync(new BrokerCommands.UndrainWorker(id), cancellation);

    private async Task<WorkerOverview?> ManageAsync(object command, CancellationToken cancellation)
    {
        var broker = await _registry.GetAsync<WorkBrokerKey>(cancellation);
        var answer = await broker.Ask<BrokerCommands.Workers>(command, Patience, cancellation);
        return answer.Items.Count == 0 ? null : answer.Items[0];
    }

    private async Task<bool> ControlAsync(ArchiveId id, ArchiveControl control, CancellationToken cancellation)
    {
        var archives = await _registry.GetAsync<ArchiveCoordinatorKey>(cancellation);
        var answer = await archives.Ask<ArchiveReplies.ControlAnswered>(new ArchiveCommands.ControlArchive(id, control), Patience, cancellation);
        return answer.Refusal is { } reason ? throw new ArchiveRefusedException($"the job {id} cannot be changed: {reason}") : answer.Known;
    }
}

/// <summary>The journal of this process cannot be read back or refuses an entry; nothing goes on until it is mended or removed.</summary>
/// <param name="entity">Whose entries they are.</param>
/// <param name="reason">How it was noticed.</param>
public sealed class JournalUnreadableException(string entity, Exception reason) : Exception($"the journal of {entity} cannot be used: {reason.Message}", reason);

/// <summary>One submission of an archive. Disposing ends watching, not the work; <see cref="StopAsync"/> ends the work.</summary>
public sealed class ArchiveRun : IAsyncDisposable
{
    private readonly TaskCompletionSource _accepted = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<ArchiveSummary> _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Channel<JobNotification> _notifications = Channel.CreateUnbounded<JobNotification>(new UnboundedChannelOptions { SingleWriter = true });

    private long _heard;

    internal ArchiveRun(ArchiveId id) => Id = id;

    /// <summary>The archive.</summary>
    public ArchiveId Id { get; }

    /// <summary>
    /// What happens, in order; ends after <see cref="JobNotification.ArchiveFinished"/>, or with a
    /// <see cref="JournalUnreadableException"/>. For one reader.
    /// </summary>
    public IAsyncEnumerable<JobNotification> Notifications => _notifications.Reader.ReadAllAsync();

    /// <summary>Completes when every image is closed or the run is stopped.</summary>
    public Task<ArchiveSummary> Completion => _completion.Task;

    internal Task Accepted => _accepted.Task;

    /// <summary>Answers to its submission so far.</summary>
    internal long Heard => Interlocked.Read(ref _heard);

    internal IActorRef Actor { get; set; } = ActorRefs.Nobody;

    /// <summary>
    /// Takes all leases back and waits until devices are idle and the journal holds what was finished. Nothing is lost:
    /// the same archive submitted again goes on from there.
    /// </summary>
    public async Task<ArchiveSummary> StopAsync(CancellationToken cancellation = default)
    {
        Actor.Tell(ArchiveRunActor.Stop.Instance);
        return await Completion.WaitAsync(cancellation);
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync()
    {
        Actor.Tell(StopWhenWritten.Instance);
        return ValueTask.CompletedTask;
    }

    internal void SetHeard() => Interlocked.Increment(ref _heard);

    internal void SetAccepted() => _accepted.TrySetResult();

    internal void Publish(JobNotification notification)
    {
        _notifications.Writer.TryWrite(notification);
        if (notification is JobNotification.ArchiveFinished finished)
            _completion.TrySetResult(finished.Summary);
    }

    internal void Fail(Exception error)
    {
        _notifications.Writer.TryComplete(error);
        _accepted.TrySetException(error);
        _completion.TrySetException(error);
    }

    internal void End()
    {
        _notifications.Writer.TryComplete();
        _accepted.TrySetCanceled();
        _completion.TrySetCanceled();
    }
}


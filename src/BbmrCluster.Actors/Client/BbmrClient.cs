using System.Threading.Channels;
using Akka.Actor;
using Akka.Event;
using Akka.Hosting;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;

namespace BbmrCluster.Actors.Client;

/// <summary>A job over one or many images. Equal images in equal order are the same archive.</summary>
public sealed class ArchiveSpec
{
    /// <summary>Derives the archive's id from its images.</summary>
    /// <param name="images">At least one; ids as of <see cref="JobIdentity.Of(ImageJob)"/>.</param>
    /// <param name="priority">Served before archives of lower priority.</param>
    /// <exception cref="ArgumentException">No image, or two with one id.</exception>
    public ArchiveSpec(IReadOnlyList<ImageJob> images, Priority priority = default)
    {
        if (images.Count == 0)
            throw new ArgumentException("An archive has at least one image.", nameof(images));
        if (images.Select(image => image.Id).Distinct().Count() != images.Count)
            throw new ArgumentException("An image appears twice in the archive.", nameof(images));
        (Images, Priority, Id) = (images, priority, JobIdentity.Of(images.Select(image => image.Id)));
    }

    /// <summary>Identity.</summary>
    public ArchiveId Id { get; }

    /// <summary>The images, in the order they are opened.</summary>
    public IReadOnlyList<ImageJob> Images { get; }

    /// <summary>Importance.</summary>
    public Priority Priority { get; }
}

/// <summary>Submits archives and tells what becomes of them. Thread-safe; the same in embedded and cluster mode.</summary>
public sealed class BbmrClient
{
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
    /// <returns>The run, once the journal holds the submission.</returns>
    public async Task<ArchiveRun> SubmitAsync(ArchiveSpec spec, CancellationToken cancellation = default)
    {
        var archives = await _registry.GetAsync<ArchiveCoordinatorKey>(cancellation);
        var run = new ArchiveRun(spec.Id);
        run.Actor = _system.ActorOf(Props.Create(() => new ArchiveRunActor(spec, run, archives, _settings)));
        try
        {
            await run.Accepted.WaitAsync(cancellation);
            return run;
        }
        catch
        {
            await run.DisposeAsync();
            throw;
        }
    }
}

/// <summary>The journal of this process cannot be read back; nothing goes on until it is mended or removed.</summary>
/// <param name="entity">Whose entries they are.</param>
/// <param name="reason">How it was noticed.</param>
public sealed class JournalUnreadableException(string entity, Exception reason) : Exception($"the journal of {entity} cannot be read: {reason.Message}", reason);

/// <summary>One submission of an archive. Disposing ends watching, not the work; <see cref="StopAsync"/> ends the work.</summary>
public sealed class ArchiveRun : IAsyncDisposable
{
    private readonly TaskCompletionSource _accepted = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<ArchiveSummary> _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Channel<JobNotification> _notifications = Channel.CreateUnbounded<JobNotification>(new UnboundedChannelOptions { SingleWriter = true });

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

/// <summary>Speaks for one run: repeats the submission until it is journaled, then says regularly that someone watches.</summary>
internal sealed class ArchiveRunActor : ReceiveActor, IWithTimers
{
    private readonly ArchiveSpec _spec;
    private readonly ArchiveRun _run;
    private readonly IActorRef _archives;
    private readonly RunId _id = RunId.New();
    private readonly List<ImageJob[]> _pages;
    private readonly HashSet<int> _unknownPages;
    private bool _accepted, _stopping;

    public ArchiveRunActor(ArchiveSpec spec, ArchiveRun run, IActorRef archives, CoordinationSettings settings)
    {
        (_spec, _run, _archives) = (spec, run, archives);
        _pages = [.. spec.Images.Chunk(settings.PageSize)];
        _unknownPages = [.. Enumerable.Range(0, _pages.Count)];
        Receive<ArchiveReplies.PageAccepted>(m => m.Run == _id, m => _unknownPages.Remove(m.Page));
        Receive<ArchiveReplies.ArchiveAccepted>(m => m.Run == _id, _ =>
        {
            _accepted = true;
            _run.SetAccepted();
        });
        Receive<ArchiveReplies.RunUnknown>(m => m.Run == _id, _ =>
        {
            _accepted = false;
            _unknownPages.UnionWith(Enumerable.Range(0, _pages.Count));
            Remind();
        });
        Receive<ArchiveReplies.Notified>(m => m.Run == _id, m =>
        {
            _run.Publish(m.Notification);
            if (m.Notification is JobNotification.ArchiveFinished)
                Context.Stop(Self);
        });
        var entities = spec.Images.Select(image => "image-" + image.Id.Value).Append("archive-" + spec.Id.Value).ToHashSet(StringComparer.Ordinal);
        Receive<JournalUnreadable>(unreadable => entities.Contains(unreadable.PersistenceId), unreadable =>
        {
            _run.Fail(new JournalUnreadableException(unreadable.PersistenceId, unreadable.Reason));
            Context.Stop(Self);
        });
        Receive<Stop>(_ =>
        {
            _stopping = true;
            Remind();
        });
        Receive<Reminder>(_ => Remind());
        Receive<StopWhenWritten>(_ => Context.Stop(Self));
        Timers!.StartPeriodicTimer("remind", Reminder.Instance, settings.ReminderInterval);
    }

    public ITimerScheduler? Timers { get; set; }

    protected override void PreStart()
    {
        Context.System.EventStream.Subscribe<JournalUnreadable>(Self);
        Remind();
    }

    protected override void PostStop()
    {
        Context.System.EventStream.Unsubscribe(Self);
        _run.End();
    }

    private void Remind()
    {
        if (!_accepted)
        {
            _archives.Tell(new ArchiveCommands.SubmitArchive(_spec.Id, _id, _spec.Priority, _spec.Images.Count));
            foreach (int page in _unknownPages.Order())
                _archives.Tell(new ArchiveCommands.AddPage(_spec.Id, _id, page, _pages[page]));
        }
        else
        {
            _archives.Tell(new ArchiveCommands.WatchArchive(_spec.Id, _id));
        }
        if (_stopping)
            _archives.Tell(new ArchiveCommands.StopArchive(_spec.Id, _id));
    }

    internal sealed record Stop : INoSerializationVerificationNeeded
    {
        public static Stop Instance { get; } = new();
    }

    private sealed record Reminder : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Reminder Instance { get; } = new();
    }
}

using Akka.Actor;
using Akka.Cluster.Sharding;
using Akka.Event;
using Akka.Persistence;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;

namespace BbmrCluster.Actors.Archives;

/// <summary>
/// A job over one or many images: keeps a bounded window of images open, records how each ended, goes on past failures
/// and tells whoever watches.
/// </summary>
/// <remarks>
/// In embedded mode a recovered archive does nothing until its run is submitted or watched: only the images that the
/// command names are worked on. In a cluster it goes on by itself. Being open is not journaled: open images are asked
/// again and again, which also brings a lost coordinator back.
/// </remarks>
internal sealed class ArchiveCoordinator : GroupCommitActor<ArchiveState, ArchiveEvents.IArchiveEvent>, IWithTimers
{
    private readonly ArchiveId _id;
    private readonly IActorRef _images;
    private readonly CoordinationSettings _settings;
    private readonly Dictionary<IActorRef, RunId> _watchers = [];
    private readonly Dictionary<ImageId, int> _open = [];
    private int _cursor;
    private bool _active, _stopping;

    public ArchiveCoordinator(ArchiveId id, IActorRef images, bool continues, CoordinationSettings settings)
        : base(ArchiveState.Empty)
    {
        (_id, _images, _settings) = (id, images, settings);
        Recover<ArchiveEvents.Batch>(batch => Restore(batch.Events));
        Recover<RecoveryCompleted>(_ => _active = continues && State.Complete && !State.Finished);

        Command<ArchiveCommands.SubmitArchive>(Submit);
        Command<ArchiveCommands.AddPage>(Add);
        Command<ArchiveCommands.WatchArchive>(Watch);
        Command<ArchiveCommands.StopArchive>(Stop);
        Command<ArchiveFacts.ImageClosed>(Close);
        Command<ArchiveFacts.ImageStopped>(stopped =>
        {
            if (_stopping)
                _open.Remove(stopped.ImageId);
            StopWhenIdle();
        });
        Command<ArchiveFacts.ImageNotified>(fact => Tell(fact.Notification));
        Command<Reminder>(_ => Remind());
        // A block: what an expression returns would say whether the message was handled, and one that was not ends the actor.
        Command<Terminated>(gone =>
        {
            _watchers.Remove(gone.ActorRef);
        });
        Command<StopWhenWritten>(_ =>
        {
            Enqueue(_ => [], () => Context.Stop(Self));
            Flush();
        });
        Timers!.StartPeriodicTimer("remind", Reminder.Instance, settings.ReminderInterval);
    }

    public override string PersistenceId => "archive-" + _id.Value;

    public ITimerScheduler? Timers { get; set; }

    public static Props Props(ArchiveId id, IActorRef images, bool continues, CoordinationSettings settings) =>
        Akka.Actor.Props.Create(() => new ArchiveCoordinator(id, images, continues, settings));

    protected override ArchiveState Apply(ArchiveState state, ArchiveEvents.IArchiveEvent one) => state.Apply(one);

    protected override object Wrap(IReadOnlyList<ArchiveEvents.IArchiveEvent> events) => new ArchiveEvents.Batch(events);

    protected override void Committed(IReadOnlyList<ArchiveEvents.IArchiveEvent> events)
    {
        if (events.OfType<ArchiveEvents.Reopened>().Any())
            _cursor = 0;
        OpenMore();
        Flush();
    }

    private void Submit(ArchiveCommands.SubmitArchive command)
    {
        var sender = Sender;
        AddWatcher(sender, command.Run);
        Enqueue(state => state.Decide(command), () => Accept(sender, command.Run));
        Flush();
    }

    private void Add(ArchiveCommands.AddPage command)
    {
        var sender = Sender;
        Enqueue(state => state.Decide(command), () =>
        {
            sender.Tell(new ArchiveReplies.PageAccepted(_id, command.Run, command.Page));
            Accept(sender, command.Run);
        });
        Flush();
    }

    private void Accept(IActorRef sender, RunId run)
    {
        if (State.Run != run || !State.Complete)
            return;
        sender.Tell(new ArchiveReplies.ArchiveAccepted(_id, run, State.Images));
        _active = true;
        _stopping = false;
        OpenMore();
        TellIfFinished();
    }

    private void Watch(ArchiveCommands.WatchArchive command)
    {
        if (State.Run != command.Run || !State.Complete)
        {
            // A later run took over: its images are the same, so whoever watched the earlier one is told of it.
            if (State.Run is null || !_watchers.ContainsKey(Sender))
                Sender.Tell(new ArchiveReplies.RunUnknown(_id, command.Run));
            return;
        }
        AddWatcher(Sender, command.Run);
        if (!_stopping)
            _active = true;
        OpenMore();
        TellIfFinished();
    }

    private void AddWatcher(IActorRef watcher, RunId run)
    {
        if (_watchers.TryAdd(watcher, run))
            Context.Watch(watcher);
    }

    private void OpenMore()
    {
        if (!_active || _stopping || !State.Complete)
            return;
        while (_open.Count < _settings.OpenImages && State.NextPending(_cursor) is { } item)
        {
            _cursor = item + 1;
            if (_open.TryAdd(State.Job(item).Id, item))
                Ask(item);
        }
    }

    private void Ask(int item)
    {
        var job = State.Job(item);
        _images.Tell(new ImageCommands.OpenImage(job.Id, _id, State.Run!.Value, State.Priority, job));
    }

    private void Close(ArchiveFacts.ImageClosed closed)
    {
        if (!_open.TryGetValue(closed.ImageId, out int item))
        {
            // Known already: the image may forget it.
            _images.Tell(new ImageCommands.AcknowledgeOutcome(closed.ImageId, closed.Run));
            return;
        }
        // An answer to an earlier run of an image that is open again: the reminder asks it for this one.
        if (closed.Run != State.Run)
            return;
        var now = Context.System.Scheduler.Now;
        Enqueue(state => state.DecideClosed(item, closed.Run, closed.Outcome, now), () =>
        {
            _images.Tell(new ImageCommands.AcknowledgeOutcome(closed.ImageId, closed.Run));
            if (!_open.Remove(closed.ImageId))
                return;
            Tell(new JobNotification.ImageFinished(closed.ImageId, closed.Outcome));
            TellIfFinished();
            StopWhenIdle();
        });
        Flush();
    }

    private void Stop(ArchiveCommands.StopArchive command)
    {
        if (State.Run != command.Run || State.Finished)
            return;
        _stopping = true;
        foreach (var image in _open.Keys)
            _images.Tell(new ImageCommands.StopImage(image));
        StopWhenIdle();
    }

    private void StopWhenIdle()
    {
        if (!_stopping || _open.Count > 0 || State.Finished)
            return;
        _stopping = false;
        _active = false;
        for (int? item = State.NextPending(0); item is { } one; item = State.NextPending(one + 1))
            Tell(new JobNotification.ImageFinished(State.Job(one).Id, new ImageOutcome.Interrupted()));
        Tell(new JobNotification.ArchiveFinished(_id, Summary()));
        Context.Parent.Tell(new Passivate(StopWhenWritten.Instance));
    }

    private void TellIfFinished()
    {
        if (!State.Finished)
            return;
        Tell(new JobNotification.ArchiveFinished(_id, Summary()));
        _watchers.Clear();
        _active = false;
        Context.Parent.Tell(new Passivate(StopWhenWritten.Instance));
    }

    private ArchiveSummary Summary() => new(State.Done, State.Skipped, State.Failed, State.Images - State.Closed);

    private void Remind()
    {
        if (!_active)
            return;
        OpenMore();
        foreach (var (image, item) in _open)
        {
            if (_stopping)
                _images.Tell(new ImageCommands.StopImage(image));
            else
                Ask(item);
        }
    }

    private void Tell(JobNotification notification)
    {
        foreach (var (watcher, run) in _watchers)
            watcher.Tell(new ArchiveReplies.Notified(run, notification));
    }

    private sealed record Reminder : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Reminder Instance { get; } = new();
    }
}

using Akka.Actor;
using Akka.Cluster.Sharding;
using Akka.Event;
using Akka.Persistence;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using static BbmrCluster.Actors.Protocol.ImageEvents;

namespace BbmrCluster.Actors.Images;

/// <summary>
/// The coordinator of one image: grants leases from the journaled state, journals results, and tells the archives that
/// opened it. It touches no pixels, and does nothing until an archive opens it.
/// </summary>
/// <remarks>
/// Leases are soft state: after a restart none is held, and late results of the old epoch are taken as long as they are
/// the first of their range. Only preparing and committing outputs needs a lease of this epoch.
/// </remarks>
internal sealed partial class ImageCoordinator : GroupCommitActor<ImageState, IImageEvent>, IWithTimers
{
    // Bytes of a lease's lists from which they go by way of the blob store; messages stay well below 64 KiB.
    private const int LargeWork = 40_000;

    // More workers than these are not for one image.
    private const int MostUseful = 512;

    // An outcome is told so often; an archive that says nothing to it is gone, and asks when it is back.
    private const int OutcomeTold = 12;

    // Archives ask for what they have open at every reminder. One that has not asked for so many is gone, or its order to stop is.
    private const int Unwanted = 24;

    // Results that somebody waits for are journaled so many times sooner than others.
    private const int WantedSooner = 5;

    private static readonly TimeSpan AnnounceInterval = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan UnheardInterval = TimeSpan.FromSeconds(1);

    private readonly ImageId _id;
    private readonly IActorRef _broker;
    private readonly CoordinationSettings _settings;
    private readonly IImageBlobs? _blobs;
    private readonly IActorRef _allocator, _reconstruction;
    private readonly ILoggingAdapter _log = Context.GetLogger();

    private readonly Dictionary<ArchiveId, (IActorRef Ref, RunId Run)> _watchers = [];
    private readonly Dictionary<WorkerId, IActorRef> _workers = [];
    // A worker that was started again may ask before this one hears of the end of the other: who it was, and its last lease.
    private readonly Dictionary<IActorRef, (WorkerId Worker, int Latest)> _replaced = [];
    private readonly HashSet<WorkerId> _waiting = [];
    private readonly Dictionary<string, int> _losses = new(StringComparer.Ordinal);
    private readonly HashSet<WorkUnit> _full = [];
    private readonly HashSet<int> _openGroups = [];

    private LeaseBook _book;
    private DateTimeOffset _lastWrite, _lastCounted, _lastAnnounced, _lastAsked, _lastTold, _probeAt, _stopBy, _forgetAt;
    private DateTimeOffset? _commitAt;
    private bool _active, _opening, _allocating, _reconstructed, _forgetting, _onlyCurrent, _discard, _rejected;
    private int _pausedAfter, _counts, _announced, _told, _unwanted;
    private IActorRef? _stopping;
    private string? _weights, _waitsFor;
    private bool _unserved;
    // Closed before this actor was started: whoever is to hear of it may not have.
    private bool _unheard;

    public ImageCoordinator(ImageId id, IActorRef broker, Func<string, IAllocator> allocators, CoordinationSettings settings, IImageBlobs? blobs)
        : base(ImageState.Empty)
    {
        (_id, _broker, _settings, _blobs, _book) = (id, broker, settings, blobs, new LeaseBook(0, settings));
        _allocator = Context.ActorOf(AllocatorActor.Props(allocators), "allocator");
        _reconstruction = Context.ActorOf(ReconstructionActor.Props(), "reconstruction");

        Recover<Batch>(batch => Restore(batch.Events));
        Recover<RecoveryCompleted>(_ =>
        {
            _book = new LeaseBook(LastSequenceNr, _settings);
            _unheard = State.Outcome is not null;
        });

        Command<ImageCommands.OpenImage>(Open);
        Command<ImageCommands.StopImage>(Stop);
        Command<ImageCommands.AcknowledgeOutcome>(Acknowledge);
        Command<ImageCommands.RequestLeases>(Request);
        Command<LeaseFacts.LeasesTold>(Told);
        Command<LeaseFacts.LeasesHeld>(held =>
        {
            foreach (var lease in held.Waiting.Select(_book.Find).OfType<Lease>())
                _book.Renew(lease, Now);
            foreach (var id in held.Running)
            {
                if (_book.Find(id) is { } lease)
                    lease.Heard = true;
                else if (_book.IsOurs(id))
                    Sender.Tell(new LeaseReplies.LeaseCancelled(_id, id));
            }
        });
        Command<Terminated>(gone =>
        {
            if (_replaced.Remove(gone.ActorRef, out var replaced))
                LoseLeases(replaced.Worker, replaced.Latest);
            foreach (var worker in _workers.Where(pair => pair.Value.Equals(gone.ActorRef)).Select(pair => pair.Key).ToList())
            {
                _workers.Remove(worker);
                _waiting.Remove(worker);
                LoseLeases(worker, _book.Latest);
            }
            Continue();
        });

        Command<BrokerNotices.NobodyServes>(Unserved);
        Command<ImageChildren.BlockSettled>(Settle);
        Command<ImageChildren.BlockWantsLease>(Wish);
        Command<ImageChildren.Allocated>(done => EnqueueAndGo(state => state.DecideAllocation(done.Allocation), () => _allocating = false));
        Command<ImageChildren.AllocationFailed>(failed =>
            EnqueueAndGo(state => state.DecideFailure("allocator", $"{state.Job?.DisplayName}: {failed.Message}"), () => _allocating = false));
        Command<ImageChildren.ReconstructionOpen>(open =>
        {
            _openGroups.Clear();
            _openGroups.UnionWith(open.Groups);
            _reconstructed = open.Complete;
            Continue();
        });

        Command<Tick>(_ => OnTick());
        Command<CommitNow>(_ =>
        {
            _commitAt = null;
            MaybeFlush();
        });
        Command<DeleteMessagesSuccess>(_ => Forgotten());
        Command<DeleteMessagesFailure>(_ =>
        {
            // Once more in a while: the database may be away.
            _forgetting = false;
            _forgetAt = Now + _settings.ReminderInterval;
        });
        Command<ImageCommands.SweepImage>(Sweep);
        Command<BlobsDeleted>(Deleted);
        Command<StopWhenWritten>(_ => EnqueueAndFlush(_ => [], StopWhenDeleted));
        Timers!.StartPeriodicTimer("tick", Tick.Instance, settings.TickInterval);
    }

    public override string PersistenceId => "image-" + _id.Value;

    public ITimerScheduler? Timers { get; set; }

    private static DateTimeOffset Now => Context.System.Scheduler.Now;

    private double SecondsSinceCounted => (Now - _lastCounted).TotalSeconds;

    private bool Working => _active && !_opening && State.InProgress && _stopping is null && !_deleting;

    private bool Paused => _full.Count > 0;

    public static Props Props(ImageId id, IActorRef broker, Func<string, IAllocator> allocators, CoordinationSettings settings, IImageBlobs? blobs = null) =>
        Akka.Actor.Props.Create(() => new ImageCoordinator(id, broker, allocators, settings, blobs));

    protected override ImageState Apply(ImageState state, IImageEvent one) => state.Apply(one);

    protected override object Wrap(IReadOnlyList<IImageEvent> events) => new Batch(events);

    protected override void Committed(IReadOnlyList<IImageEvent> events)
    {
        _lastWrite = Now;
        if (events.OfType<Submitted>().Any())
            StartAnew();
        foreach (var one in events)
        {
            if (one is Closed closed)
                Close(closed.Outcome);
        }
        if (State.InProgress && events.Any(one => one is not (Submitted or Resumed or WorkCounted)))
            Notify(new JobNotification.ImageProgressed(_id, State.Progress));
        if (State.Plan is { } plan && State.Scales is not null && State.Job!.Parameters.Reconstructs)
        {
            _reconstruction.Tell(new ImageChildren.StripsChanged(
                [.. plan.Of(Stage.Reconstruct).Select(State.IsReady)], [.. plan.Of(Stage.Reconstruct).Select(State.IsDone)],
                // A window that keeps one worker busy would keep others idle.
                Math.Max(_settings.ReconstructionWindow, 3 * _workers.Count)));
        }
        Continue();
    }

    // An entry of this image cannot be written; the archive goes on with the others.
    protected override void Rejected(Exception cause)
    {
        if (_rejected)
        {
            base.Rejected(cause);
            return;
        }
        _rejected = true;
        EnqueueAndFlush(state => state.DecideFailure("journal", $"{state.Job?.DisplayName}: the journal refuses an entry: {cause.Message}"), () => { });
    }

    // ---- opening and closing -------------------------------------------------------------------------------------

    private void Open(ImageCommands.OpenImage command)
    {
        // It is on its way out, and whoever wants it asks again.
        if (_stopping is not null || (_forgetting && State.InProgress))
            return;
        _unwanted = 0;
        bool there = _watchers.TryGetValue(command.ArchiveId, out var watcher), known = there && watcher.Run == command.Run;
        _watchers[command.ArchiveId] = (Sender, command.Run);
        // Unless it is just being opened anew: then that is the outcome of before.
        if (!_active && State.Outcome is { } outcome && (known || State.Run == command.Run))
        {
            (_told, _lastTold) = (0, Now);
            Sender.Tell(new ArchiveFacts.ImageClosed(_id, command.Run, outcome));
            return;
        }
        if (_active)
        {
            if (!known || !watcher.Ref.Equals(Sender))
                NotifyStarted(Sender);
            // A later run of the same archive: its outcome is that one's.
            if (there && !known)
                EnqueueAndGo(state => state.InProgress && state.Run != command.Run ? [new ImageEvents.Resumed(command.Run, command.Policy, state.Tally.ResumedLeases)] : []);
            // Told again and again, since it may have got lost.
            if (_waitsFor is { } reason)
                Sender.Tell(new ArchiveFacts.ImageNotified(_id, new JobNotification.ImagePaused(_id, reason)));
            return;
        }
        _active = _opening = true;
        _forgetting = false;
        _lastCounted = Now;
        _book.Clear();
        DropLeases(_ => true);
        Enqueue(state => state.DecideOpen(command.Run, command.Policy, command.Job), () =>
        {
            _opening = false;
            foreach (var (archive, _) in _watchers.Values)
                NotifyStarted(archive);
            Announce();
        });
        Write();
    }

    // What leases of before still report is about another state of the source.
    private void StartAnew()
    {
        ForgetBlocks();
        _unheard = false;
        _onlyCurrent = LastSequenceNr > 1;
        DropLeases(lease => lease.Range.Stage != Stage.Ingest);
    }

    private void DropLeases(Func<Lease, bool> which)
    {
        foreach (var lease in _book.InFlight.Where(which).ToList())
        {
            Cancel(lease);
            _book.End(lease.Id);
        }
    }

    // Also to one that was started again, which does not know how far the image is.
    private void NotifyStarted(IActorRef archive)
    {
        if (State.Job is not { } job)
            return;
        archive.Tell(new ArchiveFacts.ImageNotified(_id, new JobNotification.ImageStarted(_id, job.DisplayName, State.Tally.ResumedLeases)));
        if (State.Facts is not null)
            archive.Tell(new ArchiveFacts.ImageNotified(_id, new JobNotification.ImageProgressed(_id, State.Progress)));
    }

    private void Close(ImageOutcome outcome)
    {
        _active = false;
        _full.Clear();
        _unserved = false;
        _waitsFor = null;
        _book.Clear();
        ForgetBlocks();
        CancelLeases();
        _broker.Tell(new BrokerFacts.ImageGone(_id));
        _told = 0;
        TellOutcome(outcome);
    }

    private void TellOutcome(ImageOutcome outcome)
    {
        _lastTold = Now;
        foreach (var (archive, run) in _watchers.Values)
            archive.Tell(new ArchiveFacts.ImageClosed(_id, run, outcome));
    }

    // That the archive has written it down may have got lost on the way, or the page may be gone that would say so.
    private void RepeatOutcome()
    {
        if (State.Outcome is not { } outcome || _watchers.Count == 0 || _active || !Settled || Now - _lastTold < _settings.ReminderInterval)
            return;
        if (_told++ < OutcomeTold)
        {
            TellOutcome(outcome);
            return;
        }
        _watchers.Clear();
        _unheard = true;
    }

    private void Acknowledge(ImageCommands.AcknowledgeOutcome command)
    {
        foreach (var archive in _watchers.Where(pair => pair.Value.Run == command.Run).Select(pair => pair.Key).ToList())
            _watchers.Remove(archive);
        _unheard &= command.Run != State.Run;
        Continue();
    }

    private void Forgotten()
    {
        if (_forgetting && !_active)
            Context.Parent.Tell(new Passivate(StopWhenWritten.Instance));
    }

    private void Stop(ImageCommands.StopImage command)
    {
        bool waited = _watchers.Remove(command.ArchiveId);
        // What another job has begun is not for this one to discard.
        bool discard = command.Discard && State.Run.IsOf(command.Run);
        // One that closed meanwhile: that it is written down has not been said.
        _unheard = !discard && (_unheard || (waited && State.Outcome is not null));
        // Active but not in progress: it is being opened, which ends before it stops.
        if (_watchers.Count > 0 || !(_active || (discard && State.InProgress)))
        {
            Sender.Tell(new ArchiveFacts.ImageStopped(_id));
            return;
        }
        BeginStop(Sender, discard);
        Continue();
    }

    // Said again and again until it has stopped.
    private void BeginStop(IActorRef archive, bool discard)
    {
        (_discard, _stopBy) = _stopping is null ? (discard, Now + _settings.StopTimeout) : (_discard || discard, _stopBy);
        _stopping = archive;
        _broker.Tell(new BrokerFacts.ImageGone(_id));
        CancelLeases();
    }

    private void CancelLeases()
    {
        foreach (var lease in _book.InFlight)
            Cancel(lease);
    }

    private void Cancel(Lease lease)
    {
        if (_workers.TryGetValue(lease.Worker, out var worker))
            worker.Tell(new LeaseReplies.LeaseCancelled(_id, lease.Id));
    }

    // ---- going on ------------------------------------------------------------------------------------------------

    /// <summary>After anything happened: allocate, write, offer work, stop, forget, whichever is due.</summary>
    private void Continue()
    {
        if (Working && State.Scored && State.Scales is null && State.Facts is { } facts && State.Job is { Parameters.Kind: not JobKind.Upscale } job && !_allocating)
        {
            _allocating = true;
            _allocator.Tell(new ImageChildren.Allocate(job.Parameters.Allocator, job.Parameters.Rate, facts.Grid, job.Parameters.Engine.Scales, State.AllScores(), [.. State.Quarantined]));
        }
        MaybeFlush();
        OfferWork();
        if (Working && Now - _lastAnnounced >= AnnounceInterval && Math.Max(_announced, 1) is var before && Useful() is var useful && (useful >= 2 * before || 2 * useful <= before))
            Announce();
        if (_stopping is { } archive && Settled && (!_book.Busy || Now >= _stopBy))
        {
            _active = false;
            if (_discard && State.InProgress)
            {
                EnqueueAndFlush(state => state.DecideFailure("cancelled", $"{state.Job!.DisplayName}: cancelled"), () =>
                {
                    _stopping = null;
                    archive.Tell(new ArchiveFacts.ImageStopped(_id));
                });
                return;
            }
            _stopping = null;
            // It ended before it could be stopped, which whoever stopped it waits for no more.
            if (State.Outcome is { } outcome)
            {
                _unheard = true;
                archive.Tell(new ArchiveFacts.ImageClosed(_id, State.Run, outcome));
            }
            archive.Tell(new ArchiveFacts.ImageStopped(_id));
            if (_unheard)
                return;
            Context.Parent.Tell(new Passivate(StopWhenWritten.Instance));
        }
        // The blobs of an image go when no worker can write another one. A worker may have brought it back by repeating itself:
        // its archive, which asks for it later, must find the outcome, or the image would be done again.
        if (State.Outcome is not null && !_unheard && _watchers.Count == 0 && !_book.Busy && Settled && !_forgetting && !_deleting && Now >= _forgetAt)
        {
            _forgetting = true;
            DeleteBlobs();
            DeleteMessages(LastSequenceNr);
        }
    }

    private void OnTick()
    {
        // Those that were told may have had no use for it.
        if (_waiting.Count > 0 && Next() is not null)
        {
            foreach (var worker in _waiting)
                _workers[worker].Tell(new LeaseReplies.WorkReady(_id));
            _waiting.Clear();
        }
        foreach (var lease in _book.Overdue(Now))
        {
            Cancel(lease);
            Lost(lease, "the worker gave no sign of life");
        }
        // Sooner when nobody asks for what there is: the broker that was told may be gone.
        var silence = Now - _lastAnnounced;
        if (Working && (silence >= _settings.ReminderInterval || (silence >= UnheardInterval && Now - _lastAsked >= UnheardInterval && Next() is not null)))
            Announce();
        // Somebody else, or another lease, did what there was no room for, or it has to be made ready anew.
        if (Paused && _full.All(unit => State.IsDone(unit) || !State.IsReady(unit)))
            Unpause();
        RepeatOutcome();
        // In ticks: a process that was frozen must hear of its archive first.
        if (_active && _stopping is null && ++_unwanted * _settings.TickInterval >= _settings.ReminderInterval * Unwanted)
        {
            _watchers.Clear();
            BeginStop(ActorRefs.Nobody, discard: false);
        }
        Continue();
        // Brought back by a late message for an image that is forgotten, or of which its archive will ask.
        if ((State.Job is null || _unheard) && !_active && _watchers.Count == 0 && Settled)
            Context.Parent.Tell(new Passivate(StopWhenWritten.Instance));
    }

    /// <summary>Tells as many of the workers that wait as there may be leases for.</summary>
    private void OfferWork()
    {
        if (_waiting.Count == 0 || Next() is null)
            return;
        foreach (var worker in _waiting.Take(Math.Max(1, Useful() - _book.InFlight.Count)).ToList())
        {
            _workers[worker].Tell(new LeaseReplies.WorkReady(_id));
            _waiting.Remove(worker);
        }
    }

    private int Useful() => _book.Useful(State, Allowed, Now, MostUseful);

    private void Announce()
    {
        _lastAnnounced = Now;
        if (!Working)
            return;
        _announced = Paused ? 1 : Useful();
        _broker.Tell(new BrokerFacts.ImageWaiting(_id, _watchers.Keys.FirstOrDefault(), State.Policy.Priority, State.Job!.Parameters.DeviceClass, _announced,
            _weights ??= WeightKeys.Text(State.Job.Parameters.WeightHashes)));
    }

    private void Notify(JobNotification notification)
    {
        foreach (var (archive, _) in _watchers.Values)
            archive.Tell(new ArchiveFacts.ImageNotified(_id, notification));
    }

    private void EnqueueAndGo(Func<ImageState, IReadOnlyList<IImageEvent>> decide, Action? then = null)
    {
        Enqueue(decide, then);
        MaybeFlush();
    }

    private void EnqueueAndFlush(Func<ImageState, IReadOnlyList<IImageEvent>> decide, Action then)
    {
        Enqueue(decide, then);
        Write();
    }

    /// <summary>Results wait for others while devices have work, and less long when somebody waits for what follows from them.</summary>
    private void MaybeFlush()
    {
        // Blocks answer at once, and what they say belongs with the rest of their lease.
        if (Writing || Queued == 0 || _awaiting.Count > 0)
            return;
        bool wanted = _waiting.Count > 0 && Next() is null;
        var left = _lastWrite + (wanted ? _settings.CommitInterval / WantedSooner : _settings.CommitInterval) - Now;
        if (!_book.Busy || !Working || Queued >= LeasePlan.MaxBlocks)
            Write();
        else if (!wanted && Queued <= _counts)
            return; // The counts of a lease alone go with the results of the next.
        else if (left <= TimeSpan.Zero)
            Write();
        else if (_commitAt is null || Now + left < _commitAt)
        {
            _commitAt = Now + left;
            Timers!.StartSingleTimer("commit", CommitNow.Instance, left);
        }
    }

    private void Write()
    {
        _counts = 0;
        Flush();
    }

    private sealed record Tick : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Tick Instance { get; } = new();
    }

    private sealed record CommitNow : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static CommitNow Instance { get; } = new();
    }
}

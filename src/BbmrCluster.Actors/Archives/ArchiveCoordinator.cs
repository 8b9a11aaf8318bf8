using System.Globalization;
using System.Numerics;
using Akka.Actor;
using Akka.Cluster.Sharding;
using Akka.Event;
using Akka.Persistence;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;

namespace BbmrCluster.Actors.Archives;

/// <summary>
/// A job over one or many images: shares a bounded window of open images among the pages that it works on, one after
/// the other, and tells whoever watches. What it holds does not grow with the number of images.
/// </summary>
/// <remarks>
/// In embedded mode a recovered archive does nothing until its run is submitted or watched: only the images that the
/// command names are worked on. In a cluster it goes on by itself.
/// </remarks>
internal sealed class ArchiveCoordinator : GroupCommitActor<ArchiveState, ArchiveEvents.IArchiveEvent>, IWithTimers
{
    private static readonly TimeSpan ClosingsCount = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan IndexInterval = TimeSpan.FromSeconds(1);

    private readonly ArchiveId _id;
    private readonly IActorRef _images, _index;
    private readonly CoordinationSettings _settings;
    private readonly Dictionary<IActorRef, RunId> _watchers = [];
    private readonly Dictionary<int, PageView> _pages = [];
    // What pages that are not closed said last in this run; kept when they leave.
    private readonly Dictionary<int, PageMessages.Changed> _said = [];
    private readonly ProgressRate _rate = new();
    // Pages whose images are still to be stopped, since the job is paused or cancelled.
    private readonly List<int> _left = [];
    // Pages that were begun before this actor was started, and have not said yet how far they are.
    private readonly HashSet<int> _unread = [];
    private readonly Queue<DateTimeOffset> _closings = new();
    private int _cursor, _serial, _idle;
    private bool _active, _stopping, _leaving;
    private (ArchivePhase, DateTimeOffset)? _listed;
    private ArchiveOverview? _overview;
    private DateTimeOffset _toldIndex;

    public ArchiveCoordinator(ArchiveId id, IActorRef images, IActorRef index, bool continues, CoordinationSettings settings)
        : base(ArchiveState.Empty)
    {
        (_id, _images, _index, _settings) = (id, images, index, settings);
        Recover<ArchiveEvents.Batch>(batch => Restore(batch.Events));
        Recover<RecoveryCompleted>(_ =>
        {
            _active = continues && State is { Complete: true, Ended: false };
            OpenMore();
            if (State.Paused || State.Cancelled)
                ReadBegun();
        });

        Command<ArchiveCommands.SubmitArchive>(Submit);
        Command<ArchiveCommands.AddItems>(Add);
        Command<ArchiveCommands.WatchArchive>(Watch);
        Command<ArchiveCommands.StopArchive>(Stop);
        Command<ArchiveCommands.ControlArchive>(Control);
        Command<ArchiveCommands.ListItems>(List);
        Command<PageMessages.Stored>(stored =>
        {
            // Pages are read again when it is their turn.
            if (stored.Page > 0)
                Leave(stored.Page);
            Enqueue(state => state.DecideStored(stored.Page), GoOn);
            Flush();
        });
        Command<PageMessages.Changed>(Changed);
        Command<ArchiveFacts.ImageNotified>(fact => Tell(fact.Notification));
        Command<IndexMessages.ArchiveListed>(listed => _listed = (listed.Phase, listed.SubmittedAt));
        Command<Reminder>(_ => Remind());
        // A block: what an expression returns would say whether the message was handled, and one that was not ends the actor.
        Command<Terminated>(gone =>
        {
            _watchers.Remove(gone.ActorRef);
            bool leaving = false;
            foreach (int page in _pages.Where(pair => pair.Value.Ref.Equals(gone.ActorRef)).Select(pair => pair.Key).ToList())
            {
                leaving = _pages[page].Leaving;
                _pages.Remove(page);
                // What it was to stop is still to be stopped.
                if (!leaving && (State.Paused || State.Cancelled) && !_left.Contains(page))
                    _left.Add(page);
                Read(page);
                if (_said.TryGetValue(page, out var said))
                    _said[page] = said with { Open = 0, Pending = said.Open + said.Pending, Fraction = 0, Waiting = null };
            }
            StopWhenIdle();
            // One that failed is brought back by the reminder: the journal may be away.
            if (!leaving)
                return;
            HaltLeft();
            OpenMore();
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

    private static DateTimeOffset Now => Context.System.Scheduler.Now;

    private bool Working => _active && !_stopping && State is { Complete: true, Ended: false, Paused: false };

    /// <summary>Closed pages as journaled, the others as they said last.</summary>
    private PageCounts Counts => _said.Values.Where(page => !State.ClosedPages.ContainsKey(page.Page)).Aggregate(State.Closed, (sum, page) => sum + page.Counts);

    public static Props Props(ArchiveId id, IActorRef images, IActorRef index, bool continues, CoordinationSettings settings) =>
        Akka.Actor.Props.Create(() => new ArchiveCoordinator(id, images, index, continues, settings));

    protected override ArchiveState Apply(ArchiveState state, ArchiveEvents.IArchiveEvent one) => state.Apply(one);

    protected override object Wrap(IReadOnlyList<ArchiveEvents.IArchiveEvent> events) => new ArchiveEvents.Batch(events);

    protected override void Committed(IReadOnlyList<ArchiveEvents.IArchiveEvent> events)
    {
        if (events.Any(one => one is ArchiveEvents.Reopened or ArchiveEvents.Retried))
        {
            _cursor = 0;
            _rate.Forget();
            // What they said was about the run before.
            _said.Clear();
            foreach (var page in _pages.Values)
                page.Told = -1;
        }
        OpenMore();
        if (events.Any(one => one is not (ArchiveEvents.PageStored or ArchiveEvents.OldLayout)))
            TellIndex();
        Flush();
    }

    // ---- submission ----------------------------------------------------------------------------------------------

    private void Submit(ArchiveCommands.SubmitArchive command)
    {
        var sender = Sender;
        if (State.WhyNot(command) is { } reason)
        {
            sender.Tell(new ArchiveReplies.ArchiveRefused(_id, command.Run, reason));
            return;
        }
        if (command.Once && State.Run is { } current && current != command.Run)
        {
            if (State.Complete)
                sender.Tell(new ArchiveReplies.ArchiveAccepted(_id, command.Run, State.Images));
            // Another submission of the same is under way: it is waited for as long as its submitter is there. This one is
            // asked for nothing meanwhile, and hears so.
            bool waits = !State.Complete && _watchers.ContainsValue(current);
            if (waits)
                sender.Tell(new ArchiveReplies.ItemsWanted(_id, command.Run, 0, 0));
            if (State.Complete || waits)
                return;
        }
        AddWatcher(sender, command.Run);
        Enqueue(state => state.Decide(command, Now), () =>
        {
            _stopping = false;
            GoOn();
        });
        Flush();
    }

    private void Add(ArchiveCommands.AddItems command)
    {
        int page = State.PageSize == 0 ? 0 : command.First / State.PageSize;
        if (State.Run != command.Run || State.Complete || State.Cancelled || page != State.StoredPages || command.Jobs.Count == 0)
            return;
        if (Page(page) is { } view)
            view.Ref.Tell(new PageMessages.Fill(command.First - State.First(page), command.Jobs, State.Count(page)));
    }

    /// <summary>The next page is asked for, or the submission is complete and work begins.</summary>
    private void GoOn()
    {
        if (State.Run is not { } run)
            return;
        if (!State.Complete)
        {
            if (State.Cancelled)
                return;
            foreach (var (watcher, wanted) in _watchers.Where(pair => pair.Value == run))
                watcher.Tell(new ArchiveReplies.ItemsWanted(_id, wanted, State.First(State.StoredPages), State.Count(State.StoredPages)));
            return;
        }
        _active = true;
        TellIndex();
        foreach (var (watcher, wanted) in _watchers.Where(pair => pair.Value == run))
            watcher.Tell(new ArchiveReplies.ArchiveAccepted(_id, wanted, State.Images));
        OpenMore();
        TellIfEnded();
    }

    private void Watch(ArchiveCommands.WatchArchive command)
    {
        if (State.Run is null || !State.Complete || (!command.AnyRun && State.Run != command.Run))
        {
            // A later run took over: its images are the same, so whoever watched the earlier one is told of it.
            if (State.Run is null || !_watchers.ContainsKey(Sender))
                Sender.Tell(new ArchiveReplies.RunUnknown(_id, command.Run));
            return;
        }
        AddWatcher(Sender, command.Run);
        if (!_stopping && !command.AnyRun)
            _active = true;
        OpenMore();
        TellIfEnded();
    }

    private void AddWatcher(IActorRef watcher, RunId run)
    {
        if (_watchers.TryAdd(watcher, run))
            Context.Watch(watcher);
        _watchers[watcher] = run;
    }

    // ---- pages ---------------------------------------------------------------------------------------------------

    private PageView? Page(int page)
    {
        if (_pages.TryGetValue(page, out var known))
            return known.Leaving ? null : known;
        // The serial keeps names apart: a stopped child gives its name back a little later.
        var child = Context.ActorOf(ArchivePage.Props(_id, page, _images, _settings), string.Create(CultureInfo.InvariantCulture, $"page-{page}-{++_serial}"));
        return _pages[page] = new PageView(Context.Watch(child));
    }

    /// <summary>Shares the window of open images among pages in order, each as many as it can use.</summary>
    private void OpenMore()
    {
        if (!Working)
            return;
        while (State.ClosedPages.ContainsKey(_cursor))
            _cursor++;
        // While open images wait for room, more of them would wait as well.
        bool waiting = _said.Values.Any(page => page.Waiting is not null);
        int left = Window();
        for (int number = _cursor; number < State.Pages && left > 0; number++)
        {
            if (State.ClosedPages.ContainsKey(number))
                continue;
            if (Page(number) is not { } page)
                return;
            int open = !_said.TryGetValue(number, out var said) ? 0 : Math.Min(left, waiting ? said.Open : said.Open + said.Pending);
            left -= open;
            if (page.Told != open)
            {
                page.Told = open;
                (page.ClosedAt, page.OnlyListed) = (null, false);
                page.Ref.Tell(new PageMessages.Work(State.Run!.Value, State.Retry, State.Policy, open));
            }
            // Until it has said what it has, nothing is known of what is left for the next.
            if (said is null)
                return;
        }
    }

    // In steps, since every change is told to the pages.
    private int Window()
    {
        while (_closings.TryPeek(out var at) && Now - at > ClosingsCount)
            _closings.Dequeue();
        return Math.Max(_settings.OpenImages, (int)Math.Min(BitOperations.RoundUpToPowerOf2((uint)_closings.Count), (uint)_settings.MostOpenImages));
    }

    private void Changed(PageMessages.Changed changed)
    {
        if (!_pages.TryGetValue(changed.Page, out var page) || !page.Ref.Equals(Sender))
            return;
        if (changed is { Open: 0, Halting: true } && (_stopping || State.Paused || State.Cancelled))
            Leave(changed.Page);
        if (changed.Run == State.Run && changed.Retry == State.Retry && !State.ClosedPages.ContainsKey(changed.Page))
        {
            int closed = changed.Counts.Closed - (_said.TryGetValue(changed.Page, out var before) ? before.Counts.Closed : changed.Counts.Closed);
            for (int i = 0; i < Math.Min(closed, _settings.MostOpenImages); i++)
                _closings.Enqueue(Now);
            _said[changed.Page] = changed;
            if (changed is { Open: 0, Pending: 0 })
            {
                Enqueue(state => state.DecideClosed(changed.Page, changed.Retry, changed.Counts, Now), () =>
                {
                    if (State.ClosedPages.ContainsKey(changed.Page))
                    {
                        _said.Remove(changed.Page);
                        // In a while: an image may ask for an answer once more that it did not get.
                        if (_pages.TryGetValue(changed.Page, out var closedPage))
                            closedPage.ClosedAt = Now;
                    }
                    TellIfEnded();
                });
                Flush();
            }
        }
        Read(changed.Page);
        OpenMore();
        if (Now - _toldIndex >= IndexInterval)
            TellIndex();
    }

    /// <summary>What is closed of pages that are not is known to them alone; one that nobody works on has to be asked.</summary>
    private void ReadBegun()
    {
        _unread.UnionWith(Begun());
        _left.AddRange(_unread);
        HaltLeft();
    }

    private void Read(int page)
    {
        if (!_unread.Remove(page) || _unread.Count > 0)
            return;
        TellIfEnded();
        TellIndex();
    }

    // A stop, perhaps of another process, left unfinished images in the first of the pages that are not closed.
    private IEnumerable<int> Begun() =>
        Enumerable.Range(0, State.StoredPages).Where(page => !State.ClosedPages.ContainsKey(page)).Take(2 + (_settings.MostOpenImages / Math.Max(1, State.PageSize)));

    private void Leave(int page)
    {
        if (!_pages.TryGetValue(page, out var view) || view.Leaving)
            return;
        view.Leaving = true;
        view.Ref.Tell(StopWhenWritten.Instance);
    }

    private void Halt(bool discard)
    {
        foreach (var page in _pages.Values.Where(page => !page.Leaving))
            Halt(page, discard);
    }

    // When the job goes on it is told so, whatever its share was.
    private static void Halt(PageView page, bool discard)
    {
        (page.Told, page.OnlyListed) = (-1, false);
        page.Ref.Tell(new PageMessages.Halt(discard));
    }

    /// <summary>Brings back pages whose images may still be worked on, and has them stopped. A page that is leaving has to be gone first.</summary>
    private void HaltLeft()
    {
        if (!State.Paused && !State.Cancelled)
            _left.Clear();
        foreach (int number in _left.ToList())
        {
            if (Page(number) is not { } page)
                continue;
            _left.Remove(number);
            page.Ref.Tell(new PageMessages.Work(State.Run!.Value, State.Retry, State.Policy, 0));
            Halt(page, State.Cancelled);
        }
    }

    // ---- stopping and operators ----------------------------------------------------------------------------------

    private void Stop(ArchiveCommands.StopArchive command)
    {
        if (State.Run != command.Run || State.Ended)
            return;
        _stopping = true;
        Halt(discard: false);
        StopWhenIdle();
    }

    private void StopWhenIdle()
    {
        if (!_stopping || _pages.Count > 0 || State.Ended)
            return;
        var summary = Summary();
        _stopping = false;
        _active = false;
        Tell(new JobNotification.ArchiveFinished(_id, summary));
        Passivate();
    }

    private void Control(ArchiveCommands.ControlArchive command)
    {
        var sender = Sender;
        if (State.Run is null || State.WhyNot(command.Control) is not null)
        {
            sender.Tell(new ArchiveReplies.ControlAnswered(_id, State.Run is not null, State.Run is null ? null : State.WhyNot(command.Control)));
            return;
        }
        Enqueue(state => state.Decide(command.Control, Now), () =>
        {
            sender.Tell(new ArchiveReplies.ControlAnswered(_id, true, null));
            _left.Clear();
            if (command.Control is ArchiveControl.Pause or ArchiveControl.Cancel)
            {
                Halt(discard: command.Control == ArchiveControl.Cancel);
                // Also what an archive before this one opened.
                _left.AddRange(Begun().Where(page => !_pages.TryGetValue(page, out var view) || view.Leaving));
                HaltLeft();
            }
            else
            {
                _active = true;
            }
            OpenMore();
            TellIfEnded();
        });
        Flush();
    }

    private void List(ArchiveCommands.ListItems list)
    {
        _idle = 0;
        int from = Math.Max(0, list.From), page = State.PageSize == 0 ? 0 : from / State.PageSize;
        // Pages that hold none of what is asked for need not be read.
        while (list.State is { } wanted && page < State.StoredPages && HasNone(page, wanted))
            from = State.First(++page);
        bool there = _pages.ContainsKey(page);
        // Pages go with this actor, and what they were asked: the next one answers.
        if (State.Run is null || page >= State.StoredPages || _leaving || Page(page) is not { } view)
        {
            Sender.Tell(new ArchiveReplies.ItemsListed(_id, State.Run is not null, [], State.Run is not null && page < State.StoredPages ? from : null));
            return;
        }
        int next = State.First(page + 1);
        (view.ListedAt, view.OnlyListed) = (Now, view.OnlyListed || !there);
        view.Ref.Tell(new PageMessages.List(_id, State.First(page), from, Math.Clamp(list.Count, 1, 100), list.State, Sender, next < State.Images ? next : null));
    }

    private bool HasNone(int page, ItemState state)
    {
        if (State.ClosedPages.TryGetValue(page, out var closed))
            return state switch { ItemState.Failed => closed.Failed == 0, ItemState.Done => closed.Done == 0, ItemState.Skipped => closed.Skipped == 0, _ => true };
        // Pages are worked on in order: those behind the last that has said something have nothing closed in this run.
        return state != ItemState.Pending && Working && _said.Count > 0 && page > _said.Keys.Max();
    }

    // ---- telling -------------------------------------------------------------------------------------------------

    private void TellIfEnded()
    {
        if (!State.Ended || _unread.Count > 0)
            return;
        Tell(new JobNotification.ArchiveFinished(_id, Summary()));
        _watchers.Clear();
        _active = false;
        TellIndex();
    }

    private ArchiveSummary Summary()
    {
        var counts = Counts;
        return new ArchiveSummary(counts.Done, counts.Skipped, counts.Failed, State.Images - counts.Closed);
    }

    private void Remind()
    {
        HaltLeft();
        OpenMore();
        foreach (var (number, _) in _pages.Where(pair => pair.Value.IsDone(Now - _settings.ReminderInterval) && !_unread.Contains(pair.Key)).ToList())
            Leave(number);
        if (State.Phase == ArchivePhase.Running)
            _rate.Add(Now, Progress());
        TellIndex();
        if (_stopping)
            Halt(discard: false);
        // An archive that nobody works on or looks at goes; an unfinished one is remembered in a cluster, and stays.
        bool told = _index.IsNobody() || State.Run is null || _listed == (State.Phase, State.SubmittedAt);
        if (_active || !(State.Run is null || State.Ended) || !told || _said.Values.Any(page => page.Open > 0) || ++_idle < 2)
            return;
        Passivate();
    }

    private void Passivate()
    {
        _leaving = true;
        Context.Parent.Tell(new Passivate(StopWhenWritten.Instance));
    }

    private double Progress() => State.Images == 0 ? 0 : Math.Min(1, (Counts.Closed + _said.Values.Sum(page => page.Fraction)) / State.Images);

    private void TellIndex()
    {
        if (State.Run is null || _unread.Count > 0 || _index.IsNobody())
            return;
        _toldIndex = Now;
        var counts = Counts;
        double progress = Progress();
        string? waiting = _said.Values.Select(page => page.Waiting).FirstOrDefault(reason => reason is not null);
        var overview = new ArchiveOverview(_id, State.Name, State.Policy.Priority, State.Phase, State.Images, counts.Done, counts.Skipped, counts.Failed,
            _said.Values.Sum(page => page.Open), progress, State.SubmittedAt, State.EndedAt,
            State.Phase == ArchivePhase.Running && waiting is null ? _rate.Remaining(progress) : null, waiting);
        // Of one that has ended nothing new is to be said; images of a cancelled one may still be closing.
        if (State.Ended && _listed == (State.Phase, State.SubmittedAt) && overview == _overview)
            return;
        _overview = overview;
        _index.Tell(new IndexMessages.ArchiveTold(overview));
    }

    private void Tell(JobNotification notification)
    {
        foreach (var (watcher, run) in _watchers)
            watcher.Tell(new ArchiveReplies.Notified(run, notification));
    }

    /// <summary>A page that is in memory.</summary>
    private sealed class PageView(IActorRef page)
    {
        public IActorRef Ref { get; } = page;

        /// <summary>The share of the window that it was told last.</summary>
        public int Told { get; set; } = -1;

        public bool Leaving { get; set; }

        /// <summary>Nobody but a list has used it.</summary>
        public bool OnlyListed { get; set; }

        public DateTimeOffset ListedAt { get; set; }

        /// <summary>When the last of its images was closed.</summary>
        public DateTimeOffset? ClosedAt { get; set; }

        /// <summary>Whether nobody has had a use for it since then.</summary>
        public bool IsDone(DateTimeOffset since) => (OnlyListed || ClosedAt <= since) && ListedAt <= since;
    }

    private sealed record Reminder : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Reminder Instance { get; } = new();
    }
}

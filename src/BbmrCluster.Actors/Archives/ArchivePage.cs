using System.Globalization;
using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Archives;

/// <summary>
/// A page of an archive: opens as many of its images as its archive allows, records how each ended and goes on past
/// failures. Being open is not journaled: open images are asked again and again, which also brings a lost coordinator back.
/// </summary>
/// <remarks>A child of its archive with a journal of its own, there only while its images are worked on or looked at.</remarks>
internal sealed class ArchivePage : GroupCommitActor<PageState, PageEvents.IPageEvent>, IWithTimers
{
    private const int AcknowledgedAtOnce = 16;

    private readonly ArchiveId _archive;
    private readonly int _page, _mostOpen;
    private readonly IActorRef _images;
    private readonly Dictionary<ImageId, OpenItem> _open = [];
    private readonly SortedDictionary<int, IReadOnlyList<ImageJob>> _chunks = [];
    // The last that were closed before this actor was started: that they may go they have perhaps not heard.
    private readonly Stack<int> _closedBefore = new();
    private PageMessages.Work? _work;
    private int _cursor, _acknowledged;
    private bool _halting, _discard, _opened;

    public ArchivePage(ArchiveId archive, int page, IActorRef images, CoordinationSettings settings)
        : base(PageState.Empty)
    {
        (_archive, _page, _images, _mostOpen) = (archive, page, images, settings.MostOpenImages);
        Recover<PageEvents.Batch>(batch =>
        {
            Restore(batch.Events);
            foreach (var one in batch.Events)
                Remember(one);
        });
        Command<PageMessages.Fill>(Fill);
        Command<PageMessages.Work>(Work);
        Command<PageMessages.Halt>(Halt);
        Command<PageMessages.List>(List);
        Command<ArchiveFacts.ImageClosed>(Close);
        Command<ArchiveFacts.ImageStopped>(stopped =>
        {
            if (!_open.TryGetValue(stopped.ImageId, out var item))
                return;
            // The job went on before it had stopped.
            if (!_halting)
            {
                Ask(item.Index);
                return;
            }
            _open.Remove(stopped.ImageId);
            TellChanged();
        });
        Command<ArchiveFacts.ImageNotified>(Notified);
        Command<Reminder>(_ => Remind());
        Command<StopWhenWritten>(_ =>
        {
            Enqueue(_ => [], () => Context.Stop(Self));
            Flush();
        });
        Timers!.StartPeriodicTimer("remind", Reminder.Instance, settings.ReminderInterval);
    }

    public override string PersistenceId => string.Create(CultureInfo.InvariantCulture, $"page-{_page}-{_archive}");

    public ITimerScheduler? Timers { get; set; }

    private RunId ImageRun => _work!.Run.Retried(_work.Retry);

    public static Props Props(ArchiveId archive, int page, IActorRef images, CoordinationSettings settings) =>
        Akka.Actor.Props.Create(() => new ArchivePage(archive, page, images, settings));

    protected override PageState Apply(PageState state, PageEvents.IPageEvent one) => state.Apply(one);

    protected override object Wrap(IReadOnlyList<PageEvents.IPageEvent> events) => new PageEvents.Batch(events);

    protected override void Committed(IReadOnlyList<PageEvents.IPageEvent> events)
    {
        if (events.OfType<PageEvents.Opened>().Any())
            _cursor = 0;
        OpenMore();
        Flush();
    }

    private void Fill(PageMessages.Fill fill)
    {
        if (State.IsFilled)
        {
            Context.Parent.Tell(new PageMessages.Stored(_page));
            return;
        }
        _chunks[fill.Index] = fill.Jobs;
        int end = 0;
        foreach (var (index, jobs) in _chunks)
            end = index == end ? end + jobs.Count : end;
        if (end < fill.Count)
            return;
        var all = _chunks.Values.SelectMany(jobs => jobs).Take(fill.Count).ToList();
        _chunks.Clear();
        Enqueue(state => state.DecideFill(all), () => Context.Parent.Tell(new PageMessages.Stored(_page)));
        Flush();
    }

    private void Work(PageMessages.Work work)
    {
        bool another = _work is not null && (_work.Run != work.Run || _work.Retry != work.Retry);
        _work = work;
        if (_halting)
        {
            // Some that were opened have stopped, and some that were to be stopped it has never opened.
            _halting = false;
            _cursor = 0;
            foreach (var image in _open.Where(pair => !pair.Value.Asked).Select(pair => pair.Key).ToList())
                _open.Remove(image);
        }
        if (State.Run != work.Run || State.Retry != work.Retry)
            _closedBefore.Clear();
        AcknowledgeAgain();
        Enqueue(state => state.DecideOpen(work.Run, work.Retry), () =>
        {
            foreach (var item in another && !_halting ? _open.Values : Enumerable.Empty<OpenItem>())
                Ask(item.Index);
            OpenMore();
            TellChanged();
        });
        Flush();
    }

    private void Remember(PageEvents.IPageEvent one)
    {
        if (one is PageEvents.Opened)
            _closedBefore.Clear();
        if (one is PageEvents.ItemClosed closed)
            _closedBefore.Push(closed.Index);
    }

    // The last first, some at each reminder, and not more than could be open at once: each brings an image back.
    private void AcknowledgeAgain()
    {
        for (int i = 0; i < AcknowledgedAtOnce && _acknowledged < _mostOpen && _closedBefore.TryPop(out int closed); i++, _acknowledged++)
            _images.Tell(new ImageCommands.AcknowledgeOutcome(State.Jobs[closed].Id, ImageRun));
    }

    private void OpenMore()
    {
        if (_work is null || _halting || State.Run != _work.Run || State.Retry != _work.Retry)
            return;
        for (; _open.Count < _work.Open && _cursor < State.Jobs.Length; _cursor++)
        {
            if (State.States[_cursor] == ItemState.Pending && _open.TryAdd(State.Jobs[_cursor].Id, new OpenItem(_cursor)))
                Ask(_cursor);
        }
    }

    private void Ask(int index)
    {
        var job = State.Jobs[index];
        _opened = _open[job.Id].Asked = true;
        _images.Tell(new ImageCommands.OpenImage(job.Id, _archive, ImageRun, _work!.Policy, job));
    }

    private void Close(ArchiveFacts.ImageClosed closed)
    {
        // Also of one that is to stop, and told that it has: it may have closed just before.
        int index = _open.TryGetValue(closed.ImageId, out var item) ? item.Index : IndexOf(closed.ImageId);
        if (index < 0 || State.States[index] != ItemState.Pending)
        {
            // Known already: the image may forget it.
            _images.Tell(new ImageCommands.AcknowledgeOutcome(closed.ImageId, closed.Run));
            return;
        }
        // An answer to an earlier run of an image that is open again: the reminder asks it for this one. What was done when
        // failed ones were retried is done.
        if (_work is null || (closed.Run != ImageRun && (closed.Outcome is ImageOutcome.Failed || !closed.Run.IsOf(_work.Run))))
            return;
        bool closes = false;
        Enqueue(state =>
        {
            var events = state.DecideClosed(index, closed.Outcome);
            closes = events.Count > 0;
            return events;
        }, () =>
        {
            _images.Tell(new ImageCommands.AcknowledgeOutcome(closed.ImageId, closed.Run));
            _open.Remove(closed.ImageId);
            if (!closes)
                return;
            Context.Parent.Tell(new ArchiveFacts.ImageNotified(closed.ImageId, new JobNotification.ImageFinished(closed.ImageId, closed.Outcome)));
            OpenMore();
            TellChanged();
        });
        Flush();
    }

    private int IndexOf(ImageId image)
    {
        for (int i = 0; i < State.Jobs.Length; i++)
        {
            if (State.Jobs[i].Id == image)
                return i;
        }
        return -1;
    }

    private void Notified(ArchiveFacts.ImageNotified fact)
    {
        if (_open.TryGetValue(fact.ImageId, out var item))
        {
            switch (fact.Notification)
            {
                case JobNotification.ImageProgressed { Progress: { TotalUnits: > 0 } progress }:
                    item.Fraction = (double)progress.DoneUnits / progress.TotalUnits;
                    break;
                case JobNotification.ImagePaused paused:
                    item.WaitingTold = 0;
                    // Said at every reminder.
                    if (item.Waiting == paused.Reason)
                        return;
                    item.Waiting = paused.Reason;
                    TellChanged();
                    break;
                case JobNotification.ImageResumed or JobNotification.ImageStarted:
                    item.Waiting = null;
                    TellChanged();
                    break;
            }
        }
        Context.Parent.Forward(fact);
    }

    private void Halt(PageMessages.Halt halt)
    {
        // Images that a pause stopped, or that the page before this one opened, are unfinished. Which they are is not
        // remembered, but they were opened in order.
        int more = State is { IsFilled: true, Run: not null } && (halt.Discard || (!_halting && !_opened)) ? _mostOpen : 0;
        (_halting, _discard) = (true, halt.Discard);
        for (int i = 0; i < State.Jobs.Length && more > 0; i++)
        {
            if (State.States[i] == ItemState.Pending)
            {
                _open.TryAdd(State.Jobs[i].Id, new OpenItem(i));
                more--;
            }
        }
        Remind();
        TellChanged();
    }

    private void Remind()
    {
        if (_work is not null && State.Run == _work.Run && State.Retry == _work.Retry)
            AcknowledgeAgain();
        foreach (var (image, item) in _open)
        {
            // That it goes on may not have been heard.
            if (item.Waiting is not null && ++item.WaitingTold > 3)
                Notified(new ArchiveFacts.ImageNotified(image, new JobNotification.ImageResumed(image)));
            if (_halting && State.Run is { } run)
                _images.Tell(new ImageCommands.StopImage(image, _archive, run, _discard));
            else if (!_halting)
                Ask(item.Index);
        }
        if (_work is not null && _open.Count > 0)
            TellChanged();
    }

    private void TellChanged() => Context.Parent.Tell(new PageMessages.Changed(_page, State.Run, State.Retry, State.Counts, _open.Count, State.Pending - _open.Count,
        _open.Values.Sum(item => item.Fraction), _open.Values.Select(item => item.Waiting).FirstOrDefault(reason => reason is not null), _halting));

    private void List(PageMessages.List list)
    {
        var found = new List<ArchiveItem>();
        int index = list.From - list.First;
        for (; index < State.Jobs.Length && found.Count < list.Count; index++)
        {
            if (list.State is { } wanted && State.States[index] != wanted)
                continue;
            var job = State.Jobs[index];
            var (code, message) = State.Failures.GetValueOrDefault(index);
            found.Add(new ArchiveItem(list.First + index, job.Id, job.DisplayName, State.States[index], code, message, _open.TryGetValue(job.Id, out var item) ? item.Fraction : null));
        }
        list.ReplyTo.Tell(new ArchiveReplies.ItemsListed(_archive, true, found, index < State.Jobs.Length ? list.First + index : list.Next));
    }

    private sealed class OpenItem(int index)
    {
        public int Index { get; } = index;

        /// <summary>This page has opened it.</summary>
        public bool Asked { get; set; }

        public double Fraction { get; set; }

        public string? Waiting { get; set; }

        /// <summary>Reminders since it said so last.</summary>
        public int WaitingTold { get; set; }
    }

    private sealed record Reminder : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Reminder Instance { get; } = new();
    }
}

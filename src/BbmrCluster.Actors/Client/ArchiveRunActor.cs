using System.Text;
using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Client;

/// <summary>
/// Speaks for one run: repeats the submission until it is journaled, sends the images that the archive asks for, page by
/// page, then says regularly that someone watches.
/// </summary>
internal sealed class ArchiveRunActor : ReceiveActor, IWithTimers
{
    // Well below the size at which messages hold up heartbeats.
    private const int MaxMessage = 40_000;

    private readonly ArchiveSpec _spec;
    private readonly ArchiveRun _run;
    private readonly IActorRef _archives;
    private readonly int _pageSize;
    private readonly bool _once;
    private readonly RunId _id = RunId.New();
    private readonly HashSet<ImageId> _closed = [];
    private bool _accepted, _stopping;

    public ArchiveRunActor(ArchiveSpec spec, ArchiveRun run, IActorRef archives, CoordinationSettings settings, bool once)
    {
        (_spec, _run, _archives, _pageSize, _once) = (spec, run, archives, settings.PageSize, once);
        Receive<ArchiveReplies.ItemsWanted>(m => m.Run == _id, Send);
        Receive<ArchiveReplies.ArchiveAccepted>(m => m.Run == _id, _ =>
        {
            _accepted = true;
            _run.SetAccepted();
        });
        Receive<ArchiveReplies.ArchiveRefused>(m => m.Run == _id, m =>
        {
            _run.Fail(new ArchiveRefusedException($"the archive {m.ArchiveId} is refused: {m.Reason}", isOther: true));
            Context.Stop(Self);
        });
        Receive<ArchiveReplies.RunUnknown>(m => m.Run == _id, _ =>
        {
            _accepted = false;
            Remind();
        });
        Receive<ArchiveReplies.Notified>(m => m.Run == _id, m => Publish(m.Notification));
        Receive<JournalUnreadable>(IsOurs, unreadable =>
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

    private bool IsOurs(JournalUnreadable unreadable) => unreadable.PersistenceId.EndsWith("-" + _spec.Id.Value, StringComparison.Ordinal)
        || _spec.Images.Any(image => unreadable.PersistenceId == "image-" + image.Id.Value);

    private void Publish(JobNotification notification)
    {
        if (notification is JobNotification.ImageFinished finished)
            _closed.Add(finished.ImageId);
        if (notification is not JobNotification.ArchiveFinished ended)
        {
            _run.Publish(notification);
            return;
        }
        if (ended.Summary.Interrupted > 0)
        {
            foreach (var image in _spec.Images.Where(image => !_closed.Contains(image.Id)))
                _run.Publish(new JobNotification.ImageFinished(image.Id, new ImageOutcome.Interrupted()));
        }
        _run.Publish(notification);
        if (!_accepted)
            _run.Fail(new ArchiveRefusedException($"the archive {_spec.Id} was cancelled while it was submitted"));
        Context.Stop(Self);
    }

    private void Send(ArchiveReplies.ItemsWanted wanted)
    {
        _run.SetHeard();
        var jobs = new List<ImageJob>();
        int first = wanted.First, bytes = 0;
        foreach (var job in _spec.Images.Skip(wanted.First).Take(wanted.Count))
        {
            int size = Size(job);
            if (jobs.Count > 0 && bytes + size > MaxMessage)
            {
                _archives.Tell(new ArchiveCommands.AddItems(_spec.Id, _id, first, [.. jobs]));
                (first, bytes) = (first + jobs.Count, 0);
                jobs.Clear();
            }
            jobs.Add(job);
            bytes += size;
        }
        if (jobs.Count > 0)
            _archives.Tell(new ArchiveCommands.AddItems(_spec.Id, _id, first, jobs));
    }

    // What of a job is not shared with others.
    private static int Size(ImageJob job) => 60 + new[] { job.Source, job.DisplayName, job.Outputs.Container, job.Outputs.Image, job.Outputs.AllocationPicture, job.Outputs.Report }
        .Sum(text => text is null ? 0 : Encoding.UTF8.GetByteCount(text) + 4);

    private void Remind()
    {
        if (_accepted)
            _archives.Tell(new ArchiveCommands.WatchArchive(_spec.Id, _id, AnyRun: false));
        else
            _archives.Tell(new ArchiveCommands.SubmitArchive(_spec.Id, _id, _spec.Name, _spec.Policy, _spec.Count, _pageSize, _spec.Digest, _once));
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

/// <summary>Watches an archive without a say in it, whatever run it is in.</summary>
internal sealed class ArchiveWatchActor : ReceiveActor, IWithTimers
{
    private readonly RunId _id = RunId.New();
    private readonly Action _stopped;

    public ArchiveWatchActor(ArchiveRun run, IActorRef archives, CoordinationSettings settings)
    {
        var watch = new ArchiveCommands.WatchArchive(run.Id, _id, AnyRun: true);
        Receive<ArchiveReplies.Notified>(m => m.Run == _id, m =>
        {
            run.Publish(m.Notification);
            if (m.Notification is JobNotification.ArchiveFinished)
                Context.Stop(Self);
        });
        // Still coming in, or gone with its coordinator for a moment: asked again.
        Receive<ArchiveReplies.RunUnknown>(_ => { });
        Receive<Reminder>(_ => archives.Tell(watch));
        Receive<StopWhenWritten>(_ => Context.Stop(Self));
        Timers!.StartPeriodicTimer("remind", Reminder.Instance, TimeSpan.Zero, settings.ReminderInterval);
        _stopped = run.End;
    }

    public ITimerScheduler? Timers { get; set; }

    protected override void PostStop() => _stopped();

    private sealed record Reminder : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Reminder Instance { get; } = new();
    }
}

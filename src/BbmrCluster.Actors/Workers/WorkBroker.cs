using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;

namespace BbmrCluster.Actors.Workers;

/// <summary>
/// Knows which images have work and which workers are there, and tells each worker whom to serve. Soft state only: both
/// sides repeat themselves, and while the broker is away assigned work goes on. It never sees a lease or a result.
/// </summary>
internal sealed class WorkBroker : ReceiveActor, IWithTimers
{
    private readonly CoordinationSettings _settings;
    private readonly Dictionary<ImageId, (WaitingImage Image, DateTimeOffset Heard)> _images = [];
    private readonly Dictionary<WorkerId, (IActorRef Ref, DateTimeOffset Heard)> _workers = [];
    private readonly HashSet<WorkerId> _draining = [];
    private Dictionary<WorkerId, List<ImageId>> _assigned = [];
    private long _arrivals;

    public WorkBroker(CoordinationSettings settings)
    {
        _settings = settings;
        Receive<BrokerFacts.WorkerPresent>(present =>
        {
            bool known = _workers.TryGetValue(present.Worker, out var old) && old.Ref.Equals(Sender);
            _workers[present.Worker] = (Sender, Now);
            if (known)
            {
                Tell(present.Worker);
                return;
            }
            Context.Watch(Sender);
            Reassign();
        });
        Receive<BrokerFacts.ImageWaiting>(waiting =>
        {
            long arrival = _images.TryGetValue(waiting.ImageId, out var old) ? old.Image.Arrival : ++_arrivals;
            var image = new WaitingImage(waiting.ImageId, waiting.ArchiveId, waiting.Priority, waiting.OpenLeases, arrival);
            _images[waiting.ImageId] = (image, Now);
            Reassign();
        });
        Receive<BrokerFacts.ImageGone>(gone =>
        {
            if (_images.Remove(gone.ImageId))
                Reassign();
        });
        Receive<BrokerCommands.DrainWorker>(drain =>
        {
            _draining.Add(drain.Worker);
            Reassign();
        });
        Receive<Terminated>(gone =>
        {
            foreach (var worker in _workers.Where(pair => pair.Value.Ref.Equals(gone.ActorRef)).Select(pair => pair.Key).ToList())
            {
                _workers.Remove(worker);
                _draining.Remove(worker);
            }
            Reassign();
        });
        Receive<Tick>(_ => Expire());
        Receive<StopWhenWritten>(_ => Context.Stop(Self));
        Timers!.StartPeriodicTimer("tick", Tick.Instance, settings.ReminderInterval);
    }

    public ITimerScheduler? Timers { get; set; }

    private static DateTimeOffset Now => Context.System.Scheduler.Now;

    public static Props Props(CoordinationSettings settings) => Akka.Actor.Props.Create(() => new WorkBroker(settings));

    private void Reassign()
    {
        var next = Placement.Assign(_images.Values.Select(entry => entry.Image), _workers.Keys.Where(worker => !_draining.Contains(worker)), _assigned);
        var before = _assigned;
        _assigned = next;
        foreach (var worker in _workers.Keys)
        {
            if (!before.TryGetValue(worker, out var old) || !next.TryGetValue(worker, out var now) || !old.SequenceEqual(now))
                Tell(worker);
        }
    }

    private void Tell(WorkerId worker) =>
        _workers[worker].Ref.Tell(new BrokerNotices.Assignment(_assigned.TryGetValue(worker, out var images) ? [.. images] : []));

    // Whoever has not repeated itself for long is gone without having said so.
    private void Expire()
    {
        var limit = Now - (_settings.ReminderInterval * 6);
        var images = _images.Where(pair => pair.Value.Heard < limit).Select(pair => pair.Key).ToList();
        var workers = _workers.Where(pair => pair.Value.Heard < limit).Select(pair => pair.Key).ToList();
        images.ForEach(image => _images.Remove(image));
        workers.ForEach(worker => _workers.Remove(worker));
        if (images.Count + workers.Count > 0)
            Reassign();
    }

    private sealed record Tick : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Tick Instance { get; } = new();
    }
}

using System.Diagnostics;
using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Workers;

/// <summary>
/// Knows which images have work and which workers are there, and tells each worker whom to serve. Soft state only: both
/// sides repeat themselves, and while the broker is away assigned work goes on. It never sees a lease or a result.
/// </summary>
internal sealed class WorkBroker : ReceiveActor, IWithTimers
{
    private const int ListPage = 50;

    private readonly CoordinationSettings _settings;
    private readonly Dictionary<ImageId, (WaitingImage Image, DateTimeOffset Heard)> _images = [];
    private readonly Dictionary<WorkerId, Present> _workers = [];
    private readonly Dictionary<WorkerId, List<ArchiveShare>> _assigned = [];
    // From when on images and workers that have not been heard of are no more.
    private readonly DateTimeOffset _heardAll;
    private long _arrivals;
    private TimeSpan _pause;

    public WorkBroker(CoordinationSettings settings)
    {
        _settings = settings;
        _heardAll = Now + (settings.ReminderInterval * 1.2);
        Receive<BrokerFacts.WorkerPresent>(Hear);
        Receive<BrokerFacts.ImageWaiting>(waiting =>
        {
            var image = new WaitingImage(waiting.ImageId, waiting.ArchiveId, waiting.Priority, waiting.DeviceClass, waiting.Useful, _arrivals + 1, waiting.Weights);
            if (_images.TryGetValue(waiting.ImageId, out var old))
                image = image with { Arrival = old.Image.Arrival };
            else
                _arrivals++;
            _images[waiting.ImageId] = (image, Now);
            // Most of what is said again is what was said before.
            if (image != old.Image)
                ReassignSoon();
            TellIfUnserved(image);
        });
        Receive<BrokerFacts.ImageGone>(gone =>
        {
            if (_images.Remove(gone.ImageId))
                ReassignSoon();
        });
        Receive<BrokerCommands.DrainWorker>(drain => SetDraining(drain.Worker, true));
        Receive<BrokerCommands.UndrainWorker>(undrain => SetDraining(undrain.Worker, false));
        Receive<BrokerCommands.ListWorkers>(list => Sender.Tell(new BrokerCommands.Workers(
            [.. _workers.Values.OrderBy(worker => worker.Told.Id.Value, StringComparer.Ordinal).Skip(list.From).Take(ListPage).Select(worker => worker.Overview)])));
        Receive<Terminated>(gone =>
        {
            foreach (var worker in _workers.Where(pair => pair.Value.Ref.Equals(gone.ActorRef)).Select(pair => pair.Key).ToList())
                _workers.Remove(worker);
            ReassignSoon();
        });
        Receive<Deal>(_ => Reassign());
        Receive<Tick>(_ => Expire());
        Receive<StopWhenWritten>(_ => Context.Stop(Self));
        Timers!.StartPeriodicTimer("tick", Tick.Instance, settings.ReminderInterval);
    }

    public ITimerScheduler? Timers { get; set; }

    private static DateTimeOffset Now => Context.System.Scheduler.Now;

    public static Props Props(CoordinationSettings settings) => Akka.Actor.Props.Create(() => new WorkBroker(settings));

    private void Hear(BrokerFacts.WorkerPresent present)
    {
        var (told, weights) = (present.Worker, present.Weights);
        if (_workers.TryGetValue(told.Id, out var known) && known.Ref.Equals(Sender))
        {
            bool changed = known.Told.Devices != told.Devices || Math.Abs(known.Told.BlocksPerSecond - told.BlocksPerSecond) > 0.25 * known.Told.BlocksPerSecond
                || !(weights is null ? known.Weights is null : known.Weights?.SetEquals(weights) == true);
            (known.Told, known.Heard) = (told, Now);
            if (changed)
                known.Weights = weights?.ToHashSet(StringComparer.Ordinal);
            Tell(told.Id);
            if (changed)
                ReassignSoon();
            return;
        }
        // What the broker before this one had said of draining is known to the worker.
        _workers[told.Id] = new Present(Sender, told, Now)
        {
            Draining = told.Phase != WorkerPhase.Active,
            Weights = weights?.ToHashSet(StringComparer.Ordinal),
        };
        Context.Watch(Sender);
        ReassignSoon();
    }

    private void SetDraining(WorkerId id, bool draining)
    {
        if (_workers.TryGetValue(id, out var worker) && worker.Draining != draining)
        {
            worker.Draining = draining;
            Tell(id);
            ReassignSoon();
        }
        Sender.Tell(new BrokerCommands.Workers(worker is null ? [] : [worker.Overview]));
    }

    // News come in crowds: they are looked at together.
    private void ReassignSoon()
    {
        if (!Timers!.IsTimerActive("deal"))
            Timers.StartSingleTimer("deal", Deal.Instance, _pause > _settings.PlacementInterval ? _pause : _settings.PlacementInterval);
    }

    private void Reassign()
    {
        var begin = Stopwatch.GetTimestamp();
        var active = _workers.Values.Where(worker => !worker.Draining && worker.Told.Devices > 0).Select(worker => worker.Here);
        var next = Placement.Assign(_images.Values.Select(entry => entry.Image), active, _assigned);
        var before = _assigned.ToDictionary();
        _assigned.Clear();
        foreach (var (worker, shares) in next)
        {
            _assigned[worker] = shares;
            if (!before.TryGetValue(worker, out var old) || !Same(old, shares))
                Tell(worker);
        }
        foreach (var worker in before.Keys.Where(worker => !next.ContainsKey(worker)))
            Tell(worker);
        // Dealing takes about a tenth of the time, however many there are.
        var (pause, most) = (Stopwatch.GetElapsedTime(begin) * 9, _settings.ReminderInterval / 5);
        _pause = pause < most ? pause : most;
    }

    // Weights move with every measurement; only what matters is told at once.
    private static bool Same(List<ArchiveShare> one, List<ArchiveShare> other) => one.Count == other.Count
        && one.Zip(other, (a, b) => a.Archive == b.Archive && a.Images.SequenceEqual(b.Images) && Math.Abs(a.Weight - b.Weight) <= 0.1 * a.Weight).All(same => same);

    private void Tell(WorkerId id)
    {
        if (_workers.TryGetValue(id, out var worker))
            worker.Ref.Tell(new BrokerNotices.Assignment(worker.Draining ? [] : _assigned.GetValueOrDefault(id) ?? [], worker.Draining, !worker.Draining && Now < _heardAll));
    }

    // Else nobody would say why nothing happens.
    private void TellIfUnserved(WaitingImage image)
    {
        if (Now < _heardAll)
            return;
        // Images announce themselves often, and nearly always the first worker serves them.
        var active = _workers.Values.Where(worker => !worker.Draining).Select(worker => worker.Here);
        if (!active.Any(worker => worker.Serves(image)))
            Sender.Tell(new BrokerNotices.NobodyServes(image.Id, !active.Any() ? Lack.Worker : active.Any(worker => worker.HasClass(image.DeviceClass)) ? Lack.Weights : Lack.DeviceClass));
    }

    // Whoever has not repeated itself for long is gone without having said so.
    private void Expire()
    {
        var limit = Now - (_settings.ReminderInterval * 6);
        var images = _images.Where(pair => pair.Value.Heard < limit).Select(pair => pair.Key).ToList();
        var workers = _workers.Where(pair => pair.Value.Heard < limit).Select(pair => pair.Key).ToList();
        images.ForEach(image => _images.Remove(image));
        workers.ForEach(worker => _workers.Remove(worker));
        if (images.Count + workers.Count > 0)
            ReassignSoon();
    }

    private sealed class Present(IActorRef worker, WorkerOverview told, DateTimeOffset heard)
    {
        public IActorRef Ref { get; } = worker;

        public WorkerOverview Told { get; set; } = told;

        public DateTimeOffset Heard { get; set; } = heard;

        public bool Draining { get; set; }

        public HashSet<string>? Weights { get; set; }

        public PresentWorker Here => new(Told.Id, Told.Devices, Told.DeviceClasses, Told.BlocksPerSecond, Weights);

        public WorkerOverview Overview => Told with { Phase = !Draining ? WorkerPhase.Active : Told.Leases.Count > 0 ? WorkerPhase.Draining : WorkerPhase.Drained };
    }

    private sealed record Deal : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Deal Instance { get; } = new();
    }

    private sealed record Tick : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Tick Instance { get; } = new();
    }
}

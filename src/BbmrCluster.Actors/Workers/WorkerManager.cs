using Akka;
using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;

namespace BbmrCluster.Actors.Workers;

/// <summary>
/// Pulls leases from the images it is assigned to, in their order, and hands them to its devices: two a device, so that
/// a device finds the next one when it is through with the last. Passes reports on in order and repeats the end of a
/// lease until it is acknowledged. It decides nothing about work.
/// </summary>
internal sealed class WorkerManager : ReceiveActor, IWithTimers
{
    private const int CreditPerDevice = 2;

    private readonly WorkerId _id;
    private readonly IActorRef _broker, _images;
    private readonly IReadOnlyList<DeviceSlot> _slots;
    private readonly List<IActorRef> _devices;
    private readonly string[] _classes;
    private readonly Dictionary<(ImageId Image, LeaseId Lease), Held> _held = [];
    private readonly Dictionary<(ImageId Image, LeaseId Lease), LeaseFacts.ILeaseEnd> _unacknowledged = [];
    private readonly Dictionary<ImageId, int> _asked = [];
    private readonly HashSet<ImageId> _dry = [];
    private readonly CancellationToken _shutdown;
    private IActorRef? _leaving;
    private IReadOnlyList<ImageId> _assigned = [];

    public WorkerManager(WorkerId id, IActorRef broker, IActorRef images, IReadOnlyList<DeviceSlot> slots, CoordinationSettings settings)
    {
        (_id, _broker, _images, _slots) = (id, broker, images, slots);
        _devices = [.. slots.Select(slot => Context.ActorOf(DeviceExecutor.Props(slot), "device-" + slot.Name))];
        _classes = slots.Any(slot => slot.DeviceClass is null) ? [] : [.. slots.Select(slot => slot.DeviceClass!).Distinct(StringComparer.Ordinal)];

        Receive<BrokerNotices.Assignment>(assignment =>
        {
            _assigned = assignment.Images;
            _dry.IntersectWith(_assigned);
            Ask();
        });
        Receive<LeaseReplies.LeaseGranted>(Take);
        Receive<LeaseReplies.LeasesExhausted>(none =>
        {
            _asked.Remove(none.ImageId);
            _dry.Add(none.ImageId);
            Ask();
        });
        Receive<LeaseReplies.WorkReady>(ready =>
        {
            _dry.Remove(ready.ImageId);
            Ask();
        });
        Receive<LeaseReplies.LeaseCancelled>(cancelled =>
        {
            if (_held.TryGetValue((cancelled.ImageId, cancelled.Lease), out var held))
                held.Cancellation.Cancel();
        });
        Receive<LeaseReplies.LeaseAcknowledged>(known =>
        {
            _unacknowledged.Remove((known.ImageId, known.Lease));
            LeaveWhenIdle();
        });
        Receive<DeviceMessages.DeviceReport>(report =>
        {
            if (_held.TryGetValue((report.ImageId, report.Lease), out var held))
                held.Started = true;
            _images.Tell(new LeaseFacts.LeaseReported(report.ImageId, report.Lease, report.Report));
        });
        Receive<DeviceMessages.DeviceEnded>(Release);
        Receive<Terminated>(_ => Context.Stop(Self));
        Receive<Tick>(_ => Repeat());
        foreach (var device in _devices)
            Context.Watch(device);
        var shutdown = new CancellationTokenSource();
        _shutdown = shutdown.Token;
        Receive<GiveBack>(_ => shutdown.Cancel());
        Receive<Leave>(_ =>
        {
            _leaving = Sender;
            // Nothing new: the broker gives its images to others at once.
            _broker.Tell(new BrokerCommands.DrainWorker(_id));
            LeaveWhenIdle();
        });
        EndInOrder(Context.System, Self, shutdown, settings.DrainTime);
        Timers!.StartPeriodicTimer("tick", Tick.Instance, settings.ReminderInterval);
    }

    public ITimerScheduler? Timers { get; set; }

    public static Props Props(WorkerId id, IActorRef broker, IActorRef images, IReadOnlyList<DeviceSlot> slots, CoordinationSettings settings) =>
        Akka.Actor.Props.Create(() => new WorkerManager(id, broker, images, slots, settings));

    protected override void PreStart() => _broker.Tell(new BrokerFacts.WorkerPresent(_id, _devices.Count));

    /// <summary>
    /// When the process ends: take no more leases, finish those in hand within the time to drain, then give them back. A
    /// device that works hears no message, and its thread must not hold up the end of the process.
    /// </summary>
    private static void EndInOrder(ActorSystem system, IActorRef manager, CancellationTokenSource cancellation, TimeSpan drainTime)
    {
        var shutdown = CoordinatedShutdown.Get(system);
        shutdown.AddTask(CoordinatedShutdown.PhaseServiceRequestsDone, "finish-leases", async () =>
        {
            // A node that was removed from the cluster has nobody to finish for.
            if (drainTime > TimeSpan.Zero && shutdown.ShutdownReason is not CoordinatedShutdown.ClusterDowningReason)
            {
                var left = manager.Ask<Done>(Leave.Instance, Timeout.InfiniteTimeSpan);
                if (await Task.WhenAny(left, Task.Delay(drainTime)) != left)
                {
                    manager.Tell(GiveBack.Instance);
                    await Task.WhenAny(left, Task.Delay(CoordinationSettings.ReturnTime));
                }
            }
            await cancellation.CancelAsync();
            return Done.Instance;
        });
    }

    private void LeaveWhenIdle()
    {
        if (_leaving is not null && _held.Count + _unacknowledged.Count == 0)
            _leaving.Tell(Done.Instance);
    }

    private void Ask()
    {
        if (_leaving is not null)
            return;
        int free = (_devices.Count * CreditPerDevice) - _held.Count - _asked.Values.Sum();
        if (free <= 0)
            return;
        foreach (var image in _assigned)
        {
            if (_dry.Contains(image) || _asked.ContainsKey(image))
                continue;
            _asked[image] = free;
            _images.Tell(new ImageCommands.RequestLeases(image, _id, free, _classes));
            return;
        }
    }

    private void Take(LeaseReplies.LeaseGranted granted)
    {
        if (_asked.TryGetValue(granted.ImageId, out int left) && left > 1)
            _asked[granted.ImageId] = left - 1;
        else
            _asked.Remove(granted.ImageId);
        int device = Enumerable.Range(0, _devices.Count).MinBy(i => _held.Values.Count(held => held.Device == i));
        var held = new Held(device, CancellationTokenSource.CreateLinkedTokenSource(_shutdown));
        if (!_held.TryAdd((granted.ImageId, granted.Lease), held))
            return;
        _devices[device].Tell(new DeviceMessages.RunLease(granted.ImageId, granted.Lease, granted.Work, granted.Whole, held.Cancellation.Token));
    }

    private void Release(DeviceMessages.DeviceEnded ended)
    {
        var key = (ended.End.ImageId, ended.End.Lease);
        // The token source is left to the collector: a cancellation may still be on its way.
        _held.Remove(key);
        _unacknowledged[key] = ended.End;
        _images.Tell(ended.End);
        Ask();
    }

    // Messages may be lost between nodes: everything that waits for an answer is said again.
    private void Repeat()
    {
        _broker.Tell(new BrokerFacts.WorkerPresent(_id, _devices.Count));
        foreach (var end in _unacknowledged.Values)
            _images.Tell(end);
        foreach (var image in _held.Where(pair => !pair.Value.Started).GroupBy(pair => pair.Key.Image))
            _images.Tell(new LeaseFacts.LeasesHeld(image.Key, [.. image.Select(pair => pair.Key.Lease)]));
        _asked.Clear();
        _dry.Clear();
        Ask();
    }

    private sealed record Held(int Device, CancellationTokenSource Cancellation)
    {
        public bool Started { get; set; }
    }

    private sealed record Leave : INoSerializationVerificationNeeded
    {
        public static Leave Instance { get; } = new();
    }

    private sealed record GiveBack : INoSerializationVerificationNeeded
    {
        public static GiveBack Instance { get; } = new();
    }

    private sealed record Tick : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Tick Instance { get; } = new();
    }
}

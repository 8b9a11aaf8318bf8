using Akka;
using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Workers;

/// <summary>
/// Pulls leases from the images it is assigned to and hands them to its devices: two a device, or as many short ones as
/// keep it busy for a while, so that a device finds the next one when it is through with the last. Passes on in order what
/// devices report, several leases in a message where they are short, and repeats the end of a lease until it is
/// acknowledged. It decides nothing about work.
/// </summary>
internal sealed class WorkerManager : ReceiveActor, IWithTimers
{
    // What is told about an image goes with one message at this size, or at this age.
    private const int MostTold = 64;

    private static readonly TimeSpan TellInterval = TimeSpan.FromMilliseconds(100);

    private readonly WorkerId _id;
    private readonly IActorRef _broker, _images;
    private readonly CoordinationSettings _settings;
    private readonly ILoggingAdapter _log = Context.GetLogger();
    private readonly List<Device> _devices;
    private readonly string[] _classes;
    private readonly Func<IReadOnlyDictionary<string, string>>? _readWeights;
    private readonly Dictionary<(ImageId Image, LeaseId Lease), Held> _held = [];
    private readonly Dictionary<(ImageId Image, LeaseId Lease), LeaseFacts.ILeaseEnd> _unacknowledged = [];
    private readonly Dictionary<ImageId, List<LeaseFacts.ILeaseFact>> _untold = [];
    private readonly Dictionary<ImageId, int> _asked = [];
    private readonly PullOrder _order = new();
    private readonly CancellationToken _shutdown;
    private IActorRef? _leaving, _teller;
    private IReadOnlyList<string>? _weights;
    private bool _draining, _reading;
    private double _blocksPerSecond;

    // Empty in an embedded node.
    private readonly string _address = ((ExtendedActorSystem)Context.System).Provider.DefaultAddress is { Host: not null } address ? address.ToString() : "";

    public WorkerManager(WorkerId id, IActorRef broker, IActorRef images, IReadOnlyList<DeviceSlot> slots, CoordinationSettings settings)
    {
        (_id, _broker, _images, _settings) = (id, broker, images, settings);
        _devices = [.. slots.Select(slot => new Device(slot.Name, Context.Watch(Context.ActorOf(DeviceExecutor.Props(slot), "device-" + slot.Name))))];
        _classes = slots.Any(slot => slot.DeviceClass is null) ? [] : [.. slots.Select(slot => slot.DeviceClass!).Distinct(StringComparer.Ordinal)];
        _readWeights = slots.Select(slot => slot.Weights).FirstOrDefault(weights => weights is not null);
        _weights = _readWeights is null ? null : WeightKeys.Of(_readWeights());

        Receive<BrokerNotices.Assignment>(assignment =>
        {
            if (!Sender.Equals(_teller))
                _teller = Context.Watch(Sender);
            _order.Assign(assignment.Shares, assignment.Partial);
            // An image that ended may have gone without an answer: what it was asked for is free again.
            foreach (var gone in _asked.Keys.Except(_order.Images).ToList())
                _asked.Remove(gone);
            bool begins = assignment.Draining && !_draining;
            _draining = assignment.Draining;
            if (begins)
            {
                ReturnWaiting((_, _) => true);
                Present();
            }
            Ask();
        });
        Receive<LeaseReplies.LeasesGranted>(granted =>
        {
            _asked.Remove(granted.ImageId);
            foreach (var lease in granted.Leases)
                Take(granted.ImageId, lease);
            if (granted.Exhausted)
                SetDry(granted.ImageId);
            Ask();
        });
        Receive<LeaseReplies.WorkReady>(ready =>
        {
            _order.ClearDry(ready.ImageId);
            Ask();
        });
        Receive<LeaseReplies.LeaseCancelled>(cancelled =>
        {
            if (!_held.TryGetValue((cancelled.ImageId, cancelled.Lease), out var held))
                return;
            held.CancelledAt ??= Now;
            held.Cancellation.Cancel();
            // Its device may be at another lease for long.
            ReturnWaiting((key, _) => key == (cancelled.ImageId, cancelled.Lease));
            Ask();
        });
        Receive<LeaseReplies.LeasesAcknowledged>(known =>
        {
            foreach (var lease in known.Leases)
                _unacknowledged.Remove((known.ImageId, lease));
            LeaveWhenIdle();
        });
        Receive<DeviceMessages.DeviceStarted>(started =>
        {
            if (_held.TryGetValue((started.ImageId, started.Lease), out var held))
                held.HeardAt = held.StartedAt ??= Now;
        });
        Receive<DeviceMessages.DeviceReport>(report =>
        {
            if (_held.TryGetValue((report.ImageId, report.Lease), out var held))
            {
                held.HeardAt = Now;
                GoesOn(held.Device);
            }
            Tell(report.ImageId, new LeaseFacts.LeaseReported(report.Lease, report.Report));
        });
        Receive<TellNow>(_ => TellAll());
        Receive<DeviceMessages.DeviceEnded>(Release);
        Receive<Terminated>(gone =>
        {
            if (_devices.Exists(device => device.Ref.Equals(gone.ActorRef)))
                Context.Stop(Self);
            else if (gone.ActorRef.Equals(_teller))
                _teller = null;
        });
        Receive<Tick>(_ => Repeat());
        Receive<WeightsRead>(read =>
        {
            _reading = false;
            _weights = read.Keys ?? _weights;
        });
        Receive<IdleTick>(_ =>
        {
            // The broker has gone, and the next one should know of this worker soon.
            if (_teller is null)
                Present();
            AskForSeconds();
        });
        var shutdown = new CancellationTokenSource();
        _shutdown = shutdown.Token;
        Receive<GiveBack>(_ => shutdown.Cancel());
        Receive<Leave>(_ =>
        {
            _leaving = Sender;
            // Nothing new: the broker gives its images to others at once.
            _broker.Tell(new BrokerCommands.DrainWorker(_id));
            ReturnWaiting((_, _) => true);
            LeaveWhenIdle();
        });
        // The broker's answer to that.
        Receive<BrokerCommands.Workers>(_ => { });
        EndInOrder(Context.System, Self, shutdown, settings.DrainTime);
        Timers!.StartPeriodicTimer("tick", Tick.Instance, settings.ReminderInterval);
        Timers.StartPeriodicTimer("idle", IdleTick.Instance, settings.TickInterval);
    }

    public ITimerScheduler? Timers { get; set; }

    private static DateTimeOffset Now => Context.System.Scheduler.Now;

    public static Props Props(WorkerId id, IActorRef broker, IActorRef images, IReadOnlyList<DeviceSlot> slots, CoordinationSettings settings) =>
        Akka.Actor.Props.Create(() => new WorkerManager(id, broker, images, slots, settings));

    protected override void PreStart() => Present();

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

    private void Present()
    {
        var now = Now;
        _broker.Tell(new BrokerFacts.WorkerPresent(new WorkerOverview(_id, _address, _devices.Count(device => !device.Stuck), _classes,
            _draining || _leaving is not null ? WorkerPhase.Draining : WorkerPhase.Active, _blocksPerSecond, [.. _order.Images.Take(20)],
            [.. _held.Take(100).Select(pair => new LeaseOverview(pair.Key.Image, pair.Key.Lease.ToString(), pair.Value.Stage, pair.Value.FirstBlock, pair.Value.BlockCount,
                (now - pair.Value.TakenAt).TotalSeconds, pair.Value.StartedAt is not null))]), _weights));
    }

    // Models may be added while the worker runs. Their folder may be slow, so nothing waits for it.
    private void ReadWeights()
    {
        if (_readWeights is not { } read || _reading)
            return;
        _reading = true;
        _ = Task.Run(() => WeightKeys.Of(read())).PipeTo(Self, success: keys => new WeightsRead(keys), failure: _ => new WeightsRead(null));
    }

    private void LeaveWhenIdle()
    {
        if (_leaving is not null && _held.Count + _unacknowledged.Count == 0)
            _leaving.Tell(Done.Instance);
    }

    // ---- pulling -------------------------------------------------------------------------------------------------

    private void Ask()
    {
        if (_leaving is not null || _draining)
            return;
        int devices = _devices.Count(device => !device.Stuck), credit = devices * Credit();
        int free = credit - _held.Values.Count(held => !held.Device.Stuck) - _asked.Values.Sum();
        // Several at once where leases are short.
        if (free > 0 && (free >= credit / 2 || _devices.Exists(device => !device.Stuck && device.Leases < 2)) && _order.Next(_asked.ContainsKey) is { } image)
            Request(image, free, second: false);
    }

    // Beside a lease of a whole image, which may take long, nothing else is to wait.
    private int Credit() => _held.Values.Any(held => held.IsWhole) ? PullCredit.Least : PullCredit.Of(_order.UsualSeconds);

    /// <summary>A device that stands idle asks for a second lease of what others take long with.</summary>
    private void AskForSeconds()
    {
        if (_leaving is not null || _draining || _asked.Count > 0)
            return;
        int idle = _devices.Count(device => !device.Stuck && device.Leases == 0);
        if (idle == 0)
            return;
        foreach (var image in _order.Images.Take(idle).ToList())
            Request(image, 1, second: true);
    }

    private void Request(ImageId image, int count, bool second)
    {
        _asked[image] = count;
        // What it has to hear goes first, and may make more ready.
        TellImage(image);
        _images.Tell(new ImageCommands.RequestLeases(image, _id, count, _classes, second));
    }

    private void Take(ImageId image, LeaseReplies.GrantedLease granted)
    {
        if (_held.ContainsKey((image, granted.Lease)))
            return;
        var device = _devices.Where(device => !device.Stuck).MinBy(device => device.Leases) ?? _devices[0];
        var held = new Held(device, granted.Work, Now, _order.Taken(image), CancellationTokenSource.CreateLinkedTokenSource(_shutdown));
        _held.Add((image, granted.Lease), held);
        device.Leases++;
        device.Ref.Tell(new DeviceMessages.RunLease(image, granted.Lease, granted.Work, granted.Whole, held.Claim, held.Cancellation.Token));
    }

    // An image that has nothing more to give may be waiting for what it has not been told.
    private void SetDry(ImageId image)
    {
        _order.SetDry(image);
        TellImage(image);
    }

    private void Release(DeviceMessages.DeviceEnded ended)
    {
        var key = (ended.ImageId, ended.End.Lease);
        if (_held.Remove(key, out var held))
        {
            held.Device.Leases--;
            held.Cancellation.Dispose();
            Measure(ended.ImageId, held, ended.End);
        }
        if (_devices.Find(device => device.Ref.Equals(Sender)) is { } device)
            GoesOn(device);
        _unacknowledged[key] = ended.End;
        Tell(ended.ImageId, ended.End);
        if (_draining && _held.Count == 0)
            Present();
        Ask();
    }

    private void Measure(ImageId image, Held held, LeaseFacts.ILeaseEnd end)
    {
        double seconds = held.StartedAt is { } started ? (Now - started).TotalSeconds : 0;
        _order.Settle(image, held.Charged, seconds);
        // Stages of the whole image say nothing about the speed of blocks.
        if (end is not LeaseFacts.LeaseEnded || held.IsWhole || seconds <= 0)
            return;
        double speed = _devices.Count * held.BlockCount / seconds;
        _blocksPerSecond = _blocksPerSecond == 0 ? speed : (0.95 * _blocksPerSecond) + (0.05 * speed);
    }

    // Leases that no device has begun go back to where they came from.
    private void ReturnWaiting(Func<(ImageId Image, LeaseId Lease), Held, bool> which)
    {
        foreach (var (key, held) in _held.Where(pair => which(pair.Key, pair.Value) && pair.Value.Claim.TryTake()).ToList())
        {
            held.Cancellation.Cancel();
            _held.Remove(key);
            held.Device.Leases--;
            _order.Settle(key.Image, held.Charged, 0);
            _unacknowledged[key] = new LeaseFacts.LeaseReturned(key.Lease);
            Tell(key.Image, _unacknowledged[key]);
        }
        TellAll();
    }

    // ---- telling -------------------------------------------------------------------------------------------------

    /// <summary>Goes with what follows soon, unless the image may be waiting for it.</summary>
    private void Tell(ImageId image, LeaseFacts.ILeaseFact fact)
    {
        if (!_untold.TryGetValue(image, out var facts))
            _untold.Add(image, facts = []);
        facts.Add(fact);
        if (facts.Count >= MostTold || (fact is LeaseFacts.ILeaseEnd && (_order.IsDry(image) || _order.UsualSeconds > TellInterval.TotalSeconds)))
            TellImage(image);
        else if (!Timers!.IsTimerActive("tell"))
            Timers.StartSingleTimer("tell", TellNow.Instance, TellInterval);
    }

    private void TellImage(ImageId image)
    {
        if (_untold.Remove(image, out var facts))
            _images.Tell(new LeaseFacts.LeasesTold(image, facts));
    }

    private void TellAll()
    {
        foreach (var image in _untold.Keys.ToList())
            TellImage(image);
    }

    // Messages may be lost between nodes: everything that waits for an answer is said again.
    private void Repeat()
    {
        FindStuck();
        ReadWeights();
        Present();
        // Results before the ends that follow them.
        TellAll();
        foreach (var image in _unacknowledged.GroupBy(pair => pair.Key.Image, pair => pair.Value))
        {
            foreach (var ends in image.Chunk(MostTold))
                _images.Tell(new LeaseFacts.LeasesTold(image.Key, ends));
        }
        foreach (var image in _held.GroupBy(pair => pair.Key.Image))
        {
            var running = image.ToLookup(pair => pair.Value.StartedAt is not null, pair => pair.Key.Lease);
            _images.Tell(new LeaseFacts.LeasesHeld(image.Key, [.. running[false]], [.. running[true]]));
        }
        _asked.Clear();
        _order.ClearDry();
        Ask();
    }

    // A device that does not hear that its lease was taken back, or gives no sign of life for as long as the slowest stage may
    // take, hangs: what waits for it must not wait with it.
    private void FindStuck()
    {
        foreach (var (key, held) in _held.Where(pair => pair.Value.StartedAt is not null && Now - pair.Value.CancelledAt > _settings.ReminderInterval * 2).ToList())
        {
            _log.Warning("Device {Device} does not answer; lease {Lease} of image {Image} was taken back from it", held.Device.Name, key.Lease, key.Image);
            held.Device.Stuck = true;
            _held.Remove(key);
            held.Device.Leases--;
        }
        foreach (var (key, held) in _held.Where(pair => !pair.Value.Device.Stuck && Now - pair.Value.HeardAt > _settings.FirstDeadline))
        {
            _log.Warning("Device {Device} has not said anything of lease {Lease} of image {Image} for {Minutes} min", held.Device.Name, key.Lease, key.Image, (int)_settings.FirstDeadline.TotalMinutes);
            held.Device.Stuck = true;
        }
        if (_devices.Exists(device => device.Stuck))
            ReturnWaiting((_, waiting) => waiting.Device.Stuck);
    }

    private void GoesOn(Device device)
    {
        if (!device.Stuck)
            return;
        _log.Warning("Device {Device} goes on", device.Name);
        device.Stuck = false;
    }

    private sealed class Device(string name, IActorRef executor)
    {
        public string Name { get; } = name;

        public IActorRef Ref { get; } = executor;

        /// <summary>Leases that it runs or that wait for it.</summary>
        public int Leases { get; set; }

        public bool Stuck { get; set; }
    }

    private sealed class Held(Device device, LeaseWork work, DateTimeOffset takenAt, double charged, CancellationTokenSource cancellation)
    {
        public Device Device { get; } = device;

        public Stage Stage { get; } = work.Stage;

        /// <summary>A lease of the whole image.</summary>
        public bool IsWhole { get; } = work.Stage is not (Stage.Score or Stage.Pack or Stage.Reconstruct);

        public int FirstBlock { get; } = work.FirstBlock;

        public int BlockCount { get; } = work.BlockCount;

        public DateTimeOffset TakenAt { get; } = takenAt;

        public double Charged { get; } = charged;

        public CancellationTokenSource Cancellation { get; } = cancellation;

        public LeaseClaim Claim { get; } = new();

        public DateTimeOffset? StartedAt { get; set; }

        public DateTimeOffset? CancelledAt { get; set; }

        /// <summary>Its device's last sign of life.</summary>
        public DateTimeOffset? HeardAt { get; set; }
    }

    private sealed record WeightsRead(IReadOnlyList<string>? Keys) : INoSerializationVerificationNeeded, IDeadLetterSuppression;

    private sealed record TellNow : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static TellNow Instance { get; } = new();
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

    private sealed record IdleTick : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static IdleTick Instance { get; } = new();
    }
}

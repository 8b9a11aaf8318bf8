using BbmrCluster.Actors.Images;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Tests.Coordination;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.State;

/// <summary>
/// A cluster in virtual time: the real placement, pull order, lease book, image state and windows, with timed devices and
/// messages that take no time. What is left out is actors and journal.
/// </summary>
internal sealed class ClusterSimulation(IReadOnlyList<SimulatedWorker> workers)
{
    private const double PlacementInterval = 0.05, AnnounceInterval = 0.2, TickInterval = 0.5;
    private static readonly CoordinationSettings Settings = new();

    private readonly PriorityQueue<Action, (double, int)> _events = new();
    private readonly Dictionary<ImageId, SimulatedImage> _open = [];
    private readonly List<SimulatedArchive> _archives = [];
    private Dictionary<WorkerId, List<ArchiveShare>> _assigned = [];
    private double _now;
    private int _serial;
    private bool _dealing;

    public double Now => _now;

    /// <summary>Images in the order they were closed, with the time.</summary>
    public List<(SimulatedArchive Archive, int Item, double At)> Closed { get; } = [];

    public DateTimeOffset Time => DateTimeOffset.UnixEpoch.AddSeconds(_now);

    public SimulatedArchive Submit(string name, int images, int width, int height, int priority = 0, int window = 16)
    {
        var archive = new SimulatedArchive(new ArchiveId(name), new Priority(priority), images, width, height, window);
        _archives.Add(archive);
        OpenMore(archive);
        return archive;
    }

    /// <summary>Runs until a condition holds; false when nothing is left to happen or virtual time runs out.</summary>
    public bool RunUntil(Func<bool> holds, double limit = 100_000)
    {
        foreach (var worker in workers.Where(worker => !worker.Ticking))
        {
            worker.Ticking = true;
            At(TickInterval, () => Tick(worker));
        }
        while (!holds())
        {
            if (!_events.TryDequeue(out var action, out var key) || key.Item1 > limit)
                return false;
            _now = key.Item1;
            action();
        }
        return true;
    }

    private void At(double delay, Action action) => _events.Enqueue(action, (_now + delay, _serial++));

    private void OpenMore(SimulatedArchive archive)
    {
        while (archive.Opened < archive.Images && archive.Opened - archive.Done < archive.Window)
        {
            var image = new SimulatedImage(archive, archive.Opened++, _serial++, Settings);
            _open.Add(image.Id, image);
            Announce(image);
        }
    }

    private void Announce(SimulatedImage image)
    {
        image.Announced = image.Useful(Time);
        image.AnnouncedAt = _now;
        DealSoon();
    }

    private void DealSoon()
    {
        if (_dealing)
            return;
        _dealing = true;
        At(PlacementInterval, () =>
        {
            _dealing = false;
            _assigned = Placement.Assign(_open.Values.Select(image => new WaitingImage(image.Id, image.Archive.Id, image.Archive.Priority, "fake", image.Announced, image.Arrival)),
                workers.Select(worker => new PresentWorker(worker.Id, 1, [], worker.Speed)), _assigned);
            foreach (var worker in workers)
            {
                worker.Order.Assign(_assigned[worker.Id]);
                Ask(worker);
            }
        });
    }

    private void Tick(SimulatedWorker worker)
    {
        worker.Order.ClearDry();
        Ask(worker);
        if (worker.Queue.Count == 0)
        {
            foreach (var image in worker.Order.Images.Select(id => _open.GetValueOrDefault(id)).OfType<SimulatedImage>().Take(1).ToList())
                Take(worker, image, image.Second(worker.Id, Time));
        }
        At(TickInterval, () => Tick(worker));
    }

    private void Ask(SimulatedWorker worker)
    {
        while (worker.Queue.Count < 2 && worker.Order.Next(_ => false) is { } id)
        {
            if (!_open.TryGetValue(id, out var image) || !Take(worker, image, image.Grant(worker.Id, Time)))
            {
                worker.Order.SetDry(id);
                image?.Waiting.Add(worker);
            }
        }
    }

    private bool Take(SimulatedWorker worker, SimulatedImage image, Lease? lease)
    {
        if (lease is null)
            return false;
        worker.Queue.Enqueue((image, lease, worker.Order.Taken(image.Id)));
        Start(worker);
        return true;
    }

    private void Start(SimulatedWorker worker)
    {
        if (worker.Running || worker.Queue.Count == 0)
            return;
        worker.Running = true;
        var (image, lease, charged) = worker.Queue.Peek();
        double seconds = worker.SecondsPerBlock * Math.Max(4, lease.Range.BlockCount) / (lease.Range.Stage is Stage.Score or Stage.Reconstruct ? 1 : 8);
        if (worker.HangsAt is { } hang && _now >= hang)
            return;
        At(seconds, () =>
        {
            worker.Queue.Dequeue();
            worker.Running = false;
            Start(worker);
            worker.Order.Settle(image.Id, charged, seconds);
            if (lease.Range.Stage is Stage.Score or Stage.Pack or Stage.Reconstruct)
                worker.Measure(lease.Range.BlockCount, seconds);
            image.Archive.Seconds += seconds;
            if (image.Complete(lease, Time))
                End(image);
            Ask(worker);
        });
    }

    private void End(SimulatedImage image)
    {
        if (image.State.Outcome is not null)
        {
            _open.Remove(image.Id);
            image.Archive.Done++;
            Closed.Add((image.Archive, image.Item, _now));
            OpenMore(image.Archive);
            DealSoon();
            return;
        }
        var waiting = image.Waiting.ToList();
        image.Waiting.Clear();
        foreach (var worker in waiting)
        {
            worker.Order.ClearDry(image.Id);
            Ask(worker);
        }
        int useful = image.Useful(Time), before = Math.Max(1, image.Announced);
        if (_now - image.AnnouncedAt >= AnnounceInterval && (useful >= 2 * before || 2 * useful <= before))
            Announce(image);
    }
}

internal sealed class SimulatedArchive(ArchiveId id, Priority priority, int images, int width, int height, int window)
{
    public ArchiveId Id { get; } = id;

    public Priority Priority { get; } = priority;

    public int Images { get; } = images;

    public (int Width, int Height) Size { get; } = (width, height);

    public int Window { get; } = window;

    public int Opened { get; set; }

    public int Done { get; set; }

    /// <summary>Device time it has had.</summary>
    public double Seconds { get; set; }
}

/// <summary>A worker of one device.</summary>
internal sealed class SimulatedWorker(int number, double secondsPerBlock, double? hangsAt = null)
{
    public WorkerId Id { get; } = new($"w{number:000}");

    public double SecondsPerBlock { get; } = secondsPerBlock;

    public double? HangsAt { get; } = hangsAt;

    public bool Ticking { get; set; }

    public bool Running { get; set; }

    public double Speed { get; private set; }

    public long Blocks { get; private set; }

    public PullOrder Order { get; } = new();

    public Queue<(SimulatedImage Image, Lease Lease, double Charged)> Queue { get; } = new();

    public void Measure(int blocks, double seconds)
    {
        Blocks += blocks;
        Speed = Speed == 0 ? blocks / seconds : (0.95 * Speed) + (0.05 * blocks / seconds);
    }
}

internal sealed class SimulatedImage
{
    private readonly LeaseBook _book;
    private readonly ImageFacts _facts;

    public SimulatedImage(SimulatedArchive archive, int item, long arrival, CoordinationSettings settings)
    {
        var job = FakeWorld.Job($"{archive.Id}-{item}", archive.Size.Width, archive.Size.Height);
        (Archive, Item, Arrival, Id, _book) = (archive, item, arrival, job.Id, new LeaseBook(1, settings));
        _facts = new ImageFacts(archive.Size.Width, archive.Size.Height, 3, false, 8, "png", 10, DateTime.UnixEpoch, "cafe", null);
        State = ImageState.Empty.Apply(new ImageEvents.Submitted(new RunId("run"), new WorkPolicy(archive.Priority), job));
    }

    public SimulatedArchive Archive { get; }

    public int Item { get; }

    public long Arrival { get; }

    public ImageId Id { get; }

    public ImageState State { get; private set; }

    public HashSet<SimulatedWorker> Waiting { get; } = [];

    public int Announced { get; set; }

    public double AnnouncedAt { get; set; }

    public int Useful(DateTimeOffset now) => _book.Useful(State, Allowed, now, 512);

    public Lease? Grant(WorkerId worker, DateTimeOffset now) => _book.Next(State, Allowed, now) is { } piece ? _book.Grant(piece, worker, now) : null;

    public Lease? Second(WorkerId worker, DateTimeOffset now) => Grant(worker, now) ?? (_book.Second(State, worker, now) is { } piece ? _book.Grant(piece, worker, now) : null);

    /// <summary>Takes the results of a lease; false when another one was first.</summary>
    public bool Complete(Lease lease, DateTimeOffset now)
    {
        if (_book.Find(lease.Id) is null)
            return false;
        foreach (var one in Events(lease.Range).ToList())
            State = State.Apply(one);
        if (State.Scored && State.Scales is null && lease.Range.Stage == Stage.Score)
            State = State.DecideAllocation(new Allocation(new byte[_facts.Grid.Count], 0, 0, "fake", null)).Aggregate(State, (state, one) => state.Apply(one));
        _book.Measure(lease, now);
        foreach (var twin in _book.Twins(lease).ToList())
            _book.End(twin.Id);
        _book.End(lease.Id);
        return true;
    }

    private IEnumerable<ImageEvents.IImageEvent> Events(WorkUnit range)
    {
        var blob = new BlobRef("b", 1, "h");
        var strips = State.Plan is null ? [] : State.Strips[State.Plan.Strips(range)];
        return range.Stage switch
        {
            Stage.Ingest => State.Decide(new ImageProbed(_facts), true).Concat(Enumerable.Range(0, _facts.Grid.Strips).Select(strip => new ImageEvents.StripStored(Stage.Ingest, new StripBlobs(strip, Raw: blob)))),
            Stage.Score => State.DecideScores(new ImageEvents.BlocksSettled(range.FirstBlock, new double[range.BlockCount * 3], [])),
            Stage.Pack => strips.SelectMany(strip => State.Decide(new StripPacked(strip with { Packed = blob }), true)),
            Stage.Reconstruct => strips.SelectMany(strip => State.Decide(new StripReconstructed(strip with { Rows = blob }), true)),
            Stage.Finish => State.Decide(new OutputsPrepared([new OutputFile("o", "t", 1, "00")], "{}"), true),
            _ => State.Decide(new OutputsCommitted(), true),
        };
    }

    private bool Allowed(WorkUnit unit)
    {
        switch (unit.Stage)
        {
            case Stage.Reconstruct:
                var plan = State.Plan!;
                int held = _book.InFlight.Select(lease => lease.Worker).Distinct().Count();
                return ReconstructionActor.Open(new ImageChildren.StripsChanged([.. plan.Of(Stage.Reconstruct).Select(State.IsReady)],
                    [.. plan.Of(Stage.Reconstruct).Select(State.IsDone)], Math.Max(Settings.ReconstructionWindow, 3 * held))).Groups.Contains(plan.GroupOf(unit.FirstBlock));
            case Stage.Finish or Stage.Commit:
                return _book.InFlight.Count == 0;
            default:
                return true;
        }
    }

    private static CoordinationSettings Settings { get; } = new();
}

using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Images;

/// <summary>A lease that someone holds.</summary>
/// <param name="Id">Identity.</param>
/// <param name="Range">What is leased: a planned unit or a piece of one.</param>
/// <param name="Planned">The planned unit.</param>
/// <param name="Worker">Who holds it.</param>
/// <param name="Attempt">1 for the first try of this range.</param>
internal sealed record Lease(LeaseId Id, WorkUnit Range, WorkUnit Planned, WorkerId Worker, int Attempt)
{
    public DateTimeOffset GrantedAt { get; set; }

    public DateTimeOffset Deadline { get; set; }

    /// <summary>Its worker has said something of it.</summary>
    public bool Heard { get; set; }

    /// <summary>The worker is through with it, and what follows is not settled yet: no deadline, but nobody else gets the range.</summary>
    public bool Closing { get; set; }

    /// <summary>Its blocks have all answered.</summary>
    public bool Resolved { get; set; }
}

/// <summary>A range that waits to be leased again.</summary>
internal sealed record Piece(WorkUnit Range, WorkUnit Planned, int Attempt, DateTimeOffset NotBefore);

/// <summary>
/// Leases in flight and ranges that wait for another try. Soft state: nothing of it is journaled, and after a restart it
/// starts empty. Not thread-safe; owned by one coordinator. Time comes as an argument.
/// </summary>
internal sealed class LeaseBook(long epoch, CoordinationSettings settings)
{
    private readonly Dictionary<LeaseId, Lease> _inFlight = [];
    private readonly List<Piece> _pieces = [];
    private readonly Dictionary<(WorkUnit Range, FailureClass Failure), int> _failures = [];
    private readonly Dictionary<WorkUnit, int> _losses = [];
    private readonly Dictionary<Stage, double> _secondsPerBlock = [];
    // Planned units that are leased or wait to be, with how often.
    private readonly Dictionary<WorkUnit, int> _taken = [];
    private (ImageState? State, List<WorkUnit> Units) _ready = (null, []);
    private int _number;

    public IReadOnlyCollection<Lease> InFlight => _inFlight.Values;

    /// <summary>Ranges cut smaller since last asked.</summary>
    public int Bisected { get; private set; }

    /// <summary>Whether some worker still has a lease in hand.</summary>
    public bool Busy => _inFlight.Values.Any(lease => !lease.Closing);

    /// <summary>Number of the latest lease.</summary>
    public int Latest => _number;

    /// <summary>Whether it was granted here, now held or not.</summary>
    public bool IsOurs(LeaseId id) => id.Epoch == epoch && id.Number <= _number;

    public Lease? Find(LeaseId id) => _inFlight.GetValueOrDefault(id);

    public int TakeBisected() => (Bisected, Bisected = 0).Item1;

    /// <summary>
    /// The next range to lease: waiting pieces first, then planned units, later stages before earlier ones so that
    /// intermediate results are used up before new ones are made.
    /// </summary>
    /// <param name="state">The journaled state.</param>
    /// <param name="allowed">Further conditions (windows).</param>
    /// <param name="now">Time.</param>
    public Piece? Next(ImageState state, Func<WorkUnit, bool> allowed, DateTimeOffset now)
    {
        foreach (var done in _pieces.Where(piece => state.IsDone(piece.Planned)).ToList())
            Remove(done);
        if (_pieces.Where(piece => piece.NotBefore <= now && state.IsReady(piece.Range) && allowed(piece.Planned))
            .OrderByDescending(piece => piece.Range.Stage).ThenBy(piece => piece.Range.FirstBlock).FirstOrDefault() is { } waiting)
            return waiting;
        if (state.Plan is null)
            return FirstIngest(now);
        foreach (var unit in Ready(state))
        {
            if (!IsTaken(unit) && allowed(unit))
                return new Piece(unit, unit, 1, now);
        }
        return null;
    }

    /// <summary>
    /// A second lease of a range that another worker takes long with: near the end of an image one slow or hanging device
    /// must not hold up all others. Whichever result comes first counts.
    /// </summary>
    public Piece? Second(ImageState state, WorkerId worker, DateTimeOffset now)
    {
        var (slow, worst) = ((Lease?)null, settings.SecondLeaseFactor);
        foreach (var lease in _inFlight.Values)
        {
            if (lease.Closing || lease.Worker == worker || lease.Range.Stage is not (Stage.Score or Stage.Pack or Stage.Reconstruct)
                || !_secondsPerBlock.TryGetValue(lease.Range.Stage, out double usual) || state.IsDone(lease.Planned) || Twins(lease).Any())
                continue;
            double times = (now - lease.GrantedAt).TotalSeconds / (usual * lease.Range.BlockCount);
            if (times >= worst)
                (slow, worst) = (lease, times);
        }
        return slow is null ? null : new Piece(slow.Range, slow.Planned, slow.Attempt + 1, now);
    }

    /// <summary>Other leases of the same range.</summary>
    public IEnumerable<Lease> Twins(Lease lease) => _inFlight.Values.Where(other => other.Range == lease.Range && other.Id != lease.Id && !other.Closing);

    /// <summary>How many leases could be in workers' hands, counted up to a limit.</summary>
    public int Useful(ImageState state, Func<WorkUnit, bool> allowed, DateTimeOffset now, int limit)
    {
        int held = _inFlight.Values.Count(lease => !lease.Closing);
        int ready = _pieces.Count(piece => piece.NotBefore <= now && state.IsReady(piece.Range) && allowed(piece.Planned));
        if (state.Plan is null)
            return Math.Min(limit, held + ready + (IsTaken(new WorkUnit(Stage.Ingest, 0, 0)) ? 0 : 1));
        return Math.Min(limit, held + ready + Ready(state).Where(unit => !IsTaken(unit) && allowed(unit)).Take(limit).Count());
    }

    public Lease Grant(Piece piece, WorkerId worker, DateTimeOffset now)
    {
        Remove(piece);
        Count(piece.Planned, 1);
        var lease = new Lease(new LeaseId(epoch, ++_number), piece.Range, piece.Planned, worker, piece.Attempt) { GrantedAt = now };
        _inFlight.Add(lease.Id, lease);
        SetDeadline(lease, now);
        return lease;
    }

    /// <summary>Any sign of life moves the deadline.</summary>
    public void Renew(Lease lease, DateTimeOffset now)
    {
        lease.Heard = true;
        SetDeadline(lease, now);
    }

    // Five times the time expected from the stage's measured speed, at least 30 s.
    private void SetDeadline(Lease lease, DateTimeOffset now)
    {
        var time = _secondsPerBlock.TryGetValue(lease.Range.Stage, out double seconds)
            ? TimeSpan.FromSeconds(Math.Min(seconds * Math.Max(1, lease.Range.BlockCount) * settings.DeadlineFactor, 86_400))
            : settings.FirstDeadline;
        lease.Deadline = now + (time > settings.MinimumDeadline ? time : settings.MinimumDeadline);
    }

    /// <summary>Ends a lease; null when it is not (or no longer) held.</summary>
    public Lease? End(LeaseId id)
    {
        if (!_inFlight.Remove(id, out var lease))
            return null;
        Count(lease.Planned, -1);
        return lease;
    }

    /// <summary>Learns the speed of a stage from a lease that went through.</summary>
    public void Measure(Lease lease, DateTimeOffset now)
    {
        double seconds = (now - lease.GrantedAt).TotalSeconds / Math.Max(1, lease.Range.BlockCount);
        _secondsPerBlock[lease.Range.Stage] = _secondsPerBlock.TryGetValue(lease.Range.Stage, out double old) ? (0.7 * old) + (0.3 * seconds) : seconds;
    }

    /// <summary>Leases that nobody seems to work on any more, or that never arrived.</summary>
    public IReadOnlyList<Lease> Overdue(DateTimeOffset now) =>
        [.. _inFlight.Values.Where(lease => !lease.Closing && (lease.Deadline < now || (!lease.Heard && lease.GrantedAt + settings.GrantDeadline < now)))];

    /// <summary>The range is tried again as it is; no attempt counts.</summary>
    public void Requeue(Lease lease, DateTimeOffset notBefore) => Add(new Piece(lease.Range, lease.Planned, lease.Attempt, notBefore));

    /// <summary>Counts the workers that were lost with a range.</summary>
    public int Lost(Lease lease) => _losses[lease.Range] = _losses.GetValueOrDefault(lease.Range) + 1;

    /// <summary>Cuts what is left of a Score lease along its blocks' wishes: runs of neighbours, each at most as long as its blocks want.</summary>
    /// <param name="lease">The ended lease.</param>
    /// <param name="wishes">Unsettled block to the largest lease it wants.</param>
    /// <param name="now">Time.</param>
    public void Cut(Lease lease, IReadOnlyDictionary<int, int> wishes, DateTimeOffset now)
    {
        var blocks = wishes.Keys.Order().ToList();
        int made = 0;
        for (int i = 0; i < blocks.Count;)
        {
            int length = 1, most = wishes[blocks[i]];
            while (length < most && i + length < blocks.Count && blocks[i + length] == blocks[i] + length && wishes[blocks[i + length]] == most)
                length++;
            bool whole = blocks[i] == lease.Range.FirstBlock && length == lease.Range.BlockCount;
            Add(new Piece(lease.Range with { FirstBlock = blocks[i], BlockCount = length }, lease.Planned,
                lease.Attempt + 1, whole ? now + (settings.RetryDelay * lease.Attempt) : now));
            made += whole ? 0 : 1;
            i += length;
        }
        Bisected += made;
    }

    /// <summary>
    /// A lease of whole strips failed: again, or in halves when one of its blocks is to blame.
    /// </summary>
    /// <returns>False when the attempts are used up.</returns>
    public bool Retry(Lease lease, FailureClass failure, int columns, int attempts, DateTimeOffset now)
    {
        int strips = lease.Range.BlockCount / Math.Max(1, columns);
        if (failure == FailureClass.Block && lease.Range.Stage is Stage.Pack or Stage.Reconstruct && strips > 1)
        {
            int first = (strips + 1) / 2 * columns;
            Add(new Piece(lease.Range with { BlockCount = first }, lease.Planned, lease.Attempt + 1, now));
            Add(new Piece(lease.Range with { FirstBlock = lease.Range.FirstBlock + first, BlockCount = lease.Range.BlockCount - first }, lease.Planned, lease.Attempt + 1, now));
            Bisected += 2;
            return true;
        }
        int tries = _failures[(lease.Range, failure)] = _failures.GetValueOrDefault((lease.Range, failure)) + 1;
        if (tries >= attempts)
            return false;
        Add(new Piece(lease.Range, lease.Planned, lease.Attempt + 1, now + (settings.RetryDelay * tries)));
        return true;
    }

    /// <summary>Whether any part of the planned unit is leased or waits to be.</summary>
    public bool IsTaken(WorkUnit planned) => _taken.ContainsKey(Key(planned));

    /// <summary>Forgets what waits, and leases that only wait to be settled. Leases in hand stay until they are given back.</summary>
    public void Clear()
    {
        _pieces.ToList().ForEach(Remove);
        _failures.Clear();
        _losses.Clear();
        foreach (var lease in _inFlight.Values.Where(lease => lease.Closing).ToList())
            End(lease.Id);
    }

    // Ingest, Finish and Commit are one lease each, whatever was known of the grid when it was granted.
    private static WorkUnit Key(WorkUnit unit) => unit.Stage is Stage.Ingest or Stage.Finish or Stage.Commit ? new WorkUnit(unit.Stage, 0, 0) : unit;

    // Not done and ready to be worked on; the same as long as the state is the same.
    private List<WorkUnit> Ready(ImageState state)
    {
        if (!ReferenceEquals(_ready.State, state))
            _ready = (state, state.Plan is { } plan ? [.. state.Stages.Reverse().SelectMany(plan.Of).Where(unit => !state.IsDone(unit) && state.IsReady(unit))] : []);
        return _ready.Units;
    }

    private void Add(Piece piece)
    {
        _pieces.Add(piece);
        Count(piece.Planned, 1);
    }

    private void Remove(Piece piece)
    {
        if (_pieces.Remove(piece))
            Count(piece.Planned, -1);
    }

    private void Count(WorkUnit planned, int change)
    {
        var key = Key(planned);
        if ((_taken[key] = _taken.GetValueOrDefault(key) + change) == 0)
            _taken.Remove(key);
    }

    // Before the header is read there is no grid: one lease that covers nothing known yet.
    private Piece? FirstIngest(DateTimeOffset now)
    {
        var unit = new WorkUnit(Stage.Ingest, 0, 0);
        return IsTaken(unit) ? null : new Piece(unit, unit, 1, now);
    }
}

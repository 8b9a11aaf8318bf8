using Akka.Actor;
using Akka.Cluster;
using Akka.Event;

namespace BbmrCluster.Node.Cluster;

/// <summary>
/// Ends a node that has joined and is not taken up for long. A coordinator that is the first seed and reaches nobody begins
/// a cluster of its own; it does nothing there, since most of the coordinators must have joined first, but it would never
/// find to the others either: started again it does.
/// </summary>
internal sealed class JoinWatch : ReceiveActor, IWithTimers
{
    private readonly Akka.Cluster.Cluster _cluster = Akka.Cluster.Cluster.Get(Context.System);
    private readonly ILoggingAdapter _log = Context.GetLogger();
    private readonly TimeSpan _limit;
    private DateTimeOffset? _joined;

    public JoinWatch(TimeSpan limit)
    {
        _limit = limit;
        Receive<Tick>(_ => Look());
    }

    public ITimerScheduler? Timers { get; set; }

    public static Props Props(TimeSpan limit) => Akka.Actor.Props.Create(() => new JoinWatch(limit));

    protected override void PreStart() => Timers!.StartPeriodicTimer("tick", Tick.Instance, TimeSpan.FromSeconds(1));

    private void Look()
    {
        if (_cluster.State.Members.All(member => !member.UniqueAddress.Equals(_cluster.SelfUniqueAddress) || member.Status is not (MemberStatus.Joining or MemberStatus.WeaklyUp)))
        {
            _joined = null;
            return;
        }
        DateTimeOffset now = Context.System.Scheduler.Now;
        _joined ??= now;
        if (now - _joined < _limit)
            return;
        _log.Warning("This node has joined and was not taken up for {0} s: most of the coordinators in seed_nodes must be there and reach each other", (int)_limit.TotalSeconds);
        Timers!.CancelAll();
        // Down first: a member that is not up cannot leave, and the shutdown would wait for that.
        _cluster.Down(_cluster.SelfAddress);
        _ = CoordinatedShutdown.Get(Context.System).Run(CoordinatedShutdown.ClusterDowningReason.Instance);
    }

    private sealed record Tick : INoSerializationVerificationNeeded
    {
        public static Tick Instance { get; } = new();
    }
}

using Akka.Actor;
using Akka.Cluster;
using Akka.Event;

namespace BbmrCluster.Node.Cluster;

/// <summary>
/// Ends a node that has joined and is not taken up for long. A coordinator that is the first seed and reaches nobody begins
/// a cluster of its own; it does nothing there, since most of the coordinators must have joined first, but it would never
/// find to the others either: started again it does. One that nobody takes in tells so, and what that may come from, and
/// ends later than that: a new process begins with new connections.
/// </summary>
internal sealed class JoinWatch : ReceiveActor, IWithTimers
{
    private static readonly TimeSpan TellAfter = TimeSpan.FromSeconds(20);

    private readonly Akka.Cluster.Cluster _cluster = Akka.Cluster.Cluster.Get(Context.System);
    private readonly ILoggingAdapter _log = Context.GetLogger();
    private readonly TimeSpan _limit;
    private readonly string _seeds;
    private DateTimeOffset? _joined, _alone;
    private bool _told;

    public JoinWatch(TimeSpan limit, string seeds)
    {
        (_limit, _seeds) = (limit, seeds);
        Receive<Tick>(_ => Look());
    }

    public ITimerScheduler? Timers { get; set; }

    /// <param name="limit">How long it may have joined without being taken up; twice that it may be without anyone who takes it in.</param>
    /// <param name="seeds">Whom it asks, for people; empty for nobody.</param>
    public static Props Props(TimeSpan limit, string seeds) => Akka.Actor.Props.Create(() => new JoinWatch(limit, seeds));

    protected override void PreStart() => Timers!.StartPeriodicTimer("tick", Tick.Instance, TimeSpan.FromSeconds(1));

    private void Look()
    {
        LookWhenAlone();
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
        End();
    }

    private void End()
    {
        Timers!.CancelAll();
        // Down first: a member that is not up cannot leave, and the shutdown would wait for that.
        _cluster.Down(_cluster.SelfAddress);
        _ = CoordinatedShutdown.Get(Context.System).Run(CoordinatedShutdown.ClusterDowningReason.Instance);
    }

    private void LookWhenAlone()
    {
        DateTimeOffset now = Context.System.Scheduler.Now;
        if (_seeds.Length == 0 || _cluster.State.Members.Count > 0)
        {
            _alone = null;
            return;
        }
        _alone ??= now;
        if (now - _alone >= _limit * 2)
        {
            _log.Warning("No node in seed_nodes ({0}) has taken this one in for {1} s", _seeds, (int)(_limit * 2).TotalSeconds);
            End();
            return;
        }
        if (_told || now - _alone < TellAfter)
            return;
        _told = true;
        _log.Warning("No node in seed_nodes ({0}) has taken this one in yet. Do they run, is each the address that it has itself in 'host' and 'port', and has either every node TLS or none (this node has {1})?",
            _seeds, _cluster.SelfAddress.Protocol.Contains("ssl", StringComparison.Ordinal) ? "TLS" : "none");
    }

    private sealed record Tick : INoSerializationVerificationNeeded
    {
        public static Tick Instance { get; } = new();
    }
}

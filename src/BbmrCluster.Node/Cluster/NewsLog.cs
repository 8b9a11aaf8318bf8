using Akka.Actor;
using Akka.Cluster;
using BbmrCluster.Actors.Protocol;

namespace BbmrCluster.Node.Cluster;

/// <summary>Writes into a coordinator's log which nodes come and go and what becomes of jobs.</summary>
internal sealed class NewsLog : ReceiveActor
{
    private readonly Akka.Cluster.Cluster _cluster = Akka.Cluster.Cluster.Get(Context.System);

    public NewsLog(Action<string> write)
    {
        Receive<ClusterNews>(news => write(news.Text));
        Receive<ClusterEvent.MemberUp>(up => !up.Member.UniqueAddress.Equals(_cluster.SelfUniqueAddress), up => write($"{Name(up.Member)} has joined"));
        Receive<ClusterEvent.MemberUp>(_ => { });
        Receive<ClusterEvent.MemberRemoved>(gone => write($"{Name(gone.Member)} {(gone.PreviousStatus == MemberStatus.Down ? "was removed" : "has left")}"));
    }

    public static Props Props(Action<string> write) => Akka.Actor.Props.Create(() => new NewsLog(write));

    protected override void PreStart()
    {
        Context.System.EventStream.Subscribe(Self, typeof(ClusterNews));
        _cluster.Subscribe(Self, ClusterEvent.SubscriptionInitialStateMode.InitialStateAsEvents, typeof(ClusterEvent.MemberUp), typeof(ClusterEvent.MemberRemoved));
    }

    protected override void PostStop() => _cluster.Unsubscribe(Self);

    private static string Name(Member member) => $"{member.Address} ({string.Join(", ", member.Roles.Where(role => !role.StartsWith("dc-", StringComparison.Ordinal)))})";
}

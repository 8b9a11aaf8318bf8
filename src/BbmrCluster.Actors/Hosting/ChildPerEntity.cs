using Akka.Actor;
using Akka.Cluster.Sharding;
using BbmrCluster.Actors.Protocol;

namespace BbmrCluster.Actors.Hosting;

/// <summary>Routes messages to the coordinator of their image or archive; the same in local and cluster mode.</summary>
internal sealed class EntityExtractor : HashCodeMessageExtractor
{
    // About ten times the coordinators a cluster will ever have. It must never change for a journal.
    private const int Shards = 100;

    public EntityExtractor()
        : base(Shards)
    {
    }

    public override string? EntityId(object message) => message switch
    {
        IWithImageId image => image.ImageId.Value,
        IWithArchiveId archive => archive.ArchiveId.Value,
        _ => null,
    };
}

/// <summary>
/// The local stand-in for a shard region: one child per entity, made by its first message, with the same extractor and
/// the same passivation. A child that is stopping gets its messages when it is back.
/// </summary>
internal sealed class ChildPerEntity : ReceiveActor
{
    private readonly Dictionary<string, IActorRef> _children = new(StringComparer.Ordinal);
    private readonly Dictionary<IActorRef, (string Id, Queue<(object Message, IActorRef Sender)> Buffer)> _stopping = [];

    public ChildPerEntity(IMessageExtractor extractor, Func<string, Props> props)
    {
        Receive<Passivate>(passivate =>
        {
            if (_stopping.ContainsKey(Sender))
                return;
            _stopping[Sender] = (Sender.Path.Name, new Queue<(object, IActorRef)>());
            Sender.Tell(passivate.StopMessage);
        });
        Receive<Terminated>(gone =>
        {
            _children.Remove(gone.ActorRef.Path.Name);
            if (_stopping.Remove(gone.ActorRef, out var stopped))
            {
                foreach (var (message, sender) in stopped.Buffer)
                    Self.Tell(message, sender);
            }
        });
        ReceiveAny(message =>
        {
            if (extractor.EntityId(message) is not { } id)
            {
                Unhandled(message);
                return;
            }
            if (!_children.TryGetValue(id, out var child))
            {
                child = Context.Watch(Context.ActorOf(props(id), id));
                _children.Add(id, child);
            }
            if (_stopping.TryGetValue(child, out var stopping))
                stopping.Buffer.Enqueue((message, Sender));
            else
                child.Forward(extractor.EntityMessage(message)!);
        });
    }

    public static Props Props(IMessageExtractor extractor, Func<string, Props> props) => Akka.Actor.Props.Create(() => new ChildPerEntity(extractor, props));
}

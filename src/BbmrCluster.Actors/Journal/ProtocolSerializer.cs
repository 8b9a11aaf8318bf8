using System.Buffers.Binary;
using System.IO.Hashing;
using Akka.Actor;
using Akka.Serialization;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;
using Google.Protobuf;
using W = BbmrCluster.Actors.Journal.Wire;

namespace BbmrCluster.Actors.Journal;

/// <summary>
/// The one serializer of journal entries and of messages between nodes: protobuf with short manifests. A manifest never
/// changes its meaning; an unknown one is refused. Journal entries end with the XXH3-64 of what comes before, little
/// endian: a database notices damage of its structure, not of the bytes in it.
/// </summary>
internal sealed class ProtocolSerializer(ExtendedActorSystem system) : SerializerWithStringManifest(system)
{
    private static readonly (string Manifest, Type Type)[] Known =
    [
        ("ie", typeof(ImageEvents.Batch)),
        ("ae", typeof(ArchiveEvents.Batch)),
        ("pe", typeof(PageEvents.Batch)),
        ("xe", typeof(IndexEvents.Batch)),
        ("as", typeof(ArchiveCommands.SubmitArchive)),
        ("ai", typeof(ArchiveCommands.AddItems)),
        ("aw", typeof(ArchiveCommands.WatchArchive)),
        ("ax", typeof(ArchiveCommands.StopArchive)),
        ("ac", typeof(ArchiveCommands.ControlArchive)),
        ("al", typeof(ArchiveCommands.ListItems)),
        ("aa", typeof(ArchiveReplies.ArchiveAccepted)),
        ("ar", typeof(ArchiveReplies.ArchiveRefused)),
        ("aq", typeof(ArchiveReplies.ItemsWanted)),
        ("ad", typeof(ArchiveReplies.ControlAnswered)),
        ("at", typeof(ArchiveReplies.ItemsListed)),
        ("au", typeof(ArchiveReplies.RunUnknown)),
        ("an", typeof(ArchiveReplies.Notified)),
        ("in", typeof(ArchiveFacts.ImageNotified)),
        ("ic", typeof(ArchiveFacts.ImageClosed)),
        ("is", typeof(ArchiveFacts.ImageStopped)),
        ("xt", typeof(IndexMessages.ArchiveTold)),
        ("xl", typeof(IndexMessages.ArchiveListed)),
        ("xq", typeof(IndexMessages.ListArchives)),
        ("xf", typeof(IndexMessages.FindArchive)),
        ("xa", typeof(IndexMessages.Archives)),
        ("io", typeof(ImageCommands.OpenImage)),
        ("ix", typeof(ImageCommands.StopImage)),
        ("ia", typeof(ImageCommands.AcknowledgeOutcome)),
        ("iw", typeof(ImageCommands.SweepImage)),
        ("lq", typeof(ImageCommands.RequestLeases)),
        ("lm", typeof(LeaseReplies.LeasesGranted)),
        ("lw", typeof(LeaseReplies.WorkReady)),
        ("lx", typeof(LeaseReplies.LeaseCancelled)),
        ("lk", typeof(LeaseReplies.LeasesAcknowledged)),
        ("lt", typeof(LeaseFacts.LeasesTold)),
        ("lh", typeof(LeaseFacts.LeasesHeld)),
        ("bw", typeof(BrokerFacts.WorkerPresent)),
        ("bi", typeof(BrokerFacts.ImageWaiting)),
        ("bg", typeof(BrokerFacts.ImageGone)),
        ("bd", typeof(BrokerCommands.DrainWorker)),
        ("bu", typeof(BrokerCommands.UndrainWorker)),
        ("bl", typeof(BrokerCommands.ListWorkers)),
        ("bv", typeof(BrokerCommands.Workers)),
        ("bn", typeof(BrokerNotices.NobodyServes)),
        ("ba", typeof(BrokerNotices.Assignment)),
    ];

    private static readonly Dictionary<Type, string> Manifests = Known.ToDictionary(entry => entry.Type, entry => entry.Manifest);

    /// <summary>All manifests, for the tests that hold them.</summary>
    public static IEnumerable<string> AllManifests => Known.Select(entry => entry.Manifest);

    public override int Identifier => 4107;

    public override string Manifest(object o) =>
        Manifests.TryGetValue(o.GetType(), out string? manifest) ? manifest : throw new ArgumentException($"{o.GetType()} has no manifest.", nameof(o));

    public override byte[] ToBinary(object obj) => obj switch
    {
        ImageEvents.Batch batch => Sealed(ToWire.ImageBatch(batch)),
        ArchiveEvents.Batch batch => Sealed(ToWire.ArchiveBatch(batch)),
        PageEvents.Batch batch => Sealed(ToWire.PageBatch(batch)),
        IndexEvents.Batch batch => Sealed(ToWire.IndexBatch(batch)),
        _ => ToWire.Message(obj).ToByteArray(),
    };

    /// <exception cref="InvalidDataException">A journal entry is damaged.</exception>
    public override object FromBinary(byte[] bytes, string manifest) => manifest switch
    {
        "ie" => FromWire.ImageBatch(W.ImageEvents.Parser.ParseFrom(Opened(bytes))),
        "ae" => FromWire.ArchiveBatch(W.ArchiveEvents.Parser.ParseFrom(Opened(bytes))),
        "pe" => FromWire.PageBatch(W.PageEvents.Parser.ParseFrom(Opened(bytes))),
        "xe" => FromWire.IndexBatch(W.IndexEvents.Parser.ParseFrom(Opened(bytes))),
        _ => FromWire.Message(manifest, W.Message.Parser.ParseFrom(bytes)),
    };

    /// <summary>A lease's work, for a blob.</summary>
    public static byte[] Bytes(LeaseWork work) => ToWire.Work(work).ToByteArray();

    /// <summary>The opposite.</summary>
    public static LeaseWork Work(byte[] bytes) => FromWire.Work(W.Work.Parser.ParseFrom(bytes));

    private static byte[] Sealed(IMessage entry)
    {
        int length = entry.CalculateSize();
        var bytes = new byte[length + sizeof(ulong)];
        entry.WriteTo(bytes.AsSpan(0, length));
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(length), XxHash3.HashToUInt64(bytes.AsSpan(0, length)));
        return bytes;
    }

    private static ReadOnlySpan<byte> Opened(byte[] bytes)
    {
        int length = bytes.Length - sizeof(ulong);
        return length >= 0 && BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan(length)) == XxHash3.HashToUInt64(bytes.AsSpan(0, length))
            ? bytes.AsSpan(0, length)
            : throw new InvalidDataException("a journal entry is damaged");
    }
}

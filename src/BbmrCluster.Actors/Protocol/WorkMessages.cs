using Akka.Actor;
using BbmrCluster.Actors.Work;

namespace BbmrCluster.Actors.Protocol;

/// <summary>What the broker hears. It keeps soft state only, so everything is repeated.</summary>
internal static class BrokerFacts
{
    /// <summary>The sender has so many devices.</summary>
    public sealed record WorkerPresent(WorkerId Worker, int Devices) : IWireMessage;

    /// <summary>The sender's image has work.</summary>
    public sealed record ImageWaiting(ImageId ImageId, ArchiveId ArchiveId, Priority Priority, int OpenLeases) : IWireMessage;

    /// <summary>The image needs no worker any more.</summary>
    public sealed record ImageGone(ImageId ImageId) : IWireMessage;
}

/// <summary>What an operator asks of the broker.</summary>
internal static class BrokerCommands
{
    /// <summary>The worker gets no more leases; it finishes what it holds.</summary>
    public sealed record DrainWorker(WorkerId Worker) : IWireMessage;
}

/// <summary>What the broker tells a worker.</summary>
internal static class BrokerNotices
{
    /// <summary>The images to serve, most important first; absolute.</summary>
    public sealed record Assignment(IReadOnlyList<ImageId> Images) : IWireMessage;
}

/// <summary>Between a worker manager and its device executors; never leaves the process.</summary>
internal static class DeviceMessages
{
    public sealed record RunLease(ImageId ImageId, LeaseId Lease, LeaseWork Work, BlobRef? Whole, CancellationToken Cancellation) : INoSerializationVerificationNeeded;

    public sealed record DeviceReport(ImageId ImageId, LeaseId Lease, StageReport Report) : INoSerializationVerificationNeeded;

    public sealed record DeviceEnded(LeaseFacts.ILeaseEnd End) : INoSerializationVerificationNeeded;
}

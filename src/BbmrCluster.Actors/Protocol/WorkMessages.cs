using Akka.Actor;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Protocol;

/// <summary>What the broker hears. It keeps soft state only, so everything is repeated.</summary>
internal static class BrokerFacts
{
    /// <summary>The sender is there; its phase, images and leases are as it knows them.</summary>
    /// <param name="Worker">The sender.</param>
    /// <param name="Weights">Keys of the weights it has (<see cref="Workers.WeightKeys"/>); null when it takes jobs with any.</param>
    public sealed record WorkerPresent(WorkerOverview Worker, IReadOnlyList<string>? Weights = null) : IWireMessage;

    /// <summary>The sender's image has work.</summary>
    /// <param name="ImageId">The image.</param>
    /// <param name="ArchiveId">An archive that opened it.</param>
    /// <param name="Priority">Importance.</param>
    /// <param name="DeviceClass">Only workers of this class can serve it.</param>
    /// <param name="Useful">How many leases could be in workers' hands at this moment.</param>
    /// <param name="Weights">Keys of the weights that a worker must have to serve it, as one text.</param>
    public sealed record ImageWaiting(ImageId ImageId, ArchiveId ArchiveId, Priority Priority, string DeviceClass, int Useful, string Weights = "") : IWireMessage;

    /// <summary>The image needs no worker any more.</summary>
    public sealed record ImageGone(ImageId ImageId) : IWireMessage;
}

/// <summary>What an operator asks of the broker.</summary>
internal static class BrokerCommands
{
    /// <summary>The worker gets no more leases; it finishes what its devices have begun and returns the rest. Answered by <see cref="Workers"/>.</summary>
    public sealed record DrainWorker(WorkerId Worker) : IWireMessage;

    /// <summary>The worker gets leases again. Answered by <see cref="Workers"/>.</summary>
    public sealed record UndrainWorker(WorkerId Worker) : IWireMessage;

    /// <summary>Asks for the workers from a place on, in the order of their ids. Answered by <see cref="Workers"/>.</summary>
    public sealed record ListWorkers(int From) : IWireMessage;

    /// <summary>Some workers; after a command the one it named, if it is known.</summary>
    public sealed record Workers(IReadOnlyList<WorkerOverview> Items) : IWireMessage;
}

/// <summary>Why no worker can serve an image.</summary>
internal enum Lack
{
    /// <summary>There is none, or all are drained.</summary>
    Worker,

    /// <summary>None has devices of its class.</summary>
    DeviceClass,

    /// <summary>None of those that have has its weights.</summary>
    Weights,
}

/// <summary>What the broker tells workers and images.</summary>
internal static class BrokerNotices
{
    /// <summary>There is no worker that can serve the image.</summary>
    /// <param name="ImageId">The image.</param>
    /// <param name="Lacks">What there is none with.</param>
    public sealed record NobodyServes(ImageId ImageId, Lack Lacks) : IWireMessage;

    /// <summary>Whom to serve, absolute: archives with the part of the worker each may have, their images with the most important first.</summary>
    /// <param name="Shares">The archives.</param>
    /// <param name="Draining">No more leases are wanted.</param>
    /// <param name="Partial">The broker is new and has not heard of everybody yet: what the worker served so far it goes on with.</param>
    public sealed record Assignment(IReadOnlyList<ArchiveShare> Shares, bool Draining, bool Partial = false) : IWireMessage;
}

/// <summary>A worker's time for an archive.</summary>
/// <param name="Archive">The archive.</param>
/// <param name="Weight">Its part of the worker's time, relative to the others; 0: only when the others have no work.</param>
/// <param name="Images">Its images in the order they are to be served.</param>
internal sealed record ArchiveShare(ArchiveId Archive, double Weight, IReadOnlyList<ImageId> Images);

/// <summary>Decides between a device that begins a lease and a manager that gives it back: whoever is first has it. Thread-safe.</summary>
internal sealed class LeaseClaim
{
    private int _taken;

    public bool TryTake() => Interlocked.Exchange(ref _taken, 1) == 0;
}

/// <summary>Between a worker manager and its device executors; never leaves the process.</summary>
internal static class DeviceMessages
{
    /// <param name="ImageId">The image.</param>
    /// <param name="Lease">The lease.</param>
    /// <param name="Work">What to do.</param>
    /// <param name="Whole">Its lists, where they did not fit a message.</param>
    /// <param name="Claim">Whose it is: the device's when it begins, or the manager's when it gives it back before.</param>
    /// <param name="Cancellation">Ends it.</param>
    public sealed record RunLease(ImageId ImageId, LeaseId Lease, LeaseWork Work, BlobRef? Whole, LeaseClaim Claim, CancellationToken Cancellation) : INoSerializationVerificationNeeded;

    /// <summary>The lease no longer waits for its device.</summary>
    public sealed record DeviceStarted(ImageId ImageId, LeaseId Lease) : INoSerializationVerificationNeeded;

    public sealed record DeviceReport(ImageId ImageId, LeaseId Lease, StageReport Report) : INoSerializationVerificationNeeded;

    public sealed record DeviceEnded(ImageId ImageId, LeaseFacts.ILeaseEnd End) : INoSerializationVerificationNeeded;
}

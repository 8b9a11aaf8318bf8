using Akka.Actor;
using Akka.Event;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Protocol;

/// <summary>What archives and workers ask of an image coordinator.</summary>
internal static class ImageCommands
{
    /// <summary>
    /// Work on this image; the sender is told what happens. Repeated while the image is open, which also brings a
    /// coordinator back that was lost. A closed image of the same run tells its outcome again, of another run starts anew.
    /// </summary>
    public sealed record OpenImage(ImageId ImageId, ArchiveId ArchiveId, RunId Run, WorkPolicy Policy, ImageJob Job) : IWithImageId, IWireMessage;

    /// <summary>
    /// Unless another archive has it open too: take all leases back, journal what came in, and answer
    /// <see cref="ArchiveFacts.ImageStopped"/>. With <paramref name="Discard"/> nobody will go on with what was done in this
    /// run: what is there of the image, journal and blobs, is deleted.
    /// </summary>
    public sealed record StopImage(ImageId ImageId, ArchiveId ArchiveId, RunId Run, bool Discard) : IWithImageId, IWireMessage;

    /// <summary>The archive has journaled the outcome: the image's own events may go.</summary>
    public sealed record AcknowledgeOutcome(ImageId ImageId, RunId Run) : IWithImageId, IWireMessage;

    /// <summary>
    /// Nothing was written for the image in a long time: if nobody needs its blobs, delete them. With
    /// <paramref name="Unfinished"/> also when it is unfinished and no archive has it open; it then starts anew when one does,
    /// and so does one whose outcome no archive has asked for.
    /// </summary>
    public sealed record SweepImage(ImageId ImageId, bool Unfinished) : IWithImageId, IWireMessage;

    /// <summary>The sender has room for so many leases. Answered once, by <see cref="LeaseReplies.LeasesGranted"/>.</summary>
    /// <param name="ImageId">The image.</param>
    /// <param name="Worker">The sender.</param>
    /// <param name="Count">At most so many.</param>
    /// <param name="DeviceClasses">Classes of its devices; empty for any.</param>
    /// <param name="Second">Its device stands idle: when there is nothing else, it takes a second lease of what another takes long with.</param>
    public sealed record RequestLeases(ImageId ImageId, WorkerId Worker, int Count, IReadOnlyList<string> DeviceClasses, bool Second = false) : IWithImageId, IWireMessage;
}

/// <summary>What a coordinator tells the holder of leases.</summary>
internal static class LeaseReplies
{
    /// <summary>The answer to a request.</summary>
    /// <param name="ImageId">The image.</param>
    /// <param name="Leases">At most as many as were asked for.</param>
    /// <param name="Exhausted">No more for now; <see cref="WorkReady"/> follows when there is. Else fewer than asked for only because a message is full.</param>
    public sealed record LeasesGranted(ImageId ImageId, IReadOnlyList<GrantedLease> Leases, bool Exhausted) : IWireMessage;

    /// <summary>A lease, complete in itself. What would be too large for a message lies in a blob: then the work here lacks its lists.</summary>
    public sealed record GrantedLease(LeaseId Lease, LeaseWork Work, BlobRef? Whole = null);

    /// <summary>There is work again: ask.</summary>
    public sealed record WorkReady(ImageId ImageId) : IWireMessage;

    /// <summary>Stop working on a lease and give it back.</summary>
    public sealed record LeaseCancelled(ImageId ImageId, LeaseId Lease) : IWireMessage;

    /// <summary>The ends of leases are known here, also when they are duplicates or too late.</summary>
    public sealed record LeasesAcknowledged(ImageId ImageId, IReadOnlyList<LeaseId> Leases) : IWireMessage;
}

/// <summary>What workers tell about leases; cannot be rejected. The first correct result of a range counts, whichever lease it comes from.</summary>
internal static class LeaseFacts
{
    /// <summary>What a worker has to tell about one image, in order.</summary>
    public sealed record LeasesTold(ImageId ImageId, IReadOnlyList<ILeaseFact> Facts) : IWithImageId, IWireMessage;

    /// <summary>A result or a sign of life.</summary>
    public sealed record LeaseReported(LeaseId Lease, StageReport Report) : ILeaseFact;

    /// <summary>The device is through with the lease. Repeated until acknowledged.</summary>
    public sealed record LeaseEnded(LeaseId Lease, DeviceCounts Counts) : ILeaseEnd;

    /// <summary>The lease failed. Repeated until acknowledged.</summary>
    public sealed record LeaseFailed(LeaseId Lease, FailureClass Failure, string Message, BlobRef? Lost, string? Code) : ILeaseEnd;

    /// <summary>The lease was taken back before it was through. Repeated until acknowledged.</summary>
    public sealed record LeaseReturned(LeaseId Lease) : ILeaseEnd;

    /// <summary>These leases of the image have arrived. Those that wait for their device are renewed; those that it works on have to give signs of life themselves.</summary>
    public sealed record LeasesHeld(ImageId ImageId, IReadOnlyList<LeaseId> Waiting, IReadOnlyList<LeaseId> Running) : IWithImageId, IWireMessage;

    public interface ILeaseFact
    {
        LeaseId Lease { get; }
    }

    /// <summary>The last word on a lease.</summary>
    public interface ILeaseEnd : ILeaseFact;
}

/// <summary>What the journal of an image holds.</summary>
internal static class ImageEvents
{
    public interface IImageEvent;

    /// <summary>Events written in one transaction: all results that came in while the last write was under way.</summary>
    public sealed record Batch(IReadOnlyList<IImageEvent> Events) : IWireMessage;

    /// <summary>A fresh start; everything before it is void.</summary>
    public sealed record Submitted(RunId Run, WorkPolicy Policy, ImageJob Job) : IImageEvent;

    /// <summary>An unfinished image was taken up again.</summary>
    public sealed record Resumed(RunId Run, WorkPolicy Policy, int Leases) : IImageEvent;

    public sealed record Probed(ImageFacts Facts) : IImageEvent;

    /// <summary>Blobs that an ingest, pack or reconstruct lease made.</summary>
    public sealed record StripStored(Stage Stage, StripBlobs Strip) : IImageEvent;

    /// <summary>All blocks of a Score lease are settled.</summary>
    /// <param name="FirstBlock">Raster index of the first.</param>
    /// <param name="Sse">Block after block, one value per scale; zeros where a block is quarantined.</param>
    /// <param name="Quarantined">Raster indices of blocks that could not be scored.</param>
    public sealed record BlocksSettled(int FirstBlock, double[] Sse, IReadOnlyList<int> Quarantined) : IImageEvent;

    /// <summary>Scale index per block; method and figures are null for a container's own map.</summary>
    public sealed record ScalesAllocated(byte[] Scales, string? Method, double? Sse, double? DualBound) : IImageEvent;

    /// <summary>A blob is gone: what made it must be done again.</summary>
    public sealed record BlobReopened(string Name) : IImageEvent;

    /// <summary>The prepared files are gone: they must be prepared again.</summary>
    public sealed record OutputsReopened : IImageEvent;

    /// <summary>Hashes of all outputs, before the first rename.</summary>
    public sealed record OutputsPrepared(IReadOnlyList<OutputFile> Outputs, string ReportJson) : IImageEvent;

    /// <summary>What devices did, leases cut smaller, and seconds since the previous event of this process.</summary>
    public sealed record WorkCounted(DeviceCounts Counts, int Bisected, double Seconds) : IImageEvent;

    /// <summary>The image ended: done, skipped or failed.</summary>
    public sealed record Closed(ImageOutcome Outcome) : IImageEvent;
}

/// <summary>Between a coordinator and its block, allocator and reconstruction children; never leaves the process.</summary>
internal static class ImageChildren
{
    /// <summary>Scores of one block from a lease of so many blocks.</summary>
    public sealed record BlockResult(double[] Sse, int LeaseSize) : INoSerializationVerificationNeeded, IDeadLetterSuppression;

    /// <summary>The lease of so many blocks ended without scores of this block.</summary>
    public sealed record BlockLeaseFailed(FailureClass Failure, int LeaseSize) : INoSerializationVerificationNeeded, IDeadLetterSuppression;

    /// <summary>The block's last word. <paramref name="Sse"/> is null when it is quarantined: it gets the middle scale.</summary>
    public sealed record BlockSettled(int Block, double[]? Sse) : INoSerializationVerificationNeeded;

    /// <summary>The block wants to be tried again in a lease of at most so many blocks.</summary>
    public sealed record BlockWantsLease(int Block, int MaxBlocks) : INoSerializationVerificationNeeded;

    /// <summary>All scores are in. <paramref name="Sse"/> is [block, scale index].</summary>
    public sealed record Allocate(string Allocator, int Rate, BlockGrid Grid, ScaleSet Scales, double[,] Sse, IReadOnlyList<int> Quarantined) : INoSerializationVerificationNeeded;

    public sealed record Allocated(Allocation Allocation) : INoSerializationVerificationNeeded;

    public sealed record AllocationFailed(string Message) : INoSerializationVerificationNeeded;

    /// <summary>Which groups of strips are packed and which are reconstructed, in order, and how many may be ahead; absolute.</summary>
    public sealed record StripsChanged(IReadOnlyList<bool> Packed, IReadOnlyList<bool> Reconstructed, int Window) : INoSerializationVerificationNeeded;

    /// <summary>Groups that may be leased now; absolute.</summary>
    public sealed record ReconstructionOpen(IReadOnlyList<int> Groups, bool Complete) : INoSerializationVerificationNeeded;
}

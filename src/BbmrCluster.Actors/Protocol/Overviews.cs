using BbmrCluster.Work;

namespace BbmrCluster.Actors.Protocol;

/// <summary>Where an archive stands.</summary>
public enum ArchivePhase : byte
{
    /// <summary>Its pages are still coming in.</summary>
    Submitting,

    /// <summary>Images are worked on, or wait for a worker.</summary>
    Running,

    /// <summary>An operator stopped it for now: no lease is granted.</summary>
    Paused,

    /// <summary>An operator ended it: images that were not closed stay as they are.</summary>
    Cancelled,

    /// <summary>Every image is closed, some perhaps as failed.</summary>
    Finished,
}

/// <summary>An archive as the read model knows it; at most a few seconds old.</summary>
/// <param name="Id">The archive.</param>
/// <param name="Name">What its submitter called it; may be empty.</param>
/// <param name="Priority">Importance.</param>
/// <param name="Phase">Where it stands.</param>
/// <param name="Images">Images in all.</param>
/// <param name="Done">Images done.</param>
/// <param name="Skipped">Images that were done already.</param>
/// <param name="Failed">Images that failed.</param>
/// <param name="Open">Images that are open now.</param>
/// <param name="Progress">Part of the work that is done, 0 to 1, open images counted by what is done of them.</param>
/// <param name="SubmittedAt">When this run was submitted.</param>
/// <param name="FinishedAt">When it was finished or cancelled.</param>
/// <param name="RemainingSeconds">Time until it is finished at the speed of late; null when nothing moves.</param>
/// <param name="Waiting">Why open images wait, e.g. a full store; null when they do not.</param>
public sealed record ArchiveOverview(ArchiveId Id, string Name, Priority Priority, ArchivePhase Phase, int Images, int Done, int Skipped, int Failed, int Open,
    double Progress, DateTimeOffset SubmittedAt, DateTimeOffset? FinishedAt, double? RemainingSeconds, string? Waiting)
{
    /// <summary>Images that are closed.</summary>
    public int Closed => Done + Skipped + Failed;
}

/// <summary>Where an image of an archive stands in this run.</summary>
public enum ItemState : byte
{
    /// <summary>Not closed yet: open, or waiting for its turn.</summary>
    Pending,

    /// <summary>All outputs bear their final names.</summary>
    Done,

    /// <summary>It was done already.</summary>
    Skipped,

    /// <summary>It cannot be done.</summary>
    Failed,
}

/// <summary>One image of an archive.</summary>
/// <param name="Item">Its place in the archive, from 0.</param>
/// <param name="ImageId">The image.</param>
/// <param name="DisplayName">The input as the user gave it.</param>
/// <param name="State">How it ended, if it did.</param>
/// <param name="Code">Stable code when it failed.</param>
/// <param name="Message">One sentence when it failed.</param>
/// <param name="Progress">Part of its work that is done, 0 to 1, while it is open; null otherwise.</param>
public sealed record ArchiveItem(int Item, ImageId ImageId, string DisplayName, ItemState State, string? Code, string? Message, double? Progress);

/// <summary>Whether a worker gets leases.</summary>
public enum WorkerPhase : byte
{
    /// <summary>It does.</summary>
    Active,

    /// <summary>It gets no more, and finishes those it holds.</summary>
    Draining,

    /// <summary>It gets none and holds none: its process may be stopped.</summary>
    Drained,
}

/// <summary>A worker as the broker knows it.</summary>
/// <param name="Id">The worker.</param>
/// <param name="Address">Address of its process in the cluster; empty in an embedded node.</param>
/// <param name="Devices">How many devices it has.</param>
/// <param name="DeviceClasses">Their classes; empty when it takes leases of any class.</param>
/// <param name="Phase">Whether it gets leases.</param>
/// <param name="BlocksPerSecond">Blocks (all stages) that it did per second of late; 0 before its first lease is through.</param>
/// <param name="Images">Images it serves, the most important first.</param>
/// <param name="Leases">Leases it holds.</param>
public sealed record WorkerOverview(WorkerId Id, string Address, int Devices, IReadOnlyList<string> DeviceClasses, WorkerPhase Phase, double BlocksPerSecond,
    IReadOnlyList<ImageId> Images, IReadOnlyList<LeaseOverview> Leases);

/// <summary>A lease in the hands of a worker.</summary>
/// <param name="ImageId">The image.</param>
/// <param name="Lease">The lease's number, "EPOCH.NUMBER".</param>
/// <param name="Stage">What is done.</param>
/// <param name="FirstBlock">First block.</param>
/// <param name="BlockCount">Blocks.</param>
/// <param name="Seconds">How long it has been held.</param>
/// <param name="Running">Whether its device has begun; false while it waits for the device.</param>
public sealed record LeaseOverview(ImageId ImageId, string Lease, Stage Stage, int FirstBlock, int BlockCount, double Seconds, bool Running);

/// <summary>What to do with a block that cannot be scored.</summary>
public enum PoisonRule : byte
{
    /// <summary>It gets the middle scale, and the report says so.</summary>
    Quarantine,

    /// <summary>The image fails.</summary>
    Fail,
}

/// <summary>What the submitter asks of the coordination; none of it decides bytes.</summary>
/// <param name="Priority">Archives share the workers in proportion to 4 to the power of it.</param>
/// <param name="Attempts">Tries of a lease that fails for a passing reason, 1 to 100.</param>
/// <param name="Poison">What to do with a block that cannot be scored.</param>
public sealed record WorkPolicy(Priority Priority = default, int Attempts = 3, PoisonRule Poison = PoisonRule.Quarantine)
{
    /// <summary>Checks the ranges.</summary>
    /// <exception cref="InvalidOperationException">The attempts are not 1 to 100.</exception>
    public WorkPolicy Validate() =>
        Attempts is >= 1 and <= 100 ? this : throw new InvalidOperationException($"A lease can be tried 1 to 100 times, not {Attempts}.");
}

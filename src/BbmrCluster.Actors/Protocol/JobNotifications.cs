using BbmrCluster.Work;

namespace BbmrCluster.Actors.Protocol;

/// <summary>How an image ended.</summary>
public abstract record ImageOutcome
{
    private ImageOutcome()
    {
    }

    /// <summary>All outputs bear their final names.</summary>
    /// <param name="ReportJson">The report's text.</param>
    public sealed record Done(string ReportJson) : ImageOutcome;

    /// <summary>A finished output of the same fingerprint was there already.</summary>
    /// <param name="ReportJson">The stored report, verbatim.</param>
    public sealed record Skipped(string ReportJson) : ImageOutcome;

    /// <summary>The image cannot be done.</summary>
    /// <param name="Code">Stable code for machines, e.g. "refused", "conflict", "failed".</param>
    /// <param name="Message">One sentence for the user.</param>
    public sealed record Failed(string Code, string Message) : ImageOutcome;

    /// <summary>The run was stopped; the same command goes on from here.</summary>
    public sealed record Interrupted : ImageOutcome;
}

/// <summary>Progress of one stage, absolute.</summary>
/// <param name="Stage">The stage.</param>
/// <param name="DoneBlocks">Blocks journaled as done.</param>
/// <param name="TotalBlocks">Blocks of the image.</param>
public sealed record StageProgress(Stage Stage, int DoneBlocks, int TotalBlocks);

/// <summary>Progress of one image, absolute; a later one replaces an earlier one.</summary>
/// <param name="Stages">The stages this job has, in order.</param>
/// <param name="DoneUnits">Work done: blocks weighted by the usual cost of each stage.</param>
/// <param name="TotalUnits">Work of the whole image in the same units.</param>
public sealed record ImageProgress(IReadOnlyList<StageProgress> Stages, long DoneUnits, long TotalUnits);

/// <summary>How an archive ended.</summary>
/// <param name="Done">Images done.</param>
/// <param name="Skipped">Images that were done already.</param>
/// <param name="Failed">Images that failed.</param>
/// <param name="Interrupted">Images that a stop left unfinished.</param>
public sealed record ArchiveSummary(int Done, int Skipped, int Failed, int Interrupted);

/// <summary>What happens to a submitted archive, for whoever watches it.</summary>
public abstract record JobNotification
{
    private JobNotification()
    {
    }

    /// <summary>An image is open: its work may be granted from now on.</summary>
    /// <param name="ImageId">The image.</param>
    /// <param name="DisplayName">The input as the user gave it.</param>
    /// <param name="ResumedLeases">Leases whose results an earlier process left behind; 0 on a fresh start.</param>
    public sealed record ImageStarted(ImageId ImageId, string DisplayName, int ResumedLeases) : JobNotification;

    /// <summary>Progress since the last write to the journal.</summary>
    /// <param name="ImageId">The image.</param>
    /// <param name="Progress">Absolute counts.</param>
    public sealed record ImageProgressed(ImageId ImageId, ImageProgress Progress) : JobNotification;

    /// <summary>No work of the image is granted for now; it goes on by itself.</summary>
    /// <param name="ImageId">The image.</param>
    /// <param name="Reason">One sentence for the user.</param>
    public sealed record ImagePaused(ImageId ImageId, string Reason) : JobNotification;

    /// <summary>The image goes on.</summary>
    /// <param name="ImageId">The image.</param>
    public sealed record ImageResumed(ImageId ImageId) : JobNotification;

    /// <summary>The image is closed; sent once per run.</summary>
    /// <param name="ImageId">The image.</param>
    /// <param name="Outcome">How it ended.</param>
    public sealed record ImageFinished(ImageId ImageId, ImageOutcome Outcome) : JobNotification;

    /// <summary>All images are closed, or the run was stopped. The last notification.</summary>
    /// <param name="ArchiveId">The archive.</param>
    /// <param name="Summary">Counts.</param>
    public sealed record ArchiveFinished(ArchiveId ArchiveId, ArchiveSummary Summary) : JobNotification;
}

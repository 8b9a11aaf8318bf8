using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Node.Api;

/// <summary>What a client submits: a job over one or many images, whose paths are those of the cluster's nodes.</summary>
public sealed record JobRequest
{
    /// <summary>rescale, downscale or upscale.</summary>
    [Description("rescale, downscale or upscale")]
    public string Kind { get; init; } = "rescale";

    /// <summary>Files and folders, absolute.</summary>
    [Description("Files and folders, absolute paths as the nodes see them")]
    public IReadOnlyList<string> Inputs { get; init; } = [];

    /// <summary>A text file with one input a line.</summary>
    [Description("A text file with one input a line, relative ones below its own folder; in place of inputs or with them. Below the output folder they keep their place under the folder of the manifest, others their whole path; missing files are taken and fail")]
    public string? Manifest { get; init; }

    /// <summary>Go into folders of folders.</summary>
    [Description("Go into folders of folders; the tree is kept below the output folder")]
    public bool Recursive { get; init; }

    /// <summary>Folder of the results, absolute.</summary>
    [Required, Description("Folder of the results, absolute; made when it is not there")]
    public required string Output { get; init; }

    /// <summary>Format of restored images.</summary>
    [Description("png, tiff, webp or jpeg")]
    public string Format { get; init; } = "png";

    /// <summary>For people.</summary>
    [Description("What the job is called")]
    public string Name { get; init; } = "";

    /// <summary>0 to 9.</summary>
    [Range(0, 9), Description("Importance, 0 to 9")]
    public int Priority { get; init; }

    /// <summary>Tries of a lease.</summary>
    [Range(1, 100), Description("Tries of a piece of work that fails for a passing reason")]
    public int Attempts { get; init; } = 3;

    /// <summary>quarantine or fail.</summary>
    [Description("quarantine: a block that cannot be scored gets the middle scale; fail: its image fails")]
    public string OnBadBlock { get; init; } = "quarantine";

    /// <summary>Reconstruction network.</summary>
    public string Network { get; init; } = EngineSettings.Default.Network;

    /// <summary>A network, "same" (the reconstruction network) or "bicubic" (none).</summary>
    public string Scorer { get; init; } = EngineSettings.Default.Scorer;

    /// <summary>sse or paper.</summary>
    public string Allocator { get; init; } = "sse";

    /// <summary>Scales a block may be stored at.</summary>
    public IReadOnlyList<int> Scales { get; init; } = [.. ScaleSet.Default.Scales];

    /// <summary>Scale whose rate is kept; null for the middle one.</summary>
    public int? Rate { get; init; }

    /// <summary>bicubic or downnet.</summary>
    public string Downscaler { get; init; } = EngineSettings.Default.Downscaler;

    /// <summary>auto, trained or blockwise.</summary>
    public string Joint { get; init; } = EngineSettings.Default.Joint;

    /// <summary>auto, float32 or bfloat16.</summary>
    public string Precision { get; init; } = EngineSettings.Default.Precision;

    /// <summary>Which workers do the job; null for the class that most devices have.</summary>
    [Description("Device class of the workers that do the job; by default that of most devices")]
    public string? DeviceClass { get; init; }

    /// <summary>Measure the errors of a downscale by reconstructing it.</summary>
    public bool Measure { get; init; }

    /// <summary>Replace results that exist.</summary>
    public bool Force { get; init; }

    /// <summary>Take present weights for an upscale where they differ from those that the container names.</summary>
    public bool AllowOtherWeights { get; init; }

    /// <summary>Refuse larger images.</summary>
    public long MaxPixels { get; init; } = ImageLimits.Default.MaxPixels;

    /// <summary>Refuse images with a longer side.</summary>
    public int MaxSide { get; init; } = ImageLimits.Default.MaxSide;
}

/// <summary>A job as it stands; at most a few seconds old.</summary>
/// <param name="Id">The job.</param>
/// <param name="Name">What its submitter called it.</param>
/// <param name="State">submitting, running, paused, cancelled, finished.</param>
/// <param name="Priority">Importance.</param>
/// <param name="Images">Images in all.</param>
/// <param name="Done">Images done.</param>
/// <param name="Skipped">Images that were done already.</param>
/// <param name="Failed">Images that failed.</param>
/// <param name="Open">Images that are worked on.</param>
/// <param name="Progress">Of all work, 0 to 1.</param>
/// <param name="SecondsLeft">Time to the end at the speed of late; null while it cannot be told.</param>
/// <param name="Waiting">Why images wait, e.g. a full store; null when they do not.</param>
/// <param name="SubmittedAt">When it was submitted.</param>
/// <param name="FinishedAt">When it was finished or cancelled.</param>
/// <param name="Refused">Inputs that were not taken, at most 1,000 of them; in the answer to a submission only.</param>
/// <param name="RefusedCount">How many were not taken; in the answer to a submission only.</param>
public sealed record JobStatus(string Id, string Name, string State, int Priority, int Images, int Done, int Skipped, int Failed, int Open, double Progress, double? SecondsLeft,
    string? Waiting, DateTimeOffset SubmittedAt, DateTimeOffset? FinishedAt, IReadOnlyList<RefusedInputModel>? Refused = null, int? RefusedCount = null)
{
    /// <summary>From the read model.</summary>
    public static JobStatus Of(ArchiveOverview one) => new(one.Id.Value, one.Name, one.Phase.ToString().ToLowerInvariant(), one.Priority.Value,
        one.Images, one.Done, one.Skipped, one.Failed, one.Open, one.Progress, one.RemainingSeconds, one.Waiting, one.SubmittedAt, one.FinishedAt);
}

/// <summary>An input that was not taken.</summary>
/// <param name="Input">As it was given.</param>
/// <param name="Code">For machines.</param>
/// <param name="Error">For people.</param>
public sealed record RefusedInputModel(string Input, string Code, string Error);

/// <summary>An image of a job.</summary>
/// <param name="Number">Its place, from 0.</param>
/// <param name="Image">Its id.</param>
/// <param name="Input">As it was given.</param>
/// <param name="State">pending, done, skipped or failed.</param>
/// <param name="Code">Of a failure.</param>
/// <param name="Error">Of a failure, one sentence.</param>
/// <param name="Progress">0 to 1 while it is open; null otherwise.</param>
public sealed record JobImage(int Number, string Image, string Input, string State, string? Code, string? Error, double? Progress)
{
    /// <summary>From the archive.</summary>
    public static JobImage Of(ArchiveItem item) =>
        new(item.Item, item.ImageId.Value, item.DisplayName, item.State.ToString().ToLowerInvariant(), item.Code, item.Message, item.Progress);
}

/// <summary>Something that happened to a job. Fields that an event does not have are null.</summary>
/// <param name="Event">job_status (first, unless the client goes on after an event that it has), image_started, image_progressed, image_paused, image_resumed, image_finished, job_finished or ping.</param>
/// <param name="Job">The job.</param>
/// <param name="Image">The image.</param>
/// <param name="Input">The image's input, when it starts.</param>
/// <param name="Progress">Of the image, 0 to 1.</param>
/// <param name="State">done, skipped, failed or interrupted.</param>
/// <param name="Code">Of a failure.</param>
/// <param name="Error">Of a failure or a pause.</param>
/// <param name="Report">The image's report when it is done.</param>
/// <param name="Done">Images done, at the end.</param>
/// <param name="Skipped">Images skipped, at the end.</param>
/// <param name="Failed">Images failed, at the end.</param>
/// <param name="Unfinished">Images given up by a cancellation, at the end.</param>
/// <param name="Status">How the job stands, in job_status.</param>
public sealed record JobEvent(string Event, string Job, string? Image = null, string? Input = null, double? Progress = null, string? State = null, string? Code = null, string? Error = null,
    JsonElement? Report = null, int? Done = null, int? Skipped = null, int? Failed = null, int? Unfinished = null, JobStatus? Status = null)
{
    /// <summary>From a notification; null for one that has no event.</summary>
    public static JobEvent? Of(ArchiveId job, JobNotification notification) => notification switch
    {
        JobNotification.ImageStarted one => new("image_started", job.Value, one.ImageId.Value, one.DisplayName),
        JobNotification.ImageProgressed one => new("image_progressed", job.Value, one.ImageId.Value, Progress: one.Progress.TotalUnits == 0 ? 0 : (double)one.Progress.DoneUnits / one.Progress.TotalUnits),
        JobNotification.ImagePaused one => new("image_paused", job.Value, one.ImageId.Value, Error: one.Reason),
        JobNotification.ImageResumed one => new("image_resumed", job.Value, one.ImageId.Value),
        JobNotification.ImageFinished one => Finished(job, one),
        JobNotification.ArchiveFinished one => new("job_finished", job.Value, Done: one.Summary.Done, Skipped: one.Summary.Skipped, Failed: one.Summary.Failed, Unfinished: one.Summary.Interrupted),
        _ => null,
    };

    private static JobEvent Finished(ArchiveId job, JobNotification.ImageFinished one)
    {
        var finished = new JobEvent("image_finished", job.Value, one.ImageId.Value);
        return one.Outcome switch
        {
            ImageOutcome.Done done => finished with { State = "done", Report = Json(done.ReportJson) },
            ImageOutcome.Skipped skipped => finished with { State = "skipped", Report = Json(skipped.ReportJson) },
            ImageOutcome.Failed failed => finished with { State = "failed", Code = failed.Code, Error = failed.Message },
            _ => finished with { State = "interrupted" },
        };
    }

    private static JsonElement? Json(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            return document.RootElement.Clone();
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

/// <summary>A page of a list.</summary>
/// <param name="Items">The items.</param>
/// <param name="Next">Value of "from" for the next page; null at the end.</param>
public sealed record Listing<T>(IReadOnlyList<T> Items, int? Next = null);

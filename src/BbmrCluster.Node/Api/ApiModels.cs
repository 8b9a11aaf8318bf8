using System.Text.Json;
using BbmrCluster.Actors.Protocol;

namespace BbmrCluster.Node.Api;

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

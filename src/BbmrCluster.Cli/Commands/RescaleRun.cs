using System.Diagnostics;
using System.Globalization;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Node;
using BbmrCluster.Work;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Cli.Commands;

/// <summary>One run of rescale, downscale or upscale: plan, embedded node, results, summary, exit code.</summary>
internal sealed class RescaleRun(CommandServices services, RunValues values, JobParameters parameters)
{
    private readonly Terminal _terminal = services.Terminal;
    private readonly RunSummary _summary = new();
    private readonly Dictionary<ImageId, ImageJob> _open = [];
    private readonly Dictionary<ImageId, int> _resumed = [];
    private readonly Stopwatch _clock = Stopwatch.StartNew();

    /// <summary>Runs it.</summary>
    public async Task<int> RunAsync(string[] inputs)
    {
        OutputPlan plan = OutputNaming.Plan(inputs, values.Output, parameters.Kind, parameters.ImageExtension, values.Recursive);
        foreach (RefusedInput refused in plan.Refused)
            Settle(refused);
        TellPassedOver(plan.PassedOver);

        NativeRuntime.Apply();
        var engines = new EngineFactory();
        List<ImageJob> jobs = MakeJobs(plan, engines);
        if (values.DryRun)
            return new DryRun(_terminal, values, parameters).Show(jobs, engines, _summary);
        if (jobs.Count > 0)
        {
            PrepareOutput();
            await WorkAsync(jobs, engines);
        }
        _summary.Write(_terminal, _clock.Elapsed);
        if (services.Interruption.ExitCode is int code)
        {
            _terminal.Message("stopped; run the same command to go on");
            return code;
        }
        return _summary.ExitCode;
    }

    private void TellPassedOver(IReadOnlyList<PassedOver> passedOver)
    {
        _summary.PassedOver = passedOver.Count;
        foreach ((bool made, string what) in new[] { (false, "of a format that is not read"), (true, "made here before") })
        {
            PassedOver[] files = [.. passedOver.Where(file => file.Made == made)];
            if (files.Length > 0 && (_terminal.IsVerbose || !made))
                _terminal.Message($"passed over: {Amounts.Count(files.Length, "picture")} {what}{(_terminal.IsVerbose ? "" : " (-v names them)")}");
            foreach (PassedOver file in _terminal.IsVerbose ? files : [])
                _terminal.Message($"  {file.DisplayName}");
        }
    }

    private List<ImageJob> MakeJobs(OutputPlan plan, EngineFactory engines)
    {
        var jobs = new List<ImageJob>(plan.Images.Count);
        var maker = new JobMaker(engines, parameters);
        foreach (PlannedImage image in plan.Images)
        {
            if (maker.TryMake(image, out ImageJob? job, out RefusedInput? refused))
            {
                jobs.Add(job);
                _open.Add(job.Id, job);
            }
            else
            {
                Settle(refused);
            }
        }
        return jobs;
    }

    private void PrepareOutput()
    {
        string folder = Path.GetFullPath(values.Output);
        if (File.Exists(folder))
            throw new UserErrorException($"{values.Output}: this is a file; the results need a folder.");
        try
        {
            Directory.CreateDirectory(folder);
            string probe = Path.Combine(folder, $".bbmr-{Environment.ProcessId}.tmp");
            File.Create(probe, 1, FileOptions.DeleteOnClose).Dispose();
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            throw new UserErrorException($"{values.Output}: the output folder cannot be written ({e.Message})");
        }
    }

    private async Task WorkAsync(List<ImageJob> jobs, EngineFactory engines)
    {
        CancellationToken stop = services.Interruption.Graceful();
        await using ProgressDisplay display = ProgressDisplay.For(_terminal);
        await using CancellationTokenRegistration told = stop.Register(() => _terminal.Message("stopping (again to stop at once) ..."));
        var tracker = new ProgressTracker(jobs.Count + _summary.Total, _summary.Total);
        display.Show(tracker.Now);
        await using EmbeddedNode node = await EmbeddedNode.StartAsync(new EmbeddedNodeOptions(values.WorkDirectory, values.MaxWork, _terminal.Detail), engines);
        await foreach (JobNotification notification in node.RunAsync(jobs, stop))
        {
            Handle(notification, tracker);
            display.Show(tracker.Now);
        }
        // A stopped run says nothing about the images it leaves.
        foreach (ImageJob left in _open.Values.ToList())
            Settle(new ImageLine(left.DisplayName, "interrupted"));
        _open.Clear();
    }

    private void Handle(JobNotification notification, ProgressTracker tracker)
    {
        switch (notification)
        {
            case JobNotification.ImageStarted started:
                tracker.Start(started.ImageId, started.DisplayName);
                _resumed[started.ImageId] = started.ResumedLeases;
                if (_terminal.IsVerbose || started.ResumedLeases > 0)
                    _terminal.Message(started.ResumedLeases > 0
                        ? string.Create(CultureInfo.InvariantCulture, $"{started.DisplayName}: goes on, {Amounts.Count(started.ResumedLeases, "lease")} done already")
                        : $"{started.DisplayName}: started");
                break;
            case JobNotification.ImageProgressed progressed:
                if (tracker.Advance(progressed.ImageId, progressed.Progress) is { } stage && _terminal.IsVerbose)
                    _terminal.Message(string.Create(CultureInfo.InvariantCulture, $"{NameOf(progressed.ImageId)}: {NameOf(stage.Stage)} {stage.DoneBlocks} of {stage.TotalBlocks} blocks"));
                break;
            case JobNotification.ImagePaused paused:
                tracker.Pause(paused.ImageId);
                _terminal.Message($"{NameOf(paused.ImageId)}: waits: {paused.Reason}");
                break;
            case JobNotification.ImageResumed resumed:
                _terminal.Message($"{NameOf(resumed.ImageId)}: goes on");
                break;
            case JobNotification.ImageFinished finished:
                tracker.Finish(finished.ImageId);
                if (_open.Remove(finished.ImageId, out ImageJob? job))
                    Settle(LineOf(job, finished.Outcome) is { State: "done" } line
                        // A report that was written before the run was cut off cannot know that the rest was taken over.
                        ? line with { Resumed = Math.Max(line.Resumed ?? 0, _resumed.GetValueOrDefault(job.Id)) }
                        : LineOf(job, finished.Outcome));
                break;
        }
    }

    private static ImageLine LineOf(ImageJob job, ImageOutcome outcome) => outcome switch
    {
        ImageOutcome.Done done => ImageLine.Of(job.DisplayName, "done", JobReport.Parse(done.ReportJson), job.Outputs),
        ImageOutcome.Skipped skipped => ImageLine.Of(job.DisplayName, "skipped", JobReport.Parse(skipped.ReportJson), job.Outputs),
        ImageOutcome.Failed failed => new ImageLine(job.DisplayName, "failed") { Code = failed.Code, Error = Failure.OneLine(WithoutName(failed.Message, job)) },
        _ => new ImageLine(job.DisplayName, "interrupted"),
    };

    // The line begins with the name anyway.
    private static string WithoutName(string message, ImageJob job) =>
        message.StartsWith(job.Source + ": ", StringComparison.Ordinal) ? message[(job.Source.Length + 2)..]
        : message.StartsWith(job.DisplayName + ": ", StringComparison.Ordinal) ? message[(job.DisplayName.Length + 2)..]
        : message;

    private void Settle(RefusedInput refused) => Settle(new ImageLine(refused.DisplayName, "failed") { Code = refused.Code, Error = refused.Reason });

    private void Settle(ImageLine line)
    {
        _summary.Add(line);
        _terminal.Json(line);
        if (line.State == "failed")
            _terminal.Problem($"{line.Input}: {line.Error}");
        else if (line.State != "interrupted")
            _terminal.Result(line.ToString());
        foreach (string note in line.Notes ?? [])
            _terminal.Message($"{line.Input}: note: {note}");
    }

    private string NameOf(ImageId id) => _open.TryGetValue(id, out ImageJob? job) ? job.DisplayName : id.Value;

    internal static string NameOf(Stage stage) => stage.ToString().ToLowerInvariant();
}

/// <summary>Adds up the progress of all images of a run and foretells its end.</summary>
/// <param name="images">Images in all.</param>
/// <param name="settled">Images settled before the work began.</param>
internal sealed class ProgressTracker(int images, int settled)
{
    private readonly Dictionary<ImageId, (string Name, ImageProgress? Progress)> _open = [];
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private int _settled = settled;
    private (TimeSpan Time, double Fraction)? _warm;
    private string _activity = "starting";

    /// <summary>The newest state.</summary>
    public RunProgress Now
    {
        get
        {
            double fraction = Fraction;
            // Counted from the first results of the device: reading the photograph and loading the networks come once and tell nothing about speed.
            TimeSpan? remaining = _warm is { } warm && fraction - warm.Fraction > 0.01 && _clock.Elapsed - warm.Time > TimeSpan.FromSeconds(1)
                ? (_clock.Elapsed - warm.Time) * ((1 - fraction) / (fraction - warm.Fraction))
                : null;
            return new RunProgress(images, _settled, fraction, _activity, remaining);
        }
    }

    private double Fraction => images == 0 ? 1 : Math.Clamp((_settled + _open.Values.Sum(image => image.Progress is { TotalUnits: > 0 } p ? (double)p.DoneUnits / p.TotalUnits : 0)) / images, 0, 1);

    /// <summary>An image is open.</summary>
    public void Start(ImageId id, string name) => (_open[id], _activity) = ((name, null), name);

    /// <summary>Takes an image's progress; returns the stage that is under way when it moved.</summary>
    public StageProgress? Advance(ImageId id, ImageProgress progress)
    {
        if (!_open.TryGetValue(id, out (string Name, ImageProgress? Progress) image))
            return null;
        _open[id] = (image.Name, progress);
        StageProgress? moved = null;
        for (int i = 0; i < progress.Stages.Count; i++)
        {
            int before = image.Progress is { } old && i < old.Stages.Count ? old.Stages[i].DoneBlocks : 0;
            if (progress.Stages[i].DoneBlocks > before)
                moved = progress.Stages[i];
        }
        if (moved is { Stage: not Stage.Ingest })
            _warm ??= (_clock.Elapsed, Fraction);
        if (moved is { TotalBlocks: > 0 })
            _activity = string.Create(CultureInfo.InvariantCulture, $"{image.Name}: {RescaleRun.NameOf(moved.Stage)} {100L * moved.DoneBlocks / moved.TotalBlocks} %");
        return moved;
    }

    /// <summary>An image waits for room.</summary>
    public void Pause(ImageId id)
    {
        if (_open.TryGetValue(id, out (string Name, ImageProgress? Progress) image))
            _activity = $"{image.Name}: waits for room";
    }

    /// <summary>An image is closed.</summary>
    public void Finish(ImageId id)
    {
        _open.Remove(id);
        _settled++;
    }
}

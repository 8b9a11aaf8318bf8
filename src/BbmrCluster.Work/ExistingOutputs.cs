namespace BbmrCluster.Work;

/// <summary>
/// Looks at what lies at a job's output names, so that nothing is ever lost by surprise: a finished result is kept, a file
/// that this job did not make is left alone unless the user forces it, and an input is never an output.
/// </summary>
internal static class ExistingOutputs
{
    /// <summary>
    /// Before the work: returns the stored report when the same job is done already, null when there is work to do.
    /// </summary>
    /// <exception cref="StageFailedException"><see cref="FailureClass.Permanent"/>: code "output_is_input" or "conflict".</exception>
    public static string? Check(ImageJob job, CancellationToken cancellation)
    {
        RefuseInputAsOutput(job);
        string[] files = [.. OutputNaming.FilesOf(job.Outputs, job.Parameters.Kind)];
        if (files.FirstOrDefault(Directory.Exists) is { } folder)
            throw Conflict(job, $"{folder} is a folder");
        if (job.Parameters.Force || !files.Any(File.Exists))
            return null;
        string there = files.First(File.Exists);
        if (JobReport.Load(job.Outputs.Report, out string text) is not { } report)
            throw Conflict(job, $"{there} exists and no report says that it was made here");
        if (report.Fingerprint.DiffersFrom(job) is { } difference)
            throw Conflict(job, $"{there} was made {difference}");
        if (!IsSameSource(job, report.Fingerprint, cancellation))
            throw Conflict(job, $"{there} was made from another source");

        DateTime reported = File.GetLastWriteTimeUtc(job.Outputs.Report);
        bool complete = true;
        foreach (string file in files.Where(file => file != job.Outputs.Report))
        {
            if (!File.Exists(file))
                complete = false;
            else if (Reported(report, file) is not { } expected || !IsUnchanged(file, expected, reported, cancellation))
                throw Conflict(job, $"{file} was changed since it was made");
        }
        return complete ? text : null;
    }

    /// <summary>
    /// Before the renames: whether a file at a final name may be replaced although it is not the prepared one, because the
    /// user forces it or because an earlier run of the same job made it.
    /// </summary>
    public static bool MayReplace(ImageJob job, string file, CancellationToken cancellation)
    {
        if (job.Parameters.Force || !File.Exists(file))
            return true;
        if (JobReport.Load(job.Outputs.Report, out _) is not { } report || report.Fingerprint.DiffersFrom(job) is not null)
            return false;
        return file == job.Outputs.Report || (Reported(report, file) is { } expected && HasHash(file, expected.Bytes, expected.Sha256, cancellation));
    }

    /// <summary>Whether a file has a length and a SHA-256.</summary>
    public static bool HasHash(string file, long length, string sha256, CancellationToken cancellation) =>
        new FileInfo(file) is { Exists: true } info && info.Length == length && FileSystem.Sha256(file, cancellation) == sha256;

    /// <summary>Refuses an output that is the source, whatever links lead there.</summary>
    public static void RefuseInputAsOutput(ImageJob job)
    {
        foreach (string file in OutputNaming.FilesOf(job.Outputs, job.Parameters.Kind))
        {
            if (file == job.Source || FileSystem.IsSameFile(file, job.Source))
                throw new StageFailedException(FailureClass.Permanent, $"{job.DisplayName}: its output {file} is the input itself; name another output directory") { Code = "output_is_input" };
        }
    }

    public static StageFailedException Conflict(ImageJob job, string what) =>
        new(FailureClass.Permanent, $"{job.DisplayName}: {what}; left alone (use --force to replace it)") { Code = "conflict" };

    private static bool IsSameSource(ImageJob job, Fingerprint fingerprint, CancellationToken cancellation)
    {
        var source = new FileInfo(job.Source);
        if (!source.Exists || source.Length != fingerprint.SourceBytes)
            return false;
        // A touched or copied file is the same source when its bytes are.
        return source.LastWriteTimeUtc == fingerprint.SourceModified || FileSystem.Sha256(job.Source, cancellation) == fingerprint.SourceSha256;
    }

    // The report is renamed last, so an output that is not younger than it has not been written since. A younger one may be
    // a copy: its bytes decide.
    private static bool IsUnchanged(string file, OutputReport expected, DateTime reported, CancellationToken cancellation)
    {
        var info = new FileInfo(file);
        return info.Length == expected.Bytes && (info.LastWriteTimeUtc <= reported || FileSystem.Sha256(file, cancellation) == expected.Sha256);
    }

    private static OutputReport? Reported(JobReport report, string file) => report.Outputs.FirstOrDefault(output => output.Name == Path.GetFileName(file));
}

/// <summary>Whether there is anything to do for an image, by its outputs alone.</summary>
public static class FinishedImage
{
    /// <summary>
    /// The stored report of an image whose outputs are complete; null when there is work to do or the image cannot be done,
    /// which its ingest finds out.
    /// </summary>
    public static string? ReportOf(ImageJob job, CancellationToken cancellation)
    {
        try
        {
            return ExistingOutputs.Check(job, cancellation);
        }
        catch (Exception error) when (error is StageFailedException or IOException or UnauthorizedAccessException or OperationCanceledException)
        {
            return null;
        }
    }
}

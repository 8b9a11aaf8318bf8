namespace BbmrCluster.Actors.Work;

/// <summary>
/// Renames prepared outputs to their final names, the report last. A crash between two renames is made good by running it
/// again: a file with the prepared hash at its final name is ours.
/// </summary>
internal static class CommitStage
{
    private const string TemporaryPrefix = ".bbmr-", TemporarySuffix = ".tmp";

    /// <summary>Temporary name of an output, in its own folder so that the rename stays within one file system.</summary>
    public static string TemporaryPath(ImageJob job, int attempt, string output) =>
        // The extension stays at the end: coders go by it.
        Path.Combine(Path.GetDirectoryName(output)!, $"{TemporaryPrefix}{job.Id}-{attempt}{TemporarySuffix}{Suffix(job, output)}");

    /// <summary>Deletes all temporary outputs of a job.</summary>
    public static void Sweep(ImageJob job)
    {
        foreach (string folder in OutputNaming.FilesOf(job.Outputs, job.Kind).Select(file => Path.GetDirectoryName(file)!).Distinct(StringComparer.Ordinal).Where(Directory.Exists))
        {
            // One id may begin with another: only digits may lie between it and the suffix.
            string prefix = $"{TemporaryPrefix}{job.Id}-";
            foreach (string file in Directory.EnumerateFiles(folder, $"{prefix}*{TemporarySuffix}*").ToList())
            {
                string name = Path.GetFileName(file);
                int end = name.IndexOf(TemporarySuffix, prefix.Length, StringComparison.Ordinal);
                if (name.AsSpan(prefix.Length, end - prefix.Length).IndexOfAnyExceptInRange('0', '9') < 0)
                    File.Delete(file);
            }
        }
    }

    public static void Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation)
    {
        ExistingOutputs.RefuseInputAsOutput(work.Job);
        foreach (OutputFile output in work.Outputs)
        {
            cancellation.ThrowIfCancellationRequested();
            if (IsOurs(output, cancellation))
                continue;
            if (!File.Exists(output.TemporaryPath) || new FileInfo(output.TemporaryPath).Length != output.Length)
                throw new StageFailedException(FailureClass.BlobLost, $"{work.Job.DisplayName}: the prepared file {output.TemporaryPath} is gone") { Code = "blob_lost" };
            if (!ExistingOutputs.MayReplace(work.Job, output.Path, cancellation))
                throw ExistingOutputs.Conflict(work.Job, $"{output.Path} has appeared meanwhile");
        }
        // From here on it goes to its end: half of the outputs is the worst state to be stopped in.
        Rename(work.Outputs.SkipLast(1));
        Rename(work.Outputs.TakeLast(1));
        Sweep(work.Job);
        report(new OutputsCommitted());
    }

    // The folders are synced after the others and again after the report, which promises that the others are there.
    private static void Rename(IEnumerable<OutputFile> outputs)
    {
        foreach (OutputFile output in outputs.Where(output => File.Exists(output.TemporaryPath)))
            File.Move(output.TemporaryPath, output.Path, overwrite: true);
        foreach (string folder in outputs.Select(output => Path.GetDirectoryName(output.Path)!).Distinct(StringComparer.Ordinal))
            FileSystem.SyncDirectory(folder);
    }

    private static bool IsOurs(OutputFile output, CancellationToken cancellation) =>
        !File.Exists(output.TemporaryPath) && ExistingOutputs.HasHash(output.Path, output.Length, output.Sha256, cancellation);

    private static string Suffix(ImageJob job, string output) =>
        output == job.Outputs.Container ? ".bbmr" : output == job.Outputs.Report ? ".json" : output == job.Outputs.AllocationPicture ? ".allocation.png" : Path.GetExtension(output);
}

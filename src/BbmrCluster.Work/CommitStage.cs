using System.IO.Hashing;
using System.Text;

namespace BbmrCluster.Work;

/// <summary>
/// Renames prepared outputs to their final names, the report last. A crash between two renames is made good by running it
/// again: a file with the prepared hash at its final name is ours.
/// </summary>
public static class CommitStage
{
    private const string TemporaryPrefix = ".bbmr-", TemporarySuffix = ".tmp";

    /// <summary>
    /// Part of the temporary names of one execution of a lease. The attempt alone is not enough: a coordinator that was
    /// started again counts from one, while a worker may still write for the one before it.
    /// </summary>
    internal static string NewMark(int attempt) => $"{attempt}-{Guid.NewGuid():n}"[..12];

    /// <summary>Temporary name of an output, in its own folder so that the rename stays within one file system.</summary>
    internal static string TemporaryPath(ImageJob job, string mark, string output) =>
        // The extension stays at the end: coders go by it.
        Path.Combine(Path.GetDirectoryName(output)!, $"{TemporaryPrefix}{Owner(job)}-{mark}{TemporarySuffix}{Suffix(job, output)}");

    /// <summary>Deletes all temporary outputs of a job, also those that it left behind when it had other parameters.</summary>
    public static void Sweep(ImageJob job)
    {
        foreach (string folder in OutputNaming.FilesOf(job.Outputs, job.Parameters.Kind).Select(file => Path.GetDirectoryName(file)!).Distinct(StringComparer.Ordinal).Where(Directory.Exists))
        {
            string prefix = $"{TemporaryPrefix}{Owner(job)}-";
            foreach (string file in Directory.EnumerateFiles(folder, $"{prefix}*{TemporarySuffix}*").ToList())
                File.Delete(file);
        }
    }

    internal static void Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation)
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

    // By the report's path, not by the image's id: the id changes with the parameters, the place of the outputs does not.
    private static string Owner(ImageJob job) => Convert.ToHexStringLower(XxHash3.Hash(Encoding.UTF8.GetBytes(job.Outputs.Report)));

    private static bool IsOurs(OutputFile output, CancellationToken cancellation) =>
        !File.Exists(output.TemporaryPath) && ExistingOutputs.HasHash(output.Path, output.Length, output.Sha256, cancellation);

    private static string Suffix(ImageJob job, string output) =>
        output == job.Outputs.Container ? ".bbmr" : output == job.Outputs.Report ? ".json" : output == job.Outputs.AllocationPicture ? ".allocation.png" : Path.GetExtension(output);
}

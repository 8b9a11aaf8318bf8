using System.Text.Json;

namespace BbmrCluster.Work;

/// <summary>The work directory cannot be used; the message is one sentence for the user.</summary>
public sealed class WorkDirectoryException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>
/// The directory of intermediate results and of the journal (default <c>OUT/.bbmr</c>), locked by one process while it
/// is open. It marks itself with a <c>CACHEDIR.TAG</c> (backups skip it), and only a directory with that mark, or an
/// empty one, is taken: everything in it may be swept.
/// </summary>
public sealed class WorkDirectory : IDisposable
{
    private const string TagName = "CACHEDIR.TAG", LockName = "lock", OwnerName = "owner.json";
    private const string Tag = "Signature: 8a477f597d28d172789f06886806bc55\n# Work directory of bbmr: intermediate results and the journal of unfinished jobs.\n";

    private readonly FileStream _lock;
    private bool _closed;

    private WorkDirectory(string root, FileStream held) => (Root, _lock) = (root, held);

    /// <summary>Absolute path.</summary>
    public string Root { get; }

    /// <summary>Blobs lie here.</summary>
    public string Blobs => Path.Combine(Root, "blobs");

    /// <summary>Temporary files of the program and of libvips; empty at every start.</summary>
    public string Temporary => Path.Combine(Root, "tmp");

    /// <summary>Journal database of the embedded mode. It stays as long as a job is unfinished.</summary>
    public string Journal => Path.Combine(Root, "journal.db");

    /// <summary>Creates or opens the directory, takes its lock and sweeps temporaries.</summary>
    /// <param name="path">Where; parents are made.</param>
    /// <param name="allowNetwork">Take a network file system all the same (a store of blobs only, no journal).</param>
    /// <exception cref="WorkDirectoryException">In use (it says by which process), on a network file system, not ours, or not writable.</exception>
    public static WorkDirectory Open(string path, bool allowNetwork = false)
    {
        string root = Path.GetFullPath(path);
        if (!allowNetwork && FileSystem.Format(root) is var network && FileSystem.IsNetwork(network))
            throw new WorkDirectoryException($"the work directory {root} lies on a network file system ({network}), where locks and the journal are not safe; name a local one with --work-dir");
        try
        {
            Claim(root);
            var work = new WorkDirectory(root, Lock(root));
            try
            {
                if (Directory.Exists(work.Temporary))
                    Directory.Delete(work.Temporary, recursive: true);
                Directory.CreateDirectory(work.Temporary);
                Directory.CreateDirectory(work.Blobs);
                return work;
            }
            catch
            {
                work._lock.Dispose();
                throw;
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new WorkDirectoryException($"the work directory {root} cannot be used: {error.Message}", error);
        }
    }

    /// <summary>
    /// Gives the directory up. With <paramref name="unfinished"/> false everything of ours in it is deleted, and the
    /// directory itself when nothing else is there; else blobs and journal stay for the next run.
    /// </summary>
    public void Close(bool unfinished)
    {
        if (_closed)
            return;
        _closed = true;
        try
        {
            Remove(Temporary);
            if (!unfinished)
            {
                Remove(Blobs);
                foreach (string file in Directory.EnumerateFiles(Root, Path.GetFileName(Journal) + "*").ToList())
                    File.Delete(file);
                File.Delete(Path.Combine(Root, OwnerName));
                File.Delete(Path.Combine(Root, TagName));
                // Unlinked while it is held: whoever opened it meanwhile notices that it is gone and tries again.
                File.Delete(Path.Combine(Root, LockName));
                if (!Directory.EnumerateFileSystemEntries(Root).Any())
                    Directory.Delete(Root);
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // Litter that the next run sweeps; the outputs are complete.
        }
        finally
        {
            _lock.Dispose();
        }
    }

    /// <summary>Gives the directory up and keeps what is in it.</summary>
    public void Dispose() => Close(unfinished: true);

    private static void Claim(string root)
    {
        Directory.CreateDirectory(root);
        string tag = Path.Combine(root, TagName);
        if (File.Exists(tag) && File.ReadAllText(tag) == Tag)
            return;
        if (Directory.EnumerateFileSystemEntries(root).Any(entry => Path.GetFileName(entry) is not (LockName or OwnerName)))
            throw new WorkDirectoryException($"{root} is not empty and not a work directory of this program; name an empty or a new one with --work-dir");
        File.WriteAllText(tag, Tag);
    }

    private static FileStream Lock(string root)
    {
        string path = Path.Combine(root, LockName);
        while (true)
        {
            FileStream held;
            try
            {
                // The runtime takes an advisory lock (flock) that the system drops when the process dies, however it dies.
                held = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException error) when (error is not (FileNotFoundException or DirectoryNotFoundException) && !FileSystem.IsFull(error))
            {
                throw new WorkDirectoryException($"the work directory {root} is in use by {Owner(root)}", error);
            }
            if (File.ResolveLinkTarget($"/proc/self/fd/{held.SafeFileHandle.DangerousGetHandle()}", returnFinalTarget: false) is { } target
                && target.FullName.EndsWith(" (deleted)", StringComparison.Ordinal))
            {
                held.Dispose();
                Directory.CreateDirectory(root);
                continue;
            }
            File.WriteAllText(Path.Combine(root, OwnerName), JsonSerializer.Serialize(new { pid = Environment.ProcessId, host = Environment.MachineName }));
            // A finished run may have removed the mark between our look at it and the lock.
            File.WriteAllText(Path.Combine(root, TagName), Tag);
            return held;
        }
    }

    private static string Owner(string root)
    {
        try
        {
            using var owner = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(root, OwnerName)));
            return $"process {owner.RootElement.GetProperty("pid").GetInt32()} on {owner.RootElement.GetProperty("host").GetString()}";
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or JsonException or KeyNotFoundException or InvalidOperationException)
        {
            return "another process";
        }
    }

    private static void Remove(string folder)
    {
        if (Directory.Exists(folder))
            Directory.Delete(folder, recursive: true);
    }
}

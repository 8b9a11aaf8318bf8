using System.Collections.Concurrent;

namespace BbmrCluster.Cli;

/// <summary>
/// A file written beside its final name and renamed when complete, so that no half file ever bears the final name.
/// Disposed without <see cref="Commit"/>, or cut off by a signal, it is deleted.
/// </summary>
internal sealed class TemporaryFile : IDisposable
{
    private static readonly ConcurrentDictionary<string, bool> Open = new(StringComparer.Ordinal);
    private readonly string _final;

    private TemporaryFile(string final, string path) => (_final, Path) = (final, path);

    /// <summary>Where to write.</summary>
    public string Path { get; }

    /// <summary>Checks that the final name may be written and reserves a temporary one with the same extension.</summary>
    /// <param name="output">Final name.</param>
    /// <param name="force">Whether an existing file may be replaced.</param>
    /// <param name="inputs">Files that must never be overwritten.</param>
    /// <exception cref="UserErrorException">The output is an input, exists, or its folder is not there.</exception>
    public static TemporaryFile For(string output, bool force, params IEnumerable<string> inputs)
    {
        string final = System.IO.Path.GetFullPath(output);
        if (inputs.Any(input => Files.SameFile(input, final)))
            throw new UserErrorException($"{output}: the output is an input; name another file.");
        if (Directory.Exists(final))
            throw new UserErrorException($"{output}: this is a folder; name a file.");
        if (File.Exists(final) && !force)
            throw new UserErrorException($"{output}: exists already; --force replaces it.");
        string folder = System.IO.Path.GetDirectoryName(final)!;
        if (!Directory.Exists(folder))
            throw new UserErrorException($"{output}: there is no folder {folder}.");
        string path = System.IO.Path.Combine(folder, $".{System.IO.Path.GetFileNameWithoutExtension(final)}.{Environment.ProcessId}.tmp{System.IO.Path.GetExtension(final)}");
        Open[path] = true;
        return new TemporaryFile(final, path);
    }

    /// <summary>Gives the complete file its final name.</summary>
    public void Commit()
    {
        File.Move(Path, _final, overwrite: true);
        Open.TryRemove(Path, out _);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Open.TryRemove(Path, out _))
            File.Delete(Path);
    }

    /// <summary>Deletes what is still under a temporary name.</summary>
    public static void DeleteAll()
    {
        foreach (string path in Open.Keys)
        {
            if (Open.TryRemove(path, out _))
                File.Delete(path);
        }
    }
}

namespace BbmrCluster.Cli;

/// <summary>Questions about files that the command line asks before anything is opened.</summary>
internal static class Files
{
    /// <summary>Whether two names lead to one file, symbolic links followed.</summary>
    public static bool SameFile(string a, string b) => string.Equals(Real(a), Real(b), StringComparison.Ordinal);

    /// <summary>Checks that a file is there and can be read.</summary>
    /// <exception cref="UserErrorException">One sentence that says why not.</exception>
    public static string Readable(string path)
    {
        if (Directory.Exists(path))
            throw new UserErrorException($"{path}: this is a folder, not a file.");
        if (!File.Exists(path))
            throw new UserErrorException($"{path}: there is no such file.");
        try
        {
            using FileStream _ = File.OpenRead(path);
        }
        catch (UnauthorizedAccessException)
        {
            throw new UserErrorException($"{path}: no permission to read it.");
        }
        return path;
    }

    private static string Real(string path)
    {
        string full = Path.GetFullPath(path);
        try
        {
            return File.ResolveLinkTarget(full, returnFinalTarget: true)?.FullName ?? full;
        }
        catch (IOException)
        {
            return full;
        }
    }
}

namespace BbmrCluster.Cli.CommandLine;

/// <summary>An input of a run.</summary>
/// <param name="Given">As named on the command line, or below the folder named there.</param>
/// <param name="FullPath">Absolute.</param>
/// <param name="RelativeFolder">Folder of its results below the output folder; empty for a file named by itself.</param>
/// <param name="Problem">Why it cannot be read at all; null when it can.</param>
internal sealed record InputFile(string Given, string FullPath, string RelativeFolder, string? Problem = null);

/// <summary>Turns files and folders named on a command line into the files they mean, in a stable order.</summary>
internal static class InputFiles
{
    private static readonly HashSet<string> ImageExtensions = new(
        [".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".ppm", ".pgm", ".pnm"], StringComparer.OrdinalIgnoreCase);

    private static readonly HashSet<string> ContainerExtensions = new([".bbmr"], StringComparer.OrdinalIgnoreCase);

    /// <summary>Expands the arguments.</summary>
    /// <param name="arguments">Files and folders.</param>
    /// <param name="recursive">Also files in folders below, the tree kept.</param>
    /// <param name="containers">Containers rather than images are looked for in folders.</param>
    /// <param name="output">The output folder: what lies in it (when it lies below an input folder) is never an input.</param>
    public static IReadOnlyList<InputFile> Expand(IReadOnlyList<string> arguments, bool recursive, bool containers, string output)
    {
        HashSet<string> extensions = containers ? ContainerExtensions : ImageExtensions;
        string outputFolder = Path.GetFullPath(output);
        var found = new List<InputFile>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (string argument in arguments)
        {
            string full = Path.GetFullPath(argument);
            if (Directory.Exists(full))
                AddFolder(argument, full, "");
            else if (seen.Add(full))
                found.Add(new InputFile(argument, full, "", ProblemOf(full)));
        }
        return found;

        void AddFolder(string given, string folder, string relative)
        {
            string[] files, folders;
            try
            {
                files = Directory.GetFiles(folder);
                folders = recursive ? Directory.GetDirectories(folder) : [];
            }
            catch (Exception e) when (e is UnauthorizedAccessException or IOException)
            {
                found.Add(new InputFile(given, folder, relative, e is UnauthorizedAccessException ? "no permission to read this folder" : e.Message));
                return;
            }
            foreach (string file in files.Order(StringComparer.Ordinal))
            {
                string name = Path.GetFileName(file);
                if (extensions.Contains(Path.GetExtension(name)) && !name.StartsWith('.') && !name.EndsWith(".allocation.png", StringComparison.Ordinal) && seen.Add(file))
                    found.Add(new InputFile(Path.Combine(given, name), file, relative, ProblemOf(file)));
            }
            foreach (string below in folders.Order(StringComparer.Ordinal))
            {
                var info = new DirectoryInfo(below);
                // A linked folder may lead back up; hidden folders hold work of programs, ours included.
                if (info.LinkTarget is null && !info.Name.StartsWith('.') && !string.Equals(below, outputFolder, StringComparison.Ordinal))
                    AddFolder(Path.Combine(given, info.Name), below, Path.Combine(relative, info.Name));
            }
        }
    }

    private static string? ProblemOf(string path)
    {
        if (!File.Exists(path))
            return "there is no such file or folder";
        try
        {
            using FileStream stream = File.OpenRead(path);
            return stream.Length == 0 ? "the file is empty" : null;
        }
        catch (UnauthorizedAccessException)
        {
            return "no permission to read it";
        }
        catch (IOException e)
        {
            return e.Message;
        }
    }
}

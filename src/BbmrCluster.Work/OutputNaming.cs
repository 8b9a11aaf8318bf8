using System.IO.Hashing;
using System.Runtime.InteropServices;
using System.Text;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Work;

/// <summary>An input with the names of its outputs.</summary>
public sealed class PlannedImage
{
    private readonly string _folder, _stem, _extension;
    private readonly JobKind _kind;

    internal PlannedImage(string source, string displayName, string folder, string stem, JobKind kind, string extension) =>
        (Source, DisplayName, _folder, _stem, _kind, _extension) = (source, displayName, folder, stem, kind, extension);

    /// <summary>Absolute path.</summary>
    public string Source { get; }

    /// <summary>As the user gave it; for a file of a folder, the folder as given and the way below it.</summary>
    public string DisplayName { get; }

    /// <summary>Absolute paths; made each time, since of very many images they would take more memory than all else.</summary>
    public OutputPaths Outputs => OutputNaming.Outputs(Source, _folder, _stem, _kind, _extension);
}

/// <summary>An input that cannot be taken.</summary>
/// <param name="DisplayName">As the user gave it.</param>
/// <param name="Reason">Why, without the name.</param>
/// <param name="Code">Stable code for machines.</param>
public sealed record RefusedInput(string DisplayName, string Reason, string Code);

/// <summary>What a command will work on, in the order in which it will.</summary>
/// <param name="Images">What will be done.</param>
/// <param name="Refused">What cannot be taken.</param>
public sealed record OutputPlan(IReadOnlyList<PlannedImage> Images, IReadOnlyList<RefusedInput> Refused)
{
    /// <summary>Pictures in folders that are not taken, with the reason: formats that are not read, and what was made here.</summary>
    public IReadOnlyList<PassedOver> PassedOver { get; init; } = [];
}

/// <summary>A picture in a folder that is not taken.</summary>
/// <param name="DisplayName">The folder as given and the way below it.</param>
/// <param name="Made">It was made here; otherwise its format is not read.</param>
public sealed record PassedOver(string DisplayName, bool Made);

/// <summary>
/// Inputs from a list. One that is missing is taken too and fails when its turn comes, so that it is recorded with the
/// others and can be tried again. The tree is kept: of inputs below the root from there, of others the whole path.
/// </summary>
/// <param name="Root">Absolute path of the folder that holds the list.</param>
/// <param name="Paths">Absolute and normal paths of files and folders.</param>
public sealed record InputList(string Root, IReadOnlyList<string> Paths)
{
    internal string PlaceOf(string folder) =>
        folder == Root ? "" : folder.StartsWith(Root.TrimEnd('/') + '/', StringComparison.Ordinal) ? Path.GetRelativePath(Root, folder) : folder.TrimStart('/');
}

/// <summary>Names of outputs. Deterministic: the same folder gives the same plan in the same order.</summary>
public static class OutputNaming
{
    private const string ContainerExtension = ".bbmr", PictureSuffix = ".allocation.png", ReportSuffix = ".report.json", UpscaleReportSuffix = ".upscale.report.json";
    private const int MaxNameBytes = 255;

    private static readonly HashSet<string> ImageExtensions = new(StringComparer.OrdinalIgnoreCase)
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif", ".gif", ".bmp", ".ppm", ".pgm", ".pnm", ".mpo",
    };

    // Pictures that nothing here reads; also camera raw, whose names tell what their contents hide.
    private static readonly HashSet<string> UnreadExtensions = new(StringComparer.OrdinalIgnoreCase)
    {
        ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".jpm", ".j2c", ".jxr", ".wdp", ".hdp", ".psd", ".psb", ".pbm", ".pam", ".pfm", ".tga", ".qoi", ".exr", ".hdr", ".xcf", ".ico",
        ".svg", ".eps", ".pcx", ".sgi", ".dpx", ".fits", ".heics", ".avifs", ".hif", ".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".srf", ".sr2", ".raf", ".orf",
        ".rw2", ".rwl", ".pef", ".ptx", ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".mos", ".mef", ".mrw", ".erf", ".kdc", ".dcr", ".raw", ".gpr",
    };

    // What storage systems put beside pictures: thumbnails, waste, snapshots.
    private static readonly HashSet<string> SystemFolders = new(StringComparer.OrdinalIgnoreCase)
    {
        "@eaDir", "#recycle", "@Recycle", "#snapshot", "@Recently-Snapshot", "@tmp", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX",
    };

    private static readonly HashSet<string> MarkedExtensions = new(ImageEncoder.Extensions, StringComparer.OrdinalIgnoreCase);

    /// <summary>
    /// Finds the inputs and names their outputs below <paramref name="outputDirectory"/>, keeping the tree below each folder
    /// given. Of a folder only pictures are taken (containers for an upscale), never hidden files, the output directory
    /// within it, or what an earlier run wrote; a file that is named itself is always taken. Links to folders are
    /// followed, each folder once.
    /// </summary>
    /// <param name="inputs">Files and folders as the user gave them.</param>
    /// <param name="outputDirectory">Where outputs go.</param>
    /// <param name="kind">What is done.</param>
    /// <param name="imageExtension">Extension of reconstructed images without the dot, e.g. "png".</param>
    /// <param name="recursive">Descend into folders of folders.</param>
    /// <param name="listed">More inputs, from a list.</param>
    public static OutputPlan Plan(IReadOnlyList<string> inputs, string outputDirectory, JobKind kind, string imageExtension, bool recursive, InputList? listed = null)
    {
        var refused = new List<RefusedInput>();
        var found = new List<Input>();
        string outputRoot = Path.GetFullPath(outputDirectory);
        var passedOver = new List<PassedOver>();
        var walk = new Walk(kind, recursive, outputRoot, found, refused, passedOver);
        foreach (string input in inputs)
        {
            string full = Path.GetFullPath(input);
            if (Directory.Exists(full))
                walk.Folder(input, full);
            else if (File.Exists(full))
                found.Add(new Input(full, input, ""));
            else
                refused.Add(new RefusedInput(input, "no such file or folder", "not_found"));
        }
        // Lists are long: one text for all files of a folder.
        var places = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string input in listed?.Paths ?? [])
        {
            if (Directory.Exists(input))
            {
                walk.Folder(input, input, listed!.PlaceOf(input));
                continue;
            }
            string folder = Path.GetDirectoryName(input) ?? "/";
            if (!places.TryGetValue(folder, out string? place))
                places.Add(folder, place = listed!.PlaceOf(folder));
            found.Add(new Input(input, input, place));
        }

        var sources = new HashSet<string>(found.Count, StringComparer.Ordinal);
        found.RemoveAll(input => !sources.Add(input.Source));
        var images = new List<PlannedImage>(found.Count);
        // By hash: the names themselves would take several times the memory of all else.
        var owner = new Dictionary<UInt128, string>(4 * found.Count);
        var folders = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var (input, stem) in Stems(found))
        {
            if (!folders.TryGetValue(input.Folder, out string? target))
                folders.Add(input.Folder, target = Path.Combine(outputRoot, input.Folder));
            var image = new PlannedImage(input.Source, input.DisplayName, target, stem, kind, imageExtension);
            string[] files = [.. FilesOf(image.Outputs, kind)];
            if (files.FirstOrDefault(file => Encoding.UTF8.GetByteCount(Path.GetFileName(file)) > MaxNameBytes) is { } tooLong)
                refused.Add(new RefusedInput(input.DisplayName, $"the name of its output {Path.GetFileName(tooLong)} would be longer than {MaxNameBytes} bytes", "name_too_long"));
            else if (files.FirstOrDefault(file => owner.ContainsKey(Key(file))) is { } taken)
                refused.Add(new RefusedInput(input.DisplayName, $"its output {taken} is that of {owner[Key(taken)]} too; give it another output directory", "conflict"));
            else if (files.FirstOrDefault(sources.Contains) is { } source)
                refused.Add(new RefusedInput(input.DisplayName, $"its output {source} is an input; give it another output directory", "output_is_input"));
            else
            {
                foreach (string file in files)
                    owner.Add(Key(file), input.DisplayName);
                images.Add(image);
            }
        }
        return new OutputPlan(images, refused) { PassedOver = passedOver };
    }

    /// <summary>The files a job makes, in the order in which they are committed: the report last.</summary>
    public static IEnumerable<string> FilesOf(OutputPaths outputs, JobKind kind)
    {
        // An upscale's container is its input.
        if (kind != JobKind.Upscale && outputs.Container is { } container)
            yield return container;
        if (kind != JobKind.Downscale && outputs.Image is { } image)
            yield return image;
        if (kind != JobKind.Upscale && outputs.AllocationPicture is { } picture)
            yield return picture;
        yield return outputs.Report;
    }

    internal static OutputPaths Outputs(string source, string folder, string stem, JobKind kind, string imageExtension)
    {
        string At(string suffix) => Path.Combine(folder, stem + suffix);
        return kind switch
        {
            // Named apart, so that a container can be upscaled beside the report of the run that made it.
            JobKind.Upscale => new OutputPaths(source, At($".{imageExtension}"), null, At(UpscaleReportSuffix)),
            JobKind.Downscale => new OutputPaths(At(ContainerExtension), null, At(PictureSuffix), At(ReportSuffix)),
            _ => new OutputPaths(At(ContainerExtension), At($".{imageExtension}"), At(PictureSuffix), At(ReportSuffix)),
        };
    }

    // a.jpg -> a; where two would share a name, both keep their extension. That may collide anew (a.jpg, a.png and
    // a.jpg.png), so it goes on until nothing changes; every input changes at most once.
    private static IEnumerable<(Input Input, string Stem)> Stems(List<Input> inputs)
    {
        var stems = inputs.Select(input => Path.GetFileNameWithoutExtension(input.Source) is { Length: > 0 } stem ? stem : Path.GetFileName(input.Source)).ToArray();
        while (true)
        {
            var counts = new Dictionary<UInt128, int>(stems.Length);
            for (int i = 0; i < stems.Length; i++)
                CollectionsMarshal.GetValueRefOrAddDefault(counts, Key(inputs[i].Folder, stems[i]), out _)++;
            int[] crowded = [.. Enumerable.Range(0, stems.Length)
                .Where(i => counts[Key(inputs[i].Folder, stems[i])] > 1 && stems[i] != Path.GetFileName(inputs[i].Source))];
            if (crowded.Length == 0)
                return inputs.Zip(stems);
            foreach (int i in crowded)
                stems[i] = Path.GetFileName(inputs[i].Source);
        }
    }

    private static UInt128 Key(string folder, string? name = null)
    {
        var hash = new XxHash128();
        hash.Append(MemoryMarshal.AsBytes(folder.AsSpan()));
        if (name is not null)
            hash.Append(MemoryMarshal.AsBytes(("/" + name).AsSpan()));
        return hash.GetCurrentHashAsUInt128();
    }

    private sealed record Input(string Source, string DisplayName, string Folder);

    private sealed class Walk(JobKind kind, bool recursive, string outputRoot, List<Input> found, List<RefusedInput> refused, List<PassedOver> passedOver)
    {
        private readonly HashSet<(uint, uint, ulong)> _visited = [];

        public void Folder(string given, string full, string below = "")
        {
            // A folder given twice, or below another one given, counts once.
            if (FileSystem.Identity(full) is { } identity && _visited.Contains(identity))
                return;
            int before = found.Count + refused.Count;
            Descend(given, full, below);
            if (found.Count + refused.Count == before)
                refused.Add(new RefusedInput(given, kind == JobKind.Upscale ? "holds no container" : "holds no picture", "empty"));
        }

        private void Descend(string display, string full, string below)
        {
            if (FileSystem.Identity(full) is not { } identity || !_visited.Add(identity))
                return;
            string[] entries;
            try
            {
                entries = Directory.GetFileSystemEntries(full);
            }
            catch (Exception error) when (error is IOException or UnauthorizedAccessException)
            {
                refused.Add(new RefusedInput(display, "this folder cannot be read", "unreadable"));
                return;
            }
            Array.Sort(entries, StringComparer.Ordinal);
            foreach (string entry in entries)
            {
                string name = Path.GetFileName(entry);
                if (name[0] == '.')
                    continue;
                if (Directory.Exists(entry))
                {
                    if (recursive && !SystemFolders.Contains(name) && !FileSystem.IsSameFile(entry, outputRoot))
                        Descend(Path.Combine(display, name), entry, Path.Combine(below, name));
                }
                else if (HasInputName(name))
                {
                    if (kind != JobKind.Upscale && IsOwnOutput(entry, name))
                        passedOver.Add(new PassedOver(Path.Combine(display, name), Made: true));
                    else
                        found.Add(new Input(entry, Path.Combine(display, name), below));
                }
                else if (kind != JobKind.Upscale && UnreadExtensions.Contains(Path.GetExtension(name)))
                {
                    passedOver.Add(new PassedOver(Path.Combine(display, name), Made: false));
                }
            }
        }

        private bool HasInputName(string name) => kind == JobKind.Upscale
            ? Path.GetExtension(name).Equals(ContainerExtension, StringComparison.OrdinalIgnoreCase)
            : ImageExtensions.Contains(Path.GetExtension(name)) && !name.EndsWith(PictureSuffix, StringComparison.OrdinalIgnoreCase);

        // A reconstructed image has a mark; one of an earlier version lies beside the report that names it.
        private static bool IsOwnOutput(string path, string name)
        {
            if (MarkedExtensions.Contains(Path.GetExtension(name)) && ImageFile.IsMarked(path))
                return true;
            string stem = Path.ChangeExtension(path, null);
            return new[] { stem + ReportSuffix, stem + UpscaleReportSuffix }
                .Any(report => JobReport.Load(report, out _)?.Outputs.Any(output => output.Name == name) == true);
        }
    }
}

using BbmrCluster.Networks.Engine;
using BbmrCluster.Node.Cluster;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Node.Api;

/// <summary>A request that cannot be carried out; the message is one sentence.</summary>
/// <param name="message">Why.</param>
public sealed class RequestRefusedException(string message) : Exception(message);

/// <summary>A request that names a file outside the folders that jobs may use; the message is one sentence.</summary>
/// <param name="message">Which.</param>
public sealed class ForbiddenPathException(string message) : Exception(message);

/// <summary>Turns a request into images with all that decides their bytes.</summary>
internal sealed class JobPlanner(NodeOptions options, EngineFactory engines)
{
    /// <summary>Finds inputs, names outputs and fixes weights, precision and device class.</summary>
    /// <param name="request">The request.</param>
    /// <param name="usualClass">Device class where the request names none; null for this node's own.</param>
    /// <exception cref="JobOptionException">An option has a value that it cannot have.</exception>
    /// <exception cref="RequestRefusedException">Nothing can be done of it.</exception>
    /// <exception cref="ForbiddenPathException">A path lies where it may not.</exception>
    /// <exception cref="EngineUnavailableException">No weights for it.</exception>
    public (IEnumerable<ImageJob> Jobs, IReadOnlyList<RefusedInput> Refused) Plan(JobRequest request, string? usualClass)
    {
        JobParameters parameters = request.Parameters();
        if (parameters.DeviceClass is "")
            parameters = parameters with { DeviceClass = usualClass ?? "" };
        var allowed = new AllowedFolders(options.Data);
        string output = allowed.Checked(request.Output, "output");
        List<string> inputs = [.. request.Inputs.Select(input => allowed.Checked(input, "input"))];
        var refused = new List<RefusedInput>();
        InputList? listed = Manifest(request.Manifest, allowed, refused);
        if (inputs.Count + (listed?.Paths.Count ?? 0) + refused.Count == 0)
            throw new RequestRefusedException(request.Manifest is null ? "A job needs inputs or a manifest." : $"The manifest {request.Manifest} names no input.");

        OutputPlan plan = OutputNaming.Plan(inputs, output, parameters.Kind, parameters.ImageExtension, request.Recursive, listed);
        refused.AddRange(plan.Refused);
        var images = new List<PlannedImage>(plan.Images.Count);
        foreach (PlannedImage image in plan.Images)
        {
            // Links below a folder may lead anywhere.
            if (!allowed.Contain(image.Source))
                refused.Add(new RefusedInput(image.DisplayName, allowed.Refusal, "not_allowed"));
            else
                images.Add(image);
        }
        IEnumerable<ImageJob> jobs = new JobMaker(engines, parameters).MakeAll(images, refused);
        if (!jobs.Any())
            throw new RequestRefusedException($"None of the inputs can be taken: {string.Join("; ", refused.Take(5).Select(one => $"{one.DisplayName}: {one.Reason}"))}.");
        MakeFolder(output);
        return (jobs, refused);
    }

    private static InputList? Manifest(string? manifest, AllowedFolders allowed, List<RefusedInput> refused)
    {
        if (manifest is null)
            return null;
        string path = allowed.Checked(manifest, "manifest");
        var inputs = new List<string>();
        try
        {
            string folder = Path.GetDirectoryName(path)!;
            foreach (string line in File.ReadLines(path).Select(line => line.Trim()).Where(line => line.Length > 0 && line[0] != '#'))
            {
                string input = Path.GetFullPath(line, folder);
                if (allowed.Contain(input))
                    inputs.Add(input);
                else
                    refused.Add(new RefusedInput(line, allowed.Refusal, "not_allowed"));
            }
            return new InputList(folder, inputs);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new RequestRefusedException($"The manifest {manifest} cannot be read: {error.Message}");
        }
        catch (ArgumentException)
        {
            throw new RequestRefusedException($"The manifest {manifest} is no text file with one path a line.");
        }
    }

    private static void MakeFolder(string output)
    {
        try
        {
            Directory.CreateDirectory(output);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new RequestRefusedException($"The output folder {output} cannot be made: {error.Message}");
        }
    }
}

/// <summary>The folders that jobs may use, links followed. For one request: what it has looked up it keeps.</summary>
/// <param name="folders">Empty for all.</param>
internal sealed class AllowedFolders(IReadOnlyList<string> folders)
{
    private readonly string[] _roots = [.. folders.Select(folder => Real(folder).TrimEnd('/') + '/')];
    private readonly Dictionary<string, string> _real = new(StringComparer.Ordinal);

    /// <summary>Why a path is not taken, without its name.</summary>
    public string Refusal { get; } = $"it does not lie in a folder that jobs may use ({string.Join(", ", folders)})";

    /// <summary>The path in full, when it lies there.</summary>
    /// <exception cref="RequestRefusedException">It is not absolute.</exception>
    /// <exception cref="ForbiddenPathException">It lies elsewhere.</exception>
    public string Checked(string path, string what)
    {
        if (!Path.IsPathFullyQualified(path) || path.Contains('\0', StringComparison.Ordinal))
            throw new RequestRefusedException($"The {what} '{path}' is not an absolute path.");
        string full = Path.GetFullPath(path);
        return Contain(full) ? full : throw new ForbiddenPathException($"The {what} '{path}' cannot be used: {Refusal}.");
    }

    /// <summary>Whether a full path lies there.</summary>
    public bool Contain(string full)
    {
        if (_roots.Length == 0)
            return true;
        string folder = Path.GetDirectoryName(full) ?? "/";
        if (!_real.TryGetValue(folder, out string? real))
            _real[folder] = real = Real(folder);
        string target = Followed(Path.Combine(real, Path.GetFileName(full))) + '/';
        return _roots.Any(root => target.StartsWith(root, StringComparison.Ordinal));
    }

    // What does not exist yet lies where its nearest folder lies.
    private static string Real(string path) => path.Split('/', StringSplitOptions.RemoveEmptyEntries).Aggregate("/", (real, part) => Followed(Path.Combine(real, part)));

    private static string Followed(string path)
    {
        FileSystemInfo? target = Directory.Exists(path) ? Directory.ResolveLinkTarget(path, returnFinalTarget: true) : File.Exists(path) ? File.ResolveLinkTarget(path, returnFinalTarget: true) : null;
        return target is null ? path : Real(target.FullName);
    }
}

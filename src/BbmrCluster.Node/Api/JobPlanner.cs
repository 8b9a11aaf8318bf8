using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;
using BbmrCluster.Imaging;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Node.Cluster;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Node.Api;

/// <summary>A request that cannot be carried out; the message is one sentence.</summary>
/// <param name="message">Why.</param>
public sealed class RequestRefusedException(string message) : Exception(message);

/// <summary>Turns a request into images with all that decides their bytes.</summary>
internal sealed class JobPlanner(NodeOptions options, EngineFactory engines)
{
    /// <summary>Finds inputs, names outputs and fixes weights, precision and device class.</summary>
    /// <param name="request">The request.</param>
    /// <param name="usualClass">Device class where the request names none; null for this node's own.</param>
    /// <exception cref="RequestRefusedException">Nothing can be done of it.</exception>
    /// <exception cref="EngineUnavailableException">No weights for it.</exception>
    public (IReadOnlyList<ImageJob> Jobs, IReadOnlyList<RefusedInput> Refused) Plan(JobRequest request, string? usualClass)
    {
        JobKind kind = Enum.TryParse(request.Kind, ignoreCase: true, out JobKind parsed) && Enum.IsDefined(parsed) ? parsed
            : throw new RequestRefusedException($"There is no kind '{request.Kind}': rescale, downscale or upscale.");
        string format = request.Format is "png" or "tiff" or "webp" or "jpeg" ? request.Format : throw new RequestRefusedException($"There is no format '{request.Format}': png, tiff, webp or jpeg.");
        ScaleSet scales = Parsed(() => new ScaleSet(request.Scales));
        string allocator = Parsed(() => Allocators.Parse(request.Allocator)).Name;
        int rate = request.Rate ?? scales.Middle;
        if (rate < scales[0] || rate > scales[scales.Count - 1] || BlockGrid.DefaultBlockSize % rate != 0)
            throw new RequestRefusedException($"The rate {rate} does not lie between the scales {scales} as a divisor of {BlockGrid.DefaultBlockSize}.");
        if (request.MaxPixels < 1 || request.MaxSide < 1)
            throw new RequestRefusedException("max_pixels and max_side are at least 1.");
        string output = Allowed(request.Output, "output");
        List<string> inputs = [.. request.Inputs, .. Manifest(request.Manifest)];
        if (inputs.Count == 0)
            throw new RequestRefusedException("A job needs inputs or a manifest.");

        OutputPlan plan = OutputNaming.Plan([.. inputs.Select(input => Allowed(input, "input"))], output, kind, format == "jpeg" ? "jpg" : format, request.Recursive);
        var refused = plan.Refused.ToList();
        var wanted = new EngineSettings(request.Network, request.Scorer, request.Downscaler, scales, request.Precision, "auto", 0, 0, request.Joint);
        string deviceClass = request.DeviceClass ?? usualClass ?? engines.DeviceClass(wanted);
        var limits = new ImageLimits(request.MaxPixels, request.MaxSide);
        var jobs = new List<ImageJob>(plan.Images.Count);
        var weights = new Dictionary<EngineSettings, IReadOnlyDictionary<string, string>>();
        foreach (PlannedImage image in plan.Images)
        {
            try
            {
                _ = Allowed(image.Source, "input");
                EngineSettings engine = Resolved(kind == JobKind.Upscale ? OfContainer(wanted, image.Source, limits, request.AllowOtherWeights) : wanted, deviceClass);
                if (!weights.TryGetValue(engine, out IReadOnlyDictionary<string, string>? hashes))
                    weights[engine] = hashes = engines.WeightHashes(engine);
                var job = new ImageJob(new ImageId("unnamed"), kind, image.Source, image.DisplayName, image.Outputs, engine, deviceClass, hashes, allocator, rate,
                    request.Measure, request.Force, limits, request.AllowOtherWeights);
                jobs.Add(job with { Id = JobIdentity.Of(job) });
            }
            catch (RequestRefusedException error)
            {
                refused.Add(new RefusedInput(image.DisplayName, error.Message, "not_allowed"));
            }
            catch (Exception error) when (kind == JobKind.Upscale && error is ContainerException or IOException or UnauthorizedAccessException)
            {
                refused.Add(new RefusedInput(image.DisplayName, error is ContainerException container ? container.Reason : error.Message, "refused"));
            }
        }
        if (jobs.Count == 0)
            throw new RequestRefusedException($"None of the inputs can be taken: {string.Join("; ", refused.Take(5).Select(one => $"{one.DisplayName}: {one.Reason}"))}.");
        MakeFolder(output);
        return (jobs, refused);
    }

    // What "auto" means on devices of that class, which need not be this node's.
    private EngineSettings Resolved(EngineSettings settings, string deviceClass)
    {
        if (deviceClass == engines.DeviceClass(settings))
            return engines.Resolve(settings);
        string precision = settings.Precision is not "auto" ? settings.Precision : deviceClass.StartsWith("cuda", StringComparison.Ordinal) || deviceClass.EndsWith("-bf16", StringComparison.Ordinal) ? "bfloat16" : "float32";
        return engines.Resolve(settings with { Precision = "float32" }) with { Precision = precision };
    }

    private static EngineSettings OfContainer(EngineSettings wanted, string path, ImageLimits limits, bool otherWeights)
    {
        using ContainerReader reader = ContainerReader.Open(path, limits);
        ContainerHeader header = reader.Header;
        string pinned = EngineFactory.JointOf(header);
        return wanted with { Network = header.Network, Scorer = "none", Downscaler = header.Downscaler, Scales = header.Scales, Joint = otherWeights && pinned is "trained" ? "auto" : pinned };
    }

    private List<string> Manifest(string? manifest)
    {
        if (manifest is null)
            return [];
        string path = Allowed(manifest, "manifest");
        try
        {
            string folder = Path.GetDirectoryName(path)!;
            return [.. File.ReadLines(path).Select(line => line.Trim()).Where(line => line.Length > 0 && line[0] != '#').Select(line => Path.Combine(folder, line))];
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new RequestRefusedException($"The manifest {manifest} cannot be read: {error.Message}");
        }
    }

    /// <summary>The path with links followed, when it lies in a folder that jobs may use.</summary>
    private string Allowed(string path, string what)
    {
        if (!Path.IsPathFullyQualified(path))
            throw new RequestRefusedException($"The {what} '{path}' is not an absolute path.");
        string full = Path.GetFullPath(path);
        if (options.Data.Count == 0)
            return full;
        string real = Real(full);
        return options.Data.Select(Real).Any(root => real == root || real.StartsWith(root.TrimEnd('/') + '/', StringComparison.Ordinal)) ? full
            : throw new RequestRefusedException($"The {what} '{path}' does not lie in a folder that jobs may use ({string.Join(", ", options.Data)}).");
    }

    // Links anywhere in the path are followed; what does not exist yet lies where its nearest folder lies.
    private static string Real(string path)
    {
        string real = "/";
        foreach (string part in path.Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            string next = Path.Combine(real, part);
            real = (Directory.Exists(next) ? Directory.ResolveLinkTarget(next, returnFinalTarget: true) : File.Exists(next) ? File.ResolveLinkTarget(next, returnFinalTarget: true) : null)?.FullName ?? next;
        }
        return real;
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

    private static T Parsed<T>(Func<T> parse)
    {
        try
        {
            return parse();
        }
        catch (Exception error) when (error is FormatException or ArgumentException)
        {
            throw new RequestRefusedException(error.Message.Split(" (Parameter", StringSplitOptions.None)[0]);
        }
    }
}

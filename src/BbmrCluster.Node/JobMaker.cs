using System.Collections;
using System.Diagnostics.CodeAnalysis;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Imaging;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Node;

/// <summary>What all images of a job have in common.</summary>
/// <param name="Kind">What is done.</param>
/// <param name="Engine">Networks and precision as asked for; "auto" is fixed by the maker. Of an upscale the containers decide networks and scales.</param>
/// <param name="Allocator">As of <see cref="Allocators.Parse"/>.</param>
/// <param name="Rate">Scale whose rate is kept.</param>
/// <param name="Limits">Larger images are refused.</param>
/// <param name="Measure">Measure the errors of a downscale by reconstructing it.</param>
/// <param name="Force">Replace results that exist.</param>
/// <param name="AllowOtherWeights">Take present weights for an upscale where they differ from those that the container names.</param>
public sealed record JobParameters(JobKind Kind, EngineSettings Engine, string Allocator, int Rate, ImageLimits Limits, bool Measure = false, bool Force = false, bool AllowOtherWeights = false);

/// <summary>Gives planned images all that decides their bytes: weights, precision and device class. Not thread-safe.</summary>
/// <param name="engines">Knows weights and devices.</param>
/// <param name="parameters">What the images have in common.</param>
/// <param name="deviceClass">Class of the devices that will do it; null for this machine's own.</param>
/// <exception cref="FormatException">There is no such allocator.</exception>
public sealed class JobMaker(EngineFactory engines, JobParameters parameters, string? deviceClass = null)
{
    private readonly string _allocator = Allocators.Parse(parameters.Allocator).Name;
    private readonly Dictionary<EngineSettings, (EngineSettings Engine, string DeviceClass, IReadOnlyDictionary<string, string> Weights)> _resolved = [];

    /// <summary>The job of one image, or why it cannot be taken: a container that cannot be read, or whose networks are not here.</summary>
    /// <exception cref="EngineUnavailableException">No device or no weights, whichever image it is.</exception>
    public bool TryMake(PlannedImage image, [NotNullWhen(true)] out ImageJob? job, [NotNullWhen(false)] out RefusedInput? refused)
    {
        (job, refused) = (null, null);
        try
        {
            (EngineSettings engine, string device, IReadOnlyDictionary<string, string> weights) = Resolved(parameters.Kind == JobKind.Upscale ? OfContainer(image.Source) : parameters.Engine);
            var made = new ImageJob(new ImageId("unnamed"), parameters.Kind, image.Source, image.DisplayName, image.Outputs, engine, device, weights, _allocator, parameters.Rate,
                parameters.Measure, parameters.Force, parameters.Limits, parameters.AllowOtherWeights);
            job = made with { Id = JobIdentity.Of(made) };
            return true;
        }
        catch (Exception error) when (parameters.Kind == JobKind.Upscale && error is ContainerException or IOException or UnauthorizedAccessException)
        {
            refused = new RefusedInput(image.DisplayName, error is ContainerException container ? container.Reason : error.Message, "refused");
        }
        catch (EngineUnavailableException error) when (parameters.Kind == JobKind.Upscale)
        {
            // Each container names its own networks.
            refused = new RefusedInput(image.DisplayName, error.Message, "weights");
        }
        return false;
    }

    /// <summary>
    /// The jobs of many images. Where none can be refused each is made when it is read, and again when it is read again: all at
    /// once would take several times the memory of their names.
    /// </summary>
    /// <param name="images">The images.</param>
    /// <param name="refused">Gets those that cannot be taken.</param>
    /// <exception cref="EngineUnavailableException">No device or no weights, whichever image it is.</exception>
    public IReadOnlyList<ImageJob> MakeAll(IReadOnlyList<PlannedImage> images, ICollection<RefusedInput> refused)
    {
        if (parameters.Kind != JobKind.Upscale)
        {
            _ = Resolved(parameters.Engine);
            return new MadeWhenRead(images, image => TryMake(image, out ImageJob? job, out _) ? job : throw new InvalidOperationException($"{image.DisplayName} is no image of this job."));
        }
        var jobs = new List<ImageJob>(images.Count);
        foreach (PlannedImage image in images)
        {
            if (TryMake(image, out ImageJob? job, out RefusedInput? reason))
                jobs.Add(job);
            else
                refused.Add(reason);
        }
        return jobs;
    }

    private (EngineSettings Engine, string DeviceClass, IReadOnlyDictionary<string, string> Weights) Resolved(EngineSettings wanted)
    {
        if (_resolved.TryGetValue(wanted, out var known))
            return known;
        string own = engines.DeviceClass(wanted), device = deviceClass ?? own;
        EngineSettings engine;
        if (device == own)
        {
            engine = engines.Resolve(wanted);
        }
        else
        {
            // What "auto" means on devices of that class, which are not here.
            string precision = wanted.Precision is not "auto" ? wanted.Precision
                : device.StartsWith("cuda", StringComparison.Ordinal) || device.EndsWith("-bf16", StringComparison.Ordinal) ? "bfloat16" : "float32";
            engine = engines.Resolve(wanted with { Precision = "float32" }) with { Precision = precision };
        }
        return _resolved[wanted] = (engine, device, engines.WeightHashes(engine));
    }

    // An upscale takes networks and scales from the container; the machine's own matters stay.
    private EngineSettings OfContainer(string path)
    {
        using ContainerReader reader = ContainerReader.Open(path, parameters.Limits);
        ContainerHeader header = reader.Header;
        // With other weights allowed, those that are here decide whether the joint part is a trained one.
        string joint = EngineFactory.JointOf(header) is var pinned && parameters.AllowOtherWeights && pinned is "trained" ? "auto" : pinned;
        return parameters.Engine with { Network = header.Network, Scorer = "none", Downscaler = header.Downscaler, Scales = header.Scales, Joint = joint };
    }

    private sealed class MadeWhenRead(IReadOnlyList<PlannedImage> images, Func<PlannedImage, ImageJob> make) : IReadOnlyList<ImageJob>
    {
        public int Count => images.Count;

        public ImageJob this[int index] => make(images[index]);

        public IEnumerator<ImageJob> GetEnumerator() => images.Select(make).GetEnumerator();

        IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
    }
}

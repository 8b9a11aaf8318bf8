using System.Diagnostics.CodeAnalysis;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;
using BbmrCluster.Work;

namespace BbmrCluster.Node;

/// <summary>Makes images of a job out of planned ones: weights, precision and device class become fixed. Not thread-safe.</summary>
/// <param name="engines">Knows weights and devices.</param>
/// <param name="parameters">What is asked for, validated. Of an upscale the containers decide networks and scales.</param>
public sealed class JobMaker(EngineFactory engines, JobParameters parameters)
{
    private readonly Dictionary<EngineSettings, JobParameters> _pinned = [];

    /// <summary>One image, or why it cannot be taken: a container that cannot be read, or whose networks are not here.</summary>
    /// <exception cref="EngineUnavailableException">No device or no weights, whichever image it is.</exception>
    public bool TryMake(PlannedImage image, [NotNullWhen(true)] out ImageJob? job, [NotNullWhen(false)] out RefusedInput? refused)
    {
        (job, refused) = (null, null);
        if (parameters.Kind != JobKind.Upscale)
        {
            job = ImageJob.Of(image, Pinned(parameters.Engine));
            return true;
        }
        try
        {
            job = ImageJob.Of(image, Pinned(OfContainer(image.Source)));
            return true;
        }
        catch (Exception error) when (error is ContainerException or IOException or UnauthorizedAccessException)
        {
            refused = new RefusedInput(image.DisplayName, error is ContainerException container ? container.Reason : error.Message, "refused");
        }
        catch (EngineUnavailableException error)
        {
            // Each container names its own networks.
            refused = new RefusedInput(image.DisplayName, error.Message, "weights");
        }
        return false;
    }

    /// <summary>
    /// Many images. Where none can be refused it is a query, which makes them anew whenever it is read: all at once would take
    /// several times the memory of their names.
    /// </summary>
    /// <param name="images">The images.</param>
    /// <param name="refused">Gets those that cannot be taken.</param>
    /// <exception cref="EngineUnavailableException">No device or no weights, whichever image it is.</exception>
    public IEnumerable<ImageJob> MakeAll(IReadOnlyList<PlannedImage> images, ICollection<RefusedInput> refused)
    {
        if (parameters.Kind != JobKind.Upscale)
        {
            JobParameters pinned = Pinned(parameters.Engine);
            return images.Select(image => ImageJob.Of(image, pinned));
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

    private JobParameters Pinned(EngineSettings engine)
    {
        if (!_pinned.TryGetValue(engine, out JobParameters? pinned))
            _pinned.Add(engine, pinned = engines.Pin(parameters with { Engine = engine }));
        return pinned;
    }

    // An upscale takes networks and scales from the container; the machine's own matters stay.
    private EngineSettings OfContainer(string path)
    {
        using ContainerReader reader = ContainerReader.Open(path, parameters.Limits);
        ContainerHeader header = reader.Header;
        // With other weights allowed, those that are here decide whether the joint part is a trained one.
        string joint = EngineFactory.JointOf(header) is var named && parameters.AllowOtherWeights && named is "trained" ? "auto" : named;
        return parameters.Engine with { Network = header.Network, Scorer = "none", Downscaler = header.Downscaler, Scales = header.Scales, Joint = joint, Context = header.Context, BlockSize = header.BlockSize, Halo = header.Halo };
    }
}

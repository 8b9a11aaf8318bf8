using BbmrCluster.Networks.Catalog;
using BbmrCluster.Rescaling;
using TorchSharp;

namespace BbmrCluster.Networks.Engine;

/// <summary>Makes engines on the processor or a CUDA device from the weights of a catalog. Thread-safe.</summary>
/// <param name="catalog">Where weights are; null takes the default folder.</param>
public sealed class EngineFactory(ModelCatalog? catalog = null) : IEngineFactory
{
    private readonly ModelCatalog _catalog = catalog ?? new ModelCatalog();

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> WeightHashes(EngineSettings settings)
    {
        var hashes = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (string network in Networks(settings))
        {
            foreach (int scale in settings.Scales.Scales)
            {
                LoadedModel model = _catalog.Load(network, scale);
                hashes[model.FileName] = model.Sha256;
            }
        }
        return hashes;
    }

    /// <inheritdoc/>
    public string DeviceClass(EngineSettings settings) => Devices.ClassOf(Devices.Resolve(settings.Device));

    /// <summary>The settings with what "auto" means on this device in place of the precision, for the record of a job.</summary>
    /// <exception cref="EngineUnavailableException">The device or the precision is not there: one sentence.</exception>
    public static EngineSettings WithPrecision(EngineSettings settings) =>
        settings with { Precision = Devices.BodyType(settings.Precision, Devices.Resolve(settings.Device)) == torch.ScalarType.BFloat16 ? "bfloat16" : "float32" };

    /// <inheritdoc/>
    public IEngine Create(EngineSettings settings)
    {
        foreach (string network in Networks(settings))
        {
            foreach (int scale in settings.Scales.Scales)
                _ = _catalog.Load(network, scale).SrShape;
        }
        if (settings.Scales.Scales.Any(scale => scale % settings.Scales[0] != 0))
            throw new EngineUnavailableException($"JointSR joins scales that are multiples of the finest one; {settings.Scales} are not.");
        torch.Device device = Devices.Resolve(settings.Device);
        return new Engine(_catalog, settings, device, Devices.BodyType(settings.Precision, device));
    }

    private static IEnumerable<string> Networks(EngineSettings settings)
    {
        if (settings.Downscaler is "downnet")
            throw new EngineUnavailableException("There are no weights of downnet, nor of networks trained with it: use the downscaler bicubic.");
        if (settings.Downscaler is not "bicubic")
            throw new EngineUnavailableException($"There is no downscaler '{settings.Downscaler}': choose bicubic or downnet.");
        return settings.Scorer switch
        {
            "bicubic" or "same" => [settings.Network],
            "omnisr-light" => [settings.Network, "omnisr-light"],
            _ => throw new EngineUnavailableException($"There is no scorer '{settings.Scorer}': choose omnisr-light, same or bicubic."),
        };
    }
}

/// <summary>
/// One device's networks. Work is spread over worker threads of one libtorch thread each, so the result does not depend
/// on <see cref="EngineSettings.Threads"/>.
/// </summary>
internal sealed class Engine : IEngine
{
    private readonly BatchRunner _runner;
    private readonly NetworkSet _networks;
    private readonly NetworkSet? _light;
    private readonly JointReconstructor _reconstructor;

    public Engine(ModelCatalog catalog, EngineSettings settings, torch.Device device, torch.ScalarType body)
    {
        bool cpu = device.type == DeviceType.CPU;
        int workers = !cpu ? 1 : settings.Threads > 0 ? settings.Threads : Environment.ProcessorCount;
        _runner = new BatchRunner(workers, () => NativeRuntime.SetThreads(1));
        _networks = new NetworkSet(catalog, settings.Network, body, device);
        if (settings.Scorer is "omnisr-light" && settings.Network is not "omnisr-light")
            _light = new NetworkSet(catalog, "omnisr-light", body, device);

        int LargestBatch(int scale) => settings.MaxBatch > 0 ? settings.MaxBatch : scale >= 8 ? 64 : 16;
        _reconstructor = new JointReconstructor(settings.Network, _networks, settings.Scales, _runner, device, LargestBatch);
        Scorer = settings.Scorer is "bicubic"
            ? new BicubicScorer(_runner)
            : new NetworkScorer(settings.Scorer, _light ?? _networks, _runner, device, LargestBatch);
    }

    public IDownscaler Downscaler { get; } = new BicubicDownscaler();

    public IBlockScorer Scorer { get; }

    public IReconstructor Reconstructor => _reconstructor;

    public DeviceCounts TakeCounts() => _runner.Take();

    public void Dispose()
    {
        _runner.Dispose();
        _reconstructor.Dispose();
        _networks.Dispose();
        _light?.Dispose();
    }
}

using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;
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
        foreach (LoadedModel model in Models(settings))
            hashes[model.FileName] = model.Sha256;
        return hashes;
    }

    /// <summary>All weights that are here, file name to SHA-256.</summary>
    public IReadOnlyDictionary<string, string> AllWeights() => _catalog.Hashes();

    /// <inheritdoc/>
    public string DeviceClass(EngineSettings settings) => Devices.ClassOf(Devices.Resolve(settings.Device));

    /// <summary>
    /// The settings with what "auto" means here and now in place of precision, joint part and batch size, for the record of
    /// a job: a joint model that appears later must not change a job that goes on. The batch size stays 0 where memory
    /// does not limit it.
    /// </summary>
    /// <exception cref="EngineUnavailableException">Device, precision or weights are not there: one sentence.</exception>
    public EngineSettings Resolve(EngineSettings settings) => settings with
    {
        Precision = Devices.BodyType(settings.Precision, Devices.Resolve(settings.Device)) == torch.ScalarType.BFloat16 ? "bfloat16" : "float32",
        Joint = TrainedJoint(settings) is null ? "blockwise" : "trained",
        MaxBatch = settings.MaxBatch > 0 ? settings.MaxBatch : BatchOfMemory(settings, GC.GetGCMemoryInfo().TotalAvailableMemoryBytes),
    };

    /// <summary>
    /// The parameters of a job with nothing open: what "auto" means on its devices, this machine's own unless it names a class,
    /// and its weights.
    /// </summary>
    /// <exception cref="EngineUnavailableException">As above.</exception>
    public JobParameters Pin(JobParameters parameters)
    {
        EngineSettings wanted = parameters.Engine;
        string own = DeviceClass(wanted), chosen = parameters.DeviceClass is "" ? own : parameters.DeviceClass;
        // Devices of another class need not be here.
        EngineSettings engine = chosen == own ? Resolve(wanted)
            : Resolve(wanted with { Precision = "float32" }) with { Precision = wanted.Precision is "auto" ? Devices.FasterPrecision(chosen) : wanted.Precision };
        return parameters with { Engine = engine, DeviceClass = chosen, WeightHashes = new WeightHashes(WeightHashes(engine)) };
    }

    /// <summary>The batch size that memory allows at the finest scale; 0 where it allows the best one.</summary>
    internal static int BatchOfMemory(EngineSettings settings, long memory)
    {
        int scale = settings.Scales[0], largest = EngineBatch.Largest(scale, Engine.WorkersOf(settings, Devices.Resolve(settings.Device)), memory);
        return largest < EngineBatch.SpeedBest ? largest : 0;
    }

    /// <summary>
    /// Which joint part a container was made for, as <see cref="EngineSettings.Joint"/>: a joint model among its weights
    /// means a trained one.
    /// </summary>
    public static string JointOf(ContainerHeader header) =>
        header.WeightHashes.ContainsKey(ModelNames.FileName(ModelNames.Joint(header.Network, header.Downscaler), null)) ? "trained" : "blockwise";

    /// <inheritdoc/>
    public IEngine Create(EngineSettings settings)
    {
        // Said before anything is made: a file under the name of a network may hold something else.
        foreach (IGrouping<string, LoadedModel> network in Models(settings).Where(model => model.Shape is not (JointSrShape or DownNetShape)).GroupBy(model => model.Name, StringComparer.Ordinal))
        {
            if (network.DistinctBy(model => model.SrShape.Black).Count() > 1)
                throw new EngineUnavailableException($"The scales of {network.Key} do not go together: {string.Join("; ", network.Select(model => $"{model.FileName} holds {model.Shape.Description}"))}.");
        }
        if (settings.Context == BlockContext.None && settings.Scales.Scales.Any(scale => scale % settings.Scales[0] != 0))
            throw new EngineUnavailableException($"JointSR joins scales that are multiples of the finest one; {settings.Scales} are not.");
        if (settings.Context == BlockContext.Canvas && !Canvas.Supports(settings.Scales))
            throw new EngineUnavailableException($"With a canvas each scale must divide the next; {settings.Scales} do not.");
        torch.Device device = Devices.Resolve(settings.Device);
        return new Engine(_catalog, settings, TrainedJoint(settings), device, Devices.BodyType(settings.Precision, device));
    }

    // Every file that the settings need, each once.
    private IEnumerable<LoadedModel> Models(EngineSettings settings)
    {
        if (settings.Downscaler is not ("bicubic" or "downnet"))
            throw new EngineUnavailableException($"There is no downscaler '{settings.Downscaler}': choose bicubic or downnet.");
        string? scoring = ScoringNetwork(settings);
        if (scoring is not null && !_catalog.Networks.Contains(scoring, StringComparer.Ordinal))
            throw new EngineUnavailableException($"There is no scorer '{settings.Scorer}': choose same, bicubic or a network: {string.Join(", ", _catalog.Networks)}.");
        var names = new HashSet<string>(StringComparer.Ordinal);
        LoadedModel? joint = TrainedJoint(settings);
        if (joint is null)
            names.Add(ModelNames.Network(settings.Network, settings.Downscaler));
        if (scoring is not null)
            names.Add(ModelNames.Network(scoring, settings.Downscaler));
        if (settings.Downscaler is "downnet" && settings.Scorer is not "none")
        {
            names.Add(ModelNames.DownNet(settings.Network));
            if (scoring is not null)
                names.Add(ModelNames.DownNet(scoring));
        }
        IEnumerable<LoadedModel> models = names.SelectMany(name => NetworkScales(settings).Select(scale => _catalog.Load(name, scale)));
        return joint is null ? models : models.Prepend(joint);
    }

    /// <summary>The network that scores blocks; null for a scorer without one.</summary>
    internal static string? ScoringNetwork(EngineSettings settings) => settings.Scorer switch
    {
        "bicubic" or "none" => null,
        "same" => settings.Network,
        _ => settings.Scorer,
    };

    // The scales of the networks behind the scale set: with a canvas scale 1 needs none, and 16 that of 8.
    private static IEnumerable<int> NetworkScales(EngineSettings settings) => settings.Context == BlockContext.None
        ? settings.Scales.Scales
        : settings.Scales.Scales.Where(scale => scale > 1).Select(NetworkSet.NetworkScale).Distinct();

    // Null where single-scale networks reconstruct block by block, or over canvases.
    private LoadedModel? TrainedJoint(EngineSettings settings)
    {
        if (settings.Context == BlockContext.Canvas)
        {
            return settings.Joint is not "trained" ? null
                : throw new EngineUnavailableException("A joint model joins blocks that see nothing of each other: use --context none with --joint trained.");
        }
        if (settings.Joint is not ("auto" or "trained" or "blockwise"))
            throw new EngineUnavailableException($"There is no joint part '{settings.Joint}': choose auto, trained or blockwise.");
        string name = ModelNames.Joint(settings.Network, settings.Downscaler);
        if (settings.Joint is "blockwise" || (settings.Joint is "auto" && !File.Exists(_catalog.PathOf(name, null))))
            return null;
        LoadedModel joint = _catalog.Load(name, null);
        if (joint.Shape.Scales.SequenceEqual(settings.Scales.Scales))
            return joint;
        return settings.Joint is "auto"
            ? null
            : throw new EngineUnavailableException($"{joint.FileName} joins the scales {string.Join(',', joint.Shape.Scales)}, not {settings.Scales}.");
    }
}

/// <summary>
/// One device's networks. Work is spread over worker threads of one libtorch thread each, so the result does not depend
/// on <see cref="EngineSettings.Threads"/>.
/// </summary>
internal sealed class Engine : IEngine
{
    private readonly BatchRunner _runner;
    private readonly List<IDisposable> _owned = [];
    private readonly IBlockDownscaler? _downscaler;
    private readonly IBlockScorer? _scorer, _uniform;
    private readonly JointReconstructor? _reconstructor;
    private readonly CanvasReconstructor? _canvas;

    /// <summary>One worker drives a GPU; on the processor each has one thread.</summary>
    public static int WorkersOf(EngineSettings settings, torch.Device device) =>
        device.type != DeviceType.CPU ? 1 : settings.Threads > 0 ? settings.Threads : Environment.ProcessorCount;

    public Engine(ModelCatalog catalog, EngineSettings settings, LoadedModel? joint, torch.Device device, torch.ScalarType body)
    {
        int LargestBatch(int scale) => settings.MaxBatch > 0 ? Math.Min(settings.MaxBatch, EngineBatch.SpeedBest) : EngineBatch.SpeedBest;
        _runner = new BatchRunner(WorkersOf(settings, device), () => NativeRuntime.SetThreads(1));

        NetworkSet networks;
        if (settings.Context == BlockContext.Canvas)
        {
            networks = Own(new NetworkSet(catalog, ModelNames.Network(settings.Network, settings.Downscaler), body, device) { Extends = true });
            _canvas = new CanvasReconstructor(settings.Network, networks, _runner, device, LargestBatch, settings.Halo);
        }
        else if (joint is { Shape: JointSrShape shape })
        {
            networks = Own(new NetworkSet(scale => NetworkWeights.Of(joint, shape, scale), body, device));
            _reconstructor = Own(new JointReconstructor(settings.Network, networks, settings.Scales, _runner, device, LargestBatch, shape.JointOf(joint.Tensors)));
        }
        else
        {
            networks = Own(new NetworkSet(catalog, ModelNames.Network(settings.Network, settings.Downscaler), body, device));
            _reconstructor = Own(new JointReconstructor(settings.Network, networks, settings.Scales, _runner, device, LargestBatch,
                JointSrParameters.WarmStart([.. settings.Scales.Scales.Select(networks.TailAt)])));
        }
        if (settings.Scorer is "none")
            return;

        _downscaler = DownscalerOf(settings.Network, networks);
        if (settings.Context == BlockContext.Canvas)
            _uniform = new NetworkScorer(settings.Network, _downscaler, networks, _runner, device, LargestBatch, settings.Halo);
        if (EngineFactory.ScoringNetwork(settings) is not { } scoring)
        {
            _scorer = new BicubicScorer(_downscaler, _runner, settings.Halo);
            return;
        }
        // A block's score is that of the network by itself: the joint part looks at neighbours that are not chosen yet.
        bool own = string.Equals(scoring, settings.Network, StringComparison.Ordinal);
        NetworkSet single = own && joint is null ? networks : Own(new NetworkSet(catalog, ModelNames.Network(scoring, settings.Downscaler), body, device) { Extends = settings.Context == BlockContext.Canvas });
        _scorer = new NetworkScorer(settings.Scorer, own ? _downscaler : DownscalerOf(scoring, single), single, _runner, device, LargestBatch, settings.Halo);

        IBlockDownscaler DownscalerOf(string network, NetworkSet set) => Own<IBlockDownscaler>(settings.Downscaler is "downnet"
            ? new DownNetDownscaler(catalog, network, settings.Scales, set.BlackAt(settings.Scales[^1]), _runner, device)
            : new BicubicDownscaler());
    }

    public IDownscaler Downscaler => _downscaler ?? throw new InvalidOperationException("This engine was made to reconstruct only.");

    public IBlockScorer Scorer => _scorer ?? throw new InvalidOperationException("This engine was made to reconstruct only.");

    public IReconstructor Reconstructor => _reconstructor ?? throw new InvalidOperationException("This engine was made for blocks that see their neighbours.");

    public ICanvasReconstructor CanvasReconstructor => _canvas ?? throw new InvalidOperationException("This engine was made for blocks by themselves.");

    public IBlockScorer UniformScorer => _uniform ?? throw new InvalidOperationException("This engine was made for blocks by themselves, or to reconstruct only.");

    public DeviceCounts TakeCounts() => _runner.Take();

    public void Dispose()
    {
        _runner.Dispose();
        foreach (IDisposable owned in _owned)
            owned.Dispose();
    }

    private T Own<T>(T made)
        where T : IDisposable
    {
        _owned.Add(made);
        return made;
    }
}

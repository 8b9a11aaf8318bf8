using System.Collections.Concurrent;
using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Engine;

/// <summary>Weights of a network at one scale, whole or as a feature extractor.</summary>
/// <param name="Shape">The network's shape.</param>
/// <param name="Parameters">The parameters that are there: all, or all but the tail.</param>
/// <param name="Tensors">Their values.</param>
/// <param name="Source">What messages call them.</param>
internal sealed record NetworkWeights(SrNetworkShape Shape, IReadOnlyList<(string Name, long[] Shape)> Parameters, IReadOnlyDictionary<string, TensorData> Tensors, string Source)
{
    /// <summary>A network of its own file.</summary>
    public static NetworkWeights Of(LoadedModel model) => new(model.SrShape, model.Shape.Parameters, model.Tensors, model.FileName);

    /// <summary>An extractor out of a joint file.</summary>
    public static NetworkWeights Of(LoadedModel joint, JointSrShape shape, int scale)
    {
        SrNetworkShape extractor = shape.Extractors.Single(e => e.Scale == scale);
        return new NetworkWeights(extractor, extractor.FeatureParameters, shape.ExtractorOf(joint.Tensors, scale), joint.FileName);
    }
}

/// <summary>
/// One network at each scale, made when first used: parameters once, a runnable network for each worker and type. Owns them all.
/// </summary>
/// <param name="weights">Scale to weights.</param>
/// <param name="body">Float32 or BFloat16.</param>
/// <param name="device">Where they run.</param>
internal sealed class NetworkSet(Func<int, NetworkWeights> weights, ScalarType body, Device device) : IDisposable
{
    private readonly Lock _gate = new();
    private readonly ConcurrentDictionary<int, NetworkWeights> _weights = [];
    private readonly Dictionary<int, ParameterSet> _parameters = [];
    private readonly Dictionary<(int Scale, int Worker, ScalarType Body), SrNetwork> _networks = [];

    /// <summary>The networks of a catalog under one name.</summary>
    public NetworkSet(ModelCatalog catalog, string model, ScalarType body, Device device)
        : this(scale => NetworkWeights.Of(catalog.Load(model, scale)), body, device)
    {
    }

    /// <summary>The type of the bodies.</summary>
    public ScalarType Body => body;

    /// <summary>Shape of the network at a scale.</summary>
    public SrNetworkShape ShapeAt(int scale) => Weights(scale).Shape;

    /// <summary>The network at a scale for a worker; call from that worker's thread.</summary>
    public SrNetwork At(int scale, int worker, bool float32 = false)
    {
        ScalarType type = float32 ? ScalarType.Float32 : body;
        lock (_gate)
        {
            if (_networks.TryGetValue((scale, worker, type), out SrNetwork? ready))
                return ready;
            NetworkWeights own = Weights(scale);
            if (!_parameters.TryGetValue(scale, out ParameterSet? parameters))
                _parameters.Add(scale, parameters = new ParameterSet(own.Parameters, own.Tensors, own.Source, device: device));
            SrNetwork network = own.Shape.CreateNetwork(parameters, type);
            _networks.Add((scale, worker, type), network);
            return network;
        }
    }

    /// <summary>The scale of the network behind a scale: above 8 that of 8, whose result is enlarged further by bicubic.</summary>
    public static int NetworkScale(int scale) => scale > 8 && scale % 8 == 0 ? 8 : scale;

    /// <summary>Whether scales above 8 go by the network of 8, as with a canvas.</summary>
    public bool Extends { get; init; }

    /// <summary>The value of black behind a scale.</summary>
    public float BlackAt(int scale) => ShapeAt(OwnScale(scale)).Black;

    /// <summary>LR maps to HR values of the network's range.</summary>
    public float[] Enlarge(int worker, MapBatch lr, int scale, Device device, BatchRunner runner, string purpose)
    {
        int own = OwnScale(scale), rest = scale / own;
        float[] values = NetworkCall.Run(lr, device, BlackAt(scale), runner, purpose, scale, body, (map, float32) => At(own, worker, float32).Forward(map));
        if (rest == 1)
            return values;
        int width = lr.Width * own, height = lr.Height * own, each = width * height * 3;
        var larger = new float[values.Length * rest * rest];
        for (int i = 0; i < lr.Count; i++)
            Bicubic.UpscaleMap(values.AsSpan(i * each, each), width, height, rest, larger.AsSpan(i * each * rest * rest));
        return larger;
    }

    /// <summary>Weight and bias of the tail at a scale; not in a set of extractors.</summary>
    public (int Scale, TensorData Weight, TensorData Bias) TailAt(int scale)
    {
        NetworkWeights own = Weights(scale);
        return (scale, own.Tensors[own.Shape.TailName + ".weight"], own.Tensors[own.Shape.TailName + ".bias"]);
    }

    public void Dispose()
    {
        foreach (SrNetwork network in _networks.Values)
            network.Dispose();
        foreach (ParameterSet parameters in _parameters.Values)
            parameters.Dispose();
    }

    private int OwnScale(int scale) => Extends ? NetworkScale(scale) : scale;

    private NetworkWeights Weights(int scale) => _weights.GetOrAdd(scale, weights);
}

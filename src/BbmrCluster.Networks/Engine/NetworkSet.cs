using System.Collections.Concurrent;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Engine;

/// <summary>
/// One network at each scale, made when first used: parameters once, a runnable network for each worker and type. Owns them all.
/// </summary>
internal sealed class NetworkSet : IDisposable
{
    private readonly ModelCatalog _catalog;
    private readonly string _network;
    private readonly Device _device;
    private readonly Lock _gate = new();
    private readonly ConcurrentDictionary<int, LoadedModel> _models = [];
    private readonly Dictionary<int, ParameterSet> _parameters = [];
    private readonly Dictionary<(int Scale, int Worker, ScalarType Body), SrNetwork> _networks = [];

    public NetworkSet(ModelCatalog catalog, string network, ScalarType body, Device device) => (_catalog, _network, Body, _device) = (catalog, network, body, device);

    /// <summary>The type of the bodies.</summary>
    public ScalarType Body { get; }

    /// <summary>Shape of the network at a scale.</summary>
    public SrNetworkShape ShapeAt(int scale) => Model(scale).SrShape;

    /// <summary>The network at a scale for a worker; call from that worker's thread.</summary>
    public SrNetwork At(int scale, int worker, bool float32 = false)
    {
        ScalarType body = float32 ? ScalarType.Float32 : Body;
        lock (_gate)
        {
            if (_networks.TryGetValue((scale, worker, body), out SrNetwork? ready))
                return ready;
            LoadedModel model = Model(scale);
            if (!_parameters.TryGetValue(scale, out ParameterSet? parameters))
                _parameters.Add(scale, parameters = new ParameterSet(model.Shape.Parameters, model.Tensors, model.FileName, device: _device));
            SrNetwork network = model.SrShape.CreateNetwork(parameters, body);
            _networks.Add((scale, worker, body), network);
            return network;
        }
    }

    private LoadedModel Model(int scale) => _models.GetOrAdd(scale, at => _catalog.Load(_network, at));

    /// <summary>Weight and bias of the tail at a scale.</summary>
    public (int Scale, TensorData Weight, TensorData Bias) TailAt(int scale)
    {
        LoadedModel model = Model(scale);
        return (scale, model.Tensors[model.SrShape.TailName + ".weight"], model.Tensors[model.SrShape.TailName + ".bias"]);
    }

    public void Dispose()
    {
        foreach (SrNetwork network in _networks.Values)
            network.Dispose();
        foreach (ParameterSet parameters in _parameters.Values)
            parameters.Dispose();
    }
}

using System.Globalization;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.JointSr;

/// <summary>
/// JointSR as one model (paper section 3.4): a feature extractor for each scale, each a network of one family without its
/// tail, and the joint part. Tensor names: <c>extractor{k}.NAME</c> with NAME the network's own, and those of
/// <see cref="JointSrParameters"/>.
/// </summary>
/// <param name="Extractors">The networks whose bodies extract features, by ascending scale; the tails they would have are not part of the model.</param>
public sealed record JointSrShape(IReadOnlyList<SrNetworkShape> Extractors) : NetworkShape(Extractors[0].Scale)
{
    internal const string ArchitectureName = "joint";

    /// <inheritdoc/>
    public override string Architecture => ArchitectureName + "-" + Extractors[0].Architecture;

    /// <inheritdoc/>
    public override string Title => $"JointSR of {Extractors[0].Title}";

    /// <inheritdoc/>
    public override IReadOnlyList<int> Scales => [.. Extractors.Select(extractor => extractor.Scale)];

    /// <summary>The joint part's parameters.</summary>
    public IReadOnlyList<(string Name, long[] Shape)> JointParameters => JointSrParameters.Shapes(Scales, Extractors[0].Channels);

    /// <inheritdoc/>
    /// <remarks>The extractors by ascending scale, then the joint part.</remarks>
    public override IReadOnlyList<(string Name, long[] Shape)> Parameters =>
        [.. Extractors.SelectMany(extractor => extractor.FeatureParameters.Select(p => (Prefix(extractor.Scale) + p.Name, p.Shape))), .. JointParameters];

    /// <inheritdoc/>
    /// <remarks>All parameters, and the multiply-accumulates of a block at the middle scale, whose rate the image keeps.</remarks>
    public override NetworkCost BlockCost(int blockSize = 128) => BlockCost(Scales[Scales.Count / 2], blockSize);

    /// <summary>All parameters, and the multiply-accumulates of a block at a scale: extractor, tail, deblock branch over all of it, final convolution.</summary>
    /// <param name="scale">One of <see cref="NetworkShape.Scales"/>.</param>
    /// <param name="blockSize">Side of the HR block, pixels.</param>
    public NetworkCost BlockCost(int scale, int blockSize)
    {
        SrNetworkShape extractor = Extractors.Single(e => e.Scale == scale);
        long tail = 3L * scale * scale * extractor.Channels * 9 * (blockSize / scale) * (blockSize / scale);
        long joint = JointSrParameters.BlockCost(Scales, extractor.Channels, scale, blockSize).MultiplyAccumulates;
        return new NetworkCost(Parameters.Sum(p => p.Shape.Aggregate(1L, (product, n) => product * n)), extractor.BlockCost(blockSize).MultiplyAccumulates - tail + joint);
    }

    /// <summary>Whether tensors are those of a joint model.</summary>
    public static bool Recognises(IReadOnlyDictionary<string, TensorData> state) => state.ContainsKey("final.weight") && ScalesOf(state).Count > 0;

    private protected override string Remark => Extractors[0].RemarkOfRange;

    /// <inheritdoc/>
    public override IReadOnlyList<NetworkSize> Sizes => Extractors[0].Sizes;

    /// <summary>Reads the shape off a state dict.</summary>
    /// <param name="state">Tensors by name.</param>
    /// <param name="source">What messages call them.</param>
    /// <param name="families">The families among which extractors are.</param>
    /// <exception cref="InvalidDataException">The tensors are not those of JointSR; one sentence.</exception>
    public static JointSrShape Of(IReadOnlyDictionary<string, TensorData> state, string source, IReadOnlyList<SrArchitecture> families)
    {
        List<int> scales = ScalesOf(state);
        if (scales.Count < 2 || scales[0] < 1 || scales.Any(scale => scale % scales[0] != 0))
            throw new InvalidDataException($"{source} does not hold JointSR: its tails have the scales {string.Join(", ", scales)}, and two or more are needed that are multiples of the finest.");
        var extractors = new List<SrNetworkShape>();
        foreach (int scale in scales)
        {
            string prefix = Prefix(scale), tail = JointSrParameters.Tail(scale);
            var own = state.Where(pair => pair.Key.StartsWith(prefix, StringComparison.Ordinal)).ToDictionary(pair => pair.Key[prefix.Length..], pair => pair.Value, StringComparer.Ordinal);
            SrArchitecture family = families.FirstOrDefault(family => family.Recognises(own))
                ?? throw new InvalidDataException($"{source} (extractor of scale {scale}) does not hold {string.Join(" or ", families.Select(family => family.Title))}.");
            // A joint tail has the shape of the tail that it replaces, from which the scale is read.
            own[family.TailName + ".weight"] = state[tail + ".weight"];
            SrNetworkShape shape = family.ShapeOf(own, $"{source} (extractor of scale {scale})");
            if (shape.Scale != scale)
                throw new InvalidDataException($"{source} does not hold JointSR: the tail of scale {scale} has the shape {state[tail + ".weight"].ShapeText}.");
            extractors.Add(shape);
        }
        if (extractors.Any(e => e.Channels != extractors[0].Channels || !string.Equals(e.Architecture, extractors[0].Architecture, StringComparison.Ordinal)))
            throw new InvalidDataException($"{source} does not hold JointSR: its extractors are of different families or widths.");
        return new JointSrShape(extractors);
    }

    /// <summary>
    /// The whole model at its warm start: the bodies of trained single-scale networks, their tails reordered, and a deblock
    /// branch and final convolution that change nothing (<see cref="JointSrParameters.WarmStart"/>). Training starts here.
    /// </summary>
    /// <param name="networks">Shape and tensors of each single-scale network, by ascending scale.</param>
    public static IReadOnlyDictionary<string, TensorData> WarmStart(IReadOnlyList<(SrNetworkShape Shape, IReadOnlyDictionary<string, TensorData> Tensors)> networks)
    {
        var values = new Dictionary<string, TensorData>(JointSrParameters.WarmStart(
            [.. networks.Select(n => (n.Shape.Scale, n.Tensors[n.Shape.TailName + ".weight"], n.Tensors[n.Shape.TailName + ".bias"]))]), StringComparer.Ordinal);
        foreach ((SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> tensors) in networks)
        {
            foreach ((string name, _) in shape.FeatureParameters)
                values.Add(Prefix(shape.Scale) + name, tensors[name]);
        }
        return values;
    }

    /// <summary>The extractor of a scale: its parameters under the network's own names, the tail left out.</summary>
    /// <param name="state">Tensors of the joint model.</param>
    /// <param name="scale">One of the scales.</param>
    public IReadOnlyDictionary<string, TensorData> ExtractorOf(IReadOnlyDictionary<string, TensorData> state, int scale) =>
        Extractors.Single(e => e.Scale == scale).FeatureParameters.ToDictionary(p => p.Name, p => state[Prefix(scale) + p.Name], StringComparer.Ordinal);

    /// <summary>The joint part's tensors.</summary>
    /// <param name="state">Tensors of the joint model.</param>
    public IReadOnlyDictionary<string, TensorData> JointOf(IReadOnlyDictionary<string, TensorData> state) =>
        JointParameters.ToDictionary(p => p.Name, p => state[p.Name], StringComparer.Ordinal);

    /// <summary>"extractor4."</summary>
    public static string Prefix(int scale) => string.Create(CultureInfo.InvariantCulture, $"extractor{scale}.");

    private static List<int> ScalesOf(IReadOnlyDictionary<string, TensorData> state) =>
    [
        .. state.Keys.Where(name => name.StartsWith("tail", StringComparison.Ordinal) && name.EndsWith(".weight", StringComparison.Ordinal))
            .Select(name => int.TryParse(name.AsSpan(4, name.Length - 11), NumberStyles.None, CultureInfo.InvariantCulture, out int scale) ? scale : 0).Order(),
    ];
}

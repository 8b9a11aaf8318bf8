using System.Globalization;
using System.Numerics;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.DownNet;

/// <summary>
/// Down-Net, the trained downscaler of the BBMR paper (section 3.2): the sampling half of MR-CCSNet (Fan, Lian, Quan,
/// CVPR 2022) with three channels in and out. log2(scale) halving layers between two convolutions.
/// </summary>
/// <param name="Scale">Downscaling factor: a power of 2, at least 2.</param>
/// <param name="Channels">Channels inside.</param>
public sealed record DownNetShape(int Scale, int Channels = 32) : NetworkShape(Scale)
{
    internal const string ArchitectureName = "downnet";

    /// <inheritdoc/>
    public override string Architecture => ArchitectureName;

    /// <inheritdoc/>
    public override string Title => "a Down-Net";

    /// <summary>Halving layers.</summary>
    public int Layers => BitOperations.Log2((uint)Scale);

    /// <summary>Name of the last convolution.</summary>
    public string LastName => (Layers + 1).ToString(CultureInfo.InvariantCulture) + ".weight";

    /// <inheritdoc/>
    /// <remarks>No layer has a bias.</remarks>
    public override IReadOnlyList<(string Name, long[] Shape)> Parameters =>
    [
        ("0.weight", [Channels, 3, 3, 3]),
        .. Enumerable.Range(1, Layers).Select(i => (HalvingName(i), new long[] { Channels, Channels, 3, 3 })),
        (LastName, [3, Channels, 1, 1]),
    ];

    /// <inheritdoc/>
    public override NetworkCost BlockCost(int blockSize = 128)
    {
        long finest = (long)blockSize * blockSize;
        return NetworkCost.Of(Parameters, name =>
        {
            int layer = int.Parse(name.AsSpan(0, name.IndexOf('.', StringComparison.Ordinal)), CultureInfo.InvariantCulture);
            return finest >> (2 * Math.Min(layer, Layers));
        }, more: 0);
    }

    /// <summary>Reads the shape off a state dict.</summary>
    /// <exception cref="InvalidDataException">The tensors are not those of a Down-Net; one sentence.</exception>
    public static DownNetShape Of(IReadOnlyDictionary<string, TensorData> state, string source)
    {
        if (!state.TryGetValue("0.weight", out TensorData? first) || first.Shape.Length != 4)
            throw new InvalidDataException($"{source} does not hold a Down-Net: 0.weight is missing or of another rank.");
        int layers = 0;
        while (state.ContainsKey(HalvingName(layers + 1)))
            layers++;
        return layers is >= 1 and <= 8
            ? new DownNetShape(1 << layers, (int)first.Shape[0])
            : throw new InvalidDataException($"{source} does not hold a Down-Net: it has {layers} halving layers.");
    }

    internal static string HalvingName(int layer) => layer.ToString(CultureInfo.InvariantCulture) + ".conv.0.weight";
}

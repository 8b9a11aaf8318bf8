using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks;

/// <summary>
/// What a folder of networks exports: everything that the rest of the program knows of an architecture by itself. The
/// catalog's <c>Architectures</c> lists these descriptors; nothing else names a network.
/// </summary>
public abstract class NetworkArchitecture
{
    /// <summary>As in cards and <see cref="NetworkShape.Architecture"/>, e.g. "craft".</summary>
    public abstract string Name { get; }

    /// <summary>For messages, e.g. "a CRAFT network".</summary>
    public abstract string Title { get; }

    /// <summary>Whether tensors are those of this architecture, by what no other one here has; their shapes are not looked at.</summary>
    /// <param name="state">Tensors by their official names.</param>
    public abstract bool Recognises(IReadOnlyDictionary<string, TensorData> state);

    /// <summary>Reads width, depth and scale off tensors.</summary>
    /// <param name="state">Tensors by their official names.</param>
    /// <param name="source">What messages call them.</param>
    /// <exception cref="InvalidDataException">The tensors are not those of such a network; one sentence.</exception>
    public abstract NetworkShape ShapeOf(IReadOnlyDictionary<string, TensorData> state, string source);

    /// <summary>The parameters among tensors: without constant buffers that official files hold.</summary>
    public virtual IReadOnlyDictionary<string, TensorData> ParametersOf(IReadOnlyDictionary<string, TensorData> state) => state;
}

/// <summary>A network that the program knows by name without a file.</summary>
/// <param name="Name">For --network and recipes, e.g. "omnisr-light".</param>
/// <param name="At">Scale to shape.</param>
public sealed record NamedNetwork(string Name, Func<int, SrNetworkShape> At);

/// <summary>A family of networks that upscale by themselves.</summary>
public abstract class SrArchitecture : NetworkArchitecture
{
    /// <summary>Its sizes that the program knows by name.</summary>
    public abstract IReadOnlyList<NamedNetwork> Networks { get; }

    /// <summary>See <see cref="SrNetworkShape.TailName"/>.</summary>
    public abstract string TailName { get; }

    /// <inheritdoc/>
    public abstract override SrNetworkShape ShapeOf(IReadOnlyDictionary<string, TensorData> state, string source);
}

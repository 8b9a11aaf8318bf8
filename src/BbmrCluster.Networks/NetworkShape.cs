using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks;

/// <summary>What varies between networks of one architecture; it determines every parameter's name and shape.</summary>
/// <param name="Scale">Factor by which the network up- or downscales; the finest of several.</param>
public abstract record NetworkShape(int Scale)
{
    /// <summary>omnisr, craft, downnet, joint-omnisr or joint-craft.</summary>
    public abstract string Architecture { get; }

    /// <summary>Every scale that the model works at, ascending.</summary>
    public virtual IReadOnlyList<int> Scales => [Scale];

    /// <summary>What the network is apart from its scale, e.g. "an OmniSR network of 5 groups".</summary>
    public abstract string Title { get; }

    /// <summary>What the network is, for messages, e.g. "an OmniSR network of 5 groups at scale 4".</summary>
    public string Description => Scales.Count == 1 ? $"{Title} at scale {Scale}" : $"{Title} at the scales {string.Join(", ", Scales)}";

    /// <summary>"1 group", "5 groups".</summary>
    private protected static string Groups(int count) => count == 1 ? "1 group" : $"{count} groups";

    /// <summary>Every parameter with its official name and shape.</summary>
    public abstract IReadOnlyList<(string Name, long[] Shape)> Parameters { get; }

    /// <summary>Parameters and multiply-accumulates for one block.</summary>
    /// <param name="blockSize">Side of the HR block, pixels; a multiple of the scale.</param>
    public abstract NetworkCost BlockCost(int blockSize = 128);

    /// <summary>
    /// Recognises a network by its tensors: architecture, width, depth and scale. Parameters may be wrapped as in official
    /// checkpoints (<c>params_ema.NAME</c> or <c>params.NAME</c>); CRAFT's constant buffers are left out.
    /// </summary>
    /// <param name="state">Tensors by name.</param>
    /// <param name="source">What messages call them.</param>
    /// <returns>The shape, and the parameters under their official names.</returns>
    /// <exception cref="InvalidDataException">The tensors are those of no network here; one sentence.</exception>
    public static (NetworkShape Shape, IReadOnlyDictionary<string, TensorData> Parameters) Recognise(IReadOnlyDictionary<string, TensorData> state, string source)
    {
        state = Unwrap(state);
        if (JointSrShape.Recognises(state))
            return (JointSrShape.Of(state, source), state);
        if (state.ContainsKey("conv_first.weight"))
            return (CraftShape.Of(state, source), CraftShape.WithoutBuffers(state));
        if (state.ContainsKey("0.weight"))
            return (DownNetShape.Of(state, source), state);
        return (OmniSrShape.Of(state, source), state);
    }

    private static IReadOnlyDictionary<string, TensorData> Unwrap(IReadOnlyDictionary<string, TensorData> state)
    {
        foreach (string wrapper in (string[])["params_ema.", "params."])
        {
            var inside = state.Where(pair => pair.Key.StartsWith(wrapper, StringComparison.Ordinal))
                .ToDictionary(pair => pair.Key[wrapper.Length..], pair => pair.Value, StringComparer.Ordinal);
            if (inside.Count > 0)
                return inside;
        }
        return state;
    }
}

/// <summary>A network that upscales by itself and whose body serves JointSR as feature extractor.</summary>
/// <param name="Scale">Upscaling factor, at least 1.</param>
/// <param name="Channels">Feature channels.</param>
public abstract record SrNetworkShape(int Scale, int Channels) : NetworkShape(Scale)
{
    /// <summary>Maps are padded to a multiple of this, pixels.</summary>
    public abstract int Multiple { get; }

    /// <summary>Smallest map side after padding, LR pixels.</summary>
    public virtual int MinimumSide => Multiple;

    /// <summary>Name of the last convolution, C -> 3 scale^2 channels, before the pixel shuffle.</summary>
    public abstract string TailName { get; }

    /// <summary>The parameters of the feature extractor: all but the tail.</summary>
    public IReadOnlyList<(string Name, long[] Shape)> FeatureParameters => [.. Parameters.SkipLast(2)];

    /// <summary>The value that stands for black; white is 1.</summary>
    public abstract float Black { get; }

    /// <summary>RGB mean that is subtracted before the features and added after the last pixel shuffle; null where there is none.</summary>
    public virtual IReadOnlyList<float>? Mean => null;

    /// <summary>Makes the network that runs these parameters.</summary>
    /// <param name="parameters">Named as <see cref="NetworkShape.Parameters"/>; a feature extractor may lack the tail.</param>
    /// <param name="body">Float32 or BFloat16.</param>
    /// <param name="training">See <see cref="SrNetwork"/>.</param>
    public abstract SrNetwork CreateNetwork(ParameterSet parameters, ScalarType body = ScalarType.Float32, bool training = false);

    /// <summary>Recognises a super-resolution network by its tensors.</summary>
    /// <returns>As <see cref="NetworkShape.Recognise"/>.</returns>
    /// <exception cref="InvalidDataException">The tensors are those of no super-resolution network here; one sentence.</exception>
    public static (SrNetworkShape Shape, IReadOnlyDictionary<string, TensorData> Parameters) RecogniseSr(IReadOnlyDictionary<string, TensorData> state, string source)
    {
        (NetworkShape shape, IReadOnlyDictionary<string, TensorData> parameters) = Recognise(state, source);
        return shape is SrNetworkShape sr ? (sr, parameters) : throw new InvalidDataException($"{source} holds {shape.Description}, which does not upscale.");
    }

    /// <summary>The side of a map after padding.</summary>
    internal long PaddedSide(long side) => Math.Max(MinimumSide, (side + Multiple - 1) / Multiple * Multiple);
}

using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks;

/// <summary>What varies between networks of one architecture; it determines every parameter's name and shape.</summary>
/// <param name="Scale">Factor by which the network up- or downscales; the finest of several.</param>
public abstract record NetworkShape(int Scale)
{
    /// <summary>The architecture's name, see <see cref="NetworkArchitecture.Name"/>; with "joint-" before it for JointSR of its networks.</summary>
    public abstract string Architecture { get; }

    /// <summary>Every scale that the model works at, ascending.</summary>
    public virtual IReadOnlyList<int> Scales => [Scale];

    /// <summary>What the network is apart from its scale, e.g. "an OmniSR network of 5 groups".</summary>
    public abstract string Title { get; }

    /// <summary>What the network is, for messages, e.g. "an OmniSR network of 5 groups at scale 4".</summary>
    public string Description => (Scales.Count == 1 ? $"{Title} at scale {Scale}" : $"{Title} at the scales {string.Join(", ", Scales)}") + Remark;

    /// <summary>What else a description says; empty, or beginning with a comma.</summary>
    private protected virtual string Remark => "";

    /// <summary>"1 group", "5 groups".</summary>
    private protected static string Groups(int count) => count == 1 ? "1 group" : $"{count} groups";

    /// <summary>Every parameter with its official name and shape.</summary>
    public abstract IReadOnlyList<(string Name, long[] Shape)> Parameters { get; }

    /// <summary>Parameters and multiply-accumulates for one block.</summary>
    /// <param name="blockSize">Side of the HR block, pixels; a multiple of the scale.</param>
    public abstract NetworkCost BlockCost(int blockSize = 128);

    /// <summary>What a card says of the network beside its scale.</summary>
    public virtual IReadOnlyList<NetworkSize> Sizes => [];

    /// <summary>How training begins with a parameter when nothing else is known of it.</summary>
    /// <param name="name">A name of <see cref="Parameters"/>.</param>
    public virtual ParameterStart StartOf(string name) => ParameterStart.ByRank;
}

/// <summary>A size of a network that is read off its tensors, for its card.</summary>
/// <param name="Name">In snake_case, e.g. "osags".</param>
/// <param name="Values">One, or one for each group.</param>
/// <param name="IsList">Whether there may be several.</param>
public sealed record NetworkSize(string Name, IReadOnlyList<int> Values, bool IsList = false);

/// <summary>First values of a parameter in a training from nothing.</summary>
public enum ParameterStart
{
    /// <summary>Uniform within 1/sqrt(fan in) for weights of several axes and the biases behind them; 1 for the scale of a norm and 0 for its bias.</summary>
    ByRank,

    /// <summary>1.</summary>
    Ones,

    /// <summary>0.</summary>
    Zeros,

    /// <summary>Normal, of mean 0 and deviation 1.</summary>
    Normal,
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

    /// <summary>Name of the first convolution, 3 -> C channels; what it gives reaches the tail past the body.</summary>
    public abstract string HeadName { get; }

    /// <summary>Layers with weight and bias at the ends of the body's branches: while they are zero, the body adds nothing.</summary>
    public abstract IReadOnlyList<string> BranchEnds { get; }

    /// <summary>How many times the first convolution's result reaches the tail while the body adds nothing.</summary>
    public virtual int PassedOn => 1;

    /// <summary>
    /// Values with which this network computes what a shallower one of its family does, so that training a deep network
    /// starts at the quality of the shallow one; null where it is not deeper or nobody knows how.
    /// </summary>
    /// <param name="shallow">A network of the same scale.</param>
    /// <param name="state">Its trained values.</param>
    /// <param name="start">Start values of this network's shape.</param>
    public virtual IReadOnlyDictionary<string, TensorData>? GrownFrom(SrNetworkShape shallow, IReadOnlyDictionary<string, TensorData> state, IReadOnlyDictionary<string, TensorData> start) => null;

    /// <summary>The value that stands for black where the family's networks were trained as published; white is 1.</summary>
    public abstract float UsualBlack { get; }

    /// <summary>The value that stands for black in this network; white is 1. Not to be read off the tensors: weight files say it when it is not the usual one.</summary>
    public float Black
    {
        get => _black ?? UsualBlack;
        init => _black = value == UsualBlack ? null : value;
    }

    private readonly float? _black;

    /// <inheritdoc/>
    private protected override string Remark => RemarkOfRange;

    /// <summary>What a description says of an unusual range of values.</summary>
    internal string RemarkOfRange => _black is { } black ? $", of values {new ValueRange(black, 1)}" : "";

    /// <summary>
    /// The network that computes the same in values whose white is 1: the first convolution takes the factor of white, the
    /// tail gives it back (a mean is taken as one of values whose white is 1).
    /// </summary>
    /// <param name="parameters">Values of a network of this shape.</param>
    /// <param name="range">The values that they were trained in.</param>
    public (SrNetworkShape Shape, IReadOnlyDictionary<string, TensorData> Parameters) InUnitRange(IReadOnlyDictionary<string, TensorData> parameters, ValueRange range)
    {
        SrNetworkShape shape = this with { Black = (float)(range.Black / range.White) };
        if (range.White == 1)
            return (shape, parameters);
        var scaled = new Dictionary<string, TensorData>(parameters, StringComparer.Ordinal);
        Scale(HeadName + ".weight", range.White);
        Scale(TailName + ".weight", 1 / range.White);
        Scale(TailName + ".bias", 1 / range.White);
        return (shape, scaled);

        void Scale(string name, double factor) => scaled[name] = scaled[name] with { Values = Array.ConvertAll(scaled[name].Values, value => (float)(value * factor)) };
    }

    /// <summary>RGB mean that is subtracted before the features and added after the last pixel shuffle; null where there is none.</summary>
    public virtual IReadOnlyList<float>? Mean => null;

    /// <summary>Makes the network that runs these parameters.</summary>
    /// <param name="parameters">Named as <see cref="NetworkShape.Parameters"/>; a feature extractor may lack the tail.</param>
    /// <param name="body">Float32 or BFloat16.</param>
    /// <param name="training">See <see cref="SrNetwork"/>.</param>
    public abstract SrNetwork CreateNetwork(ParameterSet parameters, ScalarType body = ScalarType.Float32, bool training = false);

    /// <summary>The side of a map after padding.</summary>
    internal long PaddedSide(long side) => Math.Max(MinimumSide, (side + Multiple - 1) / Multiple * Multiple);
}

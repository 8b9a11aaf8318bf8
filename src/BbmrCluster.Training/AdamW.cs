using System.Globalization;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Weights;
using TorchSharp;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>
/// AdamW (Loshchilov and Hutter) over one flat tensor, with an exponential moving average of the weights beside it.
/// Owns its native memory until disposed.
/// </summary>
public sealed class AdamW : IDisposable
{
    private const double Beta1 = 0.9, Beta2 = 0.999, Epsilon = 1e-8;
    private readonly Tensor _weights, _first, _second;
    private readonly double _decay, _emaDecay;

    /// <summary>Starts at step 0 with the average at the present weights.</summary>
    /// <param name="parameters">The weights to move; not owned.</param>
    /// <param name="decay">Decoupled weight decay.</param>
    /// <param name="emaDecay">Decay of the average; it starts faster (Polyak with (1 + n) / (10 + n)).</param>
    public AdamW(ParameterSet parameters, double decay, double emaDecay)
    {
        using IDisposable noGradient = no_grad();
        (_weights, _decay, _emaDecay) = (parameters.Flat, decay, emaDecay);
        _first = zeros_like(_weights).DetachFromDisposeScope();
        _second = zeros_like(_weights).DetachFromDisposeScope();
        Average = _weights.clone().DetachFromDisposeScope();
    }

    /// <summary>The moving average of the weights, laid out as they are.</summary>
    public Tensor Average { get; }

    /// <summary>Steps done; those that left these parameters alone do not count.</summary>
    public int Steps { get; private set; }

    /// <summary>Moves the weights along a gradient laid out as they are.</summary>
    public void Step(Tensor gradient, double rate)
    {
        using IDisposable noGradient = no_grad();
        using var scope = NewDisposeScope();
        Steps++;
        double keep = Math.Min(_emaDecay, (1.0 + Steps) / (10.0 + Steps));
        // Numbers that libtorch reads are held here: TorchSharp may free temporary ones too early, and a half-done step cannot be repeated.
        using Scalar shrink = (1 - (rate * _decay)).ToScalar(), first = Beta1.ToScalar(), newFirst = (1 - Beta1).ToScalar(), second = Beta2.ToScalar(), newSecond = (1 - Beta2).ToScalar(),
            correction = (1 / (1 - Math.Pow(Beta2, Steps))).ToScalar(), epsilon = Epsilon.ToScalar(), move = (-rate / (1 - Math.Pow(Beta1, Steps))).ToScalar(),
            kept = keep.ToScalar(), taken = (1 - keep).ToScalar();
        _weights.mul_(shrink);
        _first.mul_(first).add_(gradient, newFirst);
        _second.mul_(second).addcmul_(gradient, gradient, newSecond);
        Tensor size = _second.mul(correction).sqrt_().add_(epsilon);
        _weights.addcdiv_(_first, size, move);
        Average.mul_(kept).add_(_weights, taken);
    }

    /// <summary>All state, to go on later: adds tensors, and the number of steps, under a prefix.</summary>
    public void Export(string prefix, IDictionary<string, TensorData> tensors, IDictionary<string, string> metadata)
    {
        foreach ((string name, Tensor tensor) in State)
            tensors.Add(prefix + name, new TensorData([tensor.numel()], tensor.data<float>().ToArray()));
        metadata.Add(prefix + "steps", Steps.ToString(CultureInfo.InvariantCulture));
    }

    /// <summary>Takes over exported state.</summary>
    /// <exception cref="InvalidDataException">It belongs to another network; one sentence naming <paramref name="source"/>.</exception>
    public void Import(string prefix, SafetensorsFile state, string source)
    {
        using IDisposable noGradient = no_grad();
        using var scope = NewDisposeScope();
        foreach ((string name, Tensor target) in State)
        {
            if (!state.Tensors.TryGetValue(prefix + name, out TensorData? value) || value.Values.Length != target.numel())
                throw new InvalidDataException($"{source} is not a checkpoint of this training: '{prefix + name}' is missing or has another size.");
            target.copy_(NativeTensors.Create(value.Values, target.shape));
        }
        Steps = state.Metadata.TryGetValue(prefix + "steps", out string? steps) && int.TryParse(steps, NumberStyles.None, CultureInfo.InvariantCulture, out int count)
            ? count
            : throw new InvalidDataException($"{source} is not a checkpoint of this training: the steps of '{prefix}' are missing.");
    }

    private (string Name, Tensor Tensor)[] State => [("weights", _weights), ("first_moment", _first), ("second_moment", _second), ("average", Average)];

    /// <inheritdoc/>
    public void Dispose()
    {
        _first.Dispose();
        _second.Dispose();
        Average.Dispose();
    }
}

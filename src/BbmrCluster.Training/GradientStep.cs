using BbmrCluster.Networks;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>The L1 loss of a super-resolution network on a batch of patches and its gradient, by several workers.</summary>
public sealed class GradientStep : IDisposable
{
    private readonly SrNetworkShape _shape;
    private readonly DataParallel _parallel;
    private readonly SrNetwork[] _networks;

    /// <summary>Prepares the workers.</summary>
    /// <param name="shape">The network's shape.</param>
    /// <param name="parameters">Its parameters, trainable; not owned.</param>
    /// <param name="body">Type of the body's arithmetic: Float32 or BFloat16.</param>
    /// <param name="workers">Threads, at least 1; sums, and so the last bits, depend on their number.</param>
    /// <param name="create">Makes a worker's network on its parameters; null makes the shape's own.</param>
    public GradientStep(SrNetworkShape shape, ParameterSet parameters, ScalarType body, int workers, Func<ParameterSet, SrNetwork>? create = null)
    {
        _shape = shape;
        _parallel = new DataParallel(workers, parameters);
        create ??= set => shape.CreateNetwork(set, body, training: true);
        _networks = [.. Enumerable.Range(0, workers).Select(i => create(_parallel.Replica(i)))];
    }

    /// <summary>The gradient of the last <see cref="Compute"/>, laid out as the parameters' flat tensor; overwritten by the next call.</summary>
    public Tensor Gradient => _parallel.Gradient();

    /// <summary>Computes loss and gradient.</summary>
    /// <param name="lr">(batch, side, side, 3), channels last.</param>
    /// <param name="hr">(batch, side scale, side scale, 3).</param>
    /// <param name="batch">Patches, at least one for each worker.</param>
    /// <param name="side">LR pixels.</param>
    /// <returns>The mean absolute error over all values.</returns>
    public double Compute(float[] lr, float[] hr, int batch, int side)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(batch, _parallel.Workers);
        int large = side * _shape.Scale, small = side * side * 3, great = large * large * 3;
        return _parallel.Compute(worker =>
        {
            (int first, int count) = _parallel.Share(worker, batch);
            Tensor x = NativeTensors.Create(lr.AsSpan(first * small, count * small), [count, side, side, 3]);
            Tensor target = NativeTensors.Create(hr.AsSpan(first * great, count * great), [count, large, large, 3]);
            Tensor loss = (_networks[worker].Forward(x) - target).abs().sum().DividedBy((double)batch * great);
            loss.backward();
            return loss.item<float>();
        });
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (SrNetwork network in _networks)
            network.Dispose();
        _parallel.Dispose();
    }
}

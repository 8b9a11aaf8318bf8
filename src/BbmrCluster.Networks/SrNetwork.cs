using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.Weights;
using TorchSharp;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks;

/// <summary>
/// A super-resolution network on maps with the channels last; the same code for training and inference. The ends (first
/// convolution, last convolution with the global residual, tail) run in float32, the body in float32 or bfloat16.
/// Used on one thread. Does not own its parameters, but what it derives from them.
/// </summary>
public abstract class SrNetwork : IDisposable
{
    private readonly ParameterSet _parameters;
    private readonly Dictionary<string, Tensor> _prepared = new(StringComparer.Ordinal);
    private ProcessorNetwork? _loops;
    private bool _loopsTried;

    /// <summary>Wraps parameters.</summary>
    /// <param name="parameters">Named as the shape says; a feature extractor may lack the tail.</param>
    /// <param name="body">Float32 or BFloat16.</param>
    /// <param name="training">
    /// True: every pass reads the parameters and is differentiable. False: they are converted once, passes run without
    /// gradients and add in place, and the parameters must not change any more.
    /// </param>
    private protected SrNetwork(ParameterSet parameters, ScalarType body, bool training) => (_parameters, Body, Training) = (parameters, body, training);

    /// <summary>The network's shape.</summary>
    public abstract SrNetworkShape Shape { get; }

    /// <summary>The type of the body.</summary>
    private protected ScalarType Body { get; }

    /// <summary>Whether passes are differentiable.</summary>
    private protected bool Training { get; }

    /// <summary>Whether training passes are left to libtorch's graph entirely.</summary>
    private protected bool Graph { get; init; }

    /// <summary>Where the parameters live.</summary>
    private protected Device Device => _parameters.Flat.device;

    /// <summary>Upscales whole maps of any size from 1x1: pads at the right and bottom, crops the result.</summary>
    /// <param name="x">(B, H, W, 3) from <see cref="SrNetworkShape.Black"/> to 1, contiguous float32.</param>
    /// <returns>(B, H scale, W scale, 3), not clamped.</returns>
    public Tensor Forward(Tensor x)
    {
        using IDisposable? noGradient = Training ? null : no_grad();
        using var scope = NewDisposeScope();
        long height = x.shape[1] * Shape.Scale, width = x.shape[2] * Shape.Scale;
        if (Loops is { } loops)
            return loops.Forward(Padded(x), height, width).MoveToOuterDisposeScope();
        Tensor y = End(Features(x), Shape.TailName);
        y = Nhwc.PixelShuffle(y, Shape.Scale);
        if (y.shape[1] != height || y.shape[2] != width)
            y = y.narrow(1, 0, height).narrow(2, 0, width).contiguous();
        if (Shape.Mean is { } mean)
            y = Nhwc.AddColour(y, mean);
        return y.MoveToOuterDisposeScope();
    }

    /// <summary>The network without its tail ("SRNet feature" of the BBMR paper).</summary>
    /// <param name="x">As <see cref="Forward"/>; the mean is subtracted here.</param>
    /// <returns>(B, H', W', channels) float32, H' and W' padded to the next multiple and at least <see cref="SrNetworkShape.MinimumSide"/>.</returns>
    public Tensor Features(Tensor x)
    {
        using IDisposable? noGradient = Training ? null : no_grad();
        using var scope = NewDisposeScope();
        x = Padded(x);
        return (Loops is { } loops ? loops.Features(x) : Extract(x)).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Frees what was derived from the parameters.</summary>
    /// <param name="disposing">False from a finalizer.</param>
    protected virtual void Dispose(bool disposing)
    {
        if (!disposing)
            return;
        foreach (Tensor tensor in _prepared.Values)
            tensor.Dispose();
        _prepared.Clear();
        _loops?.Dispose();
    }

    /// <summary>The same network by own loops, for inference on the processor; null where there are none for its shape.</summary>
    private protected virtual ProcessorNetwork? CreateLoops(ParameterSet parameters) => null;

    private ProcessorNetwork? Loops
    {
        get
        {
            if (!_loopsTried && !Training && Device.type == TorchSharp.DeviceType.CPU)
                _loops = CreateLoops(_parameters);
            _loopsTried = true;
            return _loops;
        }
    }

    private Tensor Padded(Tensor x)
    {
        long height = Shape.PaddedSide(x.shape[1]), width = Shape.PaddedSide(x.shape[2]);
        return height == x.shape[1] && width == x.shape[2] ? x : Pad(x, height, width);
    }

    /// <summary>Extends a map at the right and bottom.</summary>
    private protected abstract Tensor Pad(Tensor x, long height, long width);

    /// <summary>Features of a padded map.</summary>
    private protected abstract Tensor Extract(Tensor x);

    /// <summary>A 3x3 convolution of the ends: in float32, its gradients in the body's type.</summary>
    private protected Tensor End(Tensor x, string name) => Training && !Graph && Body == ScalarType.BFloat16 && Device.type == DeviceType.CPU && x.shape[3] % 16 == 0
        ? ConvolutionTraining.Run(x, _parameters, name)
        : Nhwc.Convolution(x, P(name + ".weight"), P(name + ".bias"));

    /// <summary>A parameter in float32.</summary>
    private protected Tensor P(string name) => _parameters[name];

    /// <summary>A body parameter in the body's type.</summary>
    private protected Tensor W(string name) => Body == ScalarType.Float32
        ? _parameters[name]
        : Training ? _parameters[name].to(Body) : Prepared(name, () => _parameters[name].to(Body));

    /// <summary>A tensor derived from parameters: made once, or on every pass when training.</summary>
    private protected Tensor Prepared(string key, Func<Tensor> make)
    {
        if (Training)
            return make();
        if (_prepared.TryGetValue(key, out Tensor? ready))
            return ready;
        using var scope = NewDisposeScope();
        Tensor made = make().detach().DetachFromDisposeScope();
        _prepared.Add(key, made);
        return made;
    }

    /// <summary>a + b, into a when no gradient is needed.</summary>
    private protected Tensor Add(Tensor a, Tensor b)
    {
        if (Training)
            return a.Plus(b);
        a.PlusInPlace(b);
        return a;
    }

    /// <summary>a b, into a when no gradient is needed.</summary>
    private protected Tensor Multiply(Tensor a, Tensor b)
    {
        if (Training)
            return a * b;
        a.mul_(b);
        return a;
    }

    /// <summary>Layer normalisation over the channels, in the body's type.</summary>
    private protected Tensor Norm(Tensor x, string name, double epsilon) =>
        F.layer_norm(x, [Shape.Channels], W(name + ".weight"), W(name + ".bias"), epsilon);

    /// <summary>1x1 convolution to 2 n channels, depthwise 3x3, GELU of the first n times the last n, 1x1 convolution back.</summary>
    /// <param name="x">Normalised map.</param>
    /// <param name="name">Prefix of project_in, dwconv and project_out.</param>
    private protected Tensor GatedFeedForward(Tensor x, string name)
    {
        using var scope = NewDisposeScope();
        Tensor y = Nhwc.Pointwise(x, W(name + "project_in.weight"), null);
        int both = (int)y.shape[3];
        y = Nhwc.Convolution(y, W(name + "dwconv.weight"), null, groups: both);
        Tensor gate = F.gelu(y.narrow(3, 0, both / 2));
        y = Multiply(gate, y.narrow(3, both / 2, both / 2)).contiguous();
        return Nhwc.Pointwise(y, W(name + "project_out.weight"), null).MoveToOuterDisposeScope();
    }

    /// <summary>Softmax attention among tokens.</summary>
    /// <param name="qkv">(3, groups, heads, tokens, n), queries first.</param>
    /// <param name="bias">(1, heads, tokens, tokens) of the body's type, or null.</param>
    /// <param name="scaled">Whether the queries hold the factor 1/sqrt(n) already; only in bfloat16.</param>
    /// <returns>(groups, heads, tokens, n).</returns>
    private protected Tensor TokenAttention(Tensor qkv, Tensor? bias, bool scaled)
    {
        using var scope = NewDisposeScope();
        // The fused attention of libtorch's CPU is slow in bfloat16.
        if (Body == ScalarType.Float32)
            return F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], bias).MoveToOuterDisposeScope();
        long groups = qkv.shape[1], heads = qkv.shape[2], tokens = qkv.shape[3], each = qkv.shape[4];
        Tensor flat = qkv.contiguous().view(3, groups * heads, tokens, each);
        Tensor logits = flat[0].bmm(flat[1].transpose(1, 2)).view(groups, heads, tokens, tokens);
        if (!scaled)
            logits = logits.DividedBy(Math.Sqrt(each));
        if (bias is not null)
            logits = Add(logits, bias);
        return logits.softmax(-1).view(groups * heads, tokens, tokens).bmm(flat[2]).view(groups, heads, tokens, each).MoveToOuterDisposeScope();
    }

    /// <summary>Softmax attention among channels, over normalised queries and keys.</summary>
    /// <param name="q">(groups heads, n, positions), contiguous.</param>
    /// <param name="k">As <paramref name="q"/>.</param>
    /// <param name="v">As <paramref name="q"/>.</param>
    /// <param name="temperature">(heads, 1, 1), factor of the logits.</param>
    /// <returns>(groups heads, n, positions).</returns>
    private protected Tensor ChannelAttention(Tensor q, Tensor k, Tensor v, Tensor temperature)
    {
        using var scope = NewDisposeScope();
        long heads = temperature.shape[0], groups = q.shape[0], each = q.shape[1];
        // Scaling the logits by the reciprocal norms replaces normalising q and k; the floor is that of the norm.
        Tensor norms = Norms(q).unsqueeze(-1) * Norms(k).unsqueeze(-2);
        Tensor logits = q.bmm(k.transpose(1, 2)) / norms;
        Tensor attention = Multiply(logits.view(groups / heads, heads, each, each), temperature).softmax(-1).view(groups, each, each);
        return attention.bmm(v).MoveToOuterDisposeScope();

        static Tensor Norms(Tensor rows) => (rows * rows).sum(-1).AtLeast(1e-24).sqrt();
    }
}

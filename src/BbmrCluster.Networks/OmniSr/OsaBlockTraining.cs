using System.Diagnostics.CodeAnalysis;
using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.OmniSr;

/// <summary>
/// The differentiable OSA block of the published shape (64 channels, 4 heads, 8x8 windows) with its 1x1 convolution and
/// residual, without a graph inside: the forward pass keeps what the backward pass needs in buffers that are used again,
/// products are libtorch's, everything else are own loops. Gradients of parameters go straight into the
/// <see cref="ParameterSet"/>. Used on one thread.
/// </summary>
internal abstract class OsaBlockTraining : IDisposable
{
    /// <summary>Whether a network's blocks have the shape this is written for.</summary>
    public static bool Fits(OmniSrShape shape) => shape is { Channels: 64, Heads: 4, Window: 8 };

    /// <summary>Wraps the parameters of a block.</summary>
    /// <param name="parameters">Not owned; on the processor.</param>
    /// <param name="name">Prefix of the block's group, "residual_layer.0." for the first.</param>
    /// <param name="body">Float32 or BFloat16.</param>
    public static OsaBlockTraining Create(ParameterSet parameters, string name, ScalarType body) =>
        (Floats.Wide, body == ScalarType.Float32) switch
        {
            (true, true) => new OsaBlockTraining<Floats16, float>(parameters, name),
            (true, false) => new OsaBlockTraining<Floats16, BFloat16>(parameters, name),
            (false, true) => new OsaBlockTraining<Floats8, float>(parameters, name),
            _ => new OsaBlockTraining<Floats8, BFloat16>(parameters, name),
        };

    /// <summary>The block's output plus its input.</summary>
    /// <param name="x">(B, H, W, 64) of the body's type, contiguous; H and W multiples of 8.</param>
    public Tensor Forward(Tensor x)
    {
        Pass pass = Begin(x.shape);
        if (is_grad_enabled() && x.requires_grad)
            return Function.apply(x, pass);
        Tensor result = pass.Forward(x);
        pass.End();
        return result;
    }

    /// <summary>Frees everything, after the backward passes that are still to come.</summary>
    public abstract void Dispose();

    /// <summary>A pass over maps of a shape, with buffers of its own until its backward pass is done.</summary>
    private protected abstract Pass Begin(long[] shape);

    /// <summary>A forward pass and, at most once, its backward pass.</summary>
    private protected abstract class Pass
    {
        public abstract Tensor Forward(Tensor x);

        public abstract Tensor Backward(Tensor gradient);

        /// <summary>Gives the buffers back when there is no backward pass.</summary>
        public abstract void End();
    }

    [SuppressMessage("Performance", "CA1812", Justification = "Made by apply.")]
    private sealed class Function : autograd.SingleTensorFunction<Function>
    {
        public override string Name => "OsaBlock";

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            var pass = (Pass)vars[1];
            ctx.save_data("pass", pass);
            return pass.Forward((Tensor)vars[0]);
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output) => [((Pass)ctx.get_data("pass")).Backward(grad_output), null!];
    }
}

/// <summary><see cref="OsaBlockTraining"/> with maps of one type.</summary>
/// <typeparam name="V">The vectors.</typeparam>
/// <typeparam name="T">float or <see cref="BFloat16"/>.</typeparam>
internal sealed unsafe class OsaBlockTraining<V, T> : OsaBlockTraining
    where V : unmanaged, IFloats<V>
    where T : unmanaged
{
    private const int Channels = 64, Heads = 4, Tokens = 64, Squeezed = 16;

    private static readonly ScalarType Type = typeof(T) == typeof(float) ? ScalarType.Float32 : ScalarType.BFloat16;

    private static readonly (int Number, Kind Kind)[] Stages =
    [
        (2, Kind.WindowAttention), (4, Kind.FeedForward), (5, Kind.WindowChannels), (6, Kind.FeedForward),
        (8, Kind.GridAttention), (10, Kind.FeedForward), (11, Kind.PhaseChannels), (12, Kind.FeedForward),
    ];

    private readonly ParameterSet _parameters;
    private readonly string _name, _block;
    private int _running;
    private bool _disposed;
    private readonly Dictionary<string, Matrix> _matrices = new(StringComparer.Ordinal);
    private readonly Dictionary<long, Matrix> _weightGradients = [];
    private readonly Dictionary<string, Stack<Buffers>> _idle = new(StringComparer.Ordinal);
    private readonly float[] _bias = GC.AllocateArray<float>(2 * Heads * Tokens * Tokens, pinned: true), _biasGradient = GC.AllocateArray<float>(Heads * Tokens * Tokens, pinned: true);

    public OsaBlockTraining(ParameterSet parameters, string name)
    {
        (_parameters, _name, _block) = (parameters, name, name + "residual_layer.0.layer.");
        Add(_block + "0.fn.0.weight", 64);
        Add(_block + "0.fn.5.weight", 64);
        Add(name + "residual_layer.1.weight", 64);
        foreach ((int number, Kind kind) in Stages)
        {
            (string first, int outputs, string last) = Products(number, kind);
            Add(first, outputs);
            Add(last, 64);
        }
        foreach (long outputs in (long[])[64, 128, 192])
            _weightGradients.Add(outputs, new Matrix(outputs, Channels));

        void Add(string parameter, long outputs) => _matrices.Add(parameter, new Matrix(outputs, Channels));
    }

    private enum Kind
    {
        WindowAttention,
        GridAttention,
        WindowChannels,
        PhaseChannels,
        FeedForward,
    }

    public override void Dispose()
    {
        _disposed = true;
        Free();
    }

    private void Free()
    {
        if (!_disposed || _running > 0)
            return;
        foreach (Matrix matrix in _matrices.Values.Concat(_weightGradients.Values))
            matrix.Dispose();
        foreach (Buffers buffers in _idle.Values.SelectMany(stack => stack))
            buffers.Dispose();
    }

    private protected override Pass Begin(long[] shape)
    {
        string key = string.Join(' ', shape);
        if (!_idle.TryGetValue(key, out Stack<Buffers>? idle))
            _idle.Add(key, idle = new Stack<Buffers>());
        if (!idle.TryPop(out Buffers? buffers))
            buffers = new Buffers((int)shape[0], (int)shape[1], (int)shape[2]);
        _running++;
        return new BlockPass(this, buffers, idle);
    }

    /// <summary>The products before and after a stage's core.</summary>
    private (string First, int Outputs, string Last) Products(int number, Kind kind)
    {
        string prefix = $"{_block}{number}.fn.";
        return kind switch
        {
            Kind.FeedForward => (prefix + "project_in.weight", 128, prefix + "project_out.weight"),
            Kind.WindowAttention or Kind.GridAttention => (prefix + "to_qkv.weight", 192, prefix + "to_out.0.weight"),
            _ => (prefix + "qkv.weight", 192, prefix + "project_out.weight"),
        };
    }

    private float* P(string name) => _parameters.Values(name);

    private float* G(string name) => _parameters.Gradient(name);

    /// <summary>Takes over the parameters' present values.</summary>
    private void Refresh()
    {
        foreach ((string name, Matrix matrix) in _matrices)
            NormTraining<V>.Convert(P(name), matrix.Tensor.numel(), matrix.Data);
        for (int i = 0; i < 2; i++)
        {
            float* table = P($"{_block}{(i == 0 ? 2 : 8)}.fn.rel_pos_bias.weight");
            for (int query = 0; query < Tokens; query++)
            {
                for (int key = 0; key < Tokens; key++)
                {
                    for (int head = 0; head < Heads; head++)
                        _bias[(((((i * Heads) + head) * Tokens) + query) * Tokens) + key] = table[(RelativePosition(query, key) * Heads) + head];
                }
            }
        }
    }

    private static int RelativePosition(int query, int key) => (((query / 8) - (key / 8) + 7) * 15) + (query % 8) - (key % 8) + 7;

    private float* Bias(Kind kind) => (float*)System.Runtime.InteropServices.Marshal.UnsafeAddrOfPinnedArrayElement(_bias, kind == Kind.WindowAttention ? 0 : _bias.Length / 2);

    private static void Product(Matrix to, Tensor a, Tensor b) => _ = to.Tensor.addmm_(a, b, 0, 1);

    /// <summary>to = x W^T.</summary>
    private void Multiply(Matrix x, string weight, Matrix to) => Product(to, x.Tensor, _matrices[weight].Turned);

    /// <summary>Gradients of x W^T: that of x into <paramref name="to"/>, that of W added to the parameter's.</summary>
    private void MultiplyBackward(Matrix x, string weight, Matrix gradient, Matrix to)
    {
        Matrix matrix = _matrices[weight];
        Product(to, gradient.Tensor, matrix.Tensor);
        Matrix sum = _weightGradients[matrix.Tensor.shape[0]];
        Product(sum, gradient.Turned, x.Tensor);
        NormTraining<V>.AddTo(sum.Data, sum.Tensor.numel(), G(weight));
    }

    /// <summary>A contiguous native matrix with its transposed view.</summary>
    private sealed class Matrix : IDisposable
    {
        public Matrix(long rows, long columns)
        {
            using IDisposable noGradient = no_grad();
            Tensor = zeros(rows, columns, Type).DetachFromDisposeScope();
            Turned = Tensor.t().DetachFromDisposeScope();
            Data = NativeTensors.Data<T>(Tensor);
        }

        public Tensor Tensor { get; }

        public Tensor Turned { get; }

        public T* Data { get; }

        public void Dispose()
        {
            Turned.Dispose();
            Tensor.Dispose();
        }
    }

    /// <summary>What a pass keeps and works in, for maps of one shape.</summary>
    private sealed class Buffers : IDisposable
    {
        private readonly Tensor _floats;

        public Buffers(int batch, int height, int width)
        {
            (Batch, Height, Width) = (batch, height, width);
            Rows = (long)batch * height * width;
            foreach ((_, Kind kind) in Stages)
            {
                int core = kind == Kind.FeedForward ? 128 : 192;
                First.Add(New(core));
                Second.Add(kind is Kind.WindowAttention or Kind.GridAttention ? null : New(core));
                Last.Add(New(Channels));
                Normalised.Add(New(Channels));
                States.Add(New(Channels));
            }
            States.Add(New(Channels));
            (Input, Expanded, Filtered, Scaled) = (New(Channels), New(Channels), New(Channels), New(Channels));
            (Gradient, Narrow, Narrow2, Wide, Wide2, Middle) = (New(Channels), New(Channels), New(Channels), New(192), New(192), New(128));

            long statistics = 2 * Rows * Stages.Length, gates = 5L * batch * Channels;
            long scratch = Math.Max(Math.Max(PositionAttentionTraining<V>.Scratch, ChannelAttentionTraining<V>.Scratch(Math.Max(Tokens, height * width / Tokens))), DepthwiseTraining<V>.Scratch(width));
            using IDisposable noGradient = no_grad();
            _floats = zeros(statistics + gates + scratch).DetachFromDisposeScope();
            Statistics = NativeTensors.Data<float>(_floats);
            Means = Statistics + statistics;
            Hidden = Means + (batch * Channels);
            Factors = Hidden + (batch * Channels);
            MeanGradient = Factors + (batch * Channels);
            FactorGradient = MeanGradient + (batch * Channels);
            Scratch = FactorGradient + (batch * Channels);
        }

        public int Batch { get; }

        public int Height { get; }

        public int Width { get; }

        public long Rows { get; }

        /// <summary>Of each stage: the first product, what its depthwise convolution makes of it, and the input of the last product.</summary>
        public List<Matrix> First { get; } = [];

        public List<Matrix?> Second { get; } = [];

        public List<Matrix> Last { get; } = [];

        public List<Matrix> Normalised { get; } = [];

        /// <summary>The map before each stage and after the last.</summary>
        public List<Matrix> States { get; } = [];

        /// <summary>Of the local block: input, first product, convolution, input of the last product.</summary>
        public Matrix Input { get; }

        public Matrix Expanded { get; }

        public Matrix Filtered { get; }

        public Matrix Scaled { get; }

        public Matrix Gradient { get; }

        public Matrix Narrow { get; }

        public Matrix Narrow2 { get; }

        public Matrix Wide { get; }

        public Matrix Wide2 { get; }

        public Matrix Middle { get; }

        public float* Statistics { get; }

        public float* Means { get; }

        public float* Hidden { get; }

        public float* Factors { get; }

        public float* MeanGradient { get; }

        public float* FactorGradient { get; }

        public float* Scratch { get; }

        private List<Matrix> Owned { get; } = [];

        public void Dispose()
        {
            foreach (Matrix matrix in Owned)
                matrix.Dispose();
            _floats.Dispose();
        }

        private Matrix New(int channels)
        {
            var matrix = new Matrix(Rows, channels);
            Owned.Add(matrix);
            return matrix;
        }
    }

    private sealed class BlockPass(OsaBlockTraining<V, T> block, Buffers b, Stack<Buffers> idle) : Pass
    {
        private readonly string _local = block._block + "0.fn.";

        public override Tensor Forward(Tensor x)
        {
            using var scope = NewDisposeScope();
            block.Refresh();
            b.Input.Tensor.copy_(x.view(b.Rows, Channels));

            block.Multiply(b.Input, _local + "0.weight", b.Expanded);
            DepthwiseTraining<V>.LocalForward(b.Expanded.Data, block.P(_local + "0.bias"), block.P(_local + "2.weight"), block.P(_local + "2.bias"), b.Batch, b.Height, b.Width, b.Filtered.Data, b.Means, b.Scratch);
            GateForward();
            DepthwiseTraining<V>.ScaleForward(b.Filtered.Data, b.Factors, b.Batch, b.Height * b.Width, b.Scaled.Data);
            block.Multiply(b.Scaled, _local + "5.weight", b.Narrow);
            Join(b.Input, block.P(_local + "5.bias"), 0);

            for (int i = 0; i < Stages.Length; i++)
            {
                Stage(i);
                Join(b.States[i], null, i + 1);
            }

            block.Multiply(b.States[^1], block._name + "residual_layer.1.weight", b.Narrow);
            Tensor result = empty(x.shape, Type);
            NormTraining<V>.Forward(b.Input.Data, b.Narrow.Data, block.P(block._name + "residual_layer.1.bias"), null, null, 0, b.Rows, NativeTensors.Data<T>(result), null, null);
            return result.MoveToOuterDisposeScope();
        }

        public override Tensor Backward(Tensor gradient)
        {
            using var scope = NewDisposeScope();
            gradient = gradient.contiguous();
            T* outer = NativeTensors.Data<T>(gradient);
            string last = block._name + "residual_layer.1.";
            NormTraining<V>.ColumnSums(outer, b.Rows, block.G(last + "bias"));
            b.Narrow.Tensor.copy_(gradient.view(b.Rows, Channels));
            block.MultiplyBackward(b.States[^1], last + "weight", b.Narrow, b.Gradient);

            for (int i = Stages.Length - 1; i >= 0; i--)
                StageBackward(i);

            NormTraining<V>.ColumnSums(b.Gradient.Data, b.Rows, block.G(_local + "5.bias"));
            block.MultiplyBackward(b.Scaled, _local + "5.weight", b.Gradient, b.Narrow);
            DepthwiseTraining<V>.ScaleBackward(b.Filtered.Data, b.Narrow.Data, b.Batch, b.Height * b.Width, b.FactorGradient);
            GateBackward();
            DepthwiseTraining<V>.LocalBackward(b.Expanded.Data, block.P(_local + "0.bias"), block.P(_local + "2.weight"), b.Filtered.Data, b.Narrow.Data, b.Factors, b.MeanGradient, b.Batch, b.Height, b.Width,
                b.Narrow2.Data, block.G(_local + "0.bias"), block.G(_local + "2.weight"), block.G(_local + "2.bias"), b.Scratch);
            block.MultiplyBackward(b.Input, _local + "0.weight", b.Narrow2, b.Narrow);
            Tensor result = empty(gradient.shape, Type);
            NormTraining<V>.AddThree(outer, b.Gradient.Data, b.Narrow.Data, b.Rows * Channels, NativeTensors.Data<T>(result));
            End();
            return result.MoveToOuterDisposeScope();
        }

        public override void End()
        {
            idle.Push(b);
            block._running--;
            block.Free();
        }

        /// <summary>The state before stage <paramref name="next"/>: x + the branch in the narrow buffer + bias, and its normalised form.</summary>
        private void Join(Matrix x, float* bias, int next)
        {
            if (next == Stages.Length)
            {
                NormTraining<V>.Forward(x.Data, b.Narrow.Data, bias, null, null, 0, b.Rows, b.States[next].Data, null, null);
                return;
            }
            string norm = $"{block._block}{Stages[next].Number}.norm.";
            NormTraining<V>.Forward(x.Data, b.Narrow.Data, bias, block.P(norm + "weight"), block.P(norm + "bias"), Epsilon(next), b.Rows, b.States[next].Data, b.Normalised[next].Data, b.Statistics + (2 * b.Rows * next));
        }

        private static float Epsilon(int stage) => Stages[stage].Kind is Kind.WindowAttention or Kind.GridAttention ? 1e-5f : 1e-6f;

        /// <summary>The branch of a stage into the narrow buffer.</summary>
        private void Stage(int i)
        {
            (int number, Kind kind) = Stages[i];
            string prefix = $"{block._block}{number}.fn.";
            (string first, _, string last) = block.Products(number, kind);
            block.Multiply(b.Normalised[i], first, b.First[i]);
            switch (kind)
            {
                case Kind.FeedForward:
                    DepthwiseTraining<V>.GateForward(b.First[i].Data, block.P(prefix + "dwconv.weight"), b.Batch, b.Height, b.Width, b.Second[i]!.Data, b.Last[i].Data, b.Scratch);
                    break;
                case Kind.WindowAttention or Kind.GridAttention:
                    PositionAttentionTraining<V>.Forward(b.First[i].Data, block.Bias(kind), Group(kind), b.Batch, b.Height, b.Width, b.Last[i].Data, b.Scratch);
                    break;
                default:
                    DepthwiseTraining<V>.Forward(b.First[i].Data, block.P(prefix + "qkv_dwconv.weight"), b.Batch, b.Height, b.Width, 192, b.Second[i]!.Data, b.Scratch);
                    ChannelAttentionTraining<V>.Forward(b.Second[i]!.Data, block.P(prefix + "temperature"), Group(kind), b.Batch, b.Height, b.Width, b.Last[i].Data, b.Scratch);
                    break;
            }
            block.Multiply(b.Last[i], last, b.Narrow);
        }

        /// <summary>Takes the gradient of the state after a stage to that before it.</summary>
        private void StageBackward(int i)
        {
            (int number, Kind kind) = Stages[i];
            string prefix = $"{block._block}{number}.fn.", norm = $"{block._block}{number}.norm.";
            (string first, _, string last) = block.Products(number, kind);
            block.MultiplyBackward(b.Last[i], last, b.Gradient, b.Narrow);
            Matrix gradient = b.Wide;
            switch (kind)
            {
                case Kind.FeedForward:
                    gradient = b.Middle;
                    DepthwiseTraining<V>.GateBackward(b.First[i].Data, block.P(prefix + "dwconv.weight"), b.Second[i]!.Data, b.Narrow.Data, b.Batch, b.Height, b.Width, gradient.Data, block.G(prefix + "dwconv.weight"), b.Scratch);
                    break;
                case Kind.WindowAttention or Kind.GridAttention:
                    AttentionBackward(i, kind, prefix + "rel_pos_bias.weight");
                    break;
                default:
                    ChannelAttentionTraining<V>.Backward(b.Second[i]!.Data, block.P(prefix + "temperature"), Group(kind), b.Batch, b.Height, b.Width, b.Narrow.Data, b.Wide2.Data, block.G(prefix + "temperature"), b.Scratch);
                    DepthwiseTraining<V>.Backward(b.First[i].Data, block.P(prefix + "qkv_dwconv.weight"), b.Wide2.Data, b.Batch, b.Height, b.Width, 192, gradient.Data, block.G(prefix + "qkv_dwconv.weight"), b.Scratch);
                    break;
            }
            block.MultiplyBackward(b.Normalised[i], first, gradient, b.Narrow);
            NormTraining<V>.Backward(b.States[i].Data, b.Statistics + (2 * b.Rows * i), block.P(norm + "weight"), b.Narrow.Data, b.Rows, b.Gradient.Data, block.G(norm + "weight"), block.G(norm + "bias"));
        }

        private void AttentionBackward(int i, Kind kind, string table)
        {
            Array.Clear(block._biasGradient);
            fixed (float* slopes = block._biasGradient)
                PositionAttentionTraining<V>.Backward(b.First[i].Data, block.Bias(kind), Group(kind), b.Batch, b.Height, b.Width, b.Narrow.Data, b.Wide.Data, slopes, b.Scratch);
            float* gradient = block.G(table);
            for (int head = 0; head < Heads; head++)
            {
                for (int query = 0; query < Tokens; query++)
                {
                    for (int key = 0; key < Tokens; key++)
                        gradient[(RelativePosition(query, key) * Heads) + head] += block._biasGradient[(((head * Tokens) + query) * Tokens) + key];
                }
            }
        }

        private static PixelGroup Group(Kind kind) => kind switch
        {
            Kind.WindowAttention or Kind.WindowChannels => PixelGroup.Window,
            Kind.GridAttention => PixelGroup.Grid,
            _ => PixelGroup.Phase,
        };

        /// <summary>Squeeze and excitation: the factors from the means.</summary>
        private void GateForward()
        {
            float* narrow = block.P(_local + "4.gate.1.weight"), wide = block.P(_local + "4.gate.3.weight");
            for (int image = 0; image < b.Batch; image++)
            {
                float* means = b.Means + (image * Channels), hidden = b.Hidden + (image * Channels), factors = b.Factors + (image * Channels);
                for (int h = 0; h < Squeezed; h++)
                {
                    float sum = 0;
                    for (int c = 0; c < Channels; c++)
                        sum += narrow[(h * Channels) + c] * means[c];
                    hidden[h] = sum;
                }
                for (int c = 0; c < Channels; c++)
                {
                    float sum = 0;
                    for (int h = 0; h < Squeezed; h++)
                        sum += wide[(c * Squeezed) + h] * hidden[h] * Sigmoid(hidden[h]);
                    factors[c] = Sigmoid(sum);
                }
            }
        }

        private void GateBackward()
        {
            float* narrow = block.P(_local + "4.gate.1.weight"), wide = block.P(_local + "4.gate.3.weight");
            float* narrowGradient = block.G(_local + "4.gate.1.weight"), wideGradient = block.G(_local + "4.gate.3.weight");
            float* active = stackalloc float[Squeezed], slopes = stackalloc float[Squeezed];
            for (int image = 0; image < b.Batch; image++)
            {
                float* means = b.Means + (image * Channels), hidden = b.Hidden + (image * Channels), factors = b.Factors + (image * Channels);
                float* gradient = b.FactorGradient + (image * Channels), meanGradient = b.MeanGradient + (image * Channels);
                for (int h = 0; h < Squeezed; h++)
                    (active[h], slopes[h]) = (hidden[h] * Sigmoid(hidden[h]), 0);
                for (int c = 0; c < Channels; c++)
                {
                    meanGradient[c] = 0;
                    float slope = gradient[c] * factors[c] * (1 - factors[c]);
                    for (int h = 0; h < Squeezed; h++)
                    {
                        wideGradient[(c * Squeezed) + h] += slope * active[h];
                        slopes[h] += slope * wide[(c * Squeezed) + h];
                    }
                }
                for (int h = 0; h < Squeezed; h++)
                {
                    float sigmoid = Sigmoid(hidden[h]), slope = slopes[h] * sigmoid * (1 + (hidden[h] * (1 - sigmoid)));
                    for (int c = 0; c < Channels; c++)
                    {
                        narrowGradient[(h * Channels) + c] += slope * means[c];
                        meanGradient[c] += slope * narrow[(h * Channels) + c];
                    }
                }
            }
        }

        private static float Sigmoid(float x) => 1 / (1 + MathF.Exp(-x));
    }
}

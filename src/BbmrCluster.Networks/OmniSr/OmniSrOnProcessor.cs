using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.OmniSr;

/// <summary>OmniSR by own loops, for 64 channels in heads of 16 and windows of 8 x 8. The first convolution, the sum with it
/// and the tail are float32; the convolution behind the groups takes bfloat16, which moves no block by more than 0.01 dB.</summary>
internal sealed unsafe class OmniSrOnProcessor : ProcessorNetwork
{
    private const int Channels = 64, Window = 8;

    private readonly Convolution3 _input;
    private readonly BodyConvolution3 _output;
    private readonly Osag[] _osags;
    private readonly MapBuffer _first, _outer, _inner, _branch, _hidden, _wide, _mixed;
    private readonly TokenAttention _tokens;
    private readonly ChannelAttention _channels;

    /// <summary>Prepares the weights.</summary>
    public OmniSrOnProcessor(OmniSrShape shape, ParameterSet parameters, ScalarType body)
        : base(shape, parameters, body)
    {
        _input = Convolution("input");
        _output = BodyConvolution("output");
        _osags = [.. Enumerable.Range(0, shape.Osags).Select(i => new Osag(this, $"residual_layer.{i}."))];
        _first = Buffer(Channels, ScalarType.Float32);
        (_outer, _inner, _branch) = (Buffer(Channels), Buffer(Channels), Buffer(Channels));
        (_hidden, _wide, _mixed) = (Buffer(2 * Channels), Buffer(3 * Channels), Buffer(3 * Channels));
        _tokens = Own(new TokenAttention());
        _channels = Own(new ChannelAttention());
    }

    /// <summary>Whether this class runs networks of a shape.</summary>
    public static bool Runs(OmniSrShape shape) => shape is { Channels: Channels, Heads: Channels / 16, Window: Window };

    private protected override void Extract(float* x, int images, int height, int width, float* features)
    {
        if (Body == ScalarType.Float32)
            Extract<float>(x, images, height, width, features);
        else
            Extract<BFloat16>(x, images, height, width, features);
    }

    private void Extract<T>(float* x, int images, int height, int width, float* features)
        where T : unmanaged
    {
        int rows = images * height * width, line = width * Channels;
        foreach (MapBuffer buffer in (MapBuffer[])[_first, _outer, _inner, _branch, _hidden, _wide, _mixed])
            buffer.Reserve(rows);
        float* first = (float*)_first.Pointer;
        T* outer = (T*)_outer.Pointer;
        _input.Run(x, 3, images, height, width, (_, image, y, values) =>
        {
            long at = ((image * (long)height) + y) * line;
            Elementwise.Convert(values, first + at, line);
            Elementwise.Convert(values, outer + at, line);
        });
        foreach (Osag osag in _osags)
            osag.Run<T>(images, height, width);
        _output.Run(_outer, images, height, width, (_, image, y, values) =>
        {
            long at = ((image * (long)height) + y) * line;
            Elementwise.Add(values, first + at, features + at, line);
        });
    }

    /// <summary>Weights of one group of blocks; runs in place on the network's outer map.</summary>
    private sealed class Osag
    {
        private readonly OmniSrOnProcessor _net;
        private readonly Pointwise _localIn, _localOut, _last;
        private readonly NativeFloats _localInBias, _localOutBias, _squeeze, _excite, _lastBias;
        private readonly Depthwise3 _local;
        private readonly Attention _window, _grid;
        private readonly Mixer _windowChannels, _gridChannels;
        private readonly FeedForward[] _feedForward;
        private readonly SpatialAttention _spatial;

        public Osag(OmniSrOnProcessor net, string name)
        {
            _net = net;
            string block = name + "residual_layer.0.layer.", local = block + "0.fn.";
            (_localIn, _localOut, _last) = (net.Product(local + "0"), net.Product(local + "5"), net.Product(name + "residual_layer.1"));
            (_localInBias, _localOutBias, _lastBias) = (net.Native(local + "0.bias"), net.Native(local + "5.bias"), net.Native(name + "residual_layer.1.bias"));
            _local = net.Depthwise(local + "2", bias: true);
            (_squeeze, _excite) = (net.Native(local + "4.gate.1.weight"), net.Native(local + "4.gate.3.weight"));
            (_window, _grid) = (new Attention(net, block + "2."), new Attention(net, block + "8."));
            (_windowChannels, _gridChannels) = (new Mixer(net, block + "5."), new Mixer(net, block + "11."));
            _feedForward = [.. new[] { 4, 6, 10, 12 }.Select(i => new FeedForward(net, $"{block}{i}."))];
            _spatial = new SpatialAttention(net, name + "esa.");
        }

        public void Run<T>(int images, int height, int width)
            where T : unmanaged
        {
            int pixels = height * width, rows = images * pixels;
            Local<T>(images, height, width);
            _window.Run<T>(_net.Groups(PixelGroup.Window, height, width), images, pixels);
            _feedForward[0].Run<T>(images, height, width);
            _windowChannels.Run<T>(_net.Groups(PixelGroup.Window, height, width), 64, images, height, width);
            _feedForward[1].Run<T>(images, height, width);
            _grid.Run<T>(_net.Groups(PixelGroup.Grid, height, width), images, pixels);
            _feedForward[2].Run<T>(images, height, width);
            _gridChannels.Run<T>(_net.Groups(PixelGroup.Phase, height, width), pixels / 64, images, height, width);
            _feedForward[3].Run<T>(images, height, width);
            _last.Run(_net._inner, _net._outer, rows, add: true);
            _spatial.Run<T>(images, height, width);
        }

        /// <summary>inner = outer + local block of outer; adds the group's last bias to outer on the way.</summary>
        private void Local<T>(int images, int height, int width)
            where T : unmanaged
        {
            int pixels = height * width, rows = images * pixels;
            T* outer = (T*)_net._outer.Pointer, inner = (T*)_net._inner.Pointer, branch = (T*)_net._branch.Pointer;
            _localIn.Run(_net._outer, _net._inner, rows);
            Elementwise.BiasGelu(inner, _localInBias.Pointer, rows, Channels);
            float* sums = stackalloc float[images * Channels];
            new Span<float>(sums, images * Channels).Clear();
            _local.Gelu(inner, branch, images, height, width, sums);
            for (int image = 0; image < images; image++)
            {
                Excite(sums + (image * Channels), pixels);
                Elementwise.Scale(branch + ((long)image * pixels * Channels), sums + (image * Channels), pixels, Channels);
            }
            Elementwise.AddBias(outer, _localOutBias.Pointer, inner, rows, Channels);
            Elementwise.AddBias(outer, _lastBias.Pointer, outer, rows, Channels);
            _localOut.Run(_net._branch, _net._inner, rows, add: true);
        }

        /// <summary>Sums over the pixels to the factors of the channels, in place.</summary>
        private void Excite(float* sums, int pixels)
        {
            const int hidden = Channels / 4;
            float* squeezed = stackalloc float[hidden];
            for (int o = 0; o < hidden; o++)
            {
                float sum = 0;
                for (int c = 0; c < Channels; c++)
                    sum += sums[c] / pixels * _squeeze.Pointer[(o * Channels) + c];
                squeezed[o] = sum / (1 + MathF.Exp(-sum));
            }
            for (int c = 0; c < Channels; c++)
            {
                float sum = 0;
                for (int o = 0; o < hidden; o++)
                    sum += squeezed[o] * _excite.Pointer[(c * hidden) + o];
                sums[c] = 1 / (1 + MathF.Exp(-sum));
            }
        }
    }

    /// <summary>Normalisation, gated feed-forward, added to the inner map.</summary>
    private sealed class FeedForward(OmniSrOnProcessor net, string name)
    {
        private readonly LayerNormalisation _norm = net.Norm(name + "norm", 1e-6);
        private readonly Pointwise _in = net.Product(name + "fn.project_in"), _out = net.Product(name + "fn.project_out");
        private readonly Depthwise3 _middle = net.Depthwise(name + "fn.dwconv");

        public void Run<T>(int images, int height, int width)
            where T : unmanaged
        {
            int rows = images * height * width;
            _norm.Run((T*)net._inner.Pointer, (T*)net._branch.Pointer, rows);
            _in.Run(net._branch, net._hidden, rows);
            _middle.Gate((T*)net._hidden.Pointer, (T*)net._branch.Pointer, images, height, width);
            _out.Run(net._branch, net._inner, rows, add: true);
        }
    }

    /// <summary>Normalisation, attention among pixels, added to the inner map.</summary>
    private sealed class Attention
    {
        private readonly OmniSrOnProcessor _net;
        private readonly LayerNormalisation _norm;
        private readonly Pointwise _in, _out;
        private readonly NativeFloats _bias;

        public Attention(OmniSrOnProcessor net, string name)
        {
            _net = net;
            _norm = net.Norm(name + "norm", 1e-5);
            (_in, _out) = (net.Product(name + "fn.to_qkv"), net.Product(name + "fn.to_out.0"));
            ReadOnlySpan<float> table = net.Values(name + "fn.rel_pos_bias.weight");
            const int heads = Channels / 16;
            _bias = net.Own(new NativeFloats(heads * 64 * 64));
            for (int head = 0; head < heads; head++)
            {
                for (int key = 0; key < 64; key++)
                {
                    for (int query = 0; query < 64; query++)
                    {
                        int row = (query / Window) - (key / Window) + Window - 1, column = (query % Window) - (key % Window) + Window - 1;
                        _bias.Pointer[(((head * 64) + key) * 64) + query] = table[(((row * ((2 * Window) - 1)) + column) * heads) + head];
                    }
                }
            }
        }

        public void Run<T>(int[] groups, int images, int pixels)
            where T : unmanaged
        {
            int rows = images * pixels;
            T* branch = (T*)_net._branch.Pointer, wide = (T*)_net._wide.Pointer;
            _norm.Run((T*)_net._inner.Pointer, branch, rows);
            _in.Run(_net._branch, _net._wide, rows);
            fixed (int* group = groups)
            {
                for (int image = 0; image < images; image++)
                {
                    long at = (long)image * pixels;
                    _net._tokens.Run(wide + (at * 3 * Channels), 3 * Channels, 0, Channels, 2 * Channels, Channels / 16, 16, branch + (at * Channels), Channels, group, pixels / 64, _bias.Pointer);
                }
            }
            _out.Run(_net._branch, _net._inner, rows, add: true);
        }
    }

    /// <summary>Normalisation, attention among channels, added to the inner map.</summary>
    private sealed class Mixer
    {
        private readonly OmniSrOnProcessor _net;
        private readonly LayerNormalisation _norm;
        private readonly Pointwise _in, _out;
        private readonly Depthwise3 _middle;
        private readonly NativeFloats _temperature;

        public Mixer(OmniSrOnProcessor net, string name)
        {
            _net = net;
            _norm = net.Norm(name + "norm", 1e-6);
            (_in, _out) = (net.Product(name + "fn.qkv"), net.Product(name + "fn.project_out"));
            _middle = net.Depthwise(name + "fn.qkv_dwconv");
            _temperature = net.Own(new NativeFloats(Channels));
            for (int c = 0; c < Channels; c++)
                _temperature.Pointer[c] = net.Values(name + "fn.temperature")[c / 16];
        }

        public void Run<T>(int[] groups, int count, int images, int height, int width)
            where T : unmanaged
        {
            int pixels = height * width, rows = images * pixels;
            T* branch = (T*)_net._branch.Pointer, wide = (T*)_net._wide.Pointer, mixed = (T*)_net._mixed.Pointer;
            _norm.Run((T*)_net._inner.Pointer, branch, rows);
            _in.Run(_net._branch, _net._wide, rows);
            _middle.Run(wide, 3 * Channels, mixed, 3 * Channels, images, height, width);
            fixed (int* group = groups)
            {
                for (int image = 0; image < images; image++)
                {
                    T* from = mixed + ((long)image * pixels * 3 * Channels);
                    _net._channels.Run(from, 3 * Channels, from + Channels, from + (2 * Channels), 3 * Channels, branch + ((long)image * pixels * Channels), Channels,
                        Channels, 16, _temperature.Pointer, group, count, pixels / count);
                }
            }
            _out.Run(_net._branch, _net._inner, rows, add: true);
        }
    }

    /// <summary>Enhanced spatial attention: outer = outer gate, in float32 but for its first product.</summary>
    private sealed class SpatialAttention
    {
        private const int Hidden = 16;

        private readonly OmniSrOnProcessor _net;
        private readonly Pointwise _reduce;
        private readonly NativeFloats _reduceBias, _strideBias, _directBias, _expandBias;
        private readonly FloatProduct[] _stride;
        private readonly FloatProduct _direct, _expand;
        private readonly Convolution3 _pooled;
        private readonly MapBuffer _reduced, _wide, _small, _pool, _coarse, _line, _gate;

        public SpatialAttention(OmniSrOnProcessor net, string name)
        {
            _net = net;
            _reduce = net.Product(name + "conv1");
            (_reduceBias, _strideBias, _directBias, _expandBias) = (net.Native(name + "conv1.bias"), net.Native(name + "conv2.bias"), net.Native(name + "conv_f.bias"), net.Native(name + "conv4.bias"));
            _pooled = net.Convolution(name + "conv3");
            ReadOnlySpan<float> stride = net.Values(name + "conv2.weight");
            _stride = new FloatProduct[3];
            var part = new float[3 * Hidden * Hidden];
            for (int y = 0; y < 3; y++)
            {
                for (int i = 0; i < part.Length; i++)
                    part[i] = stride[(((i % Hidden * Hidden) + (i / Hidden % Hidden)) * 9) + (y * 3) + (i / Hidden / Hidden)];
                _stride[y] = net.Own(new FloatProduct(part, 3 * Hidden, Hidden));
            }
            _direct = net.Own(new FloatProduct(Transposed(net.Values(name + "conv_f.weight"), Hidden), Hidden, Hidden));
            _expand = net.Own(new FloatProduct(Transposed(net.Values(name + "conv4.weight"), Hidden), Hidden, Channels));
            _reduced = net.Buffer(Hidden);
            (_wide, _small, _pool, _coarse, _line) = (Wide(Hidden), Wide(Hidden), Wide(Hidden), Wide(Hidden), Wide(Hidden));
            _gate = Wide(Channels);

            MapBuffer Wide(int channels) => net.Buffer(channels, ScalarType.Float32);
        }

        public void Run<T>(int images, int height, int width)
            where T : unmanaged
        {
            int pixels = height * width, rows = images * pixels;
            int smallHeight = (height - 3) / 2 + 1, smallWidth = (width - 3) / 2 + 1, poolHeight = (smallHeight - 7) / 3 + 1, poolWidth = (smallWidth - 7) / 3 + 1;
            _reduced.Reserve(rows);
            _wide.Reserve(pixels);
            _small.Reserve(smallHeight * smallWidth);
            _pool.Reserve(poolHeight * poolWidth);
            _coarse.Reserve(poolHeight * poolWidth);
            _line.Reserve(width + poolWidth);
            _gate.Reserve(width);
            _reduce.Run(_net._outer, _reduced, rows);
            for (int image = 0; image < images; image++)
            {
                float* wide = (float*)_wide.Pointer;
                T* reduced = (T*)_reduced.Pointer + ((long)image * pixels * Hidden);
                Elementwise.AddBias(reduced, _reduceBias.Pointer, wide, pixels, Hidden);
                Pool(wide, width, smallHeight, smallWidth, poolHeight, poolWidth);
                Gate((T*)_net._outer.Pointer + ((long)image * pixels * Channels), wide, height, width, poolHeight, poolWidth);
            }
        }

        /// <summary>Convolution of stride 2, maximum over 7 x 7 in steps of 3, convolution: to the coarse map.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Pool(float* wide, int width, int smallHeight, int smallWidth, int poolHeight, int poolWidth)
        {
            float* small = (float*)_small.Pointer, pool = (float*)_pool.Pointer, coarse = (float*)_coarse.Pointer;
            Vector512<float> bias = Vector512.Load(_strideBias.Pointer);
            for (int y = 0; y < smallHeight; y++)
            {
                float* line = small + (y * smallWidth * Hidden);
                for (int x = 0; x < smallWidth; x++)
                    bias.Store(line + (x * Hidden));
                for (int k = 0; k < 3; k++)
                    _stride[k].Accumulate(wide + (((2 * y) + k) * width * Hidden), 2 * Hidden, line, Hidden, smallWidth);
            }
            for (int y = 0; y < poolHeight; y++)
            {
                for (int x = 0; x < poolWidth; x++)
                {
                    Vector512<float> max = Vector512.Create(float.NegativeInfinity);
                    for (int i = 0; i < 49; i++)
                        max = Vector512.Max(max, Vector512.Load(small + (((((3 * y) + (i / 7)) * smallWidth) + (3 * x) + (i % 7)) * Hidden)));
                    max.Store(pool + (((y * poolWidth) + x) * Hidden));
                }
            }
            _pooled.Run(pool, Hidden, 1, poolHeight, poolWidth, (_, _, y, values) =>
                System.Buffer.MemoryCopy(values, coarse + (y * poolWidth * Hidden), poolWidth * Hidden * sizeof(float), poolWidth * Hidden * sizeof(float)));
        }

        /// <summary>The coarse map, enlarged (bilinear, pixel centres), and the direct branch through the last convolution and a sigmoid: the factors of x.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Gate<T>(T* x, float* wide, int height, int width, int poolHeight, int poolWidth)
            where T : unmanaged
        {
            float* coarse = (float*)_coarse.Pointer, line = (float*)_line.Pointer, blended = line + (width * Hidden), gate = (float*)_gate.Pointer;
            Vector512<float> bias = Vector512.Load(_directBias.Pointer);
            for (int y = 0; y < height; y++)
            {
                (int above, int below, float down) = Place(y, height, poolHeight);
                for (int i = 0; i < poolWidth * Hidden; i++)
                    blended[i] = (coarse[(above * poolWidth * Hidden) + i] * (1 - down)) + (coarse[(below * poolWidth * Hidden) + i] * down);
                for (int column = 0; column < width; column++)
                {
                    (int left, int right, float along) = Place(column, width, poolWidth);
                    Vector512<float> value = (Vector512.Load(blended + (left * Hidden)) * (1 - along)) + (Vector512.Load(blended + (right * Hidden)) * along);
                    (value + bias).Store(line + (column * Hidden));
                }
                _direct.Accumulate(wide + (y * width * Hidden), Hidden, line, Hidden, width);
                _expand.Run(line, Hidden, _expandBias.Pointer, 0, gate, Channels, width);
                T* row = x + ((long)y * width * Channels);
                Elementwise.ScaleBySigmoid(row, gate, width * Channels);
            }

            static (int First, int Second, float Share) Place(int at, int length, int from)
            {
                float place = Math.Max(0, ((at + 0.5f) * from / length) - 0.5f);
                int first = Math.Min((int)place, from - 1);
                return (first, Math.Min(first + 1, from - 1), place - first);
            }
        }

        private static float[] Transposed(ReadOnlySpan<float> weight, int inputs)
        {
            int outputs = weight.Length / inputs;
            var result = new float[weight.Length];
            for (int i = 0; i < result.Length; i++)
                result[i] = weight[(i % outputs * inputs) + (i / outputs)];
            return result;
        }
    }
}

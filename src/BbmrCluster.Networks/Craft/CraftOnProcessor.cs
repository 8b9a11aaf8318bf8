using System.Runtime.CompilerServices;
using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.Weights;
using static BbmrCluster.Networks.Kernels.VectorMath;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Craft;

/// <summary>CRAFT by own loops, for the published width: 48 channels in heads of 8, windows of 4 x 16 and 16 x 4, no position bias.</summary>
internal sealed unsafe class CraftOnProcessor : ProcessorNetwork
{
    private const int Channels = 48, Half = Channels / 2, Each = 8, Short = 4, Long = 16;

    private readonly CraftShape _shape;
    private readonly Convolution3 _convFirst, _convLast;
    private readonly LayerNormalisation _norm;
    private readonly Group[] _groups;
    private readonly MapBuffer _input, _first, _normalised, _state, _low, _high, _other, _branch, _queries, _hidden, _mlp, _mixed, _keyValues, _keys, _gated, _halved, _line;
    private readonly TokenAttention _tokens;
    private readonly ChannelAttention _channels;

    /// <summary>Prepares the weights.</summary>
    public CraftOnProcessor(CraftShape shape, ParameterSet parameters, ScalarType body)
        : base(shape, parameters, body)
    {
        _shape = shape;
        (_convFirst, _convLast) = (Convolution("conv_first"), Convolution("conv_after_body"));
        _norm = Norm("norm.body", 1e-5);
        _groups = [.. shape.Depths.Select((depth, g) => new Group(this, $"layers.{g}.", depth))];
        _input = Buffer(3, ScalarType.Float32);
        (_first, _normalised) = (Buffer(Channels, ScalarType.Float32), Buffer(Channels, ScalarType.Float32));
        (_state, _low, _high, _other, _branch, _queries) = (Buffer(Channels), Buffer(Channels), Buffer(Channels), Buffer(Channels), Buffer(Channels), Buffer(Channels));
        (_hidden, _mlp, _mixed, _keyValues, _keys) = (Buffer(3 * Channels), Buffer(shape.MlpChannels), Buffer(Channels), Buffer(2 * Channels), Buffer(2 * Channels));
        int gate = (shape.GateChannels + 15) / 16 * 16;
        (_gated, _halved) = (Buffer(2 * gate), Buffer(gate));
        _line = Buffer(Half + 32, ScalarType.Float32);
        _tokens = Own(new TokenAttention());
        _channels = Own(new ChannelAttention());
    }

    /// <summary>Whether this class runs networks of a shape.</summary>
    public static bool Runs(CraftShape shape) =>
        shape is { Channels: Channels, Heads: Channels / Each, ShortSide: Short, LongSide: Long, PositionChannels: 1 } && shape.MlpChannels % 16 == 0;

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
        foreach (MapBuffer buffer in (MapBuffer[])[_input, _first, _normalised, _state, _low, _high, _other, _branch, _queries, _hidden, _mlp, _mixed, _keyValues, _keys, _gated, _halved])
            buffer.Reserve(rows);
        float* input = (float*)_input.Pointer, first = (float*)_first.Pointer, normalised = (float*)_normalised.Pointer;
        T* state = (T*)_state.Pointer;
        for (int i = 0; i < rows * 3; i++)
            input[i] = x[i] - _shape.Mean![i % 3];
        _convFirst.Run(input, 3, images, height, width, (_, image, y, values) =>
        {
            long at = ((image * (long)height) + y) * line;
            Elementwise.Convert(values, first + at, line);
            Elementwise.Convert(values, state + at, line);
        });
        foreach (Group group in _groups)
            group.Run<T>(images, height, width);
        _norm.Run(state, normalised, rows);
        _convLast.Run(normalised, Channels, images, height, width, (_, image, y, values) =>
        {
            long at = ((image * (long)height) + y) * line;
            Elementwise.Add(values, first + at, features + at, line);
        });
    }

    /// <summary>The pixels of each window of 4 x 16 (branch 0) or 16 x 4 (branch 1); shifted ones wrap around the border.</summary>
    private int[] Windows(int height, int width, int branch, bool shifted) => Grouping(height, width, branch + (shifted ? 2 : 0), () =>
    {
        int tall = branch == 0 ? Short : Long, wide = branch == 0 ? Long : Short, down = shifted ? tall / 2 : 0, right = shifted ? wide / 2 : 0;
        var pixels = new List<int>(height * width);
        for (int top = 0; top < height; top += tall)
        {
            for (int left = 0; left < width; left += wide)
            {
                for (int token = 0; token < 64; token++)
                    pixels.Add(((top + (token / wide) + down) % height * width) + ((left + (token % wide) + right) % width));
            }
        }
        return [.. pixels];
    });

    private int[] All(int height, int width) => Grouping(height, width, 4, () => [.. Enumerable.Range(0, height * width)]);

    /// <summary>A residual group; runs in place on the network's state.</summary>
    private sealed class Group
    {
        private readonly CraftOnProcessor _net;
        private readonly WindowBlock[] _windows;
        private readonly HighFrequencies[] _high;
        private readonly Fusion[] _fusion;
        private readonly BodyConvolution3 _last;

        public Group(CraftOnProcessor net, string name, int depth)
        {
            _net = net;
            string inner = name + "residual_group.";
            _windows = [.. Enumerable.Range(0, 2 * depth).Select(i => new WindowBlock(net, $"{inner}srwa_blocks.{i}."))];
            _high = [.. Enumerable.Range(0, depth).Select(i => new HighFrequencies(net, $"{inner}hfer_blocks.{i}."))];
            _fusion = [.. Enumerable.Range(0, depth).Select(i => new Fusion(net, $"{inner}hf_blocks.{i}."))];
            _last = net.BodyConvolution(name + "conv");
        }

        public void Run<T>(int images, int height, int width)
            where T : unmanaged
        {
            int line = width * Channels;
            MapBuffer state = _net._state;
            for (int i = 0; i < _high.Length; i++)
            {
                // Both branches read the same state; the fusion's result takes its place, but the group's input stays.
                MapBuffer low = ReferenceEquals(state, _net._low) ? _net._other : _net._low;
                _windows[2 * i].Run<T>(state, low, images, height, width, shifted: false);
                _windows[(2 * i) + 1].Run<T>(low, low, images, height, width, shifted: true);
                _high[i].Run<T>(state, images, height, width);
                _fusion[i].Run<T>(low, images, height, width);
                state = low;
            }
            T* sum = (T*)_net._state.Pointer;
            _last.Run(state, images, height, width, (_, image, y, values) =>
            {
                long at = ((image * (long)height) + y) * line;
                Elementwise.Add(values, sum + at, sum + at, line);
            });
        }
    }

    /// <summary>Attention in windows, then an MLP: low = state + both; in place where they are the same.</summary>
    private sealed class WindowBlock(CraftOnProcessor net, string name)
    {
        private readonly LayerNormalisation _norm1 = net.Norm(name + "norm1", 1e-5), _norm2 = net.Norm(name + "norm2", 1e-5);
        private readonly Pointwise _qkv = net.Product(name + "qkv", bias: true), _proj = net.Product(name + "proj");
        private readonly Pointwise _in = net.Product(name + "mlp.fc1"), _out = net.Product(name + "mlp.fc2", bias: true);
        private readonly NativeFloats _projBias = net.Native(name + "proj.bias"), _inBias = net.Native(name + "mlp.fc1.bias");
        private readonly Depthwise3 _local = net.Depthwise(name + "get_v", bias: true);

        public void Run<T>(MapBuffer state, MapBuffer to, int images, int height, int width, bool shifted)
            where T : unmanaged
        {
            const int stride = 3 * Channels;
            int pixels = height * width, rows = images * pixels;
            T* low = (T*)to.Pointer, branch = (T*)net._branch.Pointer, qkv = (T*)net._hidden.Pointer, mixed = (T*)net._mixed.Pointer;
            _norm1.Run((T*)state.Pointer, branch, rows);
            _qkv.Run(net._branch, net._hidden, rows);
            for (int half = 0; half < 2; half++)
            {
                fixed (int* groups = net.Windows(height, width, half, shifted))
                {
                    for (int image = 0; image < images; image++)
                    {
                        long at = (long)image * pixels;
                        net._tokens.Run(qkv + (at * stride) + (half * Half), stride, 0, Channels, 2 * Channels, Half / Each, Each,
                            mixed + (at * Channels) + (half * Half), Channels, groups, pixels / 64, null);
                    }
                }
            }
            _local.Run(qkv + (2 * Channels), stride, mixed, Channels, images, height, width, add: true);
            Elementwise.AddBias((T*)state.Pointer, _projBias.Pointer, low, rows, Channels);
            _proj.Run(net._mixed, to, rows, add: true);
            _norm2.Run(low, branch, rows);
            _in.Run(net._branch, net._mlp, rows);
            Elementwise.BiasGelu((T*)net._mlp.Pointer, _inBias.Pointer, rows, net._mlp.Channels);
            _out.Run(net._mlp, to, rows, add: true);
        }
    }

    /// <summary>Half the channels through a convolution, half through a maximum and a 1x1 convolution: state to the high map.</summary>
    private sealed class HighFrequencies(CraftOnProcessor net, string name)
    {
        private readonly Convolution3 _local = net.Convolution(name + "conv");
        private readonly FloatProduct _peaks = net.Own(new FloatProduct(Transposed(net.Values(name + "fc.weight")), Half, Half));
        private readonly NativeFloats _peaksBias = net.Own(new NativeFloats([.. net.Values(name + "fc.bias"), .. new float[Floats.RoundUp(Half) - Half]]));
        private readonly Pointwise _last = net.Product(name + "last_fc");
        private readonly NativeFloats _lastBias = net.Native(name + "last_fc.bias");

        public void Run<T>(MapBuffer from, int images, int height, int width)
            where T : unmanaged
        {
            T* state = (T*)from.Pointer, joined = (T*)net._branch.Pointer;
            net._line.Reserve(_local.SharesOf(images, height, width) * width);
            _local.Run(state, Channels, images, height, width, (share, image, y, local) =>
            {
                long at = ((long)image * height * width * Channels) + ((long)y * width * Channels);
                if (Floats.Wide)
                    Row<Floats16, T>(share, state + at + Half, local, y, height, width, joined + at);
                else
                    Row<Floats8, T>(share, state + at + Half, local, y, height, width, joined + at);
            });
            int rows = images * height * width;
            Elementwise.AddBias(state, _lastBias.Pointer, (T*)net._high.Pointer, rows, Channels);
            _last.Run(net._branch, net._high, rows, add: true);
        }

        /// <summary>A row of the joined map: the convolution's half as it comes, the half of the maxima from the state.</summary>
        private void Row<V, T>(int share, T* state, float* local, int y, int height, int width, T* joined)
            where V : unmanaged, IFloats<V>
            where T : unmanaged
        {
            float* peaks = (float*)net._line.Pointer + ((long)share * width * net._line.Channels), mapped = peaks + (width * Half);
            Peaks<V, T>(state, y, height, width, peaks);
            _peaks.Run(peaks, Half, _peaksBias.Pointer, 0, mapped, _peaks.Outputs, width);
            Join<V, T>(local, mapped, _peaks.Outputs, joined, width);
        }

        /// <summary>GELU of both halves, side by side.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Join<V, T>(float* left, float* right, int stride, T* to, int width)
            where V : unmanaged, IFloats<V>
            where T : unmanaged
        {
            for (int x = 0; x < width; x++, left += stride, right += stride, to += Channels)
            {
                for (int c = 0; c < Half; c += V.Count)
                {
                    V a = Gelu<V, T>(V.Load(left + c)), b = Gelu<V, T>(V.Load(right + c));
                    if (c + V.Count <= Half)
                    {
                        V.Store(a, to + c);
                        V.Store(b, to + Half + c);
                    }
                    else
                    {
                        V.StoreEight(a, to + c);
                        V.StoreEight(b, to + Half + c);
                    }
                }
            }
        }

        /// <summary>The maximum over 3 x 3 pixels, for one row: of each column once, then of three columns.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Peaks<V, T>(T* row, int y, int height, int width, float* peaks)
            where V : unmanaged, IFloats<V>
            where T : unmanaged
        {
            T* above = y == 0 ? row : row - (width * Channels), below = y == height - 1 ? row : row + (width * Channels);
            // 24 channels are no whole number of vectors of 16: the last one overlaps.
            for (int c = 0; c < Half; c = c + V.Count == Half ? Half : Math.Min(c + V.Count, Half - V.Count))
            {
                V here = Column(c), before = here;
                float* to = peaks + c;
                for (int x = 0; x < width; x++, to += Half)
                {
                    V next = x == width - 1 ? here : Column(((x + 1) * Channels) + c);
                    V.Store(V.Max(V.Max(before, next), here), to);
                    (before, here) = (here, next);
                }
            }

            V Column(int at) => V.Max(V.Max(V.Load(above + at), V.Load(below + at)), V.Load(row + at));
        }

        private static float[] Transposed(ReadOnlySpan<float> weight)
        {
            var result = new float[Half * Half];
            for (int i = 0; i < result.Length; i++)
                result[i] = weight[(i % Half * Half) + (i / Half)];
            return result;
        }
    }

    /// <summary>Channel attention over the whole map, queries from the high map, then a gated feed-forward part; in place on the low map.</summary>
    private sealed class Fusion
    {
        private readonly CraftOnProcessor _net;
        private readonly LayerNormalisation _norm1, _norm2;
        private readonly Pointwise _query, _keyValue, _mix, _in, _out;
        private readonly Depthwise3 _queryLocal, _keyValueLocal, _middle;
        private readonly NativeFloats _temperature;

        public Fusion(CraftOnProcessor net, string name)
        {
            _net = net;
            (_norm1, _norm2) = (net.Norm(name + "norm1.body", 1e-5), net.Norm(name + "norm2.body", 1e-5));
            (_query, _keyValue, _mix) = (net.Product(name + "attn.q"), net.Product(name + "attn.kv"), net.Product(name + "attn.project_out"));
            (_queryLocal, _keyValueLocal) = (net.Depthwise(name + "attn.q_dwconv"), net.Depthwise(name + "attn.kv_dwconv"));
            _temperature = net.Own(new NativeFloats(Channels));
            for (int c = 0; c < Channels; c++)
                _temperature.Pointer[c] = net.Values(name + "attn.temperature")[c / Each];

            // The two halves of the gate start at multiples of 16 channels; the channels between are zero throughout.
            int half = net._shape.GateChannels, padded = (half + 15) / 16 * 16;
            var first = new float[2 * padded * Channels];
            var middle = new float[2 * padded * 9];
            var last = new float[Channels * padded];
            for (int c = 0; c < 2 * half; c++)
            {
                int place = c < half ? c : c - half + padded;
                net.Values(name + "ffn.project_in.weight").Slice(c * Channels, Channels).CopyTo(first.AsSpan(place * Channels));
                net.Values(name + "ffn.dwconv.weight").Slice(c * 9, 9).CopyTo(middle.AsSpan(place * 9));
            }
            for (int o = 0; o < Channels; o++)
                net.Values(name + "ffn.project_out.weight").Slice(o * half, half).CopyTo(last.AsSpan(o * padded));
            _in = net.Own(new Pointwise(first, Channels, 2 * padded, net.Body));
            _middle = net.Own(new Depthwise3(middle, [], 2 * padded));
            _out = net.Own(new Pointwise(last, padded, Channels, net.Body));
        }

        public void Run<T>(MapBuffer to, int images, int height, int width)
            where T : unmanaged
        {
            int pixels = height * width, rows = images * pixels;
            T* low = (T*)to.Pointer, branch = (T*)_net._branch.Pointer, queries = (T*)_net._queries.Pointer, keys = (T*)_net._keys.Pointer, mixed = (T*)_net._mixed.Pointer;
            _query.Run(_net._high, _net._branch, rows);
            _queryLocal.Run(branch, Channels, queries, Channels, images, height, width);
            _norm1.Run(low, branch, rows);
            _keyValue.Run(_net._branch, _net._keyValues, rows);
            _keyValueLocal.Run((T*)_net._keyValues.Pointer, 2 * Channels, keys, 2 * Channels, images, height, width);
            fixed (int* all = _net.All(height, width))
            {
                for (int image = 0; image < images; image++)
                {
                    long at = (long)image * pixels * Channels;
                    _net._channels.Run(queries + at, Channels, keys + (2 * at), keys + (2 * at) + Channels, 2 * Channels, mixed + at, Channels, Channels, Each, _temperature.Pointer, all, pixels, 1);
                }
            }
            _mix.Run(_net._mixed, to, rows, add: true);
            _norm2.Run(low, branch, rows);
            _in.Run(_net._branch, _net._gated, rows);
            _middle.Gate((T*)_net._gated.Pointer, (T*)_net._halved.Pointer, images, height, width);
            _out.Run(_net._halved, to, rows, add: true);
        }
    }
}

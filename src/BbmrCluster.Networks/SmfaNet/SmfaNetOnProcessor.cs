using System.Runtime.CompilerServices;
using BbmrCluster.Networks.Kernels;
using BbmrCluster.Networks.Weights;
using static BbmrCluster.Networks.Kernels.VectorMath;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.SmfaNet;

/// <summary>
/// SMFANet by own loops, for 48 channels. The residual stream, norms, variances and the coarse gate are float32; the gate
/// stays as coarse as it is; the sum of branches and the norm that follows share a pass; the product behind the local
/// branch and the last one are one (nothing lies between them).
/// </summary>
internal sealed unsafe class SmfaNetOnProcessor : ProcessorNetwork
{
    private const int Channels = 48, Wide = 2 * Channels;

    private readonly Convolution3 _head;
    private readonly Block[] _blocks;
    private readonly MapBuffer _first, _stream, _normalised, _wide, _doubled, _hidden, _gated, _branch, _cells, _moved, _gate;
    private NativeFloats? _variances;

    /// <summary>Prepares the weights.</summary>
    public SmfaNetOnProcessor(SmfaNetShape shape, ParameterSet parameters, ScalarType body)
        : base(shape, parameters, body)
    {
        _head = Convolution("to_feat");
        _blocks = [.. Enumerable.Range(0, shape.Blocks).Select(i => new Block(this, $"feats.{i}."))];
        (_first, _stream) = (Buffer(Channels, ScalarType.Float32), Buffer(Channels, ScalarType.Float32));
        (_normalised, _wide, _doubled, _hidden, _gated, _branch) = (Buffer(Channels), Buffer(Wide), Buffer(Wide), Buffer(Wide), Buffer(Channels), Buffer(Channels));
        (_cells, _moved, _gate) = (Buffer(Channels, ScalarType.Float32), Buffer(Channels, ScalarType.Float32), Buffer(Channels, ScalarType.Float32));
    }

    /// <summary>Whether this class runs networks of a shape.</summary>
    public static bool Runs(SmfaNetShape shape) => shape.Channels == Channels;

    private protected override void Extract(float* x, int images, int height, int width, float* features)
    {
        switch (Floats.Wide, Body == ScalarType.Float32)
        {
            case (true, true):
                Extract<Floats16, float>(x, images, height, width, features);
                break;
            case (true, false):
                Extract<Floats16, BFloat16>(x, images, height, width, features);
                break;
            case (false, true):
                Extract<Floats8, float>(x, images, height, width, features);
                break;
            default:
                Extract<Floats8, BFloat16>(x, images, height, width, features);
                break;
        }
    }

    private void Extract<V, T>(float* x, int images, int height, int width, float* features)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        int rows = images * height * width, line = width * Channels;
        foreach (MapBuffer buffer in (MapBuffer[])[_first, _stream, _normalised, _wide, _doubled, _hidden, _gated, _branch])
            buffer.Reserve(rows);
        int cells = images * (height / SmfaNetShape.Cell) * (width / SmfaNetShape.Cell);
        foreach (MapBuffer buffer in (MapBuffer[])[_cells, _moved, _gate])
            buffer.Reserve(cells);
        float* first = (float*)_first.Pointer, stream = (float*)_stream.Pointer;
        _head.Run(x, 3, images, height, width, (_, image, y, values) =>
        {
            long at = ((image * (long)height) + y) * line;
            Elementwise.Convert(values, first + at, line);
            Elementwise.Convert(values, stream + at, line);
        });
        Normalise<V, T>(stream, (T*)_normalised.Pointer, rows);
        foreach (Block block in _blocks)
            block.Run<V, T>(images, height, width);
        Elementwise.Add(stream, first, features, (long)rows * Channels);
    }

    /// <summary>Pixels divided by their L2 norm.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Normalise<V, T>(float* stream, T* to, int rows)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        for (int row = 0; row < rows; row++, stream += Channels, to += Channels)
        {
            V squares = default;
            for (int c = 0; c < Channels; c += V.Count)
                squares = V.MultiplyAdd(V.Load(stream + c), V.Load(stream + c), squares);
            Divided(stream, squares, to);
        }
    }

    /// <summary>stream += branch + bias, and the pixels of the result divided by their L2 norm.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void AddAndNormalise<V, T>(float* stream, T* branch, float* bias, T* to, int rows)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        for (int row = 0; row < rows; row++, stream += Channels, branch += Channels, to += Channels)
        {
            V squares = default;
            for (int c = 0; c < Channels; c += V.Count)
            {
                V x = V.Load(stream + c) + V.Load(branch + c) + V.Load(bias + c);
                V.Store(x, stream + c);
                squares = V.MultiplyAdd(x, x, squares);
            }
            Divided(stream, squares, to);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Divided<V, T>(float* pixel, V squares, T* to)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        V factor = V.Create(1 / Math.Max(MathF.Sqrt(V.Sum(squares)), 1e-12f));
        for (int c = 0; c < Channels; c += V.Count)
            V.Store(V.Load(pixel + c) * factor, to + c);
    }

    /// <summary>A block; runs in place on the residual stream and leaves it normalised for the next.</summary>
    private sealed class Block
    {
        private readonly SmfaNetOnProcessor _net;
        private readonly Pointwise _split, _gate, _local, _fromGated, _fromLocal, _in, _out;
        private readonly Depthwise3 _even, _odd, _spread;
        private readonly Convolution3 _part;
        private readonly NativeFloats _alpha, _belt, _gateBias, _localBias, _lastBias, _inBias, _outBias;

        public Block(SmfaNetOnProcessor net, string name)
        {
            _net = net;
            string smfa = name + "smfa.", pcfn = name + "pcfn.";
            _split = net.Product(smfa + "linear_0", bias: true);
            _gate = net.Own(new Pointwise(net.Values(smfa + "linear_1.weight"), Channels, Channels, ScalarType.Float32));
            (_alpha, _belt) = (net.Native(smfa + "alpha"), net.Native(smfa + "belt"));
            _spread = net.Depthwise(smfa + "dw_conv", bias: true);
            _gateBias = net.Native(smfa + "linear_1.bias");

            // Outputs 2 c and 2 c + 1 read channel c: all even ones, then all odd ones, and the product behind follows.
            ReadOnlySpan<float> weight = net.Values(smfa + "lde.conv_0.0.weight"), bias = net.Values(smfa + "lde.conv_0.0.bias"), next = net.Values(smfa + "lde.conv_0.1.weight");
            var order = new int[Wide];
            for (int i = 0; i < Wide; i++)
                order[i] = i < Channels ? 2 * i : (2 * (i - Channels)) + 1;
            var filters = new float[Wide * 9];
            var biases = new float[Wide];
            var mixed = new float[Wide * Wide];
            for (int i = 0; i < Wide; i++)
            {
                weight.Slice(order[i] * 9, 9).CopyTo(filters.AsSpan(i * 9));
                biases[i] = bias[order[i]];
                for (int o = 0; o < Wide; o++)
                    mixed[(o * Wide) + i] = next[(o * Wide) + order[i]];
            }
            _even = net.Own(new Depthwise3(filters.AsSpan(0, Channels * 9), biases.AsSpan(0, Channels), Channels));
            _odd = net.Own(new Depthwise3(filters.AsSpan(Channels * 9), biases.AsSpan(Channels), Channels));
            _local = net.Own(new Pointwise(mixed, Wide, Channels * 2, net.Body));
            _localBias = net.Native(smfa + "lde.conv_0.1.bias");

            // linear_2 (z g + conv_1 h + b) + c = linear_2 (z g) + (linear_2 conv_1) h + (linear_2 b + c).
            ReadOnlySpan<float> last = net.Values(smfa + "linear_2.weight"), before = net.Values(smfa + "lde.conv_1.weight"), beforeBias = net.Values(smfa + "lde.conv_1.bias"), lastBias = net.Values(smfa + "linear_2.bias");
            var merged = new float[Channels * Wide];
            var mergedBias = new float[Channels];
            for (int o = 0; o < Channels; o++)
            {
                double sum = lastBias[o];
                for (int m = 0; m < Channels; m++)
                    sum += (double)last[(o * Channels) + m] * beforeBias[m];
                mergedBias[o] = (float)sum;
                for (int i = 0; i < Wide; i++)
                {
                    sum = 0;
                    for (int m = 0; m < Channels; m++)
                        sum += (double)last[(o * Channels) + m] * before[(m * Wide) + i];
                    merged[(o * Wide) + i] = (float)sum;
                }
            }
            _fromGated = net.Product(smfa + "linear_2");
            _fromLocal = net.Own(new Pointwise(merged, Wide, Channels, net.Body));
            _lastBias = net.Own(new NativeFloats(mergedBias));

            (_in, _out) = (net.Product(pcfn + "conv_0"), net.Product(pcfn + "conv_2"));
            (_inBias, _outBias) = (net.Native(pcfn + "conv_0.bias"), net.Native(pcfn + "conv_2.bias"));
            _part = net.Convolution(pcfn + "conv_1");
        }

        public void Run<V, T>(int images, int height, int width)
            where V : unmanaged, IFloats<V>
            where T : unmanaged
        {
            int rows = images * height * width;
            float* stream = (float*)_net._stream.Pointer;
            T* normalised = (T*)_net._normalised.Pointer, branch = (T*)_net._branch.Pointer, wide = (T*)_net._wide.Pointer, doubled = (T*)_net._doubled.Pointer, hidden = (T*)_net._hidden.Pointer;

            _split.Run(_net._normalised, _net._wide, rows);
            Gate<V, T>(wide + Channels, images, height, width);
            Gated<V, T>(wide + Channels, (float*)_net._gate.Pointer, (T*)_net._gated.Pointer, images, height, width);
            _even.Run(wide, Wide, doubled, Wide, images, height, width);
            _odd.Run(wide, Wide, doubled + Channels, Wide, images, height, width);
            _local.Run(_net._doubled, _net._hidden, rows);
            Elementwise.BiasGelu(hidden, _localBias.Pointer, rows, Wide);
            _fromGated.Run(_net._gated, _net._branch, rows);
            _fromLocal.Run(_net._hidden, _net._branch, rows, add: true);
            AddAndNormalise<V, T>(stream, branch, _lastBias.Pointer, normalised, rows);

            _in.Run(_net._normalised, _net._hidden, rows);
            Elementwise.BiasGelu(hidden, _inBias.Pointer, rows, Wide);
            // The convolution has read a row, and the one below it, before the row is written.
            _part.Run(hidden, Wide, images, height, width, (_, image, y, values) => Activated<V, T>(values, _part.Outputs, hidden + (((image * (long)height) + y) * width * Wide), width), inOrder: true);
            _out.Run(_net._hidden, _net._branch, rows);
            AddAndNormalise<V, T>(stream, branch, _outBias.Pointer, normalised, rows);
        }

        /// <summary>The gate at its coarse size: peaks of cells, mixed with their neighbours, plus the variance of the whole map.</summary>
        private void Gate<V, T>(T* z, int images, int height, int width)
            where V : unmanaged, IFloats<V>
            where T : unmanaged
        {
            int down = height / SmfaNetShape.Cell, across = width / SmfaNetShape.Cell, cells = down * across;
            float* peaks = (float*)_net._cells.Pointer, moved = (float*)_net._moved.Pointer, gate = (float*)_net._gate.Pointer;
            if (_net._variances is null || _net._variances.Count < images * Channels)
                _net._variances = _net.Own(new NativeFloats(images * Channels));
            float* variances = _net._variances.Pointer;
            for (int image = 0; image < images; image++)
            {
                T* map = z + ((long)image * height * width * Wide);
                Variance<V, T>(map, height * width, variances + (image * Channels));
                Peaks<V, T>(map, height, width, down, across, peaks + (image * cells * Channels));
            }
            _spread.Run(peaks, Channels, moved, Channels, images, down, across);
            for (int image = 0; image < images; image++)
                Mixed<V>(moved + (image * cells * Channels), variances + (image * Channels), cells);
            _gate.Run(_net._moved, _net._gate, images * cells);
            Elementwise.BiasGelu(gate, _gateBias.Pointer, images * cells, Channels);
        }

        /// <summary>moved = moved alpha + variance belt.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private void Mixed<V>(float* moved, float* variance, int cells)
            where V : unmanaged, IFloats<V>
        {
            for (int c = 0; c < Channels; c += V.Count)
            {
                V alpha = V.Load(_alpha.Pointer + c), added = V.Load(_belt.Pointer + c) * V.Load(variance + c);
                for (int cell = 0; cell < cells; cell++)
                    V.Store(V.MultiplyAdd(V.Load(moved + (cell * Channels) + c), alpha, added), moved + (cell * Channels) + c);
            }
        }

        /// <summary>Variance of each channel, in two passes as sums of squares of differences want it.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Variance<V, T>(T* z, int pixels, float* variance)
            where V : unmanaged, IFloats<V>
            where T : unmanaged
        {
            for (int c = 0; c < Channels; c += V.Count)
            {
                V mean = default, squares = default;
                for (int i = 0; i < pixels; i++)
                    mean += V.Load(z + ((long)i * Wide) + c);
                mean *= V.Create(1f / pixels);
                for (int i = 0; i < pixels; i++)
                {
                    V difference = V.Load(z + ((long)i * Wide) + c) - mean;
                    squares = V.MultiplyAdd(difference, difference, squares);
                }
                V.Store(squares * V.Create(1f / (pixels - 1)), variance + c);
            }
        }

        /// <summary>The peak of every cell; cells overlap where the sides are no multiples of theirs.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Peaks<V, T>(T* z, int height, int width, int down, int across, float* peaks)
            where V : unmanaged, IFloats<V>
            where T : unmanaged
        {
            for (int cellY = 0; cellY < down; cellY++)
            {
                int top = cellY * height / down, bottom = (((cellY + 1) * height) + down - 1) / down;
                for (int cellX = 0; cellX < across; cellX++, peaks += Channels)
                {
                    int left = cellX * width / across, right = (((cellX + 1) * width) + across - 1) / across;
                    for (int c = 0; c < Channels; c += V.Count)
                    {
                        V peak = V.Create(float.NegativeInfinity);
                        for (int y = top; y < bottom; y++)
                        {
                            T* at = z + ((((long)y * width) + left) * Wide) + c;
                            for (int x = left; x < right; x++, at += Wide)
                                peak = V.Max(peak, V.Load(at));
                        }
                        V.Store(peak, peaks + c);
                    }
                }
            }
        }

        /// <summary>z times the gate of the cell of each pixel.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Gated<V, T>(T* z, float* gate, T* to, int images, int height, int width)
            where V : unmanaged, IFloats<V>
            where T : unmanaged
        {
            int down = height / SmfaNetShape.Cell, across = width / SmfaNetShape.Cell;
            for (int row = 0; row < images * height; row++)
            {
                float* cells = gate + (((row / height * down) + (row % height * down / height)) * across * Channels);
                for (int x = 0; x < width; x++, z += Wide, to += Channels)
                {
                    float* cell = cells + (x * across / width * Channels);
                    for (int c = 0; c < Channels; c += V.Count)
                        V.Store(V.Load(z + c) * V.Load(cell + c), to + c);
                }
            }
        }

        /// <summary>GELU of the convolved half of the features' number of channels, into the first channels of a row.</summary>
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        private static void Activated<V, T>(float* values, int stride, T* to, int width)
            where V : unmanaged, IFloats<V>
            where T : unmanaged
        {
            for (int x = 0; x < width; x++, values += stride, to += Wide)
            {
                for (int c = 0; c < Channels / 2; c += V.Count)
                {
                    if (c + V.Count <= Channels / 2)
                        V.Store(Gelu<V, T>(V.Load(values + c)), to + c);
                    else
                        V.StoreEight(Gelu<V, T>(V.Load(values + c)), to + c);
                }
            }
        }
    }
}

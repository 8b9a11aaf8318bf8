using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// A super-resolution network for inference on the processor: own vector loops for everything but the bfloat16 products.
/// A batch passes a few maps at a time, so that all maps of the body stay in the caches, through buffers that are kept.
/// A block's result depends neither on the other blocks of its batch nor on how many there are. Used on one thread.
/// </summary>
internal abstract unsafe class ProcessorNetwork : IDisposable
{
    // Pixels on their way at a time: few enough for the cache, enough to make the products' fixed cost small.
    private const int PixelsAtATime = 4096;

    private readonly List<IDisposable> _owned = [];
    private readonly Dictionary<(long Height, long Width, int Kind), int[]> _groupings = [];
    private readonly ParameterSet _parameters;
    private readonly MapBuffer _features;
    private readonly Convolution3? _tail;

    private protected ProcessorNetwork(SrNetworkShape shape, ParameterSet parameters, ScalarType body)
    {
        (Shape, _parameters, Body) = (shape, parameters, body);
        _features = Buffer(shape.Channels, ScalarType.Float32);
        if (parameters.Has(shape.TailName + ".weight"))
            _tail = Tail();
    }

    /// <summary>The network's shape.</summary>
    private protected SrNetworkShape Shape { get; }

    /// <summary>The body's type.</summary>
    private protected ScalarType Body { get; }

    /// <summary>Upscales padded maps.</summary>
    /// <param name="x">(B, H, W, 3), padded, contiguous float32.</param>
    /// <param name="height">Rows of the result that are wanted.</param>
    /// <param name="width">Columns of the result that are wanted.</param>
    /// <returns>(B, height, width, 3).</returns>
    public Tensor Forward(Tensor x, long height, long width)
    {
        int scale = Shape.Scale, run = scale * 3, tail = _tail!.Outputs;
        Tensor result = empty([x.shape[0], height, width, 3], ScalarType.Float32);
        float* to = Address(result);
        float* mean = stackalloc float[3];
        for (int c = 0; c < 3; c++)
            mean[c] = Shape.Mean?[c] ?? 0;
        InParts(x, (first, images, h, w, features) =>
        {
            _tail.Run(features, Shape.Channels, images, h, w, (_, image, y, values) =>
            {
                for (int i = 0; i < scale && (y * scale) + i < height; i++)
                {
                    float* line = to + ((((first + image) * height) + (y * scale) + i) * width * 3), pixel = values + (i * run);
                    for (long left = width * 3; left > 0; left -= run, line += run, pixel += tail)
                        new Span<float>(pixel, (int)Math.Min(run, left)).CopyTo(new Span<float>(line, run));
                }
            });
        });
        if (Shape.Mean is not null)
        {
            for (long i = 0; i < result.numel(); i++)
                to[i] += mean[i % 3];
        }
        return result;
    }

    /// <summary>The features of padded maps.</summary>
    /// <param name="x">As <see cref="Forward"/>.</param>
    /// <returns>(B, H, W, channels) float32.</returns>
    public Tensor Features(Tensor x)
    {
        Tensor result = empty([x.shape[0], x.shape[1], x.shape[2], Shape.Channels], ScalarType.Float32);
        float* to = Address(result);
        InParts(x, (first, images, h, w, features) =>
        {
            long each = (long)h * w * Shape.Channels;
            System.Buffer.MemoryCopy(features, to + (first * each), images * each * sizeof(float), images * each * sizeof(float));
        });
        return result;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (IDisposable owned in _owned)
            owned.Dispose();
        _owned.Clear();
    }

    /// <summary>Computes the features of a few maps.</summary>
    /// <param name="x">images x height x width x 3.</param>
    /// <param name="images">Maps.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="features">images x height x width x channels.</param>
    private protected abstract void Extract(float* x, int images, int height, int width, float* features);

    /// <summary>The last convolution with its outputs in the order of the image: row, column, colour instead of colour, row, column.</summary>
    private Convolution3 Tail()
    {
        int square = Shape.Scale * Shape.Scale, each = Shape.Channels * 9;
        ReadOnlySpan<float> weight = Values(Shape.TailName + ".weight"), bias = Values(Shape.TailName + ".bias");
        var ordered = new float[weight.Length];
        var orderedBias = new float[bias.Length];
        for (int o = 0; o < bias.Length; o++)
        {
            int from = (o % 3 * square) + (o / 3);
            weight.Slice(from * each, each).CopyTo(ordered.AsSpan(o * each));
            orderedBias[o] = bias[from];
        }
        return Own(new Convolution3(ordered, orderedBias, Shape.Channels, bias.Length));
    }

    /// <summary>A parameter's values.</summary>
    private protected ReadOnlySpan<float> Values(string name) => MemoryMarshal.Cast<byte, float>(_parameters[name].bytes);

    /// <summary>A map that is kept.</summary>
    private protected MapBuffer Buffer(int channels, ScalarType? type = null) => Own(new MapBuffer(channels, type ?? Body));

    /// <summary>A 1x1 convolution of the body.</summary>
    /// <param name="name">Without ".weight".</param>
    /// <param name="bias">Whether to use its bias.</param>
    private protected Pointwise Product(string name, bool bias = false)
    {
        long[] shape = _parameters[name + ".weight"].shape;
        return Own(new Pointwise(Values(name + ".weight"), (int)shape[1], (int)shape[0], Body, bias ? Values(name + ".bias") : []));
    }

    /// <summary>Values that loops read as they are.</summary>
    private protected NativeFloats Native(string name) => Own(new NativeFloats(Values(name)));

    /// <summary>A 3x3 convolution in float32.</summary>
    private protected Convolution3 Convolution(string name)
    {
        long[] shape = _parameters[name + ".weight"].shape;
        return Own(new Convolution3(Values(name + ".weight"), Values(name + ".bias"), (int)shape[1], (int)shape[0]));
    }

    /// <summary>A 3x3 convolution of the body between channels that are a multiple of 16.</summary>
    private protected BodyConvolution3 BodyConvolution(string name)
    {
        long[] shape = _parameters[name + ".weight"].shape;
        return Own(new BodyConvolution3(Values(name + ".weight"), Values(name + ".bias"), (int)shape[1], (int)shape[0], Body));
    }

    /// <summary>A depthwise convolution.</summary>
    private protected Depthwise3 Depthwise(string name, bool bias = false)
    {
        ReadOnlySpan<float> weight = Values(name + ".weight");
        return Own(new Depthwise3(weight, bias ? Values(name + ".bias") : [], weight.Length / 9));
    }

    /// <summary>A normalisation over the channels.</summary>
    private protected LayerNormalisation Norm(string name, double epsilon) => Own(new LayerNormalisation(Values(name + ".weight"), Values(name + ".bias"), epsilon));

    /// <summary>Notes what is freed with the network.</summary>
    private protected T Own<T>(T owned)
        where T : IDisposable
    {
        _owned.Add(owned);
        return owned;
    }

    /// <summary>The pixels of all groups of a map, group by group.</summary>
    private protected int[] Groups(PixelGroup kind, int height, int width) => Grouping(height, width, (int)kind, () => PixelGroups.All(kind, height, width));

    /// <summary>Pixels group by group, made once for each size of map.</summary>
    private protected int[] Grouping(int height, int width, int kind, Func<int[]> make)
    {
        if (!_groupings.TryGetValue((height, width, kind), out int[]? pixels))
            _groupings.Add((height, width, kind), pixels = make());
        return pixels;
    }

    private static float* Address(Tensor map) => (float*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(map.bytes));

    private void InParts(Tensor x, Part part)
    {
        using var scope = NewDisposeScope();
        int batch = (int)x.shape[0], height = (int)x.shape[1], width = (int)x.shape[2], pixels = height * width;
        int largest = Math.Max(1, PixelsAtATime / pixels);
        float* from = Address(x);
        for (int first = 0; first < batch; first += largest)
        {
            using var inner = NewDisposeScope();
            int images = Math.Min(largest, batch - first);
            _features.Reserve((long)Math.Min(largest, batch) * pixels);
            Extract(from + ((long)first * pixels * 3), images, height, width, (float*)_features.Pointer);
            part(first, images, height, width, (float*)_features.Pointer);
        }
    }

    private delegate void Part(int first, int images, int height, int width, float* features);
}

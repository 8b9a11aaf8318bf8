using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Engine;

/// <summary>
/// Super-resolution of a whole image in one pass, without blocks or tiles: memory grows with the image (about 3 KB per
/// LR pixel in float32). Owns a network until disposed; used on one thread.
/// </summary>
public sealed class SuperResolver : IDisposable
{
    private readonly ParameterSet _parameters;
    private readonly SrNetwork _network;
    private readonly Device _device;

    /// <summary>Loads a network.</summary>
    /// <param name="catalog">Where weights are.</param>
    /// <param name="network">Network name.</param>
    /// <param name="scale">Upscaling factor.</param>
    /// <param name="precision">auto, float32 or bfloat16.</param>
    /// <param name="device">auto, cpu or cuda:N.</param>
    /// <param name="threads">libtorch threads; 0 takes all processors.</param>
    /// <exception cref="EngineUnavailableException">No such network, weights or device: one sentence.</exception>
    public SuperResolver(ModelCatalog catalog, string network, int scale, string precision = "auto", string device = "auto", int threads = 0)
    {
        LoadedModel model = catalog.Load(network, scale);
        _device = Devices.Resolve(device);
        ScalarType body = Devices.BodyType(precision, _device);
        NativeRuntime.SetThreads(threads > 0 ? threads : Environment.ProcessorCount);
        _parameters = new ParameterSet(model.Shape.Parameters, model.Tensors, model.FileName, device: _device);
        _network = model.SrShape.CreateNetwork(_parameters, body);
    }

    /// <summary>Upscales an image of 1 to 4 channels: grey is repeated and averaged, alpha goes through the bicubic filter.</summary>
    /// <exception cref="NonFiniteOutputException">The network gave NaN or infinity.</exception>
    public PixelBuffer Upscale(PixelBuffer source)
    {
        int colours = source.Channels < 3 ? 1 : 3, scale = _network.Shape.Scale, pixels = checked(source.Width * source.Height);
        var samples = new ushort[checked(pixels * 3)];
        for (int i = 0; i < samples.Length; i++)
            samples[i] = Sample(source, (i / 3 * source.Channels) + (colours == 1 ? 0 : i % 3));

        var result = new PixelBuffer(source.Width * scale, source.Height * scale, source.Channels, source.BitDepth);
        PixelBuffer? alpha = source.Channels % 2 == 0 ? Bicubic.Resize(Alpha(source), ResizeScale.Up(scale)) : null;
        using IDisposable noGradient = no_grad();
        using var scope = NewDisposeScope();
        float[] values = Samples.Values(_network.Forward(Samples.ToMap(samples, source.MaxValue, [1, source.Height, source.Width, 3], _device, _network.Shape.Black)));
        if (!Samples.AllFinite(values))
            throw new NonFiniteOutputException("The network gave NaN or infinity; try --precision float32.");

        Span<ushort> one = stackalloc ushort[3];
        var grey = new float[1];
        for (int i = 0; i < result.Width * result.Height; i++)
        {
            ReadOnlySpan<float> rgb = values.AsSpan(i * 3, 3);
            if (colours == 1)
            {
                grey[0] = (rgb[0] + rgb[1] + rgb[2]) / 3;
                rgb = grey;
            }
            Samples.ToSamples(rgb, source.MaxValue, one, _network.Shape.Black);
            for (int c = 0; c < colours; c++)
                Set(result, (i * result.Channels) + c, one[c]);
            if (alpha is not null)
                Set(result, (i * result.Channels) + colours, Sample(alpha, i));
        }
        return result;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _network.Dispose();
        _parameters.Dispose();
    }

    private static PixelBuffer Alpha(PixelBuffer source)
    {
        var alpha = new PixelBuffer(source.Width, source.Height, 1, source.BitDepth);
        for (int i = 0; i < source.Width * source.Height; i++)
            Set(alpha, i, Sample(source, (i * source.Channels) + source.Channels - 1));
        return alpha;
    }

    private static ushort Sample(PixelBuffer image, int index) => image.BitDepth == 8 ? image.Data[index] : image.Samples16[index];

    private static void Set(PixelBuffer image, int index, ushort value)
    {
        if (image.BitDepth == 8)
            image.Data[index] = (byte)value;
        else
            image.Samples16[index] = value;
    }
}

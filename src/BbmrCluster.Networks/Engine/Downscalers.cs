using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Engine;

/// <summary>A downscaler that a worker can use for a run of blocks.</summary>
internal interface IBlockDownscaler : IDownscaler, IDisposable
{
    /// <summary>Downscales a run of blocks on the calling thread.</summary>
    BlockBatch Downscale(BlockBatch hr, int first, int count, int scale);
}

/// <summary>The MATLAB-compatible bicubic: a block by itself, or the whole image, with mirrored edges.</summary>
internal sealed class BicubicDownscaler : IBlockDownscaler
{
    public string Name => "bicubic";

    public BlockBatch Downscale(BlockBatch hr, int scale) => Downscale(hr, 0, hr.Count, scale);

    public BlockBatch Downscale(BlockBatch hr, int first, int count, int scale)
    {
        int each = hr.Side * hr.Side * 3;
        var lr = new BlockBatch(count, hr.Side / scale, hr.BitDepth);
        Bicubic.DownscaleBlocks(hr.Samples.AsSpan(first * each, count * each), hr.Side, hr.BitDepth, scale, lr.Samples);
        return lr;
    }

    public SampleMap Downscale(ImageRows image, int scale, int firstRow, int rowCount)
    {
        var lr = new SampleMap((image.Map.Width + scale - 1) / scale, rowCount, image.Map.BitDepth);
        Bicubic.DownscaleRows(image.Map.Samples, image.Map.Width, image.FirstRow, image.ImageHeight, image.Map.BitDepth, scale, firstRow, lr.Samples);
        return lr;
    }

    public int Reach(int scale) => Bicubic.Reach(scale);

    public void Dispose()
    {
    }
}

/// <summary>
/// Down-Net, each block by itself with zeros beyond its edges (paper eq. 2) or over the whole image, whose edge pixels are
/// repeated; clamped and rounded to whole samples of the
/// source's bit depth, as they are stored. Float32: it is linear and cheap, and its result is all that remains of a block.
/// Values are those of the network it was trained with. Owns the parameters.
/// </summary>
internal sealed class DownNetDownscaler : IBlockDownscaler
{
    /// <summary>Blocks in a device call: 128 x 128 x 32 values each inside.</summary>
    private const int LargestBatch = 8;

    /// <summary>LR pixels around a piece that are made and thrown away.</summary>
    private const int Margin = 2;

    private readonly Dictionary<int, (ParameterSet Parameters, DownNetNetwork Network)> _networks = [];
    private readonly BatchRunner _runner;
    private readonly Device _device;
    private readonly float _black;

    /// <summary>Loads the Down-Nets of a network at every scale.</summary>
    /// <param name="catalog">Where they are.</param>
    /// <param name="network">The network they were trained with.</param>
    /// <param name="scales">Their scales.</param>
    /// <param name="black">That network's black.</param>
    /// <param name="runner">Workers.</param>
    /// <param name="device">Where they run.</param>
    public DownNetDownscaler(ModelCatalog catalog, string network, ScaleSet scales, float black, BatchRunner runner, Device device)
    {
        (_black, _runner, _device) = (black, runner, device);
        foreach (int scale in scales.Scales)
        {
            LoadedModel model = catalog.Load(ModelNames.DownNet(network), scale);
            var parameters = new ParameterSet(model.Shape.Parameters, model.Tensors, model.FileName, device: device);
            _networks.Add(scale, (parameters, new DownNetNetwork((DownNetShape)model.Shape, parameters)));
        }
    }

    public string Name => "downnet";

    public BlockBatch Downscale(BlockBatch hr, int scale)
    {
        var lr = new BlockBatch(hr.Count, hr.Side / scale, hr.BitDepth);
        _runner.Run(BatchRunner.Cut("downscale", scale, hr.Count, LargestBatch), (_, batch) => Run(MapBatch.Of(hr, batch.First, batch.Count), scale).CopyTo(lr.Samples, batch.First * lr.Side * lr.Side * 3));
        return lr;
    }

    public BlockBatch Downscale(BlockBatch hr, int first, int count, int scale)
    {
        var lr = new BlockBatch(count, hr.Side / scale, hr.BitDepth);
        for (int done = 0; done < count; done += LargestBatch)
        {
            int part = Math.Min(LargestBatch, count - done);
            Run(MapBatch.Of(hr, first + done, part), scale).CopyTo(lr.Samples, done * lr.Side * lr.Side * 3);
            _runner.CountCall("downscale", scale, part);
        }
        return lr;
    }

    /// <remarks>
    /// Down-Net is linear with a kernel of 2 scale + 1 pixels inside, so LR pixels of a piece two or more from its border are those
    /// of the whole image.
    /// </remarks>
    public SampleMap Downscale(ImageRows image, int scale, int firstRow, int rowCount)
    {
        const int side = 64;
        int width = (image.Map.Width + scale - 1) / scale, columns = (width + side - 1) / side, rows = (rowCount + side - 1) / side;
        int whole = side + (2 * Margin), large = whole * scale, each = large * large * 3;
        var lr = new SampleMap(width, rowCount, image.Map.BitDepth);
        _runner.Run(BatchRunner.Cut("downscale", scale, columns * rows, LargestBatch), (_, batch) =>
        {
            var hr = new ushort[batch.Count * each];
            for (int i = 0; i < batch.Count; i++)
            {
                (int x, int y) = Corner(batch.First + i);
                image.Map.CopyArea((x - Margin) * scale, ((firstRow + y - Margin) * scale) - image.FirstRow, large, large, hr.AsSpan(i * each, each));
            }
            ushort[] made = Run(new MapBatch(batch.Count, large, large, image.Map.BitDepth, hr), scale);
            for (int i = 0; i < batch.Count; i++)
            {
                (int x, int y) = Corner(batch.First + i);
                for (int row = 0; row < Math.Min(side, rowCount - y); row++)
                {
                    int count = Math.Min(side, width - x);
                    made.AsSpan(((((i * whole) + row + Margin) * whole) + Margin) * 3, count * 3).CopyTo(lr.Row(y + row, x, count));
                }
            }
        });
        return lr;

        (int X, int Y) Corner(int piece) => (piece % columns * side, piece / columns * side);
    }

    public int Reach(int scale) => (Margin + 1) * scale;

    public void Dispose()
    {
        foreach ((ParameterSet parameters, _) in _networks.Values)
            parameters.Dispose();
    }

    private ushort[] Run(MapBatch hr, int scale)
    {
        using IDisposable noGradient = no_grad();
        using var scope = NewDisposeScope();
        float[] values = Samples.Values(_networks[scale].Network.Forward(hr.ToMap(0, hr.Count, _device, _black)));
        if (!Samples.AllFinite(values))
            throw new NonFiniteOutputException($"Down-Net at scale {scale} gave NaN or infinity.");
        var samples = new ushort[values.Length];
        Samples.ToSamples(values, hr.MaxValue, samples, _black);
        return samples;
    }
}

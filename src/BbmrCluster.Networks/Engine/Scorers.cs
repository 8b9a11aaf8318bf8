using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Engine;

/// <summary>Scores by downscaling and a given way up again, batch by batch on the workers.</summary>
internal abstract class RoundTripScorer(string name, IBlockDownscaler downscaler, BatchRunner runner, Func<int, int> largestBatch) : IBlockScorer
{
    public string Name => name;

    public double[,] Score(BlockBatch hr, IReadOnlyList<BlockExtent> extents, ScaleSet scales)
    {
        if (extents.Count != hr.Count)
            throw new ArgumentException($"{extents.Count} extents for {hr.Count} blocks.", nameof(extents));
        var sse = new double[hr.Count, scales.Count];
        Run(scales.Scales.SelectMany(scale => BatchRunner.Cut("score", scale, hr.Count, largestBatch(scale))), (worker, batch) =>
        {
            BlockBatch lr = downscaler.Downscale(hr, batch.First, batch.Count, batch.Scale);
            float[] up = Enlarge(worker, lr, batch.Scale);
            var samples = new ushort[hr.Side * hr.Side * 3];
            for (int i = 0; i < batch.Count; i++)
            {
                int block = batch.First + i;
                Span<float> values = up.AsSpan(i * samples.Length, samples.Length);
                double error = double.NaN;
                if (Samples.AllFinite(values))
                {
                    ToSamples(values, hr.MaxValue, samples, batch.Scale);
                    error = Metrics.BlockSse(hr.Block(block), samples, hr.Side, extents[block].Width, extents[block].Height, hr.BitDepth);
                }
                sse[block, scales.IndexOf(batch.Scale)] = error;
            }
        });
        return sse;

        void Run(IEnumerable<Batch> batches, Action<int, Batch> body)
        {
            if (UsesDevice)
                runner.Run(batches, body);
            else
                runner.Run([.. batches.Select(batch => (Action<int>)(worker => body(worker, batch)))]);
        }
    }

    /// <summary>Whether batches count as device calls.</summary>
    protected abstract bool UsesDevice { get; }

    /// <summary>LR blocks to HR values.</summary>
    protected abstract float[] Enlarge(int worker, BlockBatch lr, int scale);

    /// <summary>HR values to whole samples.</summary>
    protected abstract void ToSamples(ReadOnlySpan<float> values, int maximum, Span<ushort> samples, int scale);
}

/// <summary>Bicubic up again: no network.</summary>
internal sealed class BicubicScorer(IBlockDownscaler downscaler, BatchRunner runner) : RoundTripScorer("bicubic", downscaler, runner, _ => 16)
{
    protected override bool UsesDevice => false;

    protected override float[] Enlarge(int worker, BlockBatch lr, int scale)
    {
        var hr = new float[lr.Samples.Length * scale * scale];
        Bicubic.UpscaleBlocks(lr.Samples, lr.Side, scale, hr);
        return hr;
    }

    protected override void ToSamples(ReadOnlySpan<float> values, int maximum, Span<ushort> samples, int scale)
    {
        for (int i = 0; i < values.Length; i++)
            samples[i] = (ushort)Math.Clamp(MathF.Floor(values[i] + 0.5f), 0, maximum);
    }
}

/// <summary>Super-resolution of each block by itself with a single-scale network (paper section 3.2).</summary>
internal sealed class NetworkScorer(string name, IBlockDownscaler downscaler, NetworkSet networks, BatchRunner runner, Device device, Func<int, int> largestBatch)
    : RoundTripScorer(name, downscaler, runner, largestBatch)
{
    private readonly BatchRunner _runner = runner;

    protected override bool UsesDevice => true;

    protected override float[] Enlarge(int worker, BlockBatch lr, int scale) =>
        NetworkCall.Run(lr, 0, lr.Count, device, networks.ShapeAt(scale).Black, _runner, "score", scale, networks.Body,
            (map, float32) => networks.At(scale, worker, float32).Forward(map));

    protected override void ToSamples(ReadOnlySpan<float> values, int maximum, Span<ushort> samples, int scale) => Samples.ToSamples(values, maximum, samples, networks.ShapeAt(scale).Black);
}

/// <summary>One device call with a second try in float32 for blocks that come out as NaN or infinity.</summary>
internal static class NetworkCall
{
    /// <summary>Runs blocks through a network; the result holds equal parts for each block. Blocks that stay non-finite are left so.</summary>
    public static float[] Run(BlockBatch blocks, int first, int count, Device device, float black, BatchRunner runner, string purpose, int scale, ScalarType body, Func<Tensor, bool, Tensor> network)
    {
        using IDisposable noGradient = no_grad();
        using var scope = NewDisposeScope();
        float[] values = Samples.Values(network(Samples.ToMap(blocks, first, count, device, black), false));
        int each = values.Length / count;
        if (body == ScalarType.Float32)
            return values;
        for (int i = 0; i < count; i++)
        {
            if (Samples.AllFinite(values.AsSpan(i * each, each)))
                continue;
            runner.CountPrecisionRetries(1);
            runner.CountCall(purpose, scale, 1);
            Samples.Values(network(Samples.ToMap(blocks, first + i, 1, device, black), true)).CopyTo(values, i * each);
        }
        return values;
    }
}

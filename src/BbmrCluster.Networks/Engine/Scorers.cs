using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Engine;

/// <summary>Scores by downscaling and a given way up again, batch by batch on the workers.</summary>
internal abstract class RoundTripScorer(string name, IBlockDownscaler downscaler, BatchRunner runner, Func<int, int> largestBatch, int halo) : IBlockScorer
{
    public string Name => name;

    /// <inheritdoc/>
    public (int First, int End) RowsFor(BlockGrid grid, int firstBlock, int blockCount, IReadOnlyList<int> scales)
    {
        int first = int.MaxValue, end = 0;
        foreach (int scale in scales)
        {
            (int row, int rows) = LrRows(grid, firstBlock, blockCount, scale);
            (int from, int to) = WholeImageLr.Needed(grid, scale, downscaler.Reach(scale), row, rows);
            (first, end) = (Math.Min(first, from), Math.Max(end, to));
        }
        // The pixels to compare with.
        (int strip, int last) = (grid.StripOf(firstBlock), grid.StripOf(firstBlock + blockCount - 1));
        return (Math.Min(first, strip * grid.StripHeight), Math.Max(end, Math.Min(grid.Height, (last + 1) * grid.StripHeight)));
    }

    /// <inheritdoc/>
    public double[,] Score(ImageRows image, BlockGrid grid, int firstBlock, int blockCount, IReadOnlyList<int> scales)
    {
        var sse = new double[blockCount, scales.Count];
        Tile[] tiles = Tile.Holding(grid, firstBlock, blockCount);
        // Scale 1 keeps every pixel.
        int[] lossy = [.. scales.Where(scale => scale > 1)];
        var lr = lossy.ToDictionary(scale => scale, scale => (Rows: LrRows(grid, firstBlock, blockCount, scale), Map: (SampleMap?)null));
        foreach (int scale in lossy)
        {
            (int row, int rows) = lr[scale].Rows;
            lr[scale] = ((row, rows), WholeImageLr.Rows(downscaler, image, grid, scale, row, rows));
        }
        Run(lossy.SelectMany(scale => BatchRunner.Cut("score", scale, tiles.Length, largestBatch(scale))), (worker, batch) =>
        {
            int scale = batch.Scale, side = grid.StripHeight / scale, whole = side + (2 * halo), width = whole * scale, index = Enumerable.Range(0, scales.Count).First(s => scales[s] == scale);
            ReadOnlySpan<Tile> own = tiles.AsSpan(batch.First, batch.Count);
            ((int firstRow, _), SampleMap? map) = lr[scale];
            MapBatch maps = Tile.Cut(own, map!, firstRow, side, halo);
            float[] up = Enlarge(worker, maps, scale);
            var samples = new ushort[width * grid.StripHeight * 3];
            for (int i = 0; i < own.Length; i++)
            {
                // The rows of the tile itself; columns are taken block by block.
                ReadOnlySpan<float> values = up.AsSpan((i * width * width * 3) + (halo * scale * width * 3), samples.Length);
                bool finite = Samples.AllFinite(values);
                if (finite)
                    ToSamples(values, maps.MaxValue, samples, scale);
                if (image.Grey)
                    SampleMap.Average(samples);
                foreach (int block in own[i].Blocks(grid, firstBlock, blockCount))
                {
                    BlockExtent extent = grid.ExtentOf(block);
                    int x = block % grid.Columns * grid.BlockSize, y = block / grid.Columns * grid.BlockSize;
                    int inside = ((((y - (own[i].Strip * grid.StripHeight)) * width) + (halo * scale) + x - (own[i].Column * grid.StripHeight)) * 3);
                    sse[block - firstBlock, index] = !finite ? double.NaN : Metrics.AreaSse(
                        image.Map.Samples.AsSpan((((y - image.FirstRow) * image.Map.Width) + x) * 3), image.Map.Width, samples.AsSpan(inside), width,
                        extent.Width, extent.Height, maps.BitDepth);
                }
            }
        });
        return sse;
    }

    // LR rows of the tiles that hold the blocks, with their halo, as far as the grid goes.
    private (int First, int Count) LrRows(BlockGrid grid, int firstBlock, int blockCount, int scale)
    {
        int side = grid.StripHeight / scale, first = Math.Max(0, (grid.StripOf(firstBlock) * side) - halo);
        int end = Math.Min(WholeImageLr.RowsOf(grid, scale), ((grid.StripOf(firstBlock + blockCount - 1) + 1) * side) + halo);
        return (first, end - first);
    }

    private void Run(IEnumerable<Batch> batches, Action<int, Batch> body)
    {
        if (UsesDevice)
            runner.Run(batches, body);
        else
            runner.Run([.. batches.Select(batch => (Action<int>)(worker => body(worker, batch)))]);
    }

    public double[,] Score(BlockBatch hr, IReadOnlyList<BlockExtent> extents, ScaleSet scales)
    {
        if (extents.Count != hr.Count)
            throw new ArgumentException($"{extents.Count} extents for {hr.Count} blocks.", nameof(extents));
        var sse = new double[hr.Count, scales.Count];
        Run(scales.Scales.SelectMany(scale => BatchRunner.Cut("score", scale, hr.Count, largestBatch(scale))), (worker, batch) =>
        {
            BlockBatch lr = downscaler.Downscale(hr, batch.First, batch.Count, batch.Scale);
            float[] up = Enlarge(worker, MapBatch.Of(lr, 0, lr.Count), batch.Scale);
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
    }

    /// <summary>Whether batches count as device calls.</summary>
    protected abstract bool UsesDevice { get; }

    /// <summary>LR maps to HR values.</summary>
    protected abstract float[] Enlarge(int worker, MapBatch lr, int scale);

    /// <summary>HR values to whole samples.</summary>
    protected abstract void ToSamples(ReadOnlySpan<float> values, int maximum, Span<ushort> samples, int scale);
}

/// <summary>Bicubic up again: no network.</summary>
internal sealed class BicubicScorer(IBlockDownscaler downscaler, BatchRunner runner, int halo) : RoundTripScorer("bicubic", downscaler, runner, _ => 16, halo)
{
    protected override bool UsesDevice => false;

    protected override float[] Enlarge(int worker, MapBatch lr, int scale)
    {
        var hr = new float[lr.Count * lr.Each * scale * scale];
        var values = new float[lr.Each];
        for (int i = 0; i < lr.Count; i++)
        {
            ReadOnlySpan<ushort> samples = lr.Samples.Span.Slice(i * lr.Each, lr.Each);
            for (int v = 0; v < values.Length; v++)
                values[v] = samples[v];
            Bicubic.UpscaleMap(values, lr.Width, lr.Height, scale, hr.AsSpan(i * lr.Each * scale * scale));
        }
        return hr;
    }

    protected override void ToSamples(ReadOnlySpan<float> values, int maximum, Span<ushort> samples, int scale)
    {
        for (int i = 0; i < values.Length; i++)
            samples[i] = (ushort)Math.Clamp(MathF.Floor(values[i] + 0.5f), 0, maximum);
    }
}

/// <summary>Super-resolution of each block by itself with a single-scale network (paper section 3.2).</summary>
internal sealed class NetworkScorer(string name, IBlockDownscaler downscaler, NetworkSet networks, BatchRunner runner, Device device, Func<int, int> largestBatch, int halo)
    : RoundTripScorer(name, downscaler, runner, largestBatch, halo)
{
    private readonly BatchRunner _runner = runner;

    protected override bool UsesDevice => true;

    protected override float[] Enlarge(int worker, MapBatch lr, int scale) => networks.Enlarge(worker, lr, scale, device, _runner, "score");

    protected override void ToSamples(ReadOnlySpan<float> values, int maximum, Span<ushort> samples, int scale) =>
        Samples.ToSamples(values, maximum, samples, networks.BlackAt(scale));
}

/// <summary>LR maps of one size: <see cref="Samples"/> is Count x Height x Width x 3 whole values.</summary>
/// <param name="Count">Maps.</param>
/// <param name="Height">Rows.</param>
/// <param name="Width">Pixels in a row.</param>
/// <param name="BitDepth">8 or 16.</param>
/// <param name="Samples">Map after map.</param>
internal readonly record struct MapBatch(int Count, int Height, int Width, int BitDepth, ReadOnlyMemory<ushort> Samples)
{
    public int Each => Height * Width * 3;

    public int MaxValue => (1 << BitDepth) - 1;

    public static MapBatch Of(BlockBatch blocks, int first, int count)
    {
        int each = blocks.Side * blocks.Side * 3;
        return new MapBatch(count, blocks.Side, blocks.Side, blocks.BitDepth, blocks.Samples.AsMemory(first * each, count * each));
    }

    public Tensor ToMap(int first, int count, Device device, float black) =>
        BbmrCluster.Networks.Engine.Samples.ToMap(Samples.Span.Slice(first * Each, count * Each), MaxValue, [count, Height, Width, 3], device, black);
}

/// <summary>One device call with a second try in float32 for maps that come out as NaN or infinity.</summary>
internal static class NetworkCall
{
    /// <summary>Runs maps through a network; the result holds equal parts for each. Those that stay non-finite are left so.</summary>
    public static float[] Run(MapBatch maps, Device device, float black, BatchRunner runner, string purpose, int scale, ScalarType body, Func<Tensor, bool, Tensor> network)
    {
        using IDisposable noGradient = no_grad();
        using var scope = NewDisposeScope();
        float[] values = Samples.Values(network(maps.ToMap(0, maps.Count, device, black), false));
        int each = values.Length / maps.Count;
        if (body == ScalarType.Float32)
            return values;
        for (int i = 0; i < maps.Count; i++)
        {
            if (Samples.AllFinite(values.AsSpan(i * each, each)))
                continue;
            runner.CountPrecisionRetries(1);
            runner.CountCall(purpose, scale, 1);
            Samples.Values(network(maps.ToMap(i, 1, device, black), true)).CopyTo(values, i * each);
        }
        return values;
    }
}

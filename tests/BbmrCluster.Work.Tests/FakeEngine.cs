using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Work.Tests;

/// <summary>
/// An engine without a network, built like the real one: features of 3 channels at half size, a "deblock" of radius 3 in
/// bands of 3 feature pixels beside seams, a final convolution of radius 1, enlargement by 2. So a strip alone is wrong
/// within 4 feature rows of its borders and right elsewhere, and 8 rows from each side make it good.
/// </summary>
public sealed class FakeEngineFactory : IEngineFactory
{
    public const string WeightName = "fake";

    public string WeightHash { get; set; } = new('a', 64);

    /// <summary>The downscaler adds 1 to the first channel, as a network's own rounding may.</summary>
    public bool Tints { get; set; }

    public List<FakeEngine> Made { get; } = [];

    public IReadOnlyDictionary<string, string> WeightHashes(EngineSettings settings) => new Dictionary<string, string> { [WeightName] = WeightHash };

    public string DeviceClass(EngineSettings settings) => "fake";

    public IEngine Create(EngineSettings settings)
    {
        if (settings.Network == "missing")
            throw new EngineUnavailableException("there are no weights for the network missing");
        var engine = new FakeEngine { Tints = Tints };
        Made.Add(engine);
        return engine;
    }
}

public sealed class FakeEngine : IEngine, IDownscaler, IBlockScorer, IReconstructor, ICanvasReconstructor
{
    public const int Features = 64, Channels = 3, Keep = 8;

    private readonly Dictionary<(string, int), (long Calls, long Blocks)> _counts = [];

    public bool Disposed { get; private set; }

    public bool Tints { get; init; }

    public int? NonFiniteReconstruction { get; set; }

    public IDownscaler Downscaler => this;

    public IBlockScorer Scorer => this;

    public IReconstructor Reconstructor => this;

    public ICanvasReconstructor CanvasReconstructor => this;

    public IBlockScorer UniformScorer => this;

    public int BorderRows => 8;

    string IDownscaler.Name => "bicubic";

    string IBlockScorer.Name => "bicubic";

    string IReconstructor.Name => "fake";

    string ICanvasReconstructor.Name => "fake";

    public DeviceCounts TakeCounts()
    {
        var counts = new DeviceCounts([.. _counts.Select(pair => new DeviceCallCount(pair.Key.Item1, pair.Key.Item2, pair.Value.Calls, pair.Value.Blocks))], 0, 0);
        _counts.Clear();
        return counts;
    }

    public void Dispose() => Disposed = true;

    public BlockBatch Downscale(BlockBatch hr, int scale)
    {
        Count("downscale", scale, hr.Count);
        var lr = new BlockBatch(hr.Count, hr.Side / scale, hr.BitDepth);
        Bicubic.DownscaleBlocks(hr.Samples, hr.Side, hr.BitDepth, scale, lr.Samples);
        for (int i = 0; Tints && i < lr.Samples.Length; i += 3)
            lr.Samples[i] = (ushort)Math.Min(lr.MaxValue, lr.Samples[i] + 1);
        return lr;
    }

    public double[,] Score(BlockBatch hr, IReadOnlyList<BlockExtent> extents, ScaleSet scales)
    {
        var sse = new double[hr.Count, scales.Count];
        for (int s = 0; s < scales.Count; s++)
        {
            Count("score", scales[s], hr.Count);
            BlockBatch lr = Downscale(hr, scales[s]);
            var up = new float[hr.Samples.Length];
            Bicubic.UpscaleBlocks(lr.Samples, lr.Side, scales[s], up);
            ushort[] rounded = [.. up.Select(v => Round(v, hr.BitDepth))];
            int size = hr.Side * hr.Side * 3;
            for (int b = 0; b < hr.Count; b++)
                sse[b, s] = Metrics.BlockSse(hr.Block(b), rounded.AsSpan(b * size, size), hr.Side, extents[b].Width, extents[b].Height, hr.BitDepth);
        }
        return sse;
    }

    public SampleMap Downscale(ImageRows image, int scale, int firstRow, int rowCount)
    {
        Count("downscale", scale, 1);
        var lr = new SampleMap((image.Map.Width + scale - 1) / scale, rowCount, image.Map.BitDepth);
        Bicubic.DownscaleRows(image.Map.Samples, image.Map.Width, image.FirstRow, image.ImageHeight, image.Map.BitDepth, scale, firstRow, lr.Samples);
        return lr;
    }

    public int Reach(int scale) => Bicubic.Reach(scale);

    public (int First, int End) RowsFor(BlockGrid grid, int firstBlock, int blockCount, IReadOnlyList<int> scales)
    {
        (int first, int count) = RowsOf(grid, firstBlock, blockCount);
        var needed = scales.Select(scale => WholeImageLr.Needed(grid, scale, Reach(scale), first / scale, count / scale)).ToList();
        return (needed.Min(rows => rows.First), needed.Max(rows => rows.End));
    }

    // Rows of whole strips on the grid.
    private static (int First, int Count) RowsOf(BlockGrid grid, int firstBlock, int blockCount)
    {
        int first = grid.StripOf(firstBlock) * grid.StripHeight, end = (grid.StripOf(firstBlock + blockCount - 1) + 1) * grid.StripHeight;
        return (first, Math.Min(end, grid.BlockRows * grid.BlockSize) - first);
    }

    public double[,] Score(ImageRows image, BlockGrid grid, int firstBlock, int blockCount, IReadOnlyList<int> scales)
    {
        var sse = new double[blockCount, scales.Count];
        (int first, int count) = RowsOf(grid, firstBlock, blockCount);
        for (int s = 0; s < scales.Count; s++)
        {
            Count("score", scales[s], blockCount);
            SampleMap lr = WholeImageLr.Rows(this, image, grid, scales[s], first / scales[s], count / scales[s]);
            // Each LR pixel repeated.
            var up = new SampleMap(lr.Width * scales[s], lr.Height * scales[s], lr.BitDepth);
            for (int i = 0; i < up.Width * up.Height; i++)
                lr.Row(i / up.Width / scales[s], i % up.Width / scales[s], 1).CopyTo(up.Row(i / up.Width, i % up.Width, 1));
            for (int b = 0; b < blockCount; b++)
            {
                int block = firstBlock + b, x = block % grid.Columns * grid.BlockSize, y = block / grid.Columns * grid.BlockSize;
                BlockExtent extent = grid.ExtentOf(block);
                sse[b, s] = Metrics.AreaSse(image.Map.Samples.AsSpan((((y - image.FirstRow) * image.Map.Width) + x) * 3), image.Map.Width,
                    up.Samples.AsSpan((((y - first) * up.Width) + x) * 3), up.Width, extent.Width, extent.Height, up.BitDepth);
            }
        }
        return sse;
    }

    /// <summary>Each LR pixel repeated, and mixed with those two to the left of and above it on the canvas.</summary>
    public IReadOnlyList<SampleMap> Reconstruct(LrContext strips)
    {
        if (NonFiniteReconstruction is { } wanted && strips.ScaleIndex.Length > wanted)
            throw new NonFiniteOutputException("a block came out as NaN");
        for (int s = 0; s < strips.Scales.Count; s++)
            Count("reconstruct", strips.Scales[s], strips.ByScale[s].Count);
        var canvas = Canvas.Fill(strips);
        BlockGrid grid = strips.Grid;
        int before = grid.FirstBlockOf(strips.FirstStrip), top = strips.FirstStrip * grid.StripHeight;
        var results = new List<SampleMap>();
        for (int strip = strips.TargetStrip; strip < strips.TargetStrip + strips.TargetCount; strip++)
        {
            var rows = new SampleMap(grid.Columns * grid.BlockSize, grid.BlocksOf(strip) / grid.Columns * grid.BlockSize, strips.BitDepth);
            for (int i = 0; i < rows.Width * rows.Height; i++)
            {
                int x = i % rows.Width, y = (i / rows.Width) + (strip * grid.StripHeight);
                int s = strips.ScaleIndex[(y / grid.BlockSize * grid.Columns) + (x / grid.BlockSize) - before], scale = strips.Scales[s];
                SampleMap map = canvas.At(s);
                int lx = x / scale, ly = (y - top) / scale;
                for (int c = 0; c < 3; c++)
                {
                    int sum = (2 * map.Row(ly, lx, 1)[c]) + map.Row(ly, Math.Max(0, lx - 2), 1)[c] + map.Row(Math.Max(0, ly - 2), lx, 1)[c];
                    rows.Samples[(i * 3) + c] = (ushort)((sum + 2) / 4);
                }
            }
            results.Add(rows);
        }
        return results;
    }

    public IReadOnlyList<ReconstructedStrip> Reconstruct(LrStrips strips)
    {
        if (NonFiniteReconstruction is { } wanted && strips.ScaleIndex.Length > wanted)
            throw new NonFiniteOutputException("a block came out as NaN");
        for (int s = 0; s < strips.Scales.Count; s++)
            Count("reconstruct", strips.Scales[s], strips.ByScale[s].Count);
        int width = strips.Columns * Features, bitDepth = strips.ByScale[0].BitDepth;
        var results = new List<ReconstructedStrip>();
        float[] all = FeatureMap(strips);
        int size = Features * width * Channels;
        for (int s = 0; s < strips.Strips; s++)
        {
            float[] map = all[(s * size)..((s + 1) * size)];
            results.Add(new ReconstructedStrip(Render(map, Features, width, [], 0, Features, bitDepth),
                new FeatureBand(Keep, width, Channels, map[..(Keep * width * Channels)]), new FeatureBand(Keep, width, Channels, map[^(Keep * width * Channels)..])));
        }
        return results;
    }

    public ushort[] JoinBorder(FeatureBand above, FeatureBand below, int bitDepth) =>
        Render([.. above.Values, .. below.Values], 2 * Keep, above.Width, [Keep], Keep - 4, Keep + 4, bitDepth);

    /// <summary>The whole image at once, the truth that strips and borders must add up to.</summary>
    public static ushort[] Whole(LrStrips strips) =>
        Render(FeatureMap(strips), strips.Strips * Features, strips.Columns * Features, [.. Enumerable.Range(1, strips.Strips - 1).Select(s => s * Features)],
            0, strips.Strips * Features, strips.ByScale[0].BitDepth);

    private static float[] FeatureMap(LrStrips strips)
    {
        int width = strips.Columns * Features;
        var map = new float[strips.Strips * Features * width * Channels];
        int[] next = new int[strips.Scales.Count];
        for (int block = 0; block < strips.ScaleIndex.Length; block++)
        {
            int s = strips.ScaleIndex[block];
            BlockBatch batch = strips.ByScale[s];
            ReadOnlySpan<ushort> lr = batch.Block(next[s]++);
            int top = block / strips.Columns * Features, left = block % strips.Columns * Features;
            for (int y = 0; y < Features; y++)
            {
                for (int x = 0; x < Features; x++)
                {
                    for (int c = 0; c < Channels; c++)
                        map[((((top + y) * width) + left + x) * Channels) + c] = lr[(((y * batch.Side / Features * batch.Side) + (x * batch.Side / Features)) * 3) + c];
                }
            }
        }
        return map;
    }

    private static ushort[] Render(float[] map, int rows, int width, int[] seamRows, int first, int end, int bitDepth)
    {
        float At(float[] from, int y, int x, int c) => y < 0 || y >= rows || x < 0 || x >= width ? 0 : from[(((y * width) + x) * Channels) + c];
        float Box(float[] from, int y, int x, int c, int radius)
        {
            float sum = 0;
            for (int dy = -radius; dy <= radius; dy++)
                sum += At(from, y + dy, x, c) + At(from, y, x + dy, c);
            return sum / ((4 * radius) + 2);
        }

        var banded = (float[])map.Clone();
        for (int y = 0; y < rows; y++)
        {
            bool inRowBand = seamRows.Any(seam => y >= seam - 3 && y < seam + 3);
            for (int x = 0; x < width; x++)
            {
                int offset = x % Features;
                bool inColumnBand = (offset < 3 && x >= Features) || (offset >= Features - 3 && x < width - Features);
                for (int c = 0; c < Channels && (inRowBand || inColumnBand); c++)
                    banded[(((y * width) + x) * Channels) + c] = Box(map, y, x, c, 3);
            }
        }
        var result = new ushort[(end - first) * 2 * width * 2 * 3];
        for (int y = first; y < end; y++)
        {
            for (int x = 0; x < width; x++)
            {
                for (int c = 0; c < Channels; c++)
                {
                    ushort value = Round((At(banded, y, x, c) * 0.75f) + (Box(banded, y, x, c, 1) * 0.25f), bitDepth);
                    for (int i = 0; i < 4; i++)
                        result[((((((y - first) * 2) + (i / 2)) * width * 2) + (x * 2) + (i % 2)) * 3) + c] = value;
                }
            }
        }
        return result;
    }

    private static ushort Round(float value, int bitDepth) => (ushort)Math.Clamp(MathF.Floor(value + 0.5f), 0, (1 << bitDepth) - 1);

    private void Count(string purpose, int scale, int blocks)
    {
        if (blocks == 0)
            return;
        var (calls, sum) = _counts.GetValueOrDefault((purpose, scale));
        _counts[(purpose, scale)] = (calls + 1, sum + blocks);
    }
}

using BbmrCluster.Imaging;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Rescaling.Tests;

/// <summary>A made-up image in container form; equal arguments give an equal sample.</summary>
internal sealed class ContainerSample
{
    public ContainerSample(int width, int height, int blockSize = 128, string scales = "2,4,8", int bitDepth = 8, int colours = 3, AlphaKind alpha = AlphaKind.None)
    {
        var set = new ScaleSet(scales.Split(',').Select(int.Parse), blockSize);
        var metadata = new ImageMetadata([1, 2, 3], null, "<x/>"u8.ToArray(), [], 6, 11.811, 0);
        var weights = new Dictionary<string, string>(StringComparer.Ordinal) { ["b-x4"] = new string('b', 64), ["a-x2"] = new string('a', 64) };
        Header = new ContainerHeader(
            width, height, blockSize, set, set.Middle, "paper:t=0,max=3", "bicubic", "bicubic", "omnisr-light", "float32", weights,
            new ContainerSource("grüße.jpg", 12_345, new string('0', 64), "jpeg"), bitDepth, colours, alpha, metadata);
        BlockGrid grid = Header.Grid;
        var random = new Random(width + (height * 7) + bitDepth + colours);
        ScaleIndex = [.. Enumerable.Range(0, grid.Count).Select(_ => (byte)random.Next(set.Count))];
        Quality = new RecordedQuality(QualityKind.Measured, "omnisr-light 0123abcd float32", [.. Enumerable.Range(0, grid.Count).Select(block => block * 1000.25)]);
        for (int strip = 0; strip < grid.Strips; strip++)
        {
            byte[] indices = ScaleIndex[(strip * grid.Columns)..((strip + 1) * grid.Columns)];
            BlockBatch[] byScale = [.. Enumerable.Range(0, set.Count).Select(s => Blocks(indices.Count(i => i == s), blockSize / set[s], bitDepth, colours, random))];
            LrBlocks.Add(byScale);
            Alphas.Add(alpha == AlphaKind.None ? null : Alpha(grid, strip, bitDepth, opaque: alpha == AlphaKind.Opaque || strip % 2 == 0));
            Strips.Add(StripPacker.Pack(Header.StripFormat, strip, indices, byScale, Alphas[strip]));
        }
    }

    public ContainerHeader Header { get; }

    public byte[] ScaleIndex { get; }

    public RecordedQuality Quality { get; }

    /// <summary>Per strip, per scale.</summary>
    public List<BlockBatch[]> LrBlocks { get; } = [];

    public List<PixelBuffer?> Alphas { get; } = [];

    public List<byte[]> Strips { get; } = [];

    /// <summary>2 strips of 3 blocks of 16 pixels: every part is there and the file is small.</summary>
    public static ContainerSample Small() => new(40, 20, 16, alpha: AlphaKind.Stored);

    public long Write(string path) => ContainerWriter.Write(path, Header, ScaleIndex, Quality, Strips.Select(strip => new ReadOnlyMemory<byte>(strip)));

    public byte[] Bytes()
    {
        using var folder = new TemporaryFolder();
        Write(folder.File("a.bbmr"));
        return File.ReadAllBytes(folder.File("a.bbmr"));
    }

    private static BlockBatch Blocks(int count, int side, int bitDepth, int colours, Random random)
    {
        var batch = new BlockBatch(count, side, bitDepth);
        for (int i = 0; i < batch.Samples.Length; i++)
        {
            // A ramp with some noise, so that coders have something to do.
            int pixel = i / 3;
            batch.Samples[i] = colours == 1 && i % 3 > 0 ? batch.Samples[i - 1] : (ushort)((pixel % side * batch.MaxValue / side) + random.Next(2));
        }
        return batch;
    }

    private static PixelBuffer Alpha(BlockGrid grid, int strip, int bitDepth, bool opaque)
    {
        var alpha = new PixelBuffer(grid.Width, grid.RowsOf(strip), 1, bitDepth);
        alpha.Data.AsSpan().Fill(255);
        if (!opaque)
            alpha.Data[^1] = 3;
        return alpha;
    }
}

internal sealed class TemporaryFolder : IDisposable
{
    private readonly string _path = Directory.CreateTempSubdirectory("bbmr-container-").FullName;

    public string File(string name) => Path.Combine(_path, name);

    public string Write(byte[] bytes)
    {
        string path = File("test.bbmr");
        System.IO.File.WriteAllBytes(path, bytes);
        return path;
    }

    public void Dispose() => Directory.Delete(_path, recursive: true);
}

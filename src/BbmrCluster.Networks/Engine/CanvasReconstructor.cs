using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Engine;

/// <summary>
/// Super-resolution over canvases: for each scale the tiles that hold a block of it go through its network with a halo, and the
/// blocks' parts of what comes out are put together. The LR pixels of scale 1 are the image's own.
/// </summary>
internal sealed class CanvasReconstructor(string name, NetworkSet networks, BatchRunner runner, Device device, Func<int, int> largestBatch, int halo) : ICanvasReconstructor
{
    public string Name => name;

    public IReadOnlyList<SampleMap> Reconstruct(LrContext strips)
    {
        var canvas = Canvas.Fill(strips);
        BlockGrid grid = strips.Grid;
        int columns = grid.Columns, firstBlock = grid.FirstBlockOf(strips.FirstStrip), width = columns * grid.BlockSize;
        var results = Enumerable.Range(strips.TargetStrip, strips.TargetCount)
            .Select(strip => new SampleMap(width, grid.BlocksOf(strip) / columns * grid.BlockSize, strips.BitDepth)).ToArray();
        int targetBlock = grid.FirstBlockOf(strips.TargetStrip), targetBlocks = results.Sum(map => map.Height) / grid.BlockSize * columns;
        Tile[] all = Tile.Holding(grid, targetBlock, targetBlocks);
        Tile[][] tiles = [.. Enumerable.Range(0, strips.Scales.Count).Select(s => all.Where(tile => Own(tile, s).Any()).ToArray())];

        runner.Run(strips.Scales.Scales.SelectMany((scale, s) => scale == 1 ? [] : BatchRunner.Cut("reconstruct", scale, tiles[s].Length, largestBatch(scale))), (worker, batch) =>
        {
            int scale = batch.Scale, s = strips.Scales.IndexOf(scale), side = grid.StripHeight / scale, whole = (side + (2 * halo)) * scale;
            ReadOnlySpan<Tile> own = tiles[s].AsSpan(batch.First, batch.Count);
            MapBatch maps = Tile.Cut(own, canvas.At(s), strips.FirstStrip * side, side, halo);
            float[] up = networks.Enlarge(worker, maps, scale, device, runner, batch.Purpose);
            float black = networks.BlackAt(scale);
            for (int i = 0; i < own.Length; i++)
            {
                SampleMap target = results[own[i].Strip - strips.TargetStrip];
                foreach (int block in Own(own[i], s))
                {
                    int x = block % columns * grid.BlockSize, y = (block / columns * grid.BlockSize) - (own[i].Strip * grid.StripHeight);
                    int inside = (i * whole * whole) + (((halo * scale) + y) * whole) + (halo * scale) + x - (own[i].Column * grid.StripHeight);
                    for (int row = 0; row < grid.BlockSize; row++)
                    {
                        ReadOnlySpan<float> values = up.AsSpan((inside + (row * whole)) * 3, grid.BlockSize * 3);
                        if (!Samples.AllFinite(values))
                            throw new NonFiniteOutputException($"Block {block} came out of {Name} at scale {scale} as NaN or infinity, in float32 too.");
                        Samples.ToSamples(values, maps.MaxValue, target.Row(y + row, x, grid.BlockSize), black);
                    }
                }
            }
        });
        if (strips.Scales[0] == 1)
            Copy(strips, canvas.At(0), results);
        return results;

        IEnumerable<int> Own(Tile tile, int s) => tile.Blocks(grid, targetBlock, targetBlocks).Where(block => strips.ScaleIndex[block - firstBlock] == s);
    }

    private static void Copy(LrContext strips, SampleMap canvas, SampleMap[] results)
    {
        BlockGrid grid = strips.Grid;
        int side = grid.BlockSize, first = grid.FirstBlockOf(strips.FirstStrip);
        for (int strip = 0; strip < results.Length; strip++)
        {
            int block = grid.FirstBlockOf(strips.TargetStrip + strip), end = block + grid.BlocksOf(strips.TargetStrip + strip), top = block / grid.Columns * side;
            for (; block < end; block++)
            {
                if (strips.ScaleIndex[block - first] != 0)
                    continue;
                int x = block % grid.Columns * side, y = block / grid.Columns * side;
                for (int row = 0; row < side; row++)
                    canvas.Row(y + row - (strips.FirstStrip * grid.StripHeight), x, side).CopyTo(results[strip].Row(y + row - top, x, side));
            }
        }
    }
}

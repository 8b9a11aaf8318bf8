using BbmrCluster.Imaging;

namespace BbmrCluster.Rescaling;

/// <summary>Gathers and splits batches of LR blocks.</summary>
public static class LrBlocks
{
    /// <summary>Block columns of a strip that have a scale index, ascending.</summary>
    public static List<int> ColumnsWith(ReadOnlySpan<byte> scaleIndex, int wanted)
    {
        var columns = new List<int>();
        for (int column = 0; column < scaleIndex.Length; column++)
        {
            if (scaleIndex[column] == wanted)
                columns.Add(column);
        }
        return columns;
    }

    /// <summary>Cuts blocks out of raw strips in the order given.</summary>
    public static BlockBatch Cut(IReadOnlyList<(PixelBuffer Raw, int Column)> blocks, int colours, int side, int bitDepth)
    {
        var hr = new BlockBatch(blocks.Count, side, bitDepth);
        for (int i = 0; i < blocks.Count; i++)
            StripPixels.CutBlock(blocks[i].Raw, blocks[i].Column, colours, side, hr.Block(i));
        return hr;
    }

    /// <summary>
    /// Makes the three channels of every pixel their rounded mean, in place: a network makes three channels of its own from
    /// three equal ones, and of a grey image one is stored.
    /// </summary>
    public static void ToGrey(BlockBatch blocks)
    {
        Span<ushort> samples = blocks.Samples;
        for (int i = 0; i < samples.Length; i += 3)
            samples.Slice(i, 3).Fill((ushort)((samples[i] + samples[i + 1] + samples[i + 2] + 1) / 3));
    }

    /// <summary>Some consecutive blocks of a batch.</summary>
    public static BlockBatch Slice(BlockBatch batch, int first, int count)
    {
        int size = batch.Side * batch.Side * 3;
        return new BlockBatch(count, batch.Side, batch.BitDepth, batch.Samples[(first * size)..((first + count) * size)]);
    }

    /// <summary>Batches of one block size after each other.</summary>
    public static BlockBatch Concat(IReadOnlyList<BlockBatch> batches, int side, int bitDepth)
    {
        var all = new BlockBatch(batches.Sum(batch => batch.Count), side, bitDepth);
        int offset = 0;
        foreach (BlockBatch batch in batches)
        {
            batch.Samples.CopyTo(all.Samples, offset);
            offset += batch.Samples.Length;
        }
        return all;
    }
}

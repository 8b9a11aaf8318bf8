using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Work;

/// <summary>
/// Reconstructs whole strips, each as if nothing lay above and below it; what the neighbours change is made good at the
/// finish from the bands. A rescale also reconstructs the strips with every block at the middle scale, for the gain:
/// of that only the bands and one squared error are kept.
/// </summary>
internal static class ReconstructStage
{
    public static void Run(StageContext context)
    {
        ImageFacts facts = context.Facts;
        IReadOnlyList<StripBlobs> strips = context.Work.Strips;
        var unpacked = new List<UnpackedStrip>();
        foreach (StripBlobs strip in strips)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            unpacked.Add(context.Unpack(strip));
        }
        var scaleIndex = strips.SelectMany(strip => context.ScalesOf(strip.Strip).ToArray()).ToArray();
        IReconstructor reconstructor = context.Engine.Reconstructor;
        var results = reconstructor.Reconstruct(Batches(context, strips.Count, scaleIndex, unpacked.Select(strip => strip.ByScale).ToList()));

        bool measuresGain = context.Job.Parameters.Kind == JobKind.Rescale;
        Dictionary<int, ReconstructedStrip> uniform = measuresGain ? Uniform(context, unpacked) : [];
        for (int i = 0; i < strips.Count; i++)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            int strip = strips[i].Strip;
            PixelBuffer rows = Crop(facts, strip, results[i]);
            StripBlobs done = strips[i] with
            {
                Rows = context.Write("rows", strip, rows.Data),
                Top = HasUpperBorder(strip) ? context.Write("top", strip, StripPixels.Encode(results[i].Top)) : null,
                Bottom = HasLowerBorder(facts, strip) ? context.Write("bottom", strip, StripPixels.Encode(results[i].Bottom)) : null,
            };
            if (measuresGain)
                done = WithUniform(context, done, rows, uniform.GetValueOrDefault(strip), reconstructor.BorderRows);
            context.Report(new StripReconstructed(done));
        }
    }

    public static bool HasUpperBorder(int strip) => strip > 0;

    public static bool HasLowerBorder(ImageFacts facts, int strip) => strip < facts.Grid.Strips - 1;

    private static StripBlobs WithUniform(StageContext context, StripBlobs strip, PixelBuffer rows, ReconstructedStrip? own, int borderRows)
    {
        ImageFacts facts = context.Facts;
        // Without a result of its own every block of the strip has the middle scale already.
        StripBlobs done = strip with { UniformTop = strip.Top, UniformBottom = strip.Bottom };
        PixelBuffer uniform = rows;
        if (own is not null)
        {
            uniform = Crop(facts, strip.Strip, own);
            done = done with
            {
                UniformTop = strip.Top is null ? null : context.Write("uniform-top", strip.Strip, StripPixels.Encode(own.Top)),
                UniformBottom = strip.Bottom is null ? null : context.Write("uniform-bottom", strip.Strip, StripPixels.Encode(own.Bottom)),
            };
        }
        int first = HasUpperBorder(strip.Strip) ? borderRows : 0, end = rows.Height - (HasLowerBorder(facts, strip.Strip) ? borderRows : 0);
        return done with { UniformSse = end <= first ? 0 : SquaredError.OfRows(context.ReadRaw(strip), uniform, facts.Grid, facts.ColourChannels, first, end - first) };
    }

    // Strips in which some block has another scale, with every block at the middle scale.
    private static Dictionary<int, ReconstructedStrip> Uniform(StageContext context, List<UnpackedStrip> unpacked)
    {
        ScaleSet scales = context.Job.Parameters.Engine.Scales;
        int middle = scales.MiddleIndex, columns = context.Facts.Grid.Columns;
        var chosen = new List<StripBlobs>();
        var byScale = new List<IReadOnlyList<BlockBatch>>();
        for (int i = 0; i < unpacked.Count; i++)
        {
            StripBlobs strip = context.Work.Strips[i];
            if (!context.ScalesOf(strip.Strip).ContainsAnyExcept((byte)middle))
                continue;
            context.Cancellation.ThrowIfCancellationRequested();
            PixelBuffer raw = context.ReadRaw(strip);
            chosen.Add(strip);
            byScale.Add([.. Enumerable.Range(0, scales.Count).Select(s => s == middle
                ? AllAtMiddle(context, strip.Strip, raw, unpacked[i].ByScale[middle])
                : new BlockBatch(0, context.Facts.Grid.BlockSize / scales[s], context.Facts.BitDepth))]);
        }
        if (chosen.Count == 0)
            return [];
        var scaleIndex = new byte[chosen.Count * columns];
        Array.Fill(scaleIndex, (byte)middle);
        var results = context.Engine.Reconstructor.Reconstruct(Batches(context, chosen.Count, scaleIndex, byScale));
        return chosen.Zip(results, (strip, result) => (strip.Strip, result)).ToDictionary(pair => pair.Strip, pair => pair.result);
    }

    // Blocks that have the middle scale are taken as they are stored, the others are downscaled.
    private static BlockBatch AllAtMiddle(StageContext context, int strip, PixelBuffer raw, BlockBatch stored)
    {
        ScaleSet scales = context.Job.Parameters.Engine.Scales;
        ReadOnlySpan<byte> scaleIndex = context.ScalesOf(strip);
        var others = new List<(PixelBuffer, int)>();
        for (int column = 0; column < scaleIndex.Length; column++)
        {
            if (scaleIndex[column] != scales.MiddleIndex)
                others.Add((raw, column));
        }
        BlockBatch made = context.Downscale(scales.Middle, others);
        var all = new BlockBatch(scaleIndex.Length, made.Side, made.BitDepth);
        int fromStored = 0, fromMade = 0;
        for (int column = 0; column < scaleIndex.Length; column++)
            (scaleIndex[column] == scales.MiddleIndex ? stored.Block(fromStored++) : made.Block(fromMade++)).CopyTo(all.Block(column));
        return all;
    }

    private static LrStrips Batches(StageContext context, int strips, byte[] scaleIndex, List<IReadOnlyList<BlockBatch>> byStrip)
    {
        ScaleSet scales = context.Job.Parameters.Engine.Scales;
        BlockGrid grid = context.Facts.Grid;
        return new LrStrips(grid.Columns, strips, scales, scaleIndex,
            [.. Enumerable.Range(0, scales.Count).Select(s => LrBlocks.Concat([.. byStrip.Select(strip => strip[s])], grid.BlockSize / scales[s], context.Facts.BitDepth))]);
    }

    private static PixelBuffer Crop(ImageFacts facts, int strip, ReconstructedStrip result)
    {
        var rows = new PixelBuffer(facts.Width, facts.Grid.RowsOf(strip), facts.ColourChannels, facts.BitDepth);
        StripPixels.Crop(result.Rows, facts.Grid.Columns * facts.Grid.BlockSize, rows, 0, rows.Height);
        return rows;
    }
}

using BbmrCluster.Imaging;

namespace BbmrCluster.Training;

/// <summary>Patches of one step: channels last, values from the network's black to 1.</summary>
/// <param name="Lr">(B, p, p, 3).</param>
/// <param name="Hr">(B, p s, p s, 3).</param>
public sealed record PatchBatch(float[] Lr, float[] Hr);

/// <summary>
/// Draws aligned LR and HR patches. The draw of a step depends on the seed and the step number alone, so a resumed
/// training sees the patches that an undisturbed one sees. May be used on any thread.
/// </summary>
/// <param name="photos">Photographs with LR images of one scale, each at least a patch large.</param>
/// <param name="recipe">Patch side, batch, seed, threshold, jitter.</param>
public sealed class PatchSampler(IReadOnlyList<TrainingPhoto> photos, TrainingRecipe recipe)
{
    // The LR pixels at the border of a shrunken part depend on what lies beyond it.
    private const int Margin = 4;

    private readonly int _scale = recipe.Scale!.Value;
    private readonly float[] _values = CropSampler.ValueTable(recipe.ShapeAt(recipe.Scale!.Value).Black);
    private readonly CropSampler _places = new([.. photos.Select(photo => photo.Lr)], recipe.LrPatch, recipe.FlatThreshold);

    /// <summary>Patches of a step.</summary>
    public PatchBatch Draw(int step)
    {
        int side = recipe.LrPatch, large = side * _scale;
        var lr = new float[recipe.Batch * side * side * 3];
        var hr = new float[recipe.Batch * large * large * 3];
        Random random = CropSampler.Randomness(recipe.Seed, step);
        for (int i = 0; i < recipe.Batch; i++)
        {
            (int index, int x, int y) = _places.Place(random);
            int turn = random.Next(8);
            (PixelBuffer small, PixelBuffer big) = (photos[index].Lr, photos[index].Hr);
            if (recipe.ColourJitter > 0)
                (small, big, x, y) = Jittered(small, big, x, y, random);
            CropSampler.CopyTurned(small, x, y, side, turn, _values, lr.AsSpan(i * side * side * 3, side * side * 3));
            CropSampler.CopyTurned(big, x * _scale, y * _scale, large, turn, _values, hr.AsSpan(i * large * large * 3, large * large * 3));
        }
        return new PatchBatch(lr, hr);
    }

    private (PixelBuffer Lr, PixelBuffer Hr, int X, int Y) Jittered(PixelBuffer lr, PixelBuffer hr, int x, int y, Random random)
    {
        int left = Math.Max(0, x - Margin), top = Math.Max(0, y - Margin);
        int right = Math.Min(lr.Width, x + recipe.LrPatch + Margin), bottom = Math.Min(lr.Height, y + recipe.LrPatch + Margin);
        PixelBuffer part = hr.Crop(left * _scale, top * _scale, (right - left) * _scale, (bottom - top) * _scale);
        CropSampler.Jitter(part.Data, recipe.ColourJitter, random);
        return (Bicubic.Resize(part, ResizeScale.Down(_scale)), part, x - left, y - top);
    }
}

/// <summary>Where in a set of 8-bit RGB images square crops are taken, and how they are copied.</summary>
/// <param name="images">Images, each at least <paramref name="side"/> large; larger ones are picked more often.</param>
/// <param name="side">Side of a crop.</param>
/// <param name="flatThreshold">Crops of less mean difference are mostly drawn again.</param>
internal sealed class CropSampler(IReadOnlyList<PixelBuffer> images, int side, double flatThreshold)
{
    private const int Tries = 20;
    private readonly long[] _areas = [.. images.Select(image => (long)image.Width * image.Height)];

    /// <summary>The random numbers of a step.</summary>
    public static Random Randomness(int seed, int step) => new(unchecked((seed * 1_000_003) + step));

    /// <summary>Network value of each 8-bit value.</summary>
    public static float[] ValueTable(float black) => [.. Enumerable.Range(0, 256).Select(value => black + (value * (1 - black) / 255))];

    /// <summary>An image and a place in it.</summary>
    public (int Index, int X, int Y) Place(Random random)
    {
        for (int attempt = 1; ; attempt++)
        {
            long pick = random.NextInt64(_areas.Sum());
            int index = 0;
            while (pick >= _areas[index])
                pick -= _areas[index++];
            PixelBuffer image = images[index];
            int x = random.Next(image.Width - side + 1), y = random.Next(image.Height - side + 1);
            // One flat patch in ten is kept: the network must not invent texture in skies.
            if (attempt == Tries || MeanDifference(image, x, y, side) >= flatThreshold || random.Next(10) == 0)
                return (index, x, y);
        }
    }

    /// <summary>Mean of |green - right neighbour| + |green - lower neighbour|, 8-bit units.</summary>
    public static double MeanDifference(PixelBuffer image, int x, int y, int side)
    {
        long sum = 0;
        for (int row = y; row < y + side - 1; row++)
        {
            int at = (row * image.RowBytes) + (x * 3) + 1;
            for (int column = 0; column < side - 1; column++, at += 3)
                sum += Math.Abs(image.Data[at] - image.Data[at + 3]) + Math.Abs(image.Data[at] - image.Data[at + image.RowBytes]);
        }
        return sum / (double)((side - 1) * (side - 1));
    }

    /// <summary>Copies a square with one of the eight flips and quarter turns, each byte through a table.</summary>
    public static void CopyTurned<T>(PixelBuffer image, int x, int y, int side, int turn, T[] values, Span<T> target)
    {
        byte[] data = image.Data;
        int at = 0;
        for (int row = 0; row < side; row++)
        {
            for (int column = 0; column < side; column++)
            {
                (int r, int c) = (turn & 4) == 0 ? (row, column) : (column, row);
                r = (turn & 1) == 0 ? r : side - 1 - r;
                c = (turn & 2) == 0 ? c : side - 1 - c;
                int from = ((y + r) * image.RowBytes) + ((x + c) * 3);
                for (int channel = 0; channel < 3; channel++)
                    target[at++] = values[data[from + channel]];
            }
        }
    }

    /// <summary>Random gamma, and gain of each colour, in place.</summary>
    /// <param name="rgb">Interleaved.</param>
    /// <param name="strength">0.1 is up to a tenth up or down.</param>
    /// <param name="random">Four numbers are taken.</param>
    public static void Jitter(Span<byte> rgb, double strength, Random random)
    {
        double gamma = Factor();
        var table = new byte[3][];
        for (int c = 0; c < 3; c++)
        {
            double gain = Factor();
            table[c] = [.. Enumerable.Range(0, 256).Select(value => (byte)Math.Clamp(Math.Round(255 * gain * Math.Pow(value / 255.0, gamma)), 0, 255))];
        }
        for (int i = 0; i < rgb.Length; i++)
            rgb[i] = table[i % 3][rgb[i]];

        double Factor() => Math.Pow(1 + strength, (2 * random.NextDouble()) - 1);
    }
}

/// <summary>Square HR crops of one step, with random turns; the draw depends on the seed and the step number alone.</summary>
/// <param name="photos">Photographs, each at least a crop large.</param>
/// <param name="recipe">Crop side, batch, seed, threshold, jitter.</param>
internal sealed class HrCropSampler(IReadOnlyList<Photo> photos, TrainingRecipe recipe)
{
    private static readonly byte[] Same = [.. Enumerable.Range(0, 256).Select(value => (byte)value)];

    private readonly CropSampler _places = new([.. photos.Select(photo => photo.Pixels)], recipe.HrCrop!.Value, recipe.FlatThreshold);

    /// <summary>Crops of a step, and the random numbers that follow.</summary>
    public (PixelBuffer[] Crops, Random Random) Draw(int step)
    {
        int side = recipe.HrCrop!.Value;
        Random random = CropSampler.Randomness(recipe.Seed, step);
        var crops = new PixelBuffer[recipe.Batch];
        for (int i = 0; i < crops.Length; i++)
        {
            (int index, int x, int y) = _places.Place(random);
            crops[i] = new PixelBuffer(side, side, 3, 8);
            CropSampler.CopyTurned(photos[index].Pixels, x, y, side, random.Next(8), Same, crops[i].Data);
            if (recipe.ColourJitter > 0)
                CropSampler.Jitter(crops[i].Data, recipe.ColourJitter, random);
        }
        return (crops, random);
    }
}

using BbmrCluster.Imaging;

namespace BbmrCluster.Training;

/// <summary>
/// Draws aligned LR and HR patches. The draw of a step depends on the seed and the step number alone, so a resumed
/// training sees the patches that an undisturbed one sees.
/// </summary>
/// <param name="photos">Photographs with LR images of one scale, each at least a patch large.</param>
/// <param name="recipe">Patch side, batch, seed, threshold.</param>
public sealed class PatchSampler(IReadOnlyList<TrainingPhoto> photos, TrainingRecipe recipe)
{
    private const int Tries = 20;
    private readonly long[] _areas = [.. photos.Select(photo => (long)photo.Lr.Width * photo.Lr.Height)];

    /// <summary>Patches of a step: LR (B, p, p, 3) and HR (B, p s, p s, 3), channels last, values in [-1, 1].</summary>
    public (float[] Lr, float[] Hr) Draw(int step)
    {
        int side = recipe.LrPatch, large = side * recipe.Scale;
        var lr = new float[recipe.Batch * side * side * 3];
        var hr = new float[recipe.Batch * large * large * 3];
        var random = new Random(unchecked((recipe.Seed * 1_000_003) + step));
        for (int i = 0; i < recipe.Batch; i++)
        {
            (TrainingPhoto photo, int x, int y) = Place(random);
            int turn = random.Next(8);
            Copy(photo.Lr, x, y, side, turn, lr.AsSpan(i * side * side * 3, side * side * 3));
            Copy(photo.Hr, x * recipe.Scale, y * recipe.Scale, large, turn, hr.AsSpan(i * large * large * 3, large * large * 3));
        }
        return (lr, hr);
    }

    private (TrainingPhoto Photo, int X, int Y) Place(Random random)
    {
        for (int attempt = 1; ; attempt++)
        {
            long pick = random.NextInt64(_areas.Sum());
            int index = 0;
            while (pick >= _areas[index])
                pick -= _areas[index++];
            PixelBuffer lr = photos[index].Lr;
            int x = random.Next(lr.Width - recipe.LrPatch + 1), y = random.Next(lr.Height - recipe.LrPatch + 1);
            // One flat patch in ten is kept: the network must not invent texture in skies.
            if (attempt == Tries || MeanDifference(lr, x, y, recipe.LrPatch) >= recipe.FlatThreshold || random.Next(10) == 0)
                return (photos[index], x, y);
        }
    }

    /// <summary>Mean of |green - right neighbour| + |green - lower neighbour|, 8-bit units.</summary>
    private static double MeanDifference(PixelBuffer image, int x, int y, int side)
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

    /// <summary>Copies a square with one of the eight flips and quarter turns.</summary>
    private static void Copy(PixelBuffer image, int x, int y, int side, int turn, Span<float> target)
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
                    target[at++] = (data[from + channel] / 127.5f) - 1;
            }
        }
    }
}

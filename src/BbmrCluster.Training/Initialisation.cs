using BbmrCluster.Networks;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Training;

/// <summary>First values of networks' parameters.</summary>
public static class Initialisation
{
    /// <summary>PyTorch's defaults and what the network says of single parameters, see <see cref="ParameterStart"/>.</summary>
    /// <param name="shape">The network; a bias comes directly after its weight.</param>
    /// <param name="seed">Equal seeds give equal values.</param>
    public static Dictionary<string, TensorData> Uniform(NetworkShape shape, int seed)
    {
        var random = new Random(seed);
        var values = new Dictionary<string, TensorData>(StringComparer.Ordinal);
        float bound = 0;
        foreach ((string name, long[] sizes) in shape.Parameters)
        {
            var data = new float[sizes.Aggregate(1L, (product, size) => product * size)];
            bool norm = name.EndsWith(".weight", StringComparison.Ordinal) && sizes.Length == 1;
            if (norm)
                bound = 0; // So that its bias is 0.
            else if (sizes.Length > 1)
                bound = 1 / MathF.Sqrt(sizes.Skip(1).Aggregate(1L, (product, size) => product * size));

            ParameterStart start = shape.StartOf(name);
            if (start == ParameterStart.Normal)
                Fill(data, () => Normal(random));
            else if (norm || start == ParameterStart.Ones)
                Array.Fill(data, 1);
            else if (bound > 0 && start == ParameterStart.ByRank)
                Fill(data, () => ((random.NextSingle() * 2) - 1) * bound);
            values.Add(name, new TensorData(sizes, data));
        }
        return values;
    }

    /// <summary>
    /// Values from which the untrained network is already the bicubic upscaler: twelve feature channels carry each colour
    /// shifted by one pixel along both diagonals, the tail's 3x3 kernels combine them to the 5x5 bicubic kernel of each
    /// sub-pixel, and the ends of the body's branches and the tail's other kernels start at zero. All else follows <see cref="Uniform"/>.
    /// </summary>
    public static IReadOnlyDictionary<string, TensorData> FromBicubic(SrNetworkShape shape, int seed)
    {
        Dictionary<string, TensorData> values = Uniform(shape, seed);
        foreach (string end in shape.BranchEnds)
        {
            Array.Clear(values[end + ".weight"].Values);
            Array.Clear(values[end + ".bias"].Values);
        }
        Array.Clear(values[shape.TailName + ".bias"].Values);
        CarryColours(values[shape.HeadName + ".weight"], values[shape.HeadName + ".bias"]);
        CombineToBicubic(values[shape.TailName + ".weight"], shape.Scale, 1.0 / shape.PassedOn);
        return values;
    }

    /// <summary>
    /// Values from which Down-Net gives the mean of each square of scale x scale pixels, which is near bicubic and as
    /// centred: three channels carry the colours through the poolings, the others start by <see cref="Uniform"/> and reach
    /// the output with weight 0.
    /// </summary>
    public static IReadOnlyDictionary<string, TensorData> FromBoxAverage(DownNetShape shape, int seed)
    {
        Dictionary<string, TensorData> values = Uniform(shape, seed);
        float[] first = values["0.weight"].Values, last = values[shape.LastName].Values;
        Array.Clear(last);
        for (int colour = 0; colour < 3; colour++)
        {
            Array.Clear(first, colour * 27, 27);
            first[(colour * 27) + (colour * 9) + 4] = 1;
            last[(colour * shape.Channels) + colour] = 1;
            foreach (string halving in values.Keys.Where(name => name.Contains(".conv.", StringComparison.Ordinal)))
                Array.Clear(values[halving].Values, colour * shape.Channels * 9, shape.Channels * 9);
        }
        return values;
    }

    /// <summary>
    /// Another scale's weights with the tail resampled: sub-pixels are averaged to a coarser scale or repeated to a finer
    /// one, so that training starts from a sensible image.
    /// </summary>
    public static IReadOnlyDictionary<string, TensorData> FromOtherScale(IReadOnlyDictionary<string, TensorData> state, SrNetworkShape from, int scale)
    {
        var values = new Dictionary<string, TensorData>(state, StringComparer.Ordinal);
        foreach (string name in (string[])[from.TailName + ".weight", from.TailName + ".bias"])
        {
            TensorData old = state[name];
            int each = (int)(old.Values.Length / old.Shape[0]);
            var data = new float[3 * scale * scale * each];
            int ratio = Math.Max(1, from.Scale / scale);
            for (int c = 0; c < 3; c++)
            {
                for (int i = 0; i < scale; i++)
                {
                    for (int j = 0; j < scale; j++)
                    {
                        int target = ((c * scale * scale) + (i * scale) + j) * each;
                        for (int a = 0; a < ratio; a++)
                        {
                            for (int b = 0; b < ratio; b++)
                            {
                                int y = (i * from.Scale / scale) + a, x = (j * from.Scale / scale) + b;
                                int source = ((c * from.Scale * from.Scale) + (y * from.Scale) + x) * each;
                                for (int k = 0; k < each; k++)
                                    data[target + k] += old.Values[source + k] / (ratio * ratio);
                            }
                        }
                    }
                }
            }
            values[name] = new TensorData([3L * scale * scale, .. old.Shape[1..]], data);
        }
        return values;
    }

    /// <summary>A deeper network that computes exactly what a trained one does, see <see cref="SrNetworkShape.GrownFrom"/>; the trained one's values where it is not deeper.</summary>
    /// <param name="state">A trained network.</param>
    /// <param name="shallow">Its shape.</param>
    /// <param name="deep">The shape wanted; of the same family, at any scale.</param>
    /// <param name="seed">Of the new parts' other values.</param>
    /// <returns>Values at the scale of <paramref name="shallow"/>.</returns>
    public static IReadOnlyDictionary<string, TensorData> Deepened(IReadOnlyDictionary<string, TensorData> state, SrNetworkShape shallow, SrNetworkShape deep, int seed)
    {
        SrNetworkShape wanted = deep with { Scale = shallow.Scale };
        return wanted.GrownFrom(shallow, state, FromBicubic(wanted, seed)) ?? state;
    }

    private static void CarryColours(TensorData weight, TensorData bias)
    {
        // Feature 4 c + d holds colour c at offset (-1 or 1, -1 or 1).
        for (int feature = 0; feature < 12; feature++)
        {
            Array.Clear(weight.Values, feature * 27, 27);
            int row = (feature & 2) == 0 ? 0 : 2, column = (feature & 1) == 0 ? 0 : 2;
            weight.Values[(feature * 27) + (feature / 4 * 9) + (row * 3) + column] = 1;
            bias.Values[feature] = 0;
        }
    }

    private static void CombineToBicubic(TensorData weight, int scale, double factor)
    {
        int features = (int)weight.Shape[1];
        for (int output = 0; output < weight.Shape[0]; output++)
        {
            int colour = output / (scale * scale), i = output / scale % scale, j = output % scale;
            for (int feature = 0; feature < features; feature++)
            {
                Span<float> kernel = weight.Values.AsSpan(((output * features) + feature) * 9, 9);
                kernel.Clear();
                if (feature >= 12 || feature / 4 != colour)
                    continue;
                for (int y = 0; y < 3; y++)
                {
                    for (int x = 0; x < 3; x++)
                        kernel[(y * 3) + x] = (float)(factor * Share(i, (feature & 2) == 0, y) * Share(j, (feature & 1) == 0, x));
                }
            }
        }

        // Weight of tap 0..2 of the feature shifted by -1 or +1 in the five-tap bicubic kernel of a sub-pixel; the middle tap is shared.
        double Share(int subPixel, bool shiftedBack, int tap)
        {
            int offset = (shiftedBack ? -1 : 1) + tap - 1;
            double position = ((subPixel + 0.5) / scale) - 0.5;
            return Cubic(offset - position) * (offset == 0 ? 0.5 : 1);
        }
    }

    private static double Cubic(double x)
    {
        x = Math.Abs(x);
        return x <= 1 ? (1.5 * x * x * x) - (2.5 * x * x) + 1
            : x < 2 ? (-0.5 * x * x * x) + (2.5 * x * x) - (4 * x) + 2 : 0;
    }

    private static void Fill(float[] data, Func<float> value)
    {
        for (int i = 0; i < data.Length; i++)
            data[i] = value();
    }

    private static float Normal(Random random) =>
        (float)(Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble()));
}

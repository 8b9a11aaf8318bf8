using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.Tests;

/// <summary>
/// Weights and inputs made by formulas alone, so that outputs of independent implementations can be compared by number:
/// u = frac((i+1) golden ratio + (p+1) plastic number) - 0.5 for flat index i of the p-th parameter in ordinal order.
/// </summary>
internal static class ReferenceNumbers
{
    public static IReadOnlyDictionary<string, TensorData> Weights(IReadOnlyList<(string Name, long[] Shape)> shapes)
    {
        var values = new Dictionary<string, TensorData>(StringComparer.Ordinal);
        int p = 0;
        foreach ((string name, long[] shape) in shapes.OrderBy(s => s.Name, StringComparer.Ordinal))
        {
            var data = new float[shape.Aggregate(1L, (a, b) => a * b)];
            double fan = shape.Skip(1).Aggregate(1.0, (a, b) => a * b);
            for (int i = 0; i < data.Length; i++)
            {
                double u = ((i + 1) * 0.6180339887498949) + ((p + 1) * 0.7548776662466927);
                u -= Math.Floor(u) + 0.5;
                data[i] = (float)(name.EndsWith(".temperature", StringComparison.Ordinal) || (shape.Length == 1 && name.EndsWith(".weight", StringComparison.Ordinal)) ? 1 + (0.2 * u)
                    : name.EndsWith(".bias", StringComparison.Ordinal) ? 0.1 * u
                    : name.EndsWith(".alpha", StringComparison.Ordinal) ? 1 + (0.2 * u)
                    : name.EndsWith(".belt", StringComparison.Ordinal) ? 10 * u
                    : name.EndsWith(".linear_0.weight", StringComparison.Ordinal) || name.EndsWith(".pcfn.conv_0.weight", StringComparison.Ordinal) ? 2 * u
                    : name.Contains("rel_pos_bias", StringComparison.Ordinal) ? u
                    : u * Math.Sqrt(12 / fan));
            }
            values.Add(name, new TensorData(shape, data));
            p++;
        }
        return values;
    }

    public static ParameterSet OmniSr(OmniSrShape shape) => For(shape);

    public static ParameterSet For(NetworkShape shape) => new(shape.Parameters, Weights(shape.Parameters), "reference numbers");

    /// <summary>2 v - 1 times a factor, with the channels last (H, W, 3).</summary>
    public static float[] Input(int height, int width, double factor = 1) => [.. Unit(height, width).Select(v => (float)(((2 * v) - 1) * factor))];

    /// <summary>v, with the channels last (H, W, 3).</summary>
    public static double[] Unit(int height, int width)
    {
        var data = new double[height * width * 3];
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                for (int c = 0; c < 3; c++)
                {
                    data[(((y * width) + x) * 3) + c] = 0.5 + (0.3 * Math.Sin((0.13 * x) + (0.29 * y) + c)) + (0.2 * Math.Sin((1.1 * x) - (0.7 * y) + (2 * c)));
                }
            }
        }
        return data;
    }
}

/// <summary>Sum, norm and a few values of an output in (C, H, W) order.</summary>
internal sealed record Fingerprint(double Sum, double Norm, double[] First, double Mid, double Last)
{
    public static Fingerprint Of(float[] chw) => new(chw.Sum(v => (double)v), Math.Sqrt(chw.Sum(v => (double)v * v)), [.. chw.Take(4).Select(v => (double)v)], chw[chw.Length / 2], chw[^1]);

    public void IsNear(Fingerprint expected)
    {
        Assert.Equal(expected.Norm, Norm, expected.Norm * 1e-5);
        // The sum cancels; judge it by the norm of a sum of that many values.
        Assert.Equal(expected.Sum, Sum, expected.Norm * 1e-3);
        for (int i = 0; i < expected.First.Length; i++)
            Assert.Equal(expected.First[i], First[i], 1e-4);
        if (!double.IsNaN(expected.Mid))
            Assert.Equal(expected.Mid, Mid, 1e-4);
        if (!double.IsNaN(expected.Last))
            Assert.Equal(expected.Last, Last, 1e-4);
    }
}

using BbmrCluster.Imaging;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Catalog;

/// <summary>
/// Finds out in which values a super-resolution network was trained, which its tensors do not show: it upscales a drawn
/// picture in each of the usual ranges, and only in its own does the result come near the picture.
/// </summary>
internal static class ValueRangeProbe
{
    private const int Side = 48;

    // Measured: a network is better than bicubic here in its own range; in another it loses 0.2 to 0.9 dB (omnisr-light, 0..1
    // against -1..1) or 2 to 5 dB (0..255, and CRAFT in any other). Where less than half a dB is at stake the usual range stays.
    private const double Clearly = 0.5, NearBicubic = 1;

    private static readonly ValueRange[] Usual = [new(0, 1), new(-1, 1), new(0, 255)];

    /// <summary>The range in which a network works.</summary>
    /// <param name="shape">Its shape.</param>
    /// <param name="parameters">Its values.</param>
    /// <returns>The family's own range, unless the network is clearly better, and about as good as bicubic at least, in another.</returns>
    public static ValueRange Find(SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> parameters)
    {
        NativeRuntime.Apply();
        var own = new ValueRange(shape.UsualBlack, 1);
        PixelBuffer hr = Picture(Side * shape.Scale), lr = Bicubic.Resize(hr, ResizeScale.Down(shape.Scale));
        (ValueRange range, double psnr) = Usual.Append(own).Distinct().Select(range => (range, Psnr(shape, parameters, range, hr, lr))).MaxBy(pair => pair.Item2);
        return psnr >= Psnr(shape, parameters, own, hr, lr) + Clearly && psnr >= Metrics.Compare(hr, Bicubic.Resize(lr, ResizeScale.Up(shape.Scale)), crop: shape.Scale).PsnrY - NearBicubic ? range : own;
    }

    /// <summary>PSNR of Y of the picture upscaled in a range, dB.</summary>
    internal static double Psnr(SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> parameters, ValueRange range, PixelBuffer hr, PixelBuffer lr)
    {
        (SrNetworkShape unit, IReadOnlyDictionary<string, TensorData> values) = shape.InUnitRange(parameters, range);
        using IDisposable noGradient = no_grad();
        using var scope = NewDisposeScope();
        using var set = new ParameterSet(unit.Parameters, values, "the network");
        using SrNetwork network = unit.CreateNetwork(set);
        float factor = (1 - unit.Black) / 255;
        float[] input = Array.ConvertAll(lr.Data, value => (value * factor) + unit.Black);
        float[] output = network.Forward(NativeTensors.Create(input, [1, lr.Height, lr.Width, 3])).data<float>().ToArray();
        byte[] pixels = Array.ConvertAll(output, value => (byte)Math.Round(Math.Clamp(float.IsNaN(value) ? 0 : (value - unit.Black) / factor, 0, 255)));
        return Metrics.Compare(hr, new PixelBuffer(hr.Width, hr.Height, 3, 8, pixels), crop: shape.Scale).PsnrY;
    }

    /// <summary>A square picture with slopes, edges at several angles and fine waves in differing colours.</summary>
    internal static PixelBuffer Picture(int side)
    {
        var picture = new PixelBuffer(side, side, 3, 8);
        for (int y = 0; y < side; y++)
        {
            for (int x = 0; x < side; x++)
            {
                double u = (x + 0.5) / side, v = (y + 0.5) / side, radius = Math.Sqrt(((u - 0.4) * (u - 0.4)) + ((v - 0.45) * (v - 0.45)));
                double disc = radius < 0.22 ? 0.35 : 0, stripe = Math.Sin(40 * ((0.8 * u) + (0.6 * v))) > 0.3 && v > 0.6 ? 0.25 : 0, wave = 0.08 * Math.Sin(60 * u) * Math.Sin(45 * v);
                double[] rgb = [0.15 + (0.5 * u) + disc + wave, 0.75 - (0.5 * v) - (0.6 * disc) + stripe, 0.3 + (0.3 * u * v) + (0.5 * disc) - wave];
                for (int c = 0; c < 3; c++)
                    picture.Data[(((y * side) + x) * 3) + c] = (byte)Math.Round(255 * Math.Clamp(rgb[c], 0, 1));
            }
        }
        return picture;
    }
}

using BbmrCluster.Networks;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>The result of one image.</summary>
/// <param name="Name">File name.</param>
/// <param name="PsnrY">PSNR on unrounded BT.601 Y of the 8-bit result, dB, with a border of <c>scale</c> pixels left out.</param>
public sealed record ValidationScore(string Name, double PsnrY);

/// <summary>
/// The protocol of the super-resolution papers: HR cropped to a multiple of the scale, LR by the MATLAB-compatible
/// 8-bit bicubic, the network on the whole image, result rounded to 8 bits, PSNR-Y without a border of <c>scale</c> pixels.
/// </summary>
public static class Validation
{
    /// <summary>Loads all images of a folder in ordinal order of their names.</summary>
    /// <exception cref="InvalidDataException">None is there.</exception>
    public static IReadOnlyList<TrainingPhoto> Load(string folder, int scale)
    {
        TrainingPhoto[] images = [.. Directory.EnumerateFiles(folder, "*.png").Order(StringComparer.Ordinal)
            .Select(path => PhotoSet.Pair(Path.GetFileName(path), PhotoSet.Decode(path), scale))];
        return images.Length > 0 ? images : throw new InvalidDataException($"{folder} holds no PNG image to validate on.");
    }

    /// <summary>Runs a network in float32 over images.</summary>
    public static IReadOnlyList<ValidationScore> Psnr(OmniSrShape shape, IReadOnlyDictionary<string, TensorData> weights, IReadOnlyList<TrainingPhoto> images, ScalarType body = ScalarType.Float32)
    {
        using var parameters = new ParameterSet(shape.Parameters, weights, "the weights");
        using var network = new OmniSrNetwork(shape, parameters, body);
        return [.. images.Select(image => new ValidationScore(image.Name, Psnr(network, image)))];
    }

    private static double Psnr(OmniSrNetwork network, TrainingPhoto image)
    {
        using var scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        int scale = network.Shape.Scale;
        Tensor x = NativeTensors.Create(Array.ConvertAll(image.Lr.Data, value => (value / 127.5f) - 1), [1, image.Lr.Height, image.Lr.Width, 3]);
        float[] y = network.Forward(x).data<float>().ToArray();
        double sum = 0;
        long count = 0;
        for (int row = scale; row < image.Hr.Height - scale; row++)
        {
            for (int column = scale; column < image.Hr.Width - scale; column++, count++)
            {
                int at = ((row * image.Hr.Width) + column) * 3;
                double error = (65.481 * Difference(at) + 128.553 * Difference(at + 1) + 24.966 * Difference(at + 2)) / 255;
                sum += error * error;
            }
        }
        return 10 * Math.Log10(255.0 * 255.0 * count / sum);

        double Difference(int at) => Math.Round(Math.Clamp((y[at] + 1) * 127.5, 0, 255)) - image.Hr.Data[at];
    }
}

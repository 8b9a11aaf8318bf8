using BbmrCluster.Imaging;
using BbmrCluster.Networks;
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
    /// <summary>Loads all PNG images of a folder in ordinal order of their names.</summary>
    /// <exception cref="InvalidDataException">None is there.</exception>
    public static IReadOnlyList<Photo> Load(string folder)
    {
        Photo[] images = [.. Directory.EnumerateFiles(folder, "*.png").Order(StringComparer.Ordinal).Select(path => new Photo(Path.GetFileName(path), PhotoSet.Decode(path)))];
        return images.Length > 0 ? images : throw new InvalidDataException($"{folder} holds no PNG image to validate on.");
    }

    /// <summary>The images of a folder with their LR images.</summary>
    /// <exception cref="InvalidDataException">None is there.</exception>
    public static IReadOnlyList<TrainingPhoto> Load(string folder, int scale) => [.. Load(folder).Select(image => PhotoSet.Pair(image.Name, image.Pixels, scale))];

    /// <summary>Runs a network over images.</summary>
    /// <param name="shape">The network's shape.</param>
    /// <param name="weights">Its tensors.</param>
    /// <param name="images">HR and LR.</param>
    /// <param name="body">Type of the body's arithmetic.</param>
    public static IReadOnlyList<ValidationScore> Psnr(SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> weights, IReadOnlyList<TrainingPhoto> images, ScalarType body = ScalarType.Float32)
    {
        using var parameters = new ParameterSet(shape.Parameters, weights, "the weights");
        using SrNetwork network = shape.CreateNetwork(parameters, body);
        float[] values = CropSampler.ValueTable(shape.Black);
        return [.. images.Select(image => new ValidationScore(image.Name, Psnr(network, image, values)))];
    }

    private static double Psnr(SrNetwork network, TrainingPhoto image, float[] values)
    {
        using var scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        Tensor x = NativeTensors.Create(Array.ConvertAll(image.Lr.Data, value => values[value]), [1, image.Lr.Height, image.Lr.Width, 3]);
        return Metrics.Compare(image.Hr, Blocks.ToImage(network.Forward(x), network.Shape.Black), crop: network.Shape.Scale).PsnrY;
    }
}

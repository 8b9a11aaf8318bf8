using System.Runtime.InteropServices;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Catalog;

/// <summary>How closely a network meets a reference file.</summary>
/// <param name="Architecture">As recognised by the tensors, see <see cref="NetworkArchitecture.Name"/>.</param>
/// <param name="Scale">Factor by which the network up- or downscales.</param>
/// <param name="MaxAbsError">Largest absolute difference of the output.</param>
/// <param name="MaxRelError">The same divided by the largest absolute reference value.</param>
/// <param name="LossRelError">Relative difference of the L1 loss; null where the file has none.</param>
/// <param name="GradNormRelError">Relative difference of the L2 norm of all parameter gradients; null where the file has none.</param>
public sealed record ParityResult(string Architecture, int Scale, double MaxAbsError, double MaxRelError, double? LossRelError, double? GradNormRelError);

/// <summary>
/// Runs a network in float32 against a reference file: safetensors with <c>weights.NAME</c>, <c>input</c> (N, 3, H, W),
/// <c>output</c> and, for the gradient, <c>target</c>, <c>loss_l1</c> and <c>grad_norm</c>.
/// </summary>
public static class FixtureParity
{
    /// <summary>Loads and compares.</summary>
    /// <exception cref="InvalidDataException">The file is not such a reference, or of a network that is not here; one sentence.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public static ParityResult Run(string path)
    {
        IReadOnlyDictionary<string, TensorData> tensors = SafetensorsFile.Read(path).Tensors;
        const string prefix = "weights.";
        var weights = tensors.Where(pair => pair.Key.StartsWith(prefix, StringComparison.Ordinal))
            .ToDictionary(pair => pair.Key[prefix.Length..], pair => pair.Value, StringComparer.Ordinal);
        if (!tensors.TryGetValue("input", out TensorData? input) || !tensors.TryGetValue("output", out TensorData? output) || input.Shape.Length != 4 || output.Shape.Length != 4)
            throw new InvalidDataException($"{path} is not a reference file: it has no 'input' and 'output' maps.");

        (NetworkShape shape, IReadOnlyDictionary<string, TensorData> values) = Architectures.Recognise(weights, path);
        if (shape is not (SrNetworkShape or DownNetShape))
            throw new InvalidDataException($"{path} holds {shape.Description}, which takes no single input: compare its extractors one by one.");
        using var parameters = new ParameterSet(shape.Parameters, values, path, trainable: true);
        using var scope = NewDisposeScope();
        Tensor x = ToNhwc(input);

        float[] result;
        using (SrNetwork? network = Network(training: false))
            result = FromNhwc(Forward(network, x));
        if (result.Length != output.Values.Length)
            throw new InvalidDataException($"{path}: the output has the shape {output.ShapeText}, the network makes {result.Length} values.");
        double error = 0, peak = 0;
        for (int i = 0; i < result.Length; i++)
        {
            double difference = Math.Abs((double)result[i] - output.Values[i]);
            error = double.IsNaN(difference) ? double.PositiveInfinity : Math.Max(error, difference);
            peak = Math.Max(peak, Math.Abs(output.Values[i]));
        }

        double? lossError = null, normError = null;
        if (tensors.TryGetValue("target", out TensorData? target) && tensors.TryGetValue("loss_l1", out TensorData? loss) && tensors.TryGetValue("grad_norm", out TensorData? norm))
        {
            // Passes back need what the network keeps of the pass forward.
            using SrNetwork? network = Network(training: true);
            Tensor l1 = (Forward(network, x) - ToNhwc(target)).abs().mean();
            l1.backward();
            lossError = Relative(l1.item<float>(), loss.Values[0]);
            normError = Relative(parameters.TakeGradient().to(ScalarType.Float64).norm().item<double>(), norm.Values[0]);
        }
        return new ParityResult(shape.Architecture, shape.Scale, error, error / peak, lossError, normError);

        // Down-Net holds nothing but its parameters.
        SrNetwork? Network(bool training) => (shape as SrNetworkShape)?.CreateNetwork(parameters, training: training);

        Tensor Forward(SrNetwork? network, Tensor input) => network?.Forward(input) ?? new DownNetNetwork((DownNetShape)shape, parameters).Forward(input);

        static double Relative(double value, double reference) => Math.Abs(value - reference) / Math.Abs(reference);
    }

    private static Tensor ToNhwc(TensorData map) => NativeTensors.Create(map.Values, map.Shape).permute(0, 2, 3, 1).contiguous();

    private static float[] FromNhwc(Tensor map) => MemoryMarshal.Cast<byte, float>(map.permute(0, 3, 1, 2).contiguous().bytes).ToArray();
}

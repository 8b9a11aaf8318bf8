using System.Security.Cryptography;
using System.Text.Json;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Training;

/// <summary>Turns trained weights into a file with a card for the model catalog.</summary>
public static class ModelPublisher
{
    /// <summary>Validation loss in dB that storing weights in 16 bits may cost.</summary>
    private const double HalfPrecisionTolerance = 0.001;

    /// <summary>
    /// Writes NETWORK-xSCALE.safetensors (float16 where that changes no image's PSNR by 0.001 dB, else float32) and its card.
    /// </summary>
    /// <param name="network">Network name, e.g. "omnisr-light".</param>
    /// <param name="weights">The averaged weights of a training.</param>
    /// <param name="recipe">Its recipe, recorded in the card.</param>
    /// <param name="steps">Steps of the line of trainings.</param>
    /// <param name="seconds">Their time.</param>
    /// <param name="data">What was trained on, for the card.</param>
    /// <param name="licence">Terms of use, for the card.</param>
    /// <param name="validation">Named sets of images to measure on, e.g. "set5".</param>
    /// <param name="folder">Where file and card go; replaced together.</param>
    public static ModelCard Publish(string network, IReadOnlyDictionary<string, TensorData> weights, TrainingRecipe recipe, long steps, double seconds,
        string data, string licence, IReadOnlyDictionary<string, IReadOnlyList<TrainingPhoto>> validation, string folder)
    {
        OmniSrShape shape = OmniSrShape.Of(weights, recipe.Name);
        IReadOnlyDictionary<string, TensorData> half = weights.ToDictionary(
            pair => pair.Key, pair => pair.Value with { Values = Array.ConvertAll(pair.Value.Values, value => (float)(Half)value) }, StringComparer.Ordinal);
        var scores = new SortedDictionary<string, double>(StringComparer.Ordinal);
        bool halfIsEnough = true;
        foreach ((string set, IReadOnlyList<TrainingPhoto> images) in validation)
        {
            IReadOnlyList<ValidationScore> full = Validation.Psnr(shape, weights, images), rounded = Validation.Psnr(shape, half, images);
            halfIsEnough &= full.Zip(rounded).All(pair => Math.Abs(pair.First.PsnrY - pair.Second.PsnrY) < HalfPrecisionTolerance);
            scores[set + "_psnr_y"] = Math.Round(full.Average(score => score.PsnrY), 3);
            scores[set + "_bicubic_psnr_y"] = Math.Round(Validation.Psnr(shape, Initialisation.FromBicubic(shape, 0), images).Average(score => score.PsnrY), 3);
        }

        Directory.CreateDirectory(folder);
        string path = Path.Combine(folder, $"{network}-x{shape.Scale}.safetensors");
        SafetensorsFile.Write(path, weights, new Dictionary<string, string>(StringComparer.Ordinal) { ["architecture"] = shape.Architecture },
            halfIsEnough ? TensorStorage.Float16 : TensorStorage.Float32);
        var card = ModelCard.Of(network, shape, Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(path))), data, licence, steps, Math.Round(seconds),
            JsonSerializer.Deserialize<JsonElement>(recipe.ToJson()), scores);
        card.Save(Path.ChangeExtension(path, ".json"));
        return card;
    }
}

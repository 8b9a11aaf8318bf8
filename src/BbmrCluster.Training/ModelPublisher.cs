using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Training;

/// <summary>What a card says that no file of a training knows.</summary>
/// <param name="Data">What was trained on; null describes the photographs by their number.</param>
/// <param name="Licence">Under what terms the weights may be used.</param>
public sealed record Publication(string? Data, string Licence);

/// <summary>Turns the result of a training into weight files with cards for the model catalog.</summary>
public static class ModelPublisher
{
    /// <summary>Validation loss in dB that storing weights in 16 bits may cost.</summary>
    private const double HalfPrecisionTolerance = 0.001;

    /// <summary>
    /// Publishes the best weights of a training (the last ones if nothing was validated): one file, or the two of a Down-Net
    /// pair, named as <see cref="ModelNames"/>; float16 where that changes no validation image's PSNR by 0.001 dB, else float32.
    /// </summary>
    /// <param name="recipe">The recipe.</param>
    /// <param name="paths">The folders of its training.</param>
    /// <param name="publication">Words for the card.</param>
    /// <param name="folder">Where files and cards go; replaced together.</param>
    /// <returns>The cards.</returns>
    /// <exception cref="InvalidDataException">There is no result of this recipe; one sentence.</exception>
    public static IReadOnlyList<ModelCard> Publish(TrainingRecipe recipe, TrainingPaths paths, Publication publication, string folder)
    {
        SafetensorsFile first = Result("");
        IReadOnlyList<TrainingProgress> log = LearningCurve.Read(Path.Combine(paths.Output, recipe.Name + ".log.jsonl"));
        IReadOnlyList<ValidationSet> sets = ValidationSet.Load(paths);
        string data = publication.Data ?? $"{PhotoSet.Count(paths.Photos, "train")} photographs, each shrunk to its sharp size";
        (long earlierSteps, double earlierSeconds) = Earlier(recipe);
        long steps = earlierSteps + long.Parse(first.Metadata["step"], CultureInfo.InvariantCulture);
        double seconds = earlierSeconds + double.Parse(first.Metadata["seconds"], CultureInfo.InvariantCulture);
        Directory.CreateDirectory(folder);

        switch (recipe.Kind)
        {
            case TrainingKind.Sr:
            {
                int scale = recipe.Scale!.Value;
                SrNetworkShape shape = recipe.ShapeAt(scale);
                IReadOnlyDictionary<string, TensorData> bicubic = Initialisation.FromBicubic(shape, 0);
                return [Write(recipe.Network, shape, first.Tensors, "LR by the MATLAB-compatible 8-bit bicubic", weights => Measured("",
                    set => Validation.Psnr(shape, weights, set.Pairs(scale))), Means("_bicubic", set => Validation.Psnr(shape, bicubic, set.Pairs(scale))))];
            }
            case TrainingKind.Jointsr:
            {
                var shape = (JointSrShape)Architectures.Recognise(first.Tensors, recipe.Name).Shape;
                using var shrinker = BlockShrinker.Of(recipe, shape);
                return [Write(ModelNames.Joint(recipe.Network, recipe.Downscaler), shape, first.Tensors,
                    recipe.Downscaler is "bicubic" ? "LR of each block by itself by the MATLAB-compatible 8-bit bicubic" : "LR of each block by Down-Net, rounded to 8 bits",
                    weights => Measured("_blocks", set => Validation.Joint(shape, weights, set.InBlocks(), shrinker)), References())];
            }
            default:
            {
                var down = new DownNetShape(recipe.Scale!.Value);
                SrNetworkShape shape = recipe.ShapeAt(down.Scale);
                IReadOnlyDictionary<string, TensorData> network = Result(".network").Tensors;
                const string lr = "LR of each block by Down-Net, rounded to 8 bits";
                return
                [
                    Write(ModelNames.DownNet(recipe.Network), down, first.Tensors, lr, weights => Measured("_blocks", set => Validation.RoundTrip((down, weights), shape, network, set.InBlocks())), References()),
                    Write(ModelNames.Network(recipe.Network, "downnet"), shape, network, lr, weights => Measured("_blocks", set => Validation.RoundTrip((down, first.Tensors), shape, weights, set.InBlocks())), References()),
                ];
            }
        }

        SafetensorsFile Result(string suffix)
        {
            string path = Path.Combine(paths.Output, recipe.Name + suffix);
            return SafetensorsFile.Read(File.Exists(path + ".best.safetensors") ? path + ".best.safetensors" : File.Exists(path + ".safetensors") ? path + ".safetensors"
                : throw new InvalidDataException($"{paths.Output} holds no result of the recipe {recipe.Name}."));
        }

        ModelCard Write(string model, NetworkShape shape, IReadOnlyDictionary<string, TensorData> weights, string lr,
            Func<IReadOnlyDictionary<string, TensorData>, IReadOnlyDictionary<string, IReadOnlyList<ValidationScore>>> measure, IReadOnlyDictionary<string, double> references)
        {
            IReadOnlyDictionary<string, IReadOnlyList<ValidationScore>> full = measure(weights), half = measure(InHalfPrecision(weights));
            bool halfIsEnough = full.Count > 0 && full.All(set => set.Value.Zip(half[set.Key]).All(pair => Math.Abs(pair.First.PsnrY - pair.Second.PsnrY) < HalfPrecisionTolerance));
            var scores = new SortedDictionary<string, double>(references.ToDictionary(), StringComparer.Ordinal);
            foreach ((string set, IReadOnlyList<ValidationScore> images) in full)
            {
                scores[set + "_psnr_y"] = Math.Round(images.Average(image => image.PsnrY), 3);
                if (recipe.Kind == TrainingKind.Jointsr)
                    scores[set + "_seam"] = Math.Round(images.Average(image => image.Seam), 3);
            }

            string path = Path.Combine(folder, ModelNames.FileName(model, shape is JointSrShape ? null : shape.Scale));
            SafetensorsFile.Write(path, weights, new Dictionary<string, string>(StringComparer.Ordinal) { ["architecture"] = shape.Architecture },
                halfIsEnough ? TensorStorage.Float16 : TensorStorage.Float32);
            var card = ModelCard.Of(model, shape, Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(path))), $"{data}; {lr}", publication.Licence, steps, Math.Round(seconds),
                JsonSerializer.Deserialize<JsonElement>(recipe.ToJson()), scores) with { Curve = LearningCurve.Summary(log) };
            card.Save(Path.ChangeExtension(path, ".json"));
            return card;
        }

        Dictionary<string, IReadOnlyList<ValidationScore>> Measured(string label, Func<ValidationSet, IReadOnlyList<ValidationScore>> measure) =>
            sets.Select(set => (set.Name, Scores: measure(set))).Where(set => set.Scores.Count > 0).ToDictionary(set => set.Name + label, set => set.Scores, StringComparer.Ordinal);

        Dictionary<string, double> Means(string label, Func<ValidationSet, IReadOnlyList<ValidationScore>> measure) =>
            Measured(label, measure).ToDictionary(set => set.Key + "_psnr_y", set => Math.Round(set.Value.Average(image => image.PsnrY), 3), StringComparer.Ordinal);

        // What the start reaches was measured at the start.
        Dictionary<string, double> References() => (log.LastOrDefault(line => line.Scores is not null)?.Scores ?? new Dictionary<string, double>(StringComparer.Ordinal))
            .Where(score => score.Key.Contains("_warm_", StringComparison.Ordinal) || score.Key.Contains("_bicubic_", StringComparison.Ordinal))
            .ToDictionary(score => score.Key, score => Math.Round(score.Value, 3), StringComparer.Ordinal);
    }

    /// <summary>Weights as they come back from 16 bits.</summary>
    private static Dictionary<string, TensorData> InHalfPrecision(IReadOnlyDictionary<string, TensorData> weights) => weights.ToDictionary(
        pair => pair.Key, pair => pair.Value with { Values = Array.ConvertAll(pair.Value.Values, value => (float)(Half)value) }, StringComparer.Ordinal);

    /// <summary>Steps and seconds of the weights that a training started from, as far as they have cards.</summary>
    private static (long Steps, double Seconds) Earlier(TrainingRecipe recipe)
    {
        var cards = new List<ModelCard>();
        foreach (string file in (string[])[.. recipe.StartNetworks ?? [], .. recipe.StartFrom is { } start ? [start] : Array.Empty<string>()])
        {
            string card = Path.ChangeExtension(file, ".json");
            if (File.Exists(card))
                cards.Add(ModelCard.Load(card));
        }
        if (recipe.Kind != TrainingKind.Sr && recipe.StartNetworks is null)
        {
            int[] scales = recipe.Scale is { } scale ? [scale] : [2, 4, 8];
            cards.AddRange(scales.Select(k => new ModelCatalog().Load(ModelNames.Network(recipe.Network, recipe.Downscaler), k).Card).OfType<ModelCard>());
        }
        return (cards.Sum(card => card.Steps), cards.Sum(card => card.Seconds));
    }
}

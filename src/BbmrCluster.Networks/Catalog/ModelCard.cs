using System.Text.Json;
using System.Text.Json.Serialization;

namespace BbmrCluster.Networks.Catalog;

/// <summary>What is known about a weight file; JSON (snake_case) beside it under the same name.</summary>
/// <param name="Network">Network name on the command line, e.g. "omnisr-light".</param>
/// <param name="Architecture">omnisr, craft or downnet.</param>
/// <param name="Scale">Upscaling factor.</param>
/// <param name="Osags">Omni self-attention groups; 0 in other architectures.</param>
/// <param name="Parameters">Number of values.</param>
/// <param name="Sha256">Of the weight file, lower-case hex.</param>
/// <param name="Data">What it was trained on.</param>
/// <param name="Downscaler">How its LR images were made: bicubic or downnet.</param>
/// <param name="Steps">Optimizer steps, over all recipes in its line.</param>
/// <param name="Seconds">Training time, over all recipes in its line.</param>
/// <param name="Recipe">The recipe it was trained with.</param>
/// <param name="Scores">Measured quality, name to dB, e.g. "set5_psnr_y", with the reference "set5_bicubic_psnr_y".</param>
/// <param name="Licence">Under what terms it may be used.</param>
public sealed record ModelCard(
    string Network, string Architecture, int Scale, int Osags, long Parameters, string Sha256, string Data, string Downscaler, long Steps, double Seconds,
    JsonElement? Recipe, IReadOnlyDictionary<string, double> Scores, string Licence)
{
    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DictionaryKeyPolicy = JsonNamingPolicy.SnakeCaseLower,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
        UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
        WriteIndented = true,
    };

    /// <summary>Reads a card.</summary>
    /// <exception cref="InvalidDataException">Not a card; one sentence naming the file.</exception>
    public static ModelCard Load(string path)
    {
        try
        {
            return JsonSerializer.Deserialize<ModelCard>(File.ReadAllText(path), Json) ?? throw new JsonException("it is empty");
        }
        catch (JsonException problem)
        {
            throw new InvalidDataException($"{path} is not a model card: {problem.Message}", problem);
        }
    }

    /// <summary>Writes the card as JSON.</summary>
    public void Save(string path) => File.WriteAllText(path, JsonSerializer.Serialize(this, Json) + "\n");
}

using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using BbmrCluster.Networks.JointSr;

namespace BbmrCluster.Networks.Catalog;

/// <summary>A validation figure over a training.</summary>
/// <param name="Measure">Its name, e.g. "photographs_psnr_y".</param>
/// <param name="Steps">Optimizer steps, ascending.</param>
/// <param name="PsnrY">The figure at each of them, dB.</param>
public sealed record ValidationCurve(string Measure, IReadOnlyList<int> Steps, IReadOnlyList<double> PsnrY);

/// <summary>
/// What is known about a weight file; JSON (snake_case) beside it under the same name. Made by <see cref="Of"/>, so that
/// what it says of the network is read off the network.
/// </summary>
/// <param name="Network">Name of the model as in <see cref="ModelNames"/>, without scale, e.g. "omnisr-light" or "omnisr-light-joint".</param>
/// <param name="Architecture">As <see cref="NetworkShape.Architecture"/>.</param>
/// <param name="Parameters">Number of values.</param>
/// <param name="Sha256">Of the weight file, lower-case hex.</param>
/// <param name="Data">What it was trained on.</param>
/// <param name="Downscaler">How its LR images were made: bicubic or downnet.</param>
/// <param name="Steps">Optimizer steps, over all recipes in its line.</param>
/// <param name="Seconds">Training time, over all recipes in its line.</param>
/// <param name="Recipe">The recipe it was trained with; null when it was trained elsewhere.</param>
/// <param name="Scores">Measured quality, name to dB, e.g. "set5_psnr_y", with the reference "set5_bicubic_psnr_y".</param>
/// <param name="Licence">Under what terms it may be used.</param>
/// <param name="Scale">Factor of a model of one scale; null for JointSR.</param>
/// <param name="Scales">Scales of JointSR, ascending; null for others.</param>
/// <param name="Description">The network in words; null on old cards.</param>
/// <param name="Curve">How validation went in the recipe's training; null where none was kept.</param>
public sealed record ModelCard(
    [property: JsonPropertyOrder(-9)] string Network, [property: JsonPropertyOrder(-9)] string Architecture,
    long Parameters, string Sha256, string Data, string Downscaler, long Steps, double Seconds,
    JsonElement? Recipe, IReadOnlyDictionary<string, double> Scores, string Licence,
    [property: JsonPropertyOrder(-8), JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] int? Scale = null,
    [property: JsonPropertyOrder(-8), JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<int>? Scales = null,
    [property: JsonPropertyOrder(-7), JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Description = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] ValidationCurve? Curve = null)
{
    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DictionaryKeyPolicy = JsonNamingPolicy.SnakeCaseLower,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
        UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
        WriteIndented = true,
        TypeInfoResolver = new DefaultJsonTypeInfoResolver { Modifiers = { AddSizes } },
    };

    /// <summary>
    /// Sizes that the architecture has beside its scale (of JointSR, its extractors), as <see cref="NetworkShape.Sizes"/>
    /// gives them: in JSON, properties of their own beside the scale. Some may be missing on old cards.
    /// </summary>
    [JsonIgnore]
    public IReadOnlyList<NetworkSize> Sizes { get; private set; } = [];

    /// <summary>A card that describes a network of any architecture.</summary>
    /// <param name="network">Name of the model, see <see cref="ModelNames"/>.</param>
    /// <param name="shape">Its shape.</param>
    /// <param name="sha256">Of the weight file, lower-case hex.</param>
    /// <param name="data">What it was trained on.</param>
    /// <param name="licence">Under what terms it may be used.</param>
    /// <param name="steps">Optimizer steps.</param>
    /// <param name="seconds">Training time.</param>
    /// <param name="recipe">The recipe.</param>
    /// <param name="scores">Name to dB.</param>
    public static ModelCard Of(string network, NetworkShape shape, string sha256, string data, string licence, long steps = 0, double seconds = 0, JsonElement? recipe = null,
        IReadOnlyDictionary<string, double>? scores = null)
    {
        return new ModelCard(network, shape.Architecture, shape.BlockCost().Parameters, sha256, data, ModelNames.IsOfDownNet(network) ? "downnet" : "bicubic", steps, seconds,
            recipe, scores ?? new Dictionary<string, double>(StringComparer.Ordinal), licence,
            shape is JointSrShape ? null : shape.Scale, shape is JointSrShape ? shape.Scales : null, shape.Description)
        { Sizes = shape.Sizes };
    }

    /// <summary>One of <see cref="Sizes"/>; null where the card has none of that name.</summary>
    public IReadOnlyList<int>? SizeOf(string name) => Sizes.FirstOrDefault(size => string.Equals(size.Name, name, StringComparison.Ordinal))?.Values;

    /// <summary>What the card says that the network contradicts; null when it fits. Sizes of old cards may be missing.</summary>
    /// <param name="shape">Read off the tensors.</param>
    public string? Contradicts(NetworkShape shape)
    {
        ModelCard truth = Of(Network, shape, Sha256, Data, Licence);
        if (!string.Equals(Architecture, truth.Architecture, StringComparison.Ordinal))
            return $"the architecture {Architecture}";
        if (Scale != truth.Scale || !Same(Scales, truth.Scales))
            return $"the scale {Scale?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? string.Join(", ", Scales ?? [])}";
        NetworkSize? wrong = Sizes.FirstOrDefault(size => !truth.Sizes.Any(read => string.Equals(read.Name, size.Name, StringComparison.Ordinal) && read.Values.SequenceEqual(size.Values)));
        return wrong is null ? null : $"{wrong.Name} {string.Join(", ", wrong.Values)}";

        static bool Same(IReadOnlyList<int>? a, IReadOnlyList<int>? b) => (a ?? []).SequenceEqual(b ?? []);
    }

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

    // Each size that an architecture of this program has is a property that a card may hold.
    private static void AddSizes(JsonTypeInfo info)
    {
        if (info.Type != typeof(ModelCard))
            return;
        foreach (NetworkSize size in Architectures.Networks.SelectMany(network => network.At(2).Sizes).DistinctBy(size => size.Name, StringComparer.Ordinal))
        {
            JsonPropertyInfo property = info.CreateJsonPropertyInfo(size.IsList ? typeof(IReadOnlyList<int>) : typeof(int?), size.Name);
            property.Order = -8;
            property.Get = card => ((ModelCard)card).SizeOf(size.Name) is not { } own ? null : size.IsList ? own : own[0];
            property.ShouldSerialize = (_, value) => value is not null;
            property.Set = (card, value) =>
            {
                if (value is not null)
                    ((ModelCard)card).Sizes = [.. ((ModelCard)card).Sizes, size with { Values = value as IReadOnlyList<int> ?? [(int)value] }];
            };
            info.Properties.Add(property);
        }
    }
}

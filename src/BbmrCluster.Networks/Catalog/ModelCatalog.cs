using System.Collections.Concurrent;
using System.Security.Cryptography;
using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Networks.Catalog;

/// <summary>Whether a network can be used.</summary>
public enum ModelState
{
    /// <summary>Weights are there, with a card that fits them (as far as it was checked).</summary>
    Ready,

    /// <summary>Weights are there without a card: they are used as they are.</summary>
    WithoutCard,

    /// <summary>The network is known, but no weights for it are here.</summary>
    WithoutWeights,

    /// <summary>File or card cannot be used, or they contradict each other.</summary>
    Damaged,
}

/// <summary>One network at one scale.</summary>
/// <param name="Network">omnisr-light, omnisr, craft or downnet.</param>
/// <param name="Scale">Upscaling factor.</param>
/// <param name="State">Whether it can be used.</param>
/// <param name="Path">Where its weights are or would be.</param>
/// <param name="Card">Its card, if there is a readable one.</param>
/// <param name="Problem">Why it cannot be used: one sentence; null when it can.</param>
public sealed record ModelEntry(string Network, int Scale, ModelState State, string Path, ModelCard? Card, string? Problem);

/// <summary>Weights of one network, read once.</summary>
/// <param name="FileName">Name without folder.</param>
/// <param name="Sha256">Lower-case hex, of the bytes that were read.</param>
/// <param name="Shape">Shape read off the tensors.</param>
/// <param name="Tensors">Official name to values; shared, not to be changed.</param>
/// <param name="Card">The card, if there is one.</param>
public sealed record LoadedModel(string FileName, string Sha256, NetworkShape Shape, IReadOnlyDictionary<string, TensorData> Tensors, ModelCard? Card)
{
    /// <summary>The shape of a network that upscales.</summary>
    /// <exception cref="EngineUnavailableException">It is Down-Net: one sentence.</exception>
    public SrNetworkShape SrShape => Shape as SrNetworkShape ?? throw new EngineUnavailableException($"{FileName} holds {Shape.Description}, which does not upscale.");
}

/// <summary>
/// The folder of weight files (<c>NETWORK-xSCALE.safetensors</c>, card beside it). Thread-safe; a file is read, hashed
/// and checked against its card once per process.
/// </summary>
public sealed class ModelCatalog
{
    private static readonly ConcurrentDictionary<string, Lazy<LoadedModel>> Loaded = new(StringComparer.Ordinal);

    /// <summary>Networks of the command line.</summary>
    public static IReadOnlyList<string> Networks { get; } = ["omnisr-light", "omnisr", "craft", "downnet"];

    /// <summary>Scales that weights are looked for at.</summary>
    public static IReadOnlyList<int> Scales { get; } = [2, 4, 8];

    /// <summary>Opens a folder; it need not exist.</summary>
    /// <param name="folder">Null takes BBMR_MODELS, else <c>models</c> beside the program.</param>
    public ModelCatalog(string? folder = null)
    {
        folder ??= Environment.GetEnvironmentVariable("BBMR_MODELS") is { Length: > 0 } named ? named : Path.Combine(AppContext.BaseDirectory, "models");
        Folder = Path.GetFullPath(folder);
    }

    /// <summary>The folder, absolute.</summary>
    public string Folder { get; }

    /// <summary>Every known network at every scale; reads the cards, not the weights.</summary>
    public IReadOnlyList<ModelEntry> List() => [.. Networks.SelectMany(network => Scales.Select(scale => Entry(network, scale, verify: false)))];

    /// <summary>As <see cref="List"/>, but reads every weight file and checks it against its card.</summary>
    public IReadOnlyList<ModelEntry> Verify() => [.. Networks.SelectMany(network => Scales.Select(scale => Entry(network, scale, verify: true)))];

    /// <summary>Reads weights and checks them against their card.</summary>
    /// <exception cref="EngineUnavailableException">Unknown network, no weights, or weights that do not fit their card: one sentence.</exception>
    public LoadedModel Load(string network, int scale)
    {
        string path = PathOf(network, scale);
        RequireWeights(network, scale, path);
        try
        {
            return Loaded.GetOrAdd($"{path}|{File.GetLastWriteTimeUtc(path).Ticks}", _ => new Lazy<LoadedModel>(() => Read(network, scale, path))).Value;
        }
        catch (Exception problem) when (problem is InvalidDataException or IOException or UnauthorizedAccessException)
        {
            throw new EngineUnavailableException(problem.Message, problem);
        }
    }

    /// <summary>Where the weights of a network are or would be.</summary>
    public string PathOf(string network, int scale) => Path.Combine(Folder, $"{network}-x{scale}.safetensors");

    private static void RequireWeights(string network, int scale, string path)
    {
        if (!Networks.Contains(network, StringComparer.Ordinal))
            throw new EngineUnavailableException($"There is no network '{network}': choose one of {string.Join(", ", Networks)}.");
        if (WhyUnusable(network, scale, path) is { } reason)
            throw new EngineUnavailableException(reason);
    }

    /// <summary>The shape that the weights of a network have.</summary>
    /// <param name="network">One of <see cref="Networks"/>.</param>
    /// <param name="scale">Its scale.</param>
    public static NetworkShape StandardShape(string network, int scale) => network switch
    {
        "omnisr-light" => new OmniSrShape(scale, 1),
        "omnisr" => new OmniSrShape(scale, 5),
        "craft" => CraftShape.Published(scale),
        "downnet" => new DownNetShape(scale),
        _ => throw new ArgumentException($"There is no network '{network}'.", nameof(network)),
    };

    private static string? WhyUnusable(string network, int scale, string path) =>
        File.Exists(path) ? null : $"There are no weights of {network} for scale {scale} ({path} is missing).";

    private ModelEntry Entry(string network, int scale, bool verify)
    {
        string path = PathOf(network, scale), cardPath = Path.ChangeExtension(path, ".json");
        if (WhyUnusable(network, scale, path) is { } reason)
            return new ModelEntry(network, scale, ModelState.WithoutWeights, path, null, reason);
        ModelCard? card = null;
        try
        {
            card = File.Exists(cardPath) ? ModelCard.Load(cardPath) : null;
            if (verify)
                Read(network, scale, path);
            return new ModelEntry(network, scale, card is null ? ModelState.WithoutCard : ModelState.Ready, path, card, null);
        }
        catch (Exception problem) when (problem is InvalidDataException or IOException or UnauthorizedAccessException)
        {
            return new ModelEntry(network, scale, ModelState.Damaged, path, card, problem.Message);
        }
    }

    private static LoadedModel Read(string network, int scale, string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        string hash = Convert.ToHexStringLower(SHA256.HashData(bytes));
        string cardPath = Path.ChangeExtension(path, ".json");
        ModelCard? card = File.Exists(cardPath) ? ModelCard.Load(cardPath) : null;
        if (card is not null && !string.Equals(card.Sha256, hash, StringComparison.OrdinalIgnoreCase))
            throw new InvalidDataException($"{path} is not the file that its card describes: its SHA-256 is {hash}, the card says {card.Sha256}.");

        (NetworkShape shape, IReadOnlyDictionary<string, TensorData> tensors) = NetworkShape.Recognise(SafetensorsFile.Parse(bytes, path).Tensors, path);
        bool asWanted = shape.Scale == scale && string.Equals(shape.Architecture, StandardShape(network, scale).Architecture, StringComparison.Ordinal);
        bool asOnCard = card is null || (card.Scale == scale && string.Equals(card.Network, network, StringComparison.Ordinal) && (shape is not OmniSrShape omni || card.Osags == omni.Osags));
        if (!asWanted || !asOnCard)
            throw new InvalidDataException($"{path} does not hold {network} at scale {scale}: it is {shape.Description}.");
        return new LoadedModel(Path.GetFileName(path), hash, shape, tensors, card);
    }
}

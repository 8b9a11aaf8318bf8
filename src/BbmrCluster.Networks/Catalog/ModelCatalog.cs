using System.Collections.Concurrent;
using System.Security.Cryptography;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Networks.Catalog;

/// <summary>Whether a model can be used.</summary>
public enum ModelState
{
    /// <summary>Weights are there, with a card that fits them (as far as it was checked).</summary>
    Ready,

    /// <summary>Weights are there without a card: they are used as they are.</summary>
    WithoutCard,

    /// <summary>The model is known, but no weights for it are here.</summary>
    WithoutWeights,

    /// <summary>File or card cannot be used, or they contradict each other.</summary>
    Damaged,
}

/// <summary>One weight file that is here or could be.</summary>
/// <param name="Model">Name as in <see cref="ModelNames"/>, e.g. "omnisr-light", "downnet-omnisr" or "craft-joint".</param>
/// <param name="Scale">Scale factor; null for JointSR, whose file holds several.</param>
/// <param name="State">Whether it can be used.</param>
/// <param name="Path">Where its weights are or would be.</param>
/// <param name="Card">Its card, if there is a readable one.</param>
/// <param name="Problem">Why it cannot be used: one sentence; null when it can.</param>
public sealed record ModelEntry(string Model, int? Scale, ModelState State, string Path, ModelCard? Card, string? Problem)
{
    /// <summary>What the file holds.</summary>
    public ModelKind Kind => ModelNames.KindOf(Model);
}

/// <summary>Weights of one model, read once.</summary>
/// <param name="FileName">Name without folder.</param>
/// <param name="Sha256">Lower-case hex, of the bytes that were read.</param>
/// <param name="Shape">Shape read off the tensors.</param>
/// <param name="Tensors">Official name to values; shared, not to be changed.</param>
/// <param name="Card">The card, if there is one.</param>
public sealed record LoadedModel(string FileName, string Sha256, NetworkShape Shape, IReadOnlyDictionary<string, TensorData> Tensors, ModelCard? Card)
{
    /// <summary>Name as in <see cref="ModelNames"/>, without scale.</summary>
    public string Name => ModelNames.Parse(FileName)!.Value.Model;

    /// <summary>The shape of a network that upscales.</summary>
    /// <exception cref="EngineUnavailableException">It is none: one sentence.</exception>
    public SrNetworkShape SrShape => Shape as SrNetworkShape ?? throw new EngineUnavailableException($"{FileName} holds {Shape.Description}, which does not upscale.");
}

/// <summary>
/// Folders of weight files with a card beside each, named as <see cref="ModelNames"/> says. All files of a network come
/// from the first folder that has one, so that a user's network is never mixed with a shipped one of the same name.
/// Thread-safe; a file is read, hashed and checked against its card once per process.
/// </summary>
public sealed class ModelCatalog
{
    private static readonly ConcurrentDictionary<string, Lazy<LoadedModel>> Loaded = new(StringComparer.Ordinal);
    private static readonly ConcurrentDictionary<string, string> Hashed = new(StringComparer.Ordinal);

    /// <summary>Scales that weights are looked for at.</summary>
    public static IReadOnlyList<int> Scales { get; } = [2, 4, 8];

    /// <summary>Opens folders; they need not exist.</summary>
    /// <param name="folder">The only folder. Null takes those of BBMR_MODELS, else the user's own and <c>models</c> beside the program.</param>
    public ModelCatalog(string? folder = null)
    {
        string named = folder ?? Environment.GetEnvironmentVariable("BBMR_MODELS") ?? "";
        string own = Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify);
        string[] folders = folder is not null ? [folder]
            : named.Length > 0 ? named.Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
            : [.. own.Length > 0 ? [Path.Combine(own, "bbmr", "models")] : Array.Empty<string>(), Path.Combine(AppContext.BaseDirectory, "models")];
        Folders = [.. folders.Select(Path.GetFullPath)];
        OwnFolder = named.Length > 0 || own.Length > 0 ? Folders[0] : null;
    }

    /// <summary>The folders in the order in which they are searched, absolute.</summary>
    public IReadOnlyList<string> Folders { get; }

    /// <summary>Where added models go; null when the user has no folder.</summary>
    public string? OwnFolder { get; }

    /// <summary>Names for --network: those that the program knows and those that have weights here.</summary>
    public IReadOnlyList<string> Networks =>
    [
        .. KnownNames,
        .. Files().Select(file => ModelNames.NetworkOf(file.Model)).Distinct(StringComparer.Ordinal).Except(KnownNames, StringComparer.Ordinal).Order(StringComparer.Ordinal),
    ];

    /// <summary>Every known model at every scale and what else is here; reads the cards, not the weights.</summary>
    public IReadOnlyList<ModelEntry> List() => [.. All().Select(model => Entry(model.Model, model.Scale, verify: false))];

    /// <summary>As <see cref="List"/>, but reads every weight file and checks it against its card.</summary>
    public IReadOnlyList<ModelEntry> Verify() => [.. All().Select(model => Entry(model.Model, model.Scale, verify: true))];

    /// <summary>The weight files that would be used, file name to SHA-256. Files are read when they are new or were changed; one that cannot be read is left out.</summary>
    public IReadOnlyDictionary<string, string> Hashes()
    {
        var hashes = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach ((string folder, string model, int? scale) in Files().ToList())
        {
            string name = ModelNames.FileName(model, scale), path = Path.Combine(folder, name);
            if (!string.Equals(folder, FolderOf(ModelNames.NetworkOf(model)), StringComparison.Ordinal))
                continue;
            try
            {
                hashes[name] = Hashed.GetOrAdd($"{path}|{File.GetLastWriteTimeUtc(path).Ticks}|{new FileInfo(path).Length}", _ =>
                {
                    using FileStream file = File.OpenRead(path);
                    return Convert.ToHexStringLower(SHA256.HashData(file));
                });
            }
            catch (Exception problem) when (problem is IOException or UnauthorizedAccessException)
            {
                // Gone or being written: it counts when it can be read.
            }
        }
        return hashes;
    }

    /// <summary>Reads weights and checks them against their card.</summary>
    /// <param name="model">Name as in <see cref="ModelNames"/>.</param>
    /// <param name="scale">Scale factor; null for JointSR.</param>
    /// <exception cref="EngineUnavailableException">Unknown model, no weights, or weights that do not fit their card: one sentence.</exception>
    public LoadedModel Load(string model, int? scale)
    {
        if (!Networks.Contains(ModelNames.NetworkOf(model), StringComparer.Ordinal))
            throw new EngineUnavailableException($"There is no network '{ModelNames.NetworkOf(model)}': choose one of {string.Join(", ", Networks)}.");
        string path = PathOf(model, scale);
        if (WhyUnusable(model, scale, path) is { } reason)
            throw new EngineUnavailableException(reason);
        try
        {
            return Loaded.GetOrAdd($"{path}|{File.GetLastWriteTimeUtc(path).Ticks}", _ => new Lazy<LoadedModel>(() => Read(model, scale, path))).Value;
        }
        catch (Exception problem) when (problem is InvalidDataException or IOException or UnauthorizedAccessException)
        {
            throw new EngineUnavailableException(problem.Message, problem);
        }
    }

    /// <summary>Where the weights of a model are or would be.</summary>
    /// <param name="model">Name as in <see cref="ModelNames"/>.</param>
    /// <param name="scale">Scale factor; null for JointSR.</param>
    public string PathOf(string model, int? scale) => Path.Combine(FolderOf(ModelNames.NetworkOf(model)) ?? Folders[^1], ModelNames.FileName(model, scale));

    /// <summary>The first folder that has a file of a network; null when none has.</summary>
    /// <param name="network">Network name.</param>
    public string? FolderOf(string network) => Files().FirstOrDefault(file => string.Equals(ModelNames.NetworkOf(file.Model), network, StringComparison.Ordinal)).Folder;

    /// <summary>The shape that the weights of a model have when this project trained them.</summary>
    /// <param name="model">A name of <see cref="ModelNames"/> with a network that the program knows.</param>
    /// <param name="scale">Its scale; null for JointSR, which then has <see cref="Scales"/>.</param>
    public static NetworkShape StandardShape(string model, int? scale)
    {
        string network = ModelNames.NetworkOf(model);
        return ModelNames.KindOf(model) switch
        {
            ModelKind.DownNet => new DownNetShape(scale ?? throw new ArgumentNullException(nameof(scale))),
            ModelKind.Joint => new JointSrShape([.. Scales.Select(one => Sr(one))]),
            _ => Sr(scale ?? throw new ArgumentNullException(nameof(scale))),
        };

        SrNetworkShape Sr(int at) => Architectures.Find(network)?.At(at) ?? throw new ArgumentException($"There is no network '{network}'.", nameof(model));
    }

    private static IEnumerable<string> KnownNames => Architectures.Networks.Select(network => network.Name);

    private static IEnumerable<(string Model, int? Scale)> Known() =>
        from network in KnownNames
        from downscaler in (string[])["bicubic", "downnet"]
        from model in (string[])[.. downscaler is "downnet" ? [ModelNames.DownNet(network)] : Array.Empty<string>(), ModelNames.Network(network, downscaler), ModelNames.Joint(network, downscaler)]
        from scale in ModelNames.KindOf(model) == ModelKind.Joint ? [null] : Scales.Select(scale => (int?)scale)
        select (model, scale);

    // Known models in their order, then others by name. Of a network that is in two folders, the files of the first count.
    private IEnumerable<(string Model, int? Scale)> All() =>
        Known().Concat(Files().Where(file => string.Equals(file.Folder, FolderOf(ModelNames.NetworkOf(file.Model)), StringComparison.Ordinal))
            .Select(file => (file.Model, file.Scale)).Order()).Distinct();

    private IEnumerable<(string Folder, string Model, int? Scale)> Files() =>
        from folder in Folders
        where Directory.Exists(folder)
        from file in Directory.EnumerateFiles(folder, "*.safetensors").Order(StringComparer.Ordinal)
        let name = ModelNames.Parse(Path.GetFileName(file))
        where name is not null
        select (folder, name.Value.Model, name.Value.Scale);

    private string? WhyUnusable(string model, int? scale, string path) => File.Exists(path)
        ? null
        : $"There are no weights of {model}{(scale is { } one ? $" for scale {one}" : "")} ({Path.GetFileName(path)} is not in {string.Join(" or ", FolderOf(ModelNames.NetworkOf(model)) is { } folder ? [folder] : Folders)}).";

    private ModelEntry Entry(string model, int? scale, bool verify)
    {
        string path = PathOf(model, scale), cardPath = Path.ChangeExtension(path, ".json");
        if (WhyUnusable(model, scale, path) is { } reason)
            return new ModelEntry(model, scale, ModelState.WithoutWeights, path, null, reason);
        ModelCard? card = null;
        try
        {
            card = File.Exists(cardPath) ? ModelCard.Load(cardPath) : null;
            if (verify)
                Read(model, scale, path);
            return new ModelEntry(model, scale, card is null ? ModelState.WithoutCard : ModelState.Ready, path, card, null);
        }
        catch (Exception problem) when (problem is InvalidDataException or IOException or UnauthorizedAccessException)
        {
            return new ModelEntry(model, scale, ModelState.Damaged, path, card, problem.Message);
        }
    }

    private static LoadedModel Read(string model, int? scale, string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        string hash = Convert.ToHexStringLower(SHA256.HashData(bytes));
        string cardPath = Path.ChangeExtension(path, ".json");
        ModelCard? card = File.Exists(cardPath) ? ModelCard.Load(cardPath) : null;
        if (card is not null && !string.Equals(card.Sha256, hash, StringComparison.OrdinalIgnoreCase))
            throw new InvalidDataException($"{path} is not the file that its card describes: its SHA-256 is {hash}, the card says {card.Sha256}.");

        (NetworkShape shape, IReadOnlyDictionary<string, TensorData> tensors) = Architectures.Recognise(SafetensorsFile.Parse(bytes, path), path);
        bool known = Architectures.Find(ModelNames.NetworkOf(model)) is not null;
        bool asWanted = KindOf(shape) == ModelNames.KindOf(model) && (scale is null || shape.Scale == scale)
            && (!known || string.Equals(shape.Architecture, StandardShape(model, scale).Architecture, StringComparison.Ordinal));
        if (!asWanted || (card is not null && !string.Equals(card.Network, model, StringComparison.Ordinal)))
            throw new InvalidDataException($"{path} does not hold {model}{(scale is { } one ? $" at scale {one}" : "")}: it is {shape.Description}.");
        return card?.Contradicts(shape) is { } wrong
            ? throw new InvalidDataException($"{path} is not what its card describes: it is {shape.Description}, the card says {wrong}.")
            : new LoadedModel(Path.GetFileName(path), hash, shape, tensors, card);
    }

    /// <summary>What a shape is.</summary>
    public static ModelKind KindOf(NetworkShape shape) => shape switch { JointSrShape => ModelKind.Joint, DownNetShape => ModelKind.DownNet, _ => ModelKind.Network };
}

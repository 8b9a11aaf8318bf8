using System.Text.Json;
using System.Text.Json.Serialization;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;

namespace BbmrCluster.Training;

/// <summary>What a recipe trains.</summary>
public enum TrainingKind
{
    /// <summary>One super-resolution network, by L1.</summary>
    Sr,

    /// <summary>JointSR as one unit: an extractor for each scale and the joint part, by L1 on stitched crops.</summary>
    Jointsr,

    /// <summary>A Down-Net with the super-resolution network behind it, by equation 6.</summary>
    Downnet,
}

/// <summary>
/// How one network is trained; a small JSON file (snake_case). Every figure that changes the result is here, so the
/// same recipe on the same photographs and processor gives the same weights.
/// </summary>
public sealed record TrainingRecipe
{
    /// <summary>File name of the results, e.g. "omnisr-light-x4".</summary>
    public required string Name { get; init; }

    /// <summary>For the reader.</summary>
    public string? Note { get; init; }

    /// <summary>What is trained: "sr", "jointsr" or "downnet".</summary>
    public TrainingKind Kind { get; init; }

    /// <summary>The super-resolution network, one of <see cref="Architectures.Networks"/>.</summary>
    public string Network { get; init; } = "omnisr-light";

    /// <summary>Scale of "sr" and "downnet": 2, 4 or 8.</summary>
    public int? Scale { get; init; }

    /// <summary>Side of a training patch of "sr", LR pixels; at least 16.</summary>
    public int LrPatch { get; init; } = 32;

    /// <summary>Side of a training crop of "jointsr" (whole blocks of 128) or "downnet" (a multiple of the scale), HR pixels. The paper: 768 and 256.</summary>
    public int? HrCrop { get; init; }

    /// <summary>
    /// For "jointsr": blocks of a crop at scales 2, 4 and 8, together the blocks of a crop. The paper trains with as many
    /// of each; at test time there are four at scale 8 for each at scale 2.
    /// </summary>
    public IReadOnlyList<int>? Mix { get; init; }

    /// <summary>For "jointsr": which blocks get which scale. "random" (the paper), or "detail": the most detailed get scale 2, the flattest scale 8.</summary>
    public string Assignment { get; init; } = "random";

    /// <summary>
    /// For "jointsr": 0 takes the gradient in one pass; otherwise extractors run without gradient first, and then again
    /// with it, this many blocks at a time. The gradient is the same; memory follows the blocks at a time.
    /// </summary>
    public int BlocksAtOnce { get; init; }

    /// <summary>For "jointsr": how LR blocks are made, "bicubic", or "downnet" by the Down-Nets of the network as they are in the catalog, which stay as they are.</summary>
    public string Downscaler { get; init; } = "bicubic";

    /// <summary>For "downnet": first steps, in which Down-Net alone approaches bicubic.</summary>
    public int FitSteps { get; init; }

    /// <summary>Patches or crops in a step.</summary>
    public int Batch { get; init; } = 16;

    /// <summary>Optimizer steps.</summary>
    public required int Steps { get; init; }

    /// <summary>Peak learning rate of AdamW.</summary>
    public double LearningRate { get; init; } = 5e-4;

    /// <summary>Steps over which the rate rises linearly from 0; also after a start from other weights, whose moments are not known.</summary>
    public int WarmupSteps { get; init; } = 100;

    /// <summary>"cosine" falls to 0 at the last step; "halving" halves the rate every <see cref="HalveEvery"/> steps.</summary>
    public string Schedule { get; init; } = "cosine";

    /// <summary>Steps between halvings; needed by "halving".</summary>
    public int HalveEvery { get; init; }

    /// <summary>AdamW's decoupled weight decay.</summary>
    public double WeightDecay { get; init; } = 1e-4;

    /// <summary>Largest L2 norm of a step's gradient; longer ones are scaled down. 0 turns it off.</summary>
    public double ClipNorm { get; init; } = 1;

    /// <summary>Decay of the exponential moving average of the weights, which is what is validated and shipped.</summary>
    public double EmaDecay { get; init; } = 0.999;

    /// <summary>Type of the body's arithmetic: "float32" or "bfloat16" (weights and gradients stay float32).</summary>
    public string Precision { get; init; } = "bfloat16";

    /// <summary>Patches whose mean absolute horizontal and vertical difference (8-bit units; of the LR patch, or of the HR crop) is below this are mostly drawn again.</summary>
    public double FlatThreshold { get; init; } = 4;

    /// <summary>Strength of random gamma and gain of each colour, applied to HR before LR is made: 0.1 is up to a tenth. 0 turns it off.</summary>
    public double ColourJitter { get; init; }

    /// <summary>
    /// Weights to start from (safetensors, relative to the recipe's file): of the same kind. An "sr" network of another
    /// scale has its tail resampled. Null: "sr" starts as bicubic, "jointsr" as its extractors block by block, "downnet" as the mean of squares.
    /// </summary>
    public string? StartFrom { get; init; }

    /// <summary>Super-resolution weights that "jointsr" (one file for each scale) and "downnet" (one file) start from, relative to the recipe's file. Null takes the shipped ones.</summary>
    public IReadOnlyList<string>? StartNetworks { get; init; }

    /// <summary>Seed of initial values and patches.</summary>
    public int Seed { get; init; } = 1;

    /// <summary>Threads; part of the recipe because sums depend on them in the last bits.</summary>
    public int Threads { get; init; } = 1;

    /// <summary>Steps between log lines.</summary>
    public int LogEvery { get; init; } = 50;

    /// <summary>Steps between validations and checkpoints.</summary>
    public int ValidateEvery { get; init; } = 500;

    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
        ReadCommentHandling = JsonCommentHandling.Skip,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        WriteIndented = true,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower, allowIntegerValues: false) },
    };

    /// <summary>Reads and checks a recipe; the weights it starts from become absolute paths.</summary>
    /// <exception cref="InvalidDataException">Not a recipe, or one that cannot be followed; one sentence naming the file.</exception>
    public static TrainingRecipe Load(string path)
    {
        try
        {
            TrainingRecipe recipe = JsonSerializer.Deserialize<TrainingRecipe>(File.ReadAllText(path), Json) ?? throw new JsonException("it is empty");
            recipe.Validate();
            string folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
            return recipe with
            {
                StartFrom = recipe.StartFrom is { } start ? Path.Combine(folder, start) : null,
                StartNetworks = recipe.StartNetworks is { } networks ? [.. networks.Select(file => Path.Combine(folder, file))] : null,
            };
        }
        catch (Exception problem) when (problem is JsonException or InvalidDataException)
        {
            throw new InvalidDataException($"{path} is not a usable training recipe: {problem.Message.TrimEnd('.')}.", problem);
        }
    }

    /// <summary>The recipe as JSON, with the names of the weights it starts from without their folders.</summary>
    public string ToJson() => JsonSerializer.Serialize(this with
    {
        StartFrom = Path.GetFileName(StartFrom),
        StartNetworks = StartNetworks is { } networks ? [.. networks.Select(file => Path.GetFileName(file))] : null,
    }, Json);

    /// <summary>Checks every range.</summary>
    /// <exception cref="InvalidDataException">A value cannot be used; the rule it breaks.</exception>
    public void Validate()
    {
        Require(Name.Length is > 0 and <= 64 && Name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_'), "name is 1 to 64 letters, digits, '-' and '_'");
        Require(Architectures.Find(Network) is not null, $"network is one of {string.Join(", ", Architectures.Networks.Select(network => network.Name))}");
        Require(Kind == TrainingKind.Jointsr ? Scale is null : Scale is 2 or 4 or 8, Kind == TrainingKind.Jointsr ? "jointsr has no scale" : "scale is 2, 4 or 8");
        Require(LrPatch is >= 16 and <= 256, "lr_patch is 16 to 256");
        Require(Batch is >= 1 and <= 1024, "batch is 1 to 1024");
        Require(Steps >= 1, "steps is at least 1");
        Require(LearningRate is > 0 and < 1, "learning_rate is above 0 and below 1");
        Require(WarmupSteps >= 0, "warmup_steps is at least 0");
        Require(Schedule is "cosine" || (Schedule is "halving" && HalveEvery > 0), "schedule is cosine, or halving with halve_every above 0");
        Require(WeightDecay >= 0 && ClipNorm >= 0, "weight_decay and clip_norm are at least 0");
        Require(EmaDecay is >= 0 and < 1, "ema_decay is at least 0 and below 1");
        Require(Precision is "float32" or "bfloat16", "precision is float32 or bfloat16");
        Require(ColourJitter is >= 0 and <= 0.5, "colour_jitter is 0 to 0.5");
        Require(Threads >= 1 && LogEvery >= 1 && ValidateEvery >= 1, "threads, log_every and validate_every are at least 1");
        Require(Assignment is "random" or "detail", "assignment is random or detail");
        Require(Downscaler is "bicubic" || (Downscaler is "downnet" && Kind == TrainingKind.Jointsr), "downscaler is bicubic, or downnet for jointsr");
        switch (Kind)
        {
            case TrainingKind.Sr:
                Require(HrCrop is null && Mix is null && StartNetworks is null && FitSteps == 0 && BlocksAtOnce == 0, "hr_crop, mix, start_networks, fit_steps and blocks_at_once are not for sr");
                break;
            case TrainingKind.Jointsr:
                Require(HrCrop is >= 256 and <= 2048 && HrCrop % JointSrTask.Block == 0, "hr_crop of jointsr is a multiple of 128 from 256 to 2048");
                Require(Mix is null or { Count: 3 } && MixOrEqual.All(count => count >= 0) && MixOrEqual.Sum() == BlocksOfCrop, $"mix has three counts that add up to the {BlocksOfCrop} blocks of a crop");
                Require(StartNetworks is null or { Count: 3 }, "start_networks of jointsr has three files");
                Require(BlocksAtOnce >= 0 && FitSteps == 0, "blocks_at_once is at least 0, and fit_steps is not for jointsr");
                break;
            case TrainingKind.Downnet:
                Require(HrCrop is >= 64 and <= 1024 && HrCrop % Scale == 0 && HrCrop / Scale >= 16, "hr_crop of downnet is a multiple of the scale from 64 to 1024, at least 16 LR pixels");
                Require(StartNetworks is null or { Count: 1 }, "start_networks of downnet has one file");
                Require(Mix is null && BlocksAtOnce == 0, "mix and blocks_at_once are not for downnet");
                Require(FitSteps >= 0 && FitSteps < Steps, "fit_steps is at least 0 and below steps");
                break;
        }

        static void Require(bool holds, string rule)
        {
            if (!holds)
                throw new InvalidDataException(rule);
        }
    }

    /// <summary>Blocks of a crop of "jointsr" at scales 2, 4 and 8.</summary>
    [JsonIgnore]
    internal IReadOnlyList<int> MixOrEqual => Mix ?? [BlocksOfCrop / 3, BlocksOfCrop - (2 * (BlocksOfCrop / 3)), BlocksOfCrop / 3];

    private int BlocksOfCrop => HrCrop is { } side ? side / JointSrTask.Block * (side / JointSrTask.Block) : 0;

    /// <summary>The shape of the super-resolution network at a scale.</summary>
    internal SrNetworkShape ShapeAt(int scale) => (SrNetworkShape)ModelCatalog.StandardShape(Network, scale);

    /// <summary>Learning rate of a step, counted from 0.</summary>
    public double RateAt(int step)
    {
        double warm = WarmupSteps == 0 ? 1 : Math.Min(1, (step + 1.0) / WarmupSteps);
        return LearningRate * warm * (Schedule == "cosine"
            ? 0.5 * (1 + Math.Cos(Math.PI * step / Steps))
            : Math.Pow(0.5, step / HalveEvery));
    }
}

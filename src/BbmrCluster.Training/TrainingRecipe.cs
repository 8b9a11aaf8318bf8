using System.Text.Json;
using System.Text.Json.Serialization;

namespace BbmrCluster.Training;

/// <summary>
/// How one network is trained; a small JSON file (snake_case). Every figure that changes the result is here, so the
/// same recipe on the same photographs and processor gives the same weights.
/// </summary>
public sealed record TrainingRecipe
{
    /// <summary>File name of the results, e.g. "omnisr-light-x4".</summary>
    public required string Name { get; init; }

    /// <summary>Upscaling factor: 2, 4 or 8.</summary>
    public required int Scale { get; init; }

    /// <summary>Omni self-attention groups; 1 is the paper's very lightweight network.</summary>
    public int Osags { get; init; } = 1;

    /// <summary>Side of a training patch, LR pixels; at least 16.</summary>
    public int LrPatch { get; init; } = 32;

    /// <summary>Patches in a step.</summary>
    public int Batch { get; init; } = 16;

    /// <summary>Optimizer steps.</summary>
    public required int Steps { get; init; }

    /// <summary>Peak learning rate of AdamW.</summary>
    public double LearningRate { get; init; } = 5e-4;

    /// <summary>Steps over which the rate rises linearly from 0.</summary>
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

    /// <summary>Patches whose mean absolute horizontal and vertical difference (8-bit units, LR) is below this are mostly drawn again.</summary>
    public double FlatThreshold { get; init; } = 4;

    /// <summary>Weights to start from (safetensors); the tail is resampled if its scale differs. Null starts from bicubic.</summary>
    public string? StartFrom { get; init; }

    /// <summary>Seed of initial values and patches.</summary>
    public int Seed { get; init; } = 1;

    /// <summary>Workers that share a batch, one thread each; part of the recipe because sums depend on it in the last bits.</summary>
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
        WriteIndented = true,
    };

    /// <summary>Reads and checks a recipe.</summary>
    /// <exception cref="InvalidDataException">Not a recipe, or one that cannot be followed; one sentence naming the file.</exception>
    public static TrainingRecipe Load(string path)
    {
        try
        {
            TrainingRecipe recipe = JsonSerializer.Deserialize<TrainingRecipe>(File.ReadAllText(path), Json) ?? throw new JsonException("it is empty");
            recipe.Validate();
            return recipe;
        }
        catch (Exception problem) when (problem is JsonException or InvalidDataException)
        {
            throw new InvalidDataException($"{path} is not a usable training recipe: {problem.Message.TrimEnd('.')}.", problem);
        }
    }

    /// <summary>The recipe as JSON.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, Json);

    /// <summary>Checks every range.</summary>
    /// <exception cref="InvalidDataException">A value cannot be used; the rule it breaks.</exception>
    public void Validate()
    {
        Require(Name.Length is > 0 and <= 64 && Name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_'), "name is 1 to 64 letters, digits, '-' and '_'");
        Require(Scale is 2 or 4 or 8, "scale is 2, 4 or 8");
        Require(Osags is >= 1 and <= 16, "osags is 1 to 16");
        Require(LrPatch is >= 16 and <= 256, "lr_patch is 16 to 256");
        Require(Batch is >= 1 and <= 1024, "batch is 1 to 1024");
        Require(Steps >= 1, "steps is at least 1");
        Require(LearningRate is > 0 and < 1, "learning_rate is above 0 and below 1");
        Require(WarmupSteps >= 0, "warmup_steps is at least 0");
        Require(Schedule is "cosine" || (Schedule is "halving" && HalveEvery > 0), "schedule is cosine, or halving with halve_every above 0");
        Require(WeightDecay >= 0 && ClipNorm >= 0, "weight_decay and clip_norm are at least 0");
        Require(EmaDecay is >= 0 and < 1, "ema_decay is at least 0 and below 1");
        Require(Precision is "float32" or "bfloat16", "precision is float32 or bfloat16");
        Require(Threads >= 1 && LogEvery >= 1 && ValidateEvery >= 1, "threads, log_every and validate_every are at least 1");

        static void Require(bool holds, string rule)
        {
            if (!holds)
                throw new InvalidDataException(rule);
        }
    }

    /// <summary>Learning rate of a step, counted from 0.</summary>
    public double RateAt(int step)
    {
        double warm = WarmupSteps == 0 ? 1 : Math.Min(1, (step + 1.0) / WarmupSteps);
        return LearningRate * warm * (Schedule == "cosine"
            ? 0.5 * (1 + Math.Cos(Math.PI * step / Steps))
            : Math.Pow(0.5, step / HalveEvery));
    }
}

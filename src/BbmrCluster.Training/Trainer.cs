using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using BbmrCluster.Networks;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>Where a training reads and writes.</summary>
/// <param name="Photos">Folder of photographs (with photos.tsv, or plain).</param>
/// <param name="Validation">Folder of HR images for validation; null trains without it.</param>
/// <param name="Output">Folder for NAME.safetensors (the averaged weights), NAME.state.safetensors (to resume) and NAME.log.jsonl.</param>
public sealed record TrainingPaths(string Photos, string? Validation, string Output);

/// <summary>A line of the log.</summary>
/// <param name="Step">Steps done.</param>
/// <param name="Seconds">Training time of all runs so far, validation included.</param>
/// <param name="Rate">Learning rate of the last step.</param>
/// <param name="Loss">Mean L1 loss since the last line, in [-1, 1] units.</param>
/// <param name="PsnrY">Mean validation PSNR-Y of the averaged weights, dB, border of <c>scale</c> pixels cropped; null between validations.</param>
public sealed record TrainingProgress(int Step, double Seconds, double Rate, double Loss, double? PsnrY);

/// <summary>Trains an OmniSR network by L1 loss and AdamW. Deterministic: same recipe, photographs and processor, same weights.</summary>
public static class Trainer
{
    private static readonly JsonSerializerOptions Json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    /// <summary>Trains to the recipe's last step; goes on from a checkpoint in the output folder if <paramref name="resume"/>.</summary>
    /// <returns>The last log line.</returns>
    /// <exception cref="InvalidDataException">Photographs, start weights or checkpoint cannot be used; one sentence.</exception>
    /// <exception cref="OperationCanceledException">Stopped; a checkpoint of the last finished step is written first.</exception>
    public static TrainingProgress Run(TrainingRecipe recipe, TrainingPaths paths, bool resume, Action<TrainingProgress>? report = null, CancellationToken cancellation = default)
    {
        recipe.Validate();
        Directory.CreateDirectory(paths.Output);
        NativeRuntime.SetThreads(1);
        string weightsPath = Path.Combine(paths.Output, recipe.Name + ".safetensors"), statePath = Path.Combine(paths.Output, recipe.Name + ".state.safetensors");
        IReadOnlyList<TrainingPhoto> photos = PhotoSet.Load(paths.Photos, "train", recipe.Scale, cancellation);
        IReadOnlyList<TrainingPhoto> validation = paths.Validation is { } folder ? Validation.Load(folder, recipe.Scale) : [];
        var sampler = new PatchSampler([.. photos.Where(p => p.Lr.Width >= recipe.LrPatch && p.Lr.Height >= recipe.LrPatch)], recipe);

        var shape = new OmniSrShape(recipe.Scale, recipe.Osags);
        using var parameters = new ParameterSet(shape.Parameters, Start(recipe, shape), recipe.StartFrom ?? recipe.Name, trainable: true);
        using var optimizer = new AdamW(parameters, recipe.WeightDecay, recipe.EmaDecay);
        using var gradients = new GradientStep(shape, parameters, recipe.Precision == "bfloat16" ? ScalarType.BFloat16 : ScalarType.Float32, Math.Min(recipe.Threads, recipe.Batch));
        double earlier = 0;
        if (resume && File.Exists(statePath))
        {
            SafetensorsFile state = SafetensorsFile.Read(statePath);
            optimizer.Import(state.Tensors, int.Parse(state.Metadata["step"], CultureInfo.InvariantCulture), statePath);
            earlier = double.Parse(state.Metadata["seconds"], CultureInfo.InvariantCulture);
        }

        using var log = new StreamWriter(Path.Combine(paths.Output, recipe.Name + ".log.jsonl"), append: resume);
        var clock = Stopwatch.StartNew();
        double Seconds() => earlier + clock.Elapsed.TotalSeconds;
        var last = new TrainingProgress(optimizer.Steps, Seconds(), 0, 0, null);
        double lossSum = 0;
        int lossCount = 0;
        while (optimizer.Steps < recipe.Steps)
        {
            if (cancellation.IsCancellationRequested)
            {
                Save();
                cancellation.ThrowIfCancellationRequested();
            }
            double rate = recipe.RateAt(optimizer.Steps);
            lossSum += Step(gradients, optimizer, sampler, recipe, rate);
            lossCount++;

            int step = optimizer.Steps;
            bool validate = step % recipe.ValidateEvery == 0 || step == recipe.Steps;
            if (!validate && step % recipe.LogEvery != 0)
                continue;
            double? psnr = null;
            if (validate)
            {
                Save();
                if (validation.Count > 0)
                    psnr = Validation.Psnr(shape, parameters.Export(optimizer.Average), validation).Average(score => score.PsnrY);
            }
            last = new TrainingProgress(step, Seconds(), rate, lossSum / lossCount, psnr);
            (lossSum, lossCount) = (0, 0);
            log.WriteLine(JsonSerializer.Serialize(last, Json));
            log.Flush();
            report?.Invoke(last);
        }
        return last;

        void Save()
        {
            var progress = new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["step"] = optimizer.Steps.ToString(CultureInfo.InvariantCulture),
                ["seconds"] = Seconds().ToString("F1", CultureInfo.InvariantCulture),
            };
            SafetensorsFile.Write(statePath, optimizer.Export(), progress);
            SafetensorsFile.Write(weightsPath, parameters.Export(optimizer.Average), progress);
        }
    }

    /// <summary>One optimizer step; returns its loss.</summary>
    private static double Step(GradientStep gradients, AdamW optimizer, PatchSampler sampler, TrainingRecipe recipe, double rate)
    {
        using var scope = NewDisposeScope();
        (float[] lr, float[] hr) = sampler.Draw(optimizer.Steps);
        double value = gradients.Compute(lr, hr, recipe.Batch, recipe.LrPatch);
        Tensor gradient = gradients.Gradient;
        double norm = gradient.norm().item<float>();
        if (!double.IsFinite(value) || !double.IsFinite(norm))
            throw new InvalidDataException($"The training diverged at step {optimizer.Steps}: the loss is {value}, the gradient's norm {norm}.");
        if (recipe.ClipNorm > 0 && norm > recipe.ClipNorm)
            gradient.mul_(recipe.ClipNorm / norm);
        optimizer.Step(gradient, rate);
        return value;
    }

    private static IReadOnlyDictionary<string, TensorData> Start(TrainingRecipe recipe, OmniSrShape shape)
    {
        if (recipe.StartFrom is not { } path)
            return Initialisation.FromBicubic(shape, recipe.Seed);
        IReadOnlyDictionary<string, TensorData> state = SafetensorsFile.Read(path).Tensors;
        OmniSrShape other = OmniSrShape.Of(state, path);
        if (other.Osags < shape.Osags)
            state = Initialisation.Deepened(state, other, shape.Osags, recipe.Seed);
        return other.Scale == shape.Scale ? state : Initialisation.FromOtherScale(state, other, shape.Scale);
    }
}

using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Threading.Channels;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>Where a training reads and writes.</summary>
/// <param name="Photos">Folder of photographs (with photos.tsv, or plain). The split "val" of photos.tsv is validated on.</param>
/// <param name="Validation">Folder of HR images for validation by the papers' protocol, e.g. Set5; null does without.</param>
/// <param name="Output">
/// Folder for NAME.safetensors (the averaged weights) and NAME.best.safetensors (those of the best validation), NAME.state.safetensors
/// (to resume), NAME.log.jsonl and NAME.curve.png.
/// </param>
public sealed record TrainingPaths(string Photos, string? Validation, string Output);

/// <summary>A line of the log.</summary>
/// <param name="Step">Steps done.</param>
/// <param name="Seconds">Training time of all runs so far, validation included.</param>
/// <param name="SecondsLeft">Time to the last step at the pace of this run.</param>
/// <param name="Rate">Learning rate of the last step.</param>
/// <param name="Loss">Mean loss since the last line, in the network's range.</param>
/// <param name="Scores">Validation of the averaged weights, name to figure, e.g. "set5_psnr_y" (dB) or "photographs_blocks_seam" (a ratio); null between validations.</param>
public sealed record TrainingProgress(int Step, double Seconds, double SecondsLeft, double Rate, double Loss, IReadOnlyDictionary<string, double>? Scores);

/// <summary>Trains by AdamW what a recipe names. Deterministic: same recipe, photographs and processor, same weights.</summary>
public static class Trainer
{
    /// <summary>Steps whose data are drawn ahead.</summary>
    private const int Ahead = 3;

    private static readonly JsonSerializerOptions Json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    /// <summary>The checkpoint of a training in its output folder.</summary>
    public static string CheckpointOf(TrainingRecipe recipe, string output) => Path.Combine(output, recipe.Name + ".state.safetensors");

    /// <summary>Trains to the recipe's last step; goes on from a checkpoint in the output folder if <paramref name="resume"/>.</summary>
    /// <returns>The last log line.</returns>
    /// <exception cref="InvalidDataException">Photographs, start weights or checkpoint cannot be used; one sentence.</exception>
    /// <exception cref="OperationCanceledException">Stopped; a checkpoint of the last finished step is written first.</exception>
    public static TrainingProgress Run(TrainingRecipe recipe, TrainingPaths paths, bool resume, Action<TrainingProgress>? report = null, CancellationToken cancellation = default)
    {
        recipe.Validate();
        Directory.CreateDirectory(paths.Output);
        NativeRuntime.SetThreads(1);
        using TrainingTask task = TrainingTask.Create(recipe, paths, cancellation);
        using var run = new TrainingRun(recipe, paths.Output, task);
        TrainingProgress last = run.Open(resume);

        using var stopDrawing = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        ChannelReader<Func<double>> work = DrawAhead(task, run.Step, recipe.Steps, stopDrawing.Token);
        try
        {
            while (run.Step < recipe.Steps)
            {
                if (cancellation.IsCancellationRequested)
                {
                    run.Save();
                    cancellation.ThrowIfCancellationRequested();
                }
                run.Do(Next(work, cancellation));
                bool validate = run.Step % recipe.ValidateEvery == 0 || run.Step == recipe.Steps;
                if (!validate && run.Step % recipe.LogEvery != 0)
                    continue;
                last = run.Log(validate ? Again.OnNativeFailure(() => task.Validate(run.Averages)) : null);
                if (validate)
                    run.Save();
                report?.Invoke(last);
            }
        }
        finally
        {
            stopDrawing.Cancel();
        }
        return last;
    }

    /// <summary>Draws the data of coming steps on another thread, in order.</summary>
    private static ChannelReader<Func<double>> DrawAhead(TrainingTask task, int first, int end, CancellationToken stop)
    {
        var channel = Channel.CreateBounded<Func<double>>(Ahead);
        _ = Task.Run(async () =>
        {
            try
            {
                for (int step = first; step < end; step++)
                    await channel.Writer.WriteAsync(task.Draw(step), stop).ConfigureAwait(false);
                channel.Writer.Complete();
            }
            catch (Exception problem)
            {
                channel.Writer.Complete(problem);
            }
        }, CancellationToken.None);
        return channel.Reader;
    }

    /// <summary>Waits on this thread: tensors and their scopes belong to it.</summary>
    private static Func<double> Next(ChannelReader<Func<double>> work, CancellationToken cancellation)
    {
        Func<double>? next;
        while (!work.TryRead(out next))
        {
            if (!work.WaitToReadAsync(CancellationToken.None).AsTask().GetAwaiter().GetResult())
                throw new InvalidOperationException("The training's data ended before its steps.");
        }
        return next;
    }

    /// <summary>
    /// Repeats what has no effect but its result. TorchSharp may free a number that it hands to libtorch while libtorch reads
    /// it, if a garbage collection falls into the call; on a busy machine that happens every few hours and libtorch refuses.
    /// </summary>
    private static class Again
    {
        private const int Attempts = 3;

        public static T OnNativeFailure<T>(Func<T> work)
        {
            for (int attempt = 1; ; attempt++)
            {
                try
                {
                    return work();
                }
                catch (ExternalException) when (attempt < Attempts)
                {
                }
            }
        }
    }

    /// <summary>State of a training between its steps, and its files.</summary>
    private sealed class TrainingRun : IDisposable
    {
        private readonly TrainingRecipe _recipe;
        private readonly TrainingTask _task;
        private readonly AdamW[] _optimizers;
        private readonly Stopwatch _clock = Stopwatch.StartNew();
        private readonly string _base;
        private double _earlierSeconds, _lossSum;
        private int _lossCount, _firstStep;
        private double? _best;
        private StreamWriter? _log;

        public TrainingRun(TrainingRecipe recipe, string output, TrainingTask task)
        {
            (_recipe, _task, _base) = (recipe, task, Path.Combine(output, recipe.Name));
            _optimizers = [.. task.Sets.Select(set => new AdamW(set.Parameters, recipe.WeightDecay, recipe.EmaDecay))];
        }

        public int Step { get; private set; }

        public IReadOnlyList<Tensor> Averages => [.. _optimizers.Select(optimizer => optimizer.Average)];

        private double Seconds => _earlierSeconds + _clock.Elapsed.TotalSeconds;

        private string StatePath => CheckpointOf(_recipe, Path.GetDirectoryName(_base)!);

        private string LogPath => _base + ".log.jsonl";

        /// <summary>Begins, or goes on from the checkpoint: log lines after it are taken back, since their steps are done again.</summary>
        public TrainingProgress Open(bool resume)
        {
            string[] lines = [];
            if (!resume)
            {
                // The best of another training would be taken for this one's.
                foreach (string suffix in _task.Export(Averages).Keys)
                    File.Delete(_base + suffix + ".best.safetensors");
            }
            else if (File.Exists(StatePath))
            {
                SafetensorsFile state = SafetensorsFile.Read(StatePath);
                for (int i = 0; i < _optimizers.Length; i++)
                    _optimizers[i].Import(_task.Sets[i].Name + ".", state, StatePath);
                Step = _firstStep = int.Parse(Stored("step"), CultureInfo.InvariantCulture);
                _earlierSeconds = Number("seconds");
                _lossSum = Number("loss_sum");
                _lossCount = (int)Number("loss_count");
                _best = state.Metadata.ContainsKey("best") ? Number("best") : null;
                lines = File.Exists(LogPath) ? [.. File.ReadLines(LogPath).Where(line => Parse(line)?.Step <= Step)] : [];

                string Stored(string name) => state.Metadata.TryGetValue(name, out string? value) ? value : throw new InvalidDataException($"{StatePath} is not a checkpoint: it has no '{name}'.");
                double Number(string name) => double.Parse(Stored(name), CultureInfo.InvariantCulture);
            }
            File.WriteAllLines(LogPath, lines);
            _log = new StreamWriter(LogPath, append: true);
            _clock.Restart();
            return lines.Length > 0 && Parse(lines[^1]) is { } last ? last : new TrainingProgress(Step, Seconds, 0, 0, 0, null);
        }

        /// <summary>Does one step.</summary>
        public void Do(Func<double> work)
        {
            using var scope = NewDisposeScope();
            double loss = Again.OnNativeFailure(work), squares = 0;
            int[] sets = [.. Enumerable.Range(0, _optimizers.Length).Where(set => _task.Trains(set, Step))];
            foreach (int set in sets)
                squares += Math.Pow(Again.OnNativeFailure(() => _task.Gradient(set).norm().item<float>()), 2);
            double norm = Math.Sqrt(squares);
            if (!double.IsFinite(loss) || !double.IsFinite(norm))
                throw new InvalidDataException($"The training diverged at step {Step}: the loss is {loss}, the gradient's norm {norm}.");
            foreach (int set in sets)
            {
                Tensor gradient = _task.Gradient(set);
                if (_recipe.ClipNorm > 0 && norm > _recipe.ClipNorm)
                    gradient.TimesInPlace(_recipe.ClipNorm / norm);
                _optimizers[set].Step(gradient, _recipe.RateAt(Step));
            }
            Step++;
            _lossSum += loss;
            _lossCount++;
        }

        /// <summary>Writes a log line; keeps the weights that validate best, and the curve.</summary>
        public TrainingProgress Log(IReadOnlyDictionary<string, double>? scores)
        {
            scores = scores is { Count: > 0 } ? scores.ToDictionary(pair => pair.Key, pair => Math.Round(pair.Value, 4), StringComparer.Ordinal) : null;
            double left = _clock.Elapsed.TotalSeconds / (Step - _firstStep) * (_recipe.Steps - Step);
            var line = new TrainingProgress(Step, Math.Round(Seconds, 1), Math.Round(left), _recipe.RateAt(Step - 1), _lossSum / _lossCount, scores);
            (_lossSum, _lossCount) = (0, 0);
            _log!.WriteLine(JsonSerializer.Serialize(line, Json));
            _log.Flush();
            if (scores is not null && _task.Measure is { } measure && scores.TryGetValue(measure, out double score) && !(score <= _best))
            {
                _best = score;
                WriteWeights(".best");
            }
            return line;
        }

        /// <summary>Writes the averaged weights, the checkpoint and the curve.</summary>
        public void Save()
        {
            WriteWeights("");
            var tensors = new Dictionary<string, TensorData>(StringComparer.Ordinal);
            var metadata = new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["step"] = Step.ToString(CultureInfo.InvariantCulture),
                ["seconds"] = Seconds.ToString("F1", CultureInfo.InvariantCulture),
                ["loss_sum"] = _lossSum.ToString("R", CultureInfo.InvariantCulture),
                ["loss_count"] = _lossCount.ToString(CultureInfo.InvariantCulture),
            };
            if (_best is { } best)
                metadata["best"] = best.ToString("R", CultureInfo.InvariantCulture);
            for (int i = 0; i < _optimizers.Length; i++)
                _optimizers[i].Export(_task.Sets[i].Name + ".", tensors, metadata);
            // Last: only this makes the other files' newer contents count.
            SafetensorsFile.Write(StatePath, tensors, metadata);
            LearningCurve.Draw(LearningCurve.Read(LogPath), _recipe.Name, _base + ".curve.png");
        }

        public void Dispose()
        {
            _log?.Dispose();
            foreach (AdamW optimizer in _optimizers)
                optimizer.Dispose();
        }

        private void WriteWeights(string label)
        {
            foreach ((string suffix, IReadOnlyDictionary<string, TensorData> tensors) in _task.Export(Averages))
            {
                SafetensorsFile.Write(_base + suffix + label + ".safetensors", tensors, new Dictionary<string, string>(StringComparer.Ordinal)
                {
                    ["step"] = Step.ToString(CultureInfo.InvariantCulture),
                    ["seconds"] = Seconds.ToString("F1", CultureInfo.InvariantCulture),
                });
            }
        }
    }

    /// <summary>A line of the log; null if it is damaged (a process was killed while writing it).</summary>
    internal static TrainingProgress? Parse(string line)
    {
        try
        {
            return JsonSerializer.Deserialize<TrainingProgress>(line, Json);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

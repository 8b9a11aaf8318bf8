using System.Diagnostics;
using System.Globalization;
using BbmrCluster.Networks;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Training;
using static TorchSharp.torch;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// Training steps (loss, gradient, AdamW with its average) of light OmniSR on 32x32 LR patches, batch 16: libtorch's
/// graph against the own backward passes, interleaved; then the loss curves of float32 and of what trains by default.
/// </summary>
internal static class TrainingBenchmark
{
    private const int Batch = 16, Side = 32, Stretch = 25;

    public static void Run(string[] args)
    {
        int scale = 4, rounds = 5, steps = 4, curve = 0;
        string folder = "samples";
        for (int i = 0; i < args.Length; i += 2)
        {
            string value = i + 1 < args.Length ? args[i + 1] : throw new ArgumentException($"{args[i]} needs a value.", nameof(args));
            switch (args[i])
            {
                case "--scale": scale = Number(value); break;
                case "--rounds": rounds = Number(value); break;
                case "--steps": steps = Number(value); break;
                case "--curve": curve = Number(value); break;
                case "--photos": folder = value; break;
                default: throw new ArgumentException($"There is no option {args[i]}.", nameof(args));
            }
        }

        NativeRuntime.SetThreads(1);
        var shape = new OmniSrShape(scale, 1);
        var recipe = new TrainingRecipe { Name = "benchmark", Scale = scale, LrPatch = Side, Batch = Batch, Steps = 1000 };
        TrainingPhoto[] photos = [.. PhotoSet.Load(folder, "train", Side * scale).Select(photo => PhotoSet.Pair(photo.Name, photo.Pixels, scale))];
        var sampler = new PatchSampler(photos, recipe);
        Speeds(shape, sampler, rounds, steps);
        if (curve > 0)
            Curves(shape, sampler, recipe, curve);

        static int Number(string value) => int.Parse(value, CultureInfo.InvariantCulture);
    }

    private static void Speeds(OmniSrShape shape, PatchSampler sampler, int rounds, int steps)
    {
        int workers = Environment.ProcessorCount;
        Loop[] loops =
        [
            new("libtorch's graph, float32", shape, ScalarType.Float32, workers, graph: true),
            new("libtorch's graph, bfloat16", shape, ScalarType.BFloat16, workers, graph: true),
            new("own passes, float32", shape, ScalarType.Float32, workers, graph: false),
            new("own passes, bfloat16", shape, ScalarType.BFloat16, workers, graph: false),
        ];
        PatchBatch[] batches = [.. Enumerable.Range(0, steps).Select(sampler.Draw)];
        for (int round = -1; round < rounds; round++)
        {
            foreach (Loop loop in loops)
                loop.Measure(batches, keep: round >= 0);
        }

        Console.WriteLine(Line($"OmniSR of one group, x{shape.Scale}, batch {Batch} of {Side}x{Side}, {workers} workers, {rounds} rounds of {steps} steps; medians, in brackets the best step"));
        Console.WriteLine();
        Console.WriteLine("| loop | patches/s | processor ms a step | patches per processor second |");
        Console.WriteLine("|---|---|---|---|");
        foreach (Loop loop in loops)
        {
            Console.WriteLine(Line($"| {loop.Name} | {1000 * Batch / Median(loop.Wall):F1} ({1000 * Batch / loop.Wall.Min():F1}) | {Median(loop.Processor):F0} ({loop.Processor.Min():F0}) | {1000 * Batch / Median(loop.Processor):F1} |"));
            loop.Dispose();
        }
    }

    private static void Curves(OmniSrShape shape, PatchSampler sampler, TrainingRecipe recipe, int steps)
    {
        Console.WriteLine();
        Console.WriteLine(Line($"Mean loss of each {Stretch} of {steps} steps, same patches and start"));
        foreach ((string name, ScalarType body, bool graph) in ((string, ScalarType, bool)[])[("graph, float32", ScalarType.Float32, true), ("own, bfloat16", ScalarType.BFloat16, false)])
        {
            using var loop = new Loop(name, shape, body, Environment.ProcessorCount, graph);
            double[] losses = [.. Enumerable.Range(0, steps).Select(step => loop.Step(sampler.Draw(step), recipe.RateAt(step)))];
            Console.WriteLine(Line($"{name}: {string.Join(' ', losses.Chunk(Stretch).Select(part => part.Average().ToString("F4", CultureInfo.InvariantCulture)))}"));
        }
    }

    private static string Line(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private static double Median(List<double> values)
    {
        double[] ordered = [.. values.Order()];
        return (ordered[(ordered.Length - 1) / 2] + ordered[ordered.Length / 2]) / 2;
    }

    private sealed class Loop : IDisposable
    {
        private readonly ParameterSet _parameters;
        private readonly AdamW _optimizer;
        private readonly GradientStep _gradients;

        public Loop(string name, OmniSrShape shape, ScalarType body, int workers, bool graph)
        {
            Name = name;
            _parameters = new ParameterSet(shape.Parameters, Initialisation.FromBicubic(shape, 1), "start", trainable: true);
            _optimizer = new AdamW(_parameters, 1e-4, 0.999);
            _gradients = new GradientStep(shape, _parameters, body, workers, set => new OmniSrNetwork(shape, set, body, training: true, graph));
        }

        public string Name { get; }

        public List<double> Wall { get; } = [];

        public List<double> Processor { get; } = [];

        public double Step(PatchBatch batch, double rate)
        {
            double loss = _gradients.Compute(batch.Lr, batch.Hr, Batch, Side);
            _optimizer.Step(_gradients.Gradient, rate);
            return loss;
        }

        public void Measure(PatchBatch[] batches, bool keep)
        {
            foreach (PatchBatch batch in batches)
            {
                long start = Stopwatch.GetTimestamp();
                TimeSpan processor = Environment.CpuUsage.TotalTime;
                Step(batch, 1e-5);
                if (!keep)
                    continue;
                Processor.Add((Environment.CpuUsage.TotalTime - processor).TotalMilliseconds);
                Wall.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            }
        }

        public void Dispose()
        {
            _gradients.Dispose();
            _optimizer.Dispose();
            _parameters.Dispose();
        }
    }
}

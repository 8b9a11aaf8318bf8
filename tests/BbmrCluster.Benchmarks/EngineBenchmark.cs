using System.Diagnostics;
using System.Globalization;
using System.Text;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// The engine's device calls (samples in, float32 values out) on 64 blocks, in float32 and, where the processor has it, in
/// bfloat16. The machine's rate in either type is that of a 2048-cubed product of libtorch (MKL's or oneDNN's, whichever is
/// faster) with as many threads, measured around every round; medians of interleaved rounds. With --plain also an ordinary float32 NCHW module of the same network
/// in the same process, on a few blocks scaled to 64, which takes minutes. With --processor-time the clock is the processor
/// time of the process divided by its threads, which other programs on the machine disturb little.
/// </summary>
internal static class EngineBenchmark
{
    private const int Blocks = 64;
    private static bool _processorTime, _plain;
    private static int _rounds = 3, _threads = Environment.ProcessorCount;

    public static void Run(string[] args)
    {
        var names = new List<string>();
        var scales = new List<int>();
        for (int i = 0; i < args.Length; i++)
        {
            switch (args[i])
            {
                case "--processor-time": _processorTime = true; break;
                case "--plain": _plain = true; break;
                case "--rounds": _rounds = int.Parse(args[++i], CultureInfo.InvariantCulture); break;
                case "--threads": _threads = int.Parse(args[++i], CultureInfo.InvariantCulture); break;
                case "--scale": scales.Add(int.Parse(args[++i], CultureInfo.InvariantCulture)); break;
                default: names.Add(args[i]); break;
            }
        }
        if (names.Count == 0)
            names = [.. Architectures.Networks.Select(network => network.Name)];
        if (scales.Count == 0)
            scales = [2, 4, 8];
        Console.WriteLine($"{_threads} threads, {_rounds} rounds, {Devices.ClassOf(CPU)}, {(_processorTime ? "processor time / threads" : "wall time")}; ms for {Blocks} blocks; GFLOP/s = 2 x multiply-accumulates / time");
        Console.WriteLine();
        Console.WriteLine("| network | bf16, ms | GFLOP/s | rate | share | f32, ms | GFLOP/s | rate | share | plain f32, ms | plain / bf16 | plain / f32 |");
        Console.WriteLine("|---|---|---|---|---|---|---|---|---|---|---|---|");
        foreach (string name in names)
        {
            foreach (int scale in scales)
                Measure(name, scale);
        }
    }

    private static void Measure(string name, int scale)
    {
        SrNetworkShape shape = Architectures.Find(name)?.At(scale) ?? throw new ArgumentException($"There is no network '{name}'.", nameof(name));
        IReadOnlyDictionary<string, TensorData> weights = Weights(shape);
        var random = new Random(1);
        var blocks = new BlockBatch(Blocks, 128 / scale, 8);
        for (int i = 0; i < blocks.Samples.Length; i++)
            blocks.Samples[i] = (ushort)random.Next(256);

        // The plain module keeps every intermediate map of its batch, some gigabytes for more blocks.
        int plainBlocks = scale == 2 ? 2 : scale == 4 ? 4 : 16;
        List<Side> sides = [new Side(ScalarType.Float32, shape, weights)];
        if (Devices.CpuHasBFloat16)
            sides.Insert(0, new Side(ScalarType.BFloat16, shape, weights));
        using PlainNetwork? plain = _plain ? PlainNetwork.Create(shape, weights) : null;
        List<double> slow = [];
        foreach (Side side in sides)
            side.Workers.Run(blocks);
        if (plain is not null)
            Plain(plain, blocks, 1, shape.Black);
        for (int round = 0; round < _rounds; round++)
        {
            foreach (Side side in sides)
            {
                side.Rates.Add(ProductRate(side.Body));
                side.Times.Add(Milliseconds(() => side.Workers.Run(blocks)));
                side.Times.Add(Milliseconds(() => side.Workers.Run(blocks)));
                side.Rates.Add(ProductRate(side.Body));
            }
            if (plain is not null)
                slow.Add(Milliseconds(() => Plain(plain, blocks, plainBlocks, shape.Black)) * Blocks / plainBlocks);
        }
        double gigaflop = 2 * shape.BlockCost().Gmac * Blocks;
        var line = new StringBuilder(string.Create(CultureInfo.InvariantCulture, $"| {name} x{scale} |"));
        if (sides.Count == 1)
            line.Append(" - | - | - | - |");
        foreach (Side side in sides)
        {
            double speed = gigaflop / Median(side.Times) * 1000, rate = Median(side.Rates);
            line.Append(CultureInfo.InvariantCulture, $" {Median(side.Times):F0} | {speed:F1} | {rate:F0} | {speed / rate:P0} |");
        }
        if (plain is null)
            line.Append(" - | - | - |");
        else
            line.Append(CultureInfo.InvariantCulture, $" {Median(slow):F0} | {(sides.Count == 1 ? "-" : Times(sides[0]))} | {Times(sides[^1])} |");
        Console.WriteLine(line);
        foreach (Side side in sides)
            side.Workers.Dispose();

        string Times(Side side) => string.Create(CultureInfo.InvariantCulture, $"{Median(slow) / Median(side.Times):F1} x");
    }

    private static void Plain(PlainNetwork network, BlockBatch blocks, int count, float black)
    {
        NativeRuntime.SetThreads(_threads);
        using var noGradient = no_grad();
        using var scope = NewDisposeScope();
        Samples.Values(network.Forward(MapBatch.Of(blocks, 0, count).ToMap(0, count, CPU, black).permute(0, 3, 1, 2).contiguous()));
    }

    /// <summary>GFLOP/s of a 2048-cubed product of libtorch, the faster of its two ways: as a matrix product (MKL) and as a 1x1 convolution (oneDNN).</summary>
    private static double ProductRate(ScalarType type)
    {
        NativeRuntime.SetThreads(_threads);
        using var noGradient = no_grad();
        using var scope = NewDisposeScope();
        const int n = 2048;
        Tensor a = randn(n, n).to(type), b = randn(n, n).to(type);
        Tensor pixels = a.view(16, 8, n / 128, n).permute(0, 3, 1, 2), weight = b.view(n, n, 1, 1);
        List<double> products = [], convolutions = [];
        for (int i = 0; i < 5; i++)
        {
            products.Add(Milliseconds(() => a.mm(b).Dispose()));
            convolutions.Add(Milliseconds(() => nn.functional.conv2d(pixels, weight).Dispose()));
        }
        return 2.0 * n * n * n / Math.Min(Median(products), Median(convolutions)) / 1e6;
    }

    private static double Milliseconds(Action action)
    {
        TimeSpan processor = Processor();
        long start = Stopwatch.GetTimestamp();
        action();
        return (_processorTime ? (Processor() - processor) / _threads : Stopwatch.GetElapsedTime(start)).TotalMilliseconds;

        static TimeSpan Processor() => OperatingSystem.IsLinux() ? Environment.CpuUsage.TotalTime : default;
    }

    private static double Median(List<double> values) => values.Order().ElementAt(values.Count / 2);

    /// <summary>Deterministic weights of a size that keeps values near 1.</summary>
    private static Dictionary<string, TensorData> Weights(SrNetworkShape shape)
    {
        var random = new Random(7);
        var weights = new Dictionary<string, TensorData>(StringComparer.Ordinal);
        foreach ((string name, long[] sizes) in shape.Parameters)
        {
            long count = sizes.Aggregate(1L, (product, size) => product * size);
            bool factor = name.Contains("temperature", StringComparison.Ordinal) || (name.Contains("norm", StringComparison.Ordinal) && name.EndsWith("weight", StringComparison.Ordinal));
            double range = Math.Sqrt(3.0 / (count / sizes[0]));
            weights.Add(name, new TensorData(sizes, [.. Enumerable.Range(0, (int)count).Select(_ => factor ? 1f : sizes.Length == 1 ? 0.01f : (float)(((2 * random.NextDouble()) - 1) * range))]));
        }
        return weights;
    }

    private sealed class Side(ScalarType body, SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> weights)
    {
        public ScalarType Body => body;

        public Workers Workers { get; } = new(shape, weights, body);

        public List<double> Times { get; } = [];

        public List<double> Rates { get; } = [];
    }

    /// <summary>The engine's way: workers of one thread each, batches in block order.</summary>
    private sealed class Workers : IDisposable
    {
        private readonly BatchRunner _runner;
        private readonly NetworkSet _networks;
        private readonly SrNetworkShape _shape;

        public Workers(SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> weights, ScalarType body)
        {
            _shape = shape;
            _runner = new BatchRunner(_threads, () => NativeRuntime.SetThreads(1));
            _networks = new NetworkSet(_ => new NetworkWeights(shape, shape.Parameters, weights, shape.Description), body, CPU);
        }

        public void Run(BlockBatch blocks) => _runner.Run(BatchRunner.Cut("score", _shape.Scale, blocks.Count, EngineBatch.SpeedBest), (worker, batch) =>
            NetworkCall.Run(MapBatch.Of(blocks, batch.First, batch.Count), CPU, _shape.Black, _runner, batch.Purpose, batch.Scale, _networks.Body, (map, float32) => _networks.At(batch.Scale, worker, float32).Forward(map)));

        public void Dispose()
        {
            _runner.Dispose();
            _networks.Dispose();
        }
    }
}

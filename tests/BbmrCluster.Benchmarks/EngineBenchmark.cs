using System.Diagnostics;
using System.Globalization;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// The engine's device calls (samples in, float32 values out) on 64 blocks against an ordinary float32 NCHW module of the
/// same network in the same process. Stopwatch medians of interleaved rounds: engine in bfloat16, plain module, engine in
/// bfloat16 again, engine in float32. The bfloat16 rate is that of a 2048-cubed product of libtorch with as many threads,
/// measured around every round. With --processor-time the clock is the processor time of the process divided by its
/// threads, which other programs on the machine disturb little.
/// </summary>
internal static class EngineBenchmark
{
    private const int Blocks = 64;
    private static bool _processorTime;

    public static void Run(string[] args)
    {
        int rounds = 3;
        var names = new List<string>();
        for (int i = 0; i < args.Length; i++)
        {
            if (args[i] is "--processor-time")
                _processorTime = true;
            else if (args[i] is "--rounds")
                rounds = int.Parse(args[++i], CultureInfo.InvariantCulture);
            else
                names.Add(args[i]);
        }
        if (names.Count == 0)
            names = [.. Architectures.Networks.Select(network => network.Name)];
        int threads = Environment.ProcessorCount;
        Console.WriteLine($"{threads} threads, {rounds} rounds, {Devices.ClassOf(CPU)}, {(_processorTime ? "processor time / threads" : "wall time")}; GFLOP/s = 2 x multiply-accumulates / time");
        Console.WriteLine();
        Console.WriteLine("| network | engine bf16, ms / 64 blocks | blocks/s | GFLOP/s | bf16 rate | share | engine f32, ms | plain f32, ms | bf16 faster than plain | f32 faster than plain |");
        Console.WriteLine("|---|---|---|---|---|---|---|---|---|---|");
        foreach (string name in names)
        {
            foreach (int scale in (int[])[2, 4, 8])
                Measure(name, scale, rounds, threads);
        }
    }

    private static void Measure(string name, int scale, int rounds, int threads)
    {
        SrNetworkShape shape = Architectures.Find(name)?.At(scale) ?? throw new ArgumentException($"There is no network '{name}'.", nameof(name));
        IReadOnlyDictionary<string, TensorData> weights = Weights(shape);
        var random = new Random(1);
        var blocks = new BlockBatch(Blocks, 128 / scale, 8);
        for (int i = 0; i < blocks.Samples.Length; i++)
            blocks.Samples[i] = (ushort)random.Next(256);

        // The plain module keeps every intermediate map of its batch, some gigabytes for more blocks; its time is scaled to 64.
        int plainBlocks = scale == 2 ? 8 : scale == 4 ? 16 : 64;
        using var bfloat16 = new Workers(shape, weights, ScalarType.BFloat16, threads);
        using var float32 = new Workers(shape, weights, ScalarType.Float32, threads);
        using var plain = PlainNetwork.Create(shape, weights);
        List<double> engine = [], slow = [], exact = [], rate = [];
        for (int i = 0; i < 2; i++)
        {
            bfloat16.Run(blocks);
            float32.Run(blocks);
        }
        Plain(plain, blocks, 2, shape.Black, threads);
        for (int round = 0; round < rounds; round++)
        {
            rate.Add(ProductRate(threads));
            engine.Add(Milliseconds(() => bfloat16.Run(blocks)));
            slow.Add(Milliseconds(() => Plain(plain, blocks, plainBlocks, shape.Black, threads)) * Blocks / plainBlocks);
            engine.Add(Milliseconds(() => bfloat16.Run(blocks)));
            exact.Add(Milliseconds(() => float32.Run(blocks)));
            rate.Add(ProductRate(threads));
        }
        double gigaflop = 2 * shape.BlockCost().Gmac * Blocks, ms = Median(engine), speed = gigaflop / ms * 1000;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"| {name} x{scale} | {ms:F0} | {Blocks / ms * 1000:F0} | {speed:F0} | {Median(rate):F0} | {speed / Median(rate):P0} | {Median(exact):F0} | {Median(slow):F0} | {Median(slow) / ms:F1} x | {Median(slow) / Median(exact):F1} x |"));
    }

    private static void Plain(PlainNetwork network, BlockBatch blocks, int count, float black, int threads)
    {
        NativeRuntime.SetThreads(threads);
        using var noGradient = no_grad();
        using var scope = NewDisposeScope();
        Samples.Values(network.Forward(MapBatch.Of(blocks, 0, count).ToMap(0, count, CPU, black).permute(0, 3, 1, 2).contiguous()));
    }

    /// <summary>GFLOP/s of a bfloat16 product.</summary>
    private static double ProductRate(int threads)
    {
        NativeRuntime.SetThreads(threads);
        using var noGradient = no_grad();
        using var scope = NewDisposeScope();
        const int n = 2048;
        Tensor a = randn(n, n).to(ScalarType.BFloat16), b = randn(n, n).to(ScalarType.BFloat16);
        var times = new List<double>();
        for (int i = 0; i < 9; i++)
        {
            times.Add(Milliseconds(() =>
            {
                using Tensor c = a.mm(b);
            }));
        }
        return 2.0 * n * n * n / Median(times) / 1e6;
    }

    private static double Milliseconds(Action action)
    {
        TimeSpan processor = Processor();
        long start = Stopwatch.GetTimestamp();
        action();
        return (_processorTime ? (Processor() - processor) / Environment.ProcessorCount : Stopwatch.GetElapsedTime(start)).TotalMilliseconds;

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

    /// <summary>The engine's way: workers of one thread each, batches in block order.</summary>
    private sealed class Workers : IDisposable
    {
        private readonly BatchRunner _runner;
        private readonly NetworkSet _networks;
        private readonly SrNetworkShape _shape;

        public Workers(SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> weights, ScalarType body, int threads)
        {
            _shape = shape;
            _runner = new BatchRunner(threads, () => NativeRuntime.SetThreads(1));
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

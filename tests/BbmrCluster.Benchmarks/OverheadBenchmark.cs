using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Text.Json;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Imaging;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Node;
using BbmrCluster.Node.Cluster;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using BbmrCluster.Work.Tests;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// What coordination costs: one photograph rescaled by a bare loop (the stages one after the other, intermediates in
/// memory, no journal, no actors), by an embedded node (as <c>bbmr rescale</c> does) and by a clustered node with all
/// roles in this process (as <c>bbmr node</c> does, submitted by HTTP). Each is warm before it counts; rounds are
/// interleaved; outputs must be equal byte by byte.
/// </summary>
internal static class OverheadBenchmark
{
    public static void Run(string[] args)
    {
        int at = Array.IndexOf(args, "--rounds"), rounds = at < 0 ? 3 : int.Parse(args[at + 1], CultureInfo.InvariantCulture);
        NativeRuntime.Apply();
        string folder = Directory.CreateTempSubdirectory("bbmr-overhead-").FullName;
        try
        {
            RunAsync(args, rounds, folder).GetAwaiter().GetResult();
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static async Task RunAsync(string[] args, int rounds, string folder)
    {
        string source = Path.Combine(folder, "photo.png"), small = Path.Combine(folder, "small.png");
        (int width, int height) = Prepare(args, source, small, folder);
        var loop = new Loop(folder);
        await using EmbeddedNode embedded = await EmbeddedNode.StartAsync(new EmbeddedNodeOptions(Path.Combine(folder, "embedded")), new EngineFactory());
        await using var cluster = await ClusterInProcess.StartAsync(folder);
        (string Name, Func<string, string, Task> Run)[] ways =
        [
            ("bare loop", loop.RunAsync),
            ("embedded node", (input, output) => EmbeddedAsync(embedded, input, output)),
            ("clustered node, one process", cluster.RunAsync),
        ];
        var times = ways.ToDictionary(way => way.Name, _ => new List<(double Wall, double Processor)>(), StringComparer.Ordinal);
        foreach ((string name, Func<string, string, Task> run) in ways)
            await run(small, Path.Combine(folder, "warm", name));
        loop.Engine.Clear();
        var outputs = new HashSet<string>(StringComparer.Ordinal);
        for (int round = 0; round < rounds; round++)
        {
            foreach ((string name, Func<string, string, Task> run) in ways)
            {
                string output = Path.Combine(folder, $"out {round} {name}");
                TimeSpan processor = Processor();
                long start = Stopwatch.GetTimestamp();
                await run(source, output);
                times[name].Add((Stopwatch.GetElapsedTime(start).TotalSeconds, (Processor() - processor).TotalSeconds));
                outputs.Add(string.Join(' ', Directory.EnumerateFiles(output).Where(file => !file.EndsWith(".json", StringComparison.Ordinal)).Order(StringComparer.Ordinal)
                    .Select(file => Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(file))))));
                Directory.Delete(output, recursive: true);
            }
        }
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{width}x{height}, {Environment.ProcessorCount} processors, medians of {rounds} interleaved rounds; outputs {(outputs.Count == 1 ? "are equal byte by byte" : "DIFFER")}"));
        Console.WriteLine();
        Console.WriteLine("| | wall time, s | over the bare loop | processor time, s | over the bare loop |");
        Console.WriteLine("|---|---|---|---|---|");
        double wall = Median(times["bare loop"].Select(time => time.Wall)), busy = Median(times["bare loop"].Select(time => time.Processor));
        Row("device calls of the bare loop alone", loop.Engine.Sum(time => time.TotalSeconds) / rounds, null);
        foreach ((string name, _) in ways)
            Row(name, Median(times[name].Select(time => time.Wall)), Median(times[name].Select(time => time.Processor)));

        void Row(string name, double seconds, double? processor) => Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"| {name} | {seconds:F1} | {(seconds / wall) - 1:+0.0 %;-0.0 %} | {(processor is { } used ? $"{used.ToString("F1", CultureInfo.InvariantCulture)} | {((used / busy) - 1).ToString("+0.0 %;-0.0 %", CultureInfo.InvariantCulture)}" : "- | -")} |"));
    }

    private static (int Width, int Height) Prepare(string[] args, string source, string small, string folder)
    {
        PixelBuffer pixels = Photograph.Load(args, folder);
        ImageEncoder.Encode(source, pixels, ImageMetadata.None, EncodeOptions.Default);
        ImageEncoder.Encode(small, pixels.Crop(0, 0, Math.Min(512, pixels.Width), Math.Min(512, pixels.Height)), ImageMetadata.None, EncodeOptions.Default);
        return (pixels.Width, pixels.Height);
    }

    private static async Task EmbeddedAsync(EmbeddedNode node, string input, string output)
    {
        await foreach (JobNotification notification in node.RunAsync([Job(input, output)], CancellationToken.None))
        {
            if (notification is JobNotification.ImageFinished { Outcome: not ImageOutcome.Done } ended)
                throw new InvalidOperationException($"The embedded node: {ended.Outcome}");
        }
    }

    private static ImageJob Job(string input, string output)
    {
        var engines = new EngineFactory();
        return ImageJob.Of(OutputNaming.Plan([input], output, JobKind.Rescale, "png", recursive: false).Images.Single(), engines.Pin(JobParameters.Default.Validated()));
    }

    private static TimeSpan Processor() => OperatingSystem.IsLinux() ? Environment.CpuUsage.TotalTime : default;

    private static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[(sorted.Length / 2) - 1] + sorted[sorted.Length / 2]) / 2;
    }

    /// <summary>The stages in a loop, on a thread of their own as the engine demands.</summary>
    private sealed class Loop
    {
        private readonly StageRunner _runner;

        public Loop(string folder) =>
            _runner = new StageRunner(new TimedEngines(new EngineFactory(), Engine), new MemoryBlobs(), new StageRunnerOptions(Directory.CreateDirectory(Path.Combine(folder, "loop")).FullName));

        /// <summary>Time of each call into the engine.</summary>
        public List<TimeSpan> Engine { get; } = [];

        public Task RunAsync(string input, string output)
        {
            ImageJob job = Job(input, output);
            return Task.Factory.StartNew(() =>
            {
                var driver = new SequentialDriver(_runner, job);
                driver.Ingest();
                int columns = driver.Facts!.Grid.Columns;
                driver.StripsPerLease = Math.Max(1, 64 / columns);
                driver.BlocksPerScore = Math.Min(64, columns * driver.StripsPerLease);
                driver.RunFromScore();
            }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        }
    }

    /// <summary>A node with all roles, and a client of its API.</summary>
    private sealed class ClusterInProcess(ClusterNode node, Task run, CancellationTokenSource stop) : IAsyncDisposable
    {
        private readonly HttpClient _http = new() { BaseAddress = new Uri(node.Http!) };

        public static async Task<ClusterInProcess> StartAsync(string folder)
        {
            NodeOptions options = NodeSettings.Read(new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["roles"] = "coordinator,worker,api",
                ["port"] = MemoryBenchmark.FreePort().ToString(CultureInfo.InvariantCulture),
                ["http"] = "127.0.0.1:0",
                ["work"] = Path.Combine(folder, "cluster"),
            }, null, _ => null);
            ClusterNode node = await ClusterNode.StartAsync(options, Console.Error.WriteLine);
            var stop = new CancellationTokenSource();
            return new ClusterInProcess(node, node.RunAsync(stop.Token), stop);
        }

        public async Task RunAsync(string input, string output)
        {
            using HttpResponseMessage answer = await _http.PostAsJsonAsync("/v1/jobs", new { inputs = new[] { input }, output });
            JsonElement job = await answer.Content.ReadFromJsonAsync<JsonElement>();
            if (!answer.IsSuccessStatusCode)
                throw new InvalidOperationException(job.ToString());
            string id = job.GetProperty("id").GetString()!;
            while (true)
            {
                JsonElement status = await _http.GetFromJsonAsync<JsonElement>($"/v1/jobs/{id}");
                if (status.GetProperty("state").GetString() == "finished")
                {
                    if (status.GetProperty("done").GetInt32() != 1)
                        throw new InvalidOperationException($"The clustered node: {status}");
                    return;
                }
                await Task.Delay(50);
            }
        }

        public async ValueTask DisposeAsync()
        {
            _http.Dispose();
            await stop.CancelAsync();
            await run;
            await node.DisposeAsync();
            stop.Dispose();
        }
    }

    /// <summary>Blobs in memory; a file only where a library reads files.</summary>
    private sealed class MemoryBlobs : IBlobStore
    {
        private readonly ConcurrentDictionary<string, byte[]> _blobs = new(StringComparer.Ordinal);

        public bool IsHere => true;

        public StoreRoom Room => new(0, long.MaxValue, long.MaxValue, 0);

        public BlobRef Write(ImageId image, string label, int attempt, ReadOnlySpan<byte> content)
        {
            var blob = new BlobRef($"{image}/{label}", content.Length, BlobNames.Hash(content));
            _blobs[blob.Name] = content.ToArray();
            return blob;
        }

        public byte[] Read(BlobRef blob) => _blobs[blob.Name];

        public string LocalFile(BlobRef blob, string scratch)
        {
            string file = Path.Combine(scratch, blob.Name.Replace('/', '-'));
            File.WriteAllBytes(file, _blobs[blob.Name]);
            return file;
        }

        public void Delete(BlobRef blob) => _blobs.TryRemove(blob.Name, out _);

        public void DeleteImage(ImageId image)
        {
            foreach (string name in _blobs.Keys.Where(name => name.StartsWith($"{image}/", StringComparison.Ordinal)))
                _blobs.TryRemove(name, out _);
        }

        public string Check() => "memory";

        public IReadOnlyList<StoredImage> Images() => [.. _blobs.Keys.Select(name => name.Split('/')[0]).Distinct(StringComparer.Ordinal).Select(image => new StoredImage(new ImageId(image), DateTimeOffset.UtcNow))];
    }

    /// <summary>Engines whose calls are timed.</summary>
    private sealed class TimedEngines(IEngineFactory engines, List<TimeSpan> times) : IEngineFactory
    {
        public IReadOnlyDictionary<string, string> WeightHashes(EngineSettings settings) => engines.WeightHashes(settings);

        public string DeviceClass(EngineSettings settings) => engines.DeviceClass(settings);

        public IEngine Create(EngineSettings settings) => new TimedEngine(engines.Create(settings), times);
    }

    private sealed class TimedEngine(IEngine engine, List<TimeSpan> times) : IEngine, IDownscaler, IBlockScorer, IReconstructor, ICanvasReconstructor
    {
        public IDownscaler Downscaler => this;

        public IBlockScorer Scorer => this;

        public IReconstructor Reconstructor => this;

        public ICanvasReconstructor CanvasReconstructor => this;

        public IBlockScorer UniformScorer => new TimedEngine(new Uniform(engine), times);

        public string Name => "timed";

        public int BorderRows => engine.Reconstructor.BorderRows;

        public BlockBatch Downscale(BlockBatch hr, int scale) => Timed(() => engine.Downscaler.Downscale(hr, scale));

        public double[,] Score(BlockBatch hr, IReadOnlyList<BlockExtent> extents, ScaleSet scales) => Timed(() => engine.Scorer.Score(hr, extents, scales));

        public IReadOnlyList<ReconstructedStrip> Reconstruct(LrStrips strips) => Timed(() => engine.Reconstructor.Reconstruct(strips));

        public SampleMap Downscale(ImageRows image, int scale, int firstRow, int rowCount) => Timed(() => engine.Downscaler.Downscale(image, scale, firstRow, rowCount));

        public int Reach(int scale) => engine.Downscaler.Reach(scale);

        public double[,] Score(ImageRows image, BlockGrid grid, int firstBlock, int blockCount, IReadOnlyList<int> scales) =>
            Timed(() => engine.Scorer.Score(image, grid, firstBlock, blockCount, scales));

        public (int First, int End) RowsFor(BlockGrid grid, int firstBlock, int blockCount, IReadOnlyList<int> scales) => engine.Scorer.RowsFor(grid, firstBlock, blockCount, scales);

        public IReadOnlyList<SampleMap> Reconstruct(LrContext strips) => Timed(() => engine.CanvasReconstructor.Reconstruct(strips));

        public ushort[] JoinBorder(FeatureBand above, FeatureBand below, int bitDepth) => Timed(() => engine.Reconstructor.JoinBorder(above, below, bitDepth));

        public DeviceCounts TakeCounts() => engine.TakeCounts();

        public void Dispose() => engine.Dispose();

        private T Timed<T>(Func<T> call)
        {
            long start = Stopwatch.GetTimestamp();
            T result = call();
            times.Add(Stopwatch.GetElapsedTime(start));
            return result;
        }
    }

    /// <summary>An engine whose scorer is the uniform one.</summary>
    private sealed class Uniform(IEngine engine) : IEngine
    {
        public IDownscaler Downscaler => engine.Downscaler;

        public IBlockScorer Scorer => engine.UniformScorer;

        public IReconstructor Reconstructor => engine.Reconstructor;

        public ICanvasReconstructor CanvasReconstructor => engine.CanvasReconstructor;

        public IBlockScorer UniformScorer => engine.UniformScorer;

        public DeviceCounts TakeCounts() => engine.TakeCounts();

        public void Dispose() => engine.Dispose();
    }
}

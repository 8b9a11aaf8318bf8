using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Runtime.CompilerServices;
using System.Text.Json;
using NetVips;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// A folder of small real images through a cluster of processes on this machine: cuts them out of photographs, breaks
/// some, submits the folder twice and once more as single commands would, and says what an image costs beside its blocks.
/// </summary>
internal static class ArchiveBenchmark
{
    private const int SmallestSide = 256, LargestSide = 384;

    public static void Run(string[] args)
    {
        var options = Options.Parse(args);
        Directory.CreateDirectory(options.Folder);
        string input = Path.Combine(options.Folder, "in"), output = Path.Combine(options.Folder, "out");
        IReadOnlyList<string> broken = Cut(options, input);
        RunScript(options, "up", $"coordinators={options.Coordinators}", $"workers={options.Workers}", $"journal={options.Journal}", $"port={options.Port}", $"http={options.Port + 100}", $"bbmr=dotnet {Path.Combine(AppContext.BaseDirectory, "bbmr.dll")}");
        try
        {
            using var client = new HttpClient { BaseAddress = new Uri(string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{options.Port + 100}/")), Timeout = TimeSpan.FromMinutes(10) };
            WaitForWorkers(client, options.Workers);
            var processor = Processors(options);
            var runs = new List<(string Name, RunFigures Figures)>
            {
                ("first", Submit(client, input, output)),
                ("again", Submit(client, input, output)),
            };
            Report(options, runs, processor, broken);
            Check(client, runs, input, output, broken);
        }
        finally
        {
            RunScript(options, "down");
        }
    }

    // ---- images --------------------------------------------------------------------------------------------------

    /// <summary>Crops of every photograph in a folder of its own name, always the same; files that are there stay. Returns those that are broken.</summary>
    private static List<string> Cut(Options options, string input)
    {
        string[] photos = [.. Directory.EnumerateFiles(options.Photos).Where(file => Path.GetExtension(file).ToLowerInvariant() is ".jpg" or ".jpeg" or ".png").Order(StringComparer.Ordinal)];
        if (photos.Length == 0)
            throw new ArgumentException($"{options.Photos} holds no photograph.", nameof(options));
        for (int photo = 0; photo < photos.Length; photo++)
        {
            int[] mine = [.. Enumerable.Range(0, options.Images).Where(i => i % photos.Length == photo)];
            string folder = Path.Combine(input, Path.GetFileNameWithoutExtension(photos[photo]));
            if (mine.All(i => File.Exists(NameOf(folder, i))))
                continue;
            Directory.CreateDirectory(folder);
            using Image image = Image.NewFromFile(photos[photo], access: Enums.Access.Random);
            using Image pixels = image.CopyMemory();
            foreach (int i in mine)
            {
                var random = new Random(i);
                int width = Math.Min(pixels.Width, random.Next(SmallestSide, LargestSide + 1)), height = Math.Min(pixels.Height, random.Next(SmallestSide, LargestSide + 1));
                using Image crop = pixels.ExtractArea(random.Next(pixels.Width - width + 1), random.Next(pixels.Height - height + 1), width, height);
                if (i % 4 == 0)
                    crop.WriteToFile(NameOf(folder, i));
                else
                    crop.Jpegsave(NameOf(folder, i), q: 90);
            }
        }
        var broken = new List<string>();
        string bad = Directory.CreateDirectory(Path.Combine(input, "broken")).FullName;
        byte[] good = File.ReadAllBytes(Directory.EnumerateFiles(input, "*.jpg", SearchOption.AllDirectories).Order(StringComparer.Ordinal).First());
        for (int i = 0; i < options.Broken; i++)
        {
            string file = Path.Combine(bad, string.Create(CultureInfo.InvariantCulture, $"{i:D3}.jpg"));
            File.WriteAllBytes(file, (i % 3) switch { 0 => [], 1 => "this is no picture"u8.ToArray(), _ => good[..(good.Length / 2)] });
            broken.Add(file);
        }
        return broken;
    }

    // A quarter of them without loss.
    private static string NameOf(string folder, int image) => Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"{image:D4}.{(image % 4 == 0 ? "png" : "jpg")}"));

    // ---- the cluster ---------------------------------------------------------------------------------------------

    private static void RunScript(Options options, string verb, params string[] settings)
    {
        var start = new ProcessStartInfo("bash") { UseShellExecute = false };
        foreach (string argument in (string[])[Path.Combine(Repository(), "deploy", "local-cluster.sh"), verb, $"folder={options.Cluster}", .. settings])
            start.ArgumentList.Add(argument);
        using Process script = Process.Start(start)!;
        script.WaitForExit();
        if (script.ExitCode != 0)
            throw new InvalidOperationException($"local-cluster.sh {verb} ended with code {script.ExitCode}.");
    }

    private static string Repository([CallerFilePath] string here = "") => Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "..", ".."));

    private static void WaitForWorkers(HttpClient client, int workers)
    {
        while (Get(client, "v1/nodes").GetProperty("items").EnumerateArray().Count(node => node.GetProperty("worker").ValueKind == JsonValueKind.String) < workers)
            Thread.Sleep(200);
    }

    private static RunFigures Submit(HttpClient client, string input, string output)
    {
        var clock = Stopwatch.StartNew();
        using HttpResponseMessage response = client.PostAsJsonAsync("v1/jobs", new { inputs = new[] { input }, output, recursive = true, name = "archive" }).GetAwaiter().GetResult();
        string text = response.Content.ReadAsStringAsync().GetAwaiter().GetResult();
        if (!response.IsSuccessStatusCode)
            throw new InvalidOperationException(text);
        using JsonDocument answer = JsonDocument.Parse(text);
        string job = answer.RootElement.GetProperty("id").GetString()!;
        TimeSpan submitted = clock.Elapsed, slowest = TimeSpan.Zero;
        while (true)
        {
            var asked = Stopwatch.StartNew();
            JsonElement status = Get(client, $"v1/jobs/{job}");
            slowest = asked.Elapsed > slowest ? asked.Elapsed : slowest;
            if (status.GetProperty("state").GetString() == "finished")
                return new RunFigures(job, submitted, clock.Elapsed, slowest, status.Clone());
            Thread.Sleep(250);
        }
    }

    private static JsonElement Get(HttpClient client, string path)
    {
        using JsonDocument document = JsonDocument.Parse(client.GetStringAsync(path).GetAwaiter().GetResult());
        return document.RootElement.Clone();
    }

    /// <summary>Processor seconds and the most resident bytes of every node, by name.</summary>
    private static Dictionary<string, (double Seconds, long Peak)> Processors(Options options)
    {
        var nodes = new Dictionary<string, (double, long)>(StringComparer.Ordinal);
        foreach (string file in Directory.EnumerateFiles(options.Cluster, "*.node.pid").Order(StringComparer.Ordinal))
        {
            using Process node = Process.GetProcessById(int.Parse(File.ReadAllText(file), CultureInfo.InvariantCulture));
            nodes[Path.GetFileName(file)[..^".node.pid".Length]] = (node.TotalProcessorTime.TotalSeconds, node.PeakWorkingSet64);
        }
        return nodes;
    }

    // ---- figures -------------------------------------------------------------------------------------------------

    private static void Report(Options options, List<(string Name, RunFigures Figures)> runs, Dictionary<string, (double Seconds, long Peak)> before, IReadOnlyList<string> broken)
    {
        Console.WriteLine(Line($"{options.Images} images of {SmallestSide} to {LargestSide} pixels a side and {broken.Count} broken files, {options.Coordinators} coordinator{(options.Coordinators == 1 ? "" : "s")}, {options.Workers} workers, journal {options.Journal}"));
        Console.WriteLine();
        Console.WriteLine("| run | done | skipped | failed | submitted after s | ended after s | images/s | slowest status s |");
        Console.WriteLine("|---|---|---|---|---|---|---|---|");
        foreach ((string name, RunFigures run) in runs)
            Console.WriteLine(Line($"| {name} | {run.Count("done")} | {run.Count("skipped")} | {run.Count("failed")} | {run.Submitted.TotalSeconds:F1} | {run.Ended.TotalSeconds:F1} | {run.Count("images") / run.Ended.TotalSeconds:F1} | {run.SlowestStatus.TotalSeconds:F2} |"));
        Console.WriteLine();
        Console.WriteLine("| node | processor s | most memory MB |");
        Console.WriteLine("|---|---|---|");
        foreach ((string node, (double seconds, long peak)) in Processors(options))
            Console.WriteLine(Line($"| {node} | {seconds - before.GetValueOrDefault(node).Seconds:F1} | {peak / 1e6:F0} |"));
    }

    private static void Check(HttpClient client, List<(string Name, RunFigures Figures)> runs, string input, string output, IReadOnlyList<string> broken)
    {
        string[] images = [.. Directory.EnumerateFiles(input, "*", SearchOption.AllDirectories).Except(broken, StringComparer.Ordinal)];
        int missing = images.Count(image => new[] { ".bbmr", ".png", ".allocation.png", ".report.json" }.Any(extension => !File.Exists(Path.ChangeExtension(Path.Combine(output, Path.GetRelativePath(input, image)), null) + extension)));
        int files = Directory.EnumerateFiles(output, "*", SearchOption.AllDirectories).Count();
        string[] failed = [.. Get(client, $"v1/jobs/{runs[^1].Figures.Job}/images?state=failed&count=1000").GetProperty("items").EnumerateArray().Select(one => one.GetProperty("input").GetString()!)];
        bool right = missing == 0 && files == 4 * images.Length && failed.Order(StringComparer.Ordinal).SequenceEqual(broken.Order(StringComparer.Ordinal))
            && runs[0].Figures.Count("done") + runs[0].Figures.Count("skipped") == images.Length && runs[1].Figures.Count("skipped") == images.Length;
        Console.WriteLine();
        Console.WriteLine(Line($"{(right ? "As it should be" : "WRONG")}: {missing} of {images.Length} images lack an output, {files} files in all; failed are {failed.Length}, broken {broken.Count}"));
        if (!right)
            Environment.ExitCode = 1;
    }

    private static string Line(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    private sealed record RunFigures(string Job, TimeSpan Submitted, TimeSpan Ended, TimeSpan SlowestStatus, JsonElement Status)
    {
        public int Count(string field) => Status.GetProperty(field).GetInt32();
    }

    private sealed record Options(string Photos, string Folder, int Images, int Broken, int Coordinators, int Workers, string Journal, int Port)
    {
        public string Cluster => Path.Combine(Folder, "cluster");

        public static Options Parse(string[] args)
        {
            var options = new Options("samples", Path.GetFullPath("archive-benchmark"), 1000, 12, 1, 2, "sqlite", 14053);
            for (int i = 0; i < args.Length; i += 2)
            {
                string value = i + 1 < args.Length ? args[i + 1] : throw new ArgumentException($"{args[i]} needs a value.", nameof(args));
                options = args[i] switch
                {
                    "--photos" => options with { Photos = value },
                    "--folder" => options with { Folder = Path.GetFullPath(value) },
                    "--images" => options with { Images = Number(value) },
                    "--broken" => options with { Broken = Number(value) },
                    "--coordinators" => options with { Coordinators = Number(value) },
                    "--workers" => options with { Workers = Number(value) },
                    "--journal" => options with { Journal = value },
                    "--port" => options with { Port = Number(value) },
                    _ => throw new ArgumentException($"There is no option {args[i]}.", nameof(args)),
                };
            }
            return options;
        }

        private static int Number(string value) => int.Parse(value, CultureInfo.InvariantCulture);
    }
}

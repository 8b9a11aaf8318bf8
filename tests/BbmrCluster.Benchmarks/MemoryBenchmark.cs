using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using BbmrCluster.Imaging;
using BbmrCluster.Tests;

namespace BbmrCluster.Benchmarks;

/// <summary>
/// Peak memory of real processes: a coordinator with API and a worker rescale one photograph, and a pair started anew the
/// same one stacked twice. Flat means that the height of an image costs no memory.
/// </summary>
internal static class MemoryBenchmark
{
    public static void Run(string[] args)
    {
        string folder = Directory.CreateTempSubdirectory("bbmr-memory-").FullName;
        try
        {
            PixelBuffer pixels = Photograph.Load(args, folder);
            var twice = new PixelBuffer(pixels.Width, 2 * pixels.Height, pixels.Channels, pixels.BitDepth);
            pixels.Data.CopyTo(twice.Data, 0);
            pixels.Data.CopyTo(twice.Data, pixels.Data.Length);
            var peaks = new List<(PixelBuffer Image, long Coordinator, long Worker)>();
            foreach (PixelBuffer image in (PixelBuffer[])[pixels, twice])
            {
                string source = Path.Combine(folder, $"{image.Height}.png");
                ImageEncoder.Encode(source, image, ImageMetadata.None, EncodeOptions.Default);
                (long coordinator, long worker) = PeaksAsync(Directory.CreateDirectory(Path.Combine(folder, $"run-{image.Height}")).FullName, source).GetAwaiter().GetResult();
                peaks.Add((image, coordinator, worker));
            }
            Console.WriteLine("| image | coordinator and API, peak bytes | worker, peak bytes |");
            Console.WriteLine("|---|---|---|");
            foreach ((PixelBuffer image, long coordinator, long worker) in peaks)
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"| {image.Width}x{image.Height} | {coordinator:N0} | {worker:N0} |"));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"| ratio | {(double)peaks[1].Coordinator / peaks[0].Coordinator:F2} | {(double)peaks[1].Worker / peaks[0].Worker:F2} |"));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static async Task<(long Coordinator, long Worker)> PeaksAsync(string folder, string source)
    {
        int port = FreePort(), httpPort = FreePort();
        var environment = new Dictionary<string, string>(StringComparer.Ordinal);
        string store = Path.Combine(folder, "store"), seed = string.Create(CultureInfo.InvariantCulture, $"127.0.0.1:{port}"), http = string.Create(CultureInfo.InvariantCulture, $"127.0.0.1:{httpPort}");
        using Bbmr coordinator = Bbmr.Start(folder, environment, "node", "--roles", "coordinator,api", "--name", "c", "--port", port.ToString(CultureInfo.InvariantCulture), "--http", http,
            "--work", Path.Combine(folder, "c"), "--store", store);
        using Bbmr worker = Bbmr.Start(folder, environment, "node", "--roles", "worker", "--name", "w", "--port", "0", "--seed-nodes", seed, "--work", Path.Combine(folder, "w"), "--store", store);
        using var client = new HttpClient { BaseAddress = new Uri($"http://{http}") };
        await UntilAsync(async () => (await client.GetFromJsonAsync<JsonElement>("/v1/nodes")).GetProperty("items").GetArrayLength() == 2);
        using HttpResponseMessage answer = await client.PostAsJsonAsync("/v1/jobs", new { inputs = new[] { source }, output = Path.Combine(folder, "out") });
        string id = (await answer.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("id").GetString()!;
        JsonElement status = default;
        await UntilAsync(async () => (status = await client.GetFromJsonAsync<JsonElement>($"/v1/jobs/{id}")).GetProperty("state").GetString() == "finished");
        return status.GetProperty("done").GetInt32() == 1
            ? (Peak(coordinator.Id), Peak(worker.Id))
            : throw new InvalidOperationException($"{status}\n{coordinator.Error}\n{worker.Error}");

        async Task UntilAsync(Func<Task<bool>> holds)
        {
            while (!await Answered(holds))
            {
                if (coordinator.HasExited || worker.HasExited)
                    throw new InvalidOperationException($"A node ended.\n{coordinator.Error}\n{worker.Error}");
                await Task.Delay(200);
            }
        }
    }

    private static async Task<bool> Answered(Func<Task<bool>> holds)
    {
        try
        {
            return await holds();
        }
        catch (HttpRequestException)
        {
            return false;
        }
    }

    // VmHWM, the most that was ever resident; the kernel says it in units of 1,024 bytes.
    private static long Peak(int process) =>
        1024 * long.Parse(File.ReadLines($"/proc/{process}/status").First(line => line.StartsWith("VmHWM:", StringComparison.Ordinal))[6..^2].Trim(), CultureInfo.InvariantCulture);

    public static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}

using BbmrCluster.Tests;

namespace BbmrCluster.Faults.Harness;

/// <summary>An input with what an undisturbed local run makes of it.</summary>
/// <param name="Name">File name.</param>
/// <param name="Hashes">Output file name to SHA-256; null when the input must fail.</param>
public sealed record PoolItem(string Name, IReadOnlyDictionary<string, string>? Hashes);

/// <summary>Small inputs for each kind of job and the results of an undisturbed run, made once.</summary>
public sealed class JobPool
{
    public static readonly string[] Kinds = ["rescale", "downscale", "upscale"];

    private static readonly (int Width, int Height, int Channels, string Extension)[] Pictures =
    [
        (256, 256, 3, "png"), (250, 301, 3, "png"), (129, 520, 3, "jpg"), (640, 130, 3, "png"), (256, 256, 1, "png"), (200, 200, 4, "png"), (1, 300, 3, "png"), (384, 390, 3, "tif"),
    ];

    private readonly string _folder;
    private readonly Dictionary<string, List<PoolItem>> _items = Kinds.ToDictionary(kind => kind, _ => new List<PoolItem>(), StringComparer.Ordinal);

    /// <summary>Makes inputs, weights and results in a folder.</summary>
    public JobPool(string folder)
    {
        _folder = folder;
        Models = TestModels.EnvironmentFor(Path.Combine(folder, "models"));
        Directory.CreateDirectory(FolderOf("photographs"));
        for (int i = 0; i < Pictures.Length; i++)
            Tests.Pictures.Write(Path.Combine(FolderOf("photographs"), $"p{i}.{Pictures[i].Extension}"), Pictures[i].Width, Pictures[i].Height, Pictures[i].Channels);
        Reference("rescale", "photographs");
        Reference("downscale", "photographs");
        // Containers to restore, beside nothing else.
        Directory.CreateDirectory(FolderOf("containers"));
        foreach (string container in Directory.GetFiles(FolderOf("rescale"), "*.bbmr"))
            File.Copy(container, Path.Combine(FolderOf("containers"), Path.GetFileName(container)));
        Reference("upscale", "containers");
        Tests.Pictures.WriteTruncatedJpeg(Path.Combine(FolderOf("photographs"), "cut.jpg"));
        byte[] damaged = File.ReadAllBytes(Directory.GetFiles(FolderOf("containers"), "*.bbmr")[0]);
        damaged[damaged.Length / 2] ^= 0x40;
        File.WriteAllBytes(Path.Combine(FolderOf("containers"), "damaged.bbmr"), damaged);
        _items["rescale"].Add(new PoolItem("cut.jpg", null));
        _items["downscale"].Add(new PoolItem("cut.jpg", null));
        _items["upscale"].Add(new PoolItem("damaged.bbmr", null));
    }

    /// <summary>For nodes: where the weights are.</summary>
    public IReadOnlyDictionary<string, string> Models { get; }

    /// <summary>Some inputs for a kind of job, the failing one now and then; at least one that succeeds.</summary>
    public IReadOnlyList<PoolItem> Choose(string kind, int count, bool failing, Random random)
    {
        PoolItem[] good = [.. _items[kind].Where(item => item.Hashes is not null)];
        random.Shuffle(good);
        return [.. good.Take(count), .. _items[kind].Where(item => failing && item.Hashes is null)];
    }

    public string PathOf(string kind, PoolItem item) => Path.Combine(FolderOf(kind == "upscale" ? "containers" : "photographs"), item.Name);

    private string FolderOf(string name) => Path.Combine(_folder, name);

    private void Reference(string kind, string inputs)
    {
        BbmrResult result = Bbmr.Run(_folder, Models, [kind, inputs, "-o", kind, "--json", "--threads", "1", .. kind == "upscale" ? [] : new[] { "--scorer", "bicubic", "--precision", "float32" }]);
        if (result.ExitCode != 0)
            throw new InvalidOperationException(result.ToString());
        foreach (string input in Directory.GetFiles(FolderOf(inputs)))
        {
            string name = Path.GetFileName(input), stem = Path.GetFileNameWithoutExtension(input);
            var hashes = Directory.GetFiles(FolderOf(kind), stem + ".*").Where(file => !file.EndsWith(".report.json", StringComparison.Ordinal))
                .ToDictionary(file => Path.GetFileName(file), UndisturbedRun.HashOf, StringComparer.Ordinal);
            _items[kind].Add(new PoolItem(name, hashes));
        }
    }
}

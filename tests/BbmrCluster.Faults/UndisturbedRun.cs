using System.Security.Cryptography;
using System.Text.Json;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults;

/// <summary>The same work without any accident: what all others are held to.</summary>
public sealed class UndisturbedRun : IDisposable
{
    public const int Columns = 2, Strips = 33;

    public static readonly string[] Arguments = ["rescale", "photo.png", "-o", "out", "--scorer", "bicubic", "--precision", "float32", "--context", "none", "--json"];

    private readonly ScratchFolder _scratch = new();

    public UndisturbedRun()
    {
        Pictures.Write(_scratch["photo.png"], (Columns * 128) - 5, (Strips * 128) - 9);
        Environment = TestModels.EnvironmentFor(_scratch["models"]);
        BbmrResult result = Bbmr.Run(_scratch.Path, Environment, Arguments);
        Assert.True(result.ExitCode == 0, result.ToString());
        Hashes = new[] { "photo.bbmr", "photo.png", "photo.allocation.png" }.ToDictionary(name => name, name => HashOf(_scratch["out", name]), StringComparer.Ordinal);
        DeviceCalls = DeviceCallsOf(_scratch["out", "photo.report.json"]);
        Assert.True(DeviceCalls > 0);
    }

    /// <summary>For child processes: where the weights are.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; }

    /// <summary>SHA-256 of each output that must not depend on accidents.</summary>
    public IReadOnlyDictionary<string, string> Hashes { get; }

    public long DeviceCalls { get; }

    public void CopyPictureTo(string path)
    {
        File.Copy(_scratch["photo.png"], path);
        File.SetLastWriteTimeUtc(path, File.GetLastWriteTimeUtc(_scratch["photo.png"]));
    }

    public static string HashOf(string path) => Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(path)));

    public static long DeviceCallsOf(string report)
    {
        using var document = JsonDocument.Parse(File.ReadAllText(report));
        return document.RootElement.GetProperty("device").GetProperty("calls").EnumerateArray().Sum(call => call.GetProperty("calls").GetInt64());
    }

    public void Dispose() => _scratch.Dispose();
}

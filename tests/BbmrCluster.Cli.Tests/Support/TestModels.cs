using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Training;

namespace BbmrCluster.Tests;

/// <summary>Weights that make the light network start at bicubic: enough for everything but quality, and always the same.</summary>
public static class TestModels
{
    /// <summary>Writes them and returns the environment that makes a child process use them.</summary>
    public static IReadOnlyDictionary<string, string> EnvironmentFor(string folder, int seed = 0)
    {
        Directory.CreateDirectory(folder);
        foreach (int scale in new[] { 2, 4, 8 })
            SafetensorsFile.Write(Path.Combine(folder, $"omnisr-light-x{scale}.safetensors"), Initialisation.FromBicubic(new OmniSrShape(scale, 1), seed: seed + scale));
        return new Dictionary<string, string>(StringComparer.Ordinal) { ["BBMR_MODELS"] = folder };
    }
}

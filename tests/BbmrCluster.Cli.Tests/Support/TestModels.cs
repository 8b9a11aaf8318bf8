using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
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
        foreach (int scale in Scales)
            SafetensorsFile.Write(Path.Combine(folder, $"omnisr-light-x{scale}.safetensors"), Light(scale, seed));
        return new Dictionary<string, string>(StringComparer.Ordinal) { ["BBMR_MODELS"] = folder };
    }

    /// <summary>
    /// Adds a joint model: the bodies of the light networks, and a deblock branch that blurs, so that it shows at seams alone.
    /// </summary>
    public static void AddJoint(string folder, string downscaler = "bicubic", float blur = 0.05f)
    {
        var values = new Dictionary<string, TensorData>(JointSrShape.WarmStart([.. Scales.Select(scale => ((SrNetworkShape)new OmniSrShape(scale, 1), Light(scale, 0)))]), StringComparer.Ordinal);
        TensorData first = values["deblock.0.weight"];
        var weights = new float[first.Values.Length];
        for (int c = 0; c < 12; c++)
        {
            for (int tap = 0; tap < 9; tap++)
                weights[(((c * 12) + c) * 9) + tap] = tap == 4 ? 1 - (8 * blur) : blur;
        }
        values["deblock.0.weight"] = first with { Values = weights };
        SafetensorsFile.Write(Path.Combine(folder, ModelNames.FileName(ModelNames.Joint("omnisr-light", downscaler), null)), values);
    }

    /// <summary>Adds Down-Nets that average and the light networks as their partners.</summary>
    public static void AddDownNets(string folder)
    {
        foreach (int scale in Scales)
        {
            var shape = new DownNetShape(scale);
            var values = shape.Parameters.ToDictionary(p => p.Name, p => new TensorData(p.Shape, new float[p.Shape.Aggregate(1L, (a, b) => a * b)]), StringComparer.Ordinal);
            for (int c = 0; c < 3; c++)
                values["0.weight"].Values[(c * 27) + (c * 9) + 4] = values[shape.LastName].Values[(c * 32) + c] = 1;
            SafetensorsFile.Write(Path.Combine(folder, ModelNames.FileName(ModelNames.DownNet("omnisr-light"), scale)), values);
            SafetensorsFile.Write(Path.Combine(folder, ModelNames.FileName(ModelNames.Network("omnisr-light", "downnet"), scale)), Light(scale, 1));
        }
    }

    private static readonly int[] Scales = [2, 4, 8];

    private static IReadOnlyDictionary<string, TensorData> Light(int scale, int seed) => Initialisation.FromBicubic(new OmniSrShape(scale, 1), seed: seed + scale);
}

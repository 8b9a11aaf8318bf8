using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Work;

/// <summary>Derives ids, so that the same command meets its own unfinished work again.</summary>
public static class JobIdentity
{
    /// <summary>As below.</summary>
    public static ImageId Of(ImageJob job) => Of(job.Source, job.Outputs, job.Parameters);

    /// <summary>
    /// An image's id: a hash of its source, its outputs and every parameter of its job. A change of any of them makes another
    /// image. An option of <see cref="JobOption.Named"/> counts where it differs from its default.
    /// </summary>
    public static ImageId Of(string source, OutputPaths outputs, JobParameters parameters)
    {
        EngineSettings engine = parameters.Engine;
        var text = new List<string?>
        {
            parameters.Kind.ToString(), source, outputs.Container, outputs.Image, outputs.AllocationPicture, outputs.Report,
            engine.Network, engine.Scorer, engine.Downscaler, engine.Scales.ToString(), engine.Precision, Number(engine.Threads), Number(engine.MaxBatch),
            parameters.DeviceClass, parameters.Allocator, Number(parameters.Rate), parameters.Measure.ToString(), parameters.Force.ToString(), parameters.AllowOtherWeights.ToString(),
            Number(parameters.Limits.MaxPixels), Number(parameters.Limits.MaxSide),
        };
        foreach ((string name, string hash) in parameters.WeightHashes)
            text.AddRange([name, hash]);
        foreach ((JobOption option, string value) in JobOption.SetByName(parameters))
            text.AddRange([$"--{option.Name}", value]);
        return new ImageId(Digest(text));
    }

    /// <summary>Hash of texts in order, 32 characters of 0-9 and a-f. Each counts with its length, so that no two lists run together into one.</summary>
    public static string Digest(IEnumerable<string?> parts)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (string? part in parts)
            hash.AppendData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{part?.Length ?? -1}:{part}\n")));
        return Convert.ToHexStringLower(hash.GetHashAndReset())[..32];
    }

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);
}

using System.IO.Hashing;
using System.Text;

namespace BbmrCluster.Actors.Workers;

/// <summary>
/// Short names of weight files, by which the broker compares what a job needs with what a worker has: of the file's name and
/// its content.
/// </summary>
internal static class WeightKeys
{
    /// <summary>One key per file: 16 hex digits.</summary>
    /// <param name="weights">File name to SHA-256.</param>
    public static IReadOnlyList<string> Of(IReadOnlyDictionary<string, string> weights) =>
        [.. weights.Select(file => Convert.ToHexStringLower(XxHash3.Hash(Encoding.UTF8.GetBytes($"{file.Key} {file.Value}")))).Order(StringComparer.Ordinal)];

    /// <summary>The keys as one text, which compares by value.</summary>
    public static string Text(IReadOnlyDictionary<string, string> weights) => string.Join(',', Of(weights));

    /// <summary>Whether all keys of a text are among those of a worker.</summary>
    public static bool AreIn(IReadOnlySet<string> here, string text) => text.Length == 0 || text.Split(',').All(here.Contains);
}

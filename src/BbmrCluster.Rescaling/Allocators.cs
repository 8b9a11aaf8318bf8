using System.Globalization;

namespace BbmrCluster.Rescaling;

/// <summary>The allocators by name.</summary>
public static class Allocators
{
    /// <summary>Reads "sse", "paper" or "paper:t=0.5,max=100".</summary>
    /// <exception cref="FormatException">Unknown name or parameter: one sentence for the user.</exception>
    public static IAllocator Parse(string text)
    {
        string[] parts = text.Split(':', 2);
        string name = parts[0].Trim();
        Dictionary<string, string> parameters = parts.Length == 1 ? [] : Parameters(text, parts[1]);
        IAllocator allocator = name switch
        {
            SseAllocator.Id => new SseAllocator(),
            PaperAllocator.Id => new PaperAllocator(
                parameters.Remove("t", out string? t) ? Threshold(t) : 0,
                parameters.Remove("max", out string? max) ? Steps(max) : null),
            _ => throw new FormatException($"There is no allocator '{name}'; there are sse and paper, e.g. paper:t=0.5,max=100."),
        };
        return parameters.Count == 0
            ? allocator
            : throw new FormatException($"The allocator {name} has no parameter '{parameters.Keys.Order(StringComparer.Ordinal).First()}'.");
    }

    private static Dictionary<string, string> Parameters(string text, string list)
    {
        var parameters = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string item in list.Split(',', StringSplitOptions.TrimEntries))
        {
            string[] pair = item.Split('=', 2, StringSplitOptions.TrimEntries);
            if (pair.Length != 2 || pair[0].Length == 0)
                throw new FormatException($"'{item}' in '{text}' is not of the form name=value.");
            if (!parameters.TryAdd(pair[0], pair[1]))
                throw new FormatException($"'{pair[0]}' appears twice in '{text}'.");
        }
        return parameters;
    }

    private static double Threshold(string text) =>
        double.TryParse(text, NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out double t) && t <= 100
            ? t
            : throw new FormatException($"t of the allocator paper is a number of dB from 0 to 100, not '{text}'.");

    private static int Steps(string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int max)
            ? max
            : throw new FormatException($"max of the allocator paper is a whole number of groups, not '{text}'.");
}

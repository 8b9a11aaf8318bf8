using Akka.Configuration;

namespace BbmrCluster.Actors.Settings;

/// <summary>The HOCON files of the repository's <c>hocon</c> folder, beside the program when it runs.</summary>
public static class HoconFiles
{
    /// <summary>Reads one, by its name without extension: cluster, dispatchers, persistence.sqlite.</summary>
    /// <exception cref="FileNotFoundException">No such file beside the program.</exception>
    public static Config Load(string name) =>
        ConfigurationFactory.ParseString(File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "hocon", name + ".hocon")));

    /// <summary>A HOCON string literal.</summary>
    internal static string Quote(string text) => "\"" + text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal) + "\"";
}

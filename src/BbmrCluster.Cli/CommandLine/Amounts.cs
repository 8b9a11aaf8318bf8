using System.CommandLine.Parsing;
using System.Globalization;
using BbmrCluster.Work;

namespace BbmrCluster.Cli.CommandLine;

/// <summary>Reads and writes amounts as people type them.</summary>
internal static class Amounts
{
    /// <summary>"500000000", "20G", "1.5 TB".</summary>
    public static long? Bytes(ArgumentResult argument)
    {
        string text = argument.Tokens[0].Value;
        if (FileSystem.ParseSize(text) is { } bytes)
            return bytes;
        argument.AddError($"'{text}' is not an amount of bytes such as 500000000, 20G or 1.5TB.");
        return null;
    }

    /// <summary>A whole number within a range.</summary>
    public static Func<ArgumentResult, int> Whole(int from, int to, string what) => argument =>
    {
        string text = argument.Tokens[0].Value;
        if (int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int value) && value >= from && value <= to)
            return value;
        argument.AddError(string.Create(CultureInfo.InvariantCulture, $"'{text}' is not {what} ({from} to {to})."));
        return from;
    };

    /// <summary>A number of pixels, which may be larger than an int.</summary>
    public static long Pixels(ArgumentResult argument)
    {
        string text = argument.Tokens[0].Value;
        if (long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long value) && value is >= 1 and <= 1L << 50)
            return value;
        argument.AddError($"'{text}' is not a number of pixels.");
        return 1;
    }

    /// <summary>1 block, 9 blocks.</summary>
    public static string Count(long number, string noun) => string.Create(CultureInfo.InvariantCulture, $"{number} {noun}{(number == 1 ? "" : "s")}");

    /// <summary>12.3 MB.</summary>
    public static string Text(long bytes) => bytes switch
    {
        < 1_000 => string.Create(CultureInfo.InvariantCulture, $"{bytes} bytes"),
        < 1_000_000 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e3:0.0} kB"),
        < 1_000_000_000 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e6:0.0} MB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e9:0.0} GB"),
    };

    /// <summary>45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h.</summary>
    public static string Text(TimeSpan time) => time.TotalSeconds switch
    {
        < 10 => string.Create(CultureInfo.InvariantCulture, $"{time.TotalSeconds:0.0} s"),
        < 60 => string.Create(CultureInfo.InvariantCulture, $"{time.TotalSeconds:0} s"),
        < 3600 => string.Create(CultureInfo.InvariantCulture, $"{(int)time.TotalMinutes} min {time.Seconds} s"),
        < 86400 => string.Create(CultureInfo.InvariantCulture, $"{(int)time.TotalHours} h {time.Minutes} min"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{(int)time.TotalDays} d {time.Hours} h"),
    };
}

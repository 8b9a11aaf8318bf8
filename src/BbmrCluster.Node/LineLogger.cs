using System.Text.RegularExpressions;
using Microsoft.Extensions.Logging;

namespace BbmrCluster.Node;

/// <summary>
/// Log entries as single lines to whoever wants them; never to stdout, which belongs to results. Stack traces, which a database
/// that is away brings by the page, are left out unless details are wanted.
/// </summary>
internal sealed partial class LineLoggerProvider(Action<string> write, bool details = false) : ILoggerProvider
{
    private const int Longest = 500;

    public ILogger CreateLogger(string categoryName) => new LineLogger(categoryName, write, details);

    /// <summary>An entry up to its first stack trace, on one line.</summary>
    internal static string Short(string entry)
    {
        string line = Trace().Replace(entry, "", 1).Trim().ReplaceLineEndings(" ");
        return line.Length <= Longest ? line : line[..Longest] + " ...";
    }

    [GeneratedRegex(@"(?:\s+at \S+\(| ---> )[\s\S]*", RegexOptions.None, 1000)]
    private static partial Regex Trace();

    public void Dispose()
    {
    }

    private sealed class LineLogger(string category, Action<string> write, bool details) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (!IsEnabled(logLevel))
                return;
            string entry = $"{formatter(state, exception)}{(exception is null ? "" : Environment.NewLine + exception)}";
            write($"{logLevel.ToString().ToLowerInvariant()}: {category}: {(details ? entry : Short(entry))}");
        }
    }
}

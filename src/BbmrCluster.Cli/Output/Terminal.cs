using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace BbmrCluster.Cli.Output;

/// <summary>
/// Where a command writes: results on stdout (text, or one JSON object per line), messages, progress and errors on
/// stderr. Nothing here sends control codes; the progress bar alone does, and only to a terminal.
/// </summary>
internal sealed class Terminal
{
    private static readonly JsonSerializerOptions Options = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DictionaryKeyPolicy = null,
        DefaultIgnoreCondition = JsonIgnoreCondition.Never,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private readonly Lock _gate = new();
    private readonly bool _quiet;

    private Terminal(bool json, bool quiet, bool verbose) => (IsJson, _quiet, IsVerbose) = (json, quiet, verbose);

    /// <summary>Whether results are JSON lines.</summary>
    public bool IsJson { get; }

    /// <summary>Whether details are wanted.</summary>
    public bool IsVerbose { get; }

    /// <summary>Whether progress is wanted at all.</summary>
    public bool ShowsProgress => !_quiet;

    /// <summary>Whether stderr is a terminal that may be animated.</summary>
    public bool IsInteractive { get; } = !Console.IsErrorRedirected && Environment.GetEnvironmentVariable("TERM") is not (null or "" or "dumb");

    /// <summary>Whether colour may be used (https://no-color.org).</summary>
    public static bool AllowsColour => string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"));

    /// <summary>Writes a line in place of the writer while a live progress display owns the screen.</summary>
    public Action<TextWriter, string>? AroundMessage { get; set; }

    /// <summary>Creates it from the three options that every command has.</summary>
    public static Terminal Create(bool json, bool quiet, bool verbose) => new(json, quiet, verbose);

    /// <summary>A line of the result for people; nothing with --json.</summary>
    public void Result(string line)
    {
        if (!IsJson)
            Write(Console.Out, line);
    }

    /// <summary>A result as one JSON line; nothing without --json.</summary>
    public void Json<T>(T value)
    {
        if (IsJson)
            Write(Console.Out, JsonSerializer.Serialize(value, Options));
    }

    /// <summary>A message on stderr, unless -q.</summary>
    public void Message(string line)
    {
        if (!_quiet)
            Write(Console.Error, line);
    }

    /// <summary>A message on stderr with -v only.</summary>
    public void Detail(string line)
    {
        if (IsVerbose)
            Write(Console.Error, line, raw: true);
    }

    /// <summary>An error on stderr, always.</summary>
    public void Problem(string line) => Write(Console.Error, $"bbmr: {line}");

    /// <summary>Text with control characters replaced: a file name must not be able to steer the terminal.</summary>
    public static string Printable(string text) => text.Any(char.IsControl)
        ? string.Create(text.Length, text, static (span, source) =>
        {
            for (int i = 0; i < span.Length; i++)
                span[i] = char.IsControl(source[i]) ? '?' : source[i];
        })
        : text;

    private void Write(TextWriter writer, string line, bool raw = false)
    {
        string text = raw ? line : Printable(line);
        lock (_gate)
        {
            if (AroundMessage is { } around)
                around(writer, text);
            else
                writer.WriteLine(text);
        }
    }
}

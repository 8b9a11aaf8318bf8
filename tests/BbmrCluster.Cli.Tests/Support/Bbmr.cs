using System.Diagnostics;
using System.Text;
using System.Text.Json;

namespace BbmrCluster.Tests;

/// <summary>What a finished <c>bbmr</c> left.</summary>
public sealed record BbmrResult(int ExitCode, string Output, string Error)
{
    /// <summary>stdout as JSON lines.</summary>
    public IReadOnlyList<JsonElement> Lines => [.. Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonDocument.Parse(line).RootElement)];

    /// <summary>JSON lines of images, the summary left out.</summary>
    public IReadOnlyList<JsonElement> Images => [.. Lines.Where(line => line.TryGetProperty("input", out _))];

    public override string ToString() => $"exit code {ExitCode}\n--- stdout\n{Output}\n--- stderr\n{Error}";
}

/// <summary>The built program as a child process, as a user runs it.</summary>
public sealed class Bbmr : IDisposable
{
    private readonly StringBuilder _output = new(), _error = new();
    private readonly Process _process;

    private Bbmr(Process process) => _process = process;

    // Background jobs of a script ignore SIGINT and hand that down, also to a program that a test is to interrupt.
    private static bool InterruptIgnored { get; } = File.ReadLines("/proc/self/status").FirstOrDefault(line => line.StartsWith("SigIgn:", StringComparison.Ordinal)) is { } line
        && (Convert.ToUInt64(line[7..].Trim(), 16) & 2) != 0;

    /// <summary>Process id, for signals.</summary>
    public int Id => _process.Id;

    /// <summary>stderr so far.</summary>
    public string Error
    {
        get
        {
            lock (_error)
                return _error.ToString();
        }
    }

    public bool HasExited => _process.HasExited;

    /// <summary>Runs to the end.</summary>
    public static BbmrResult Run(string folder, params string[] arguments) => Run(folder, new Dictionary<string, string>(StringComparer.Ordinal), arguments);

    /// <summary>Runs to the end with more environment variables.</summary>
    public static BbmrResult Run(string folder, IReadOnlyDictionary<string, string> environment, params string[] arguments)
    {
        using Bbmr started = Start(folder, environment, arguments);
        return started.Wait();
    }

    /// <summary>Starts it.</summary>
    public static Bbmr Start(string folder, IReadOnlyDictionary<string, string> environment, params string[] arguments)
    {
        string program = Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet";
        var start = new ProcessStartInfo(InterruptIgnored ? "env" : program)
        {
            WorkingDirectory = folder,
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
        };
        if (InterruptIgnored)
        {
            start.ArgumentList.Add("--default-signal=INT");
            start.ArgumentList.Add(program);
        }
        start.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "bbmr.dll"));
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        foreach ((string name, string value) in environment)
            start.Environment[name] = value;
        Process process = Process.Start(start)!;
        process.StandardInput.Close();
        var bbmr = new Bbmr(process);
        process.OutputDataReceived += (_, line) => Append(bbmr._output, line.Data);
        process.ErrorDataReceived += (_, line) => Append(bbmr._error, line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        return bbmr;
    }

    /// <summary>Waits until it ends; a run that hangs fails the test.</summary>
    public BbmrResult Wait()
    {
        if (!_process.WaitForExit(TimeSpan.FromMinutes(4)))
        {
            _process.Kill(entireProcessTree: true);
            throw new TimeoutException($"bbmr did not end.\n{_output}\n{_error}");
        }
        _process.WaitForExit();
        return new BbmrResult(_process.ExitCode, _output.ToString(), _error.ToString());
    }

    /// <summary>Waits until stderr holds a text.</summary>
    public void WaitForError(string text)
    {
        long until = Environment.TickCount64 + 240_000;
        while (!Error.Contains(text, StringComparison.Ordinal))
        {
            if (_process.HasExited || Environment.TickCount64 > until)
            {
                _process.Kill(entireProcessTree: true);
                throw new InvalidOperationException($"'{text}' never appeared.\n{Wait()}");
            }
            Thread.Sleep(20);
        }
    }

    /// <summary>Sends a signal by its name, e.g. KILL.</summary>
    public void Signal(string name)
    {
        using Process kill = Process.Start("kill", [$"-{name}", Id.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
        kill.WaitForExit();
    }

    public void Dispose()
    {
        if (!_process.HasExited)
            _process.Kill(entireProcessTree: true);
        _process.Dispose();
    }

    private static void Append(StringBuilder text, string? line)
    {
        if (line is null)
            return;
        lock (text)
            text.Append(line).Append('\n');
    }
}

/// <summary>A folder for one test, gone afterwards.</summary>
public sealed class ScratchFolder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("bbmr-test-").FullName;

    public string this[params string[] parts] => System.IO.Path.Combine([Path, .. parts]);

    /// <summary>All files below, relative, sorted.</summary>
    public IReadOnlyList<string> Files(string below = "") => Directory.Exists(this[below])
        ? [.. Directory.EnumerateFiles(this[below], "*", SearchOption.AllDirectories).Select(file => System.IO.Path.GetRelativePath(this[below], file)).Order(StringComparer.Ordinal)]
        : [];

    public void Dispose()
    {
        try
        {
            Directory.Delete(Path, recursive: true);
        }
        catch (IOException)
        {
            // A child that was just killed may still hold a file; the system's temporary folder is swept anyway.
        }
    }
}

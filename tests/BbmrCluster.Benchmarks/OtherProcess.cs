using System.Diagnostics;

namespace BbmrCluster.Benchmarks;

/// <summary>This program once more, with a command of its own. Disposing closes its standard input and ends it.</summary>
internal sealed class OtherProcess : IDisposable
{
    private readonly Process _process;

    public OtherProcess(params string[] arguments)
    {
        string program = Environment.ProcessPath!;
        var start = new ProcessStartInfo(program) { UseShellExecute = false, RedirectStandardInput = true, RedirectStandardOutput = true };
        if (Path.GetFileNameWithoutExtension(program) == "dotnet")
            start.ArgumentList.Add(typeof(OtherProcess).Assembly.Location);
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        _process = Process.Start(start)!;
    }

    /// <summary>The next line that it writes; null when it has ended.</summary>
    public Task<string?> ReadLineAsync() => _process.StandardOutput.ReadLineAsync();

    /// <summary>Sends an empty line and returns the answer.</summary>
    public async Task<string> AskAsync()
    {
        await _process.StandardInput.WriteLineAsync();
        return await ReadLineAsync() ?? throw new InvalidOperationException("The other process has ended.");
    }

    public void Kill()
    {
        _process.Kill();
        _process.WaitForExit();
    }

    public void Dispose()
    {
        _process.StandardInput.Close();
        if (!_process.WaitForExit(10_000))
            Kill();
        _process.Dispose();
    }
}

using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace BbmrCluster.Faults.Harness;

/// <summary>How a process of a node ended.</summary>
/// <param name="Process">Its id.</param>
/// <param name="Code">Exit code.</param>
/// <param name="Killed">Whether the harness killed it.</param>
public sealed record NodeExit(int Process, int Code, bool Killed);

/// <summary>A node under a supervisor: whatever ends is started again, unless it is held down.</summary>
public sealed class RigNode : IAsyncDisposable
{
    private static readonly TimeSpan RestartDelay = TimeSpan.FromMilliseconds(500);

    private readonly Func<ProcessStartInfo> _start;
    private readonly string _log;
    private readonly Action<string> _say;
    private readonly string? _namespace;
    private readonly Lock _sync = new();
    private readonly List<NodeExit> _exits = [];
    private readonly CancellationTokenSource _end = new();
    private readonly SocketsHttpHandler _handler;
    private readonly Task _supervision;
    private Process? _process;
    private int _holds, _killed;

    public RigNode(string name, string roles, HostPortOf http, string? networkNamespace, string log, Action<string> say, Func<ProcessStartInfo> start)
    {
        (Name, Roles, _namespace, _log, _say, _start) = (name, roles, networkNamespace, log, say, start);
        _handler = new SocketsHttpHandler { ConnectCallback = ConnectAsync, PooledConnectionLifetime = TimeSpan.FromSeconds(10) };
        Http = new HttpClient(_handler) { BaseAddress = new Uri($"http://{http.Host}:{http.Port.ToString(CultureInfo.InvariantCulture)}"), Timeout = TimeSpan.FromSeconds(20) };
        _supervision = Task.Run(SuperviseAsync);
    }

    public string Name { get; }

    public string Roles { get; }

    public bool IsCoordinator => Roles.Contains("coordinator", StringComparison.Ordinal);

    /// <summary>The node's own HTTP address, reached from within its network.</summary>
    public HttpClient Http { get; }

    /// <summary>Of the process that runs now; null when there is none.</summary>
    public int? ProcessId
    {
        get
        {
            lock (_sync)
                return _process?.Id;
        }
    }

    public IReadOnlyList<NodeExit> Exits
    {
        get
        {
            lock (_sync)
                return [.. _exits];
        }
    }

    /// <summary>Does not start it again until the same number of <see cref="Release"/>.</summary>
    public void Hold() => Interlocked.Increment(ref _holds);

    public void Release() => Interlocked.Decrement(ref _holds);

    public void Signal(int signal)
    {
        lock (_sync)
        {
            if (_process is null)
                return;
            if (signal == Machine.Kill)
                _killed = _process.Id;
            Machine.Signal(_process.Id, signal);
        }
    }

    public string LogTail(int lines) => File.Exists(_log) ? string.Join('\n', ReadShared(_log).TakeLast(lines)) : "";

    public async ValueTask DisposeAsync()
    {
        await _end.CancelAsync();
        Signal(Machine.Continue);
        Signal(Machine.Kill);
        await _supervision;
        Http.Dispose();
        _handler.Dispose();
        _end.Dispose();
    }

    private static List<string> ReadShared(string path)
    {
        using var reader = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        var lines = new List<string>();
        while (reader.ReadLine() is { } line)
            lines.Add(line);
        return lines;
    }

    private async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellation)
    {
        Socket Make() => new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        Socket socket = _namespace is null ? Make() : Machine.InNamespace(_namespace, Make);
        try
        {
            await socket.ConnectAsync(IPAddress.Parse(context.DnsEndPoint.Host), context.DnsEndPoint.Port, cancellation);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private async Task SuperviseAsync()
    {
        await using var log = new StreamWriter(new FileStream(_log, FileMode.Append, FileAccess.Write, FileShare.Read)) { AutoFlush = true };
        while (!_end.IsCancellationRequested)
        {
            if (Volatile.Read(ref _holds) > 0)
            {
                await Task.Delay(50);
                continue;
            }
            using Process process = Process.Start(_start())!;
            process.StandardInput.Close();
            lock (_sync)
                _process = process;
            process.OutputDataReceived += (_, line) => Write(log, line.Data);
            process.ErrorDataReceived += (_, line) => Write(log, line.Data);
            process.BeginOutputReadLine();
            process.BeginErrorReadLine();
            await process.WaitForExitAsync();
            NodeExit exit;
            lock (_sync)
            {
                exit = new NodeExit(process.Id, process.ExitCode, _killed == process.Id);
                _exits.Add(exit);
                _process = null;
            }
            Write(log, $"-- process {exit.Process} ended with code {exit.Code}");
            if (_end.IsCancellationRequested)
                return;
            if (!exit.Killed)
                _say($"{Name} ended with code {exit.Code}");
            await Task.Delay(RestartDelay);
        }
    }

    private static void Write(StreamWriter log, string? line)
    {
        if (line is null)
            return;
        lock (log)
            log.WriteLine($"{DateTime.UtcNow:HH:mm:ss.fff} {line}");
    }
}

/// <summary>Where a node's HTTP is.</summary>
public sealed record HostPortOf(string Host, int Port);

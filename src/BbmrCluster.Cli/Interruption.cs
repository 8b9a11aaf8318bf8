using System.Runtime.InteropServices;

namespace BbmrCluster.Cli;

/// <summary>
/// Ctrl-C and SIGTERM. A command that can stop in order asks for <see cref="Graceful"/> and sees the token cancelled;
/// any other command ends at once, its temporary files deleted. A second signal always ends at once.
/// </summary>
internal sealed class Interruption : IDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly PosixSignalRegistration[] _registrations;
    private volatile bool _graceful;
    private volatile int _exitCode;

    /// <summary>Takes over both signals for the life of the process.</summary>
    public Interruption() => _registrations =
    [
        PosixSignalRegistration.Create(PosixSignal.SIGINT, context => Handle(context, ExitCodes.Interrupted)),
        PosixSignalRegistration.Create(PosixSignal.SIGTERM, context => Handle(context, ExitCodes.Terminated)),
    ];

    /// <summary>130 or 143 once a signal came.</summary>
    public int? ExitCode => _exitCode == 0 ? null : _exitCode;

    /// <summary>The token that a signal cancels; from now on the first signal does not end the process.</summary>
    public CancellationToken Graceful()
    {
        _graceful = true;
        return _stop.Token;
    }

    /// <summary>
    /// Ends the process without the exit handlers of native libraries: a device may still be at work after a stop, and
    /// libtorch crashes when it is taken down under its own threads.
    /// </summary>
    public static void EndNow(int exitCode)
    {
        Console.Out.Flush();
        Console.Error.Flush();
        Exit(exitCode);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
            registration.Dispose();
        _stop.Dispose();
    }

    [DllImport("libc", EntryPoint = "_exit"), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern void Exit(int status);

    private void Handle(PosixSignalContext context, int exitCode)
    {
        context.Cancel = true;
        bool first = Interlocked.CompareExchange(ref _exitCode, exitCode, 0) == 0;
        if (_graceful && first)
        {
            _stop.Cancel();
            return;
        }
        TemporaryFile.DeleteAll();
        EndNow(_exitCode);
    }
}

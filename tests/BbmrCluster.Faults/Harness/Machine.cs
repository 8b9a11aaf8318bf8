using System.ComponentModel;
using System.Diagnostics;
using System.Runtime.InteropServices;

namespace BbmrCluster.Faults.Harness;

/// <summary>What the harness asks of the machine: programs, signals, sockets in a network namespace.</summary>
public static class Machine
{
    public const int Terminate = 15, Kill = 9, Stop = 19, Continue = 18;

    /// <summary>Whether the administrator runs the tests: only then can file systems be mounted and networks be made.</summary>
    public static bool IsAdministrator => Environment.UserName == "root";

    public static bool Run(string program, params string[] arguments) => TryRun(program, arguments) is null;

    /// <summary>Null when it went well, otherwise what it said.</summary>
    public static string? TryRun(string program, params string[] arguments) =>
        Execute(program, arguments) is { Code: not 0 } ended ? $"{program} {string.Join(' ', arguments)} ended with code {ended.Code}: {ended.Error}{ended.Output}" : null;

    /// <summary>What a program writes, whatever becomes of it.</summary>
    public static string Output(string program, params string[] arguments) => Execute(program, arguments) is var ended ? ended.Output + ended.Error : "";

    private static (int Code, string Output, string Error) Execute(string program, string[] arguments)
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo(program, arguments) { UseShellExecute = false, RedirectStandardError = true, RedirectStandardOutput = true, RedirectStandardInput = true, WorkingDirectory = "/" })!;
            process.StandardInput.Close();
            Task<string> output = process.StandardOutput.ReadToEndAsync();
            string error = process.StandardError.ReadToEnd();
            process.WaitForExit();
            return (process.ExitCode, output.Result, error);
        }
        catch (Win32Exception error)
        {
            return (-1, "", error.Message);
        }
    }

    public static void Require(string program, params string[] arguments)
    {
        if (TryRun(program, arguments) is { } problem)
            throw new InvalidOperationException(problem);
    }

    public static void Signal(int process, int signal) => _ = kill(process, signal);

    /// <summary>Calls something on a thread that lives in a network namespace; sockets made there stay there.</summary>
    public static T InNamespace<T>(string name, Func<T> call)
    {
        T? result = default;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                using var handle = File.OpenHandle($"/run/netns/{name}");
                if (setns(handle.DangerousGetHandle().ToInt32(), 0) != 0)
                    throw new InvalidOperationException($"The network namespace {name} cannot be entered.");
                result = call();
            }
            catch (Exception error)
            {
                failure = error;
            }
        });
        thread.Start();
        thread.Join();
        return failure is null ? result! : throw new InvalidOperationException(failure.Message, failure);
    }

#pragma warning disable IDE1006, SYSLIB1054, CA5392 // Names of the C library.
    [DllImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static extern int kill(int process, int signal);

    [DllImport("libc", EntryPoint = "setns", SetLastError = true)]
    private static extern int setns(int descriptor, int kind);
#pragma warning restore IDE1006, SYSLIB1054, CA5392
}

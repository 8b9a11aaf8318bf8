using BbmrCluster.Imaging;
using BbmrCluster.Node.Cluster;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;
using BbmrCluster.Work;

namespace BbmrCluster.Cli;

/// <summary>Something the person at the keyboard can put right: one sentence, no stack trace.</summary>
internal sealed class UserErrorException(string message, int exitCode = ExitCodes.Failed) : Exception(message)
{
    /// <summary>What the process returns.</summary>
    public int ExitCode { get; } = exitCode;
}

/// <summary>An exception as the user sees it.</summary>
/// <param name="Message">One line.</param>
/// <param name="Unexpected">Whether this is a fault of the program: details are shown with -v.</param>
/// <param name="ExitCode">What the process returns.</param>
internal sealed record Failure(string Message, bool Unexpected, int ExitCode)
{
    /// <summary>Finds the sentence.</summary>
    public static Failure Of(Exception exception)
    {
        Exception e = exception is AggregateException { InnerExceptions.Count: 1 } many ? many.InnerExceptions[0] : exception;
        return e switch
        {
            NodeConfigurationException configuration => new(OneLine(configuration.Message), false, ExitCodes.Usage),
            UserErrorException user => new(user.Message, false, user.ExitCode),
            ImageRefusedException or EngineUnavailableException or ContainerException or WorkDirectoryException or InvalidDataException => new(OneLine(e.Message), false, ExitCodes.Failed),
            FileNotFoundException { FileName: { } file } when e is not BadImageFormatException && !file.Contains(", Version=", StringComparison.Ordinal) => new($"{file}: there is no such file.", false, ExitCodes.Failed),
            UnauthorizedAccessException or DirectoryNotFoundException => new(OneLine(e.Message), false, ExitCodes.Failed),
            DllNotFoundException or TypeInitializationException or BadImageFormatException =>
                new($"a native library could not be loaded: {OneLine((e.InnerException ?? e).Message)} 'bbmr doctor' says more.", true, ExitCodes.Failed),
            FormatException => new(OneLine(e.Message), false, ExitCodes.Failed),
            IOException => new(OneLine(e.Message), false, ExitCodes.Failed),
            _ => new($"unexpected error: {OneLine(e.Message)} ({e.GetType().Name}; -v shows the details)", true, ExitCodes.Failed),
        };
    }

    /// <summary>Line breaks made spaces.</summary>
    public static string OneLine(string text) => string.Join(' ', text.Split(['\r', '\n'], StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries));
}

using System.Globalization;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Node;

/// <summary>
/// A testing aid, <c>BBMR_FAULT_STOP_AT=STAGE[:LEASE[:RESULTS]]</c>: when that lease of a stage has brought so many results
/// (default 0: when it begins) the device says so on stderr and stands still, so that a test can kill the process at
/// exactly that point.
/// </summary>
/// <param name="Stage">The stage.</param>
/// <param name="Lease">Which lease of it in this process, from 1.</param>
/// <param name="Results">Results of that lease before it stands still.</param>
public sealed record StandStill(Stage Stage, int Lease, int Results)
{
    /// <summary>Name of the environment variable.</summary>
    public const string Variable = "BBMR_FAULT_STOP_AT";

    /// <summary>Reads the variable; null when it is not set.</summary>
    /// <exception cref="FormatException">It names no stage.</exception>
    public static StandStill? FromEnvironment()
    {
        if (Environment.GetEnvironmentVariable(Variable) is not { Length: > 0 } text)
            return null;
        string[] parts = text.Split(':');
        int lease = 1, results = 0;
        return parts.Length <= 3 && Enum.TryParse(parts[0], ignoreCase: true, out Stage stage) && Enum.IsDefined(stage)
            && (parts.Length < 2 || (int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out lease) && lease > 0))
            && (parts.Length < 3 || int.TryParse(parts[2], NumberStyles.None, CultureInfo.InvariantCulture, out results))
            ? new StandStill(stage, lease, results)
            : throw new FormatException($"{Variable}={text} does not name a stage such as score, score:2 or reconstruct:1:3.");
    }
}

/// <summary>A runner that stands still at one lease.</summary>
internal sealed class StandStillRunner(IStageRunner runner, StandStill fault) : IStageRunner
{
    private int _seen;

    public DeviceCounts Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation)
    {
        if (work.Stage != fault.Stage || ++_seen != fault.Lease)
            return runner.Run(work, report, cancellation);
        if (fault.Results == 0)
            Wait(report, cancellation);
        int results = 0;
        return runner.Run(work, result =>
        {
            report(result);
            if (result is not Working && ++results == fault.Results)
                Wait(report, cancellation);
        }, cancellation);
    }

    public void Dispose() => runner.Dispose();

    private void Wait(Action<StageReport> report, CancellationToken cancellation)
    {
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{StandStill.Variable}: standing still at {fault.Stage.ToString().ToLowerInvariant()} lease {fault.Lease} result {fault.Results}"));
        // A stop in order takes the lease back as usual.
        while (!cancellation.WaitHandle.WaitOne(TimeSpan.FromSeconds(1)))
            report(new Working());
        cancellation.ThrowIfCancellationRequested();
    }
}

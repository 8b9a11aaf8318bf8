namespace BbmrCluster.Cli;

/// <summary>Exit codes; scripts depend on them.</summary>
internal static class ExitCodes
{
    /// <summary>All done (skipped because done counts as done).</summary>
    public const int Done = 0;

    /// <summary>Nothing could be done.</summary>
    public const int Failed = 1;

    /// <summary>The command line is wrong.</summary>
    public const int Usage = 2;

    /// <summary>Some inputs are done, some failed.</summary>
    public const int Partly = 3;

    /// <summary>A cluster node was removed by the others, or removed itself on the smaller side of a split: start it again.</summary>
    public const int Removed = 4;

    /// <summary>Stopped by Ctrl-C; resumable.</summary>
    public const int Interrupted = 130;

    /// <summary>Stopped by SIGTERM; resumable.</summary>
    public const int Terminated = 143;

    /// <summary>Code of a run over several inputs.</summary>
    public static int Of(int succeeded, int failed) => failed == 0 ? Done : succeeded == 0 ? Failed : Partly;
}

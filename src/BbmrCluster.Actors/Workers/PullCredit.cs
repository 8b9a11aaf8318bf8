namespace BbmrCluster.Actors.Workers;

/// <summary>How many leases a device may have in hand: enough for the time that an answer to a request takes, whatever the size of leases.</summary>
internal static class PullCredit
{
    public const int Least = 2;
    private const int Most = 8;

    // Answers come within milliseconds; a coordinator that is busy or collects garbage may take longer.
    private const double Ahead = 0.25;

    /// <summary>Leases for one device.</summary>
    /// <param name="seconds">Device time of a usual lease.</param>
    public static int Of(double seconds) => Math.Clamp(1 + (int)Math.Ceiling(Ahead / Math.Max(seconds, 1e-3)), Least, Most);
}

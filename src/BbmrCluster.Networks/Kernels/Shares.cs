using TorchSharp;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Splits a kernel's work over as many threads as libtorch uses for the calling thread (<see cref="NativeRuntime.SetThreads"/>);
/// an engine's workers and training have one each, so nothing is split there. A kernel's result must not depend on where
/// the shares meet.
/// </summary>
internal static class Shares
{
    // Values of a share that are worth waking a thread for.
    private const long Least = 1 << 13;

    /// <summary>How many shares a call of so many units is worth: for scratch of their own.</summary>
    /// <param name="units">Rows or groups, which stay whole.</param>
    /// <param name="each">Values of a unit.</param>
    public static int Count(int units, long each) => (int)Math.Clamp(units * each / Least, 1, Math.Max(1, Math.Min(units, torch.get_num_threads())));

    /// <summary>Runs every share; returns when all are done.</summary>
    /// <param name="shares">As <see cref="Count"/> gave it.</param>
    /// <param name="units">Rows or groups.</param>
    /// <param name="body">Gets number, first unit and units of a share.</param>
    public static void Run(int shares, int units, Action<int, int, int> body)
    {
        if (shares == 1)
        {
            body(0, 0, units);
            return;
        }
        Parallel.For(0, shares, new ParallelOptions { MaxDegreeOfParallelism = shares }, share =>
        {
            int first = (int)((long)units * share / shares);
            body(share, first, (int)((long)units * (share + 1) / shares) - first);
        });
    }

    /// <summary>Runs every share, where none needs scratch of its own.</summary>
    public static void Run(int units, long each, Action<int, int> body) => Run(Count(units, each), units, (_, first, count) => body(first, count));
}

namespace BbmrCluster.Actors.Settings;

/// <summary>How coordinators work. Every node of a cluster has the same.</summary>
public sealed record CoordinationSettings
{
    /// <summary>Images of an archive that are open at once (default 4, at least 1); more where they are small, up to <see cref="MostOpenImages"/>.</summary>
    public int OpenImages { get; init; } = 4;

    /// <summary>
    /// As many images as were closed within the last 5 s are open at once, up to this number (default 128; <see cref="OpenImages"/>
    /// where that is more). So small ones, and those that are done already, keep all workers busy; since they are through
    /// so soon they take no more room than a few large ones.
    /// </summary>
    public int MostOpenImages { get; init; } = 128;

    /// <summary>Groups of strips that may be ahead of the first one not yet reconstructed (default 4, at least 1).</summary>
    public int ReconstructionWindow { get; init; } = 4;

    /// <summary>Workers that may be lost with a lease before that counts as a failure of the lease (default 10, at least 0).</summary>
    public int WorkerLosses { get; init; } = 10;

    /// <summary>Times a blob may be found lost before the image fails (default 5, at least 1).</summary>
    public int BlobLosses { get; init; } = 5;

    /// <summary>Least time until a lease without a sign of life is granted again (default 30 s).</summary>
    public TimeSpan MinimumDeadline { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>The same as long as nothing is known about the stage's speed (default 10 min: a first decode or a model load may be silent for long).</summary>
    public TimeSpan FirstDeadline { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>
    /// Time until a lease is granted again whose worker has said nothing of it at all (default 20 s): the grant may be lost.
    /// Workers tell what they hold at every <see cref="ReminderInterval"/>, so it is several times that.
    /// </summary>
    public TimeSpan GrantDeadline { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>The deadline is so many times the expected time of a lease (default 5, at least 1).</summary>
    public double DeadlineFactor { get; init; } = 5;

    /// <summary>Pause before a failed lease is granted again, times the attempt (default 1 s).</summary>
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>How often a full store is tried again (default 5 s).</summary>
    public TimeSpan FullPollInterval { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Longest time that results wait for others to be journaled with, while devices have work (default 250 ms).</summary>
    public TimeSpan CommitInterval { get; init; } = TimeSpan.FromMilliseconds(250);

    /// <summary>How often deadlines and retries are looked at (default 500 ms).</summary>
    public TimeSpan TickInterval { get; init; } = TimeSpan.FromMilliseconds(500);

    /// <summary>How often whoever waits for another actor repeats itself (default 5 s).</summary>
    public TimeSpan ReminderInterval { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>How long the broker gathers news before it deals out workers anew (default 50 ms).</summary>
    public TimeSpan PlacementInterval { get; init; } = TimeSpan.FromMilliseconds(50);

    /// <summary>A lease that takes so many times as long as usual is granted a second time to a device that stands idle (default 2, at least 1).</summary>
    public double SecondLeaseFactor { get; init; } = 2;

    /// <summary>How long a stop waits for devices to give their leases back (default 60 s).</summary>
    public TimeSpan StopTimeout { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Images in a page of an archive (default 1,000; at most that).</summary>
    public int PageSize { get; init; } = 1000;

    /// <summary>How often the janitor of a cluster looks through the store (default 10 min); 0 for no janitor.</summary>
    public TimeSpan JanitorInterval { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>How long nothing was written for an image before the janitor asks whether anyone needs its blobs (default 1 h; clocks of nodes and store may differ by less).</summary>
    public TimeSpan OrphanAge { get; init; } = TimeSpan.FromHours(1);

    /// <summary>The same for an image that is unfinished, but that no archive has open (default 7 days): one whose job is paused.</summary>
    public TimeSpan IdleAge { get; init; } = TimeSpan.FromDays(7);

    /// <summary>Whether leases may go to other processes (default false): then the lists of a large image, which no message should hold, go by way of the blob store.</summary>
    public bool BetweenNodes { get; init; }

    /// <summary>How long a worker whose process ends goes on with the leases it holds before it gives them back (default 0: at once).</summary>
    public TimeSpan DrainTime { get; init; }

    /// <summary>How long a worker waits for its devices to give leases back after <see cref="DrainTime"/>.</summary>
    public static TimeSpan ReturnTime { get; } = TimeSpan.FromSeconds(10);

    /// <summary>Checks the ranges.</summary>
    /// <exception cref="InvalidOperationException">A value is outside its range.</exception>
    public CoordinationSettings Validate()
    {
        Check(OpenImages >= 1, nameof(OpenImages));
        Check(ReconstructionWindow >= 1, nameof(ReconstructionWindow));
        Check(WorkerLosses >= 0, nameof(WorkerLosses));
        Check(BlobLosses >= 1, nameof(BlobLosses));
        Check(DeadlineFactor >= 1, nameof(DeadlineFactor));
        Check(PageSize is >= 1 and <= 1000, nameof(PageSize));
        Check(CommitInterval >= TimeSpan.Zero, nameof(CommitInterval));
        Check(MinimumDeadline > TimeSpan.Zero, nameof(MinimumDeadline));
        Check(FirstDeadline > TimeSpan.Zero, nameof(FirstDeadline));
        Check(GrantDeadline >= ReminderInterval, nameof(GrantDeadline));
        Check(RetryDelay > TimeSpan.Zero, nameof(RetryDelay));
        Check(FullPollInterval > TimeSpan.Zero, nameof(FullPollInterval));
        Check(TickInterval > TimeSpan.Zero, nameof(TickInterval));
        Check(ReminderInterval > TimeSpan.Zero, nameof(ReminderInterval));
        Check(PlacementInterval > TimeSpan.Zero, nameof(PlacementInterval));
        Check(SecondLeaseFactor >= 1, nameof(SecondLeaseFactor));
        Check(StopTimeout > TimeSpan.Zero, nameof(StopTimeout));
        Check(DrainTime >= TimeSpan.Zero, nameof(DrainTime));
        Check(JanitorInterval >= TimeSpan.Zero, nameof(JanitorInterval));
        Check(OrphanAge > TimeSpan.Zero, nameof(OrphanAge));
        Check(IdleAge >= OrphanAge, nameof(IdleAge));
        return this;
    }

    private static void Check(bool holds, string name)
    {
        if (!holds)
            throw new InvalidOperationException($"The coordination setting {name} is out of range.");
    }
}

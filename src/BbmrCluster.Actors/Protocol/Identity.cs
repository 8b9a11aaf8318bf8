using System.Globalization;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Protocol;

/// <summary>Identity of an archive (a job over one or many images); safe as a file and actor name.</summary>
public readonly record struct ArchiveId
{
    /// <summary>Checks the form: 1 to 64 characters of a-z, 0-9 and '-'.</summary>
    /// <exception cref="ArgumentException">Another form.</exception>
    public ArchiveId(string value) => Value = new ImageId(value).Value;

    /// <summary>The text.</summary>
    public string Value { get; }

    /// <summary>The id of an archive that its submitter gave none: a hash of its images' ids in order.</summary>
    public static ArchiveId Of(IEnumerable<ImageId> images) => new(JobIdentity.Digest(images.Select(id => id.Value)));

    /// <inheritdoc/>
    public override string ToString() => Value;
}

/// <summary>One submission of an archive. The same archive submitted again is another run, and asks its images again.</summary>
public readonly record struct RunId
{
    /// <summary>Checks the form: 1 to 64 characters of a-z, 0-9 and '-'.</summary>
    /// <exception cref="ArgumentException">Another form.</exception>
    public RunId(string value) => Value = new ImageId(value).Value;

    /// <summary>The text.</summary>
    public string Value { get; }

    /// <summary>A run that never was before.</summary>
    public static RunId New() => new(Guid.NewGuid().ToString("n"));

    /// <summary>The same run when failed images are tried again.</summary>
    /// <param name="retry">How often they were; 0 for the run itself.</param>
    internal RunId Retried(int retry) => retry == 0 ? this : new(string.Create(CultureInfo.InvariantCulture, $"{Value}-{retry}"));

    /// <summary>Whether it is that run or a retry of it.</summary>
    internal bool IsOf(RunId run) => this == run || (Value?.StartsWith(run.Value + "-", StringComparison.Ordinal) ?? false);

    /// <inheritdoc/>
    public override string ToString() => Value;
}

/// <summary>Identity of a worker manager; safe as an actor name.</summary>
public readonly record struct WorkerId
{
    /// <summary>Checks the form: 1 to 64 characters of a-z, 0-9 and '-'.</summary>
    /// <exception cref="ArgumentException">Another form.</exception>
    public WorkerId(string value) => Value = new ImageId(value).Value;

    /// <summary>The text.</summary>
    public string Value { get; }

    /// <inheritdoc/>
    public override string ToString() => Value;
}

/// <summary>Importance of an archive: higher is served first.</summary>
public readonly record struct Priority
{
    /// <summary>Checks the range 0 to 9; 0 is the default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Outside the range.</exception>
    public Priority(int value)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(value);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(value, 9);
        Value = value;
    }

    /// <summary>0 to 9.</summary>
    public int Value { get; }
}

/// <summary>A lease of one image: the epoch (highest sequence number of the image's journal when its coordinator recovered) and a number within it.</summary>
internal readonly record struct LeaseId(long Epoch, int Number)
{
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Epoch}.{Number}");
}

/// <summary>Bound to the serializer: travels between nodes or lies in the journal.</summary>
internal interface IWireMessage;

/// <summary>Routed to the coordinator of one image.</summary>
internal interface IWithImageId
{
    ImageId ImageId { get; }
}

/// <summary>Routed to the coordinator of one archive.</summary>
internal interface IWithArchiveId
{
    ArchiveId ArchiveId { get; }
}

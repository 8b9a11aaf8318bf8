namespace BbmrCluster.Actors.Archives;

/// <summary>How fast an archive moves of late: an average that forgets within about a minute. Time comes as an argument.</summary>
internal sealed class ProgressRate
{
    private const double Memory = 60;

    private DateTimeOffset? _at;
    private double _progress, _weight, _rate;

    public void Forget() => (_at, _weight, _rate) = (null, 0, 0);

    /// <summary>Progress (0 to 1) at a time.</summary>
    public void Add(DateTimeOffset now, double progress)
    {
        if (_at is { } before && now > before)
        {
            double seconds = (now - before).TotalSeconds, keep = Math.Exp(-seconds / Memory);
            _rate = (_rate * keep) + (Math.Max(0, progress - _progress) / seconds * (1 - keep));
            _weight = (_weight * keep) + 1 - keep;
        }
        (_at, _progress) = (now, progress);
    }

    /// <summary>Seconds until all is done; null when nothing moves.</summary>
    public double? Remaining(double progress) => _rate > 0 ? (1 - progress) * _weight / _rate : null;
}

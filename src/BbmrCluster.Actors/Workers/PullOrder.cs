using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Workers;

/// <summary>
/// Whom a worker asks for its next leases: the archive that had least of its time for its weight (stride scheduling), and
/// of that the first image that is not known to have nothing. Archives of weight 0 come only when the others have nothing.
/// Soft state, not thread-safe.
/// </summary>
internal sealed class PullOrder
{
    private const int CatchUp = 4;

    private readonly Dictionary<ArchiveId, double> _passes = [];
    private readonly Dictionary<ImageId, ArchiveId> _archives = [];
    private readonly HashSet<ImageId> _dry = [];
    private IReadOnlyList<ArchiveShare> _shares = [];
    private double _usual = 1, _pass;

    /// <summary>All assigned images, in no order.</summary>
    public IEnumerable<ImageId> Images => _shares.SelectMany(share => share.Images);

    /// <param name="shares">Archives to serve, with their images.</param>
    /// <param name="partial">What was served so far is served still, after these.</param>
    public void Assign(IReadOnlyList<ArchiveShare> shares, bool partial = false)
    {
        if (partial)
        {
            var told = shares.SelectMany(share => share.Images).ToHashSet();
            shares = [.. shares, .. _shares.Select(share => share with { Images = [.. share.Images.Where(image => !told.Contains(image))] }).Where(share => share.Images.Count > 0)];
        }
        _shares = shares;
        _archives.Clear();
        foreach (var share in shares)
        {
            foreach (var image in share.Images)
                _archives.TryAdd(image, share.Archive);
            // One that is new begins where the others are: it has no claim on the time before.
            if (share.Weight > 0)
                _passes[share.Archive] = Math.Max(_passes.GetValueOrDefault(share.Archive), _pass);
        }
        _dry.IntersectWith(_archives.Keys);
        foreach (var gone in _passes.Keys.Except(shares.Where(share => share.Weight > 0).Select(share => share.Archive)).ToList())
            _passes.Remove(gone);
    }

    /// <summary>Whom to ask; null when nobody is known to have work.</summary>
    /// <param name="busy">Images that are asked already.</param>
    public ImageId? Next(Func<ImageId, bool> busy)
    {
        ArchiveShare? best = null;
        foreach (var share in _shares)
        {
            if ((best is null || Before(share, best)) && share.Images.Any(image => !_dry.Contains(image) && !busy(image)))
                best = share;
        }
        if (best is null)
            return null;
        if (best.Weight > 0)
        {
            // Who had nothing to ask for meanwhile catches up a little, not all of it.
            double pass = _passes[best.Archive] = Math.Max(_passes[best.Archive], _pass - (CatchUp * _usual / best.Weight));
            _pass = Math.Max(_pass, pass);
        }
        return best.Images.First(image => !_dry.Contains(image) && !busy(image));
    }

    /// <summary>Seconds of a device that a lease of late took.</summary>
    public double UsualSeconds => _usual;

    /// <summary>Whether the image is known to have nothing.</summary>
    public bool IsDry(ImageId image) => _dry.Contains(image) || !_archives.ContainsKey(image);

    public void SetDry(ImageId image)
    {
        if (_archives.ContainsKey(image))
            _dry.Add(image);
    }

    public void ClearDry(ImageId image) => _dry.Remove(image);

    public void ClearDry() => _dry.Clear();

    /// <summary>A lease is taken: what leases usually cost is put down at once, so that the next one goes to another.</summary>
    /// <returns>Seconds put down, to be settled at its end.</returns>
    public double Taken(ImageId image)
    {
        Charge(image, _usual);
        return _usual;
    }

    /// <summary>A lease is through after so many seconds of its device.</summary>
    public void Settle(ImageId image, double charged, double seconds)
    {
        Charge(image, seconds - charged);
        _usual = (0.9 * _usual) + (0.1 * seconds);
    }

    private bool Before(ArchiveShare one, ArchiveShare other) =>
        one.Weight > 0 && (other.Weight == 0 || _passes[one.Archive] < _passes[other.Archive]);

    private void Charge(ImageId image, double seconds)
    {
        if (_archives.TryGetValue(image, out var archive) && _shares.FirstOrDefault(share => share.Archive == archive && share.Weight > 0) is { } share)
            _passes[archive] += seconds / share.Weight;
    }
}

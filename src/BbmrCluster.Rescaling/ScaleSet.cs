using System.Globalization;

namespace BbmrCluster.Rescaling;

/// <summary>
/// The scale factors a job may give to a block, ascending (k1 &lt; k2 &lt; k3 of the paper; default 2, 4, 8). Each divides
/// the block side. The middle scale is the one whose rate the whole image keeps when the job names no other.
/// </summary>
public sealed class ScaleSet : IEquatable<ScaleSet>
{
    private readonly int[] _scales;

    /// <summary>Checks and sorts.</summary>
    /// <exception cref="ArgumentException">Fewer than two scales, more than four, a repeated one, or one that does not divide <paramref name="blockSize"/>.</exception>
    public ScaleSet(IEnumerable<int> scales, int blockSize = BlockGrid.DefaultBlockSize)
    {
        _scales = [.. scales.Order()];
        // Two bits a block in the container's scale map.
        if (_scales.Length is < 2 or > 4)
            throw new ArgumentException("A scale set has two to four scales.", nameof(scales));
        if (_scales.Distinct().Count() != _scales.Length)
            throw new ArgumentException("A scale appears twice in the scale set.", nameof(scales));
        if (_scales.FirstOrDefault(s => s < 1 || blockSize % s != 0) is var bad and not 0)
            throw new ArgumentException($"Scale {bad} does not divide a block of {blockSize} pixels.", nameof(scales));
    }

    /// <summary>2, 4, 8: the paper's.</summary>
    public static ScaleSet Default { get; } = new([2, 4, 8]);

    /// <summary>Number of scales.</summary>
    public int Count => _scales.Length;

    /// <summary>Index of the middle scale (the upper one of two when the number is even: ceil(count/2) counted from the finest).</summary>
    public int MiddleIndex => _scales.Length / 2;

    /// <summary>The middle scale.</summary>
    public int Middle => _scales[MiddleIndex];

    /// <summary>The scale at an index, 0 being the finest.</summary>
    public int this[int index] => _scales[index];

    /// <summary>All scales, ascending.</summary>
    public IReadOnlyList<int> Scales => _scales;

    /// <summary>Index of a scale, or -1.</summary>
    public int IndexOf(int scale) => Array.IndexOf(_scales, scale);

    /// <summary>Reads "2,4,8".</summary>
    /// <exception cref="FormatException">Not a list of whole numbers.</exception>
    /// <exception cref="ArgumentException">Not a valid set.</exception>
    public static ScaleSet Parse(string text) => new(text.Split(',', StringSplitOptions.TrimEntries)
        .Select(part => int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out int scale)
            ? scale
            : throw new FormatException($"'{text}' is not a list of scales such as 2,4,8.")));

    /// <inheritdoc/>
    public override string ToString() => string.Join(',', _scales);

    /// <inheritdoc/>
    public bool Equals(ScaleSet? other) => other is not null && _scales.AsSpan().SequenceEqual(other._scales);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as ScaleSet);

    /// <inheritdoc/>
    public override int GetHashCode() => _scales.Aggregate(17, HashCode.Combine);
}

using System.Collections.ObjectModel;

namespace BbmrCluster.Rescaling;

/// <summary>Weight files by name with their SHA-256 (lower-case hex), in the order of their names. Equal when they hold the same.</summary>
/// <param name="hashes">Name to hash.</param>
public sealed class WeightHashes(IEnumerable<KeyValuePair<string, string>> hashes)
    : ReadOnlyDictionary<string, string>(new SortedDictionary<string, string>(hashes.ToDictionary(StringComparer.Ordinal), StringComparer.Ordinal)), IEquatable<WeightHashes>
{
    /// <summary>No file.</summary>
    public static WeightHashes None { get; } = new([]);

    /// <inheritdoc/>
    public bool Equals(WeightHashes? other) => other is not null && this.SequenceEqual(other);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as WeightHashes);

    /// <inheritdoc/>
    public override int GetHashCode() => this.Aggregate(Count, (hash, pair) => HashCode.Combine(hash, StringComparer.Ordinal.GetHashCode(pair.Value)));
}

using System.IO.Hashing;
using System.Text.RegularExpressions;

namespace BbmrCluster.Work;

/// <summary>
/// Intermediate results of images: raw strips, packed strips, rows, bands. Blobs never change once written; a blob that
/// is missing or damaged is made again, so nothing here needs to survive a power cut. Thread-safe.
/// </summary>
public interface IBlobStore
{
    /// <summary>Writes a blob. The name holds a part of its hash, so two writers that differ never meet in one file.</summary>
    /// <param name="image">The image; its blobs are deleted together.</param>
    /// <param name="label">What it is: 1 to 64 characters of a-z, 0-9 and '-'.</param>
    /// <param name="attempt">Attempt of the lease, part of the temporary name.</param>
    /// <param name="content">The bytes.</param>
    /// <exception cref="StageFailedException"><see cref="FailureClass.StoreFull"/>: quota or disk, or the store cannot be reached; nothing of the blob is left.</exception>
    BlobRef Write(ImageId image, string label, int attempt, ReadOnlySpan<byte> content);

    /// <summary>Reads a blob and checks length and hash.</summary>
    /// <exception cref="StageFailedException"><see cref="FailureClass.BlobLost"/>: missing or damaged; <see cref="FailureClass.StoreFull"/>: the store cannot be reached.</exception>
    byte[] Read(BlobRef blob);

    /// <summary>
    /// A file with a blob's bytes, checked, for libraries that read files: the store's own where it has one on this
    /// machine, otherwise a copy.
    /// </summary>
    /// <param name="blob">The blob.</param>
    /// <param name="scratch">An existing folder for a copy; its owner sweeps it.</param>
    /// <exception cref="StageFailedException"><see cref="FailureClass.BlobLost"/>, or <see cref="FailureClass.StoreFull"/> for a copy or when the store cannot be reached.</exception>
    string LocalFile(BlobRef blob, string scratch);

    /// <summary>Deletes a blob; nothing happens when it is gone.</summary>
    void Delete(BlobRef blob);

    /// <summary>Deletes all blobs of an image, temporaries included.</summary>
    void DeleteImage(ImageId image);

    /// <summary>Whether blobs are files that this machine sees, so that what is written costs no way over a network of this program.</summary>
    bool IsHere { get; }

    /// <summary>Room at this moment, as well as it is known.</summary>
    StoreRoom Room { get; }

    /// <summary>Tries whether blobs can be written now.</summary>
    /// <returns>Where they lie.</returns>
    /// <exception cref="StageFailedException">They cannot: one sentence.</exception>
    string Check();

    /// <summary>All images that have blobs or their temporaries here. What does not look like ours is left out.</summary>
    /// <exception cref="StageFailedException">The store cannot be reached.</exception>
    IReadOnlyList<StoredImage> Images();
}

/// <summary>An image as the store knows it.</summary>
/// <param name="Image">The image.</param>
/// <param name="Written">When the latest of its blobs was written, by the clock of the store.</param>
public sealed record StoredImage(ImageId Image, DateTimeOffset Written);

/// <summary>Names of blobs: IMAGE/LABEL.HASH with the first 16 digits of the content's hash. Nothing else is a name, so none leads out of a store.</summary>
public static partial class BlobNames
{
    /// <summary>Names content.</summary>
    /// <param name="image">The image.</param>
    /// <param name="label">1 to 64 characters of a-z, 0-9 and '-'.</param>
    /// <param name="content">The bytes.</param>
    /// <exception cref="ArgumentException">Another label.</exception>
    public static BlobRef Of(ImageId image, string label, ReadOnlySpan<byte> content)
    {
        string hash = Hash(content);
        var blob = new BlobRef($"{image}/{label}.{hash[..16]}", content.Length, hash);
        return Pattern().IsMatch(blob.Name) ? blob : throw new ArgumentException($"'{label}' is not a blob label.", nameof(label));
    }

    /// <summary>XXH3-128 as in <see cref="BlobRef.Hash"/>.</summary>
    public static string Hash(ReadOnlySpan<byte> content) => Convert.ToHexStringLower(XxHash128.Hash(content));

    /// <summary>The image of a blob; null when the name is none.</summary>
    public static ImageId? ImageOf(string name) => Pattern().IsMatch(name) ? new ImageId(name[..name.IndexOf('/', StringComparison.Ordinal)]) : null;

    /// <summary>Refuses what is no name.</summary>
    /// <exception cref="ArgumentException">It is none.</exception>
    public static string Checked(string name) => Pattern().IsMatch(name) ? name : throw new ArgumentException($"'{name}' is not a blob name.", nameof(name));

    [GeneratedRegex(@"\A[a-z0-9-]{1,64}/[a-z0-9-]{1,64}\.[0-9a-f]{16}\z", RegexOptions.None, 1000)]
    private static partial Regex Pattern();
}

/// <summary>Room in a store.</summary>
/// <param name="Used">Bytes of blobs.</param>
/// <param name="Quota">Bytes that blobs may take.</param>
/// <param name="DiskFree">Bytes free on the disk.</param>
/// <param name="Floor">Free bytes below which no image is opened.</param>
/// <param name="Most">Bytes that one image can never exceed, however much becomes free; null for the quota.</param>
public sealed record StoreRoom(long Used, long Quota, long DiskFree, long Floor, long? Most = null)
{
    /// <summary>
    /// Why so many more bytes cannot be promised now, as one sentence; null when they can.
    /// </summary>
    public string? Lacks(long bytes) =>
        DiskFree < Floor ? $"only {FileSystem.Size(DiskFree)} free on the disk of the work directory; at least {FileSystem.Size(Floor)} must be free to open an image"
        : Used + bytes > Quota ? $"the work directory holds {FileSystem.Size(Used)} of at most {FileSystem.Size(Quota)} and {FileSystem.Size(bytes)} more are needed"
        : DiskFree < bytes ? $"only {FileSystem.Size(DiskFree)} free on the disk of the work directory and {FileSystem.Size(bytes)} are needed"
        : null;
}

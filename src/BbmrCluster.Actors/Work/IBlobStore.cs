namespace BbmrCluster.Actors.Work;

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
    /// <exception cref="StageFailedException"><see cref="FailureClass.StoreFull"/>: quota or disk; nothing of the blob is left.</exception>
    BlobRef Write(ImageId image, string label, int attempt, ReadOnlySpan<byte> content);

    /// <summary>Reads a blob and checks length and hash.</summary>
    /// <exception cref="StageFailedException"><see cref="FailureClass.BlobLost"/>: missing or damaged.</exception>
    byte[] Read(BlobRef blob);

    /// <summary>
    /// A file with a blob's bytes, checked, for libraries that read files: the store's own where it has one on this
    /// machine, otherwise a copy.
    /// </summary>
    /// <param name="blob">The blob.</param>
    /// <param name="scratch">An existing folder for a copy; its owner sweeps it.</param>
    /// <exception cref="StageFailedException"><see cref="FailureClass.BlobLost"/>, or <see cref="FailureClass.StoreFull"/> for a copy.</exception>
    string LocalFile(BlobRef blob, string scratch);

    /// <summary>Deletes a blob; nothing happens when it is gone.</summary>
    void Delete(BlobRef blob);

    /// <summary>Deletes all blobs of an image, temporaries included.</summary>
    void DeleteImage(ImageId image);

    /// <summary>Room at this moment.</summary>
    StoreRoom Room { get; }
}

/// <summary>Room in a store.</summary>
/// <param name="Used">Bytes of blobs.</param>
/// <param name="Quota">Bytes that blobs may take.</param>
/// <param name="DiskFree">Bytes free on the disk.</param>
/// <param name="Floor">Free bytes below which no image is opened.</param>
public sealed record StoreRoom(long Used, long Quota, long DiskFree, long Floor)
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

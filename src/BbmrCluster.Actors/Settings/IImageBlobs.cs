using BbmrCluster.Work;

namespace BbmrCluster.Actors.Settings;

/// <summary>What the coordination itself does with blobs; it never looks at pixels. Thread-safe; every call may block.</summary>
public interface IImageBlobs
{
    /// <summary>Images of which something is stored, blobs or entries of the journal, which the janitor of a cluster goes through.</summary>
    /// <exception cref="StageFailedException">A store cannot be reached.</exception>
    IReadOnlyList<StoredImage> Images();

    /// <summary>Deletes the blobs of an image that is closed.</summary>
    void DeleteImage(ImageId image);

    /// <summary>Writes what is too large for a message, with the image's blobs.</summary>
    /// <param name="image">The image.</param>
    /// <param name="label">1 to 64 characters of a-z, 0-9 and '-'.</param>
    /// <param name="content">The bytes.</param>
    /// <exception cref="StageFailedException">The store is full or cannot be reached.</exception>
    BlobRef Write(ImageId image, string label, byte[] content);

    /// <summary>Reads it.</summary>
    /// <exception cref="StageFailedException">It is lost, or the store cannot be reached.</exception>
    byte[] Read(BlobRef blob);
}

/// <summary>The blobs of a store.</summary>
/// <param name="store">The store.</param>
public class ImageBlobs(IBlobStore store) : IImageBlobs
{
    /// <inheritdoc/>
    public virtual IReadOnlyList<StoredImage> Images() => store.Images();

    /// <inheritdoc/>
    public void DeleteImage(ImageId image) => store.DeleteImage(image);

    /// <inheritdoc/>
    public BlobRef Write(ImageId image, string label, byte[] content) => store.Write(image, label, 1, content);

    /// <inheritdoc/>
    public byte[] Read(BlobRef blob) => store.Read(blob);
}

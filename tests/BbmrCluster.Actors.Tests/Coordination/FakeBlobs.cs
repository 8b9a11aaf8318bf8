using System.Collections.Concurrent;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>Blobs in memory; a test says what happens besides.</summary>
internal sealed class FakeBlobs : IImageBlobs
{
    private readonly ConcurrentDictionary<string, byte[]> _written = new(StringComparer.Ordinal);

    public Action<ImageId> Deleting { get; init; } = _ => { };

    public Action Writing { get; init; } = () => { };

    public Func<IReadOnlyList<StoredImage>> Stored { get; init; } = () => [];

    public int Written => _written.Count;

    public IReadOnlyList<StoredImage> Images() => Stored();

    public void DeleteImage(ImageId image) => Deleting(image);

    public BlobRef Write(ImageId image, string label, byte[] content)
    {
        Writing();
        BlobRef blob = BlobNames.Of(image, label, content);
        _written[blob.Name] = content;
        return blob;
    }

    public byte[] Read(BlobRef blob) => _written[blob.Name];
}

using System.Globalization;
using System.IO.Hashing;

namespace BbmrCluster.Work;

/// <summary>
/// What stores behind a network have in common. A call that fails in passing (no connection, no answer, a server's own
/// error) is tried again for a while; then the failure is one of <see cref="FailureClass.StoreFull"/>, so that images wait
/// for the store as they wait for room, instead of failing. A read that breaks off goes on where it stopped. Every blob is
/// compared with its hash when it is read.
/// </summary>
/// <param name="place">Where blobs lie, for messages.</param>
/// <param name="patience">How long a call is tried again (default 20 s: less than the least deadline of a lease).</param>
public abstract class RemoteBlobStore(string place, TimeSpan? patience = null) : IBlobStore
{
    /// <summary>Code of failures that time does not mend: the store refuses this node.</summary>
    public const string RefusedCode = "store_refused";

    private const int PieceBytes = 1 << 16;

    // Without a byte for so long, a connection counts as broken.
    private static readonly TimeSpan Silence = TimeSpan.FromSeconds(30), CheckLimit = TimeSpan.FromSeconds(10);

    private readonly TimeSpan _patience = patience ?? TimeSpan.FromSeconds(20);

    /// <summary>Where blobs lie.</summary>
    protected string Place => place;

    /// <inheritdoc/>
    public bool IsHere => false;

    /// <inheritdoc/>
    public StoreRoom Room => Wait(0, RoomAsync);

    /// <inheritdoc/>
    public BlobRef Write(ImageId image, string label, int attempt, ReadOnlySpan<byte> content)
    {
        BlobRef blob = BlobNames.Of(image, label, content);
        byte[] bytes = content.ToArray();
        Wait(bytes.Length, cancellation => PutAsync(image, blob, bytes, cancellation));
        return blob;
    }

    /// <inheritdoc/>
    public byte[] Read(BlobRef blob)
    {
        BlobNames.Checked(blob.Name);
        var content = new byte[blob.Length];
        using var target = new MemoryStream(content, writable: true);
        CopyAsync(blob, target).GetAwaiter().GetResult();
        return content;
    }

    /// <inheritdoc/>
    public string LocalFile(BlobRef blob, string scratch)
    {
        string path = Path.Combine(scratch, BlobNames.Checked(blob.Name).Replace('/', '_'));
        try
        {
            using var target = new FileStream(path, FileMode.Create, FileAccess.Write, FileShare.None, 1);
            CopyAsync(blob, target).GetAwaiter().GetResult();
            return path;
        }
        catch (Exception error)
        {
            File.Delete(path);
            throw FileSystem.IsFull(error)
                ? new StageFailedException(FailureClass.StoreFull, $"the disk of the work folder is full ({scratch})", inner: error) { Code = "full" }
                : error;
        }
    }

    /// <inheritdoc/>
    public void Delete(BlobRef blob)
    {
        BlobNames.Checked(blob.Name);
        Wait(0, cancellation => DeleteAsync(blob, cancellation));
    }

    /// <inheritdoc/>
    public void DeleteImage(ImageId image) => Wait(0, cancellation => DeleteImageAsync(image, cancellation));

    /// <inheritdoc/>
    public string Check()
    {
        // Whoever asks wants to know how things stand, not how they will.
        using var limit = new CancellationTokenSource(CheckLimit);
        try
        {
            CheckAsync(limit.Token).GetAwaiter().GetResult();
            return place;
        }
        catch (Exception error) when (error is not StageFailedException)
        {
            throw Unreachable(error);
        }
    }

    /// <inheritdoc/>
    public IReadOnlyList<StoredImage> Images() => Wait(0, ImagesAsync);

    /// <summary>Stores a blob as a whole or not at all; replaces one of this name.</summary>
    protected abstract Task PutAsync(ImageId image, BlobRef blob, byte[] content, CancellationToken cancellation);

    /// <summary>Opens a blob at an offset.</summary>
    /// <returns>The bytes and where they begin: the offset, or 0 where the other side cannot begin elsewhere.</returns>
    protected abstract Task<(Stream Content, long From)> OpenAsync(BlobRef blob, long offset, CancellationToken cancellation);

    /// <summary>Deletes a blob, or nothing.</summary>
    protected abstract Task DeleteAsync(BlobRef blob, CancellationToken cancellation);

    /// <summary>Deletes all blobs of an image.</summary>
    protected abstract Task DeleteImageAsync(ImageId image, CancellationToken cancellation);

    /// <summary>Room.</summary>
    protected abstract Task<StoreRoom> RoomAsync(CancellationToken cancellation);

    /// <summary>Tries whether blobs can be written.</summary>
    protected abstract Task CheckAsync(CancellationToken cancellation);

    /// <summary>All images.</summary>
    protected abstract Task<IReadOnlyList<StoredImage>> ImagesAsync(CancellationToken cancellation);

    /// <summary>The blob is gone or is not what it was.</summary>
    protected static StageFailedException Lost(BlobRef blob, string what, Exception? inner = null) =>
        new(FailureClass.BlobLost, $"intermediate result {blob.Name} {what}", blob, inner) { Code = "blob_lost" };

    /// <summary>The store refuses this node, and will until someone changes that.</summary>
    /// <param name="why">A predicate without the store's name, e.g. "does not admit this node".</param>
    /// <param name="inner">What was noticed.</param>
    protected StageFailedException Refused(string why, Exception? inner = null) =>
        new(FailureClass.StoreFull, $"the store {place} {why}", inner: inner) { Code = RefusedCode };

    private StageFailedException Unreachable(Exception error) =>
        new(FailureClass.StoreFull, $"the store {place} cannot be used: {(error is OperationCanceledException ? "no answer in time" : error.Message.TrimEnd('.'))}", inner: error) { Code = "store_unreachable" };

    /// <summary>An image by itself has more than it may.</summary>
    protected static StageFailedException TooLarge(long quota) =>
        new(FailureClass.Permanent, $"it needs more work space than the limit of {FileSystem.Size(quota)} (--max-work)") { Code = "work_space" };

    private void Wait(long bytes, Func<CancellationToken, Task> call) => Wait(bytes, async cancellation =>
    {
        await call(cancellation);
        return true;
    });

    // Called from threads of devices and pools, which may block: stages are synchronous.
    private T Wait<T>(long bytes, Func<CancellationToken, Task<T>> call) => RepeatedAsync(bytes, call).GetAwaiter().GetResult();

    private async Task<T> RepeatedAsync<T>(long bytes, Func<CancellationToken, Task<T>> call)
    {
        var tries = new Tries(this);
        while (true)
        {
            // As for a line of a megabyte a second.
            using var limit = new CancellationTokenSource(Silence + TimeSpan.FromMilliseconds(bytes / 1000));
            try
            {
                return await call(limit.Token);
            }
            catch (Exception error) when (error is not (StageFailedException or ArgumentException))
            {
                await tries.AgainAsync(error);
            }
        }
    }

    private async Task CopyAsync(BlobRef blob, Stream target)
    {
        var hash = new XxHash128();
        var buffer = new byte[PieceBytes];
        var tries = new Tries(this);
        for (long done = 0; done < blob.Length || blob.Length == 0;)
        {
            using var limit = new CancellationTokenSource(Silence);
            try
            {
                (Stream content, long from) = await OpenAsync(blob, done, limit.Token);
                await using (content)
                {
                    if (from != done)
                    {
                        (done, target.Position) = (0, 0);
                        hash.Reset();
                    }
                    for (int read; (read = await content.ReadAsync(buffer, limit.Token)) > 0;)
                    {
                        done += read;
                        if (done > blob.Length)
                            throw Lost(blob, "is damaged");
                        hash.Append(buffer.AsSpan(0, read));
                        target.Write(buffer, 0, read);
                        limit.CancelAfter(Silence);
                        tries.Succeeded();
                    }
                }
                if (blob.Length == 0)
                    break;
                if (done < blob.Length)
                    throw new EndOfStreamException(string.Create(CultureInfo.InvariantCulture, $"{blob.Name} broke off after {done} of {blob.Length} bytes"));
            }
            catch (Exception error) when (error is not StageFailedException && !FileSystem.IsFull(error))
            {
                await tries.AgainAsync(error);
            }
        }
        if (Convert.ToHexStringLower(hash.GetCurrentHash()) != blob.Hash)
            throw Lost(blob, "is damaged");
    }

    /// <summary>Pauses that grow, until patience is at its end.</summary>
    private sealed class Tries(RemoteBlobStore store)
    {
        private static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(2);

        private long _since = TimeProvider.System.GetTimestamp();
        private TimeSpan _pause = TimeSpan.FromMilliseconds(100);

        /// <summary>Something came: what fails from here on has all of its time again.</summary>
        public void Succeeded() => (_since, _pause) = (TimeProvider.System.GetTimestamp(), TimeSpan.FromMilliseconds(100));

        public async Task AgainAsync(Exception error)
        {
            if (TimeProvider.System.GetElapsedTime(_since) + _pause > store._patience)
                throw store.Unreachable(error);
            await Task.Delay(_pause);
            _pause = _pause * 2 < LongestPause ? _pause * 2 : LongestPause;
        }
    }
}

using System.Globalization;
using System.IO.Hashing;

namespace BbmrCluster.Work;

/// <summary>Options of a <see cref="DirectoryBlobStore"/>.</summary>
/// <param name="Quota">Bytes that blobs may take (--max-work); null takes half of what is free or already used by blobs, at start or later when more is free than then.</param>
/// <param name="Floor">Free bytes below which no image is opened.</param>
/// <param name="Exclusive">One process owns the directory: its temporaries are all litter at start. Otherwise only those older than a day are.</param>
public sealed record DirectoryBlobStoreOptions(long? Quota = null, long Floor = 2_000_000_000, bool Exclusive = true);

/// <summary>
/// Blobs as files of a directory, one folder per image. A blob is written under a temporary name and renamed; it is
/// compared with its XXH3-128 whenever it is read. Intermediates are not synced to the disk: a damaged one is noticed
/// and made again. The quota counts what this process wrote and found at start; where other processes write and delete in
/// the same directory, it is counted again every few seconds and before anything is refused.
/// </summary>
public sealed class DirectoryBlobStore : IBlobStore
{
    private const string Temporary = ".tmp";

    // Process ids repeat among containers.
    private static readonly string Writer = Guid.NewGuid().ToString("N")[..12];
    private static int _serial;

    private static readonly TimeSpan CountInterval = TimeSpan.FromSeconds(10);

    private readonly string _root;
    private readonly long _floor;
    private readonly bool _exclusive, _limited;
    private readonly Lock _accounting = new();
    private long _used, _countedAt, _quota;

    /// <summary>Opens or creates the directory, sweeps temporaries and counts what is there.</summary>
    /// <exception cref="StageFailedException"><see cref="FailureClass.StoreFull"/>: not even the directory can be made.</exception>
    public DirectoryBlobStore(string root, DirectoryBlobStoreOptions? options = null)
    {
        options ??= new DirectoryBlobStoreOptions();
        _root = Path.GetFullPath(root);
        _floor = options.Floor;
        _exclusive = options.Exclusive;
        Guard(() => Directory.CreateDirectory(_root));
        foreach (var file in Files().Where(IsTemporary))
        {
            if (options.Exclusive || file.LastWriteTimeUtc < DateTime.UtcNow.AddDays(-1))
                Discard(file.FullName);
        }
        _used = Count();
        _countedAt = Environment.TickCount64;
        _limited = options.Quota is not null;
        _quota = options.Quota ?? 0;
        Measure();
    }

    /// <summary>Bytes that blobs may take.</summary>
    public long Quota => Interlocked.Read(ref _quota);

    // What one image may take at the most, however much becomes free.
    private long Most => _limited ? Quota : FileSystem.TotalBytes(_root) / 2;

    /// <inheritdoc/>
    public bool IsHere => true;

    /// <inheritdoc/>
    public StoreRoom Room
    {
        get
        {
            Recount(now: false);
            Measure();
            lock (_accounting)
                return new StoreRoom(_used, Quota, FileSystem.FreeBytes(_root), _floor, Most);
        }
    }

    /// <inheritdoc/>
    public BlobRef Write(ImageId image, string label, int attempt, ReadOnlySpan<byte> content)
    {
        BlobRef blob = BlobNames.Of(image, label, content);
        string path = PathOf(blob.Name), temporary = TemporaryOf(path, attempt);
        Reserve(image, blob.Length);
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            using (var file = new FileStream(temporary, FileMode.Create, FileAccess.Write, FileShare.None, 1))
                file.Write(content);
            Place(temporary, path);
            return blob;
        }
        catch (Exception error)
        {
            throw NotWritten(error, temporary, blob.Length);
        }
    }

    /// <summary>Takes a blob that another node sends. It bears its name only when all of it has come and has its hash.</summary>
    /// <param name="blob">What it is to be.</param>
    /// <param name="content">Its bytes, read once; a piece of them is in memory at a time.</param>
    /// <param name="cancellation">Ends it; nothing is left.</param>
    /// <exception cref="ArgumentException">No name of a blob.</exception>
    /// <exception cref="InvalidDataException">Other bytes came.</exception>
    /// <exception cref="StageFailedException">As in <see cref="Write"/>.</exception>
    public async Task ReceiveAsync(BlobRef blob, Stream content, CancellationToken cancellation)
    {
        string path = PathOf(blob.Name), temporary = TemporaryOf(path, 0);
        Reserve(BlobNames.ImageOf(blob.Name)!.Value, blob.Length);
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            await using (var file = new FileStream(temporary, FileMode.Create, FileAccess.Write, FileShare.None, 1, FileOptions.Asynchronous))
            {
                var hash = new XxHash128();
                var buffer = new byte[1 << 16];
                long length = 0;
                for (int read; (read = await content.ReadAsync(buffer, cancellation)) > 0 && (length += read) <= blob.Length;)
                {
                    hash.Append(buffer.AsSpan(0, read));
                    await file.WriteAsync(buffer.AsMemory(0, read), cancellation);
                }
                if (length != blob.Length || Convert.ToHexStringLower(hash.GetCurrentHash()) != blob.Hash || !blob.Name.EndsWith(blob.Hash[..16], StringComparison.Ordinal))
                    throw new InvalidDataException($"what came is not {blob.Name}: its length or its hash is another");
            }
            Place(temporary, path);
        }
        catch (Exception error)
        {
            throw NotWritten(error, temporary, blob.Length);
        }
    }

    /// <summary>The file of a blob, for whoever sends it to another node; null when it is not there.</summary>
    /// <exception cref="ArgumentException">No name of a blob.</exception>
    public string? Find(string name) => PathOf(name) is var path && File.Exists(path) ? path : null;

    /// <inheritdoc/>
    public byte[] Read(BlobRef blob)
    {
        byte[] content;
        try
        {
            content = File.ReadAllBytes(PathOf(blob.Name));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw Lost(blob, "is missing", error);
        }
        if (content.LongLength != blob.Length || BlobNames.Hash(content) != blob.Hash)
            throw Lost(blob, "is damaged", null);
        return content;
    }

    /// <inheritdoc/>
    public string LocalFile(BlobRef blob, string scratch)
    {
        _ = Read(blob);
        return PathOf(blob.Name);
    }

    /// <inheritdoc/>
    public void Delete(BlobRef blob)
    {
        string path = PathOf(blob.Name);
        long length = File.Exists(path) ? new FileInfo(path).Length : 0;
        Discard(path);
        Release(length);
    }

    /// <inheritdoc/>
    public void DeleteImage(ImageId image)
    {
        var folder = new DirectoryInfo(Path.Combine(_root, image.Value));
        if (!folder.Exists)
            return;
        long length = 0;
        foreach (var file in folder.EnumerateFiles().Where(IsOurs))
        {
            if (!IsTemporary(file))
                length += file.Length;
            Discard(file.FullName);
        }
        try
        {
            folder.Delete();
        }
        catch (IOException)
        {
            // A late writer has a file in it, which the janitor or the next start sweeps.
        }
        Release(length);
    }

    /// <inheritdoc/>
    public string Check()
    {
        string probe = Path.Combine(_root, $".ready-{Writer}-{Interlocked.Increment(ref _serial)}{Temporary}");
        try
        {
            Directory.CreateDirectory(_root);
            File.Create(probe, 1, FileOptions.DeleteOnClose).Dispose();
            return _root;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new StageFailedException(FailureClass.StoreFull, error.Message, inner: error) { Code = "store" };
        }
    }

    /// <inheritdoc/>
    public IReadOnlyList<StoredImage> Images()
    {
        var images = new List<StoredImage>();
        foreach (var folder in new DirectoryInfo(_root).EnumerateDirectories())
        {
            try
            {
                var entries = folder.EnumerateFileSystemInfos().ToList();
                // Whoever named a folder that is in other use as a store must not lose what is in it.
                if (entries.Count > 0 && entries.All(entry => entry is FileInfo file && IsOurs(file)))
                    images.Add(new StoredImage(new ImageId(folder.Name), new DateTimeOffset(entries.Max(entry => entry.LastWriteTimeUtc))));
            }
            catch (IOException)
            {
                // Deleted meanwhile.
            }
        }
        return images;
    }

    private string PathOf(string name) => Path.Combine(_root, BlobNames.Checked(name));

    // The file's folder is its image.
    private static bool IsOurs(FileInfo file)
    {
        string name = $"{file.Directory!.Name}/{file.Name}";
        // LABEL.HASH, and for a temporary: .ATTEMPT-WRITER-SERIAL.tmp
        return BlobNames.ImageOf(IsTemporary(file) && name.Split('.') is [var label, var hash, _, _] ? $"{label}.{hash}" : name) is not null;
    }

    private static bool IsTemporary(FileInfo file) => file.Name.EndsWith(Temporary, StringComparison.Ordinal);

    private static string TemporaryOf(string path, int attempt) =>
        string.Create(CultureInfo.InvariantCulture, $"{path}.{attempt}-{Writer}-{Interlocked.Increment(ref _serial)}{Temporary}");

    // The same bytes may have been here before (a lease done twice): they are counted once.
    private void Place(string temporary, string path)
    {
        long replaced = File.Exists(path) ? new FileInfo(path).Length : 0;
        File.Move(temporary, path, overwrite: true);
        Release(replaced);
    }

    private Exception NotWritten(Exception error, string temporary, long reserved)
    {
        Release(reserved);
        Discard(temporary);
        return FileSystem.IsFull(error) ? Full("the disk of the work directory is full", error) : error is IOException or UnauthorizedAccessException
            ? new StageFailedException(FailureClass.Transient, $"the work directory cannot be written: {error.Message}", inner: error)
            : error;
    }

    private void Reserve(ImageId image, long bytes)
    {
        Recount(now: false);
        if (TryReserve(bytes))
            return;
        Recount(now: true);
        Measure();
        if (TryReserve(bytes))
            return;
        // What other images hold goes in time. What the image holds itself does not: waiting would have no end.
        if (Held(image) + bytes > Most)
            throw new StageFailedException(FailureClass.Permanent, $"it needs more work space than the limit of {FileSystem.Size(Most)} (--max-work)") { Code = "work_space" };
        throw Full($"the work directory has reached its limit of {FileSystem.Size(Quota)}", null);
    }

    // Half of a disk that happened to be full at the start would be too little for ever.
    private void Measure()
    {
        if (_limited)
            return;
        lock (_accounting)
            _quota = Math.Max(_quota, (FileSystem.FreeBytes(_root) + _used) / 2);
    }

    private bool TryReserve(long bytes)
    {
        lock (_accounting)
        {
            if (_used + bytes > Quota)
                return false;
            _used += bytes;
            return true;
        }
    }

    // Others write and delete here too.
    private void Recount(bool now)
    {
        if (_exclusive)
            return;
        long last = Interlocked.Read(ref _countedAt), time = Environment.TickCount64;
        if ((!now && time - last < CountInterval.TotalMilliseconds) || Interlocked.CompareExchange(ref _countedAt, time, last) != last)
            return;
        long used = Count();
        lock (_accounting)
            _used = used;
    }

    private long Count()
    {
        long sum = 0;
        foreach (var file in Files().Where(file => !IsTemporary(file)))
        {
            try
            {
                sum += file.Length;
            }
            catch (IOException)
            {
                // Deleted meanwhile.
            }
        }
        return sum;
    }

    // Folders may go while they are walked through.
    private IEnumerable<FileInfo> Files()
    {
        IEnumerable<DirectoryInfo> folders;
        try
        {
            folders = [new DirectoryInfo(_root), .. new DirectoryInfo(_root).EnumerateDirectories()];
        }
        catch (IOException)
        {
            yield break;
        }
        foreach (var folder in folders)
        {
            FileInfo[] files;
            try
            {
                files = folder.GetFiles();
            }
            catch (IOException)
            {
                continue;
            }
            foreach (var file in files)
                yield return file;
        }
    }

    private long Held(ImageId image)
    {
        var folder = new DirectoryInfo(Path.Combine(_root, image.Value));
        return !folder.Exists ? 0 : folder.EnumerateFiles().Where(file => IsOurs(file) && !IsTemporary(file)).Sum(file => file.Length);
    }

    private void Release(long bytes)
    {
        lock (_accounting)
            _used = Math.Max(0, _used - bytes);
    }

    private static StageFailedException Lost(BlobRef blob, string what, Exception? inner) =>
        new(FailureClass.BlobLost, $"intermediate result {blob.Name} {what}", blob, inner) { Code = "blob_lost" };

    private StageFailedException Full(string what, Exception? inner) =>
        new(FailureClass.StoreFull, $"{what} ({_root})", inner: inner) { Code = "full" };

    private void Guard(Action action)
    {
        try
        {
            action();
        }
        catch (IOException error) when (FileSystem.IsFull(error))
        {
            throw Full("the disk of the work directory is full", error);
        }
    }

    private static void Discard(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // Gone with its folder, or not ours to delete: it costs room, never correctness.
        }
    }
}

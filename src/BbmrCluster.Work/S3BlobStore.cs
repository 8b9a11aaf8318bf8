using System.Net;
using Amazon.Runtime;
using Amazon.Runtime.CredentialManagement;
using Amazon.S3;
using Amazon.S3.Model;

namespace BbmrCluster.Work;

/// <summary>Where the bucket of an <see cref="S3BlobStore"/> is.</summary>
/// <param name="Bucket">Its name; it is there already.</param>
/// <param name="Prefix">Of all keys, without '/' at the end; empty for none.</param>
/// <param name="Endpoint">The server; null for Amazon's in the region.</param>
/// <param name="Region">Region.</param>
/// <param name="PathStyle">Name the bucket in the path rather than in the host.</param>
/// <param name="CredentialsFile">Credentials file of AWS, profile default; null takes the environment and the other usual ways.</param>
/// <param name="Quota">Bytes that blobs may take; null for any number, and nothing is counted.</param>
/// <param name="Patience">How long a call is tried again.</param>
public sealed record S3BlobStoreOptions(string Bucket, string Prefix, Uri? Endpoint, string Region, bool PathStyle, string? CredentialsFile = null, long? Quota = null, TimeSpan? Patience = null);

/// <summary>
/// Blobs as objects of an S3-compatible bucket: PREFIX/IMAGE/LABEL.HASH. An object appears as a whole or not at all, and
/// one that is written again has the same bytes, so writing needs no condition; one request holds the largest blob (a strip
/// of 128 rows, less than 70 MB). With a quota the bucket is counted every minute by each process, and before anything is
/// refused; in between a process knows what it wrote itself.
/// </summary>
public sealed class S3BlobStore : RemoteBlobStore, IDisposable
{
    private static readonly TimeSpan CountInterval = TimeSpan.FromMinutes(1), LeastCountInterval = TimeSpan.FromSeconds(2);

    private readonly S3BlobStoreOptions _options;
    private readonly string _prefix;
    private readonly AmazonS3Client _s3;
    private readonly SemaphoreSlim _counting = new(1);
    private long _used, _countedAt = long.MinValue;

    /// <summary>Names the bucket; nothing is sent yet.</summary>
    public S3BlobStore(S3BlobStoreOptions options)
        : base($"s3://{options.Bucket}{(options.Prefix.Length == 0 ? "" : "/" + options.Prefix)}", options.Patience)
    {
        _options = options;
        _prefix = options.Prefix.Length == 0 ? "" : options.Prefix + "/";
        var config = new AmazonS3Config
        {
            AuthenticationRegion = options.Region,
            ForcePathStyle = options.PathStyle,
            // Tried again here, in one way for all stores.
            MaxErrorRetry = 0,
            // Blobs have hashes of their own, and not every server knows the newer checksums.
            RequestChecksumCalculation = RequestChecksumCalculation.WHEN_REQUIRED,
            ResponseChecksumValidation = ResponseChecksumValidation.WHEN_REQUIRED,
            Timeout = Timeout.InfiniteTimeSpan,
        };
        if (options.Endpoint is { } endpoint)
            config.ServiceURL = endpoint.GetLeftPart(UriPartial.Path);
        else
            config.RegionEndpoint = Amazon.RegionEndpoint.GetBySystemName(options.Region);
        _s3 = options.CredentialsFile is { } file ? new AmazonS3Client(Credentials(file), config) : new AmazonS3Client(config);
    }

    /// <summary>Ends all connections.</summary>
    public void Dispose()
    {
        _s3.Dispose();
        _counting.Dispose();
    }

    /// <inheritdoc/>
    protected override Task PutAsync(ImageId image, BlobRef blob, byte[] content, CancellationToken cancellation) => Told(async () =>
    {
        await RequireRoomAsync(image, content.Length, cancellation);
        using var stream = new MemoryStream(content, writable: false);
        await _s3.PutObjectAsync(new PutObjectRequest
        {
            BucketName = _options.Bucket, Key = _prefix + blob.Name, InputStream = stream, AutoCloseStream = false, UseChunkEncoding = false, ContentType = "application/octet-stream",
        }, cancellation);
        Interlocked.Add(ref _used, content.Length);
    });

    /// <inheritdoc/>
    protected override async Task<(Stream Content, long From)> OpenAsync(BlobRef blob, long offset, CancellationToken cancellation)
    {
        try
        {
            var request = new GetObjectRequest { BucketName = _options.Bucket, Key = _prefix + blob.Name };
            if (offset > 0)
                request.ByteRange = new ByteRange(offset, blob.Length - 1);
            GetObjectResponse response = await Told(() => _s3.GetObjectAsync(request, cancellation));
            bool partial = response.HttpStatusCode == HttpStatusCode.PartialContent;
            if ((partial ? offset : 0) + response.ContentLength == blob.Length)
                return (response.ResponseStream, partial ? offset : 0);
            response.Dispose();
            throw Lost(blob, "is damaged");
        }
        catch (AmazonS3Exception error) when (error.ErrorCode is "NoSuchKey")
        {
            throw Lost(blob, "is missing", error);
        }
        catch (AmazonS3Exception error) when (error.ErrorCode is "InvalidRange")
        {
            throw Lost(blob, "is damaged", error);
        }
    }

    /// <inheritdoc/>
    protected override Task DeleteAsync(BlobRef blob, CancellationToken cancellation) => Told(async () =>
    {
        await _s3.DeleteObjectAsync(_options.Bucket, _prefix + blob.Name, cancellation);
        Interlocked.Add(ref _used, -blob.Length);
    });

    /// <inheritdoc/>
    protected override Task DeleteImageAsync(ImageId image, CancellationToken cancellation) => Told(async () =>
    {
        await foreach (IReadOnlyList<S3Object> page in PagesAsync($"{_prefix}{image}/", cancellation))
        {
            var keys = page.Where(one => BlobNames.ImageOf(one.Key[_prefix.Length..]) is not null).Select(one => new KeyVersion { Key = one.Key }).ToList();
            if (keys.Count > 0)
                await _s3.DeleteObjectsAsync(new DeleteObjectsRequest { BucketName = _options.Bucket, Objects = keys, Quiet = true }, cancellation);
            Interlocked.Add(ref _used, -page.Sum(one => one.Size ?? 0));
        }
    });

    /// <inheritdoc/>
    protected override async Task<StoreRoom> RoomAsync(CancellationToken cancellation)
    {
        if (_options.Quota is not { } quota)
            return new StoreRoom(0, long.MaxValue, long.MaxValue, 0);
        await Told(() => CountAsync(CountInterval, cancellation));
        return new StoreRoom(Math.Max(0, Interlocked.Read(ref _used)), quota, long.MaxValue, 0);
    }

    /// <inheritdoc/>
    protected override Task CheckAsync(CancellationToken cancellation) => Told(async () =>
    {
        string key = $"{_prefix}.ready-{Guid.NewGuid():n}";
        await _s3.PutObjectAsync(new PutObjectRequest { BucketName = _options.Bucket, Key = key, ContentBody = "ready", UseChunkEncoding = false }, cancellation);
        await _s3.DeleteObjectAsync(_options.Bucket, key, cancellation);
    });

    /// <inheritdoc/>
    protected override async Task<IReadOnlyList<StoredImage>> ImagesAsync(CancellationToken cancellation)
    {
        var latest = new Dictionary<ImageId, DateTime>();
        await Told(async () =>
        {
            await foreach (IReadOnlyList<S3Object> page in PagesAsync(_prefix, cancellation))
            {
                foreach (S3Object one in page)
                {
                    if (BlobNames.ImageOf(one.Key[_prefix.Length..]) is { } image && one.LastModified?.ToUniversalTime() is { } written && written > latest.GetValueOrDefault(image))
                        latest[image] = written;
                }
            }
        });
        return [.. latest.Select(one => new StoredImage(one.Key, new DateTimeOffset(one.Value)))];
    }

    private async IAsyncEnumerable<IReadOnlyList<S3Object>> PagesAsync(string prefix, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellation)
    {
        string? next = null;
        do
        {
            ListObjectsV2Response page = await _s3.ListObjectsV2Async(new ListObjectsV2Request { BucketName = _options.Bucket, Prefix = prefix, ContinuationToken = next }, cancellation);
            if (page.S3Objects is { Count: > 0 } objects)
                yield return objects;
            next = page.IsTruncated == true ? page.NextContinuationToken : null;
        }
        while (next is not null);
    }

    private async Task RequireRoomAsync(ImageId image, long bytes, CancellationToken cancellation)
    {
        if (_options.Quota is not { } quota)
            return;
        await CountAsync(CountInterval, cancellation);
        if (Interlocked.Read(ref _used) + bytes <= quota)
            return;
        await CountAsync(LeastCountInterval, cancellation);
        if (Interlocked.Read(ref _used) + bytes <= quota)
            return;
        // What other images hold goes in time. What the image holds itself does not: waiting would have no end.
        if (await SumAsync($"{_prefix}{image}/", cancellation) + bytes > quota)
            throw TooLarge(quota);
        throw Full($"the store {Place} has reached its limit of {FileSystem.Size(quota)}", null);
    }

    private async Task CountAsync(TimeSpan interval, CancellationToken cancellation)
    {
        await _counting.WaitAsync(cancellation);
        try
        {
            if (_countedAt != long.MinValue && TimeProvider.System.GetElapsedTime(_countedAt) < interval)
                return;
            Interlocked.Exchange(ref _used, await SumAsync(_prefix, cancellation));
            _countedAt = TimeProvider.System.GetTimestamp();
        }
        finally
        {
            _counting.Release();
        }
    }

    private async Task<long> SumAsync(string prefix, CancellationToken cancellation)
    {
        long sum = 0;
        await foreach (IReadOnlyList<S3Object> page in PagesAsync(prefix, cancellation))
            sum += page.Sum(one => one.Size ?? 0);
        return sum;
    }

    private async Task Told(Func<Task> call)
    {
        try
        {
            await call();
        }
        catch (Exception error) when (Final(error) is not null)
        {
            throw Final(error)!;
        }
    }

    private async Task<T> Told<T>(Func<Task<T>> call)
    {
        try
        {
            return await call();
        }
        catch (Exception error) when (Final(error) is not null)
        {
            throw Final(error)!;
        }
    }

    /// <summary>What a failure means that trying again does not mend; null for others.</summary>
    private StageFailedException? Final(Exception error) => error switch
    {
        AmazonS3Exception { StatusCode: HttpStatusCode.InsufficientStorage } or AmazonS3Exception { ErrorCode: "QuotaExceeded" or "XMinioStorageFull" or "XMinioAdminBucketQuotaExceeded" } =>
            Full($"the store {Place} is full: {error.Message.TrimEnd('.')}", error),
        AmazonS3Exception { ErrorCode: "NoSuchBucket" } => Refused("does not exist: make the bucket first", error),
        AmazonS3Exception { StatusCode: HttpStatusCode.Forbidden or HttpStatusCode.Unauthorized } => Refused($"does not admit this node: {error.Message.TrimEnd('.')}", error),
        // There are none anywhere.
        AmazonClientException { InnerException: null } => Refused($"needs credentials: {error.Message.TrimEnd('.')}", error),
        _ => null,
    };

    private static StageFailedException Full(string what, Exception? inner) => new(FailureClass.StoreFull, what, inner: inner) { Code = "full" };

    private AWSCredentials Credentials(string file) =>
        new CredentialProfileStoreChain(file).TryGetAWSCredentials("default", out AWSCredentials credentials) ? credentials
            : throw Refused($"needs credentials: {file} holds none under [default]");
}

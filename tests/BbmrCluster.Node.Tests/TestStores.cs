using Amazon.S3;
using Amazon.S3.Model;
using BbmrCluster.Node.Api;
using BbmrCluster.Node.Cluster;
using BbmrCluster.Tests;
using BbmrCluster.Work;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace BbmrCluster.Node.Tests;

/// <summary>Stores of all kinds, and a way to their bytes behind their back.</summary>
internal abstract class TestStore : IAsyncDisposable
{
    public const string Folder = "folder", Http = "http", Bucket = "bucket";

    public static async Task<TestStore> OpenAsync(string kind, long? quota = null) => kind switch
    {
        Folder => new FolderStore(quota),
        Http => await HttpStore.StartAsync(quota),
        _ => await BucketStore.StartAsync(quota),
    };

    /// <summary>The store as one node has it; every call is another node.</summary>
    public abstract IBlobStore Open();

    /// <summary>Replaces what is stored; null deletes it.</summary>
    public abstract Task ReplaceAsync(BlobRef blob, Func<byte[], byte[]?> change);

    /// <summary>Names of all that is stored.</summary>
    public abstract Task<IReadOnlyList<string>> NamesAsync();

    public abstract ValueTask DisposeAsync();
}

internal sealed class FolderStore(long? quota) : TestStore
{
    public string Root { get; } = Directory.CreateTempSubdirectory("bbmr-store-").FullName;

    public override DirectoryBlobStore Open() => new(Root, new DirectoryBlobStoreOptions(quota, Floor: 0, Exclusive: false));

    public override Task ReplaceAsync(BlobRef blob, Func<byte[], byte[]?> change)
    {
        string path = Path.Combine(Root, blob.Name);
        if (change(File.ReadAllBytes(path)) is { } changed)
            File.WriteAllBytes(path, changed);
        else
            File.Delete(path);
        return Task.CompletedTask;
    }

    public override Task<IReadOnlyList<string>> NamesAsync() =>
        Task.FromResult<IReadOnlyList<string>>([.. Directory.EnumerateFiles(Root, "*", SearchOption.AllDirectories).Select(file => Path.GetRelativePath(Root, file)).Order(StringComparer.Ordinal)]);

    public override ValueTask DisposeAsync()
    {
        Directory.Delete(Root, recursive: true);
        return ValueTask.CompletedTask;
    }
}

/// <summary>A node that serves its folder on loopback, and clients of it.</summary>
internal sealed class HttpStore : TestStore
{
    public const string Token = "s3cret";

    private readonly FolderStore _folder;
    private readonly WebApplication _app;

    private HttpStore(FolderStore folder, WebApplication app) => (_folder, _app) = (folder, app);

    public string Root => _folder.Root;

    public Uri Address => new(_app.Urls.First());

    /// <summary>Called with every request; false has answered it.</summary>
    public Func<HttpContext, Task<bool>> Before { get; set; } = _ => Task.FromResult(true);

    public static async Task<HttpStore> StartAsync(long? quota = null)
    {
        var folder = new FolderStore(quota);
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        builder.Services.AddSingleton(new NodeOptions { Name = "n", Work = "w", Store = new StoreLocation.Folder(folder.Root), Token = Token });
        WebApplication app = builder.Build();
        var store = new HttpStore(folder, app);
        app.Use(async (context, next) =>
        {
            if (await store.Before(context))
                await next(context);
        });
        ApiEndpoints.Guard(app);
        StoreEndpoints.Map(app, folder.Open());
        await app.StartAsync();
        return store;
    }

    public override HttpBlobStore Open() => Open(Token);

    public HttpBlobStore Open(string? token) => new(Address, token, TimeSpan.Zero);

    public override Task ReplaceAsync(BlobRef blob, Func<byte[], byte[]?> change) => _folder.ReplaceAsync(blob, change);

    public override Task<IReadOnlyList<string>> NamesAsync() => _folder.NamesAsync();

    public override async ValueTask DisposeAsync()
    {
        await _app.DisposeAsync();
        await _folder.DisposeAsync();
    }
}

/// <summary>A prefix of its own in a bucket of a server that runs.</summary>
internal sealed class BucketStore : TestStore
{
    private const string Name = "bbmr-tests";

    private readonly AmazonS3Client _s3 = new(new AmazonS3Config { ServiceURL = S3.Server, ForcePathStyle = true, AuthenticationRegion = "us-east-1" });
    private readonly long? _quota;

    private BucketStore(long? quota) => _quota = quota;

    public string Prefix { get; } = "t-" + Guid.NewGuid().ToString("N");

    public static async Task<BucketStore> StartAsync(long? quota = null)
    {
        var store = new BucketStore(quota);
        try
        {
            await store._s3.PutBucketAsync(Name);
        }
        catch (AmazonS3Exception error) when (error.ErrorCode is "BucketAlreadyExists" or "BucketAlreadyOwnedByYou")
        {
            // By an earlier test.
        }
        return store;
    }

    public override S3BlobStore Open() => Open(Name, null);

    public S3BlobStore Open(string bucket = Name, string? credentialsFile = null) =>
        new(new S3BlobStoreOptions(bucket, Prefix, new Uri(S3.Server!), "us-east-1", PathStyle: true, credentialsFile, _quota, TimeSpan.Zero));

    public override async Task ReplaceAsync(BlobRef blob, Func<byte[], byte[]?> change)
    {
        using GetObjectResponse there = await _s3.GetObjectAsync(Name, $"{Prefix}/{blob.Name}");
        using var bytes = new MemoryStream();
        await there.ResponseStream.CopyToAsync(bytes);
        if (change(bytes.ToArray()) is { } changed)
            await _s3.PutObjectAsync(new PutObjectRequest { BucketName = Name, Key = $"{Prefix}/{blob.Name}", InputStream = new MemoryStream(changed), UseChunkEncoding = false });
        else
            await _s3.DeleteObjectAsync(Name, $"{Prefix}/{blob.Name}");
    }

    public override async Task<IReadOnlyList<string>> NamesAsync() =>
        [.. ((await _s3.ListObjectsV2Async(new ListObjectsV2Request { BucketName = Name, Prefix = Prefix + "/" })).S3Objects ?? []).Select(one => one.Key[(Prefix.Length + 1)..])];

    public override async ValueTask DisposeAsync()
    {
        foreach (string name in await NamesAsync())
            await _s3.DeleteObjectAsync(Name, $"{Prefix}/{name}");
        _s3.Dispose();
    }
}

using BbmrCluster.Work;

namespace BbmrCluster.Node.Cluster;

/// <summary>Where a node finds intermediate results.</summary>
public abstract record StoreLocation
{
    private StoreLocation()
    {
    }

    /// <summary>Opens the store. One that is away is no reason not to start: it may come; one that refuses this node is.</summary>
    /// <param name="options">The node's options.</param>
    /// <exception cref="NodeConfigurationException">It cannot be used as it is configured.</exception>
    public IBlobStore Open(NodeOptions options)
    {
        try
        {
            IBlobStore store = Connect(options);
            store.Check();
            return store;
        }
        catch (StageFailedException error) when (error.Code != RemoteBlobStore.RefusedCode && this is not Folder)
        {
            return Connect(options);
        }
        catch (Exception error) when (error is StageFailedException or IOException or UnauthorizedAccessException)
        {
            throw new NodeConfigurationException([this is Folder ? $"The store {this} cannot be used: {error.Message.TrimEnd('.')}." : $"{char.ToUpperInvariant(error.Message[0])}{error.Message[1..]}."]);
        }
    }

    private protected abstract IBlobStore Connect(NodeOptions options);

    /// <summary>A folder that this node sees.</summary>
    /// <param name="Path">Absolute.</param>
    public sealed record Folder(string Path) : StoreLocation
    {
        /// <inheritdoc/>
        public override string ToString() => Path;

        private protected override IBlobStore Connect(NodeOptions options) => new DirectoryBlobStore(Path, new DirectoryBlobStoreOptions(options.MaxWork, Exclusive: false));
    }

    /// <summary>The folder of another node, which serves it over HTTP.</summary>
    /// <param name="Address">Scheme, host and port.</param>
    public sealed record Server(Uri Address) : StoreLocation
    {
        /// <inheritdoc/>
        public override string ToString() => Address.GetLeftPart(UriPartial.Authority);

        private protected override IBlobStore Connect(NodeOptions options) => new HttpBlobStore(Address, options.Token);
    }

    /// <summary>A bucket of S3-compatible storage.</summary>
    /// <param name="Name">Of the bucket.</param>
    /// <param name="Prefix">Of all keys, without '/' at the end; empty for none.</param>
    /// <param name="Endpoint">The server; null for Amazon's.</param>
    /// <param name="Region">Region.</param>
    /// <param name="PathStyle">Whether the bucket is named in the path.</param>
    /// <param name="CredentialsFile">AWS credentials file; null for the usual ways.</param>
    public sealed record Bucket(string Name, string Prefix, Uri? Endpoint, string Region, bool PathStyle, string? CredentialsFile) : StoreLocation
    {
        /// <inheritdoc/>
        public override string ToString() => $"s3://{Name}{(Prefix.Length == 0 ? "" : "/" + Prefix)}";

        private protected override IBlobStore Connect(NodeOptions options) =>
            new S3BlobStore(new S3BlobStoreOptions(Name, Prefix, Endpoint, Region, PathStyle, CredentialsFile, options.MaxWork));
    }
}

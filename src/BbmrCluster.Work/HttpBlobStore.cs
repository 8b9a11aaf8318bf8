using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json;

namespace BbmrCluster.Work;

/// <summary>
/// The store of another node, reached over its HTTP API, for nodes that do not see the folder. A blob is sent as a whole:
/// the node that has the folder compares it with its hash before it gives it its name. Quota and room are that node's.
/// </summary>
public sealed class HttpBlobStore : RemoteBlobStore, IDisposable
{
    /// <summary>Header of a blob that is sent: its XXH3-128, 32 lower-case hex digits.</summary>
    public const string HashHeader = "Blob-Hash";

    /// <summary>Code of the problem that says a blob is not there, which no other server would answer.</summary>
    public const string NoBlob = "no_blob";

    private readonly HttpClient _http;

    /// <summary>Names the store; nothing is sent yet.</summary>
    /// <param name="address">http or https, host and port of a node that serves its store.</param>
    /// <param name="token">What that node wants to be shown; null for nothing.</param>
    /// <param name="patience">How long a call is tried again.</param>
    public HttpBlobStore(Uri address, string? token = null, TimeSpan? patience = null)
        : base(address.GetLeftPart(UriPartial.Path).TrimEnd('/'), patience)
    {
        var handler = new SocketsHttpHandler
        {
            ConnectTimeout = TimeSpan.FromSeconds(5),
            // A name may come to mean another machine.
            PooledConnectionLifetime = TimeSpan.FromMinutes(2),
            Expect100ContinueTimeout = TimeSpan.FromSeconds(5),
            AllowAutoRedirect = false,
        };
        _http = new HttpClient(handler) { BaseAddress = new Uri(Place + "/v1/"), Timeout = Timeout.InfiniteTimeSpan };
        if (token is not null)
            _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
    }

    /// <summary>Ends all connections.</summary>
    public void Dispose() => _http.Dispose();

    /// <inheritdoc/>
    protected override async Task PutAsync(ImageId image, BlobRef blob, byte[] content, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Put, "blobs/" + blob.Name) { Content = new ByteArrayContent(content) };
        request.Headers.Add(HashHeader, blob.Hash);
        // A full store says so before the bytes are sent.
        request.Headers.ExpectContinue = true;
        using HttpResponseMessage response = await SendAsync(request, cancellation);
    }

    /// <inheritdoc/>
    protected override async Task<(Stream Content, long From)> OpenAsync(BlobRef blob, long offset, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, "blobs/" + blob.Name);
        if (offset > 0)
            request.Headers.Range = new RangeHeaderValue(offset, null);
        HttpResponseMessage response = await SendAsync(request, cancellation, blob);
        bool partial = response.StatusCode == HttpStatusCode.PartialContent;
        long? whole = partial ? response.Content.Headers.ContentRange?.Length : response.Content.Headers.ContentLength;
        if (whole is { } length && length != blob.Length)
        {
            response.Dispose();
            throw Lost(blob, "is damaged");
        }
        // The stream's end frees the connection.
        return (await response.Content.ReadAsStreamAsync(cancellation), partial ? response.Content.Headers.ContentRange?.From ?? offset : 0);
    }

    /// <inheritdoc/>
    protected override async Task DeleteAsync(BlobRef blob, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Delete, "blobs/" + blob.Name);
        using HttpResponseMessage response = await SendAsync(request, cancellation);
    }

    /// <inheritdoc/>
    protected override async Task DeleteImageAsync(ImageId image, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Delete, "blobs/" + image);
        using HttpResponseMessage response = await SendAsync(request, cancellation);
    }

    /// <inheritdoc/>
    protected override Task<StoreRoom> RoomAsync(CancellationToken cancellation) => GetAsync<StoreRoom>("store", cancellation);

    /// <inheritdoc/>
    protected override async Task CheckAsync(CancellationToken cancellation) => await GetAsync<StoreRoom>("store?check=true", cancellation);

    /// <inheritdoc/>
    protected override async Task<IReadOnlyList<StoredImage>> ImagesAsync(CancellationToken cancellation) =>
        [.. (await GetAsync<IReadOnlyList<StoredImageModel>>("blobs", cancellation)).Select(one => new StoredImage(new ImageId(one.Image), one.Written))];

    private async Task<T> GetAsync<T>(string path, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, path);
        using HttpResponseMessage response = await SendAsync(request, cancellation);
        return await response.Content.ReadFromJsonAsync<T>(StoredImageModel.Json, cancellation) ?? throw new InvalidDataException($"{path} answered nothing");
    }

    private async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellation, BlobRef? read = null)
    {
        HttpResponseMessage response = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellation);
        if (response.IsSuccessStatusCode)
            return response;
        using (response)
        {
            (string? code, string detail) = await ProblemAsync(response, cancellation);
            throw response.StatusCode switch
            {
                HttpStatusCode.NotFound when read is not null && code == NoBlob => Lost(read, "is missing"),
                HttpStatusCode.RequestedRangeNotSatisfiable when read is not null => Lost(read, "is damaged"),
                HttpStatusCode.InsufficientStorage => new StageFailedException(FailureClass.StoreFull, detail) { Code = "full" },
                HttpStatusCode.RequestEntityTooLarge => new StageFailedException(FailureClass.Permanent, detail) { Code = "work_space" },
                HttpStatusCode.Unauthorized or HttpStatusCode.Forbidden => Refused("does not admit this node: give it the token of the cluster (BBMR_TOKEN)"),
                HttpStatusCode.NotFound => Refused("serves no intermediate results: name a node that has their folder and serves HTTP"),
                _ => new HttpRequestException(string.Create(CultureInfo.InvariantCulture, $"it answered {(int)response.StatusCode}: {detail}"), null, response.StatusCode),
            };
        }
    }

    private static async Task<(string? Code, string Detail)> ProblemAsync(HttpResponseMessage response, CancellationToken cancellation)
    {
        string otherwise = response.ReasonPhrase ?? response.StatusCode.ToString();
        if (response.Content.Headers.ContentType?.MediaType is not ("application/problem+json" or "application/json"))
            return (null, otherwise);
        try
        {
            using JsonDocument problem = await JsonDocument.ParseAsync(await response.Content.ReadAsStreamAsync(cancellation), default, cancellation);
            return (Text(problem, "code"), Text(problem, "detail") ?? otherwise);
        }
        catch (JsonException)
        {
            return (null, otherwise);
        }
    }

    private static string? Text(JsonDocument problem, string name) =>
        problem.RootElement.ValueKind == JsonValueKind.Object && problem.RootElement.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
}

/// <summary>A stored image on the wire.</summary>
/// <param name="Image">Its id.</param>
/// <param name="Written">When the latest of its blobs was written.</param>
public sealed record StoredImageModel(string Image, DateTimeOffset Written)
{
    /// <summary>How room and images of a store are written in JSON.</summary>
    public static JsonSerializerOptions Json { get; } = new(JsonSerializerDefaults.Web) { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };
}

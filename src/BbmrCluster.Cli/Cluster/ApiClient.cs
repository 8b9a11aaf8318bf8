using System.CommandLine;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Net.ServerSentEvents;
using System.Runtime.CompilerServices;
using System.Text.Json;
using BbmrCluster.Node.Api;

namespace BbmrCluster.Cli.Cluster;

/// <summary>Speaks to the HTTP API of a cluster. Answers stay JSON, so that --json shows what the server said.</summary>
internal sealed class ApiClient : IDisposable
{
    private const string DefaultServer = "http://127.0.0.1:8080";

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    private readonly HttpClient _http;

    private ApiClient(Uri server, string? token)
    {
        _http = new HttpClient { BaseAddress = server, Timeout = TimeSpan.FromMinutes(5) };
        _http.DefaultRequestHeaders.UserAgent.ParseAdd("bbmr");
        if (token is not null)
            _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
    }

    /// <summary>--server, for every command of the cluster's client.</summary>
    public static Option<string?> ServerOption() => new("--server") { Description = $"Address of the cluster's API (default: BBMR_SERVER, else {DefaultServer})", HelpName = "URL" };

    /// <summary>Opens it; the token comes from BBMR_TOKEN.</summary>
    /// <exception cref="UserErrorException">The address is none.</exception>
    public static ApiClient Open(string? server)
    {
        string address = server ?? (Environment.GetEnvironmentVariable("BBMR_SERVER") is { Length: > 0 } named ? named : DefaultServer);
        if (!Uri.TryCreate(address.EndsWith('/') ? address : address + "/", UriKind.Absolute, out Uri? uri) || uri.Scheme is not ("http" or "https"))
            throw new UserErrorException($"'{address}' is not the address of a server such as {DefaultServer}.", ExitCodes.Usage);
        return new ApiClient(uri, Environment.GetEnvironmentVariable("BBMR_TOKEN") is { Length: > 0 } token ? token : null);
    }

    /// <summary>Sends a request and returns what was answered; null where there is nothing to say.</summary>
    /// <exception cref="UserErrorException">The server refuses it or cannot be reached: one sentence.</exception>
    public async Task<JsonElement?> SendAsync(HttpMethod method, string path, object? body, string? idempotencyKey, CancellationToken stop)
    {
        using var request = new HttpRequestMessage(method, path);
        if (body is not null)
            request.Content = JsonContent.Create(body, body.GetType(), options: ApiJson.Options);
        if (idempotencyKey is not null)
            request.Headers.Add("Idempotency-Key", idempotencyKey);
        using HttpResponseMessage response = await ReachedAsync(() => _http.SendAsync(request, stop), stop);
        await CheckAsync(response, stop);
        return response.Content.Headers.ContentLength == 0 || response.StatusCode == System.Net.HttpStatusCode.NoContent ? null : await response.Content.ReadFromJsonAsync<JsonElement>(stop);
    }

    /// <summary>GET.</summary>
    public async Task<JsonElement> GetAsync(string path, CancellationToken stop) => (await SendAsync(HttpMethod.Get, path, null, null, stop))!.Value;

    /// <summary>All pages of a list.</summary>
    public async IAsyncEnumerable<JsonElement> ListAsync(string path, [EnumeratorCancellation] CancellationToken stop)
    {
        string separator = path.Contains('?', StringComparison.Ordinal) ? "&" : "?";
        int? from = 0;
        while (from is { } place)
        {
            JsonElement page = await GetAsync(place == 0 ? path : $"{path}{separator}from={place}", stop);
            foreach (JsonElement item in page.GetProperty("items").EnumerateArray())
                yield return item;
            from = page.TryGetProperty("next", out JsonElement next) && next.ValueKind == JsonValueKind.Number ? next.GetInt32() : null;
        }
    }

    /// <summary>
    /// Server-sent events until the server ends them after <paramref name="last"/>. A connection that breaks is made again, and
    /// the server goes on where it was.
    /// </summary>
    /// <exception cref="UserErrorException">It refuses, or stays away for a minute.</exception>
    public async IAsyncEnumerable<JsonElement> EventsAsync(string path, string last, [EnumeratorCancellation] CancellationToken stop)
    {
        string? lastEvent = null;
        long? lostAt = null;
        while (true)
        {
            await using IAsyncEnumerator<SseItem<string>> items = ConnectedAsync(path, lastEvent, stop).GetAsyncEnumerator(stop);
            while (true)
            {
                try
                {
                    if (!await items.MoveNextAsync())
                        break;
                }
                catch (Exception error) when (error is IOException or HttpRequestException || (error is UserErrorException && lostAt is { } since && Environment.TickCount64 - since < Patience.TotalMilliseconds))
                {
                    break;
                }
                lostAt = null;
                lastEvent = items.Current.EventId is { Length: > 0 } id ? id : lastEvent;
                using JsonDocument document = JsonDocument.Parse(items.Current.Data);
                yield return document.RootElement.Clone();
                if (items.Current.EventType == last)
                    yield break;
            }
            lostAt ??= Environment.TickCount64;
            await Task.Delay(TimeSpan.FromSeconds(1), stop);
        }
    }

    private async IAsyncEnumerable<SseItem<string>> ConnectedAsync(string path, string? lastEvent, [EnumeratorCancellation] CancellationToken stop)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, path);
        if (lastEvent is not null)
            request.Headers.Add("Last-Event-ID", lastEvent);
        using HttpResponseMessage response = await ReachedAsync(() => _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, stop), stop);
        await CheckAsync(response, stop);
        await using Stream stream = await response.Content.ReadAsStreamAsync(stop);
        await foreach (SseItem<string> item in SseParser.Create(stream).EnumerateAsync(stop))
            yield return item;
    }

    /// <inheritdoc/>
    public void Dispose() => _http.Dispose();

    private async Task<HttpResponseMessage> ReachedAsync(Func<Task<HttpResponseMessage>> send, CancellationToken stop)
    {
        try
        {
            return await send();
        }
        catch (HttpRequestException error)
        {
            throw new UserErrorException($"The cluster at {_http.BaseAddress} cannot be reached: {error.Message}");
        }
        catch (OperationCanceledException) when (!stop.IsCancellationRequested)
        {
            throw new UserErrorException($"The cluster at {_http.BaseAddress} did not answer in time.");
        }
    }

    private static async Task CheckAsync(HttpResponseMessage response, CancellationToken stop)
    {
        if (response.IsSuccessStatusCode)
            return;
        string text = await response.Content.ReadAsStringAsync(stop);
        string? detail = null;
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            detail = document.RootElement.TryGetProperty("detail", out JsonElement said) ? said.GetString() : document.RootElement.TryGetProperty("title", out JsonElement title) ? title.GetString() : null;
        }
        catch (JsonException)
        {
            // Not from our server; the status says what it can.
        }
        throw new UserErrorException(detail ?? $"The server answered {(int)response.StatusCode} {response.ReasonPhrase}.");
    }
}

using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults;

/// <summary>The HTTP API of a real node that has a token and a folder of data: whom and what it refuses, and how it says so.</summary>
public sealed class ApiTests : IAsyncLifetime, IDisposable
{
    private const string Token = "a-token-of-this-test";

    private readonly ScratchFolder _scratch = new();
    private readonly HttpClient _http = new() { Timeout = TimeSpan.FromSeconds(60) };
    private Bbmr? _node;

    public async Task InitializeAsync()
    {
        var environment = new Dictionary<string, string>(TestModels.EnvironmentFor(_scratch["models"]), StringComparer.Ordinal) { ["BBMR_TOKEN"] = Token, ["BBMR_DATA"] = _scratch["data"] };
        for (int i = 0; i < 3; i++)
            Pictures.Write(_scratch["data", "in", $"{i}.png"], 40 + i, 40);
        Pictures.Write(_scratch["secret", "s.png"], 40, 40);
        int port = LoopbackCluster.FreePort();
        _node = Bbmr.Start(_scratch.Path, environment, "node", "--roles", "coordinator,api", "--port", "0", "--http", $"127.0.0.1:{port}", "--work", _scratch["work"]);
        _http.BaseAddress = new Uri(string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{port}"));
        _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Token);
        long until = Environment.TickCount64 + 120_000;
        while (!await ReadyAsync())
        {
            Assert.True(Environment.TickCount64 < until && !_node.HasExited, _node.Error);
            await Task.Delay(200);
        }
    }

    public Task DisposeAsync()
    {
        Dispose();
        return Task.CompletedTask;
    }

    public void Dispose()
    {
        _node?.Dispose();
        _node = null;
        _http.Dispose();
        _scratch.Dispose();
    }

    [Fact]
    public async Task What_it_refuses_is_told_as_a_problem_with_one_sentence()
    {
        // Without the token nothing is told, but for health.
        foreach (string? shown in new[] { null, "wrong" })
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, "/v1/jobs");
            using var stranger = new HttpClient { BaseAddress = _http.BaseAddress };
            if (shown is not null)
                request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", shown);
            using HttpResponseMessage refused = await stranger.SendAsync(request);
            await AssertProblemAsync(refused, HttpStatusCode.Unauthorized, shown is null ? "token of this cluster" : "is not this cluster's");
            Assert.Equal("Bearer", Assert.Single(refused.Headers.WwwAuthenticate).Scheme);
            Assert.Equal(HttpStatusCode.OK, (await stranger.GetAsync("/healthz/live")).StatusCode);
        }

        string data = _scratch["data"], output = _scratch["data", "out"];
        await RefusedAsync("{", HttpStatusCode.BadRequest, "");
        await RefusedAsync(Body(new { inputs = new[] { data }, output, colour = "red" }), HttpStatusCode.BadRequest, "There is no property 'colour'.");
        await RefusedAsync(Body(new { inputs = new[] { data } }), HttpStatusCode.BadRequest, "What is missing: 'output'");
        await RefusedAsync(Body(new { output }), HttpStatusCode.UnprocessableEntity, "needs inputs or a manifest");
        await RefusedAsync(Body(new { inputs = new[] { "in" }, output }), HttpStatusCode.UnprocessableEntity, "not an absolute path");
        await RefusedAsync(Body(new { inputs = new[] { _scratch["data", "nowhere"] }, output }), HttpStatusCode.UnprocessableEntity, "no such file or folder");
        await RefusedAsync(Body(new { inputs = new[] { data }, output, kind = "sharpen" }), HttpStatusCode.UnprocessableEntity, "no kind 'sharpen'");
        await RefusedAsync(Body(new { inputs = new[] { data }, output, on_bad_block = "ignore" }), HttpStatusCode.UnprocessableEntity, "on_bad_block 'ignore'");
        await RefusedAsync(Body(new { inputs = new[] { data }, output, priority = 10 }), HttpStatusCode.UnprocessableEntity, "priority");
        await RefusedAsync(Body(new { inputs = new[] { _scratch["data", "in"] }, output, network = "nothing" }), HttpStatusCode.UnprocessableEntity, "nothing");
        using (var large = new HttpRequestMessage(HttpMethod.Post, "/v1/jobs") { Content = new StringContent(new string(' ', 17 << 20), Encoding.UTF8, "application/json") })
        {
            large.Headers.ExpectContinue = true;
            using HttpResponseMessage tooLarge = await _http.SendAsync(large);
            Assert.Equal((HttpStatusCode.RequestEntityTooLarge, "application/problem+json"), (tooLarge.StatusCode, tooLarge.Content.Headers.ContentType?.MediaType));
        }
        using (HttpResponseMessage nowhere = await _http.GetAsync("/v1/nowhere"))
            Assert.Equal((HttpStatusCode.NotFound, "application/problem+json"), (nowhere.StatusCode, nowhere.Content.Headers.ContentType?.MediaType));
        using (HttpResponseMessage state = await _http.GetAsync("/v1/jobs/x/images?state=lost"))
            await AssertProblemAsync(state, HttpStatusCode.BadRequest, "no state 'lost'");
        using (HttpResponseMessage state = await _http.GetAsync("/v1/jobs?state=lost"))
            await AssertProblemAsync(state, HttpStatusCode.BadRequest, "no state 'lost'");
        using (HttpResponseMessage unknown = await _http.PostAsync("/v1/jobs/nothing/pause", null))
            await AssertProblemAsync(unknown, HttpStatusCode.NotFound, "no job 'nothing'");

        // Nothing outside the folder of data is read or written, whatever leads there.
        Directory.CreateSymbolicLink(_scratch["data", "way-out"], _scratch["secret"]);
        await RefusedAsync(Body(new { inputs = new[] { _scratch["secret"] }, output }), HttpStatusCode.Forbidden, "does not lie in a folder that jobs may use");
        await RefusedAsync(Body(new { inputs = new[] { _scratch["data", "..", "secret"] }, output }), HttpStatusCode.Forbidden, "does not lie");
        await RefusedAsync(Body(new { inputs = new[] { _scratch["data", "way-out", "s.png"] }, output }), HttpStatusCode.Forbidden, "does not lie");
        await RefusedAsync(Body(new { inputs = new[] { data }, output = _scratch["secret", "out"] }), HttpStatusCode.Forbidden, "output");
        await RefusedAsync(Body(new { manifest = _scratch["secret", "list.txt"], output }), HttpStatusCode.Forbidden, "manifest");
        await File.WriteAllTextAsync(_scratch["data", "list.txt"], $"{_scratch["secret", "s.png"]}\nway-out\n# a comment\n");
        await RefusedAsync(Body(new { manifest = _scratch["data", "list.txt"], output }), HttpStatusCode.UnprocessableEntity, "None of the inputs can be taken");
        Assert.False(Directory.Exists(_scratch["secret", "out"]));
    }

    [Fact]
    public async Task A_job_sent_many_times_at_once_under_one_key_is_one_job_and_its_events_go_on_where_they_were()
    {
        string body = Body(new { inputs = new[] { _scratch["data", "in"] }, output = _scratch["data", "out"], name = "once" });
        JsonElement[] answers = await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => SubmitAsync(body, "the-key", HttpStatusCode.Accepted)));
        string job = Assert.Single(answers.Select(answer => answer.GetProperty("id").GetString()!).Distinct());
        Assert.Equal(job, Assert.Single((await GetAsync("/v1/jobs")).GetProperty("items").EnumerateArray()).GetProperty("id").GetString());
        JsonElement other = await SubmitAsync(Body(new { inputs = new[] { _scratch["data", "in", "0.png"] }, output = _scratch["data", "out"] }), "the-key", HttpStatusCode.UnprocessableEntity);
        Assert.Contains("Idempotency-Key", other.GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Contains("1 to 255", (await SubmitAsync(body, new string('k', 256), HttpStatusCode.BadRequest)).GetProperty("detail").GetString(), StringComparison.Ordinal);

        // No worker is here: it waits until it is cancelled. A job that was cancelled stays so under its key.
        Assert.Equal("running", (await GetAsync($"/v1/jobs/{job}")).GetProperty("state").GetString());
        using (HttpResponseMessage cancelled = await _http.PostAsync($"/v1/jobs/{job}/cancel", null))
            Assert.Contains("\"state\":\"cancelled\"", await cancelled.EnsureSuccessStatusCode().Content.ReadAsStringAsync(), StringComparison.Ordinal);
        using (HttpResponseMessage resumed = await _http.PostAsync($"/v1/jobs/{job}/resume", null))
            await AssertProblemAsync(resumed, HttpStatusCode.Conflict, "cancelled");
        Assert.Equal("cancelled", (await SubmitAsync(body, "the-key", HttpStatusCode.Accepted)).GetProperty("state").GetString());

        List<(string? Id, string Event)> events = await EventsAsync(job, null);
        Assert.Equal(["job_status", "job_finished"], events.Select(one => one.Event));
        Assert.Equal(["job_finished"], (await EventsAsync(job, events[0].Id)).Select(one => one.Event));
        // What another node told, or an earlier process, is not known here: it begins with how the job stands.
        Assert.Equal(["job_status", "job_finished"], (await EventsAsync(job, "another-17")).Select(one => one.Event));
    }

    private async Task<bool> ReadyAsync()
    {
        try
        {
            using HttpResponseMessage answer = await _http.GetAsync("/healthz/ready");
            return answer.StatusCode == HttpStatusCode.OK;
        }
        catch (HttpRequestException)
        {
            return false;
        }
    }

    /// <summary>Events to the end of the stream.</summary>
    private async Task<List<(string? Id, string Event)>> EventsAsync(string job, string? lastEvent)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, $"/v1/jobs/{job}/events");
        if (lastEvent is not null)
            request.Headers.Add("Last-Event-ID", lastEvent);
        using HttpResponseMessage response = await _http.SendAsync(request);
        Assert.Equal("text/event-stream", response.Content.Headers.ContentType!.MediaType);
        string[] lines = (await response.Content.ReadAsStringAsync()).Split('\n');
        var events = new List<(string? Id, string Event)>();
        for (int i = 0; i < lines.Length; i++)
        {
            if (lines[i].StartsWith("event: ", StringComparison.Ordinal) && lines[i] != "event: ping")
                events.Add((lines.Skip(i).TakeWhile(line => line.Trim().Length > 0).FirstOrDefault(line => line.StartsWith("id: ", StringComparison.Ordinal))?[4..], lines[i][7..]));
        }
        return events;
    }

    private static string Body(object request) => JsonSerializer.Serialize(request);

    private async Task RefusedAsync(string body, HttpStatusCode status, string says)
    {
        using HttpResponseMessage refused = await _http.PostAsync("/v1/jobs", new StringContent(body, Encoding.UTF8, "application/json"));
        await AssertProblemAsync(refused, status, says);
    }

    private static async Task AssertProblemAsync(HttpResponseMessage response, HttpStatusCode status, string says)
    {
        string text = await response.Content.ReadAsStringAsync();
        Assert.True(status == response.StatusCode, $"{(int)response.StatusCode}: {text}");
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType!.MediaType);
        using JsonDocument problem = JsonDocument.Parse(text);
        Assert.Equal((int)status, problem.RootElement.GetProperty("status").GetInt32());
        Assert.Contains(says, problem.RootElement.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    private async Task<JsonElement> SubmitAsync(string body, string key, HttpStatusCode expected)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/jobs") { Content = new StringContent(body, Encoding.UTF8, "application/json") };
        request.Headers.Add("Idempotency-Key", key);
        using HttpResponseMessage response = await _http.SendAsync(request);
        string text = await response.Content.ReadAsStringAsync();
        Assert.True(expected == response.StatusCode, $"{(int)response.StatusCode}: {text}");
        using JsonDocument answer = JsonDocument.Parse(text);
        return answer.RootElement.Clone();
    }

    private async Task<JsonElement> GetAsync(string path)
    {
        using JsonDocument answer = JsonDocument.Parse(await _http.GetStringAsync(path));
        return answer.RootElement.Clone();
    }
}

/// <summary>A node whose cluster is not there.</summary>
public sealed class ApiWithoutClusterTests : IDisposable
{
    private readonly ScratchFolder _scratch = new();

    public void Dispose() => _scratch.Dispose();

    [Fact]
    public async Task Members_are_told_although_no_broker_answers()
    {
        int port = LoopbackCluster.FreePort();
        using Bbmr node = Bbmr.Start(_scratch.Path, TestModels.EnvironmentFor(_scratch["models"]), "node", "--roles", "api", "--port", "0", "--http", $"127.0.0.1:{port}",
            "--seed-nodes", $"127.0.0.1:{LoopbackCluster.FreePort()}", "--work", _scratch["work"], "--store", _scratch["store"]);
        using var http = new HttpClient { BaseAddress = new Uri(string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{port}")), Timeout = TimeSpan.FromSeconds(60) };
        long until = Environment.TickCount64 + 120_000;
        while (true)
        {
            try
            {
                using HttpResponseMessage nodes = await http.GetAsync("/v1/nodes");
                Assert.Equal(HttpStatusCode.OK, nodes.StatusCode);
                break;
            }
            catch (HttpRequestException)
            {
                Assert.True(Environment.TickCount64 < until && !node.HasExited, node.Error);
                await Task.Delay(200);
            }
        }
        using HttpResponseMessage ready = await http.GetAsync("/healthz/ready");
        Assert.Equal(HttpStatusCode.ServiceUnavailable, ready.StatusCode);
    }
}

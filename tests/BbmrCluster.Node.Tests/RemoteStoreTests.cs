using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text.Json;
using BbmrCluster.Tests;
using BbmrCluster.Work;

namespace BbmrCluster.Node.Tests;

/// <summary>What only stores behind a network can meet: broken connections, servers that are away or refuse, strange requests.</summary>
public sealed class RemoteStoreTests : IDisposable
{
    private static readonly ImageId Image = new("img-1");
    private readonly string _scratch = Directory.CreateTempSubdirectory("bbmr-scratch-").FullName;

    public void Dispose() => Directory.Delete(_scratch, recursive: true);

    [Fact]
    public async Task A_read_that_breaks_off_goes_on_where_it_stopped()
    {
        await using HttpStore server = await HttpStore.StartAsync();
        using var blobs = new HttpBlobStore(server.Address, HttpStore.Token, TimeSpan.FromSeconds(60));
        byte[] content = Bytes(1_000_000);
        BlobRef blob = blobs.Write(Image, "raw-00001", 1, content);
        var asked = new List<string>();
        server.Before = async context =>
        {
            asked.Add(context.Request.Headers.Range.ToString());
            if (asked.Count > 3)
                return true;
            // Begins as it should, and then the connection is gone.
            int from = asked[^1].Length == 0 ? 0 : int.Parse(asked[^1]["bytes=".Length..^1], System.Globalization.CultureInfo.InvariantCulture);
            context.Response.StatusCode = from == 0 ? 200 : 206;
            context.Response.ContentLength = content.Length - from;
            if (from > 0)
                context.Response.Headers.ContentRange = $"bytes {from}-{content.Length - 1}/{content.Length}";
            await context.Response.Body.WriteAsync(content.AsMemory(from, 100_000));
            await context.Response.Body.FlushAsync();
            context.Abort();
            return false;
        };
        Assert.Equal(content, blobs.Read(blob));
        Assert.Equal(4, asked.Count);
        Assert.Equal("", asked[0]);
        Assert.All(asked.Skip(1), range => Assert.Matches("^bytes=[0-9]+-$", range));
        long[] offsets = [.. asked.Skip(1).Select(range => long.Parse(range[6..^1], System.Globalization.CultureInfo.InvariantCulture))];
        Assert.True(offsets[0] > 0 && offsets.SequenceEqual(offsets.Order()) && offsets[^1] <= 300_000, string.Join(' ', offsets));
    }

    [Fact]
    public async Task A_call_that_fails_in_passing_is_made_again()
    {
        await using HttpStore server = await HttpStore.StartAsync();
        using var blobs = new HttpBlobStore(server.Address, HttpStore.Token, TimeSpan.FromSeconds(60));
        int calls = 0;
        server.Before = context =>
        {
            if (++calls % 3 == 0)
                return Task.FromResult(true);
            context.Response.StatusCode = 503;
            return Task.FromResult(false);
        };
        BlobRef blob = blobs.Write(Image, "a", 1, Bytes(10));
        Assert.Equal(Bytes(10), blobs.Read(blob));
        Assert.Equal(6, calls);
    }

    [Fact]
    public async Task A_store_that_is_away_makes_images_wait_and_does_not_fail_them()
    {
        Uri address;
        BlobRef blob;
        await using (HttpStore server = await HttpStore.StartAsync())
        {
            address = server.Address;
            using HttpBlobStore there = server.Open();
            blob = there.Write(Image, "a", 1, Bytes(10));
        }
        using var blobs = new HttpBlobStore(address, HttpStore.Token, TimeSpan.Zero);
        foreach (Action call in (Action[])[() => blobs.Read(blob), () => blobs.Write(Image, "a", 1, [1]), () => blobs.LocalFile(blob, _scratch), () => _ = blobs.Room, () => blobs.Check(), () => blobs.DeleteImage(Image)])
        {
            var error = Assert.Throws<StageFailedException>(call);
            Assert.Equal((FailureClass.StoreFull, "store_unreachable"), (error.Failure, error.Code));
            Assert.StartsWith($"the store {address.GetLeftPart(UriPartial.Authority)} cannot be used: ", error.Message, StringComparison.Ordinal);
        }
        Assert.Empty(Directory.GetFiles(_scratch));
    }

    [Fact]
    public async Task A_store_takes_no_node_without_the_token_and_says_so()
    {
        await using HttpStore server = await HttpStore.StartAsync();
        foreach (string? token in (string?[])[null, "guessed"])
        {
            using HttpBlobStore blobs = server.Open(token);
            foreach (Action call in (Action[])[() => blobs.Write(Image, "a", 1, [1]), () => blobs.Check(), () => blobs.Images()])
            {
                var error = Assert.Throws<StageFailedException>(call);
                Assert.Equal((FailureClass.StoreFull, RemoteBlobStore.RefusedCode), (error.Failure, error.Code));
                Assert.Contains("give it the token of the cluster", error.Message, StringComparison.Ordinal);
            }
        }
        Assert.Empty(await server.NamesAsync());
    }

    [Fact]
    public async Task An_address_that_serves_no_store_is_told_from_a_store_without_the_blob()
    {
        await using HttpStore server = await HttpStore.StartAsync();
        using var blobs = new HttpBlobStore(new Uri(server.Address, "elsewhere"), HttpStore.Token, TimeSpan.Zero);
        var error = Assert.Throws<StageFailedException>(() => blobs.Read(BlobNames.Of(Image, "a", [1])));
        Assert.Equal((FailureClass.StoreFull, RemoteBlobStore.RefusedCode), (error.Failure, error.Code));
        Assert.Contains("serves no intermediate results", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_server_gives_ranges_and_lengths_and_no_path_leads_out_of_its_folder()
    {
        await using HttpStore server = await HttpStore.StartAsync();
        using HttpBlobStore blobs = server.Open();
        BlobRef blob = blobs.Write(Image, "a", 1, Bytes(1000));
        await File.WriteAllTextAsync(Path.Combine(server.Root, "secret"), "secret");
        string beside = Directory.CreateDirectory(server.Root + "-beside").FullName;
        await File.WriteAllTextAsync(Path.Combine(beside, "a.0123456789abcdef"), "secret");
        try
        {
            using HttpClient client = Client(server);
            using HttpResponseMessage head = await client.SendAsync(new HttpRequestMessage(HttpMethod.Head, $"v1/blobs/{blob.Name}"));
            Assert.Equal((HttpStatusCode.OK, 1000L, "bytes"), (head.StatusCode, head.Content.Headers.ContentLength, head.Headers.AcceptRanges.Single()));
            using var request = new HttpRequestMessage(HttpMethod.Get, $"v1/blobs/{blob.Name}");
            request.Headers.Range = new RangeHeaderValue(990, null);
            using HttpResponseMessage range = await client.SendAsync(request);
            Assert.Equal(HttpStatusCode.PartialContent, range.StatusCode);
            Assert.Equal(Bytes(1000)[990..], await range.Content.ReadAsByteArrayAsync());

            foreach (string path in (string[])
                ["/v1/blobs/../secret", "/v1/blobs/x/../../secret", "/v1/blobs/%2e%2e/secret", "/v1/blobs/..%2fsecret/a.0123456789abcdef", "/v1/blobs/img-1/..%2f..%2fsecret", "/v1/blobs/%2fetc/passwd",
                 $"/v1/blobs/..%2f{Path.GetFileName(beside)}/a.0123456789abcdef", "/v1/blobs/img-1/%2e%2e%5csecret", "/v1/blobs/.../a.0123456789abcdef", "/v1/blobs/img-1/secret", "/v1/blobs/img-1/a%00"])
            {
                foreach (string method in (string[])["GET", "PUT", "DELETE"])
                {
                    int status = await RawAsync(server.Address, method, path);
                    Assert.True(status is 400 or 404 or 405 or 422, $"{method} {path} answered {status}");
                }
            }
            Assert.Equal("secret", await File.ReadAllTextAsync(Path.Combine(server.Root, "secret")));
            Assert.Equal("secret", await File.ReadAllTextAsync(Path.Combine(beside, "a.0123456789abcdef")));
            Assert.Equal([blob.Name, "secret"], await server.NamesAsync());
        }
        finally
        {
            Directory.Delete(beside, recursive: true);
        }
    }

    [Fact]
    public async Task The_server_stores_only_what_has_the_hash_and_the_length_that_were_said()
    {
        await using HttpStore server = await HttpStore.StartAsync();
        using HttpClient client = Client(server);
        byte[] content = Bytes(1000);
        BlobRef blob = BlobNames.Of(Image, "a", content), other = BlobNames.Of(Image, "a", content.AsSpan(1));
        foreach ((string name, string? hash, byte[] sent) in ((string, string?, byte[])[])
            [(blob.Name, blob.Hash, content[1..]), (blob.Name, other.Hash, content), (other.Name, blob.Hash, content), (blob.Name, null, content), (blob.Name, blob.Hash[..31], content), (blob.Name, "\"" + blob.Hash, content)])
        {
            using var request = new HttpRequestMessage(HttpMethod.Put, "v1/blobs/" + name) { Content = new ByteArrayContent(sent) };
            if (hash is not null)
                request.Headers.Add(HttpBlobStore.HashHeader, hash);
            using HttpResponseMessage response = await client.SendAsync(request);
            Assert.Equal(HttpStatusCode.UnprocessableEntity, response.StatusCode);
            using JsonDocument problem = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
            Assert.Contains("its length or its hash", problem.RootElement.GetProperty("detail").GetString(), StringComparison.Ordinal);
        }
        Assert.Empty(await server.NamesAsync());

        // Half of it, and then the connection is gone.
        using (var half = new TcpClient())
        {
            await half.ConnectAsync(server.Address.Host, server.Address.Port);
            await half.GetStream().WriteAsync(System.Text.Encoding.ASCII.GetBytes(
                $"PUT /v1/blobs/{blob.Name} HTTP/1.1\r\nHost: {server.Address.Authority}\r\nAuthorization: Bearer {HttpStore.Token}\r\n{HttpBlobStore.HashHeader}: {blob.Hash}\r\nContent-Length: 1000\r\n\r\n"));
            await half.GetStream().WriteAsync(content.AsMemory(0, 500));
            await UntilAsync(async () => (await server.NamesAsync()).Any(name => name.EndsWith(".tmp", StringComparison.Ordinal)));
        }
        await UntilAsync(async () => (await server.NamesAsync()).Count == 0);
        using HttpBlobStore blobs = server.Open();
        Assert.Equal(0, blobs.Room.Used);
    }

    [S3Fact]
    public async Task A_bucket_that_is_not_there_or_does_not_admit_the_node_is_told_from_one_that_is_away()
    {
        await using BucketStore store = await BucketStore.StartAsync();
        using S3BlobStore missing = store.Open("bbmr-no-such-bucket"), stranger = store.Open(credentialsFile: CredentialsFile("STRANGER", "guessed")), known = store.Open(credentialsFile: CredentialsFile(
            Environment.GetEnvironmentVariable("AWS_ACCESS_KEY_ID")!, Environment.GetEnvironmentVariable("AWS_SECRET_ACCESS_KEY")!));
        BlobRef blob = known.Write(Image, "a", 1, [1]);
        Assert.Equal([1], known.Read(blob));
        foreach ((S3BlobStore refused, string why) in ((S3BlobStore, string)[])[(missing, "does not exist"), (stranger, "does not admit this node")])
        {
            foreach (Action call in (Action[])[() => refused.Write(Image, "a", 1, [1]), () => refused.Read(blob), () => refused.Check(), () => refused.Images()])
            {
                var error = Assert.Throws<StageFailedException>(call);
                Assert.Equal((FailureClass.StoreFull, RemoteBlobStore.RefusedCode), (error.Failure, error.Code));
                Assert.Contains(why, error.Message, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void A_bucket_on_a_server_that_is_away_makes_images_wait()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var nobody = new Uri($"http://127.0.0.1:{((IPEndPoint)listener.LocalEndpoint).Port}");
        listener.Stop();
        using var blobs = new S3BlobStore(new S3BlobStoreOptions("bucket", "p", nobody, "us-east-1", PathStyle: true, CredentialsFile("a", "b"), Patience: TimeSpan.Zero));
        foreach (Action call in (Action[])[() => blobs.Write(Image, "a", 1, [1]), () => blobs.Read(BlobNames.Of(Image, "a", [1])), () => blobs.Check()])
        {
            var error = Assert.Throws<StageFailedException>(call);
            Assert.Equal((FailureClass.StoreFull, "store_unreachable"), (error.Failure, error.Code));
            Assert.StartsWith("the store s3://bucket/p cannot be used: ", error.Message, StringComparison.Ordinal);
        }
    }

    private static HttpClient Client(HttpStore server)
    {
        var client = new HttpClient { BaseAddress = server.Address };
        client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", HttpStore.Token);
        return client;
    }

    // As no client would send it: its own would tidy the path up.
    private static async Task<int> RawAsync(Uri address, string method, string path)
    {
        using var connection = new TcpClient();
        await connection.ConnectAsync(address.Host, address.Port);
        await connection.GetStream().WriteAsync(System.Text.Encoding.ASCII.GetBytes(
            $"{method} {path} HTTP/1.1\r\nHost: {address.Authority}\r\nAuthorization: Bearer {HttpStore.Token}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"));
        using var reader = new StreamReader(connection.GetStream());
        return int.Parse((await reader.ReadLineAsync())!.Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture);
    }

    private static async Task UntilAsync(Func<Task<bool>> holds)
    {
        for (int i = 0; i < 600 && !await holds(); i++)
            await Task.Delay(50);
        Assert.True(await holds());
    }

    private string CredentialsFile(string key, string secret)
    {
        string path = Path.Combine(_scratch, $"credentials-{Guid.NewGuid():n}");
        File.WriteAllText(path, $"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
        return path;
    }

    private static byte[] Bytes(int length)
    {
        var bytes = new byte[length];
        new Random(length).NextBytes(bytes);
        return bytes;
    }
}

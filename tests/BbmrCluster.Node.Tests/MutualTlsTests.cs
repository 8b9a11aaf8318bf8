using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using BbmrCluster.Node.Cluster;

namespace BbmrCluster.Tests;

/// <summary>Nodes with certificates of one authority find each other; one with another's is not let in. Made in the test.</summary>
public sealed class MutualTlsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("bbmr-tls-").FullName;
    private readonly HttpClient _http = new();

    public void Dispose()
    {
        _http.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public async Task Nodes_of_one_authority_join_and_a_stranger_is_not_let_in()
    {
        using X509Certificate2 authority = Authority("ours"), other = Authority("theirs");
        string ours = WritePem("ours.pem", authority), theirs = WritePem("theirs.pem", other);
        await using ClusterNode first = await StartAsync("first", ["coordinator"], null, WritePfx("first.pfx", authority), ours);
        Assert.StartsWith("akka.ssl.tcp://", first.Address, StringComparison.Ordinal);
        string seed = first.Address[(first.Address.IndexOf('@', StringComparison.Ordinal) + 1)..];
        await UntilAsync(first, "1 members");

        await using (ClusterNode second = await StartAsync("second", ["coordinator"], seed, WritePem("second.pem", authority, withKey: true), ours))
            await UntilAsync(first, "2 members");
        var error = await Assert.ThrowsAsync<NodeConfigurationException>(async () =>
        {
            await using ClusterNode stranger = await StartAsync("stranger", ["coordinator"], seed, WritePfx("stranger.pfx", other), theirs);
            await stranger.RunAsync(CancellationToken.None).WaitAsync(TimeSpan.FromMinutes(1));
        });
        Assert.Contains("does not accept", error.Message, StringComparison.Ordinal);
        await UntilAsync(first, "1 members\"");
        Assert.Contains("\"ready\"", await HealthAsync(first), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_node_without_TLS_is_told_why_a_cluster_with_TLS_does_not_take_it_in()
    {
        using X509Certificate2 authority = Authority("ours");
        await using ClusterNode first = await StartAsync("first", ["coordinator"], null, WritePfx("first.pfx", authority), WritePem("ours.pem", authority));
        var told = new TaskCompletionSource<string>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using ClusterNode plain = await StartAsync("plain", ["coordinator"], first.Address[(first.Address.IndexOf('@', StringComparison.Ordinal) + 1)..], null, null, line =>
        {
            if (line.Contains("No node in seed_nodes", StringComparison.Ordinal))
                told.TrySetResult(line);
        });
        Assert.Contains("either every node TLS or none (this node has none)", await told.Task.WaitAsync(TimeSpan.FromMinutes(3)), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_certificate_that_cannot_be_used_is_one_sentence()
    {
        using X509Certificate2 authority = Authority("ours"), other = Authority("theirs");
        string ours = WritePem("ours.pem", authority), theirs = WritePem("theirs.pem", other);
        string text = Path.Combine(_folder, "text.pfx");
        await File.WriteAllTextAsync(text, "no certificate");
        await Fails(text, ours, "text.pfx cannot be used");
        await Fails(WritePem("keyless.pem", authority, withKey: false, node: true), ours, "cannot be used");
        await Fails(WritePfx("old.pfx", authority, expired: true), ours, "is valid from");
        await Fails(WritePfx("good.pfx", authority), theirs, "holds no authority that signed");

        async Task Fails(string certificate, string trusted, string sentence)
        {
            var error = await Assert.ThrowsAsync<NodeConfigurationException>(() => StartAsync("bad", ["coordinator"], null, certificate, trusted));
            Assert.Contains(sentence, Assert.Single(error.Problems), StringComparison.Ordinal);
        }
    }

    private Task<ClusterNode> StartAsync(string name, string[] roles, string? seed, string? certificate, string? authority, Action<string>? log = null)
    {
        var settings = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["roles"] = string.Join(',', roles), ["name"] = name, ["port"] = "0", ["http"] = "127.0.0.1:0", ["work"] = Path.Combine(_folder, "work-" + name), ["store"] = Path.Combine(_folder, "store"),
        };
        if (certificate is not null)
            (settings["tls_certificate"], settings["tls_authority"]) = (certificate, authority!);
        if (seed is not null)
        {
            // A coordinator is a seed itself, so its port must be known.
            using var listener = new TcpListener(IPAddress.Loopback, 0);
            listener.Start();
            settings["port"] = ((IPEndPoint)listener.LocalEndpoint).Port.ToString(CultureInfo.InvariantCulture);
            settings["seed_nodes"] = $"{seed},127.0.0.1:{settings["port"]}";
        }
        return ClusterNode.StartAsync(NodeSettings.Read(settings, null, _ => null), log ?? (_ => { }));
    }

    private async Task UntilAsync(ClusterNode node, string text)
    {
        string health = "";
        for (int i = 0; i < 600 && !(health = await HealthAsync(node)).Contains(text, StringComparison.Ordinal); i++)
            await Task.Delay(100);
        Assert.Contains(text, health, StringComparison.Ordinal);
    }

    private async Task<string> HealthAsync(ClusterNode node)
    {
        using HttpResponseMessage answer = await _http.GetAsync($"{node.Http}/healthz/ready");
        return await answer.Content.ReadAsStringAsync();
    }

    private static X509Certificate2 Authority(string name)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN={name}", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, false, 0, critical: true));
        return request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-30), DateTimeOffset.UtcNow.AddDays(30));
    }

    private static X509Certificate2 Node(X509Certificate2 authority, bool expired)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=node", key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        names.AddIpAddress(IPAddress.Loopback);
        request.CertificateExtensions.Add(names.Build());
        using X509Certificate2 signed = request.Create(authority, DateTimeOffset.UtcNow.AddDays(-20), DateTimeOffset.UtcNow.AddDays(expired ? -10 : 20), RandomNumberGenerator.GetBytes(8));
        return signed.CopyWithPrivateKey(key);
    }

    private string WritePfx(string name, X509Certificate2 authority, bool expired = false)
    {
        using X509Certificate2 node = Node(authority, expired);
        return Write(name, node.Export(X509ContentType.Pkcs12));
    }

    /// <summary>The authority itself, or with a key or as a node a certificate that it signed.</summary>
    private string WritePem(string name, X509Certificate2 authority, bool withKey = false, bool node = false)
    {
        if (!withKey && !node)
            return Write(name, System.Text.Encoding.ASCII.GetBytes(authority.ExportCertificatePem()));
        using X509Certificate2 signed = Node(authority, expired: false);
        using ECDsa key = signed.GetECDsaPrivateKey()!;
        return Write(name, System.Text.Encoding.ASCII.GetBytes(signed.ExportCertificatePem() + "\n" + (withKey ? key.ExportPkcs8PrivateKeyPem() : "")));
    }

    private string Write(string name, byte[] content)
    {
        string path = Path.Combine(_folder, name);
        File.WriteAllBytes(path, content);
        return path;
    }
}

using BbmrCluster.Node.Cluster;

namespace BbmrCluster.Tests;

/// <summary>Settings from the command line, the environment and a file, and what is said about wrong ones.</summary>
public sealed class NodeSettingsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("bbmr-settings-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void The_command_line_goes_before_the_environment_and_that_before_the_file()
    {
        string file = Write("node.json", """{ "roles": ["coordinator", "worker"], "port": 5001, "name": "from-file", "open_images": 7, "insecure": false } // fine""");
        NodeOptions options = NodeSettings.Read(Given(("port", "5003")), file, Environment(("BBMR_PORT", "5002"), ("BBMR_NAME", "from-environment")));
        Assert.Equal((5003, "from-environment", 7, true, true, false), (options.Bind.Port, options.Name, options.OpenImages, options.IsCoordinator, options.IsWorker, options.IsApi));
        Assert.Equal(5003, options.Public.Port);
        Assert.Null(options.Http);
    }

    [Fact]
    public void A_node_alone_needs_nothing_but_its_roles()
    {
        NodeOptions options = Read(("roles", "coordinator,worker,api"));
        Assert.Equal("127.0.0.1:4053", options.Bind.ToString());
        Assert.Equal("127.0.0.1:8080", options.Http!.ToString());
        Assert.Equal(Path.Combine(options.Work, "blobs"), options.Store.ToString());
        Assert.Empty(options.Seeds);
        Assert.Null(options.Postgres);
    }

    [Theory]
    [InlineData("A node needs roles", "port=4000")]
    [InlineData("there is no role 'boss'", "roles=boss")]
    [InlineData("needs seed_nodes", "roles=worker")]
    [InlineData("'nowhere' is not HOST:PORT", "roles=worker", "seed_nodes=nowhere", "store=s")]
    [InlineData("name it as store", "roles=worker", "seed_nodes=a:1")]
    [InlineData("neither a folder nor http://HOST:PORT nor s3://BUCKET/PREFIX", "roles=coordinator", "store=ftp://a/b")]
    [InlineData("neither a folder nor http://HOST:PORT nor s3://BUCKET/PREFIX", "roles=coordinator", "store=http://127.0.0.1:80/blobs")]
    [InlineData("neither a folder nor http://HOST:PORT nor s3://BUCKET/PREFIX", "roles=coordinator", "store=http://me:secret word@127.0.0.1:80")]
    [InlineData("is this node itself", "roles=coordinator,api", "http=127.0.0.1:8081", "store=http://127.0.0.1:8081")]
    [InlineData("would travel to 10.0.0.1:8080 unencrypted", "roles=worker", "seed_nodes=a:1", "token=t", "store=http://10.0.0.1:8080")]
    [InlineData("wants the token of the cluster", "roles=worker", "seed_nodes=a:1", "store=https://api.example:8443")]
    [InlineData("is not s3://BUCKET/PREFIX", "roles=coordinator", "store=s3://B/p", "s3_region=eu-central-1")]
    [InlineData("is not s3://BUCKET/PREFIX", "roles=coordinator", "store=s3://bucket/a//b", "s3_region=eu-central-1")]
    [InlineData("needs its region", "roles=coordinator", "store=s3://bucket/p")]
    [InlineData("'minio:9000' is not http(s)://HOST:PORT", "roles=coordinator", "store=s3://bucket/p", "s3_endpoint=minio:9000", "s3_region=r")]
    [InlineData("would travel to minio unencrypted", "roles=coordinator", "store=s3://bucket/p", "s3_endpoint=http://minio:9000")]
    [InlineData("there is no file /missing", "roles=coordinator", "store=s3://bucket/p", "s3_region=r", "s3_credentials_file=/missing")]
    [InlineData("the store s is no bucket", "roles=coordinator", "store=s", "s3_region=r")]
    [InlineData("'0.5' is not a whole number from 0 to 10080", "roles=coordinator", "janitor_minutes=0.5")]
    [InlineData("a coordinator is one of the seed nodes", "roles=coordinator", "seed_nodes=a:1", "store=s")]
    [InlineData("'99999' is not a whole number from 0 to 65535", "roles=coordinator", "port=99999")]
    [InlineData("would not be encrypted", "roles=coordinator", "host=192.0.2.7")]
    [InlineData("other nodes cannot reach '0.0.0.0'", "roles=coordinator", "host=0.0.0.0", "insecure=true")]
    [InlineData("set a token", "roles=coordinator,api", "http=192.0.2.7:80", "data=/d")]
    [InlineData("name the folders of inputs and outputs as data", "roles=coordinator,api", "http=192.0.2.7:80", "token=t")]
    [InlineData("the role api needs an address", "roles=coordinator,api", "http=off")]
    [InlineData("'Big Node' is not a name", "roles=coordinator", "name=Big Node")]
    [InlineData("there is no file /missing.pfx", "roles=coordinator", "tls_certificate=/missing.pfx")]
    [InlineData("'gpu' is not a device", "roles=coordinator,worker", "devices=gpu")]
    [InlineData("a device is named twice", "roles=coordinator,worker", "devices=cpu,cpu")]
    [InlineData("'plenty' is not an amount of bytes", "roles=coordinator", "max_work=plenty")]
    [InlineData("'perhaps' is not true or false", "roles=coordinator", "create_schema=perhaps")]
    [InlineData("neither 'sqlite' nor a connection string", "roles=coordinator", "journal=secret word")]
    [InlineData("needs Host and Database", "roles=coordinator", "journal=Username=me")]
    public void A_wrong_setting_is_one_sentence_that_names_it(string sentence, params string[] settings)
    {
        var error = Assert.Throws<NodeConfigurationException>(() => Read([.. settings.Select(setting => (setting.Split('=')[0], setting[(setting.IndexOf('=', StringComparison.Ordinal) + 1)..]))]));
        string problem = Assert.Single(error.Problems, problem => problem.Contains(sentence, StringComparison.Ordinal));
        Assert.EndsWith(".", problem, StringComparison.Ordinal);
        Assert.DoesNotContain("secret word", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("s3://bucket", "bucket", "")]
    [InlineData("s3://my.bucket-1/", "my.bucket-1", "")]
    [InlineData("s3://bucket/some/prefix_1/", "bucket", "some/prefix_1")]
    public void A_store_may_be_a_bucket(string text, string bucket, string prefix)
    {
        Assert.Equal(new StoreLocation.Bucket(bucket, prefix, null, "eu-central-1", PathStyle: false, null), Read(("roles", "coordinator"), ("store", text), ("s3_region", "eu-central-1")).Store);
        Assert.Equal(new StoreLocation.Bucket(bucket, prefix, new Uri("https://minio:9000"), "us-east-1", PathStyle: true, null), Read(("roles", "coordinator"), ("store", text), ("s3_endpoint", "https://minio:9000")).Store);
        Assert.Equal(text.TrimEnd('/'), Read(("roles", "coordinator"), ("store", text), ("s3_region", "x")).Store.ToString());
    }

    [Fact]
    public void A_store_may_be_the_folder_of_another_node()
    {
        NodeOptions options = Read(("roles", "worker"), ("seed_nodes", "a:1"), ("store", "https://api.example:8443/"), ("token", "t"));
        Assert.Equal("https://api.example:8443", Assert.IsType<StoreLocation.Server>(options.Store).ToString());
        Assert.False(options.ServesStore);
    }

    [Theory]
    [InlineData(true, "roles=coordinator,api")]
    [InlineData(true, "roles=coordinator", "http=127.0.0.1:8080")]
    [InlineData(true, "roles=coordinator", "http=0.0.0.0:8080", "token=t")]
    [InlineData(false, "roles=coordinator")]
    [InlineData(false, "roles=coordinator", "http=0.0.0.0:8080")]
    [InlineData(false, "roles=worker", "seed_nodes=a:1", "store=s", "http=127.0.0.1:8080")]
    [InlineData(false, "roles=coordinator,api", "store=s3://bucket/p", "s3_region=r")]
    public void A_folder_is_served_by_coordinators_and_api_and_beyond_this_machine_with_a_token_only(bool serves, params string[] settings) =>
        Assert.Equal(serves, Read([.. settings.Select(setting => (setting.Split('=')[0], setting[(setting.IndexOf('=', StringComparison.Ordinal) + 1)..]))]).ServesStore);

    [Fact]
    public void A_store_that_cannot_be_used_as_configured_is_one_sentence()
    {
        NodeOptions options = Read(("roles", "coordinator"), ("store", Write("a-file", "")));
        string problem = Assert.Single(Assert.Throws<NodeConfigurationException>(() => options.Store.Open(options)).Problems);
        Assert.StartsWith($"The store {options.Store} cannot be used: ", problem, StringComparison.Ordinal);
    }

    [Fact]
    public void All_problems_are_told_at_once() =>
        Assert.Equal(3, Assert.Throws<NodeConfigurationException>(() => Read(("roles", "boss,coordinator"), ("port", "x"), ("threads", "-1"))).Problems.Count);

    [Theory]
    [InlineData("""{ "rolls": "worker" }""", "there is no setting 'rolls'")]
    [InlineData("""{ "seed-nodes": "a:1" }""", "perhaps 'seed_nodes'")]
    [InlineData("""{ "roles": 1""", "this is not JSON")]
    [InlineData("""["worker"]""", "one JSON object")]
    [InlineData("""{ "roles": { "worker": true } }""", "'roles' is a text")]
    public void A_wrong_file_is_one_sentence_that_names_it(string content, string sentence)
    {
        string file = Write("node.json", content);
        var error = Assert.Throws<NodeConfigurationException>(() => NodeSettings.Read(Given(("roles", "coordinator")), file, Environment()));
        Assert.Contains(sentence, Assert.Single(error.Problems), StringComparison.Ordinal);
        Assert.StartsWith(file, error.Problems[0], StringComparison.Ordinal);
    }

    [Fact]
    public void Secrets_may_lie_in_files()
    {
        NodeOptions options = Read(("roles", "coordinator,api"), ("token_file", Write("token", " s3cret\n")), ("journal", "Host=db;Username=bbmr;Database=bbmr"), ("journal_password_file", Write("password", "pw\n")));
        Assert.Equal("s3cret", options.Token);
        Assert.Contains("Password=pw", options.Postgres, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("10.0.0.1:4053", "10.0.0.1", 4053, false)]
    [InlineData("[::1]:80", "::1", 80, true)]
    [InlineData("localhost:0", "localhost", 0, true)]
    public void Addresses_are_host_and_port(string text, string host, int port, bool loopback)
    {
        HostPort parsed = HostPort.Parse(text)!;
        Assert.Equal((host, port, loopback, text), (parsed.Host, parsed.Port, parsed.IsLoopback, parsed.ToString()));
    }

    [Theory]
    [InlineData("host")]
    [InlineData(":80")]
    [InlineData("host:70000")]
    [InlineData("::1:80")]
    public void Other_texts_are_none(string text) => Assert.Null(HostPort.Parse(text));

    private static NodeOptions Read(params (string, string)[] given) => NodeSettings.Read(Given(given), null, Environment());

    private static Dictionary<string, string> Given(params (string Key, string Value)[] given) => given.ToDictionary(one => one.Key, one => one.Value, StringComparer.Ordinal);

    private static Func<string, string?> Environment(params (string Key, string Value)[] variables) => name => Given(variables).GetValueOrDefault(name);

    private string Write(string name, string content)
    {
        string path = Path.Combine(_folder, name);
        File.WriteAllText(path, content);
        return path;
    }
}

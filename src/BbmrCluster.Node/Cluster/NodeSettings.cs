using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using BbmrCluster.Work;
using Npgsql;

namespace BbmrCluster.Node.Cluster;

/// <summary>One setting of a node: its name in the file, on the command line (with '-') and in the environment (BBMR_ and capitals).</summary>
/// <param name="Key">snake_case.</param>
/// <param name="Value">What stands for its value in help texts; empty for a switch.</param>
/// <param name="Description">One line.</param>
public sealed record NodeSetting(string Key, string Value, string Description)
{
    /// <summary>On the command line.</summary>
    public string Option => "--" + Key.Replace('_', '-');

    /// <summary>In the environment.</summary>
    public string Variable => "BBMR_" + Key.ToUpperInvariant();
}

/// <summary>
/// Settings of a node from the command line, the environment, a JSON file and defaults, the former before the latter, and
/// the checks that turn them into <see cref="NodeOptions"/>. Every problem is one sentence, and all are told at once.
/// </summary>
public static partial class NodeSettings
{
    /// <summary>All settings, in the order of the help text.</summary>
    public static IReadOnlyList<NodeSetting> All { get; } =
    [
        new("roles", "ROLE,ROLE", "What the node does: coordinator, worker, api"),
        new("name", "NAME", "Unique name of the node and of its worker (default: host name and port)"),
        new("host", "HOST", "Address that other nodes are listened to on (default: 127.0.0.1)"),
        new("port", "PORT", "Its port, 0 for any (default: 4053)"),
        new("public_host", "HOST", "Name under which other nodes reach this one (default: the host)"),
        new("public_port", "PORT", "Port under which other nodes reach this one (default: the port)"),
        new("seed_nodes", "HOST:PORT,...", "Nodes to join, the same list for all (default: none, a cluster of its own)"),
        new("http", "HOST:PORT", "Where API and health checks are served, or off (default: 127.0.0.1:8080 for the role api, else off)"),
        new("token", "TOKEN", "What clients of the API must show; better in BBMR_TOKEN or token_file than on a command line"),
        new("token_file", "FILE", "File that holds the token"),
        new("insecure", "", "Allow traffic without TLS, and an API without token, beyond this machine"),
        new("tls_certificate", "FILE", "PKCS#12 or PEM file with the node's certificate: mutual TLS between nodes"),
        new("tls_key", "FILE", "PEM file with the certificate's key, when it is not in the same file"),
        new("tls_password_file", "FILE", "File that holds the password of the PKCS#12 file or the key"),
        new("tls_authority", "FILE", "PEM file with the authorities whose certificates other nodes must show"),
        new("journal", "sqlite|CONNECTION", "sqlite, or a connection string of PostgreSQL such as 'Host=db;Username=bbmr;Database=bbmr' (default: sqlite)"),
        new("journal_password_file", "FILE", "File that holds the password of the PostgreSQL user"),
        new("create_schema", "true|false", "Make the journal's tables at start when they are not there (default: true)"),
        new("work", "DIR", "Local folder of this node alone (default: bbmr-node in the current folder)"),
        new("store", "DIR|URL", "Intermediate results of the cluster: a folder that all nodes see, http://HOST:PORT of a node that has it, or s3://BUCKET/PREFIX (default: blobs in the work folder)"),
        new("s3_endpoint", "URL", "Server of the bucket, when it is not Amazon's"),
        new("s3_region", "REGION", "Region of the bucket (default: AWS_REGION, with s3_endpoint us-east-1)"),
        new("s3_path_style", "true|false", "Name the bucket in the path, not in the host (default: true with s3_endpoint)"),
        new("s3_credentials_file", "FILE", "Credentials file of AWS, profile default (default: AWS_ACCESS_KEY_ID and the other usual ways)"),
        new("max_work", "BYTES", "Most bytes of intermediate results (default: half of the free space of a folder, any number in a bucket)"),
        new("orphan_minutes", "M", "How long nothing was written for an image before they look whether anyone needs its intermediate results; more than clocks differ by (default: 60)"),
        new("janitor_minutes", "M", "How often the coordinators look for intermediate results that nobody needs any more, 0 for never (default: 10)"),
        new("models", "DIR", "Folder of weights (default: models beside the program)"),
        new("data", "DIR,DIR", "Folders in which inputs and outputs of jobs must lie (default: anywhere, on loopback only)"),
        new("devices", "DEVICE,...", "Devices of a worker: auto, cpu, cuda:0, ... (default: auto)"),
        new("threads", "N", "Processor threads of each device (default: one per core)"),
        new("open_images", "N", "Large images of a job that are open at once (default: 4); small ones are more"),
        new("drain_seconds", "S", "How long a worker that is to end goes on with its leases before it gives them back (default: 60)"),
        new("stable_after_seconds", "S", "How long the cluster must be unchanged before unreachable nodes are removed (default: 20)"),
        new("heartbeat_pause_seconds", "S", "How long a node may be silent before it counts as unreachable (default: 8)"),
        new("app_version", "VERSION", "Version that the node shows to others (default: the program's)"),
    ];

    /// <summary>Reads and checks.</summary>
    /// <param name="commandLine">Values given there, by key.</param>
    /// <param name="file">A JSON object with the same keys; null for none.</param>
    /// <param name="environment">Looks up a variable of the environment.</param>
    /// <exception cref="NodeConfigurationException">All that is wrong.</exception>
    public static NodeOptions Read(IReadOnlyDictionary<string, string> commandLine, string? file, Func<string, string?> environment)
    {
        Dictionary<string, string> fromFile = file is null ? [] : ReadFile(file);
        var reader = new Reader(setting =>
            commandLine.TryGetValue(setting.Key, out string? given) ? (given, setting.Option)
            : environment(setting.Variable) is { Length: > 0 } variable ? (variable, setting.Variable)
            : fromFile.TryGetValue(setting.Key, out string? written) ? (written, $"{setting.Key} in {file}")
            : null, environment);
        return reader.Read();
    }

    private static Dictionary<string, string> ReadFile(string path)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path), new JsonDocumentOptions { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true });
            if (document.RootElement.ValueKind != JsonValueKind.Object)
                throw new NodeConfigurationException([$"{path}: the configuration is one JSON object."]);
            var values = new Dictionary<string, string>(StringComparer.Ordinal);
            var problems = new List<string>();
            foreach (JsonProperty property in document.RootElement.EnumerateObject())
            {
                if (All.All(setting => setting.Key != property.Name))
                    problems.Add($"{path}: there is no setting '{property.Name}'{Nearest(property.Name)}.");
                else if (Text(property.Value) is { } text)
                    values[property.Name] = text;
                else
                    problems.Add($"{path}: '{property.Name}' is a text, a number, true, false or a list of texts.");
            }
            return problems.Count == 0 ? values : throw new NodeConfigurationException(problems);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new NodeConfigurationException([$"The configuration file {path} cannot be read: {error.Message}"]);
        }
        catch (JsonException error)
        {
            throw new NodeConfigurationException([$"{path}: this is not JSON ({error.Message.Split('.')[0]}, line {(error.LineNumber ?? 0) + 1})."]);
        }
    }

    private static string? Text(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.String => value.GetString(),
        JsonValueKind.Number => value.GetRawText(),
        JsonValueKind.True => "true",
        JsonValueKind.False => "false",
        JsonValueKind.Array when value.EnumerateArray().All(item => item.ValueKind == JsonValueKind.String) => string.Join(',', value.EnumerateArray().Select(item => item.GetString())),
        _ => null,
    };

    private static string Nearest(string name) =>
        All.FirstOrDefault(setting => setting.Key.Contains(name, StringComparison.Ordinal) || name.Contains(setting.Key, StringComparison.Ordinal)
            || setting.Key.Replace("_", "", StringComparison.Ordinal).Equals(name.Replace("-", "", StringComparison.Ordinal).Replace("_", "", StringComparison.Ordinal), StringComparison.OrdinalIgnoreCase))
            is { } near ? $" (perhaps '{near.Key}')" : "";

    [GeneratedRegex("^[a-z0-9-]{1,64}$")]
    private static partial Regex NamePattern();

    [GeneratedRegex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    private static partial Regex BucketPattern();

    [GeneratedRegex("^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?$")]
    private static partial Regex PrefixPattern();

    /// <summary>Collects problems while it reads.</summary>
    private sealed class Reader(Func<NodeSetting, (string Text, string Source)?> find, Func<string, string?> environment)
    {
        private readonly List<string> _problems = [];

        public NodeOptions Read()
        {
            string[] roles = List("roles");
            if (roles.Length == 0)
                _problems.Add("A node needs roles: --roles coordinator,worker,api or some of them (BBMR_ROLES).");
            foreach (string role in roles.Where(role => role is not ("coordinator" or "worker" or "api")))
                _problems.Add($"{Source("roles")}: there is no role '{role}'; choose from coordinator, worker, api.");
            bool coordinator = roles.Contains("coordinator"), worker = roles.Contains("worker"), api = roles.Contains("api");

            string host = Get("host") ?? "127.0.0.1";
            var bind = new HostPort(host, Whole("port", 0, 65535, 4053));
            string publicHost = Get("public_host") ?? host;
            var reached = new HostPort(publicHost, Whole("public_port", 1, 65535, bind.Port));
            if (reached.IsAny)
                _problems.Add($"{Source("host")}: other nodes cannot reach '{publicHost}'; name the address they use as public_host (BBMR_PUBLIC_HOST).");
            var seeds = new List<HostPort>();
            foreach (string seed in List("seed_nodes"))
            {
                if (HostPort.Parse(seed) is { Port: > 0 } parsed)
                    seeds.Add(parsed);
                else
                    _problems.Add($"{Source("seed_nodes")}: '{seed}' is not HOST:PORT.");
            }
            if (seeds.Count == 0 && roles.Length > 0 && !coordinator)
                _problems.Add("A node without the role coordinator needs seed_nodes to join (BBMR_SEED_NODES).");
            if (seeds.Count > 0 && coordinator && !seeds.Contains(reached))
                _problems.Add($"{Source("seed_nodes")}: a coordinator is one of the seed nodes, and {reached} is not among them; name all coordinators and nobody else.");

            HostPort? http = api ? new HostPort("127.0.0.1", 8080) : null;
            if (Get("http") is { } served)
            {
                http = served is "off" ? null : HostPort.Parse(served);
                if (http is null && served is not "off")
                    _problems.Add($"{Source("http")}: '{served}' is not HOST:PORT or off.");
            }
            if (api && http is null && Get("http") is "off")
                _problems.Add($"{Source("http")}: the role api needs an address to serve; leave the role or http=off out.");

            string? token = Get("token") ?? Secret("token_file");
            bool insecure = Flag("insecure", false);
            string? certificate = Existing("tls_certificate"), key = Existing("tls_key"), authority = Existing("tls_authority");
            if (certificate is null && (key ?? authority) is not null)
                _problems.Add("TLS between nodes needs the node's own certificate: name it as tls_certificate (BBMR_TLS_CERTIFICATE).");
            if (!bind.IsLoopback && Get("tls_certificate") is null && !insecure)
                _problems.Add($"Traffic between nodes on {bind.Host} would not be encrypted: name a certificate as tls_certificate (BBMR_TLS_CERTIFICATE), or allow it with --insecure.");
            string[] data = [.. List("data").Select(Path.GetFullPath)];
            if (api && http is { IsLoopback: false } && !insecure)
            {
                if (token is null)
                    _problems.Add($"Anyone who reaches {http} could command the cluster: set a token (BBMR_TOKEN or token_file), or allow it with --insecure.");
                if (data.Length == 0)
                    _problems.Add($"Jobs sent to {http} could read and write any file: name the folders of inputs and outputs as data (BBMR_DATA), or allow it with --insecure.");
            }

            string name = Get("name") ?? string.Create(CultureInfo.InvariantCulture, $"{Safe(Environment.MachineName)}-{(bind.Port == 0 ? Environment.ProcessId : bind.Port)}");
            if (!NamePattern().IsMatch(name))
                _problems.Add($"{Source("name")}: '{name}' is not a name of 1 to 64 characters of a-z, 0-9 and '-'.");
            string work = Path.GetFullPath(Get("work") ?? "bbmr-node");
            if (Get("store") is null && seeds.Exists(seed => seed != reached))
                _problems.Add("Nodes of a cluster share a store of intermediate results: name it as store (BBMR_STORE).");
            StoreLocation store = Store(Get("store") ?? Path.Combine(work, "blobs"), http, token, insecure);
            string? models = Get("models");
            if (models is not null && !Directory.Exists(models))
                _problems.Add($"{Source("models")}: there is no folder {models}.");
            string[] devices = List("devices") is { Length: > 0 } named ? named : ["auto"];
            foreach (string device in devices.Where(device => device is not ("auto" or "cpu") && !(device.StartsWith("cuda:", StringComparison.Ordinal) && int.TryParse(device.AsSpan(5), NumberStyles.None, CultureInfo.InvariantCulture, out _))))
                _problems.Add($"{Source("devices")}: '{device}' is not a device: auto, cpu, cuda:0, cuda:1, ...");
            if (devices.Distinct(StringComparer.Ordinal).Count() != devices.Length)
                _problems.Add($"{Source("devices")}: a device is named twice.");

            var options = new NodeOptions
            {
                IsCoordinator = coordinator,
                IsWorker = worker,
                IsApi = api,
                Name = name,
                Bind = bind,
                Public = reached,
                Seeds = seeds,
                Http = http,
                Token = token,
                Insecure = insecure,
                Certificate = certificate,
                Key = key,
                CertificatePassword = Secret("tls_password_file"),
                Authority = authority,
                Postgres = Postgres(),
                CreateSchema = Flag("create_schema", true),
                Work = work,
                Store = store,
                MaxWork = Bytes("max_work"),
                Janitor = TimeSpan.FromMinutes(Whole("janitor_minutes", 0, 10_080, 10)),
                OrphanAge = TimeSpan.FromMinutes(Whole("orphan_minutes", 1, 10_080, 60)),
                Models = models,
                Data = data,
                Devices = devices,
                Threads = Whole("threads", 0, 1024, 0),
                OpenImages = Whole("open_images", 1, 1000, 4),
                Drain = Seconds("drain_seconds", 0, 86_400, 60),
                StableAfter = Seconds("stable_after_seconds", 1, 600, 20),
                HeartbeatPause = Seconds("heartbeat_pause_seconds", 1, 120, 8),
                AppVersion = Get("app_version") ?? NodeOptions.ProgramVersion,
            };
            return _problems.Count == 0 ? options : throw new NodeConfigurationException(_problems);
        }

        private (string Text, string Source)? Find(string key) => find(All.First(setting => setting.Key == key));

        private string? Get(string key) => Find(key)?.Text is { Length: > 0 } text ? text : null;

        private string Source(string key) => Find(key)?.Source ?? key;

        private string[] List(string key) => Get(key)?.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries) ?? [];

        private int Whole(string key, int from, int to, int otherwise)
        {
            if (Get(key) is not { } text)
                return otherwise;
            if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value) && value >= from && value <= to)
                return value;
            _problems.Add(string.Create(CultureInfo.InvariantCulture, $"{Source(key)}: '{text}' is not a whole number from {from} to {to}."));
            return otherwise;
        }

        private TimeSpan Seconds(string key, double from, double to, double otherwise)
        {
            if (Get(key) is not { } text)
                return TimeSpan.FromSeconds(otherwise);
            if (double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double value) && value >= from && value <= to)
                return TimeSpan.FromSeconds(value);
            _problems.Add(string.Create(CultureInfo.InvariantCulture, $"{Source(key)}: '{text}' is not a number of seconds from {from} to {to}."));
            return TimeSpan.FromSeconds(otherwise);
        }

        private bool Flag(string key, bool otherwise)
        {
            switch (Get(key)?.ToLowerInvariant())
            {
                case null:
                    return otherwise;
                case "true" or "1" or "yes":
                    return true;
                case "false" or "0" or "no":
                    return false;
                case var text:
                    _problems.Add($"{Source(key)}: '{text}' is not true or false.");
                    return otherwise;
            }
        }

        private long? Bytes(string key)
        {
            if (Get(key) is not { } text)
                return null;
            if (FileSystem.ParseSize(text) is { } bytes)
                return bytes;
            _problems.Add($"{Source(key)}: '{text}' is not an amount of bytes such as 500000000, 20G or 1.5TB.");
            return null;
        }

        private StoreLocation Store(string text, HostPort? http, string? token, bool insecure)
        {
            string source = Source("store");
            bool isUrl = text.Contains("://", StringComparison.Ordinal);
            if (!text.StartsWith("s3://", StringComparison.Ordinal))
            {
                foreach (string key in (string[])["s3_endpoint", "s3_region", "s3_path_style", "s3_credentials_file"])
                {
                    if (Get(key) is not null)
                        _problems.Add($"{Source(key)}: the store {text} is no bucket; name one as s3://BUCKET/PREFIX.");
                }
                if (!isUrl)
                    return new StoreLocation.Folder(Path.GetFullPath(text));
                if (Url(text) is not { } address || address.AbsolutePath != "/")
                {
                    // The text of a URL may hold a password.
                    _problems.Add($"{source}: '{(text.Contains('@', StringComparison.Ordinal) ? "..." : text)}' is neither a folder nor http://HOST:PORT nor s3://BUCKET/PREFIX.");
                    return new StoreLocation.Folder(text);
                }
                var server = new HostPort(address.Host.Trim('[', ']'), address.Port);
                if (server == http)
                    _problems.Add($"{source}: {text} is this node itself; name the folder.");
                if (!server.IsLoopback && !insecure)
                {
                    if (address.Scheme == "http")
                        _problems.Add($"{source}: the token and all pixels would travel to {server} unencrypted: name https:// of a proxy before it, or allow it with --insecure.");
                    if (token is null)
                        _problems.Add($"{source}: {server} wants the token of the cluster: set it (BBMR_TOKEN or token_file), or allow to go without with --insecure.");
                }
                return new StoreLocation.Server(address);
            }

            string[] parts = text["s3://".Length..].TrimEnd('/').Split('/', 2);
            string prefix = parts.Length == 2 ? parts[1] : "";
            if (!BucketPattern().IsMatch(parts[0]) || !PrefixPattern().IsMatch(prefix))
                _problems.Add($"{source}: '{text}' is not s3://BUCKET/PREFIX with a bucket of 3 to 63 characters of a-z, 0-9, '.' and '-', and a prefix of letters, digits, '-', '_', '.' and '/'.");
            Uri? endpoint = Get("s3_endpoint") is { } named ? Url(named) : null;
            if (Get("s3_endpoint") is not null && endpoint is null)
                _problems.Add($"{Source("s3_endpoint")}: '{(Get("s3_endpoint")!.Contains('@', StringComparison.Ordinal) ? "..." : Get("s3_endpoint"))}' is not http(s)://HOST:PORT.");
            if (endpoint is { Scheme: "http" } && !new HostPort(endpoint.Host.Trim('[', ']'), 0).IsLoopback && !insecure)
                _problems.Add($"{Source("s3_endpoint")}: all pixels would travel to {endpoint.Host} unencrypted: name it as https://, or allow it with --insecure.");
            string? region = Get("s3_region") ?? environment("AWS_REGION") ?? (endpoint is null ? null : "us-east-1");
            if (region is null)
                _problems.Add($"{source}: a bucket at Amazon needs its region: name it as s3_region (BBMR_S3_REGION or AWS_REGION).");
            return new StoreLocation.Bucket(parts[0], prefix, endpoint, region ?? "", Flag("s3_path_style", endpoint is not null), Existing("s3_credentials_file"));
        }

        private static Uri? Url(string text) =>
            Uri.TryCreate(text, UriKind.Absolute, out Uri? url) && url is { Scheme: "http" or "https", Host.Length: > 0, Query.Length: 0, Fragment.Length: 0, UserInfo.Length: 0 } ? url : null;

        private string? Existing(string key)
        {
            if (Get(key) is not { } path || File.Exists(path))
                return Get(key);
            _problems.Add($"{Source(key)}: there is no file {path}.");
            return null;
        }

        private string? Secret(string key)
        {
            if (Existing(key) is not { } path)
                return null;
            try
            {
                string secret = File.ReadAllText(path).Trim();
                if (secret.Length == 0)
                    _problems.Add($"{Source(key)}: {path} is empty.");
                return secret;
            }
            catch (Exception error) when (error is IOException or UnauthorizedAccessException)
            {
                _problems.Add($"{Source(key)}: {path} cannot be read ({error.Message}).");
                return null;
            }
        }

        private string? Postgres()
        {
            if (Get("journal") is not { } text || text.Equals("sqlite", StringComparison.OrdinalIgnoreCase))
                return null;
            try
            {
                var connection = new NpgsqlConnectionStringBuilder(text);
                if (Secret("journal_password_file") is { } password)
                    connection.Password = password;
                if (connection.Host is not { Length: > 0 } || connection.Database is not { Length: > 0 })
                    _problems.Add($"{Source("journal")}: the connection string of PostgreSQL needs Host and Database.");
                return connection.ConnectionString;
            }
            catch (ArgumentException)
            {
                // The text itself stays untold: it may hold a password.
                _problems.Add($"{Source("journal")}: this is neither 'sqlite' nor a connection string of PostgreSQL such as 'Host=db;Username=bbmr;Database=bbmr'.");
                return null;
            }
        }

        private static string Safe(string name)
        {
            string safe = string.Concat(name.ToLowerInvariant().Select(c => char.IsAsciiLetterOrDigit(c) ? c : '-'));
            return safe.Length is 0 or > 50 ? "node" : safe;
        }
    }
}

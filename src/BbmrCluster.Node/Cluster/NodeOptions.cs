using System.Globalization;
using System.Net;
using System.Reflection;

namespace BbmrCluster.Node.Cluster;

/// <summary>A node's configuration cannot be used; every sentence names the setting and what to do.</summary>
/// <param name="problems">At least one.</param>
public sealed class NodeConfigurationException(IReadOnlyList<string> problems) : Exception(string.Join(" ", problems))
{
    /// <summary>One sentence each.</summary>
    public IReadOnlyList<string> Problems { get; } = problems;
}

/// <summary>Host and port.</summary>
/// <param name="Host">Name or address.</param>
/// <param name="Port">0 to 65535; 0 takes a free one where something is bound.</param>
public sealed record HostPort(string Host, int Port)
{
    /// <summary>Whether nobody on another machine can reach it.</summary>
    public bool IsLoopback => Host is "localhost" || (IPAddress.TryParse(Host, out IPAddress? address) && IPAddress.IsLoopback(address));

    /// <summary>Whether it stands for all addresses of the machine, under which nobody can reach it.</summary>
    public bool IsAny => Host is "*" or "+" || (IPAddress.TryParse(Host, out IPAddress? address) && (address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any)));

    /// <summary>Reads HOST:PORT; an IPv6 address stands in brackets.</summary>
    public static HostPort? Parse(string text)
    {
        int colon = text.LastIndexOf(':');
        return colon > 0 && int.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int port) && port <= 65535
            && text[..colon].Trim('[', ']') is { Length: > 0 } host && (!host.Contains(':', StringComparison.Ordinal) || text[0] == '[')
            ? new HostPort(host, port)
            : null;
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{(Host.Contains(':', StringComparison.Ordinal) ? $"[{Host}]" : Host)}:{Port}");
}

/// <summary>What a cluster node is told; <see cref="NodeSettings"/> reads and checks it.</summary>
public sealed record NodeOptions
{
    /// <summary>Its own coordinators, broker, directory.</summary>
    public bool IsCoordinator { get; init; }

    /// <summary>Has devices and does leases.</summary>
    public bool IsWorker { get; init; }

    /// <summary>Serves the HTTP API.</summary>
    public bool IsApi { get; init; }

    /// <summary>Name of the node and of its worker: 1 to 64 characters of a-z, 0-9 and '-'; unique in the cluster.</summary>
    public required string Name { get; init; }

    /// <summary>Where other nodes are listened to.</summary>
    public HostPort Bind { get; init; } = new("127.0.0.1", 4053);

    /// <summary>Where other nodes reach this one.</summary>
    public HostPort Public { get; init; } = new("127.0.0.1", 4053);

    /// <summary>Nodes to join; empty makes the node a cluster of its own.</summary>
    public IReadOnlyList<HostPort> Seeds { get; init; } = [];

    /// <summary>Where HTTP (API, health) is served; null for nowhere.</summary>
    public HostPort? Http { get; init; }

    /// <summary>What clients of the API must show; null when they need nothing.</summary>
    public string? Token { get; init; }

    /// <summary>Whether traffic without TLS and an API without a token may leave the machine.</summary>
    public bool Insecure { get; init; }

    /// <summary>PKCS#12 or PEM file with this node's certificate (and its key, unless <see cref="Key"/> names it); null for no TLS between nodes.</summary>
    public string? Certificate { get; init; }

    /// <summary>PEM file with the certificate's key.</summary>
    public string? Key { get; init; }

    /// <summary>Of the PKCS#12 file or the key.</summary>
    public string? CertificatePassword { get; init; }

    /// <summary>PEM file with the authorities whose certificates other nodes must show; null for those of the system.</summary>
    public string? Authority { get; init; }

    /// <summary>PostgreSQL's connection string; null for SQLite in <see cref="Work"/>.</summary>
    public string? Postgres { get; init; }

    /// <summary>Whether tables of the journal are made at start when they are not there.</summary>
    public bool CreateSchema { get; init; } = true;

    /// <summary>Local folder of this node alone: lock, temporary files, SQLite journal.</summary>
    public required string Work { get; init; }

    /// <summary>Where intermediate results lie; the same for all nodes, whichever way they reach it.</summary>
    public required StoreLocation Store { get; init; }

    /// <summary>Most bytes of intermediate results; null for half of the free space of a folder, and for any number in a bucket.</summary>
    public long? MaxWork { get; init; }

    /// <summary>How often intermediate results that nobody needs any more are looked for; zero for never.</summary>
    public TimeSpan Janitor { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>How long nothing was written for an image before they ask whether anyone needs its intermediate results; more than clocks of nodes and store differ by.</summary>
    public TimeSpan OrphanAge { get; init; } = TimeSpan.FromHours(1);

    /// <summary>Folder of weights; null for the program's own.</summary>
    public string? Models { get; init; }

    /// <summary>Folders in which inputs and outputs of jobs must lie; empty for anywhere.</summary>
    public IReadOnlyList<string> Data { get; init; } = [];

    /// <summary>Devices of a worker: auto, cpu or cuda:N; each works by itself.</summary>
    public IReadOnlyList<string> Devices { get; init; } = ["auto"];

    /// <summary>Processor threads of a device; 0 for one per core.</summary>
    public int Threads { get; init; }

    /// <summary>Images of an archive that are open at once.</summary>
    public int OpenImages { get; init; } = 4;

    /// <summary>How long a worker that is to end goes on with its leases before it gives them back.</summary>
    public TimeSpan Drain { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How long the cluster must be unchanged before unreachable nodes are removed.</summary>
    public TimeSpan StableAfter { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>How long a node may be silent before it counts as unreachable.</summary>
    public TimeSpan HeartbeatPause { get; init; } = TimeSpan.FromSeconds(8);

    /// <summary>Version of the program, for rolling upgrades.</summary>
    public string AppVersion { get; init; } = ProgramVersion;

    /// <summary>The version that was built.</summary>
    public static string ProgramVersion { get; } =
        typeof(NodeOptions).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0] ?? "0.0.0";

    /// <summary>Whether it serves its folder of intermediate results to nodes that do not see it. Never to whoever asks: beyond this machine a token is needed.</summary>
    public bool ServesStore => Store is StoreLocation.Folder && (IsCoordinator || IsApi) && Http is not null && (Token is not null || Http.IsLoopback || Insecure);

    /// <summary>Roles in the cluster.</summary>
    public IReadOnlyList<string> Roles => [.. new[] { (IsCoordinator, "coordinator"), (IsWorker, "worker"), (IsApi, "api") }.Where(role => role.Item1).Select(role => role.Item2)];
}

using System.Globalization;

namespace BbmrCluster.Faults.Harness;

/// <summary>
/// A network of namespaces, one for each node, joined by a bridge in one more of them. A cut moves nodes to a second
/// bridge: they reach each other and nobody else. Nothing outside of these namespaces is touched.
/// </summary>
public sealed class TestNetwork : IDisposable
{
    private static int _serial;

    private readonly string _prefix = string.Create(CultureInfo.InvariantCulture, $"bbmr{Environment.ProcessId}n{Interlocked.Increment(ref _serial)}");
    private readonly List<string> _nodes = [];

    public TestNetwork(IEnumerable<string> nodes)
    {
        Machine.Require("ip", "netns", "add", Hub);
        try
        {
            foreach (string bridge in new[] { "br0", "br1" })
            {
                In(Hub, "link", "add", bridge, "type", "bridge");
                In(Hub, "link", "set", bridge, "up");
            }
            foreach (string node in nodes)
                Add(node);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Why there can be no network here; null when there can.</summary>
    public static string? WhyNot { get; } = FindOut();

    private string Hub => _prefix + "hub";

    public string NamespaceOf(string node) => $"{_prefix}{node}";

    public string AddressOf(string node) => string.Create(CultureInfo.InvariantCulture, $"10.98.76.{_nodes.IndexOf(node) + 1}");

    /// <summary>Cuts these nodes off from all others.</summary>
    public void Cut(IEnumerable<string> nodes)
    {
        foreach (string node in nodes)
            In(Hub, "link", "set", "p" + node, "master", "br1");
    }

    /// <summary>What one node sends to another is lost; what that one sends arrives, and both reach all others.</summary>
    public void CutOneWay(string from, string to) => In(NamespaceOf(from), "route", "replace", "blackhole", AddressOf(to) + "/32");

    /// <summary>Ends all cuts.</summary>
    public void Heal()
    {
        foreach (string node in _nodes)
        {
            In(Hub, "link", "set", "p" + node, "master", "br0");
            In(NamespaceOf(node), "route", "flush", "type", "blackhole");
        }
    }

    public void Dispose()
    {
        foreach (string node in _nodes)
            Machine.Run("ip", "netns", "del", NamespaceOf(node));
        Machine.Run("ip", "netns", "del", Hub);
    }

    private void Add(string node)
    {
        _nodes.Add(node);
        Machine.Require("ip", "netns", "add", NamespaceOf(node));
        In(Hub, "link", "add", "p" + node, "type", "veth", "peer", "name", "eth0", "netns", NamespaceOf(node));
        In(Hub, "link", "set", "p" + node, "master", "br0", "up");
        In(NamespaceOf(node), "address", "add", AddressOf(node) + "/24", "dev", "eth0");
        In(NamespaceOf(node), "link", "set", "lo", "up");
        In(NamespaceOf(node), "link", "set", "eth0", "up");
    }

    private static void In(string space, params string[] arguments) => Machine.Require("ip", ["-n", space, .. arguments]);

    private static string? FindOut()
    {
        if (!Machine.IsAdministrator)
            return "only the administrator can make network namespaces";
        try
        {
            using var network = new TestNetwork(["a"]);
            return null;
        }
        catch (InvalidOperationException error)
        {
            return "network namespaces cannot be made here: " + error.Message.ReplaceLineEndings(" ");
        }
    }
}

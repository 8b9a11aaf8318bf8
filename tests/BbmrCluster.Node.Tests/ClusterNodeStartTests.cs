using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using BbmrCluster.Node.Cluster;
using BbmrCluster.Work;

namespace BbmrCluster.Node.Tests;

/// <summary>A node that cannot start says why in one sentence, and what is at fault decides about the code it ends with.</summary>
public sealed class ClusterNodeStartTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("bbmr-start-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("port")]
    [InlineData("http")]
    public async Task A_port_in_use_is_named(string which)
    {
        using var other = new TcpListener(IPAddress.Loopback, 0);
        other.Start();
        string port = ((IPEndPoint)other.LocalEndpoint).Port.ToString(CultureInfo.InvariantCulture);
        var error = await Assert.ThrowsAsync<NodeConfigurationException>(() => StartAsync(which, which == "http" ? "127.0.0.1:" + port : port));
        string problem = Assert.Single(error.Problems);
        Assert.Contains("127.0.0.1:" + port, problem, StringComparison.Ordinal);
        Assert.EndsWith("cannot be used: Address already in use.", problem, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_node_does_not_listen_beside_another_on_its_port()
    {
        await using ClusterNode first = await StartAsync("name", "first");
        string port = first.Address[(first.Address.LastIndexOf(':') + 1)..];
        await Assert.ThrowsAsync<NodeConfigurationException>(() => StartAsync("port", port));
        // The transport itself refuses, too: whoever asks for the port at the same time finds it taken.
        using var beside = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        beside.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
        Assert.Throws<SocketException>(() => beside.Bind(new IPEndPoint(IPAddress.Loopback, int.Parse(port, CultureInfo.InvariantCulture))));
    }

    // Its errors are those of a port that cannot be had.
    [Fact]
    public async Task A_database_without_a_socket_is_no_port_in_use()
    {
        var error = await Assert.ThrowsAsync<WorkDirectoryException>(() => StartAsync("journal", $"Host={_folder};Username=nobody;Database=none"));
        Assert.StartsWith($"the database none on {_folder} cannot be used: ", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_node_that_nobody_takes_in_ends_as_one_that_was_removed()
    {
        using var system = ActorSystem.Create("bbmr", "akka { loglevel = ERROR, actor.provider = cluster, remote.dot-netty.tcp { hostname = 127.0.0.1, port = 0 } }");
        system.ActorOf(JoinWatch.Props(TimeSpan.FromSeconds(1), "127.0.0.1:1"));
        await system.WhenTerminated.WaitAsync(TimeSpan.FromMinutes(2));
        Assert.IsType<CoordinatedShutdown.ClusterDowningReason>(CoordinatedShutdown.Get(system).ShutdownReason);
    }

    private Task<ClusterNode> StartAsync(string key, string value)
    {
        var settings = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["roles"] = "coordinator", ["port"] = "0", ["http"] = "127.0.0.1:0", ["work"] = Path.Combine(_folder, "work-" + key), ["store"] = Path.Combine(_folder, "store"), [key] = value,
        };
        return ClusterNode.StartAsync(NodeSettings.Read(settings, null, _ => null), _ => { });
    }
}

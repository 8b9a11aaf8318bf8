using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Akka.Configuration;
using BbmrCluster.Actors.Hosting;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>Nodes find to each other again when one of them is started anew at the address of the process before.</summary>
[Collection("nodes")]
public sealed class ReconnectionSpecs
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(120);

    /// <summary>
    /// A node that stayed tries to reach one that was started again at the very moment at which that one reaches it. Of the two
    /// connections each side may keep another one, and what one of them says is never read by the other: so workers took each
    /// other for lost after a restart in order, and a worker that was killed and started again was never taken in.
    /// </summary>
    [Fact]
    public async Task A_node_that_was_started_again_hears_one_that_stayed_although_both_connected_at_once()
    {
        int stayedAt = FreePort(), beforeAt = FreePort(), afterAt = FreePort();
        using var proxy = new HoldingProxy(beforeAt);
        using ActorSystem stayed = Start(stayedAt, stayedAt), before = Start(beforeAt, proxy.Port);
        await ReachAsync(stayed, proxy.Port);
        // It dies without a word.
        proxy.Abort();
        await before.Terminate();

        proxy.Target = afterAt;
        Task held = proxy.HoldNext();
        using ActorSystem after = Start(afterAt, proxy.Port);
        for (int i = 0; !held.IsCompleted; i++)
        {
            Assert.True(i < 2400, "The node that stayed does not try to reach the other one.");
            At(stayed, proxy.Port).Tell(new Identify(null), ActorRefs.NoSender);
            await Task.WhenAny(held, Task.Delay(50));
        }
        // The one that stayed is connecting. Meanwhile the other one reaches it, and is answered.
        await ReachAsync(after, stayedAt);
        proxy.Release();

        // Both directions, and not just at once.
        for (int i = 0; i < 3; i++)
        {
            await ReachAsync(stayed, proxy.Port);
            await ReachAsync(after, stayedAt);
        }
        await stayed.Terminate();
        await after.Terminate();
    }

    private static ActorSystem Start(int port, int reachedAt) => ActorSystem.Create("bbmr", ConfigurationFactory.ParseString(string.Create(CultureInfo.InvariantCulture, $$"""
        akka.actor.provider = cluster
        akka.stdout-loglevel = OFF
        akka.loglevel = OFF
        # Whoever could not be reached is tried again sooner than by default.
        akka.remote.retry-gate-closed-for = 200ms
        akka.remote.dot-netty.tcp { hostname = 127.0.0.1, port = {{port}}, public-port = {{reachedAt}} }
        """)).WithFallback(HoconFiles.Load("cluster")));

    private static ActorSelection At(ActorSystem from, int port) => from.ActorSelection(string.Create(CultureInfo.InvariantCulture, $"akka.tcp://bbmr@127.0.0.1:{port}/system"));

    // What is sent while a connection comes about, or a moment after one broke, may be lost.
    private static async Task ReachAsync(ActorSystem from, int port)
    {
        long until = Environment.TickCount64 + (long)Patience.TotalMilliseconds;
        while (true)
        {
            try
            {
                await At(from, port).Ask<ActorIdentity>(new Identify(null), TimeSpan.FromSeconds(2));
                return;
            }
            catch (AskTimeoutException) when (Environment.TickCount64 < until)
            {
            }
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    /// <summary>Stands before a node, passes on what comes, and holds up a connection when told to.</summary>
    private sealed class HoldingProxy : IDisposable
    {
        private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
        private readonly List<Socket> _open = [];
        private readonly TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private TaskCompletionSource? _held;

        public HoldingProxy(int target)
        {
            Target = target;
            _listener.Start();
            // Not on the threads of the tests, which others may block.
            _ = Task.Run(AcceptAsync);
        }

        public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

        /// <summary>Port to which new connections go.</summary>
        public int Target { get; set; }

        /// <summary>Holds up the next connection; completes when it is there.</summary>
        public Task HoldNext()
        {
            _held = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            return _held.Task;
        }

        public void Release() => _released.TrySetResult();

        /// <summary>All connections end, as the system ends those of a process that is killed: without a word, and not by a reset, which the transport takes for a shutdown in order.</summary>
        public void Abort()
        {
            lock (_open)
            {
                foreach (Socket socket in _open.Where(socket => socket.Connected))
                    socket.Shutdown(SocketShutdown.Both);
            }
        }

        public void Dispose()
        {
            _released.TrySetResult();
            _listener.Dispose();
            lock (_open)
                _open.ForEach(socket => socket.Dispose());
        }

        private async Task AcceptAsync()
        {
            try
            {
                while (true)
                    _ = PassAsync(await _listener.AcceptSocketAsync());
            }
            catch (Exception error) when (error is SocketException or ObjectDisposedException)
            {
                // The end.
            }
        }

        private async Task PassAsync(Socket from)
        {
            try
            {
                var to = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                lock (_open)
                    _open.AddRange([from, to]);
                if (Interlocked.Exchange(ref _held, null) is { } held)
                {
                    held.TrySetResult();
                    await _released.Task;
                }
                await to.ConnectAsync(IPAddress.Loopback, Target);
                await Task.WhenAll(CopyAsync(from, to), CopyAsync(to, from));
                from.Close();
                to.Close();
            }
            catch (Exception error) when (error is SocketException or ObjectDisposedException)
            {
                from.Close();
            }
        }

        private static async Task CopyAsync(Socket from, Socket to)
        {
            byte[] buffer = new byte[16384];
            try
            {
                while (await from.ReceiveAsync(buffer) is > 0 and var count)
                    await to.SendAsync(buffer.AsMemory(0, count));
                to.Shutdown(SocketShutdown.Send);
            }
            catch (Exception error) when (error is SocketException or ObjectDisposedException)
            {
                // Broken by either side.
            }
        }
    }
}

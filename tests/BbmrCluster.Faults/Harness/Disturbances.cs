using System.Globalization;

namespace BbmrCluster.Faults.Harness;

/// <summary>What can happen to a cluster.</summary>
public enum DisturbanceKind
{
    /// <summary>kill -9 of a worker.</summary>
    KillWorker,

    /// <summary>kill -9 of a coordinator.</summary>
    KillCoordinator,

    /// <summary>kill -9 of all nodes at once.</summary>
    KillAll,

    /// <summary>SIGTERM: the worker drains and leaves with code 0.</summary>
    TermWorker,

    /// <summary>SIGTERM of a coordinator: it hands its entities over.</summary>
    TermCoordinator,

    /// <summary>A worker is drained, and taken back.</summary>
    DrainWorker,

    /// <summary>SIGSTOP for a moment.</summary>
    Pause,

    /// <summary>SIGSTOP of a worker until it is removed; woken, it must end with code 4.</summary>
    FreezeWorker,

    /// <summary>The same of a coordinator.</summary>
    FreezeCoordinator,

    /// <summary>PostgreSQL is stopped in order and started again.</summary>
    DatabaseRestart,

    /// <summary>PostgreSQL crashes and is started again.</summary>
    DatabaseCrash,

    /// <summary>The disk of the store has no byte left.</summary>
    DiskFull,

    /// <summary>The disk of the store has less left than a store needs to open an image.</summary>
    DiskLow,

    /// <summary>A worker is cut off until it is removed.</summary>
    CutWorker,

    /// <summary>A coordinator is cut off until it is removed.</summary>
    CutCoordinator,

    /// <summary>The network is split in halves for longer than removal takes.</summary>
    Split,

    /// <summary>The network is split for less time than removal takes.</summary>
    ShortCut,

    /// <summary>The job is paused, and resumed.</summary>
    JobPause,

    /// <summary>The job is cancelled, and retried.</summary>
    JobCancel,

    /// <summary>What one node sends to another is lost for longer than removal takes; both reach all others.</summary>
    OneWayCut,

    /// <summary>Nodes are told to end one after the other, each when the one before is back; all others stay.</summary>
    RollingRestart,
}

/// <summary>One thing that happens in a round.</summary>
/// <param name="Kind">What.</param>
/// <param name="Nodes">To whom.</param>
/// <param name="After">Seconds after the submission.</param>
/// <param name="Lasts">Seconds that it lasts, where that is a matter of choice.</param>
public sealed record Disturbance(DisturbanceKind Kind, IReadOnlyList<string> Nodes, double After, double Lasts)
{
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Kind}({string.Join(' ', Nodes)}) after {After:0.0} s for {Lasts:0.0} s");
}

/// <summary>Deals disturbances: each kind as often as any other, in an order and at moments that follow from the seed.</summary>
public sealed class Dealer(RigShape shape, Random random)
{
    private readonly Queue<DisturbanceKind> _deck = new();

    /// <summary>The disturbances of the next round: one to three.</summary>
    public IReadOnlyList<Disturbance> Next()
    {
        int count = random.NextDouble() switch { < 0.4 => 1, < 0.8 => 2, _ => 3 };
        return [.. Enumerable.Range(0, count).Select(_ => Deal(Draw()))];
    }

    /// <summary>A disturbance of this kind.</summary>
    public Disturbance Deal(DisturbanceKind kind)
    {
        string worker = $"w{random.Next(shape.Workers)}", coordinator = $"c{random.Next(shape.Coordinators)}";
        IReadOnlyList<string> nodes = kind switch
        {
            DisturbanceKind.KillWorker or DisturbanceKind.TermWorker or DisturbanceKind.DrainWorker or DisturbanceKind.FreezeWorker or DisturbanceKind.CutWorker => [worker],
            DisturbanceKind.KillCoordinator or DisturbanceKind.TermCoordinator or DisturbanceKind.FreezeCoordinator or DisturbanceKind.CutCoordinator => [coordinator],
            DisturbanceKind.Pause or DisturbanceKind.ShortCut => [random.Next(2) == 0 ? worker : coordinator],
            DisturbanceKind.Split => [worker, coordinator],
            // Without its only coordinator there is no cluster to stay in.
            DisturbanceKind.RollingRestart => [.. Shuffled([.. Names("w", shape.Workers), .. shape.Coordinators > 1 ? Names("c", shape.Coordinators) : []])],
            DisturbanceKind.OneWayCut => random.Next(2) == 0 ? [coordinator, Other()] : [Other(), coordinator],
            _ => [],
        };
        double lasts = kind switch
        {
            DisturbanceKind.Pause or DisturbanceKind.ShortCut => 1 + (2 * random.NextDouble()),
            DisturbanceKind.Split or DisturbanceKind.CutCoordinator or DisturbanceKind.CutWorker or DisturbanceKind.OneWayCut => 11 + (random.Next(3) == 0 ? 20 : 4 * random.NextDouble()),
            DisturbanceKind.DatabaseRestart or DisturbanceKind.DatabaseCrash => random.Next(2) == 0 ? random.NextDouble() : 6 * random.NextDouble(),
            DisturbanceKind.DiskFull or DisturbanceKind.DiskLow => 2 + (8 * random.NextDouble()),
            DisturbanceKind.KillCoordinator or DisturbanceKind.KillWorker => random.Next(3) == 0 ? 8 * random.NextDouble() : 0,
            _ => 3 * random.NextDouble(),
        };
        return new Disturbance(kind, nodes, 5 * random.NextDouble(), lasts);

        string Other()
        {
            string[] others = [worker, .. Names("c", shape.Coordinators).Where(name => name != coordinator)];
            return others[random.Next(others.Length)];
        }

        string[] Shuffled(string[] names)
        {
            random.Shuffle(names);
            return names;
        }
    }

    private DisturbanceKind Draw()
    {
        if (_deck.Count == 0)
        {
            DisturbanceKind[] kinds = [.. Enum.GetValues<DisturbanceKind>().Where(IsPossible)];
            random.Shuffle(kinds);
            foreach (DisturbanceKind kind in kinds)
                _deck.Enqueue(kind);
        }
        return _deck.Dequeue();
    }

    private bool IsPossible(DisturbanceKind kind) => kind switch
    {
        DisturbanceKind.DatabaseRestart or DisturbanceKind.DatabaseCrash => shape.Postgres,
        DisturbanceKind.DiskFull or DisturbanceKind.DiskLow => shape.Disk,
        DisturbanceKind.CutWorker or DisturbanceKind.ShortCut => shape.Network,
        DisturbanceKind.CutCoordinator or DisturbanceKind.Split or DisturbanceKind.OneWayCut => shape.Network,
        _ => true,
    };

    private static IEnumerable<string> Names(string letter, int count) => Enumerable.Range(0, count).Select(i => string.Create(CultureInfo.InvariantCulture, $"{letter}{i}"));
}

/// <summary>Makes disturbances happen to a rig, and undoes them.</summary>
public static class Disturber
{
    private static readonly SemaphoreSlim Database = new(1), Disk = new(1), Network = new(1), Operator = new(1);

    /// <summary>Waits for its moment, does it, and ends when it is undone.</summary>
    /// <param name="rig">The rig.</param>
    /// <param name="job">The job that runs.</param>
    /// <param name="what">What to do.</param>
    /// <param name="alone">Nothing else happens in this round: nodes end with exactly the code that is promised.</param>
    public static async Task RunAsync(Rig rig, string job, Disturbance what, bool alone)
    {
        await Task.Delay(TimeSpan.FromSeconds(what.After));
        RigNode[] nodes = [.. what.Nodes.Select(name => rig[name])];
        TimeSpan lasts = TimeSpan.FromSeconds(what.Lasts);
        switch (what.Kind)
        {
            case DisturbanceKind.KillWorker or DisturbanceKind.KillCoordinator:
                await KillAsync(rig, nodes, lasts);
                break;
            case DisturbanceKind.KillAll:
                await KillAsync(rig, [.. rig.Nodes], lasts);
                break;
            case DisturbanceKind.TermWorker or DisturbanceKind.TermCoordinator:
                await TermAsync(rig, nodes[0], alone);
                break;
            case DisturbanceKind.RollingRestart:
                await RollAsync(rig, nodes, alone);
                break;
            case DisturbanceKind.DrainWorker:
                rig.Say("drain " + what.Nodes[0]);
                await rig.SendAsync(HttpMethod.Post, $"/v1/nodes/{what.Nodes[0]}/drain");
                await Task.Delay(lasts);
                rig.Say("undo the drain of " + what.Nodes[0]);
                await rig.SendAsync(HttpMethod.Delete, $"/v1/nodes/{what.Nodes[0]}/drain");
                break;
            case DisturbanceKind.JobPause or DisturbanceKind.JobCancel:
                // Two of them at once would be two operators who do not agree.
                await Exclusively(Operator, async () =>
                {
                    (string order, string back) = what.Kind == DisturbanceKind.JobPause ? ("pause", "resume") : ("cancel", "retry");
                    rig.Say(order + " the job");
                    await rig.SendAsync(HttpMethod.Post, $"/v1/jobs/{job}/{order}", mayConflict: true);
                    await Task.Delay(lasts);
                    rig.Say(back + " the job");
                    await rig.SendAsync(HttpMethod.Post, $"/v1/jobs/{job}/{back}", mayConflict: true);
                });
                break;
            case DisturbanceKind.Pause:
                rig.Say("stop " + nodes[0].Name);
                nodes[0].Signal(Machine.Stop);
                await Task.Delay(lasts);
                rig.Say("continue " + nodes[0].Name);
                nodes[0].Signal(Machine.Continue);
                break;
            case DisturbanceKind.FreezeWorker or DisturbanceKind.FreezeCoordinator:
                await FreezeAsync(rig, nodes[0], alone);
                break;
            case DisturbanceKind.DatabaseRestart or DisturbanceKind.DatabaseCrash:
                await Exclusively(Database, async () =>
                {
                    string mode = what.Kind == DisturbanceKind.DatabaseCrash ? "immediate" : "fast";
                    rig.Say($"stop PostgreSQL ({mode})");
                    rig.Postgres!.Stop(mode);
                    await Task.Delay(lasts);
                    rig.Postgres.Resume();
                    rig.Say("PostgreSQL is there again");
                });
                break;
            case DisturbanceKind.DiskFull or DisturbanceKind.DiskLow:
                await Exclusively(Disk, async () =>
                {
                    rig.Say(what.Kind == DisturbanceKind.DiskFull ? "fill the disk" : "leave 1 GB of the disk");
                    rig.Disk!.Fill(what.Kind == DisturbanceKind.DiskFull ? 0 : 1000);
                    await Task.Delay(lasts);
                    rig.Disk.Free();
                    rig.Say("free the disk");
                });
                break;
            default:
                await Exclusively(Network, async () =>
                {
                    bool oneWay = what.Kind == DisturbanceKind.OneWayCut;
                    rig.Say(oneWay ? $"lose what {what.Nodes[0]} sends to {what.Nodes[1]}" : "cut off " + string.Join(' ', what.Nodes));
                    if (oneWay)
                        rig.Network!.CutOneWay(what.Nodes[0], what.Nodes[1]);
                    else
                        rig.Network!.Cut(what.Nodes);
                    await Task.Delay(lasts);
                    rig.Network.Heal();
                    rig.Say("the network is whole");
                });
                break;
        }
    }

    private static async Task KillAsync(Rig rig, RigNode[] nodes, TimeSpan down)
    {
        foreach (RigNode node in nodes)
            node.Hold();
        foreach (RigNode node in nodes)
            node.Signal(Machine.Kill);
        rig.Say("kill " + string.Join(' ', nodes.Select(node => node.Name)));
        await Task.Delay(down);
        foreach (RigNode node in nodes)
            node.Release();
    }

    private static async Task TermAsync(Rig rig, RigNode node, bool alone)
    {
        if (node.ProcessId is not { } process)
            return;
        rig.Say("terminate " + node.Name);
        node.Signal(Machine.Terminate);
        // 4: on a machine that stalls for seconds it may have been removed at that moment.
        await EndsAsync(rig, node, process, alone ? [0, 4] : [0, 1, 4, 143]);
    }

    private static async Task RollAsync(Rig rig, RigNode[] nodes, bool alone)
    {
        var before = rig.Nodes.ToDictionary(node => node, node => node.Exits.Count);
        foreach (RigNode node in nodes)
        {
            await TermAsync(rig, node, alone);
            await rig.ReadyAsync();
        }
        if (!alone)
            return;
        // Who takes others for lost says so after a while.
        await Task.Delay(rig.RemovalTime);
        await rig.ReadyAsync();
        foreach ((RigNode node, int exits) in before)
        {
            NodeExit[] ended = [.. node.Exits.Skip(exits)];
            // On a machine that stalls for seconds nodes that are impatient may remove any other.
            if (rig.Shape.IsPatient && (ended.Length != nodes.Count(one => one == node) || ended.Any(exit => exit.Code != 0)))
                throw new FaultException($"{node.Name} ended {(ended.Length == 0 ? "not at all" : "with " + string.Join(" and ", ended.Select(exit => exit.Code)))} while one node after the other was told to end.");
        }
    }

    private static async Task FreezeAsync(Rig rig, RigNode node, bool alone)
    {
        if (node.ProcessId is not { } process)
            return;
        // A coordinator that is alone is waited for by nobody: the others end, and it goes on. Who has not joined cannot be removed.
        bool removable = (!node.IsCoordinator || rig.Shape.Coordinators > 1) && await HasJoinedAsync(rig, node);
        bool removed = false;
        rig.Say("freeze " + node.Name);
        Machine.Signal(process, Machine.Stop);
        if (removable && alone)
        {
            await rig.UntilAsync(IsRemovedAsync, $"{node.Name} removed while it is frozen");
            removed = true;
        }
        // What else happens may leave nobody who could remove it, or wake it.
        for (int i = 0; i < (removable ? 80 : 24) && !removed; i++)
        {
            await Task.Delay(500);
            removed = removable && await IsRemovedAsync();
        }
        rig.Say($"wake {node.Name}{(removed ? "" : ", which was not removed")}");
        Machine.Signal(process, Machine.Continue);
        if (removed)
            await EndsAsync(rig, node, process, alone ? [4] : [0, 1, 4, 143]);

        async Task<bool> IsRemovedAsync()
        {
            foreach (RigNode other in rig.Coordinators.Where(other => other != node))
            {
                if (!await rig.IsMemberAsync(node, other))
                    return true;
            }
            return node.ProcessId != process;
        }
    }

    private static async Task<bool> HasJoinedAsync(Rig rig, RigNode node)
    {
        foreach (RigNode other in rig.Coordinators.Where(other => other != node))
        {
            if ((await rig.MembersAsync(other)).Any(member => member.Address.EndsWith("@" + rig.AddressOf(node), StringComparison.Ordinal) && member.State == "up"))
                return true;
        }
        return false;
    }

    private static async Task EndsAsync(Rig rig, RigNode node, int process, int[] codes)
    {
        await rig.UntilAsync(() => Task.FromResult(node.Exits.Any(exit => exit.Process == process)), $"the end of {node.Name}", TimeSpan.FromMinutes(2));
        NodeExit exit = node.Exits.First(exit => exit.Process == process);
        if (!exit.Killed && !codes.Contains(exit.Code))
            throw new FaultException($"{node.Name} ended with code {exit.Code}, not {string.Join(" or ", codes)}.");
    }

    private static async Task Exclusively(SemaphoreSlim one, Func<Task> action)
    {
        await one.WaitAsync();
        try
        {
            await action();
        }
        finally
        {
            one.Release();
        }
    }
}

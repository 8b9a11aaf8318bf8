using System.Globalization;
using BbmrCluster.Faults.Harness;

namespace BbmrCluster.Faults;

/// <summary>One rig for all tests of a class; its log goes into the message of whatever fails.</summary>
public abstract class RigFixture(RigShape shape, string? missing, int seed) : IAsyncLifetime
{
    private readonly string _folder = Directory.CreateTempSubdirectory("bbmr-rig-").FullName;
    private readonly List<string> _log = [];
    private FaultRounds? _rounds;
    private Rig? _rig;

    public Rig Rig => _rig ?? throw new InvalidOperationException("There is no rig here.");

    public FaultRounds Rounds => _rounds!;

    public async Task InitializeAsync()
    {
        if (missing is not null)
            return;
        var pool = new JobPool(Directory.CreateDirectory(Path.Combine(_folder, "pool")).FullName);
        _rig = await Rig.StartAsync(shape.Possible(), Directory.CreateDirectory(Path.Combine(_folder, "rig")).FullName, pool.Models, line =>
        {
            lock (_log)
                _log.Add(line);
        });
        _rounds = new FaultRounds(_rig, pool, seed);
    }

    public async Task DisposeAsync()
    {
        if (_rig is not null)
            await _rig.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    /// <summary>Runs something; what fails is told with the seed, the log of disturbances and what the nodes said last.</summary>
    public async Task HoldsAsync(Func<Task> what)
    {
        try
        {
            await what();
        }
        catch (Exception error) when (error is not OutOfMemoryException)
        {
            string log, nodes = await Rounds.LogsAsync(40);
            lock (_log)
                log = string.Join('\n', _log);
            // The next test finds everything whole.
            Rig.Network?.Heal();
            Rig.Disk?.Free();
            throw new FaultException(string.Create(CultureInfo.InvariantCulture, $"{error.Message}\nseed {seed}\n{log}\n{nodes}"), error);
        }
    }
}

/// <summary>Three coordinators with PostgreSQL.</summary>
public sealed class ThreeCoordinators() : RigFixture(new RigShape(3, 2, Network: true, Disk: true, Postgres: true), PrivatePostgres.Programs is null ? PrivatePostgres.Missing : null, seed: 20260);

/// <summary>One coordinator with SQLite.</summary>
public sealed class OneCoordinator() : RigFixture(new RigShape(1, 2, Network: true, Disk: false, Postgres: false), null, seed: 20261);

/// <summary>A test with a rig of three coordinators, skipped where something of it cannot be had.</summary>
public sealed class ThreeFactAttribute : FactAttribute
{
    private bool _network, _disk;

    public ThreeFactAttribute() => Skip = PrivatePostgres.Programs is null ? PrivatePostgres.Missing : null;

    /// <summary>Needs a network that can be cut.</summary>
    public bool Network
    {
        get => _network;
        set => (_network, Skip) = (value, Skip ?? (value ? TestNetwork.WhyNot : null));
    }

    /// <summary>Needs a disk that can be filled.</summary>
    public bool Disk
    {
        get => _disk;
        set => (_disk, Skip) = (value, Skip ?? (value ? TestDisk.WhyNot : null));
    }
}

/// <summary>A test that cuts the network, skipped where none can be made.</summary>
public sealed class NetworkFactAttribute : FactAttribute
{
    public NetworkFactAttribute() => Skip = TestNetwork.WhyNot;
}

/// <summary>Three coordinators, two workers, PostgreSQL, a network, a disk; and what can happen to them.</summary>
public sealed class ThreeCoordinatorTests(ThreeCoordinators three) : IClassFixture<ThreeCoordinators>
{
    private Rig Rig => three.Rig;

    [ThreeFact]
    public Task Random_disturbances_change_nothing() => three.HoldsAsync(async () =>
    {
        for (int round = 0; round < 2; round++)
            await three.Rounds.RunAsync();
    });

    [ThreeFact]
    public Task A_coordinator_killed_and_then_all_in_the_middle_of_a_job_go_on_with_it_from_PostgreSQL() => three.HoldsAsync(() =>
        three.Rounds.RunAsync("a coordinator killed, then all", async job =>
        {
            await BegunAsync(job);
            await Disturber.RunAsync(Rig, job, new Disturbance(DisturbanceKind.KillCoordinator, ["c2"], 0, 2), alone: true);
            await Disturber.RunAsync(Rig, job, new Disturbance(DisturbanceKind.KillCoordinator, ["c0", "c1", "c2"], 0, 0), alone: true);
        }, images: 6));

    [ThreeFact]
    public Task A_job_goes_on_when_PostgreSQL_was_down_in_the_middle_of_it() => three.HoldsAsync(() =>
        three.Rounds.RunAsync("PostgreSQL down", async job =>
        {
            await BegunAsync(job);
            await Disturber.RunAsync(Rig, job, new Disturbance(DisturbanceKind.DatabaseCrash, [], 0, 4), alone: true);
        }, images: 6));

    [ThreeFact]
    public Task A_coordinator_that_was_frozen_and_removed_ends_with_code_4_when_it_wakes() => three.HoldsAsync(() =>
        three.Rounds.RunAsync([new Disturbance(DisturbanceKind.FreezeCoordinator, ["c1"], 0.5, 0)]));

    [ThreeFact(Disk = true)]
    public Task A_job_on_a_full_disk_waits_says_why_and_goes_on_when_there_is_room() => three.HoldsAsync(async () =>
    {
        Rig.Disk!.Fill(0);
        await three.Rounds.RunAsync("full disk", async job =>
        {
            await Rig.UntilAsync(async () => (await Rig.AskAsync("/v1/jobs/" + job)).GetProperty("waiting").GetString()?.Contains("free on the disk", StringComparison.Ordinal) == true, "the job says that it waits for room");
            Rig.Disk.Free();
        }, images: 3);
    });

    [ThreeFact(Network = true)]
    public Task A_coordinator_that_is_cut_off_ends_with_code_4_and_begins_no_cluster_of_its_own() => three.HoldsAsync(() =>
        three.Rounds.RunAsync("first seed cut off", async _ =>
        {
            RigNode cut = Rig["c0"];
            int before = cut.Exits.Count;
            Rig.Network!.Cut(["c0", "w0"]);
            await Rig.UntilAsync(() => Task.FromResult(cut.Exits.Count > before), "the end of the smaller side");
            Assert.Equal(4, cut.Exits[^1].Code);
            // Its supervisor starts it while it still reaches nobody; as the first seed it would be free to begin anew.
            await Rig.UntilAsync(async () => (await Rig.MembersAsync(cut)).Any(member => member.Address.EndsWith("@" + Rig.AddressOf(cut), StringComparison.Ordinal)), "c0 a member of something");
            await Task.Delay(TimeSpan.FromSeconds(4));
            Assert.DoesNotContain("up", (await Rig.MembersAsync(cut)).Select(member => member.State));
            Rig.Network.Heal();
        }, images: 6));

    // Some work is done, and some is not.
    private Task BegunAsync(string job) => Rig.UntilAsync(async () => (await Rig.AskAsync("/v1/jobs/" + job)).GetProperty("progress").GetDouble() > 0, "work has begun");
}

/// <summary>One coordinator, two workers, a network.</summary>
public sealed class OneCoordinatorTests(OneCoordinator one) : IClassFixture<OneCoordinator>
{
    private Rig Rig => one.Rig;

    [NetworkFact]
    public Task Workers_that_are_cut_off_from_the_only_coordinator_end_with_code_4_and_come_back() => one.HoldsAsync(() =>
        one.Rounds.RunAsync("all workers cut off", async _ =>
        {
            int[] before = [.. Rig.Workers.Select(worker => worker.Exits.Count)];
            Rig.Network!.Cut(["w0", "w1"]);
            foreach ((RigNode worker, int exits) in Rig.Workers.Zip(before))
            {
                await Rig.UntilAsync(() => Task.FromResult(worker.Exits.Count > exits), $"the end of {worker.Name}");
                Assert.Equal(4, worker.Exits[exits].Code);
            }
            Assert.Empty(Rig["c0"].Exits);
            Rig.Network.Heal();
        }, images: 6));
}

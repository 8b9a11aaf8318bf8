using System.Collections.Immutable;
using Akka.Actor;
using Akka.Hosting;
using Akka.Persistence;
using BbmrCluster.Actors.Hosting;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Tests;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Npgsql;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>What Akka.Persistence asks of a journal, asked of our plugin for SQLite and of the one for PostgreSQL by the same messages.</summary>
public sealed class JournalContractTests
{
    [Fact]
    public Task SQLite_replays_what_was_written() => OnSqlite(ReplaysAsync);

    [PostgresFact]
    public Task PostgreSQL_replays_what_was_written() => OnPostgres(ReplaysAsync);

    [Fact]
    public Task SQLite_never_gives_a_deleted_number_twice() => OnSqlite(DeletesAsync);

    [PostgresFact]
    public Task PostgreSQL_never_gives_a_deleted_number_twice() => OnPostgres(DeletesAsync);

    [Fact]
    public Task SQLite_writes_several_events_or_none() => OnSqlite(IsAtomicAsync);

    [PostgresFact]
    public Task PostgreSQL_writes_several_events_or_none() => OnPostgres(IsAtomicAsync);

    [Fact]
    public Task SQLite_refuses_what_it_cannot_serialize_and_nothing_else() => OnSqlite(RefusesAsync);

    [PostgresFact]
    public Task PostgreSQL_refuses_what_it_cannot_serialize_and_nothing_else() => OnPostgres(RefusesAsync);

    [Fact]
    public Task SQLite_keeps_writers_apart() => OnSqlite(KeepsApartAsync);

    [PostgresFact]
    public Task PostgreSQL_keeps_writers_apart() => OnPostgres(KeepsApartAsync);

    [PostgresFact]
    public Task PostgreSQL_knows_the_images_that_have_entries_and_gives_up_their_numbers_after_an_hour() => OnPostgres(async (journal, connection) =>
    {
        await journal.WriteAsync("image-a", 1, 2);
        await journal.WriteAsync("image-b", 1);
        await journal.DeleteAsync("image-a", 2);
        Assert.Equal("b", Assert.Single(PostgresJournal.Images(connection)).Image.Value);
        Assert.Equal(("", 2), await journal.ReplayAsync("image-a", 1, long.MaxValue, long.MaxValue));
        await using (var source = NpgsqlDataSource.Create(connection))
        await using (var age = source.CreateCommand("UPDATE journal SET created = 0"))
            await age.ExecuteNonQueryAsync();
        Assert.Single(PostgresJournal.Images(connection));
        Assert.Equal(("", 0), await journal.ReplayAsync("image-a", 1, long.MaxValue, long.MaxValue));
    });

    private static async Task ReplaysAsync(Journal journal)
    {
        await journal.WriteAsync("a", 1, 2, 3, 4, 5);
        await journal.WriteAsync("b", 1);
        Assert.Equal(("1 2 3 4 5", 5), await journal.ReplayAsync("a", 1, long.MaxValue, long.MaxValue));
        Assert.Equal(("4 5", 5), await journal.ReplayAsync("a", 4, long.MaxValue, long.MaxValue));
        Assert.Equal(("1 2 3", 5), await journal.ReplayAsync("a", 1, 3, long.MaxValue));
        Assert.Equal(("2 3", 5), await journal.ReplayAsync("a", 2, long.MaxValue, 2));
        Assert.Equal(("3", 5), await journal.ReplayAsync("a", 3, 3, 10));
        Assert.Equal(("", 5), await journal.ReplayAsync("a", 3, 2, 10));
        Assert.Equal(("", 0), await journal.ReplayAsync("nobody", 1, long.MaxValue, long.MaxValue));
    }

    private static async Task DeletesAsync(Journal journal)
    {
        await journal.WriteAsync("a", 1, 2, 3);
        await journal.DeleteAsync("a", 2);
        Assert.Equal(("3", 3), await journal.ReplayAsync("a", 1, long.MaxValue, long.MaxValue));
        await journal.DeleteAsync("a", long.MaxValue);
        Assert.Equal(("", 3), await journal.ReplayAsync("a", 1, long.MaxValue, long.MaxValue));
        await journal.WriteAsync("a", 4);
        Assert.Equal(("4", 4), await journal.ReplayAsync("a", 1, long.MaxValue, long.MaxValue));
    }

    private static async Task IsAtomicAsync(Journal journal)
    {
        await journal.WriteAsync("a", 1);
        Assert.IsType<WriteMessagesFailed>((await journal.SendAsync([journal.Together("b", 1), journal.Together("a", 2, 1)]))[0]);
        Assert.Equal(("1", 1), await journal.ReplayAsync("a", 1, long.MaxValue, long.MaxValue));
        Assert.All(await journal.SendAsync([journal.Together("a", 2, 3)]), answer => Assert.True(answer is WriteMessagesSuccessful or WriteMessageSuccess));
        Assert.Equal(("1 2 3", 3), await journal.ReplayAsync("a", 1, long.MaxValue, long.MaxValue));
    }

    private static async Task RefusesAsync(Journal journal)
    {
        var answers = await journal.SendAsync([journal.Together("a", 1), journal.Of("b", 1, new Foreign()), journal.Together("c", 1)]);
        Assert.Equal([typeof(WriteMessagesSuccessful), typeof(WriteMessageSuccess), typeof(WriteMessageRejected), typeof(WriteMessageSuccess)], answers.Select(answer => answer.GetType()));
        Assert.Equal(("1", 1), await journal.ReplayAsync("c", 1, long.MaxValue, long.MaxValue));
        Assert.Equal(("", 0), await journal.ReplayAsync("b", 1, long.MaxValue, long.MaxValue));
    }

    private static async Task KeepsApartAsync(Journal journal)
    {
        await Task.WhenAll(Enumerable.Range(0, 20).Select(async writer =>
        {
            for (int number = 1; number <= 5; number++)
                await journal.WriteAsync($"w{writer}", number);
            if (writer % 2 == 0)
                await journal.DeleteAsync($"w{writer}", 4);
        }));
        for (int writer = 0; writer < 20; writer++)
            Assert.Equal((writer % 2 == 0 ? "5" : "1 2 3 4 5", 5), await journal.ReplayAsync($"w{writer}", 1, long.MaxValue, long.MaxValue));
    }

    private static async Task OnSqlite(Func<Journal, Task> test)
    {
        using var folder = new JournalFolder();
        await RunAsync(builder => builder.WithSqliteJournal(folder.Journal), test);
    }

    private static Task OnPostgres(Func<Journal, Task> test) => OnPostgres((journal, _) => test(journal));

    private static async Task OnPostgres(Func<Journal, string, Task> test)
    {
        string name = "bbmr_contract_" + Guid.NewGuid().ToString("n")[..8], connection = new NpgsqlConnectionStringBuilder(Postgres.Server) { Database = name }.ToString();
        await using var server = NpgsqlDataSource.Create(Postgres.Server!);
        await using (var create = server.CreateCommand($"CREATE DATABASE {name}"))
            await create.ExecuteNonQueryAsync();
        await PostgresJournal.CreateSchemaAsync(connection, create: true, CancellationToken.None);
        await RunAsync(builder => builder.WithPostgresJournal(connection), journal => test(journal, connection));
        NpgsqlConnection.ClearAllPools();
        await using var drop = server.CreateCommand($"DROP DATABASE {name} WITH (FORCE)");
        await drop.ExecuteNonQueryAsync();
    }

    private static async Task RunAsync(Action<AkkaConfigurationBuilder> configure, Func<Journal, Task> test)
    {
        Environment.SetEnvironmentVariable("DOTNET_HOSTBUILDER__RELOADCONFIGONCHANGE", "false");
        using var host = new HostBuilder().ConfigureServices(services => services.AddAkka(BbmrHosting.SystemName, (builder, _) => configure(builder.WithBbmrDefaults()))).Build();
        await host.StartAsync();
        await test(new Journal(host.Services.GetRequiredService<ActorSystem>()));
        await host.StopAsync();
    }

    /// <summary>No serializer takes it.</summary>
    private sealed record Foreign;

    private sealed class Journal(ActorSystem system)
    {
        private readonly IActorRef _journal = Persistence.Instance.Apply(system).JournalFor("");

        public async Task WriteAsync(string id, params int[] numbers) =>
            Assert.IsType<WriteMessagesSuccessful>((await SendAsync([.. numbers.Select(number => Together(id, number))]))[0]);

        /// <summary>Events that are written together, each naming its number.</summary>
        public AtomicWrite Together(string id, params int[] numbers) =>
            new(numbers.Select(number => One(id, number, new BrokerCommands.DrainWorker(new WorkerId($"{number}")))).ToImmutableList<IPersistentRepresentation>());

        public AtomicWrite Of(string id, int number, object payload) => new(ImmutableList.Create<IPersistentRepresentation>(One(id, number, payload)));

        /// <summary>All answers: one for the whole and, unless that failed, one for each event.</summary>
        public async Task<IReadOnlyList<object>> SendAsync(IReadOnlyList<AtomicWrite> writes)
        {
            using var answers = new Inboxed(system);
            _journal.Tell(new WriteMessages(writes, answers.Ref, 1), answers.Ref);
            var all = new List<object> { await answers.NextAsync() };
            for (int i = writes.Sum(write => write.Size); i > 0; i--)
                all.Add(await answers.NextAsync());
            return all;
        }

        public async Task<(string Numbers, long Highest)> ReplayAsync(string id, long from, long to, long max)
        {
            using var answers = new Inboxed(system);
            _journal.Tell(new ReplayMessages(from, to, max, id, answers.Ref), answers.Ref);
            var numbers = new List<string>();
            while (true)
            {
                switch (await answers.NextAsync())
                {
                    case ReplayedMessage replayed:
                        string number = Assert.IsType<BrokerCommands.DrainWorker>(replayed.Persistent.Payload).Worker.Value;
                        Assert.Equal((id, number), (replayed.Persistent.PersistenceId, $"{replayed.Persistent.SequenceNr}"));
                        numbers.Add(number);
                        break;
                    case RecoverySuccess success:
                        return (string.Join(' ', numbers), success.HighestSequenceNr);
                    case var other:
                        throw new InvalidOperationException($"{other}");
                }
            }
        }

        public async Task DeleteAsync(string id, long to)
        {
            using var answers = new Inboxed(system);
            _journal.Tell(new DeleteMessagesTo(id, to, answers.Ref), answers.Ref);
            Assert.IsType<DeleteMessagesSuccess>(await answers.NextAsync());
        }

        private static Persistent One(string id, int number, object payload) => new(payload, number, id, writerGuid: "w");
    }

    private sealed class Inboxed(ActorSystem system) : IDisposable
    {
        private readonly Inbox _inbox = Inbox.Create(system);

        public IActorRef Ref => _inbox.Receiver;

        public Task<object> NextAsync() => _inbox.ReceiveAsync(TimeSpan.FromSeconds(60));

        public void Dispose() => _inbox.Dispose();
    }
}

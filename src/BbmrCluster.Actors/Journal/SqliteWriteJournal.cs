using System.Collections.Immutable;
using System.Diagnostics.CodeAnalysis;
using Akka.Actor;
using Akka.Configuration;
using Akka.Persistence;
using Akka.Persistence.Journal;
using Akka.Serialization;

namespace BbmrCluster.Actors.Journal;

/// <summary>
/// The journal of Akka.Persistence in one SQLite file. What all actors of the process write while a transaction is under way
/// goes into the next one together, so that the cost of a transaction (the disk has to say that it is written) is shared by as
/// many as are waiting. Reads take no lock.
/// </summary>
/// <remarks>
/// The plugin of Akka.Persistence.Sql is not used with SQLite: calls to SQLite block, and so its stream never gathers a
/// second entry for a transaction; its reads wait for writers, and a busy file makes it sleep for 150 ms. The tables are its.
/// </remarks>
[SuppressMessage("Design", "CA1001", Justification = "The file is closed when the actor stops.")]
[SuppressMessage("Performance", "CA1812", Justification = "Made by Akka from hocon/persistence.sqlite.hocon.")]
internal sealed class SqliteWriteJournal : AsyncWriteJournal
{
    private readonly SqliteJournalFile _file;

    public SqliteWriteJournal(Config config) => _file = new SqliteJournalFile(config.GetString("connection-string"));

    public override async Task ReplayMessagesAsync(IActorContext context, string persistenceId, long fromSequenceNr, long toSequenceNr, long max, Action<IPersistentRepresentation> recoveryCallback)
    {
        var serialization = context.System.Serialization;
        await _file.SettledAsync(persistenceId);
        foreach (var entry in _file.Read(persistenceId, fromSequenceNr, toSequenceNr, max))
        {
            recoveryCallback(new Persistent(serialization.Deserialize(entry.Message, entry.Serializer, entry.Manifest), entry.SequenceNr, persistenceId, entry.Manifest,
                isDeleted: false, ActorRefs.NoSender, entry.Writer, entry.Created));
        }
    }

    public override async Task<long> ReadHighestSequenceNrAsync(string persistenceId, long fromSequenceNr, CancellationToken cancellationToken)
    {
        // Of an actor that stopped while it wrote.
        await _file.SettledAsync(persistenceId);
        return _file.HighestSequenceNr(persistenceId);
    }

    protected override async Task<IImmutableList<Exception>> WriteMessagesAsync(IEnumerable<AtomicWrite> messages, CancellationToken cancellationToken)
    {
        var writes = new List<Task>();
        var refusals = ImmutableList.CreateBuilder<Exception>();
        foreach (var message in messages)
        {
            try
            {
                writes.Add(_file.WriteAsync([.. ((IImmutableList<IPersistentRepresentation>)message.Payload).Select(Entry)]));
                refusals.Add(null!);
            }
            catch (Exception error) when (error is not OutOfMemoryException)
            {
                refusals.Add(error);
            }
        }
        await Task.WhenAll(writes);
        return refusals.ToImmutable();
    }

    protected override Task DeleteMessagesToAsync(string persistenceId, long toSequenceNr, CancellationToken cancellationToken) => _file.DeleteAsync(persistenceId, toSequenceNr);

    protected override void PostStop()
    {
        _file.Dispose();
        base.PostStop();
    }

    private static JournalEntry Entry(IPersistentRepresentation one)
    {
        var system = Context.System;
        var serializer = system.Serialization.FindSerializerFor(one.Payload);
        // References to actors are written with this system's address.
        byte[] bytes = Serialization.WithTransport((ExtendedActorSystem)system, () => serializer.ToBinary(one.Payload));
        return new JournalEntry(one.PersistenceId, one.SequenceNr, serializer.Identifier, Serialization.ManifestFor(serializer, one.Payload), bytes, one.WriterGuid, one.Timestamp);
    }
}

/// <summary>A row of the journal.</summary>
/// <param name="PersistenceId">Whose.</param>
/// <param name="SequenceNr">From 1.</param>
/// <param name="Serializer">Identifier of the serializer.</param>
/// <param name="Manifest">For the serializer.</param>
/// <param name="Message">The event.</param>
/// <param name="Writer">Incarnation of the actor.</param>
/// <param name="Created">Ticks; 0 before it is written.</param>
internal sealed record JournalEntry(string PersistenceId, long SequenceNr, int Serializer, string Manifest, byte[] Message, string Writer, long Created);

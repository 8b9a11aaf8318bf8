using Microsoft.Data.Sqlite;

namespace BbmrCluster.Actors.Journal;

/// <summary>
/// The file of a <see cref="SqliteWriteJournal"/>: one thread that writes, in transactions over all that waits, and one
/// connection that reads. Thread-safe.
/// </summary>
/// <remarks>
/// A deletion has no hurry and goes with the next write, or half a second later. The highest row of what is deleted stays,
/// emptied, so that numbers are not given twice: of images as long as anyone may remember them (an hour).
/// </remarks>
internal sealed class SqliteJournalFile : IDisposable
{
    // Bounds the time that a transaction takes.
    private const int MostAtOnce = 1000;

    private const string Tables = """
        CREATE TABLE IF NOT EXISTS journal (
            ordering INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, created INTEGER NOT NULL, deleted BIT NOT NULL, persistence_id NVARCHAR(255) NOT NULL,
            sequence_number INTEGER NOT NULL, message VARBINARY NOT NULL, manifest NVARCHAR(500) NULL, identifier INTEGER NULL, writer_uuid NVARCHAR(128) NULL);
        CREATE UNIQUE INDEX IF NOT EXISTS journal_uq ON journal (persistence_id, sequence_number);
        CREATE INDEX IF NOT EXISTS journal_deleted_idx ON journal (created) WHERE deleted = 1;
        DROP INDEX IF EXISTS journal_created_idx;
        DROP INDEX IF EXISTS journal_sequence_number_idx;
        """;

    private static readonly TimeSpan DeleteWithin = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan KeepNumbers = TimeSpan.FromHours(1);

    private readonly SqliteConnection _writing, _reading;
    private readonly SqliteCommand _insert, _empty, _delete, _purge, _highest, _read;
    private readonly Thread _thread;
    private readonly object _gate = new();
    private List<Change> _queue = [], _current = [];
    private bool _written, _ended;
    private DateTime _purgeAt = DateTime.MinValue, _deleteAt = DateTime.MaxValue;

    /// <exception cref="SqliteException">The file cannot be used.</exception>
    public SqliteJournalFile(string connectionString)
    {
        string own = new SqliteConnectionStringBuilder(connectionString) { Pooling = false }.ToString();
        (_writing, _reading) = (new SqliteConnection(own), new SqliteConnection(own));
        _writing.Open();
        // A commit that was answered outlives the machine.
        Execute(_writing, "PRAGMA synchronous = FULL");
        Execute(_writing, Tables);
        _reading.Open();
        _insert = Command(_writing, "INSERT INTO journal (created, deleted, persistence_id, sequence_number, message, manifest, identifier, writer_uuid) VALUES ($created, 0, $id, $number, $message, $manifest, $serializer, $writer)",
            "$created", "$id", "$number", "$message", "$manifest", "$serializer", "$writer");
        _empty = Command(_writing, "UPDATE journal SET deleted = 1, message = x'', created = $created WHERE persistence_id = $id AND sequence_number = (SELECT max(sequence_number) FROM journal WHERE persistence_id = $id AND sequence_number <= $number)",
            "$created", "$id", "$number");
        _delete = Command(_writing, "DELETE FROM journal WHERE persistence_id = $id AND sequence_number < (SELECT max(sequence_number) FROM journal WHERE persistence_id = $id AND sequence_number <= $number)",
            "$id", "$number");
        _purge = Command(_writing, "DELETE FROM journal WHERE deleted = 1 AND created < $created AND persistence_id LIKE 'image-%'", "$created");
        _highest = Command(_reading, "SELECT coalesce(max(sequence_number), 0) FROM journal WHERE persistence_id = $id", "$id");
        _read = Command(_reading, "SELECT sequence_number, identifier, manifest, message, writer_uuid, created FROM journal WHERE persistence_id = $id AND sequence_number >= $from AND sequence_number <= $to AND deleted = 0 ORDER BY sequence_number LIMIT $max",
            "$id", "$from", "$to", "$max");
        _thread = new Thread(Run) { IsBackground = true, Name = "journal" };
        _thread.Start();
    }

    /// <summary>Completes when the entries are on the disk, all of them or none.</summary>
    public Task WriteAsync(IReadOnlyList<JournalEntry> entries) => Enqueue(new Change(entries[0].PersistenceId, entries, 0));

    /// <summary>Completes when the entries up to a number are gone.</summary>
    public Task DeleteAsync(string persistenceId, long toSequenceNr) => Enqueue(new Change(persistenceId, [], toSequenceNr));

    /// <summary>Completes when nothing that was to be written of an entity waits any more, whether it was written or failed.</summary>
    public Task SettledAsync(string persistenceId)
    {
        lock (_gate)
        {
            var last = _queue.FindLast(change => change.PersistenceId == persistenceId) ?? _current.FindLast(change => change.PersistenceId == persistenceId);
            return last is null ? Task.CompletedTask : last.Done.Task.ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        }
    }

    /// <summary>0 when there is none.</summary>
    public long HighestSequenceNr(string persistenceId)
    {
        lock (_reading)
        {
            _highest.Parameters[0].Value = persistenceId;
            return (long)_highest.ExecuteScalar()!;
        }
    }

    /// <summary>Entries of an entity in order.</summary>
    public IReadOnlyList<JournalEntry> Read(string persistenceId, long from, long to, long max)
    {
        var entries = new List<JournalEntry>();
        lock (_reading)
        {
            Set(_read, persistenceId, from, to, max);
            using var row = _read.ExecuteReader();
            while (row.Read())
                entries.Add(new JournalEntry(persistenceId, row.GetInt64(0), row.GetInt32(1), row.IsDBNull(2) ? "" : row.GetString(2), (byte[])row[3], row.IsDBNull(4) ? "" : row.GetString(4), row.GetInt64(5)));
        }
        return entries;
    }

    /// <summary>Writes what waits and closes the file.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _ended = true;
            Monitor.Pulse(_gate);
        }
        _thread.Join();
        foreach (var command in new[] { _insert, _empty, _delete, _purge, _highest, _read })
            command.Dispose();
        _writing.Dispose();
        lock (_reading)
            _reading.Dispose();
    }

    private Task Enqueue(Change change)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_ended, this);
            _queue.Add(change);
            if (change.Entries.Count > 0)
                _written = true;
            else if (_deleteAt == DateTime.MaxValue)
                _deleteAt = DateTime.UtcNow + DeleteWithin;
            Monitor.Pulse(_gate);
        }
        return change.Done.Task;
    }

    private void Run()
    {
        while (Next())
        {
            try
            {
                Commit(_current);
            }
            catch (SqliteException) when (_current.Count > 1)
            {
                // One of them may be to blame.
                foreach (var change in _current)
                    Alone(change);
            }
            catch (SqliteException error)
            {
                _current[0].Done.TrySetException(error);
            }
            _current.ForEach(change => change.Done.TrySetResult());
        }
    }

    // Waits for something to do and takes it; false at the end.
    private bool Next()
    {
        lock (_gate)
        {
            _current = [];
            while (!_written && !_ended && DateTime.UtcNow is var now && now < _deleteAt)
            {
                if (_deleteAt == DateTime.MaxValue)
                    Monitor.Wait(_gate);
                else
                    Monitor.Wait(_gate, _deleteAt - now + TimeSpan.FromMilliseconds(1));
            }
            if (_queue.Count == 0)
                return false;
            int count = Math.Min(_queue.Count, MostAtOnce);
            (_current, _queue) = (_queue[..count], _queue[count..]);
            _written = _queue.Exists(change => change.Entries.Count > 0);
            _deleteAt = _queue.Count == 0 ? DateTime.MaxValue : DateTime.UtcNow + DeleteWithin;
            return true;
        }
    }

    private void Alone(Change change)
    {
        try
        {
            Commit([change]);
        }
        catch (SqliteException error)
        {
            change.Done.TrySetException(error);
        }
    }

    private void Commit(IReadOnlyList<Change> changes)
    {
        var now = DateTime.UtcNow;
        using var transaction = _writing.BeginTransaction();
        foreach (var change in changes)
        {
            foreach (var entry in change.Entries)
                Execute(_insert, transaction, now.Ticks, entry.PersistenceId, entry.SequenceNr, entry.Message, entry.Manifest, entry.Serializer, entry.Writer);
            if (change.Entries.Count > 0)
                continue;
            Execute(_delete, transaction, change.PersistenceId, change.DeleteTo);
            Execute(_empty, transaction, now.Ticks, change.PersistenceId, change.DeleteTo);
        }
        if (now >= _purgeAt)
        {
            Execute(_purge, transaction, (now - KeepNumbers).Ticks);
            _purgeAt = now + TimeSpan.FromMinutes(5);
        }
        transaction.Commit();
    }

    private static void Execute(SqliteCommand command, SqliteTransaction transaction, params ReadOnlySpan<object> values)
    {
        command.Transaction = transaction;
        Set(command, values);
        command.ExecuteNonQuery();
    }

    private static void Execute(SqliteConnection connection, string statement)
    {
        using var command = connection.CreateCommand();
        command.CommandText = statement;
        command.ExecuteNonQuery();
    }

    private static SqliteCommand Command(SqliteConnection connection, string statement, params ReadOnlySpan<string> parameters)
    {
        var command = connection.CreateCommand();
        command.CommandText = statement;
        foreach (string parameter in parameters)
            command.Parameters.Add(new SqliteParameter { ParameterName = parameter });
        return command;
    }

    private static void Set(SqliteCommand command, params ReadOnlySpan<object> values)
    {
        for (int i = 0; i < values.Length; i++)
            command.Parameters[i].Value = values[i];
    }

    // Entries to write, or a deletion.
    private sealed record Change(string PersistenceId, IReadOnlyList<JournalEntry> Entries, long DeleteTo)
    {
        public TaskCompletionSource Done { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}

using BbmrCluster.Actors.Journal;
using Microsoft.Data.Sqlite;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>The journal file: what shares a transaction, what is left of a deletion, and who fails with whom.</summary>
public sealed class SqliteJournalFileTests : IDisposable
{
    private readonly JournalFolder _folder = new();
    private readonly string _connection;

    public SqliteJournalFileTests() => _connection = SqliteJournal.Prepare(_folder.Journal);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task What_comes_in_while_the_file_is_busy_is_written_in_one_transaction()
    {
        using var file = new SqliteJournalFile(_connection);
        await file.WriteAsync([Entry("a", 1)]);
        List<Task> writes = [];
        using (var other = Busy())
        {
            writes.Add(file.WriteAsync([Entry("b", 1)]));
            writes.AddRange(Enumerable.Range(2, 50).Select(number => file.WriteAsync([Entry("a", number)])));
            Assert.DoesNotContain(writes, write => write.IsCompleted);
        }
        await Task.WhenAll(writes);
        // The first may have been taken before the others came.
        Assert.InRange(_folder.Count("SELECT count(DISTINCT created) FROM journal WHERE persistence_id = 'b' OR sequence_number > 1"), 1, 2);
        Assert.Equal(Enumerable.Range(1, 51).Select(number => (long)number), file.Read("a", 1, long.MaxValue, long.MaxValue).Select(entry => entry.SequenceNr));
    }

    [Fact]
    public async Task A_deletion_leaves_an_empty_row_that_keeps_the_number()
    {
        using (var file = new SqliteJournalFile(_connection))
        {
            await file.WriteAsync([Entry("image-a", 1), Entry("image-a", 2), Entry("image-a", 3), Entry("b", 1)]);
            await file.DeleteAsync("image-a", 3);
            Assert.Empty(file.Read("image-a", 1, long.MaxValue, long.MaxValue));
            Assert.Single(file.Read("b", 1, long.MaxValue, long.MaxValue));
        }
        Assert.Equal(1, _folder.Count("SELECT count(*) FROM journal WHERE persistence_id = 'image-a' AND length(message) = 0"));
        using (var file = new SqliteJournalFile(_connection))
        {
            Assert.Equal(3, file.HighestSequenceNr("image-a"));
            await file.WriteAsync([Entry("image-a", 4)]);
            await file.DeleteAsync("image-a", 3);
            Assert.Equal([4L], file.Read("image-a", 1, long.MaxValue, long.MaxValue).Select(entry => entry.SequenceNr));
        }
        // Nobody remembers it after an hour.
        _folder.Execute("UPDATE journal SET created = 0");
        using (var file = new SqliteJournalFile(_connection))
            await file.WriteAsync([Entry("b", 2)]);
        Assert.Equal(0, _folder.Count("SELECT count(*) FROM journal WHERE deleted = 1"));
    }

    [Fact]
    public async Task What_waits_is_written_when_the_file_is_closed()
    {
        Task write, delete;
        using (var file = new SqliteJournalFile(_connection))
        {
            await file.WriteAsync([Entry("a", 1)]);
            (write, delete) = (file.WriteAsync([Entry("b", 1)]), file.DeleteAsync("a", 1));
        }
        await Task.WhenAll(write, delete);
        Assert.Equal((1, 0), (_folder.Count("SELECT count(*) FROM journal WHERE persistence_id = 'b'"), _folder.Count("SELECT count(*) FROM journal WHERE persistence_id = 'a' AND deleted = 0")));
    }

    [Fact]
    public async Task An_entry_that_cannot_be_written_fails_alone()
    {
        using var file = new SqliteJournalFile(_connection);
        await file.WriteAsync([Entry("a", 1)]);
        Task before, twice, after;
        using (var other = Busy())
            (before, twice, after) = (file.WriteAsync([Entry("b", 1)]), file.WriteAsync([Entry("c", 1), Entry("a", 1)]), file.WriteAsync([Entry("d", 1)]));
        await Task.WhenAll(before, after);
        await Assert.ThrowsAsync<SqliteException>(() => twice);
        Assert.Equal(0, _folder.Count("SELECT count(*) FROM journal WHERE persistence_id = 'c'"));
    }

    [Fact]
    public async Task Images_that_have_entries_are_known_to_the_janitor()
    {
        using var file = new SqliteJournalFile(_connection);
        await file.WriteAsync([Entry("image-a", 1), Entry("image-b", 1), Entry("archive-c", 1), Entry("images", 1)]);
        await file.DeleteAsync("image-a", 1);
        var image = Assert.Single(SqliteJournal.Images(_folder.Journal));
        Assert.Equal("b", image.Image.Value);
        Assert.InRange(image.Written, DateTimeOffset.UtcNow.AddHours(-1), DateTimeOffset.UtcNow);
    }

    private static JournalEntry Entry(string id, long number) => new(id, number, 4107, "ie", [1, 2, 3], "w", 0);

    // Another writer holds the file.
    private Holder Busy() => new(_connection);

    private sealed class Holder : IDisposable
    {
        private readonly SqliteConnection _connection;
        private readonly SqliteTransaction _transaction;

        public Holder(string connection)
        {
            _connection = new SqliteConnection(connection);
            _connection.Open();
            _transaction = _connection.BeginTransaction();
        }

        public void Dispose()
        {
            _transaction.Dispose();
            _connection.Dispose();
        }
    }
}

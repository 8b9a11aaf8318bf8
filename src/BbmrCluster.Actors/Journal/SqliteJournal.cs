using BbmrCluster.Work;
using Microsoft.Data.Sqlite;

namespace BbmrCluster.Actors.Journal;

/// <summary>The journal file of an embedded node.</summary>
public static class SqliteJournal
{
    /// <summary>Makes the file if needed, looks whether it is sound, turns its write-ahead log on (a property of the file) and returns its connection string.</summary>
    /// <exception cref="WorkDirectoryException">The file is damaged or cannot be used.</exception>
    internal static string Prepare(string path)
    {
        string connection = Connection(path);
        try
        {
            using var opened = new SqliteConnection(connection);
            opened.Open();
            using var command = opened.CreateCommand();
            command.CommandText = "PRAGMA journal_mode = WAL";
            command.ExecuteNonQuery();
            command.CommandText = "PRAGMA quick_check(1)";
            if (command.ExecuteScalar() is not "ok")
                throw Damaged(path, null);
        }
        catch (SqliteException error)
        {
            throw IsDamage(error)
                ? Damaged(path, error)
                : new WorkDirectoryException($"the journal {path} cannot be used: {error.Message}", error);
        }
        return connection;
    }

    /// <summary>Images that have entries, with the time of the latest: at most 1,000, the oldest first. For the janitor: what a process that died did not delete.</summary>
    /// <param name="path">The file, which a node has open.</param>
    /// <exception cref="SqliteException">It cannot be read.</exception>
    public static IReadOnlyList<StoredImage> Images(string path)
    {
        using var opened = new SqliteConnection(Connection(path));
        opened.Open();
        using var command = opened.CreateCommand();
        command.CommandText = "SELECT persistence_id, max(created) FROM journal WHERE persistence_id >= 'image-' AND persistence_id < 'image.' AND deleted = 0 GROUP BY persistence_id ORDER BY 2 LIMIT 1000";
        using var row = command.ExecuteReader();
        var images = new List<StoredImage>();
        while (row.Read())
            images.Add(Image(row.GetString(0), row.GetInt64(1)));
        return images;
    }

    internal static StoredImage Image(string persistenceId, long ticks) =>
        new(new ImageId(persistenceId["image-".Length..]), new DateTimeOffset(ticks, TimeSpan.Zero));

    internal static bool IsDamage(SqliteException error)
    {
        const int corrupt = 11, notDatabase = 26;
        return error.SqliteErrorCode is corrupt or notDatabase;
    }

    /// <summary>What to say of a journal that cannot be read.</summary>
    /// <param name="path">The file.</param>
    /// <param name="inner">How it was noticed.</param>
    public static WorkDirectoryException Damaged(string path, Exception? inner) =>
        new($"the journal {path} is damaged; delete {Path.GetDirectoryName(Path.GetFullPath(path))} and run the same command again: finished images are kept, the unfinished one begins anew", inner);

    /// <summary>Closes the pooled connections to a journal after its node has stopped, so that the file can be deleted.</summary>
    /// <param name="path">As given to the node.</param>
    public static void Release(string path)
    {
        using var connection = new SqliteConnection(Connection(path));
        SqliteConnection.ClearPool(connection);
    }

    private static string Connection(string path) => new SqliteConnectionStringBuilder { DataSource = path, DefaultTimeout = 10 }.ToString();
}

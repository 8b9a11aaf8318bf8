using Microsoft.Data.Sqlite;

namespace BbmrCluster.Actors.Journal;

/// <summary>The journal file of an embedded node.</summary>
public static class SqliteJournal
{
    /// <summary>Makes the file if needed, turns its write-ahead log on (a property of the file) and returns its connection string.</summary>
    internal static string Prepare(string path)
    {
        string connection = Connection(path);
        using var opened = new SqliteConnection(connection);
        opened.Open();
        using var command = opened.CreateCommand();
        command.CommandText = "PRAGMA journal_mode = WAL";
        command.ExecuteNonQuery();
        return connection;
    }

    /// <summary>Closes the pooled connections to a journal after its node has stopped, so that the file can be deleted.</summary>
    /// <param name="path">As given to the node.</param>
    public static void Release(string path)
    {
        using var connection = new SqliteConnection(Connection(path));
        SqliteConnection.ClearPool(connection);
    }

    private static string Connection(string path) => new SqliteConnectionStringBuilder { DataSource = path, DefaultTimeout = 10 }.ToString();
}

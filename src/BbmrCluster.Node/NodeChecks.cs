using BbmrCluster.Work;
using Microsoft.Data.Sqlite;

namespace BbmrCluster.Node;

/// <summary>What a node needs of its disk, tried out.</summary>
public static class NodeChecks
{
    /// <summary>Bytes free for this user on the file system that holds a folder, which need not exist yet.</summary>
    public static long FreeBytes(string folder) => FileSystem.FreeBytes(folder);

    /// <summary>Name of the network file system that holds a folder; null when it is a local one.</summary>
    public static string? NetworkFileSystem(string folder) => FileSystem.Format(folder) is var format && FileSystem.IsNetwork(format) ? format : null;

    /// <summary>Opens a database in the folder, writes and reads a row, and removes it again.</summary>
    /// <returns>SQLite's version.</returns>
    /// <exception cref="SqliteException">The database cannot be used there.</exception>
    public static string TryDatabase(string folder)
    {
        string path = Path.Combine(Existing(folder), $".bbmr-doctor-{Environment.ProcessId}.db");
        try
        {
            using var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = path, Pooling = false }.ToString());
            connection.Open();
            using SqliteCommand command = connection.CreateCommand();
            command.CommandText = "PRAGMA journal_mode=WAL";
            command.ExecuteScalar();
            command.CommandText = "CREATE TABLE t (x); INSERT INTO t VALUES (sqlite_version()); SELECT x FROM t;";
            return (string)command.ExecuteScalar()!;
        }
        finally
        {
            foreach (string suffix in new[] { "", "-wal", "-shm" })
                File.Delete(path + suffix);
        }
    }

    private static string Existing(string folder)
    {
        string? path = Path.GetFullPath(folder);
        while (path is not null && !Directory.Exists(path))
            path = Path.GetDirectoryName(path);
        return path ?? "/";
    }
}

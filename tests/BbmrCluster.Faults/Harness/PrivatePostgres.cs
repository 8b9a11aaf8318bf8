namespace BbmrCluster.Faults.Harness;

/// <summary>A PostgreSQL server of the harness's own, reached by a socket alone, to stop and start at will.</summary>
public sealed class PrivatePostgres : IDisposable
{
    private readonly string _programs, _folder;

    private PrivatePostgres(string programs, string folder) => (_programs, _folder) = (programs, folder);

    public const string Missing = "no PostgreSQL programs here (set BBMR_TEST_POSTGRES_BIN to the folder of initdb and pg_ctl, or install PostgreSQL)";

    /// <summary>Folder of initdb and pg_ctl: BBMR_TEST_POSTGRES_BIN, or the newest where Debian puts them; null where there is none.</summary>
    public static string? Programs { get; } = Environment.GetEnvironmentVariable("BBMR_TEST_POSTGRES_BIN") is { Length: > 0 } named ? named
        : Directory.Exists("/usr/lib/postgresql") ? Directory.GetDirectories("/usr/lib/postgresql").Select(folder => Path.Combine(folder, "bin"))
            .Where(folder => File.Exists(Path.Combine(folder, "initdb"))).OrderBy(folder => folder.Length).ThenBy(folder => folder, StringComparer.Ordinal).LastOrDefault()
        : null;

    public string Connection => $"Host={_folder};Username=bbmr;Database=postgres;Timeout=5";

    public static PrivatePostgres Start()
    {
        // A short path: it is that of a socket.
        string folder = Directory.CreateTempSubdirectory("bbmr-pg-").FullName;
        Machine.Require("chmod", "755", folder);
        if (Machine.IsAdministrator)
            Machine.Require("chown", "postgres", folder);
        var server = new PrivatePostgres(Programs ?? throw new InvalidOperationException(Missing), folder);
        server.As("initdb", "-D", $"{folder}/db", "-U", "bbmr", "-A", "trust", "--no-sync");
        server.Resume();
        return server;
    }

    /// <summary>Stops the server; "fast" ends its connections in order, "immediate" is a crash.</summary>
    public void Stop(string mode) => As("pg_ctl", "-D", $"{_folder}/db", "-m", mode, "-w", "stop");

    /// <summary>Starts it again.</summary>
    public void Resume() => As("pg_ctl", "-D", $"{_folder}/db", "-l", $"{_folder}/log", "-w", "-t", "120", "-o",
        // A killed server loses nothing of what the system holds for it.
        $"-c listen_addresses='' -c unix_socket_directories='{_folder}' -c fsync=off -c max_connections=200", "start");

    /// <summary>The journal's entries of some persistent actors, for the report of a failed round.</summary>
    public string Entries(IEnumerable<string> ids) => Machine.Output(Shell("psql")[0], [.. Shell("psql")[1..], "-h", _folder, "-U", "bbmr", "-d", "postgres", "-c",
        "SELECT ordering, persistence_id, sequence_number, deleted, timestamp '0001-01-01' + interval '1 second' * (created / 10000000) AS created, encode(substring(message for 200), 'escape') AS message FROM journal WHERE " +
        string.Join(" OR ", ids.Select(id => $"persistence_id LIKE '%{id}'")) + " ORDER BY ordering"]);

    public void Dispose()
    {
        Machine.Run(Shell("pg_ctl")[0], [.. Shell("pg_ctl")[1..], "-D", $"{_folder}/db", "-m", "immediate", "stop"]);
        Directory.Delete(_folder, recursive: true);
    }

    private void As(string program, params string[] arguments) => Machine.Require(Shell(program)[0], [.. Shell(program)[1..], .. arguments]);

    // The server refuses to run as the administrator.
    private string[] Shell(string program) => Machine.IsAdministrator ? ["runuser", "-u", "postgres", "--", Path.Combine(_programs, program)] : [Path.Combine(_programs, program)];
}

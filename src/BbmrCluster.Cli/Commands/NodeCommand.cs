using System.CommandLine;
using System.Globalization;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Networks;
using BbmrCluster.Node.Cluster;

namespace BbmrCluster.Cli.Commands;

/// <summary>bbmr node: a process of a cluster.</summary>
internal static class NodeCommand
{
    /// <summary>Creates the command.</summary>
    public static Command Create()
    {
        var config = new Option<string?>("--config") { Description = "JSON file with the settings below, their names written with '_'", HelpName = "FILE" };
        var createSchema = new Option<bool>("--create-schema") { Description = "Only make the journal's tables in PostgreSQL, then end" };
        var command = new BbmrCommand("node",
            "Runs a node of a cluster. Settings come from the command line, then from the environment (BBMR_ROLES, BBMR_SEED_NODES, ...), then from a file. SIGTERM finishes or gives back its leases and leaves the cluster; a node that the others removed ends with code 4.",
            "bbmr node --roles coordinator,worker,api --work /var/lib/bbmr",
            "bbmr node --roles worker --seed-nodes coordinator-1:4053 --host 10.0.0.5 --store /mnt/shared/bbmr --tls-certificate node.pfx --tls-authority ca.pem",
            "bbmr node --create-schema --journal 'Host=db;Username=bbmr;Database=bbmr'") { config, createSchema };
        var options = new List<(NodeSetting Setting, Option Option)>();
        foreach (NodeSetting setting in NodeSettings.All.Where(setting => setting.Option != createSchema.Name))
        {
            Option option = setting.Value.Length == 0
                ? new Option<bool>(setting.Option) { Description = setting.Description }
                : new Option<string?>(setting.Option) { Description = setting.Description, HelpName = setting.Value };
            options.Add((setting, option));
            command.Add(option);
        }
        command.RunAsync((parsed, services) =>
        {
            var given = new Dictionary<string, string>(StringComparer.Ordinal);
            foreach ((NodeSetting setting, Option option) in options)
            {
                if (parsed.GetResult(option) is { Implicit: false } result)
                    given[setting.Key] = option is Option<bool> flag ? result.GetValue(flag) ? "true" : "false" : result.GetValue((Option<string?>)option) ?? "";
            }
            string? file = parsed.GetValue(config) ?? Environment.GetEnvironmentVariable("BBMR_CONFIG") switch { { Length: > 0 } named => named, _ => null };
            return parsed.GetValue(createSchema) ? CreateSchemaAsync(given, file, services) : RunAsync(given, file, services);
        });
        return command;
    }

    private static async Task<int> RunAsync(Dictionary<string, string> given, string? file, CommandServices services)
    {
        Terminal terminal = services.Terminal;
        NodeOptions options = NodeSettings.Read(given, file, Environment.GetEnvironmentVariable);
        NativeRuntime.Apply();
        CancellationToken stop = services.Interruption.Graceful();
        await using CancellationTokenRegistration told = stop.Register(() => terminal.Message("stopping: finishing or giving back leases (again to stop at once) ..."));
        ClusterNode node = await ClusterNode.StartAsync(options, terminal.Problem, terminal.IsVerbose, stop);
        terminal.Json(new { @event = "started", name = options.Name, roles = options.Roles, address = node.Address, http = node.Http, version = options.AppVersion });
        terminal.Message($"{options.Name} ({string.Join(", ", options.Roles)}) is {node.Address}{(node.Http is null ? "" : $", HTTP {node.Http}")}");
        NodeEnd end = await node.RunAsync(stop);
        terminal.Json(new { @event = end == NodeEnd.Stopped ? "stopped" : "removed", name = options.Name });
        terminal.Message(end == NodeEnd.Stopped ? $"{options.Name} has left the cluster" : $"{options.Name} was removed from the cluster; start it again");
        int code = end == NodeEnd.Stopped ? ExitCodes.Done : ExitCodes.Removed;
        await node.DisposeAsync();
        // A device may still be at work.
        Interruption.EndNow(code);
        return code;
    }

    private static async Task<int> CreateSchemaAsync(Dictionary<string, string> given, string? file, CommandServices services)
    {
        // Only the journal matters here: whatever else the node's settings are, they may be incomplete.
        given["roles"] = "coordinator";
        given["insecure"] = "true";
        NodeOptions options = NodeSettings.Read(given, file, Environment.GetEnvironmentVariable);
        if (options.Postgres is not { } connection)
            throw new UserErrorException("SQLite's tables are made at start; name a PostgreSQL database with --journal (BBMR_JOURNAL).", ExitCodes.Usage);
        bool made = await PostgresJournal.CreateSchemaAsync(connection, create: true, CancellationToken.None);
        services.Terminal.Json(new { created = made });
        services.Terminal.Result(string.Create(CultureInfo.InvariantCulture, $"the tables of the journal {(made ? "are made" : "were there already")}"));
        return ExitCodes.Done;
    }
}

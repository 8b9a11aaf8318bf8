using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Node.Api;

namespace BbmrCluster.Cli.Cluster;

/// <summary>submit, jobs, status, watch, pause, resume, cancel, retry, nodes, drain: the client of a cluster.</summary>
internal static class ClusterCommands
{
    /// <summary>bbmr submit.</summary>
    public static Command Submit()
    {
        var inputs = new Argument<string[]>("INPUT") { Description = "Photographs (containers for an upscale), or folders of them, as the cluster's nodes see them", Arity = ArgumentArity.ZeroOrMore };
        var manifest = new Option<string?>("--manifest") { Description = "Text file with one input a line; below the output folder they keep their place under the folder of the list", HelpName = "FILE" };
        var name = new Option<string?>("--name") { Description = "What the job is called (default: the first input)", HelpName = "NAME" };
        var priority = new Option<int>("--priority") { Description = "Importance, 0 to 9 (default: 0)", HelpName = "N", CustomParser = Amounts.Whole(0, 9, "a priority") };
        var key = new Option<string?>("--key") { Description = "Idempotency key: repeating the command with it gives the job that is there already", HelpName = "KEY" };
        var badBlock = new Option<string>("--on-bad-block") { Description = "A block that cannot be scored gets the middle scale, or its image fails", HelpName = "quarantine|fail", DefaultValueFactory = _ => "quarantine" };
        badBlock.AcceptOnlyFromAmong("quarantine", "fail");
        var wait = new Option<bool>("--wait") { Description = "Watch the job to its end; the exit code then tells how it ended" };
        Option<string?> server = ApiClient.ServerOption();
        var command = new BbmrCommand("submit", "Submits a job to a cluster and prints its id.",
            "bbmr submit /mnt/photographs -r -o /mnt/out --server http://coordinator:8080", "bbmr submit --manifest /mnt/list.txt -o /mnt/out --key nightly-2026-11-23 --wait")
        { inputs, manifest, name, priority, key, badBlock, wait, server };
        var options = new JobOptions(command, kind: null);
        command.RunAsync(async (parsed, services) =>
        {
            RunValues values = options.Run(parsed);
            string[] given = parsed.GetValue(inputs) ?? [];
            string? list = parsed.GetValue(manifest);
            if (given.Length == 0 && list is null)
                throw new UserErrorException("Name inputs or a --manifest.", ExitCodes.Usage);
            if (parsed.GetValue(key) is { } once && (once.Length is 0 or > 255 || once.Any(c => c is < ' ' or > '~')))
                throw new UserErrorException($"--key '{once}': a key has 1 to 255 ASCII characters.", ExitCodes.Usage);
            var body = new JobRequest
            {
                Inputs = [.. given.Select(Path.GetFullPath)], Manifest = list is null ? null : Path.GetFullPath(list), Recursive = values.Recursive, Output = Path.GetFullPath(values.Output),
                Name = parsed.GetValue(name) ?? "", Priority = parsed.GetValue(priority), OnBadBlock = parsed.GetValue(badBlock)!, Options = JobRequest.OptionsOf(options.Parameters(parsed)),
            };
            using ApiClient client = ApiClient.Open(parsed.GetValue(server));
            JsonElement job = (await client.SendAsync(HttpMethod.Post, "v1/jobs", body, parsed.GetValue(key), CancellationToken.None))!.Value;
            services.Terminal.Json(job);
            services.Terminal.Result(Text(job, "id"));
            if (job.TryGetProperty("refused", out JsonElement refused) && refused.ValueKind == JsonValueKind.Array)
            {
                foreach (JsonElement one in refused.EnumerateArray())
                    services.Terminal.Problem($"{Text(one, "input")}: {Text(one, "error")}");
            }
            int notTaken = (int)(Number(job, "refused_count") ?? 0), untold = notTaken - (refused.ValueKind == JsonValueKind.Array ? refused.GetArrayLength() : 0);
            if (untold > 0)
                services.Terminal.Problem(string.Create(CultureInfo.InvariantCulture, $"and {untold} more inputs that are not taken"));
            return parsed.GetValue(wait) ? await WatchAsync(client, Text(job, "id"), services, notTaken) : ExitCodes.Of(1, notTaken);
        });
        return command;
    }

    /// <summary>bbmr jobs.</summary>
    public static Command Jobs()
    {
        var state = new Option<string?>("--state") { Description = "Only jobs in this state", HelpName = "submitting|running|paused|cancelled|finished" };
        state.AcceptOnlyFromAmong("submitting", "running", "paused", "cancelled", "finished");
        Option<string?> server = ApiClient.ServerOption();
        var command = new BbmrCommand("jobs", "Lists the jobs of a cluster, the latest first.", "bbmr jobs --server http://coordinator:8080", "bbmr jobs --state running --json") { state, server };
        command.RunAsync(async (parsed, services) =>
        {
            using ApiClient client = ApiClient.Open(parsed.GetValue(server));
            await foreach (JsonElement job in client.ListAsync(parsed.GetValue(state) is { } wanted ? $"v1/jobs?state={wanted}" : "v1/jobs", CancellationToken.None))
                ShowJob(services.Terminal, job);
            return ExitCodes.Done;
        });
        return command;
    }

    /// <summary>bbmr status.</summary>
    public static Command Status()
    {
        var job = new Argument<string>("JOB") { Description = "A job's id" };
        var images = new Option<string?>("--images") { Description = "Also list its images: all, or those in one state", HelpName = "all|pending|done|skipped|failed" };
        images.AcceptOnlyFromAmong("all", "pending", "done", "skipped", "failed");
        Option<string?> server = ApiClient.ServerOption();
        var command = new BbmrCommand("status", "Shows how a job stands.", "bbmr status JOB", "bbmr status JOB --images failed") { job, images, server };
        command.RunAsync(async (parsed, services) =>
        {
            using ApiClient client = ApiClient.Open(parsed.GetValue(server));
            string id = Uri.EscapeDataString(parsed.GetRequiredValue(job));
            ShowJob(services.Terminal, await client.GetAsync($"v1/jobs/{id}", CancellationToken.None));
            if (parsed.GetValue(images) is { } wanted)
            {
                await foreach (JsonElement image in client.ListAsync(wanted is "all" ? $"v1/jobs/{id}/images" : $"v1/jobs/{id}/images?state={wanted}", CancellationToken.None))
                {
                    services.Terminal.Json(image);
                    services.Terminal.Result("  " + Ended(Text(image, "input"), image));
                }
            }
            return ExitCodes.Done;
        });
        return command;
    }

    /// <summary>bbmr watch.</summary>
    public static Command Watch()
    {
        var job = new Argument<string>("JOB") { Description = "A job's id" };
        Option<string?> server = ApiClient.ServerOption();
        var command = new BbmrCommand("watch", "Shows what happens to a job until it ends; the exit code tells how it ended. Ctrl-C ends watching, not the job.", "bbmr watch JOB", "bbmr watch JOB --json") { job, server };
        command.RunAsync(async (parsed, services) =>
        {
            using ApiClient client = ApiClient.Open(parsed.GetValue(server));
            return await WatchAsync(client, parsed.GetRequiredValue(job), services);
        });
        return command;
    }

    /// <summary>bbmr pause, resume, cancel, retry.</summary>
    public static IEnumerable<Command> Steering() =>
    [
        Steer("pause", "Takes the leases of a job back and grants none until it is resumed."),
        Steer("resume", "Goes on with a job that was paused."),
        Steer("cancel", "Gives up the images of a job that are not done; finished ones stay."),
        Steer("retry", "Tries the failed images of a job again; a cancelled job goes on."),
    ];

    /// <summary>bbmr nodes.</summary>
    public static Command Nodes()
    {
        Option<string?> server = ApiClient.ServerOption();
        var command = new BbmrCommand("nodes", "Lists the nodes of a cluster and what their workers do.", "bbmr nodes", "bbmr nodes --json") { server };
        command.RunAsync(async (parsed, services) =>
        {
            using ApiClient client = ApiClient.Open(parsed.GetValue(server));
            await foreach (JsonElement node in client.ListAsync("v1/nodes", CancellationToken.None))
            {
                services.Terminal.Json(node);
                string worker = Text(node, "worker") is { Length: > 0 } phase
                    ? string.Create(CultureInfo.InvariantCulture, $", worker {Text(node, "name")} {phase}: {Text(node, "devices")} devices, {Text(node, "images")} images, {Text(node, "leases")} leases, {Number(node, "blocks_per_second") ?? 0:0.0} blocks/s")
                    : "";
                services.Terminal.Result($"{Text(node, "address")}: {Text(node, "state")}, {string.Join(' ', node.GetProperty("roles").EnumerateArray().Select(role => role.GetString()))}, version {Text(node, "version")}{worker}");
            }
            return ExitCodes.Done;
        });
        return command;
    }

    /// <summary>bbmr drain.</summary>
    public static Command Drain()
    {
        var node = new Argument<string>("NODE") { Description = "Name of a worker's node, as 'bbmr nodes' shows it" };
        var undo = new Option<bool>("--undo") { Description = "Let it take leases again" };
        Option<string?> server = ApiClient.ServerOption();
        var command = new BbmrCommand("drain", "Has a worker take no more leases; it finishes those it holds.", "bbmr drain worker-3", "bbmr drain worker-3 --undo") { node, undo, server };
        command.RunAsync(async (parsed, services) =>
        {
            using ApiClient client = ApiClient.Open(parsed.GetValue(server));
            string name = parsed.GetRequiredValue(node);
            await client.SendAsync(parsed.GetValue(undo) ? HttpMethod.Delete : HttpMethod.Post, $"v1/nodes/{Uri.EscapeDataString(name)}/drain", null, null, CancellationToken.None);
            services.Terminal.Json(new { node = name, draining = !parsed.GetValue(undo) });
            services.Terminal.Message(parsed.GetValue(undo) ? $"{name} takes leases again" : $"{name} takes no more leases");
            return ExitCodes.Done;
        });
        return command;
    }

    private static BbmrCommand Steer(string verb, string description)
    {
        var job = new Argument<string>("JOB") { Description = "A job's id" };
        Option<string?> server = ApiClient.ServerOption();
        var command = new BbmrCommand(verb, description, $"bbmr {verb} JOB") { job, server };
        command.RunAsync(async (parsed, services) =>
        {
            using ApiClient client = ApiClient.Open(parsed.GetValue(server));
            ShowJob(services.Terminal, (await client.SendAsync(HttpMethod.Post, $"v1/jobs/{Uri.EscapeDataString(parsed.GetRequiredValue(job))}/{verb}", null, null, CancellationToken.None))!.Value);
            return ExitCodes.Done;
        });
        return command;
    }

    private static async Task<int> WatchAsync(ApiClient client, string job, CommandServices services, int notTaken = 0)
    {
        Terminal terminal = services.Terminal;
        CancellationToken stop = services.Interruption.Graceful();
        var names = new Dictionary<string, string>(StringComparer.Ordinal);
        try
        {
            await foreach (JsonElement one in client.EventsAsync($"v1/jobs/{Uri.EscapeDataString(job)}/events", "job_finished", stop))
            {
                string kind = Text(one, "event"), image = Text(one, "image");
                if (kind is "ping")
                    continue;
                terminal.Json(one);
                // Of an image that was open already when watching began, only the report tells the name.
                string name = names.TryGetValue(image, out string? known) ? known
                    : one.TryGetProperty("report", out JsonElement report) && report.ValueKind == JsonValueKind.Object ? Text(report, "input") : image;
                switch (kind)
                {
                    case "job_status" when one.TryGetProperty("status", out JsonElement status) && status.ValueKind == JsonValueKind.Object:
                        terminal.Message(JobText(status));
                        break;
                    case "image_started":
                        names[image] = Text(one, "input");
                        break;
                    case "image_progressed" when terminal.IsVerbose:
                        terminal.Message(string.Create(CultureInfo.InvariantCulture, $"{name}: {100 * (Number(one, "progress") ?? 0):0} %"));
                        break;
                    case "image_paused":
                        terminal.Message($"{name}: waits: {Text(one, "error")}");
                        break;
                    case "image_finished":
                        terminal.Result(name == image ? Ended("", one) : Ended(name, one));
                        break;
                    case "job_finished":
                        return Ended(one, terminal, notTaken);
                }
            }
        }
        catch (OperationCanceledException) when (services.Interruption.ExitCode is int code)
        {
            terminal.Message($"the job goes on; 'bbmr watch {job}' shows it again");
            return code;
        }
        throw new UserErrorException($"The server ended the connection; the job goes on ('bbmr watch {job}' shows it again).");
    }

    // How an image ended. Most errors begin with its name.
    private static string Ended(string name, JsonElement image)
    {
        string state = Text(image, "state"), error = Text(image, "error");
        if (error.Length == 0)
            return $"{(name.Length > 0 ? name : Text(image, "image"))}: {state}";
        string told = name + ": ";
        return name.Length == 0 ? $"{state}: {error}" : $"{told}{state}: {(error.StartsWith(told, StringComparison.Ordinal) ? error[told.Length..] : error)}";
    }

    private static int Ended(JsonElement end, Terminal terminal, int notTaken)
    {
        int Count(string field) => (int)(Number(end, field) ?? 0);
        string unfinished = Count("unfinished") > 0 ? $", {Count("unfinished")} given up" : "";
        terminal.Message($"{Count("done")} done, {Count("skipped")} skipped, {Count("failed")} failed{unfinished}");
        return ExitCodes.Of(Count("done") + Count("skipped"), Count("failed") + Count("unfinished") + notTaken);
    }

    private static void ShowJob(Terminal terminal, JsonElement job)
    {
        terminal.Json(job);
        terminal.Result(JobText(job));
    }

    private static string JobText(JsonElement job)
    {
        string left = Number(job, "seconds_left") is { } seconds ? $", about {Amounts.Text(TimeSpan.FromSeconds(seconds))} left" : "";
        string waiting = Text(job, "waiting") is { Length: > 0 } reason ? $", waits: {reason}" : "";
        return string.Create(CultureInfo.InvariantCulture,
            $"{Text(job, "id")}  {Text(job, "state")}, {100 * (Number(job, "progress") ?? 0):0} % of {Text(job, "images")} images: {Text(job, "done")} done, {Text(job, "skipped")} skipped, {Text(job, "failed")} failed{left}{waiting}  {Text(job, "name")}");
    }

    private static string Text(JsonElement element, string field) => element.TryGetProperty(field, out JsonElement value)
        ? value.ValueKind switch { JsonValueKind.String => value.GetString()!, JsonValueKind.Null => "", _ => value.GetRawText() }
        : "";

    private static double? Number(JsonElement element, string field) => element.TryGetProperty(field, out JsonElement value) && value.ValueKind == JsonValueKind.Number ? value.GetDouble() : null;
}

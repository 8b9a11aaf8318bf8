using System.Net.ServerSentEvents;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Akka.Actor;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Node.Cluster;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.OpenApi;

namespace BbmrCluster.Node.Api;

/// <summary>The HTTP API of a cluster under /v1, described by /openapi/v1.json.</summary>
internal static class ApiEndpoints
{
    private const int MostRefused = 1000;
    private static readonly TimeSpan Silence = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan SubmissionSilence = TimeSpan.FromSeconds(30);

    public static void AddServices(IServiceCollection services)
    {
        services.AddSingleton<JobPlanner>();
        services.AddSingleton<JobWatches>();
        services.AddProblemDetails();
        // Otherwise a malformed request is answered without a word.
        services.Configure<RouteHandlerOptions>(handling => handling.ThrowOnBadRequest = true);
        services.ConfigureHttpJsonOptions(json => ApiJson.Configure(json.SerializerOptions));
        services.AddOpenApi("v1", api => api.AddSchemaTransformer((schema, context, _) =>
        {
            if (context.JsonTypeInfo.Type == typeof(JobRequest))
                JobRequest.Describe(schema);
            return Task.CompletedTask;
        }).AddDocumentTransformer((document, _, _) =>
        {
            document.Info.Title = "BbmrCluster";
            document.Info.Version = NodeOptions.ProgramVersion;
            document.Info.Description = "Jobs over photographs: submit, watch, steer; the nodes that do them. Errors are problem+json (RFC 9457).";
            foreach (OpenApiServer server in document.Servers ?? [])
                server.Url = server.Url?.TrimEnd('/');
            foreach (OpenApiTag tag in document.Tags ?? new HashSet<OpenApiTag>())
                tag.Description = tag.Name switch { "jobs" => "Jobs and their images.", "nodes" => "Members of the cluster and their leases.", _ => "Intermediate results, for workers that do not share the folder." };
            document.Components ??= new OpenApiComponents();
            document.Components.SecuritySchemes ??= new Dictionary<string, IOpenApiSecurityScheme>(StringComparer.Ordinal);
            document.Components.SecuritySchemes["token"] = new OpenApiSecurityScheme { Type = SecuritySchemeType.Http, Scheme = "bearer", Description = "The cluster's token, where it has one" };
            document.Security = [new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference("token", document)] = [] }];
            return Task.CompletedTask;
        }));
    }

    /// <summary>Admits whoever may command the cluster, to all but the health checks, and turns errors into problems.</summary>
    public static void Guard(WebApplication app)
    {
        app.UseStatusCodePages();
        app.Use(ProblemsAsync);
        app.Use(AdmittedAsync);
    }

    public static void Map(WebApplication app)
    {
        app.MapOpenApi();
        RouteGroupBuilder v1 = app.MapGroup("/v1").ProducesProblem(400).ProducesProblem(401).ProducesProblem(403).ProducesProblem(503);
        RouteGroupBuilder jobs = v1.MapGroup("/jobs").WithTags("jobs");
        jobs.MapPost("/", SubmitAsync).WithName("submit").ProducesProblem(413).ProducesProblem(422)
            .WithSummary("Submits a job. The same Idempotency-Key with the same images gives the job that is there already.");
        jobs.MapGet("/", ListAsync).WithName("jobs").WithSummary("Jobs, the latest submission first.");
        jobs.MapGet("/{id}", StatusAsync).WithName("status").ProducesProblem(404).WithSummary("How a job stands: progress and time left.");
        jobs.MapGet("/{id}/images", ImagesAsync).WithName("images").ProducesProblem(404).WithSummary("Images of a job, all or those in one state.");
        jobs.MapGet("/{id}/events", EventsAsync).WithName("events").Produces(200, contentType: "text/event-stream").ProducesProblem(404).WithSummary("What happens to a job from now on, as server-sent events; ends with job_finished. With Last-Event-ID it goes on after that event where this node still has those since.");
        jobs.MapPost("/{id}/pause", (string id, BbmrClient client, CancellationToken stop) => SteerAsync(id, client, client.PauseAsync, phase => phase is ArchivePhase.Paused, stop)).WithName("pause").ProducesProblem(404).ProducesProblem(409)
            .WithSummary("Takes leases back and grants none until the job is resumed.");
        jobs.MapPost("/{id}/resume", (string id, BbmrClient client, CancellationToken stop) => SteerAsync(id, client, client.ResumeAsync, phase => phase is not ArchivePhase.Paused, stop)).WithName("resume").ProducesProblem(404).ProducesProblem(409)
            .WithSummary("Ends a pause.");
        jobs.MapPost("/{id}/cancel", (string id, BbmrClient client, CancellationToken stop) => SteerAsync(id, client, client.CancelAsync, phase => phase is ArchivePhase.Cancelled, stop)).WithName("cancel").ProducesProblem(404).ProducesProblem(409)
            .WithSummary("Gives up the images that are not done; finished ones stay.");
        jobs.MapPost("/{id}/retry", (string id, BbmrClient client, CancellationToken stop) => SteerAsync(id, client, client.RetryAsync, phase => phase is not ArchivePhase.Cancelled, stop)).WithName("retry").ProducesProblem(404).ProducesProblem(409)
            .WithSummary("Tries failed images again; a cancelled job goes on.");
        ClusterEndpoints.Map(v1);
    }

    internal static ProblemHttpResult Problem(int status, string title, string detail) => TypedResults.Problem(detail, statusCode: status, title: title);

    private static async Task<Results<Accepted<JobStatus>, ProblemHttpResult>> SubmitAsync(JobRequest request, [FromHeader(Name = "Idempotency-Key")] string? key, BbmrClient client, JobPlanner planner, IHostApplicationLifetime lifetime, CancellationToken stop)
    {
        if (key is { Length: 0 or > 255 })
            return Problem(400, "Malformed request", "An Idempotency-Key has 1 to 255 characters.");
        if (!Enum.TryParse(request.OnBadBlock, ignoreCase: true, out PoisonRule rule) || !Enum.IsDefined(rule))
            return Problem(422, "Job refused", $"There is no on_bad_block '{request.OnBadBlock}': quarantine or fail.");
        if (request.Priority is < 0 or > 9 || request.Attempts is < 1 or > 100)
            return Problem(422, "Job refused", "The priority is 0 to 9 and the attempts are 1 to 100.");
        string? usual = await ClusterEndpoints.UsualDeviceClassAsync(client, stop);
        ArchiveId? id = key is null ? null : new ArchiveId("k" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(key)))[..31]);
        // Reads folders and weights: not on a thread that answers others.
        (ArchiveSpec spec, IReadOnlyList<RefusedInput> refused) = await Task.Run(() =>
        {
            (IEnumerable<ImageJob> images, IReadOnlyList<RefusedInput> notTaken) = planner.Plan(request, usual);
            string name = request.Name.Length > 0 ? request.Name : Path.GetFileName((request.Inputs.Count > 0 ? request.Inputs[0] : request.Manifest!).TrimEnd('/'));
            return (new ArchiveSpec(images, new WorkPolicy(new Priority(request.Priority), request.Attempts, rule), name, id), notTaken);
        }, stop);
        RefusedInputModel[] notTaken = [.. refused.Take(MostRefused).Select(one => new RefusedInputModel(one.DisplayName, one.Code, one.Reason))];
        try
        {
            // Also when the client goes away: half of a submission is of no use to anyone.
            CancellationToken ending = lifetime.ApplicationStopping;
            if (key is not null)
            {
                await client.SubmitOnceAsync(spec, SubmissionSilence, ending);
            }
            else
            {
                await using ArchiveRun run = await client.SubmitAsync(spec, SubmissionSilence, ending);
            }
        }
        catch (ArchiveRefusedException refusal) when (key is not null && refusal.IsOther)
        {
            return Problem(422, "Key used before", "This Idempotency-Key was used for a job over other images or with other parameters.");
        }
        // The list of jobs hears of a new one a moment later.
        ArchiveOverview? overview = null;
        for (int i = 0; i < 50 && (overview = await client.FindAsync(spec.Id, stop)) is null; i++)
            await Task.Delay(100, stop);
        return overview is null ? Problem(503, "Cluster silent", "The job is taken, but the list of jobs does not know it yet.")
            : TypedResults.Accepted($"/v1/jobs/{spec.Id}", JobStatus.Of(overview) with { Refused = notTaken, RefusedCount = refused.Count });
    }

    private static async Task<Results<Ok<Listing<JobStatus>>, ProblemHttpResult>> ListAsync(BbmrClient client, CancellationToken stop, string? state = null, int from = 0, int count = 100)
    {
        ArchivePhase? wanted = null;
        if (state is not null)
        {
            if (!Enum.TryParse(state, ignoreCase: true, out ArchivePhase parsed) || !Enum.IsDefined(parsed))
                return Problem(400, "Malformed request", $"There is no state '{state}': submitting, running, paused, cancelled or finished.");
            wanted = parsed;
        }
        from = Math.Max(0, from);
        List<JobStatus> all = [.. (await client.ListAsync(stop)).Where(one => wanted is null || one.Phase == wanted).Select(one => JobStatus.Of(one))];
        int end = Math.Min(all.Count, from + Math.Clamp(count, 1, 1000));
        return TypedResults.Ok(new Listing<JobStatus>(from >= all.Count ? [] : all[from..end], end < all.Count ? end : null));
    }

    private static async Task<Results<Ok<JobStatus>, ProblemHttpResult>> StatusAsync(string id, BbmrClient client, CancellationToken stop) =>
        Parse(id) is { } archive && await client.FindAsync(archive, stop) is { } found ? TypedResults.Ok(JobStatus.Of(found)) : NoJob(id);

    private static async Task<Results<Ok<Listing<JobImage>>, ProblemHttpResult>> ImagesAsync(string id, BbmrClient client, CancellationToken stop, string? state = null, int from = 0, int count = 100)
    {
        ItemState? wanted = null;
        if (state is not null)
        {
            if (!Enum.TryParse(state, ignoreCase: true, out ItemState parsed) || !Enum.IsDefined(parsed))
                return Problem(400, "Malformed request", $"There is no state '{state}': pending, done, skipped or failed.");
            wanted = parsed;
        }
        int most = Math.Clamp(count, 1, 1000);
        if (Parse(id) is not { } archive || await client.FindAsync(archive, stop) is null || await client.ItemsAsync(archive, Math.Max(0, from), most, wanted, stop) is not { } items)
            return NoJob(id);
        return TypedResults.Ok(new Listing<JobImage>([.. items.Select(JobImage.Of)], items.Count == most ? items[^1].Item + 1 : null));
    }

    private static async Task<IResult> EventsAsync(string id, [FromHeader(Name = "Last-Event-ID")] string? lastEvent, BbmrClient client, JobWatches watches, CancellationToken stop) =>
        Parse(id) is { } archive && await client.FindAsync(archive, stop) is { } found
            ? TypedResults.ServerSentEvents(Events(archive, watches.EventsAsync(archive, lastEvent, new JobEvent("job_status", id, Status: JobStatus.Of(found)), Silence, stop)))
            : NoJob(id);

    private static async IAsyncEnumerable<SseItem<JobEvent>> Events(ArchiveId job, IAsyncEnumerable<(string Id, JobEvent Event)?> events)
    {
        await foreach ((string Id, JobEvent Event)? one in events)
            yield return one is { } told ? new SseItem<JobEvent>(told.Event, told.Event.Event) { EventId = told.Id } : new SseItem<JobEvent>(new JobEvent("ping", job.Value), "ping");
    }

    private static async Task<Results<Ok<JobStatus>, ProblemHttpResult>> SteerAsync(string id, BbmrClient client, Func<ArchiveId, CancellationToken, Task<bool>> steer, Func<ArchivePhase, bool> reached, CancellationToken stop)
    {
        if (Parse(id) is not { } archive || await client.FindAsync(archive, stop) is null || !await steer(archive, stop))
            return NoJob(id);
        // The list of jobs hears of it a moment later. A job may have finished before it heard of the order.
        ArchiveOverview? found = null;
        for (int i = 0; i < 30 && (found = await client.FindAsync(archive, stop)) is { Phase: not ArchivePhase.Finished } one && !reached(one.Phase); i++)
            await Task.Delay(100, stop);
        return found is null ? NoJob(id) : TypedResults.Ok(JobStatus.Of(found));
    }

    private static ArchiveId? Parse(string id)
    {
        try
        {
            return new ArchiveId(id);
        }
        catch (ArgumentException)
        {
            return null;
        }
    }

    private static ProblemHttpResult NoJob(string id) => Problem(404, "No such job", $"There is no job '{id}'.");

    /// <summary>Whoever may command the cluster: with the token, or from this machine where none is set.</summary>
    private static async Task AdmittedAsync(HttpContext context, RequestDelegate next)
    {
        if (context.Request.Path.StartsWithSegments("/healthz", StringComparison.Ordinal))
        {
            await next(context);
            return;
        }
        NodeOptions options = context.RequestServices.GetRequiredService<NodeOptions>();
        if (options.Token is { } token)
        {
            const string scheme = "Bearer ";
            string shown = context.Request.Headers.Authorization.ToString();
            byte[] given = SHA256.HashData(Encoding.UTF8.GetBytes(shown.StartsWith(scheme, StringComparison.OrdinalIgnoreCase) ? shown[scheme.Length..].Trim() : ""));
            if (!CryptographicOperations.FixedTimeEquals(given, SHA256.HashData(Encoding.UTF8.GetBytes(token))))
            {
                context.Response.Headers.WWWAuthenticate = "Bearer";
                await Problem(401, "Not admitted", shown.Length > 0 ? "The token that was shown is not this cluster's."
                    : "Show the token of this cluster as 'Authorization: Bearer TOKEN' (BBMR_TOKEN).").ExecuteAsync(context);
                return;
            }
        }
        else if (!options.Insecure && (!new HostPort(context.Request.Host.Host.Trim('[', ']'), 0).IsLoopback || context.Request.Headers.Origin.Count > 0))
        {
            // Without a token, what reaches this port from a web page must not count as the user.
            await Problem(403, "Not admitted", "Without a token this API answers programs on its own machine only.").ExecuteAsync(context);
            return;
        }
        await next(context);
    }

    private static async Task ProblemsAsync(HttpContext context, RequestDelegate next)
    {
        try
        {
            await next(context);
        }
        catch (Exception error) when (!context.Response.HasStarted && Explained(error) is { } problem)
        {
            if (problem.StatusCode == 503)
                context.Response.Headers.RetryAfter = "5";
            await problem.ExecuteAsync(context);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // The client has gone.
        }
    }

    // In the words of the API, not of this program's types.
    private static string Sentence(JsonException error)
    {
        string[] quoted = error.Message.Split('\'');
        if (error.Message.Contains("could not be mapped", StringComparison.Ordinal) && quoted.Length > 1)
            return $"There is no property '{quoted[1]}'.";
        int missing = error.Message.IndexOf("including: ", StringComparison.Ordinal);
        return missing < 0 ? error.Message : $"What is missing: {error.Message[(missing + "including: ".Length)..]}";
    }

    private static ProblemHttpResult? Explained(Exception error) => error switch
    {
        BadHttpRequestException bad => Problem(bad.StatusCode, "Malformed request", bad.InnerException is JsonException json ? Sentence(json) : bad.Message),
        ForbiddenPathException => Problem(403, "Path not allowed", error.Message),
        RequestRefusedException or JobOptionException or EngineUnavailableException => Problem(422, "Job refused", error.Message),
        ArchiveRefusedException => Problem(409, "Not possible now", error.Message),
        AskTimeoutException or TimeoutException => Problem(503, "Cluster silent", "No coordinator answered in time; it may be starting or moving, or its database may be away. Try again."),
        OperationCanceledException => null,
        _ => Problem(500, "Unexpected error", error.Message),
    };
}

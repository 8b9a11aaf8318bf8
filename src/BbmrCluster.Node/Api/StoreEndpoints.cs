using BbmrCluster.Work;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Routing;

namespace BbmrCluster.Node.Api;

/// <summary>
/// This node's folder of intermediate results, for nodes that do not see it. Only names of blobs are taken, so nothing
/// outside the folder is ever reached. Pieces are read and written; no blob is held in memory.
/// </summary>
internal static class StoreEndpoints
{
    public static void Map(IEndpointRouteBuilder app, DirectoryBlobStore store)
    {
        RouteGroupBuilder v1 = app.MapGroup("/v1").WithTags("store").ProducesProblem(400).ProducesProblem(401).ProducesProblem(503);
        v1.AddEndpointFilter(async (context, next) =>
        {
            try
            {
                return await next(context);
            }
            catch (ArgumentException error)
            {
                return ApiEndpoints.Problem(400, "Malformed request", error.Message.Split(" (Parameter", StringSplitOptions.None)[0]);
            }
            catch (InvalidDataException error)
            {
                return ApiEndpoints.Problem(422, "Damaged on the way", error.Message);
            }
            catch (StageFailedException error)
            {
                return ApiEndpoints.Problem(error.Failure switch { FailureClass.StoreFull => 507, FailureClass.Permanent => 413, _ => 503 }, "Not stored", error.Message);
            }
        });
        v1.MapGet("/store", (bool? check) => Room(store, check ?? false)).WithName("store").Produces(200).WithSummary("Room for intermediate results; with check=true only when they can be written.");
        v1.MapGet("/blobs", () => TypedResults.Json(store.Images().Select(one => new StoredImageModel(one.Image.Value, one.Written)), StoredImageModel.Json))
            .WithName("stored").Produces(200).WithSummary("Images that have intermediate results here.");
        v1.MapGet("/blobs/{image}/{name}", (string image, string name) => Read(store, image, name)).WithName("blob").Produces(200).Produces(206).ProducesProblem(404).ProducesProblem(416)
            .WithSummary("An intermediate result, as a whole or a range of bytes.");
        v1.MapMethods("/blobs/{image}/{name}", ["HEAD"], (string image, string name) => Read(store, image, name)).WithName("blob_length").Produces(200).ProducesProblem(404)
            .WithSummary("Whether an intermediate result is there, and its length.");
        v1.MapPut("/blobs/{image}/{name}", (string image, string name, HttpContext context) => WriteAsync(store, image, name, context)).WithName("put_blob").ProducesProblem(413).ProducesProblem(422).ProducesProblem(507)
            .WithSummary($"Stores an intermediate result. The header {HttpBlobStore.HashHeader} holds its XXH3-128; other bytes are refused.");
        v1.MapDelete("/blobs/{image}/{name}", (string image, string name) =>
        {
            store.Delete(new BlobRef($"{image}/{name}", 0, ""));
            return TypedResults.NoContent();
        }).WithName("delete_blob").WithSummary("Deletes an intermediate result.");
        v1.MapDelete("/blobs/{image}", (string image) =>
        {
            store.DeleteImage(new ImageId(image));
            return TypedResults.NoContent();
        }).WithName("delete_blobs").WithSummary("Deletes all intermediate results of an image.");
    }

    private static JsonHttpResult<StoreRoom> Room(DirectoryBlobStore store, bool check)
    {
        if (check)
            store.Check();
        return TypedResults.Json(store.Room, StoredImageModel.Json);
    }

    private static Results<PhysicalFileHttpResult, ProblemHttpResult> Read(DirectoryBlobStore store, string image, string name)
    {
        if (store.Find($"{image}/{name}") is { } file)
            return TypedResults.PhysicalFile(file, "application/octet-stream", enableRangeProcessing: true);
        return TypedResults.Problem($"There is no intermediate result {image}/{name}.", statusCode: 404, title: "No such blob",
            extensions: new Dictionary<string, object?>(StringComparer.Ordinal) { ["code"] = HttpBlobStore.NoBlob });
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> WriteAsync(DirectoryBlobStore store, string image, string name, HttpContext context)
    {
        if (context.Request.ContentLength is not { } length)
            return ApiEndpoints.Problem(411, "Length needed", "A blob is sent with its length.");
        string hash = context.Request.Headers[HttpBlobStore.HashHeader].ToString();
        // The store bounds what it takes.
        if (context.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } limit)
            limit.MaxRequestBodySize = null;
        await store.ReceiveAsync(new BlobRef($"{image}/{name}", length, hash), context.Request.Body, context.RequestAborted);
        return TypedResults.NoContent();
    }
}

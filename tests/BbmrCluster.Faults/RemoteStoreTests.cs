using System.Text.Json;
using Amazon.S3;
using Amazon.S3.Model;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults;

/// <summary>Clusters of real processes whose workers do not share a folder of intermediate results.</summary>
public sealed class RemoteStoreTests
{
    private static readonly string[] Parameters = ["--scorer", "bicubic", "--precision", "float32"];

    [Fact]
    public async Task A_worker_without_the_folder_gets_intermediate_results_over_http_and_gives_the_bytes_of_a_local_run()
    {
        using var cluster = new LoopbackCluster();
        await cluster.InitializeAsync();
        await cluster.UntilAsync(() => Task.FromResult(cluster.Client("drain", "w1").ExitCode == 0), "w1 known and drained");
        int http = LoopbackCluster.FreePort();
        cluster.StartWorker("far", null, "--store", cluster.Server, "--http", $"127.0.0.1:{http}");
        await cluster.ReadyAsync(workers: 2);
        using var client = new HttpClient();
        using JsonDocument ready = JsonDocument.Parse(await (await client.GetAsync(new Uri($"http://127.0.0.1:{http}/healthz/ready"))).Content.ReadAsStringAsync());
        JsonElement store = ready.RootElement.GetProperty("checks").EnumerateArray().Single(check => check.GetProperty("name").GetString() == "store");
        Assert.True(store.GetProperty("ok").GetBoolean(), ready.RootElement.ToString());
        Assert.Equal(cluster.Server, store.GetProperty("detail").GetString());

        RunAsALocalRunDoes(cluster);
        Assert.Empty(Directory.EnumerateFileSystemEntries(Path.Combine(cluster.Folder, "work-far", "blobs")));
        Assert.Empty(Directory.EnumerateFileSystemEntries(Path.Combine(cluster.Folder, "work-far", "tmp"), "lease-*"));
        await cluster.UntilAsync(() => Task.FromResult(!Directory.EnumerateFileSystemEntries(Path.Combine(cluster.Folder, "store")).Any()), "an empty store");
    }

    [S3Fact]
    public async Task A_cluster_whose_store_is_a_bucket_gives_the_bytes_of_a_local_run()
    {
        using var s3 = new AmazonS3Client(new AmazonS3Config { ServiceURL = S3.Server, ForcePathStyle = true, AuthenticationRegion = "us-east-1" });
        string bucket = "bbmr-" + Guid.NewGuid().ToString("N")[..12];
        await s3.PutBucketAsync(bucket);
        try
        {
            using var cluster = new LoopbackCluster
            {
                Store = $"s3://{bucket}/some/prefix",
                NodeEnvironment = new Dictionary<string, string>(StringComparer.Ordinal) { ["BBMR_S3_ENDPOINT"] = S3.Server! },
            };
            await cluster.InitializeAsync();
            RunAsALocalRunDoes(cluster);
            await cluster.UntilAsync(async () => (await s3.ListObjectsV2Async(new ListObjectsV2Request { BucketName = bucket })).S3Objects is not { Count: > 0 }, "an empty bucket");
        }
        finally
        {
            foreach (S3Object left in (await s3.ListObjectsV2Async(new ListObjectsV2Request { BucketName = bucket })).S3Objects ?? [])
                await s3.DeleteObjectAsync(bucket, left.Key);
            await s3.DeleteBucketAsync(bucket);
        }
    }

    private static void RunAsALocalRunDoes(LoopbackCluster cluster)
    {
        Pictures.Write(Path.Combine(cluster.Folder, "in", "a.png"), 300, 259);
        BbmrResult local = Bbmr.Run(cluster.Folder, cluster.Models, ["rescale", "in", "-r", "-o", "local", .. Parameters]);
        Assert.True(local.ExitCode == 0, local.ToString());
        BbmrResult submitted = cluster.Client(["submit", "in", "-r", "-o", "out", "--wait", "--json", .. Parameters]);
        Assert.True(submitted.ExitCode == 0, submitted.ToString());
        Assert.Equal(1, submitted.Lines[^1].GetProperty("done").GetInt32());
        string[] files = ["a.allocation.png", "a.bbmr", "a.png", "a.report.json"];
        Assert.Equal(files, Directory.EnumerateFileSystemEntries(Path.Combine(cluster.Folder, "out")).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        foreach (string file in files[..^1])
            Assert.True(UndisturbedRun.HashOf(Path.Combine(cluster.Folder, "local", file)) == UndisturbedRun.HashOf(Path.Combine(cluster.Folder, "out", file)), $"{file} differs from a local run");
    }
}

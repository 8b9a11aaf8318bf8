using Amazon.S3;
using Amazon.S3.Model;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults;

/// <summary>A cluster of real processes whose intermediate results lie in a bucket.</summary>
public sealed class RemoteStoreTests
{
    private static readonly string[] Parameters = ["--scorer", "bicubic", "--precision", "float32"];

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
            RunAsALocalRunDoes(cluster, "bucket");
            await cluster.UntilAsync(async () => (await s3.ListObjectsV2Async(new ListObjectsV2Request { BucketName = bucket })).S3Objects is not { Count: > 0 }, "an empty bucket");
        }
        finally
        {
            foreach (S3Object left in (await s3.ListObjectsV2Async(new ListObjectsV2Request { BucketName = bucket })).S3Objects ?? [])
                await s3.DeleteObjectAsync(bucket, left.Key);
            await s3.DeleteBucketAsync(bucket);
        }
    }

    /// <summary>A small job on a cluster and by itself: the same files with the same bytes.</summary>
    public static void RunAsALocalRunDoes(LoopbackCluster cluster, string folder)
    {
        Pictures.Write(Path.Combine(cluster.Folder, folder, "in", "a.png"), 300, 259);
        BbmrResult local = Bbmr.Run(cluster.Folder, cluster.Models, ["rescale", $"{folder}/in", "-r", "-o", $"{folder}/local", .. Parameters]);
        Assert.True(local.ExitCode == 0, local.ToString());
        BbmrResult submitted = cluster.Client(["submit", $"{folder}/in", "-r", "-o", $"{folder}/out", "--wait", "--json", .. Parameters]);
        Assert.True(submitted.ExitCode == 0, submitted.ToString());
        Assert.Equal(1, submitted.Lines[^1].GetProperty("done").GetInt32());
        string[] files = ["a.allocation.png", "a.bbmr", "a.png", "a.report.json"];
        Assert.Equal(files, Directory.EnumerateFileSystemEntries(Path.Combine(cluster.Folder, folder, "out")).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        foreach (string file in files[..^1])
            Assert.True(UndisturbedRun.HashOf(Path.Combine(cluster.Folder, folder, "local", file)) == UndisturbedRun.HashOf(Path.Combine(cluster.Folder, folder, "out", file)), $"{file} differs from a local run");
    }
}

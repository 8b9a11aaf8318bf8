using System.Text.Json;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults;

/// <summary>Several processes, one of them killed in the middle of the work.</summary>
public sealed class ClusterTests(LoopbackCluster cluster) : IClassFixture<LoopbackCluster>
{
    private static readonly string[] Pictures = ["a.png", "deeper/b.png", "deeper/c.png"];

    [Fact]
    public async Task A_folder_submitted_over_http_survives_a_killed_worker_and_gives_the_bytes_of_a_local_run()
    {
        // A worker that has all leases and stands still in the middle of one, so that the kill meets it at work.
        Assert.Equal(0, cluster.Client("drain", "w1").ExitCode);
        cluster.StartWorker("w2", new Dictionary<string, string>(StringComparer.Ordinal) { ["BBMR_FAULT_STOP_AT"] = "reconstruct:1:1" });
        await cluster.ReadyAsync(workers: 2);
        cluster["c"].WaitForError("(worker) has joined");
        WritePictures("in");
        string[] parameters = ["--scorer", "bicubic", "--precision", "float32"];
        BbmrResult local = Bbmr.Run(cluster.Folder, cluster.Models, ["rescale", "in", "-r", "-o", "local", .. parameters]);
        Assert.True(local.ExitCode == 0, local.ToString());

        BbmrResult submitted = cluster.Client(["submit", "in", "-r", "-o", "out", "--name", "three", "--key", "three-pictures", "--json", .. parameters]);
        Assert.True(submitted.ExitCode == 0, submitted.ToString());
        string job = Assert.Single(submitted.Lines).GetProperty("id").GetString()!;
        using Bbmr watch = Bbmr.Start(cluster.Folder, cluster.ClientEnvironment, "watch", job, "--json");
        cluster["w2"].WaitForError("standing still at reconstruct");
        Assert.Equal(0, cluster.Client("drain", "w1", "--undo").ExitCode);
        cluster["w2"].Signal("KILL");

        BbmrResult watched = watch.Wait();
        Assert.True(watched.ExitCode == 0, watched.ToString());
        JsonElement end = watched.Lines[^1];
        Assert.Equal(("job_finished", 3, 0), (end.GetProperty("event").GetString(), end.GetProperty("done").GetInt32(), end.GetProperty("failed").GetInt32()));
        AssertSame("local", "out");
        cluster["c"].WaitForError($"job {job} (three) is finished: 3 done, 0 skipped, 0 failed");

        // The same request again is the same job, another one under its key is refused, and a new job finds all done.
        Assert.Equal(job, Assert.Single(cluster.Client(["submit", "in", "-r", "-o", "out", "--key", "three-pictures", "--json", .. parameters]).Lines).GetProperty("id").GetString());
        BbmrResult other = cluster.Client(["submit", "in/a.png", "-o", "out", "--key", "three-pictures", .. parameters]);
        Assert.Equal(1, other.ExitCode);
        Assert.Contains("Idempotency-Key", other.Error, StringComparison.Ordinal);
        BbmrResult again = cluster.Client(["submit", "in", "-r", "-o", "out", "--wait", "--json", .. parameters]);
        Assert.True(again.ExitCode == 0, again.ToString());
        Assert.Equal(3, again.Lines[^1].GetProperty("skipped").GetInt32());
        Assert.Contains(cluster.Client("jobs", "--json").Lines, line => line.GetProperty("id").GetString() == job && line.GetProperty("state").GetString() == "finished");
        Assert.Equal(3, cluster.Client("status", job, "--images", "done", "--json").Lines.Count - 1);
        await cluster.ReadyAsync(workers: 1);
    }

    [Fact]
    public async Task A_worker_without_the_folder_gets_intermediate_results_over_http_and_gives_the_bytes_of_a_local_run()
    {
        await cluster.UntilAsync(() => Task.FromResult(cluster.Client("drain", "w1").ExitCode == 0), "w1 known and drained");
        int http = LoopbackCluster.FreePort();
        cluster.StartWorker("far", null, "--store", cluster.Server, "--http", $"127.0.0.1:{http}");
        await cluster.ReadyAsync(workers: 2);
        using var client = new HttpClient();
        using JsonDocument ready = JsonDocument.Parse(await (await client.GetAsync(new Uri($"http://127.0.0.1:{http}/healthz/ready"))).Content.ReadAsStringAsync());
        JsonElement store = ready.RootElement.GetProperty("checks").EnumerateArray().Single(check => check.GetProperty("name").GetString() == "store");
        Assert.True(store.GetProperty("ok").GetBoolean(), ready.RootElement.ToString());
        Assert.Equal(cluster.Server, store.GetProperty("detail").GetString());

        RemoteStoreTests.RunAsALocalRunDoes(cluster, "far");
        Assert.Empty(Directory.EnumerateFileSystemEntries(Path.Combine(cluster.Folder, "work-far", "blobs")));
        Assert.Empty(Directory.EnumerateFileSystemEntries(Path.Combine(cluster.Folder, "work-far", "tmp"), "lease-*"));
        await cluster.UntilAsync(() => Task.FromResult(!Directory.EnumerateFileSystemEntries(Path.Combine(cluster.Folder, "store")).Any()), "an empty store");
        cluster["far"].Signal("TERM");
        Assert.Equal(0, cluster["far"].Wait().ExitCode);
        Assert.Equal(0, cluster.Client("drain", "w1", "--undo").ExitCode);
        await cluster.ReadyAsync(workers: 1);
    }

    [Fact]
    public void An_archive_by_manifest_keeps_its_tree_records_what_fails_and_skips_what_is_done()
    {
        string[] images = [.. Enumerable.Range(0, 30).Select(i => $"set{i % 3}/{i:D2}.{(i % 2 == 0 ? "png" : "jpg")}")];
        for (int i = 0; i < images.Length; i++)
            BbmrCluster.Tests.Pictures.Write(Path.Combine(cluster.Folder, "archive", images[i]), 60 + i, 90 - i);
        File.WriteAllText(Path.Combine(cluster.Folder, "archive", "set0", "text.jpg"), "this is no picture");
        File.WriteAllBytes(Path.Combine(cluster.Folder, "archive", "set1", "empty.png"), []);
        string[] bad = ["set0/text.jpg", "set1/empty.png", "set2/missing.png"];
        File.WriteAllLines(Path.Combine(cluster.Folder, "archive", "list.txt"), ["# what is to be kept", .. images.Take(20), .. bad, "", .. images.Skip(20)]);

        string[] submit = ["submit", "--manifest", "archive/list.txt", "-o", "kept", "--scorer", "bicubic", "--wait", "--json"];
        BbmrResult first = cluster.Client(submit);
        Assert.True(first.ExitCode == 3, first.ToString());
        Assert.Equal((30, 0, 3), Counts(first));
        string job = first.Lines[0].GetProperty("id").GetString()!;
        BbmrResult failed = cluster.Client("status", job, "--images", "failed", "--json");
        Assert.Equal(bad.Select(name => Path.Combine(cluster.Folder, "archive", name)), failed.Lines.Skip(1).Select(image => image.GetProperty("input").GetString()));
        Assert.All(failed.Lines.Skip(1), image => Assert.NotEmpty(image.GetProperty("error").GetString()!));
        string[] expected = [.. images.SelectMany(image => new[] { ".allocation.png", ".bbmr", ".png", ".report.json" }.Select(extension => Path.ChangeExtension(image, null) + extension)).Order(StringComparer.Ordinal)];
        Assert.Equal(expected, Files("kept"));

        BbmrResult again = cluster.Client(submit);
        Assert.True(again.ExitCode == 3, again.ToString());
        Assert.Equal((0, 30, 3), Counts(again));
        Assert.Equal(expected, Files("kept"));

        static (int, int, int) Counts(BbmrResult result) => (result.Lines[^1].GetProperty("done").GetInt32(), result.Lines[^1].GetProperty("skipped").GetInt32(), result.Lines[^1].GetProperty("failed").GetInt32());
    }

    [Fact]
    public async Task A_worker_can_be_drained_and_work_again()
    {
        Assert.Equal(0, cluster.Client("drain", "w1").ExitCode);
        Assert.Contains((await NodeAsync("w1")).GetProperty("worker").GetString(), new[] { "draining", "drained" });
        Assert.Equal(0, cluster.Client("drain", "w1", "--undo").ExitCode);
        await cluster.UntilAsync(async () => (await NodeAsync("w1")).GetProperty("worker").GetString() == "active", "w1 active");
        BbmrResult nobody = cluster.Client("drain", "nobody");
        Assert.Equal((1, "bbmr: There is no worker 'nobody'.\n"), (nobody.ExitCode, nobody.Error));
    }

    [Fact]
    public async Task A_worker_that_is_told_to_end_leaves_with_code_0_and_another_may_join()
    {
        cluster.StartWorker("guest");
        await cluster.ReadyAsync(workers: 2);
        cluster["guest"].Signal("TERM");
        BbmrResult left = cluster["guest"].Wait();
        Assert.True(left.ExitCode == 0, left.ToString());
        Assert.Contains("guest has left the cluster", left.Error, StringComparison.Ordinal);
        await cluster.UntilAsync(async () => (await cluster.MembersAsync()).All(node => node.State == "up"), "nobody leaving any more");
    }

    [Fact]
    public async Task A_worker_that_was_frozen_and_removed_ends_with_its_own_code_when_it_wakes()
    {
        cluster.StartWorker("sleeper");
        await cluster.ReadyAsync(workers: 2);
        cluster["sleeper"].Signal("STOP");
        await cluster.ReadyAsync(workers: 1);
        cluster["sleeper"].Signal("CONT");
        BbmrResult woken = cluster["sleeper"].Wait();
        Assert.True(woken.ExitCode == 4, woken.ToString());
        Assert.Contains("was removed from the cluster", woken.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_coordinator_that_is_started_again_gets_back_the_worker_that_ended_with_it()
    {
        cluster["c"].Signal("TERM");
        BbmrResult left = cluster["c"].Wait(), worker = cluster["w1"].Wait();
        Assert.True(left.ExitCode == 0, left.ToString());
        Assert.True(worker.ExitCode == 4, worker.ToString());
        cluster.StartCoordinator();
        cluster.StartWorker("w1");
        await cluster.ReadyAsync(workers: 1);
    }

    [Fact]
    public async Task Every_path_of_the_api_is_in_its_document_and_errors_are_problems()
    {
        JsonElement document = await cluster.GetAsync("/openapi/v1.json");
        Assert.StartsWith("3.", document.GetProperty("openapi").GetString(), StringComparison.Ordinal);
        string[] paths = [.. document.GetProperty("paths").EnumerateObject().Select(path => path.Name)];
        foreach (string path in new[] { "/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/images", "/v1/jobs/{id}/events", "/v1/jobs/{id}/pause", "/v1/jobs/{id}/resume", "/v1/jobs/{id}/cancel", "/v1/jobs/{id}/retry", "/v1/nodes", "/v1/nodes/{name}/drain", "/v1/leases" })
            Assert.Contains(path, paths);
        BbmrResult unknown = cluster.Client("status", "nothing");
        Assert.Equal((1, "bbmr: There is no job 'nothing'.\n"), (unknown.ExitCode, unknown.Error));
        BbmrResult refused = cluster.Client("submit", "not-there", "-o", "out");
        Assert.Equal(1, refused.ExitCode);
        Assert.Contains("no such file or folder", refused.Error, StringComparison.Ordinal);
        JsonElement ready = await cluster.GetAsync("/healthz/ready");
        Assert.Equal("ready", ready.GetProperty("status").GetString());
        Assert.Equal(["joined", "journal", "models", "store"], ready.GetProperty("checks").EnumerateArray().Select(check => check.GetProperty("name").GetString()));
    }

    private async Task<JsonElement> NodeAsync(string name) =>
        (await cluster.GetAsync("/v1/nodes")).GetProperty("items").EnumerateArray().Single(node => node.GetProperty("name").GetString() == name);

    private void WritePictures(string folder)
    {
        for (int i = 0; i < Pictures.Length; i++)
            BbmrCluster.Tests.Pictures.Write(Path.Combine(cluster.Folder, folder, Pictures[i]), 256 + i, 256 - i);
    }

    private void AssertSame(string expected, string actual)
    {
        string[] files = [.. Files(expected)];
        Assert.Equal(files, Files(actual));
        foreach (string file in files.Where(file => !file.EndsWith(".report.json", StringComparison.Ordinal)))
            Assert.True(UndisturbedRun.HashOf(Path.Combine(cluster.Folder, expected, file)) == UndisturbedRun.HashOf(Path.Combine(cluster.Folder, actual, file)), $"{file} differs from a local run");
    }

    // A job's own work folder and temporary names must not be left.
    private IEnumerable<string> Files(string folder) => Directory.EnumerateFiles(Path.Combine(cluster.Folder, folder), "*", SearchOption.AllDirectories)
        .Select(file => Path.GetRelativePath(Path.Combine(cluster.Folder, folder), file)).Order(StringComparer.Ordinal);
}

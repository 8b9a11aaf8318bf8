using System.Security.Cryptography;
using System.Text.Json;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Work.Tests;

/// <summary>What happens to files that are there already, to half-done work, and on the way to the final names.</summary>
public sealed class OutputSafetyTests
{
    private static StageFailedException Refusal(Action action, FailureClass failure, string code)
    {
        var error = Assert.Throws<StageFailedException>(action);
        Assert.Equal((failure, code), (error.Failure, error.Code));
        return error;
    }

    [Fact]
    public void A_finished_image_is_not_done_again_even_when_its_source_was_touched()
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 140, 130);
        string stored = bench.Finish(bench.Job(source)).ReportJson!;
        SequentialDriver again = bench.Finish(bench.Job(source, id: "again"));
        Assert.Equal([new AlreadyDone(stored)], again.Reports);
        File.SetLastWriteTimeUtc(source, DateTime.UtcNow.AddDays(-3));
        Assert.Equal([new AlreadyDone(stored)], bench.Finish(bench.Job(source, id: "touched")).Reports);
    }

    [Fact]
    public void Results_of_other_parameters_weights_sources_or_origin_are_left_alone_unless_forced()
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 140, 130);
        ImageJob job = bench.Job(source);
        bench.Finish(job);
        byte[] container = File.ReadAllBytes(job.Outputs.Container!);

        Assert.Contains("another rate", Refusal(() => bench.Finish(job with { Parameters = job.Parameters with { Rate = 8 } }), FailureClass.Permanent, "conflict").Message, StringComparison.Ordinal);
        Assert.Contains("other weights", Refusal(() => bench.Finish(job with { Parameters = job.Parameters with { WeightHashes = new([new("fake", new string('b', 64))]) } }), FailureClass.Permanent, "conflict").Message, StringComparison.Ordinal);
        Assert.Contains("by a rescale", Refusal(() => bench.Finish(bench.Job(source, JobKind.Downscale)), FailureClass.Permanent, "conflict").Message, StringComparison.Ordinal);
        string report = File.ReadAllText(job.Outputs.Report);
        File.Delete(job.Outputs.Report);
        Assert.Contains("no report", Refusal(() => bench.Finish(job), FailureClass.Permanent, "conflict").Message, StringComparison.Ordinal);
        File.WriteAllText(job.Outputs.Report, report);
        File.Delete(source);
        bench.Picture("in.png", 141, 130);
        Assert.Contains("another source", Refusal(() => bench.Finish(job), FailureClass.Permanent, "conflict").Message, StringComparison.Ordinal);
        Assert.Equal(container, File.ReadAllBytes(job.Outputs.Container!));

        bench.Finish(job with { Parameters = job.Parameters with { Force = true } });
        Assert.NotEqual(container, File.ReadAllBytes(job.Outputs.Container!));
    }

    [Fact]
    public void An_output_that_someone_changed_is_left_alone_and_one_that_is_gone_is_made_again()
    {
        using var bench = new Bench();
        ImageJob job = bench.Job(bench.Picture("in.png", 140, 130));
        bench.Finish(job);
        byte[] image = File.ReadAllBytes(job.Outputs.Image!);
        File.Delete(job.Outputs.Image!);
        bench.Finish(job);
        Assert.Equal(image, File.ReadAllBytes(job.Outputs.Image!));

        byte[] changed = [.. image];
        changed[^1] ^= 1;
        File.WriteAllBytes(job.Outputs.Image!, changed);
        File.SetLastWriteTimeUtc(job.Outputs.Image!, DateTime.UtcNow.AddMinutes(1));
        Assert.Contains("changed since", Refusal(() => bench.Finish(job), FailureClass.Permanent, "conflict").Message, StringComparison.Ordinal);
        Assert.Equal(changed, File.ReadAllBytes(job.Outputs.Image!));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void An_output_that_leads_to_the_input_is_refused_even_when_forced(bool hardLink)
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 20, 20);
        ImageJob job = bench.Job(source, force: true);
        Directory.CreateDirectory(bench.Out);
        if (hardLink)
            Assert.True(SmallDisk.Run("ln", source, job.Outputs.Image!));
        else
            File.CreateSymbolicLink(job.Outputs.Image!, source);
        byte[] before = File.ReadAllBytes(source);
        Refusal(() => bench.Finish(job), FailureClass.Permanent, "output_is_input");
        Refusal(() => bench.Finish(job with { Outputs = job.Outputs with { Image = source } }), FailureClass.Permanent, "output_is_input");
        Assert.Equal(before, File.ReadAllBytes(source));
    }

    [Fact]
    public void Bad_inputs_give_one_sentence_and_leave_nothing()
    {
        using var bench = new Bench();
        string text = Path.Combine(bench.Root, "text.png"), gone = Path.Combine(bench.Root, "gone.png"), cut = bench.Picture("cut.png", 300, 300);
        File.WriteAllText(text, "this is not a picture");
        ImageJob truncated = bench.Job(cut);
        File.WriteAllBytes(cut, File.ReadAllBytes(cut)[..2000]);
        ImageJob missing = bench.Job(text) with { Source = gone, DisplayName = "gone.png" };
        string[] messages =
        [
            Refusal(() => bench.Finish(bench.Job(text)), FailureClass.Permanent, "refused").Message,
            Refusal(() => bench.Finish(truncated), FailureClass.Permanent, "refused").Message,
            Refusal(() => bench.Finish(missing), FailureClass.Permanent, "not_found").Message,
            Refusal(() => bench.Finish(bench.Job(bench.Picture("alpha.png", 20, 20, 4), format: "jpg")), FailureClass.Permanent, "refused").Message,
            Refusal(() => bench.Finish(bench.Job(bench.Picture("ok.png", 20, 20), engine: bench.Job(cut).Parameters.Engine with { Network = "missing" })), FailureClass.Permanent, "unavailable").Message,
        ];
        Assert.Equal(["text.png:", "cut.png:", "gone.png:", "alpha.png:", "ok.png:"], messages.Select(message => message.Split(' ')[0]));
        Assert.All(messages, message => Assert.DoesNotContain('\n', message));
        Assert.Empty(Directory.GetFiles(bench.Root, "*.bbmr*", SearchOption.AllDirectories));
    }

    [Fact]
    public void A_resumed_ingest_writes_only_what_is_missing()
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 200, 500);
        SequentialDriver driver = bench.Driver(bench.Job(source));
        driver.Ingest();
        StripBlobs[] all = [.. driver.Strips.Values];
        File.Delete(Path.Combine(bench.Root, "blobs", all[2].Raw!.Name));
        var lost = Assert.Throws<StageFailedException>(driver.Score);
        Assert.Equal((FailureClass.BlobLost, all[2].Raw), (lost.Failure, lost.Lost));

        driver.Strips.Remove(2);
        driver.Reports.Clear();
        driver.Ingest();
        Assert.Equal([new StripIngested(all[2])], driver.Reports.OfType<StripIngested>());
        Assert.Equal([new ImageProbed(driver.Facts!)], driver.Reports.OfType<ImageProbed>());
        driver.Score();

        driver.Strips.Remove(2);
        File.SetLastWriteTimeUtc(source, DateTime.UtcNow.AddDays(-1));
        driver.Reports.Clear();
        driver.Ingest();
        Assert.Single(driver.Reports.OfType<StripIngested>());
    }

    [Fact]
    public void A_source_that_changed_between_runs_is_ingested_anew_and_one_that_changed_since_stops_the_finish()
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 200, 500);
        SequentialDriver driver = bench.Driver(bench.Job(source));
        driver.Ingest();
        ImageFacts before = driver.Facts!;
        File.Delete(source);
        bench.Picture("in.png", 200, 400);
        driver.Reports.Clear();
        driver.Ingest();
        Assert.NotEqual(before.SourceSha256, driver.Facts!.SourceSha256);
        Assert.Equal(driver.Facts.Grid.Strips, driver.Reports.OfType<StripIngested>().Count());

        driver = Reconstructed(bench, driver.Job);
        File.Delete(source);
        bench.Picture("in.png", 200, 401);
        Refusal(() => driver.Lease(Stage.Finish), FailureClass.Permanent, "source_changed");
        Assert.Empty(Directory.GetFileSystemEntries(bench.Out));
    }

    [Fact]
    public void A_lost_metadata_blob_comes_back_with_the_ingest()
    {
        using var bench = new Bench();
        string source = bench.Picture("in.png", 100, 200, metadata: new ImageMetadata(null, null, "<x/>"u8.ToArray(), null, 3, 0, 0));
        SequentialDriver driver = bench.Driver(bench.Job(source));
        driver.Ingest();
        ImageFacts facts = driver.Facts!;
        bench.Store.Delete(facts.Metadata!);
        driver.Reports.Clear();
        driver.Ingest();
        Assert.Equal([new ImageProbed(facts)], driver.Reports.Where(report => report is not Working));
        driver.Score();
        driver.Allocate();
        driver.Each(Stage.Pack);
        driver.Each(Stage.Reconstruct);
        driver.Lease(Stage.Finish);
        driver.Lease(Stage.Commit);
        Assert.Equal(3, ImageFile.Probe(driver.Job.Outputs.Image!, ImageLimits.Default).Metadata.Orientation);
    }

    [Theory]
    [InlineData("raw")]
    [InlineData("packed")]
    [InlineData("rows")]
    [InlineData("top")]
    [InlineData("uniform-bottom")]
    public void A_damaged_blob_stops_the_finish_with_its_name_and_leaves_no_temporary_output(string label)
    {
        using var bench = new Bench();
        SequentialDriver driver = Reconstructed(bench);
        string damaged = Directory.GetFiles(Path.Combine(bench.Root, "blobs"), $"{label}-*", SearchOption.AllDirectories).Order(StringComparer.Ordinal).First();
        byte[] bytes = File.ReadAllBytes(damaged);
        bytes[bytes.Length / 2] ^= 4;
        File.WriteAllBytes(damaged, bytes);
        var error = Assert.Throws<StageFailedException>(() => driver.Lease(Stage.Finish));
        Assert.Equal(FailureClass.BlobLost, error.Failure);
        Assert.EndsWith(error.Lost!.Name, damaged, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFileSystemEntries(bench.Out));
        Assert.Empty(Directory.GetFiles(Path.Combine(bench.Root, "blobs"), "final-*", SearchOption.AllDirectories));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void A_crash_between_two_renames_is_made_good_by_the_same_commit(int renamed)
    {
        using var bench = new Bench();
        SequentialDriver driver = Reconstructed(bench);
        driver.Lease(Stage.Finish);
        foreach (OutputFile output in driver.Outputs.Take(renamed))
            File.Move(output.TemporaryPath, output.Path);
        driver.Lease(Stage.Commit);
        driver.Lease(Stage.Commit);
        Assert.All(driver.Outputs, output => Assert.Equal(output.Sha256, Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(output.Path)))));
        Assert.Equal(4, Directory.GetFileSystemEntries(bench.Out).Length);
        Assert.EndsWith(".report.json", driver.Outputs[^1].Path, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_appears_before_the_commit_is_left_alone_and_a_prepared_file_that_vanishes_is_asked_for_again()
    {
        using var bench = new Bench();
        SequentialDriver driver = Reconstructed(bench);
        driver.Lease(Stage.Finish);
        File.WriteAllText(driver.Job.Outputs.Image!, "mine");
        Refusal(() => driver.Lease(Stage.Commit), FailureClass.Permanent, "conflict");
        Assert.Equal("mine", File.ReadAllText(driver.Job.Outputs.Image!));
        Assert.False(File.Exists(driver.Job.Outputs.Container));

        File.Delete(driver.Job.Outputs.Image!);
        File.Delete(driver.Outputs[0].TemporaryPath);
        Refusal(() => driver.Lease(Stage.Commit), FailureClass.BlobLost, "blob_lost");
        driver.Lease(Stage.Finish, attempt: 2);
        driver.Lease(Stage.Commit);
        // The first attempt's litter is swept with the commit.
        Assert.Equal(4, Directory.GetFileSystemEntries(bench.Out).Length);
    }

    [Fact]
    public void Two_workers_at_the_same_finish_do_not_write_into_each_others_files()
    {
        // A coordinator that was started again counts attempts from one while a worker still writes for the one before.
        using var bench = new Bench();
        SequentialDriver driver = Reconstructed(bench);
        driver.Lease(Stage.Finish);
        IReadOnlyList<OutputFile> first = driver.Outputs;
        driver.Lease(Stage.Finish);
        Assert.Empty(first.Select(output => output.TemporaryPath).Intersect(driver.Outputs.Select(output => output.TemporaryPath), StringComparer.Ordinal));
        driver.Lease(Stage.Commit);
        Assert.All(driver.Outputs, output => Assert.Equal(output.Sha256, Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(output.Path)))));
        Assert.Equal(4, Directory.GetFileSystemEntries(bench.Out).Length);
    }

    [Fact]
    public void Only_the_temporary_files_of_the_same_image_are_swept()
    {
        using var bench = new Bench();
        Directory.CreateDirectory(bench.Out);
        ImageJob job = bench.Job(bench.Picture("in.png", 20, 20)), neighbour = bench.Job(bench.Picture("other.png", 20, 20));
        string other = CommitStage.TemporaryPath(neighbour, "1-a", neighbour.Outputs.Image!);
        string own = CommitStage.TemporaryPath(job with { Id = new ImageId("other-parameters") }, "7-b", job.Outputs.Image!);
        File.WriteAllText(other, "of another image");
        File.WriteAllText(own, "of a run before, with other parameters");
        bench.Driver(job).Ingest();
        Assert.Equal([other], Directory.GetFileSystemEntries(bench.Out));
    }

    [Fact]
    public void An_output_folder_that_cannot_be_made_is_noticed_before_the_work()
    {
        using var bench = new Bench();
        File.WriteAllText(bench.Out, "a file in its place");
        Refusal(() => bench.Driver(bench.Job(bench.Picture("in.png", 20, 20))).Ingest(), FailureClass.Permanent, "output");
    }

    [Fact]
    public void Other_weights_are_refused_for_a_container_unless_allowed()
    {
        using var bench = new Bench();
        ImageJob rescale = bench.Job(bench.Picture("in.png", 140, 130));
        bench.Finish(rescale);
        bench.Engines.WeightHash = new string('b', 64);
        ImageJob upscale = bench.Job(rescale.Outputs.Container!, JobKind.Upscale, outputs: Path.Combine(bench.Root, "up"));
        Assert.Contains("--allow-other-weights", Refusal(() => bench.Finish(upscale), FailureClass.Permanent, "other_weights").Message, StringComparison.Ordinal);
        Assert.True(bench.Finish(upscale with { Parameters = upscale.Parameters with { AllowOtherWeights = true } }).Done);
    }

    [Fact]
    public void A_damaged_container_is_refused_in_one_sentence()
    {
        using var bench = new Bench();
        ImageJob rescale = bench.Job(bench.Picture("in.png", 140, 300));
        bench.Finish(rescale);
        byte[] bytes = File.ReadAllBytes(rescale.Outputs.Container!);
        bytes[bytes.Length / 2] ^= 1;
        File.WriteAllBytes(rescale.Outputs.Container!, bytes);
        ImageJob upscale = bench.Job(rescale.Outputs.Container!, JobKind.Upscale, outputs: Path.Combine(bench.Root, "up"));
        Assert.StartsWith("in.bbmr: ", Refusal(() => bench.Finish(upscale), FailureClass.Permanent, "refused").Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_image_that_can_never_fit_fails_and_one_that_does_not_fit_now_waits()
    {
        using var bench = new Bench(new DirectoryBlobStoreOptions(Quota: 2_000_000, Floor: 0));
        Refusal(() => bench.Driver(bench.Job(bench.Picture("large.png", 600, 600))).Ingest(), FailureClass.Permanent, "work_space");
        BlobRef other = bench.Store.Write(new ImageId("other"), "a", 1, new byte[1_900_000]);
        ImageJob small = bench.Job(bench.Picture("small.png", 200, 200));
        Refusal(() => bench.Finish(small), FailureClass.StoreFull, "full");
        Assert.False(Directory.Exists(bench.Out));
        bench.Store.Delete(other);
        Assert.True(bench.Finish(small).Done);
    }

    [Fact]
    public void Below_the_floor_of_free_space_no_image_is_opened()
    {
        using var bench = new Bench(new DirectoryBlobStoreOptions(Floor: long.MaxValue / 2));
        Refusal(() => bench.Driver(bench.Job(bench.Picture("in.png", 20, 20))).Ingest(), FailureClass.StoreFull, "full");
    }

    [Fact]
    public void The_estimate_of_work_space_is_what_an_image_takes_at_most()
    {
        using var bench = new Bench();
        SequentialDriver driver = Reconstructed(bench);
        long estimate = WorkSpace.Estimate(driver.Job, driver.Facts!), final = 200L * 300 * 3;
        // The fake engine's bands have 3 channels where JointSR's have 12.
        long bands = 2 * 2 * 2 * FakeEngine.Keep * 2 * FakeEngine.Features * 4 * (12 - FakeEngine.Channels);
        Assert.InRange(bench.Store.Room.Used + final + bands, estimate * 0.9, estimate * 1.05);
    }

    [SmallDiskFact]
    public void A_full_output_disk_pauses_the_job_without_half_written_files_and_it_goes_on_when_there_is_room()
    {
        using var bench = new Bench();
        using var disk = new SmallDisk(bench.Root, 300_000);
        string filler = Path.Combine(disk.Path, "filler");
        ImageJob job = bench.Job(bench.Picture("in.png", 200, 300), outputs: disk.Path);
        SequentialDriver driver = Reconstructed(bench, job);
        for (int free = 8192; free <= 32768; free *= 2)
        {
            Fill(filler, disk.Path, free);
            Refusal(() => driver.Lease(Stage.Finish), FailureClass.StoreFull, "full");
            Assert.Equal([filler], Directory.GetFileSystemEntries(disk.Path));
        }
        File.Delete(filler);
        driver.Lease(Stage.Finish);
        driver.Lease(Stage.Commit);
        Assert.Equal(4, Directory.GetFileSystemEntries(disk.Path).Length);
    }

    [SmallDiskFact]
    public void A_full_work_disk_pauses_the_job_and_it_goes_on_when_there_is_room()
    {
        string root = Directory.CreateTempSubdirectory("bbmr-full-").FullName;
        using var disk = new SmallDisk(root, 1_200_000);
        string filler = Path.Combine(disk.Path, "filler");
        using (var bench = new Bench(new DirectoryBlobStoreOptions(Quota: 100_000_000, Floor: 0), Directory.CreateDirectory(Path.Combine(disk.Path, "w")).FullName))
        {
            string source = Path.Combine(root, "in.png");
            ImageEncoder.Encode(source, Bench.Pixels(200, 300, 3, 8), ImageMetadata.None, EncodeOptions.Default);
            SequentialDriver driver = bench.Driver(bench.Job(source, outputs: Path.Combine(root, "out")));
            driver.Ingest();
            driver.Score();
            driver.Allocate();
            driver.Each(Stage.Pack);
            Fill(filler, disk.Path, 60_000);
            Refusal(() => driver.Each(Stage.Reconstruct), FailureClass.StoreFull, "full");
            File.Delete(filler);
            driver.Each(Stage.Reconstruct);
            Fill(filler, disk.Path, 60_000);
            Refusal(() => driver.Lease(Stage.Finish), FailureClass.StoreFull, "full");
            File.Delete(filler);
            driver.Lease(Stage.Finish);
            driver.Lease(Stage.Commit);
            Assert.True(driver.Done);
        }
        disk.Dispose();
        Directory.Delete(root, recursive: true);
    }

    [Fact]
    public void A_block_that_cannot_be_reconstructed_asks_for_smaller_leases()
    {
        using var bench = new Bench();
        SequentialDriver driver = bench.Driver(bench.Job(bench.Picture("in.png", 256, 256)));
        driver.Ingest();
        driver.Score();
        driver.Allocate();
        driver.Each(Stage.Pack);
        bench.Engines.Made[0].NonFiniteReconstruction = 2;
        driver.StripsPerLease = 2;
        Refusal(() => driver.Each(Stage.Reconstruct), FailureClass.Block, "not_finite");
        driver.StripsPerLease = 1;
        driver.Each(Stage.Reconstruct);
    }

    [Fact]
    public void A_lease_that_is_taken_back_stops()
    {
        using var bench = new Bench();
        SequentialDriver driver = Reconstructed(bench);
        Assert.Throws<OperationCanceledException>(() => driver.Lease(Stage.Finish, cancellation: new CancellationToken(canceled: true)));
        Assert.Empty(Directory.GetFileSystemEntries(bench.Out));
    }

    [Fact]
    public void The_report_is_snake_case_json_that_reads_back_and_nulls_stay()
    {
        using var bench = new Bench();
        SequentialDriver driver = bench.Finish(bench.Job(bench.Picture("in.png", 5, 5)));
        using var json = JsonDocument.Parse(driver.ReportJson!);
        string[] names = [.. json.RootElement.EnumerateObject().Select(property => property.Name)];
        Assert.Superset(new HashSet<string>
        {
            "input", "state", "width", "height", "blocks", "rate_pixels", "rate_pixels_image", "bits_per_pixel", "psnr_y", "ssim_y", "psnr_y_uniform", "gain_db",
            "counts", "seconds", "peak_memory_bytes", "resumed", "seam", "device", "quarantined_blocks", "allocation", "fingerprint", "outputs", "source_bytes", "container_bytes",
        }, names.ToHashSet());
        Assert.Equal(JsonValueKind.Null, json.RootElement.GetProperty("ssim_y").ValueKind);
        Assert.Equal("done", json.RootElement.GetProperty("state").GetString());
        Assert.Equal("rescale", json.RootElement.GetProperty("kind").GetString());
        Assert.Equal(driver.ReportJson, JobReport.Parse(driver.ReportJson!).ToJson());
        Assert.Throws<JsonException>(() => JobReport.Parse("{}"));
        Assert.Throws<JsonException>(() => JobReport.Parse(driver.ReportJson!.Replace("\"report_version\": 1", "\"report_version\": 2", StringComparison.Ordinal)));
    }

    private static SequentialDriver Reconstructed(Bench bench, ImageJob? job = null)
    {
        SequentialDriver driver = bench.Driver(job ?? bench.Job(bench.Picture("in.png", 200, 300)));
        driver.Ingest();
        driver.Score();
        driver.Allocate();
        driver.Each(Stage.Pack);
        driver.Each(Stage.Reconstruct);
        return driver;
    }

    private static void Fill(string file, string disk, long leave)
    {
        File.Delete(file);
        using var stream = new FileStream(file, FileMode.Create, FileAccess.Write, FileShare.None, 1);
        for (long left; (left = new DriveInfo(disk).AvailableFreeSpace - leave) > 0;)
            stream.Write(new byte[Math.Min(left, 65536)]);
    }
}


namespace BbmrCluster.Work.Tests;

public sealed class WorkDirectoryTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("bbmr-work-").FullName;

    private string Work => Path.Combine(_root, "out", ".bbmr");

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public void It_is_made_with_its_parents_and_vanishes_when_nothing_is_unfinished()
    {
        WorkDirectory work = WorkDirectory.Open(Work);
        File.WriteAllText(work.Journal, "x");
        File.WriteAllText(work.Journal + "-wal", "x");
        Directory.CreateDirectory(Path.Combine(work.Blobs, "img"));
        work.Close(unfinished: false);
        Assert.False(Directory.Exists(Work));
        Assert.True(Directory.Exists(Path.Combine(_root, "out")));
    }

    [Fact]
    public void An_unfinished_job_keeps_journal_and_blobs_and_the_next_start_sweeps_temporaries()
    {
        WorkDirectory work = WorkDirectory.Open(Work);
        File.WriteAllText(work.Journal, "journal");
        File.WriteAllText(Path.Combine(work.Blobs, "b"), "blob");
        File.WriteAllText(Path.Combine(work.Temporary, "t"), "litter");
        work.Dispose();
        // What a killed process leaves behind.
        Directory.CreateDirectory(work.Temporary);
        File.WriteAllText(Path.Combine(work.Temporary, "u"), "litter");
        using WorkDirectory again = WorkDirectory.Open(Work);
        Assert.Equal("journal", File.ReadAllText(again.Journal));
        Assert.True(File.Exists(Path.Combine(again.Blobs, "b")));
        Assert.Empty(Directory.GetFileSystemEntries(again.Temporary));
    }

    [Fact]
    public void A_second_run_says_which_process_has_it()
    {
        using WorkDirectory work = WorkDirectory.Open(Work);
        var error = Assert.Throws<WorkDirectoryException>(() => WorkDirectory.Open(Work));
        Assert.Contains($"in use by process {Environment.ProcessId} on {Environment.MachineName}", error.Message, StringComparison.Ordinal);
        work.Dispose();
        WorkDirectory.Open(Work).Dispose();
    }

    [Fact]
    public void A_folder_with_other_things_in_it_is_not_taken()
    {
        Directory.CreateDirectory(Path.Combine(_root, "photos", "tmp"));
        var error = Assert.Throws<WorkDirectoryException>(() => WorkDirectory.Open(Path.Combine(_root, "photos")));
        Assert.Contains("is not empty", error.Message, StringComparison.Ordinal);
        Assert.True(Directory.Exists(Path.Combine(_root, "photos", "tmp")));
    }

    [Fact]
    public void Things_of_others_in_it_survive_its_end()
    {
        WorkDirectory work = WorkDirectory.Open(Work);
        File.WriteAllText(Path.Combine(Work, "notes.txt"), "mine");
        work.Close(unfinished: false);
        Assert.Equal([Path.Combine(Work, "notes.txt")], Directory.GetFileSystemEntries(Work));
    }

    [Fact]
    public void A_file_in_its_place_gives_one_sentence()
    {
        File.WriteAllText(Path.Combine(_root, "file"), "");
        Assert.Throws<WorkDirectoryException>(() => WorkDirectory.Open(Path.Combine(_root, "file")));
    }

    [Theory]
    [InlineData("nfs", true)]
    [InlineData("nfs4", true)]
    [InlineData("CIFS", true)]
    [InlineData("fuse.sshfs", true)]
    [InlineData("ext4", false)]
    [InlineData("tmpfs", false)]
    [InlineData("overlay", false)]
    public void Network_file_systems_are_known_by_name(string format, bool network) => Assert.Equal(network, FileSystem.IsNetwork(format));

    [SmallDiskFact]
    public void A_file_system_is_asked_for_at_the_place_itself_even_when_it_is_not_there_yet()
    {
        using var disk = new SmallDisk(_root, 1 << 20);
        string inside = Path.Combine(disk.Path, "not", "there", "yet");
        Assert.Equal("tmpfs", FileSystem.Format(inside));
        Assert.InRange(FileSystem.FreeBytes(inside), 1, 1 << 20);
        WorkDirectory.Open(inside).Close(unfinished: false);
        Assert.False(Directory.Exists(inside));
    }
}

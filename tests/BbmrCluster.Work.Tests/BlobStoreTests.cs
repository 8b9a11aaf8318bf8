
namespace BbmrCluster.Work.Tests;

public sealed class BlobStoreTests : IDisposable
{
    private static readonly ImageId Image = new("img-1");
    private readonly string _root = Directory.CreateTempSubdirectory("bbmr-blobs-").FullName;

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public void A_blob_is_read_back_as_written_and_named_by_its_hash()
    {
        var store = new DirectoryBlobStore(_root);
        BlobRef blob = store.Write(Image, "raw-00001", 1, [1, 2, 3]);
        Assert.Equal([1, 2, 3], store.Read(blob));
        Assert.Equal(blob, store.Write(Image, "raw-00001", 2, [1, 2, 3]));
        Assert.NotEqual(blob.Name, store.Write(Image, "raw-00001", 1, [1, 2, 4]).Name);
        Assert.StartsWith("img-1/raw-00001.", blob.Name, StringComparison.Ordinal);
        Assert.Equal(6, store.Room.Used);
        Assert.Equal([1, 2, 3], File.ReadAllBytes(store.LocalFile(blob, _root)));
    }

    [Fact]
    public void A_damaged_shortened_or_deleted_blob_is_reported_lost()
    {
        var store = new DirectoryBlobStore(_root);
        BlobRef blob = store.Write(Image, "raw-00001", 1, new byte[1000]);
        string file = Path.Combine(_root, blob.Name);
        byte[] bytes = File.ReadAllBytes(file);
        bytes[500] ^= 1;
        File.WriteAllBytes(file, bytes);
        AssertLost(store, blob);
        File.WriteAllBytes(file, bytes[..999]);
        AssertLost(store, blob);
        File.Delete(file);
        AssertLost(store, blob);
        store.Write(Image, "raw-00001", 2, new byte[1000]);
        Assert.Equal(1000, store.Read(blob).Length);

        static void AssertLost(DirectoryBlobStore store, BlobRef blob)
        {
            var error = Assert.Throws<StageFailedException>(() => store.Read(blob));
            Assert.Equal((FailureClass.BlobLost, blob), (error.Failure, error.Lost));
        }
    }

    [Fact]
    public void The_quota_refuses_what_does_not_fit_and_leaves_nothing_behind()
    {
        var store = new DirectoryBlobStore(_root, new DirectoryBlobStoreOptions(Quota: 1000));
        BlobRef first = store.Write(new ImageId("img-2"), "a", 1, new byte[600]);
        var error = Assert.Throws<StageFailedException>(() => store.Write(Image, "b", 1, new byte[401]));
        Assert.Equal((FailureClass.StoreFull, "full"), (error.Failure, error.Code));
        Assert.Single(Directory.GetFiles(_root, "*", SearchOption.AllDirectories));
        store.Write(Image, "b", 1, new byte[400]);
        store.Delete(first);
        store.Delete(first);
        Assert.Equal(400, store.Room.Used);
        store.Write(Image, "c", 1, new byte[600]);
    }

    [Fact]
    public void An_image_that_needs_more_than_the_quota_by_itself_does_not_wait_for_room()
    {
        var store = new DirectoryBlobStore(_root, new DirectoryBlobStoreOptions(Quota: 1000));
        store.Write(Image, "a", 1, new byte[600]);
        var error = Assert.Throws<StageFailedException>(() => store.Write(Image, "b", 1, new byte[401]));
        Assert.Equal((FailureClass.Permanent, "work_space"), (error.Failure, error.Code));
        Assert.Contains("--max-work", error.Message, StringComparison.Ordinal);
        Assert.Equal(600, store.Room.Used);
    }

    [SmallDiskFact]
    public void A_store_that_was_opened_on_a_full_disk_has_room_when_the_disk_has()
    {
        using var disk = new SmallDisk(_root, 8 << 20);
        string filler = Path.Combine(disk.Path, "filler");
        File.WriteAllBytes(filler, new byte[(8 << 20) - (64 << 10)]);
        var store = new DirectoryBlobStore(Path.Combine(disk.Path, "store"), new DirectoryBlobStoreOptions(Floor: 0));
        byte[] content = new byte[1 << 20];
        Assert.Equal(FailureClass.StoreFull, Assert.Throws<StageFailedException>(() => store.Write(Image, "a", 1, content)).Failure);
        File.Delete(filler);
        Assert.Null(store.Room.Lacks(content.Length));
        store.Write(Image, "a", 1, content);
    }

    [Fact]
    public void A_new_start_counts_blobs_and_sweeps_temporaries()
    {
        var store = new DirectoryBlobStore(_root, new DirectoryBlobStoreOptions(Quota: 1000));
        BlobRef blob = store.Write(Image, "a", 1, new byte[600]);
        string litter = Path.Combine(_root, "img-1", "b.0123.1-77-3.tmp");
        File.WriteAllBytes(litter, new byte[5000]);
        var again = new DirectoryBlobStore(_root, new DirectoryBlobStoreOptions(Quota: 1000));
        Assert.False(File.Exists(litter));
        Assert.Equal(600, again.Room.Used);
        Assert.Equal(600, again.Read(blob).Length);
        File.WriteAllBytes(litter, new byte[5000]);
        _ = new DirectoryBlobStore(_root, new DirectoryBlobStoreOptions(Exclusive: false));
        Assert.True(File.Exists(litter));
    }

    [Fact]
    public void Blobs_of_an_image_are_deleted_together_and_those_of_others_stay()
    {
        var store = new DirectoryBlobStore(_root);
        BlobRef other = store.Write(new ImageId("img-10"), "a", 1, new byte[5]);
        store.Write(Image, "a", 1, new byte[6]);
        store.Write(Image, "b", 1, new byte[7]);
        store.DeleteImage(Image);
        store.DeleteImage(Image);
        Assert.Equal(5, store.Room.Used);
        Assert.Equal(5, store.Read(other).Length);
        Assert.False(Directory.Exists(Path.Combine(_root, "img-1")));
    }

    [Theory]
    [InlineData("../secret")]
    [InlineData("/etc/passwd")]
    [InlineData("img-1/../../x")]
    [InlineData("img-1//x")]
    [InlineData("img-1/.hidden")]
    [InlineData("img-1/a\0b")]
    [InlineData("")]
    public void A_name_that_leads_elsewhere_is_refused(string name)
    {
        var store = new DirectoryBlobStore(_root);
        Assert.Throws<ArgumentException>(() => store.Read(new BlobRef(name, 1, new string('0', 32))));
        Assert.Throws<ArgumentException>(() => store.Delete(new BlobRef(name, 1, new string('0', 32))));
    }

    [Fact]
    public void Room_says_why_there_is_none()
    {
        Assert.Null(new StoreRoom(10, 100, 1000, 500).Lacks(90));
        Assert.Contains("at most 100 bytes", new StoreRoom(10, 100, 1000, 500).Lacks(91), StringComparison.Ordinal);
        Assert.Contains("at least 500 bytes", new StoreRoom(10, 100, 499, 500).Lacks(1), StringComparison.Ordinal);
        Assert.Contains("are needed", new StoreRoom(10, 10_000, 1000, 500).Lacks(1001), StringComparison.Ordinal);
    }

    [SmallDiskFact]
    public void A_disk_that_is_really_full_is_told_apart_and_nothing_half_written_stays()
    {
        using var disk = new SmallDisk(_root, 1 << 20);
        var store = new DirectoryBlobStore(disk.Path, new DirectoryBlobStoreOptions(Quota: long.MaxValue / 4, Floor: 0));
        BlobRef blob = store.Write(Image, "a", 1, new byte[600_000]);
        var error = Assert.Throws<StageFailedException>(() => store.Write(Image, "b", 1, new byte[600_000]));
        Assert.Equal(FailureClass.StoreFull, error.Failure);
        Assert.Equal(600_000, store.Room.Used);
        Assert.Single(Directory.GetFiles(disk.Path, "*", SearchOption.AllDirectories));
        store.Delete(blob);
        store.Write(Image, "b", 1, new byte[600_000]);
    }
}

using BbmrCluster.Tests;
using BbmrCluster.Work;

namespace BbmrCluster.Node.Tests;

/// <summary>What every kind of store does alike: a folder, the folder of another node over HTTP, a bucket.</summary>
public sealed class BlobStoreContractTests : IDisposable
{
    private static readonly ImageId Image = new("img-1"), Other = new("img-10");
    private readonly string _scratch = Directory.CreateTempSubdirectory("bbmr-scratch-").FullName;

    public void Dispose() => Directory.Delete(_scratch, recursive: true);

    [Theory]
    [InlineData(TestStore.Folder)]
    [InlineData(TestStore.Http)]
    [S3InlineData(TestStore.Bucket)]
    public async Task A_blob_is_read_back_as_written_by_every_node(string kind)
    {
        await using TestStore store = await TestStore.OpenAsync(kind);
        IBlobStore writer = store.Open(), reader = store.Open();
        foreach (int length in (int[])[0, 1, 3_000_001])
        {
            byte[] content = Bytes(length);
            BlobRef blob = writer.Write(Image, "raw-00001", 1, content);
            Assert.Equal((length, BlobNames.Hash(content)), (blob.Length, blob.Hash));
            Assert.Equal(content, reader.Read(blob));
            Assert.Equal(content, File.ReadAllBytes(reader.LocalFile(blob, _scratch)));
        }
        Assert.NotEmpty(writer.Check());
        Assert.True(writer.Room.Quota > 0);
        Assert.Equal(3, (await store.NamesAsync()).Count);
    }

    [Theory]
    [InlineData(TestStore.Folder)]
    [InlineData(TestStore.Http)]
    [S3InlineData(TestStore.Bucket)]
    public async Task A_blob_that_is_damaged_shortened_lengthened_or_gone_is_lost_until_it_is_written_again(string kind)
    {
        await using TestStore store = await TestStore.OpenAsync(kind);
        IBlobStore blobs = store.Open();
        byte[] content = Bytes(100_000);
        foreach (Func<byte[], byte[]?> damage in (Func<byte[], byte[]?>[])[Flipped, bytes => bytes[..^1], bytes => [.. bytes, 0], bytes => [], _ => null])
        {
            BlobRef blob = blobs.Write(Image, "raw-00001", 1, content);
            await store.ReplaceAsync(blob, damage);
            Lost(() => blobs.Read(blob));
            Lost(() => blobs.LocalFile(blob, _scratch));
            Assert.Equal(blob, blobs.Write(Image, "raw-00001", 2, content));
            Assert.Equal(content, blobs.Read(blob));
        }
        Assert.Empty(Directory.GetFiles(_scratch));

        static byte[] Flipped(byte[] bytes)
        {
            bytes[50_000] ^= 1;
            return bytes;
        }

        void Lost(Action action)
        {
            var error = Assert.Throws<StageFailedException>(action);
            Assert.Equal((FailureClass.BlobLost, "blob_lost"), (error.Failure, error.Code));
            Assert.StartsWith("img-1/raw-00001.", error.Lost!.Name, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(TestStore.Folder)]
    [InlineData(TestStore.Http)]
    [S3InlineData(TestStore.Bucket)]
    public async Task Writers_that_agree_share_a_blob_and_writers_that_differ_do_not_meet(string kind)
    {
        await using TestStore store = await TestStore.OpenAsync(kind);
        byte[] one = Bytes(200_000), other = [.. one[1..], 7];
        // On threads of their own, as devices have: the pool has few, and the server in this process needs some.
        BlobRef[] written = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => Task.Factory.StartNew(
            () => store.Open().Write(Image, "rows-00001", i, i % 2 == 0 ? one : other), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default)));
        Assert.Equal(2, written.Distinct().Count());
        Assert.Equal(one, store.Open().Read(written[0]));
        Assert.Equal(other, store.Open().Read(written[1]));
        Assert.Equal(written.Select(blob => blob.Name).Distinct().Order(StringComparer.Ordinal), await store.NamesAsync());
    }

    [Theory]
    [InlineData(TestStore.Folder)]
    [InlineData(TestStore.Http)]
    [S3InlineData(TestStore.Bucket)]
    public async Task Blobs_of_an_image_are_deleted_together_and_those_of_others_stay(string kind)
    {
        await using TestStore store = await TestStore.OpenAsync(kind);
        IBlobStore blobs = store.Open();
        BlobRef other = blobs.Write(Other, "a", 1, Bytes(5)), first = blobs.Write(Image, "a", 1, Bytes(6));
        blobs.Write(Image, "b", 1, Bytes(7));
        Assert.Equal([Image, Other], store.Open().Images().Select(one => one.Image).OrderBy(image => image.Value, StringComparer.Ordinal));
        Assert.All(blobs.Images(), one => Assert.InRange(one.Written, DateTimeOffset.UtcNow.AddHours(-1), DateTimeOffset.UtcNow.AddHours(1)));
        blobs.Delete(first);
        blobs.Delete(first);
        blobs.DeleteImage(Image);
        blobs.DeleteImage(Image);
        Assert.Equal([other.Name], await store.NamesAsync());
        Assert.Equal([Other], blobs.Images().Select(one => one.Image));
        Assert.Equal(5, blobs.Read(other).Length);
    }

    [Theory]
    [InlineData(TestStore.Folder)]
    [InlineData(TestStore.Http)]
    [S3InlineData(TestStore.Bucket)]
    public async Task A_full_store_refuses_what_does_not_fit_and_leaves_nothing_of_it(string kind)
    {
        await using TestStore store = await TestStore.OpenAsync(kind, quota: 1000);
        IBlobStore blobs = store.Open();
        BlobRef first = blobs.Write(Other, "a", 1, Bytes(600));
        Assert.Equal((600, 1000), (blobs.Room.Used, blobs.Room.Quota));
        var full = Assert.Throws<StageFailedException>(() => blobs.Write(Image, "b", 1, Bytes(401)));
        Assert.Equal((FailureClass.StoreFull, "full"), (full.Failure, full.Code));
        Assert.Equal([first.Name], await store.NamesAsync());
        blobs.Write(Image, "b", 1, Bytes(400));
        // Waiting for room would have no end.
        var alone = Assert.Throws<StageFailedException>(() => blobs.Write(Image, "c", 1, Bytes(601)));
        Assert.Equal((FailureClass.Permanent, "work_space"), (alone.Failure, alone.Code));
        Assert.Contains("--max-work", alone.Message, StringComparison.Ordinal);
        blobs.Delete(first);
        blobs.Write(Image, "c", 1, Bytes(600));
    }

    [Theory]
    [InlineData(TestStore.Folder)]
    [InlineData(TestStore.Http)]
    [S3InlineData(TestStore.Bucket)]
    public async Task A_name_that_is_none_reaches_nothing(string kind)
    {
        await using TestStore store = await TestStore.OpenAsync(kind);
        IBlobStore blobs = store.Open();
        foreach (string name in (string[])["", "a", "../secret", "/etc/passwd", "img-1/../../x", "img-1/a.0123456789abcdef/../..", "img-1/.hidden", "IMG/a.0123456789abcdef", "img-1/a.0123456789abcdef\n"])
        {
            var blob = new BlobRef(name, 1, new string('0', 32));
            Assert.Throws<ArgumentException>(() => blobs.Read(blob));
            Assert.Throws<ArgumentException>(() => blobs.LocalFile(blob, _scratch));
            Assert.Throws<ArgumentException>(() => blobs.Delete(blob));
        }
        Assert.Throws<ArgumentException>(() => blobs.Write(Image, "a/b", 1, [1]));
    }

    private static byte[] Bytes(int length)
    {
        var bytes = new byte[length];
        new Random(length).NextBytes(bytes);
        return bytes;
    }
}

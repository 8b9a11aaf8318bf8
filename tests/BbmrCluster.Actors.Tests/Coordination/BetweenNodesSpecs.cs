using Akka.Actor;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.Coordination;

/// <summary>What matters once messages leave the process and processes come and go.</summary>
[Collection("nodes")]
public sealed class BetweenNodesSpecs : IDisposable
{
    private readonly FakeWorld _world = new();
    private readonly JournalFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Leases_of_a_large_image_go_by_way_of_the_blob_store_and_arrive_whole()
    {
        // 90 strips: what Finish needs of them is more than a message should hold.
        var blobs = new FakeBlobs();
        var job = FakeWorld.Job("tall", 128, 90 * 128);
        await using var node = await TestNode.StartAsync(_world, _folder, settings: TestNode.Fast with { BetweenNodes = true }, blobs: blobs);
        var all = await node.RunAsync(job);
        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        Assert.NotEqual(0, blobs.Written);
        Assert.Equal(90, _world.Of(Stage.Finish).Single().Work.Strips.Count);
    }

    [Fact]
    public async Task A_store_that_does_not_take_the_lists_of_a_lease_pauses_the_image_until_it_does()
    {
        int refusals = 0;
        var blobs = new FakeBlobs
        {
            Writing = () =>
            {
                if (Interlocked.Increment(ref refusals) <= 2)
                    throw new StageFailedException(FailureClass.StoreFull, "full");
            },
        };
        var job = FakeWorld.Job("tall", 128, 90 * 128);
        await using var node = await TestNode.StartAsync(_world, _folder, settings: TestNode.Fast with { BetweenNodes = true }, blobs: blobs);
        var all = await node.RunAsync(job);
        Assert.IsType<ImageOutcome.Done>(all.Outcome(job.Id));
        Assert.Contains(all, one => one is JobNotification.ImagePaused);
    }

    [Theory]
    [InlineData(20, true)]
    [InlineData(0, false)]
    public async Task A_worker_whose_process_ends_finishes_its_leases_or_gives_them_back(int drainSeconds, bool finishes)
    {
        var settings = TestNode.Fast with { DrainTime = TimeSpan.FromSeconds(drainSeconds) };
        _world.Hold(Stage.Ingest);
        await using var node = await TestNode.StartAsync(_world, _folder, settings: settings);
        await using var run = await node.Client.SubmitAsync(new Client.ArchiveSpec([FakeWorld.Job("a", 300, 200)]));
        Assert.True(_world.Held.Wait(TimeSpan.FromSeconds(120)));

        var left = CoordinatedShutdown.Get(node.System).Run(CoordinatedShutdown.ClrExitReason.Instance);
        if (finishes)
        {
            // It waits for the device, which goes on in its own time.
            Assert.NotSame(left, await Task.WhenAny(left, Task.Delay(TimeSpan.FromMilliseconds(300))));
            _world.Release();
        }
        await left.WaitAsync(TimeSpan.FromSeconds(120));
        Assert.Equal(finishes ? [Stage.Ingest] : [], _world.Log.Select(ran => ran.Stage));
    }
}

using BbmrCluster.Actors.Images;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Tests.Coordination;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;
using FsCheck;
using FsCheck.Fluent;
using FsCheck.Xunit;

namespace BbmrCluster.Actors.Tests.State;

/// <summary>Plan, state, lease book, block fate, windows and allocation: all without an actor system.</summary>
public sealed class ImageStateTests
{
    private static readonly DateTimeOffset Now = DateTimeOffset.UnixEpoch;
    private static readonly ImageFacts Facts = new(60 * 128, 3 * 128, 3, false, 8, "png", 10, DateTime.UnixEpoch, "cafe", new BlobRef("meta", 1, "h"));

    [Property(MaxTest = 200)]
    public void Leases_cover_every_block_once_and_hold_whole_strips_except_for_score(PositiveInt width, PositiveInt height)
    {
        var grid = new BlockGrid((width.Get * 97 % 20_000) + 1, (height.Get * 89 % 9_000) + 1);
        var plan = new LeasePlan(grid);
        foreach (var stage in new[] { Stage.Score, Stage.Pack, Stage.Reconstruct })
        {
            var units = plan.Of(stage).ToList();
            Assert.Equal(Enumerable.Range(0, grid.Count), units.SelectMany(unit => Enumerable.Range(unit.FirstBlock, unit.BlockCount)));
            if (stage == Stage.Score)
            {
                Assert.All(units, unit => Assert.InRange(unit.BlockCount, 1, LeasePlan.MaxBlocks));
                continue;
            }
            Assert.All(units, unit => Assert.Equal(0, unit.FirstBlock % grid.Columns));
            Assert.All(units, unit => Assert.True(unit.BlockCount <= LeasePlan.MaxBlocks || unit.BlockCount == grid.Columns));
            Assert.Equal(Enumerable.Range(0, units.Count), units.Select(unit => plan.GroupOf(unit.FirstBlock)));
        }
    }

    [Fact]
    public void Deciding_twice_gives_no_second_event()
    {
        var state = Probed();
        StageReport[] reports =
        [
            new StripIngested(new StripBlobs(0, Raw: new BlobRef("r0", 1, "h"))),
            new StripIngested(new StripBlobs(1, Raw: new BlobRef("r1", 1, "h"))),
        ];
        foreach (var report in reports)
        {
            var events = state.Decide(report, current: true);
            Assert.Single(events);
            state = events.Aggregate(state, (s, e) => s.Apply(e));
            Assert.Empty(state.Decide(report, current: true));
        }
        Assert.Empty(state.Decide(new ImageProbed(Facts), current: true));
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(3)]
    [InlineData(int.MaxValue)]
    public void Strips_outside_the_image_are_ignored(int strip) =>
        Assert.Empty(Probed().Decide(new StripIngested(new StripBlobs(strip, Raw: new BlobRef("r", 1, "h"))), current: true));

    [Fact]
    public void Results_of_a_stage_before_its_inputs_are_ignored()
    {
        var state = Probed();
        Assert.Empty(state.Decide(new StripPacked(new StripBlobs(0, Packed: new BlobRef("p", 1, "h"))), current: true));
        Assert.Empty(state.Decide(new OutputsCommitted(), current: true));
        Assert.Empty(ImageState.Empty.Decide(new OutputsCommitted(), current: true));
    }

    [Fact]
    public void Another_file_under_the_old_name_starts_the_image_anew()
    {
        var state = Apply(Probed(), new ImageEvents.StripStored(Stage.Ingest, new StripBlobs(0, Raw: new BlobRef("r0", 1, "h"))));
        var after = state.Decide(new ImageProbed(Facts with { SourceSha256 = "beef" }), current: true).Aggregate(state, (s, e) => s.Apply(e));
        Assert.Equal("beef", after.Facts!.SourceSha256);
        Assert.All(after.Strips, strip => Assert.Null(strip.Raw));
        Assert.Equal(state.Run, after.Run);
    }

    [Fact]
    public void What_a_woken_coordinator_wrote_below_deleted_events_is_void()
    {
        var strip = new ImageEvents.StripStored(Stage.Ingest, new StripBlobs(0, Raw: new BlobRef("r0", 1, "h")));
        var after = Apply(Apply(ImageState.Empty, strip), new ImageEvents.Closed(new ImageOutcome.Done("{}")));
        Assert.Null(after.Outcome);
        Assert.IsType<ImageEvents.Submitted>(Assert.Single(after.DecideOpen(default, new WorkPolicy(), Probed().Job!)));
    }

    [Fact]
    public void Losing_one_band_makes_all_of_a_strips_reconstruction_again_and_keeps_the_rest()
    {
        var blob = new Func<string, BlobRef>(name => new BlobRef(name, 1, "h"));
        var full = new StripBlobs(1, blob("raw"), blob("packed"), blob("rows"), blob("top"), blob("bottom"), blob("ut"), blob("ub"), 3.5);
        var state = Apply(Apply(Probed(), new ImageEvents.StripStored(Stage.Reconstruct, full)), Assert.Single(Apply(Probed(), new ImageEvents.StripStored(Stage.Reconstruct, full)).DecideLost(Stage.Finish, blob("bottom"))));
        Assert.Equal(new StripBlobs(1, blob("raw"), blob("packed")), state.Strips[1]);
        Assert.Empty(state.DecideLost(Stage.Finish, blob("bottom")));
    }

    [Fact]
    public void Lost_metadata_reopens_ingest_until_it_is_probed_again()
    {
        var state = Enumerable.Range(0, 3).Aggregate(Probed(), (s, i) => Apply(s, new ImageEvents.StripStored(Stage.Ingest, new StripBlobs(i, Raw: new BlobRef($"r{i}", 1, "h")))));
        Assert.True(state.Ingested);
        state = Apply(state, Assert.Single(state.DecideLost(Stage.Finish, Facts.Metadata)));
        Assert.False(state.Ingested);
        state = Apply(state, Assert.Single(state.Decide(new ImageProbed(Facts), current: true)));
        Assert.True(state.Ingested);
    }

    [Theory]
    [InlineData(60, 0, 13)]
    [InlineData(60, 37, 13)]
    [InlineData(64, 63, 13)]
    [InlineData(1, 0, 1)]
    public void A_poison_block_is_found_by_halving(int size, int poison, int most)
    {
        var book = new LeaseBook(1, new CoordinationSettings());
        var unit = new WorkUnit(Stage.Score, 0, size);
        var fates = Enumerable.Range(0, size).ToDictionary(block => block, block => new BlockFate(block, 16384, 3, 3));
        var queue = new Queue<Piece>([new Piece(unit, unit, 1, Now)]);
        int leases = 0, settled = 0;
        bool quarantined = false;
        var state = Enumerable.Range(0, 3).Aggregate(Probed(), (s, i) => Apply(s, new ImageEvents.StripStored(Stage.Ingest, new StripBlobs(i, Raw: new BlobRef($"r{i}", 1, "h")))));
        while (queue.TryDequeue(out var piece))
        {
            leases++;
            var lease = book.Grant(piece, new WorkerId("w"), Now);
            book.End(lease.Id);
            if (!lease.Range.Contains(poison))
            {
                settled += lease.Range.BlockCount;
                continue;
            }
            var wishes = new Dictionary<int, int>();
            for (int block = lease.Range.FirstBlock; block < lease.Range.End; block++)
            {
                (fates[block], object answer) = fates[block].Judge(new ImageChildren.BlockLeaseFailed(FailureClass.Block, lease.Range.BlockCount));
                if (answer is ImageChildren.BlockWantsLease wish)
                    wishes[block] = wish.MaxBlocks;
                else
                    quarantined = block == poison;
            }
            book.Cut(lease, wishes, Now);
            while (book.Next(state, _ => true, Now.AddHours(1)) is { Attempt: > 1 } next)
            {
                book.End(book.Grant(next, new WorkerId("w"), Now).Id);
                queue.Enqueue(next);
            }
        }
        Assert.True(quarantined);
        Assert.Equal(size - 1, settled);
        Assert.InRange(leases, 1, most);
    }

    [Fact]
    public void Passing_failures_of_a_block_halve_its_lease_only_after_some_tries()
    {
        var fate = new BlockFate(5, 16384, 3, 3);
        (fate, object first) = fate.Judge(new ImageChildren.BlockLeaseFailed(FailureClass.Transient, 60));
        (fate, object second) = fate.Judge(new ImageChildren.BlockLeaseFailed(FailureClass.Transient, 60));
        (fate, object third) = fate.Judge(new ImageChildren.BlockLeaseFailed(FailureClass.Transient, 60));
        (_, object alone) = fate.Judge(new ImageChildren.BlockLeaseFailed(FailureClass.Transient, 1));
        Assert.Equal([60, 60, 30], new[] { first, second, third }.Cast<ImageChildren.BlockWantsLease>().Select(wish => wish.MaxBlocks));
        Assert.Null(Assert.IsType<ImageChildren.BlockSettled>(alone).Sse);
    }

    [Theory]
    [InlineData(0, 1, 2, true)]
    [InlineData(-1, 1, 2, false)]
    [InlineData(double.NaN, 1, 2, false)]
    [InlineData(1, double.PositiveInfinity, 2, false)]
    [InlineData(1, 2, 6502501, false)]
    [InlineData(1, 2, 6502500, true)]
    public void Scores_are_judged_by_what_the_blocks_pixels_can_differ(double a, double b, double c, bool good)
    {
        var fate = new BlockFate(5, 100, 3, 3);
        object answer = fate.Judge(new ImageChildren.BlockResult([a, b, c], 60));
        Assert.Equal(good, answer is ImageChildren.BlockSettled { Sse: not null });
        Assert.Equal(!good, fate.Judge(new ImageChildren.BlockResult([a, b, c], 1)) is ImageChildren.BlockSettled { Sse: null });
    }

    [Fact]
    public void A_failed_group_of_strips_is_halved_for_a_block_and_retried_for_passing_reasons()
    {
        var book = new LeaseBook(1, new CoordinationSettings());
        var unit = new WorkUnit(Stage.Pack, 0, 30);
        var lease = book.Grant(new Piece(unit, unit, 1, Now), new WorkerId("w"), Now);
        Assert.True(book.Retry(lease, FailureClass.Block, columns: 10, attempts: 3, Now));
        Assert.Equal(2, book.TakeBisected());
        Assert.Equal(0, book.TakeBisected());
        Assert.True(book.Retry(lease, FailureClass.Transient, 10, 3, Now));
        Assert.True(book.Retry(lease, FailureClass.Transient, 10, 3, Now));
        Assert.False(book.Retry(lease, FailureClass.Transient, 10, 3, Now));
    }

    [Fact]
    public void Deadlines_follow_the_measured_speed_but_never_less_than_the_minimum()
    {
        var settings = new CoordinationSettings();
        var book = new LeaseBook(1, settings);
        var unit = new WorkUnit(Stage.Score, 0, 60);
        var first = book.Grant(new Piece(unit, unit, 1, Now), new WorkerId("w"), Now);
        Assert.Equal(Now + settings.FirstDeadline, first.Deadline);
        book.Measure(first, Now.AddSeconds(60));
        var second = book.Grant(new Piece(unit, unit, 1, Now), new WorkerId("w"), Now);
        Assert.Equal(Now.AddSeconds(300), second.Deadline);
        var small = book.Grant(new Piece(unit with { BlockCount = 1 }, unit, 1, Now), new WorkerId("w"), Now);
        Assert.Equal(Now.AddSeconds(30), small.Deadline);
        foreach (var lease in book.InFlight)
            lease.Heard = true;
        Assert.Equal([small], book.Overdue(Now.AddSeconds(31)));
    }

    [Fact]
    public void A_lease_of_which_nothing_was_heard_is_overdue_soon()
    {
        var settings = new CoordinationSettings();
        var book = new LeaseBook(1, settings);
        var unit = new WorkUnit(Stage.Score, 0, 60);
        var lost = book.Grant(new Piece(unit, unit, 1, Now), new WorkerId("w"), Now);
        var told = book.Grant(new Piece(unit with { FirstBlock = 60 }, unit, 1, Now), new WorkerId("w"), Now);
        book.Renew(told, Now.AddSeconds(1));
        Assert.Empty(book.Overdue(Now + settings.GrantDeadline));
        Assert.Equal([lost], book.Overdue(Now + settings.GrantDeadline + TimeSpan.FromTicks(1)));
    }

    [Fact]
    public void Reconstruction_opens_in_order_within_its_window()
    {
        bool[] packed = [true, true, false, true, true, true], done = [true, false, false, false, false, false];
        Assert.Equal([1, 3, 4], ReconstructionActor.Open(new ImageChildren.StripsChanged(packed, done, 4)).Groups);
        Assert.False(ReconstructionActor.Open(new ImageChildren.StripsChanged(packed, done, 4)).Complete);
        Assert.True(ReconstructionActor.Open(new ImageChildren.StripsChanged([true, true], [true, true], 4)).Complete);
    }

    [Fact]
    public void Quarantined_blocks_get_the_middle_scale_out_of_the_same_budget()
    {
        var grid = new BlockGrid(10 * 128, 128);
        var sse = new double[10, 3];
        for (int block = 0; block < 10; block++)
            (sse[block, 0], sse[block, 1], sse[block, 2]) = (block, 100 * block, 101 * block);
        var allocation = AllocatorActor.Allocate(new SseAllocator(), new ImageChildren.Allocate("sse", 4, grid, ScaleSet.Default, sse, [0, 9]));
        Assert.Equal(1, allocation.ScaleIndex[0]);
        Assert.Equal(1, allocation.ScaleIndex[9]);
        var budget = new RateBudget(10, 4);
        Assert.Equal(allocation.LrPixels, allocation.ScaleIndex.Sum(scale => (long)budget.PixelsPerBlock(ScaleSet.Default[scale])));
        Assert.True(allocation.LrPixels <= budget.LrPixels);
        Assert.Contains(allocation.ScaleIndex, scale => scale == 0);
    }

    [Theory]
    [InlineData(2, 2)]
    [InlineData(4, 4)]
    [InlineData(8, 8)]
    public void Quarantined_blocks_leave_the_others_their_share_at_every_rate(int rate, int scale)
    {
        var grid = new BlockGrid(10 * 128, 128);
        var sse = new double[10, 3];
        for (int block = 0; block < 10; block++)
            (sse[block, 0], sse[block, 1], sse[block, 2]) = (block, 100 * block, 101 * block);
        var budget = new RateBudget(10, rate);
        foreach (int[] quarantined in new int[][] { [3], [0, 9], [.. Enumerable.Range(0, 10)] })
        {
            var allocation = AllocatorActor.Allocate(new SseAllocator(), new ImageChildren.Allocate("sse", rate, grid, ScaleSet.Default, sse, quarantined));
            Assert.All(quarantined, block => Assert.Equal(scale, ScaleSet.Default[allocation.ScaleIndex[block]]));
            Assert.True(allocation.LrPixels <= budget.LrPixels);
        }
    }

    private static ImageState Apply(ImageState state, ImageEvents.IImageEvent one) => state.Apply(one);

    private static ImageState Probed() => Apply(Apply(ImageState.Empty, new ImageEvents.Submitted(new RunId("run"), new WorkPolicy(), FakeWorld.Job("a", 60 * 128, 3 * 128))), new ImageEvents.Probed(Facts));
}

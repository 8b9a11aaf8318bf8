using BbmrCluster.Actors.Archives;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Tests.Coordination;

namespace BbmrCluster.Actors.Tests.State;

/// <summary>What archives, their pages and their progress know.</summary>
public sealed class ArchiveStateTests
{
    private static readonly ArchiveId Id = new("x");
    private static readonly DateTimeOffset Now = DateTimeOffset.UnixEpoch;
    private static readonly RunId One = new("one"), Two = new("two");

    [Fact]
    public void An_archive_is_complete_when_all_pages_are_stored_in_order()
    {
        var state = Submitted(2001);
        Assert.Equal((3, 1000, 1), (state.Pages, state.Count(0), state.Count(2)));
        Assert.Empty(state.DecideStored(1));
        state = Store(Store(state, 0), 1);
        Assert.False(state.Complete);
        Assert.Empty(state.DecideStored(1));
        state = Store(state, 2);
        Assert.Equal(ArchivePhase.Running, state.Phase);
        Assert.Empty(state.DecideStored(3));
    }

    [Fact]
    public void Pages_close_once_when_all_their_images_are_closed_and_with_the_last_the_archive_is_finished()
    {
        var state = Store(Store(Submitted(1500), 0), 1);
        Assert.Empty(state.DecideClosed(0, 0, new PageCounts(900, 50, 49), Now));
        state = Apply(state, state.DecideClosed(0, 0, new PageCounts(900, 50, 50), Now));
        Assert.Empty(state.DecideClosed(0, 0, new PageCounts(900, 50, 50), Now));
        Assert.False(state.Finished);
        state = Apply(state, state.DecideClosed(1, 0, new PageCounts(500, 0, 0), Now));
        Assert.True(state.Finished);
        Assert.Equal(new PageCounts(1400, 50, 50), state.Closed);
    }

    [Fact]
    public void Another_archive_under_the_same_id_is_refused_and_the_same_one_is_opened_again()
    {
        var state = Apply(Store(Submitted(1), 0), Store(Submitted(1), 0).DecideClosed(0, 0, new PageCounts(1, 0, 0), Now));
        Assert.NotNull(state.WhyNot(Submission(Two, 1) with { Digest = "other" }));
        Assert.Empty(state.Decide(Submission(Two, 1) with { Digest = "other" }, Now));
        Assert.Empty(state.Decide(Submission(One, 1), Now));
        state = Apply(state, state.Decide(Submission(Two, 1), Now));
        Assert.Equal((ArchivePhase.Running, 0), (state.Phase, state.Closed.Closed));
        Assert.True(state.Complete);
    }

    [Fact]
    public void A_retry_opens_pages_with_failures_again_and_late_words_on_the_try_before_are_void()
    {
        var state = Store(Store(Submitted(1001), 0), 1);
        state = Apply(state, state.DecideClosed(0, 0, new PageCounts(1000, 0, 0), Now));
        state = Apply(state, state.DecideClosed(1, 0, new PageCounts(0, 0, 1), Now));
        state = Apply(state, state.Decide(ArchiveControl.Retry, Now));
        Assert.Equal([0], state.ClosedPages.Keys);
        Assert.Empty(state.DecideClosed(1, 0, new PageCounts(0, 0, 1), Now));
        state = Apply(state, state.DecideClosed(1, 1, new PageCounts(1, 0, 0), Now));
        Assert.True(state.Finished);
        // Nothing failed: nothing is to be tried again.
        Assert.Empty(state.Decide(ArchiveControl.Retry, Now));
    }

    [Fact]
    public void An_operator_pauses_resumes_and_cancels_what_is_not_finished()
    {
        var state = Store(Submitted(1), 0);
        Assert.NotNull(Submitted(1).WhyNot(ArchiveControl.Pause));
        Assert.Equal(ArchivePhase.Cancelled, Apply(Submitted(1), Submitted(1).Decide(ArchiveControl.Cancel, Now)).Phase);
        state = Apply(state, state.Decide(ArchiveControl.Pause, Now));
        Assert.Equal(ArchivePhase.Paused, state.Phase);
        Assert.Empty(state.Decide(ArchiveControl.Pause, Now));
        Assert.Equal(ArchivePhase.Running, Apply(state, state.Decide(ArchiveControl.Resume, Now)).Phase);
        state = Apply(state, state.Decide(ArchiveControl.Cancel, Now));
        Assert.Equal(ArchivePhase.Cancelled, state.Phase);
        Assert.NotNull(state.WhyNot(ArchiveControl.Resume));
        Assert.Empty(state.DecideClosed(0, 0, new PageCounts(1, 0, 0), Now));
        Assert.Equal(ArchivePhase.Running, Apply(state, state.Decide(ArchiveControl.Retry, Now)).Phase);
    }

    [Fact]
    public void A_page_counts_outcomes_once_and_opens_failures_again_on_a_retry_and_all_for_another_run()
    {
        var page = Apply(PageState.Empty, PageState.Empty.DecideFill([.. "abc".Select(name => FakeWorld.Job(name.ToString(), 1, 1))]));
        Assert.Empty(page.DecideFill([FakeWorld.Job("d", 1, 1)]));
        page = Apply(page, page.DecideOpen(One, 0));
        Assert.Empty(page.DecideOpen(One, 0));
        page = Apply(page, page.DecideClosed(1, new ImageOutcome.Done("{}")));
        Assert.Empty(page.DecideClosed(1, new ImageOutcome.Skipped("{}")));
        page = Apply(page, page.DecideClosed(0, new ImageOutcome.Failed("refused", "no")));
        page = Apply(page, page.DecideClosed(2, new ImageOutcome.Skipped("{}")));
        Assert.Equal((new PageCounts(1, 1, 1), 0), (page.Counts, page.Pending));
        Assert.Equal(("refused", "no"), page.Failures[0]);

        var retried = Apply(page, page.DecideOpen(One, 1));
        Assert.Equal([ItemState.Pending, ItemState.Done, ItemState.Skipped], retried.States.AsEnumerable());
        Assert.Equal((new PageCounts(1, 1, 0), 1), (retried.Counts, retried.Pending));
        Assert.Equal(3, Apply(page, page.DecideOpen(Two, 0)).Pending);
    }

    [Fact]
    public void Remaining_time_follows_the_speed_of_late()
    {
        var rate = new ProgressRate();
        Assert.Null(rate.Remaining(0));
        for (int i = 0; i <= 20; i++)
            rate.Add(Now + TimeSpan.FromSeconds(5 * i), 0.01 * i);
        Assert.Equal(400, rate.Remaining(0.2)!.Value, 1);
        // Twice as fast for two minutes: nearly what was before is forgotten.
        for (int i = 1; i <= 24; i++)
            rate.Add(Now + TimeSpan.FromSeconds(100 + (5 * i)), 0.2 + (0.02 * i));
        Assert.InRange(rate.Remaining(0.68)!.Value, 80, 95);
    }

    private static ArchiveCommands.SubmitArchive Submission(RunId run, int images) => new(Id, run, "name", new WorkPolicy(), images, 1000, "digest");

    private static ArchiveState Submitted(int images) => Apply(ArchiveState.Empty, ArchiveState.Empty.Decide(Submission(One, images), Now));

    private static ArchiveState Store(ArchiveState state, int page) => Apply(state, state.DecideStored(page));

    private static ArchiveState Apply(ArchiveState state, IEnumerable<ArchiveEvents.IArchiveEvent> events) => events.Aggregate(state, (s, e) => s.Apply(e));

    private static PageState Apply(PageState state, IEnumerable<PageEvents.IPageEvent> events) => events.Aggregate(state, (s, e) => s.Apply(e));
}

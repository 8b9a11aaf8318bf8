using System.Globalization;
using Akka.Actor;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Images;

// The Score stage. A block whose scores are good is settled at once. One in trouble gets an actor, to which all that happens
// to it goes from then on, and whose answers settle it or cut its lease smaller.
internal sealed partial class ImageCoordinator
{
    private readonly Dictionary<int, IActorRef> _blocks = [];
    private readonly Dictionary<int, int> _settledOf = [];
    private readonly Dictionary<int, double[]?> _settled = [];
    // Blocks that were told something and have not answered yet, and how many of them by planned lease.
    private readonly HashSet<int> _awaiting = [];
    private readonly Dictionary<int, int> _awaitingOf = [];
    private readonly Dictionary<int, int> _wishes = [];
    private int _blockSerial;

    private BlockFate FateOf(int block) => new(block, State.Facts!.Grid.ExtentOf(block).Pixels, State.Job!.Parameters.Engine.Scales.Count, State.Policy.Attempts);

    private IActorRef Block(int block)
    {
        if (!_blocks.TryGetValue(block, out var actor))
        {
            // The serial keeps names apart: a stopped child gives its name back a little later.
            actor = Context.ActorOf(BlockActor.Props(FateOf(block)), string.Create(CultureInfo.InvariantCulture, $"block-{block}-{++_blockSerial}"));
            _blocks.Add(block, actor);
        }
        return actor;
    }

    private void Await(int block, object message)
    {
        if (_awaiting.Add(block))
            CountAwaiting(block, 1);
        Block(block).Tell(message);
    }

    private void Answered(int block)
    {
        if (_awaiting.Remove(block))
            CountAwaiting(block, -1);
    }

    private void CountAwaiting(int block, int change)
    {
        int first = PlannedScore(block).FirstBlock, count = _awaitingOf.GetValueOrDefault(first) + change;
        if (count == 0)
            _awaitingOf.Remove(first);
        else
            _awaitingOf[first] = count;
    }

    private bool IsSettled(int block) => _settled.ContainsKey(block) || State.Scores.ContainsKey(PlannedScore(block).FirstBlock);

    private IEnumerable<int> Unsettled(WorkUnit range) => Enumerable.Range(range.FirstBlock, range.BlockCount).Where(block => !IsSettled(block));

    private WorkUnit PlannedScore(int block) => State.Plan!.ScoreOf(block);

    private void Scored(BlocksScored scores, Lease? lease)
    {
        int count = scores.Sse.GetLength(0), scales = scores.Sse.GetLength(1);
        if (State.Facts is not { } facts || scores.FirstBlock < 0 || scores.FirstBlock + count > facts.Grid.Count || scales != State.Job!.Parameters.Engine.Scales.Count)
            return;
        for (int i = 0; i < count; i++)
        {
            int block = scores.FirstBlock + i;
            if (IsSettled(block))
                continue;
            double[] sse = new double[scales];
            for (int s = 0; s < scales; s++)
                sse[s] = scores.Sse[i, s];
            if (!_blocks.ContainsKey(block) && FateOf(block).IsGood(sse))
                Settle(block, sse);
            // A late result may help, never harm: scores that are no good count only from the lease that is held.
            else if (lease?.Range.Contains(block) == true || sse.All(double.IsFinite))
                Await(block, new ImageChildren.BlockResult(sse, lease?.Range.BlockCount ?? count));
        }
    }

    // The last word of a block's actor, which ends with it.
    private void Settle(ImageChildren.BlockSettled settled)
    {
        if (!_blocks.Remove(settled.Block) || !State.InProgress)
            return;
        Answered(settled.Block);
        _wishes.Remove(settled.Block);
        if (settled.Sse is null && State.Policy.Poison == PoisonRule.Fail)
        {
            EnqueueAndGo(state => state.DecideFailure("poison", $"{state.Job!.DisplayName}: block {settled.Block} cannot be scored"));
            return;
        }
        Settle(settled.Block, settled.Sse);
        Resolve(PlannedScore(settled.Block));
        MaybeFlush();
    }

    private void Settle(int block, double[]? sse)
    {
        var unit = PlannedScore(block);
        int settled = _settledOf.GetValueOrDefault(unit.FirstBlock) + (_settled.TryAdd(block, sse) ? 1 : 0);
        _settledOf[unit.FirstBlock] = settled;
        if (settled < unit.BlockCount)
            return;
        _settledOf.Remove(unit.FirstBlock);
        int scales = State.Job!.Parameters.Engine.Scales.Count;
        double[] all = new double[unit.BlockCount * scales];
        var quarantined = new List<int>();
        for (int i = 0; i < unit.BlockCount; i++)
        {
            if (_settled[unit.FirstBlock + i] is { } good)
                good.CopyTo(all, i * scales);
            else
                quarantined.Add(unit.FirstBlock + i);
        }
        var result = new ImageEvents.BlocksSettled(unit.FirstBlock, all, quarantined);
        Enqueue(state => state.DecideScores(result), () =>
        {
            for (int one = unit.FirstBlock; one < unit.End; one++)
                _settled.Remove(one);
        });
    }

    private void Wish(ImageChildren.BlockWantsLease wish)
    {
        if (!_blocks.ContainsKey(wish.Block))
            return;
        Answered(wish.Block);
        _wishes[wish.Block] = wish.MaxBlocks;
        Resolve(PlannedScore(wish.Block));
        Continue();
    }

    /// <summary>Ends the leases of a planned Score lease when their blocks have all answered: what is left of them is cut along the blocks' wishes.</summary>
    private void Resolve(WorkUnit planned)
    {
        if (_awaitingOf.ContainsKey(planned.FirstBlock))
            return;
        foreach (var lease in _book.InFlight.Where(lease => lease.Closing && !lease.Resolved && lease.Planned == planned).ToList())
        {
            var open = Unsettled(lease.Range).ToList();
            var silent = open.Where(block => !_wishes.ContainsKey(block)).ToList();
            if (silent.Count > 0)
            {
                // The lease ended without a word on these.
                foreach (int block in silent)
                    Await(block, new ImageChildren.BlockLeaseFailed(FailureClass.Transient, lease.Range.BlockCount));
                continue;
            }
            lease.Resolved = true;
            if (open.Count > 0)
            {
                _book.Cut(lease, open.ToDictionary(block => block, block => _wishes[block]), Now);
                open.ForEach(block => _wishes.Remove(block));
            }
            else
            {
                _book.Measure(lease, Now);
            }
            // Until the scores are written nobody else gets the range.
            if (State.IsDone(planned))
                EndWithTwins(lease);
            else
                Enqueue(_ => [], () => EndWithTwins(lease));
        }
    }

    private void ForgetBlocks()
    {
        foreach (var block in _blocks.Values)
            Context.Stop(block);
        _blocks.Clear();
        _settled.Clear();
        _settledOf.Clear();
        _awaiting.Clear();
        _awaitingOf.Clear();
        _wishes.Clear();
    }
}

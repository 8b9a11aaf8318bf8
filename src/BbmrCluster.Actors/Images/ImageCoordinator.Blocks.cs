using System.Globalization;
using Akka.Actor;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;

namespace BbmrCluster.Actors.Images;

// The Score stage: results and failures of a lease go to the actors of its blocks, and their answers settle the planned
// unit or cut the lease smaller.
internal sealed partial class ImageCoordinator
{
    private readonly Dictionary<int, IActorRef> _blocks = [];
    private readonly Stack<IActorRef> _idleBlocks = new();
    private readonly Dictionary<int, int> _settledOf = [];
    private readonly Dictionary<int, double[]?> _settled = [];
    private readonly HashSet<int> _awaiting = [];
    private readonly Dictionary<int, int> _wishes = [];
    private int _blockSerial;

    private IActorRef Block(int block)
    {
        if (!_blocks.TryGetValue(block, out var actor))
        {
            var fate = new BlockFate(block, State.Facts!.Grid.ExtentOf(block).Pixels, State.Job!.Engine.Scales.Count, State.Policy.Attempts);
            if (_idleBlocks.TryPop(out actor))
                actor.Tell(fate);
            else
                actor = Context.ActorOf(BlockActor.Props(fate), string.Create(CultureInfo.InvariantCulture, $"block-{++_blockSerial}"));
            _blocks.Add(block, actor);
        }
        return actor;
    }

    private bool IsSettled(int block) => _settled.ContainsKey(block) || State.Scores.ContainsKey(PlannedScore(block).FirstBlock);

    private IEnumerable<int> Unsettled(WorkUnit range) => Enumerable.Range(range.FirstBlock, range.BlockCount).Where(block => !IsSettled(block));

    private WorkUnit PlannedScore(int block) => State.Plan!.ScoreOf(block);

    private void Scored(BlocksScored scores, Lease? lease)
    {
        int count = scores.Sse.GetLength(0), scales = scores.Sse.GetLength(1);
        if (State.Facts is not { } facts || scores.FirstBlock < 0 || scores.FirstBlock + count > facts.Grid.Count || scales != State.Job!.Engine.Scales.Count)
            return;
        for (int i = 0; i < count; i++)
        {
            int block = scores.FirstBlock + i;
            double[] sse = [.. Enumerable.Range(0, scales).Select(s => scores.Sse[i, s])];
            // A late result may help, never harm: scores that are no good count only from the lease that is held.
            if (IsSettled(block) || (lease?.Range.Contains(block) != true && !sse.All(double.IsFinite)))
                continue;
            _awaiting.Add(block);
            Block(block).Tell(new ImageChildren.BlockResult(sse, lease?.Range.BlockCount ?? count));
        }
    }

    private void Settle(ImageChildren.BlockSettled settled)
    {
        if (!_blocks.Remove(settled.Block, out var actor))
            return;
        _idleBlocks.Push(actor);
        if (!State.InProgress)
            return;
        _awaiting.Remove(settled.Block);
        _wishes.Remove(settled.Block);
        if (settled.Sse is null && State.Policy.Poison == PoisonRule.Fail)
        {
            EnqueueAndGo(state => state.DecideFailure("poison", $"{state.Job!.DisplayName}: block {settled.Block} cannot be scored"));
            return;
        }
        var unit = PlannedScore(settled.Block);
        if (_settled.TryAdd(settled.Block, settled.Sse))
            _settledOf[unit.FirstBlock] = _settledOf.GetValueOrDefault(unit.FirstBlock) + 1;
        if (_settledOf.GetValueOrDefault(unit.FirstBlock) == unit.BlockCount)
        {
            _settledOf.Remove(unit.FirstBlock);
            var blocks = Enumerable.Range(unit.FirstBlock, unit.BlockCount).ToList();
            int scales = State.Job!.Engine.Scales.Count;
            var result = new ImageEvents.BlocksSettled(unit.FirstBlock, [.. blocks.SelectMany(block => _settled[block] ?? new double[scales])],
                [.. blocks.Where(block => _settled[block] is null)]);
            Enqueue(state => state.DecideScores(result), () => blocks.ForEach(block => _settled.Remove(block)));
        }
        Resolve();
        MaybeFlush();
    }

    private void Wish(ImageChildren.BlockWantsLease wish)
    {
        _awaiting.Remove(wish.Block);
        if (_blocks.ContainsKey(wish.Block))
            _wishes[wish.Block] = wish.MaxBlocks;
        Resolve();
        Continue();
    }

    /// <summary>Ends Score leases whose blocks have all answered: what is left of them is cut along the blocks' wishes.</summary>
    private void Resolve()
    {
        foreach (var lease in _book.InFlight.Where(lease => lease.Closing && !lease.Resolved && lease.Range.Stage == Stage.Score).ToList())
        {
            var open = Unsettled(lease.Range).ToList();
            if (open.Exists(_awaiting.Contains))
                continue;
            var silent = open.Where(block => !_wishes.ContainsKey(block)).ToList();
            if (silent.Count > 0)
            {
                // The lease ended without a word on these.
                foreach (int block in silent)
                {
                    _awaiting.Add(block);
                    Block(block).Tell(new ImageChildren.BlockLeaseFailed(FailureClass.Transient, lease.Range.BlockCount));
                }
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
            // Behind the scores in the queue: until they are written nobody else gets the range.
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
        _wishes.Clear();
    }
}

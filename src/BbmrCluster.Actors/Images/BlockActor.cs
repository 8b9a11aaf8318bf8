using Akka.Actor;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Images;

/// <summary>
/// The fate of one block at Score, decided purely: settled with scores, settled as quarantined, or to be tried again in
/// a lease of at most so many blocks.
/// </summary>
/// <param name="Block">Raster index.</param>
/// <param name="Pixels">Pixels inside the image.</param>
/// <param name="Scales">Scales that are scored.</param>
/// <param name="MaxAttempts">Tries for passing reasons before the lease is cut smaller.</param>
/// <param name="PassingFailures">Leases that failed for passing reasons so far.</param>
internal sealed record BlockFate(int Block, int Pixels, int Scales, int MaxAttempts, int PassingFailures = 0)
{
    /// <summary>Scores count when they are finite, not negative and at most what the block's pixels can differ.</summary>
    public bool IsGood(double[] sse)
    {
        double most = 255.0 * 255.0 * Pixels;
        foreach (double one in sse)
        {
            if (!(one >= 0 && one <= most))
                return false;
        }
        return sse.Length == Scales;
    }

    /// <summary>Scores that are no good are tried once again alone, since the batch may be to blame, and then given up.</summary>
    public object Judge(ImageChildren.BlockResult result) =>
        IsGood(result.Sse) ? new ImageChildren.BlockSettled(Block, result.Sse)
        : result.LeaseSize > 1 ? new ImageChildren.BlockWantsLease(Block, 1) : new ImageChildren.BlockSettled(Block, null);

    /// <summary>A lease that fails because of some block is halved at once, for a passing reason after a few tries. Alone, the block is given up.</summary>
    public (BlockFate Next, object Answer) Judge(ImageChildren.BlockLeaseFailed failed)
    {
        var next = failed.Failure == FailureClass.Block ? this : this with { PassingFailures = PassingFailures + 1 };
        object answer = failed.Failure != FailureClass.Block && next.PassingFailures < MaxAttempts ? new ImageChildren.BlockWantsLease(Block, failed.LeaseSize)
            : failed.LeaseSize > 1 ? new ImageChildren.BlockWantsLease(Block, (failed.LeaseSize + 1) / 2)
            : new ImageChildren.BlockSettled(Block, null);
        return (next, answer);
    }
}

/// <summary>
/// A block in trouble: its scores were no good, or a lease with it failed. Judges what comes next, counts failures, answers
/// its coordinator and stops when settled. No persistence and no timer: deadlines belong to leases, truth to the coordinator.
/// </summary>
internal sealed class BlockActor : ReceiveActor
{
    private BlockFate _fate;

    public BlockActor(BlockFate fate)
    {
        _fate = fate;
        Receive<ImageChildren.BlockResult>(result => Answer(_fate.Judge(result)));
        Receive<ImageChildren.BlockLeaseFailed>(failed =>
        {
            (_fate, object answer) = _fate.Judge(failed);
            Answer(answer);
        });
    }

    public static Props Props(BlockFate fate) => Akka.Actor.Props.Create(() => new BlockActor(fate));

    private void Answer(object answer)
    {
        Context.Parent.Tell(answer);
        if (answer is ImageChildren.BlockSettled)
            Context.Stop(Self);
    }
}

using Akka.Actor;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;

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
    /// <summary>
    /// Scores count when they are finite, not negative and at most what the block's pixels can differ. Others are tried
    /// again alone, since the batch may be to blame, and then given up.
    /// </summary>
    public object Judge(ImageChildren.BlockResult result) =>
        result.Sse.Length == Scales && result.Sse.All(sse => double.IsFinite(sse) && sse >= 0 && sse <= 255.0 * 255.0 * Pixels)
            ? new ImageChildren.BlockSettled(Block, result.Sse)
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
/// One block of the Score leases in flight: judges its scores, counts failures and answers its coordinator. Once settled
/// it is given another block: making an actor costs more than all that one does for a block. No persistence and no timer:
/// deadlines belong to leases, truth to the coordinator.
/// </summary>
internal sealed class BlockActor : ReceiveActor
{
    private static readonly Props Shared = Akka.Actor.Props.Create<BlockActor>();

    private BlockFate _fate = null!;

    public BlockActor()
    {
        Receive<ImageChildren.BlockGiven>(given => _fate = given.Fate);
        Receive<ImageChildren.BlockResult>(result => Context.Parent.Tell(_fate.Judge(result)));
        Receive<ImageChildren.BlockLeaseFailed>(failed =>
        {
            (_fate, object answer) = _fate.Judge(failed);
            Context.Parent.Tell(answer);
        });
    }

    public static Props Props() => Shared;
}

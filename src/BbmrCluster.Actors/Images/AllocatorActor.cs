using Akka.Actor;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Actors.Images;

/// <summary>
/// Runs the allocator off the mailbox, once all scores are in, and tells its parent. Quarantined blocks get the scale of the rate (where
/// the set lacks it the next coarser one), so that the others keep their share of the budget.
/// </summary>
internal sealed class AllocatorActor : ReceiveActor
{
    public AllocatorActor(Func<string, IAllocator> allocators)
    {
        Receive<ImageChildren.Allocate>(request =>
            _ = Task.Run(() => (object)new ImageChildren.Allocated(Allocate(allocators(request.Allocator), request)))
                .PipeTo(Context.Parent, failure: error => new ImageChildren.AllocationFailed(error.Message)));
    }

    public static Props Props(Func<string, IAllocator> allocators) => Akka.Actor.Props.Create(() => new AllocatorActor(allocators));

    internal static Allocation Allocate(IAllocator allocator, ImageChildren.Allocate request)
    {
        var (grid, scales) = (request.Grid, request.Scales);
        var whole = new RateBudget(grid.Count, request.Rate, grid.BlockSize);
        if (request.Quarantined.Count == 0)
            return allocator.Allocate(new BlockScores(grid, scales, request.Sse), whole);

        int index = Enumerable.Range(0, scales.Count).First(s => scales[s] >= request.Rate);
        int[] others = [.. Enumerable.Range(0, grid.Count).Except(request.Quarantined)];
        long spent = (long)request.Quarantined.Count * whole.PixelsPerBlock(scales[index]);
        var chosen = new byte[grid.Count];
        Array.Fill(chosen, (byte)index);
        if (others.Length == 0)
            return new Allocation(chosen, spent, 0, allocator.Name, null);

        // The others stand in a row of full blocks: allocators compare the scales of a block with each other, where the
        // number of its pixels inside the image cancels out.
        var row = new BlockGrid(grid.BlockSize * others.Length, grid.BlockSize, grid.BlockSize);
        var sse = new double[others.Length, scales.Count];
        for (int i = 0; i < others.Length; i++)
        {
            for (int s = 0; s < scales.Count; s++)
                sse[i, s] = request.Sse[others[i], s];
        }
        var part = allocator.Allocate(new BlockScores(row, scales, sse), new RateBudget(others.Length, request.Rate, grid.BlockSize));
        for (int i = 0; i < others.Length; i++)
            chosen[others[i]] = part.ScaleIndex[i];
        return part with { ScaleIndex = chosen, LrPixels = part.LrPixels + spent };
    }
}

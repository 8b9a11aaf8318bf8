using Akka.Actor;
using BbmrCluster.Actors.Protocol;

namespace BbmrCluster.Actors.Images;

/// <summary>
/// Opens groups of strips for reconstruction in order, within a window ahead of the first one that is not done, so that
/// bands and raw strips are used up soon after they are made. Says when all are done, which finish waits for. Told and
/// telling absolute states only, so nothing is lost with it.
/// </summary>
internal sealed class ReconstructionActor : ReceiveActor
{
    public ReconstructionActor() => Receive<ImageChildren.StripsChanged>(strips => Context.Parent.Tell(Open(strips)));

    public static Props Props() => Akka.Actor.Props.Create(() => new ReconstructionActor());

    internal static ImageChildren.ReconstructionOpen Open(ImageChildren.StripsChanged strips)
    {
        int first = 0;
        while (first < strips.Reconstructed.Count && strips.Reconstructed[first])
            first++;
        int end = Math.Min(first + strips.Window, strips.Reconstructed.Count);
        return new ImageChildren.ReconstructionOpen([.. Enumerable.Range(first, end - first).Where(i => strips.Packed[i] && !strips.Reconstructed[i])],
            first == strips.Reconstructed.Count);
    }
}

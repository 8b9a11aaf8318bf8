namespace BbmrCluster.Rescaling;

/// <summary>The allocators by name.</summary>
public static class Allocators
{
    /// <summary>Reads "sse", "paper" or "paper:t=0.5,max=100".</summary>
    /// <exception cref="FormatException">Unknown name or parameter: one sentence for the user.</exception>
    public static IAllocator Parse(string text) => throw new NotSupportedException();
}

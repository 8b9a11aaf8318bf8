namespace BbmrCluster.Rescaling;

/// <summary>What a block sees of its surroundings, on the way down and on the way up.</summary>
public enum BlockContext
{
    /// <summary>Nothing: every block is shrunk and enlarged by itself, as in the paper.</summary>
    None,

    /// <summary>Its neighbours: LR is cut from the downscaled whole image, and each network runs over the canvas of its scale.</summary>
    Canvas,
}

/// <summary>Names and constants of contexts.</summary>
public static class BlockContexts
{
    /// <summary>Block side by default, HR pixels.</summary>
    public const int DefaultBlockSize = 32;

    /// <summary>LR pixels beyond a tile that a network sees on every side. OmniSR's windows of 8 make smaller ones no cheaper.</summary>
    public const int DefaultHalo = 4;

    /// <summary>Name on the command line: none, canvas.</summary>
    public static string NameOf(BlockContext context) => context == BlockContext.Canvas ? "canvas" : "none";

    /// <summary>Reads a name; null when it is not one.</summary>
    public static BlockContext? Parse(string name) => name switch { "none" => BlockContext.None, "canvas" => BlockContext.Canvas, _ => null };
}

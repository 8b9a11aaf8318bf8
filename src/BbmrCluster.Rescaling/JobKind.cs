namespace BbmrCluster.Rescaling;

/// <summary>What a job does with an image.</summary>
public enum JobKind
{
    /// <summary>Image to container.</summary>
    Downscale,

    /// <summary>Container to image.</summary>
    Upscale,

    /// <summary>Both, with a quality report.</summary>
    Rescale,
}

/// <summary>Some of the kinds of jobs.</summary>
[Flags]
public enum JobKinds
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>Image to container.</summary>
    Downscale = 1 << JobKind.Downscale,

    /// <summary>Container to image.</summary>
    Upscale = 1 << JobKind.Upscale,

    /// <summary>Both.</summary>
    Rescale = 1 << JobKind.Rescale,

    /// <summary>Those that choose scales and write a container.</summary>
    Downscaling = Downscale | Rescale,

    /// <summary>Those that write an image.</summary>
    Upscaling = Upscale | Rescale,

    /// <summary>All.</summary>
    All = Downscale | Upscale | Rescale,
}

/// <summary>Membership.</summary>
public static class JobKindsExtensions
{
    /// <summary>Whether a kind is among them.</summary>
    public static bool Has(this JobKinds kinds, JobKind kind) => ((int)kinds & (1 << (int)kind)) != 0;
}

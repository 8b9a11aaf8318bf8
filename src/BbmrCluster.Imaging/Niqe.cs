namespace BbmrCluster.Imaging;

/// <summary>The parameters of the NIQE model (mean and covariance of 36 features of pristine pictures, and the window).</summary>
public sealed record NiqeParameters(double[] Mean, double[,] Covariance, double[,] Window)
{
    /// <summary>Reads the original release's .mat (level 5) or BasicSR's .npz.</summary>
    /// <exception cref="InvalidDataException">The file is not one of these: one sentence.</exception>
    /// <exception cref="IOException">The file cannot be read.</exception>
    public static NiqeParameters Read(string path) => throw new NotSupportedException();
}

/// <summary>NIQE: naturalness without a reference (lower is better).</summary>
public static class Niqe
{
    /// <summary>The score of a picture, or null when it has fewer than two blocks of 96 pixels.</summary>
    public static double? Score(PixelBuffer image, NiqeParameters parameters, int crop = 0) => throw new NotSupportedException();
}

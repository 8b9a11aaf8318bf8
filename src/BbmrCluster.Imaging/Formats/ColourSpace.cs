namespace BbmrCluster.Imaging.Formats;

/// <summary>
/// Colours that a file names by numbers: chromaticities and the curve from stored to linear values, Y = (aX + b)^g for X from d on and cX below (ICC.1, 10.18,
/// type 3).
/// </summary>
/// <param name="Primaries">x and y of red, green, blue and white.</param>
/// <param name="Curve">g, a, b, c, d.</param>
internal sealed record ColourSpace(double[] Primaries, double[] Curve)
{
    private const int UnspecifiedCode = 2;

    private static readonly double[] D65 = [0.3127, 0.3290];

    /// <summary>Chromaticities of sRGB and BT.709.</summary>
    public static double[] SrgbPrimaries { get; } = [0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290];

    /// <summary>The curve of sRGB.</summary>
    public static double[] SrgbCurve { get; } = [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045];

    private static double[] Bt709Curve { get; } = [1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081];

    /// <summary>A plain power.</summary>
    public static double[] Power(double gamma) => [gamma, 1, 0, 0, 0];

    /// <summary>Whether a code of H.273, table 3, is one of high dynamic range (PQ, HLG), which no profile of this kind can say.</summary>
    public static bool IsHighRange(int transfer) => transfer is 16 or 18;

    /// <summary>Looks codes of ITU-T H.273 up.</summary>
    /// <param name="primaries">Table 2.</param>
    /// <param name="transfer">Table 3.</param>
    /// <param name="colours">Null where the codes say sRGB or nothing.</param>
    /// <returns>False when there is no such code, or it needs more than a matrix and a curve.</returns>
    public static bool TryFrom(int primaries, int transfer, out ColourSpace? colours)
    {
        colours = null;
        double[]? chromaticities = primaries switch
        {
            1 or UnspecifiedCode => SrgbPrimaries,
            4 => [0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316],
            5 => [0.64, 0.33, 0.29, 0.60, 0.15, 0.06, .. D65],
            6 or 7 => [0.630, 0.340, 0.310, 0.595, 0.155, 0.070, .. D65],
            8 => [0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316],
            9 => [0.708, 0.292, 0.170, 0.797, 0.131, 0.046, .. D65],
            11 => [0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351],
            12 => [0.680, 0.320, 0.265, 0.690, 0.150, 0.060, .. D65],
            22 => [0.630, 0.340, 0.295, 0.605, 0.155, 0.077, .. D65],
            _ => null,
        };
        double[]? curve = transfer switch
        {
            UnspecifiedCode or 13 => SrgbCurve,
            1 or 6 or 14 or 15 or 11 or 12 => Bt709Curve,
            4 => Power(2.2),
            5 => Power(2.8),
            7 => [1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4.0, 0.0913],
            8 => Power(1),
            17 => Power(2.6),
            _ => null,
        };
        if (chromaticities is null || curve is null)
            return false;
        if (!ReferenceEquals(chromaticities, SrgbPrimaries) || !ReferenceEquals(curve, SrgbCurve))
            colours = new ColourSpace(chromaticities, curve);
        return true;
    }
}

using System.Globalization;

namespace BbmrCluster.Networks;

/// <summary>The values by which a network's input and output say black and white, e.g. 0..1, -1..1 or 0..255.</summary>
/// <param name="Black">At most 0.</param>
/// <param name="White">Above 0.</param>
public readonly record struct ValueRange(double Black, double White)
{
    /// <summary>Reads "0..1".</summary>
    /// <exception cref="FormatException">Not two numbers, black at most 0 and white above 0: one sentence.</exception>
    public static ValueRange Parse(string text)
    {
        string[] parts = text.Split("..");
        return parts.Length == 2 && double.TryParse(parts[0], NumberStyles.Float, CultureInfo.InvariantCulture, out double black)
            && double.TryParse(parts[1], NumberStyles.Float, CultureInfo.InvariantCulture, out double white) && black is <= 0 and >= -65535 && white is > 0 and <= 65535
            ? new ValueRange(black, white)
            : throw new FormatException($"'{text}' is no range of values: two numbers such as 0..1, -1..1 or 0..255, black at most 0 and white above 0.");
    }

    /// <summary>"0..1".</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Black}..{White}");
}

using System.Globalization;

namespace BbmrCluster.Imaging;

/// <summary>A resize factor as a fraction: 1/4 shrinks each side to a quarter, 4 (4/1) enlarges it four times.</summary>
public readonly record struct ResizeScale
{
    /// <summary>Checks the fraction.</summary>
    /// <param name="numerator">1 to 64.</param>
    /// <param name="denominator">1 to 64.</param>
    /// <exception cref="ArgumentOutOfRangeException">A value is outside its range.</exception>
    public ResizeScale(int numerator, int denominator = 1)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(numerator, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(numerator, 64);
        ArgumentOutOfRangeException.ThrowIfLessThan(denominator, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(denominator, 64);
        (Numerator, Denominator) = (numerator, denominator);
    }

    /// <summary>Upper part.</summary>
    public int Numerator { get; }

    /// <summary>Lower part.</summary>
    public int Denominator { get; }

    /// <summary>1/<paramref name="factor"/>.</summary>
    public static ResizeScale Down(int factor) => new(1, factor);

    /// <summary><paramref name="factor"/>/1.</summary>
    public static ResizeScale Up(int factor) => new(factor);

    /// <summary>Output length of a side: ceil(length x scale).</summary>
    public int Apply(int length) => checked((int)((((long)length * Numerator) + Denominator - 1) / Denominator));

    /// <summary>Reads "1/4", "3/2" or "4".</summary>
    /// <exception cref="FormatException">Not such a fraction: one sentence.</exception>
    public static ResizeScale Parse(string text)
    {
        string[] parts = text.Split('/', StringSplitOptions.TrimEntries);
        if (parts.Length is 1 or 2
            && int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out int numerator)
            && int.TryParse(parts.Length == 2 ? parts[1] : "1", NumberStyles.None, CultureInfo.InvariantCulture, out int denominator)
            && numerator is >= 1 and <= 64 && denominator is >= 1 and <= 64)
        {
            return new ResizeScale(numerator, denominator);
        }

        throw new FormatException($"'{text}' is not a scale: write 1/2, 1/4, 2 or the like, with whole numbers from 1 to 64.");
    }

    /// <inheritdoc/>
    public override string ToString() => Denominator == 1
        ? Numerator.ToString(CultureInfo.InvariantCulture)
        : string.Create(CultureInfo.InvariantCulture, $"{Numerator}/{Denominator}");
}

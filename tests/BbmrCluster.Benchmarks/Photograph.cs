using System.Globalization;
using BbmrCluster.Imaging;

namespace BbmrCluster.Benchmarks;

/// <summary>The photograph that a command is given: PHOTO [--crop LEFT,TOP,WIDTH,HEIGHT].</summary>
internal static class Photograph
{
    public const string Usage = "PHOTO [--crop LEFT,TOP,WIDTH,HEIGHT]";

    /// <summary>Reads it, as a whole.</summary>
    public static PixelBuffer Load(string[] args, string scratch)
    {
        string photo = args.Length > 0 ? args[0] : throw new ArgumentException(Usage, nameof(args));
        PixelBuffer pixels = ImageFile.Load(photo, ImageLimits.Default, scratch);
        int at = Array.IndexOf(args, "--crop");
        if (at < 0)
            return pixels;
        int[] crop = [.. args[at + 1].Split(',').Select(number => int.Parse(number, CultureInfo.InvariantCulture))];
        return crop is [>= 0, >= 0, > 0, > 0] && crop[0] + crop[2] <= pixels.Width && crop[1] + crop[3] <= pixels.Height
            ? pixels.Crop(crop[0], crop[1], crop[2], crop[3])
            : throw new ArgumentException($"{photo} has {pixels.Width}x{pixels.Height} pixels; {args[at + 1]} does not lie in it.", nameof(args));
    }
}

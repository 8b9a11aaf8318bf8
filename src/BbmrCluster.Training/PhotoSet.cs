using System.Globalization;
using BbmrCluster.Imaging;
using NetVips;

namespace BbmrCluster.Training;

/// <summary>A photograph at its sharp size.</summary>
/// <param name="Name">File name.</param>
/// <param name="Pixels">8-bit RGB.</param>
public sealed record Photo(string Name, PixelBuffer Pixels);

/// <summary>A photograph with the LR image made of it.</summary>
/// <param name="Name">File name.</param>
/// <param name="Hr">RGB, sides multiples of the scale.</param>
/// <param name="Lr">The MATLAB-compatible 8-bit bicubic of <paramref name="Hr"/>.</param>
public sealed record TrainingPhoto(string Name, PixelBuffer Hr, PixelBuffer Lr);

/// <summary>
/// The photographs of one split. A folder with a <c>photos.tsv</c> (columns split, file, divisor) gives each photograph
/// the divisor by which it is shrunk before its pixels count as sharp; other folders are taken as they are.
/// </summary>
public static class PhotoSet
{
    private static readonly string[] Extensions = [".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"];

    /// <summary>Whether a folder has a <c>photos.tsv</c>, and so splits.</summary>
    public static bool HasSplits(string folder) => File.Exists(Path.Combine(folder, "photos.tsv"));

    /// <summary>Photographs of a split, whether they are large enough or not.</summary>
    public static int Count(string folder, string split) => List(folder, split).Count();

    /// <summary>Loads a split.</summary>
    /// <param name="folder">Folder with photos.tsv, or with photographs.</param>
    /// <param name="split">train or val; not used without photos.tsv.</param>
    /// <param name="leastSide">Photographs with a smaller side, pixels at their sharp size, are left out.</param>
    /// <param name="cancellation">Stops between photographs.</param>
    /// <exception cref="InvalidDataException">No usable photograph, or a damaged list; one sentence.</exception>
    public static IReadOnlyList<Photo> Load(string folder, string split, int leastSide, CancellationToken cancellation = default)
    {
        var photos = new List<Photo>();
        foreach ((string path, double divisor) in List(folder, split))
        {
            cancellation.ThrowIfCancellationRequested();
            PixelBuffer image = Shrink(Decode(path), divisor);
            if (image.Width >= leastSide && image.Height >= leastSide)
                photos.Add(new Photo(Path.GetFileName(path), image));
        }
        return photos.Count > 0 ? photos : throw new InvalidDataException($"{folder} holds no photograph of the split '{split}' of at least {leastSide} x {leastSide} pixels.");
    }

    /// <summary>Crops to a multiple of the scale (at the right and bottom) and makes the LR image.</summary>
    public static TrainingPhoto Pair(string name, PixelBuffer image, int scale)
    {
        (int width, int height) = (image.Width / scale * scale, image.Height / scale * scale);
        PixelBuffer hr = (width, height) == (image.Width, image.Height) ? image : image.Crop(0, 0, width, height);
        return new TrainingPhoto(name, hr, Bicubic.Resize(hr, ResizeScale.Down(scale)));
    }

    /// <summary>Decodes to 8-bit RGB as stored; grey is repeated, alpha dropped.</summary>
    public static PixelBuffer Decode(string path)
    {
        using Image source = Image.NewFromFile(path, access: Enums.Access.Sequential);
        if (source.Format != Enums.BandFormat.Uchar || source.Bands is < 1 or > 4 || source.Interpretation == Enums.Interpretation.Cmyk)
            throw new InvalidDataException($"{path} is not an 8-bit grey or RGB image.");
        using Image colour = source.Bands < 3 ? source.ExtractBand(0) : source.ExtractBand(0, 3);
        using Image rgb = colour.Bands == 1 ? colour.Bandjoin(colour, colour) : colour.Copy();
        return new PixelBuffer(rgb.Width, rgb.Height, 3, 8, rgb.WriteToMemory<byte>());
    }

    private static IEnumerable<(string Path, double Divisor)> List(string folder, string split)
    {
        string list = Path.Combine(folder, "photos.tsv");
        if (!File.Exists(list))
        {
            return Directory.EnumerateFiles(folder).Where(f => Extensions.Contains(Path.GetExtension(f), StringComparer.OrdinalIgnoreCase))
                .Order(StringComparer.Ordinal).Select(f => (f, 1.0));
        }
        string[][] rows = [.. File.ReadLines(list).Select(line => line.Split('\t'))];
        int splitColumn = Array.IndexOf(rows[0], "split"), file = Array.IndexOf(rows[0], "file"), divisor = Array.IndexOf(rows[0], "divisor");
        if (splitColumn < 0 || file < 0 || divisor < 0)
            throw new InvalidDataException($"{list} lacks one of the columns split, file, divisor.");
        return rows.Skip(1).Where(row => row.Length > Math.Max(splitColumn, Math.Max(file, divisor)) && string.Equals(row[splitColumn], split, StringComparison.Ordinal))
            .OrderBy(row => row[file], StringComparer.Ordinal)
            .Select(row => (Path.Combine(folder, row[file]), double.Parse(row[divisor], CultureInfo.InvariantCulture)));
    }

    private static PixelBuffer Shrink(PixelBuffer image, double divisor)
    {
        if (divisor == 1)
            return image;
        double quarters = divisor * 4;
        if (quarters != Math.Round(quarters) || quarters is < 4 or > 64)
            throw new InvalidDataException($"A divisor of {divisor.ToString(CultureInfo.InvariantCulture)} is not a multiple of 0.25 from 1 to 16.");
        return Bicubic.Resize(image, new ResizeScale(4, (int)quarters));
    }
}

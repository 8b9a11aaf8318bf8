using BbmrCluster.Imaging;
using BbmrCluster.Networks;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>The result of one image.</summary>
/// <param name="Name">File name.</param>
/// <param name="PsnrY">PSNR on unrounded BT.601 Y of the 8-bit result, dB.</param>
/// <param name="Seam">Error across block borders against that elsewhere, see <see cref="ImageQuality.Seam"/>; 1 without borders.</param>
public sealed record ValidationScore(string Name, double PsnrY, double Seam = 1);

/// <summary>Images to validate on.</summary>
/// <param name="Name">Prefix of its figures, e.g. "set5".</param>
/// <param name="Images">In ordinal order of their names.</param>
/// <param name="Whole">Whether super-resolution takes whole images (a benchmark), or the middle of each (large photographs).</param>
public sealed record ValidationSet(string Name, IReadOnlyList<Photo> Images, bool Whole)
{
    /// <summary>The name of the set that photos.tsv gives.</summary>
    public const string Photographs = "photographs";

    /// <summary>Side of the middle part, HR pixels: super-resolution of patches, and of blocks.</summary>
    private const int MiddleSide = 384, BlocksSide = 512;

    /// <summary>
    /// Both sets, as far as they are there: the PNG images of a folder, named as it (or its parent, where it is called HR), and
    /// the split "val" of the photographs.
    /// </summary>
    /// <exception cref="InvalidDataException">No usable image; one sentence.</exception>
    public static IReadOnlyList<ValidationSet> Load(TrainingPaths paths, CancellationToken cancellation = default)
    {
        var sets = new List<ValidationSet>();
        if (paths.Validation is { } folder)
        {
            var directory = new DirectoryInfo(folder);
            string name = string.Equals(directory.Name, "HR", StringComparison.OrdinalIgnoreCase) && directory.Parent is { } parent ? parent.Name : directory.Name;
            sets.Add(new ValidationSet(name.ToLowerInvariant(), Validation.Load(folder), Whole: true));
        }
        if (PhotoSet.HasSplits(paths.Photos))
            sets.Add(new ValidationSet(Photographs, PhotoSet.Load(paths.Photos, "val", 1, cancellation), Whole: false));
        return sets;
    }

    /// <summary>The images for super-resolution at a scale.</summary>
    public IReadOnlyList<TrainingPhoto> Pairs(int scale) => [.. (Whole ? Images : Middles(MiddleSide, 8)).Select(image => PhotoSet.Pair(image.Name, image.Pixels, scale))];

    /// <summary>The images' middles in whole blocks; images smaller than a block are left out.</summary>
    public IReadOnlyList<Photo> InBlocks() => Middles(BlocksSide, JointSrTask.Block);

    private IReadOnlyList<Photo> Middles(int largest, int unit)
    {
        return [.. Images.Where(image => Math.Min(image.Pixels.Width, image.Pixels.Height) >= unit).Select(image =>
        {
            int width = Side(image.Pixels.Width), height = Side(image.Pixels.Height);
            return image with { Pixels = image.Pixels.Crop((image.Pixels.Width - width) / 2, (image.Pixels.Height - height) / 2, width, height) };
        })];

        int Side(int side) => Math.Min(largest, side) / unit * unit;
    }
}

/// <summary>Measures networks on images. Everything in float32 unless said otherwise, results rounded to 8 bits.</summary>
public static class Validation
{
    /// <summary>Loads all PNG images of a folder in ordinal order of their names.</summary>
    /// <exception cref="InvalidDataException">None is there.</exception>
    public static IReadOnlyList<Photo> Load(string folder)
    {
        Photo[] images = [.. Directory.EnumerateFiles(folder, "*.png").Order(StringComparer.Ordinal).Select(path => new Photo(Path.GetFileName(path), PhotoSet.Decode(path)))];
        return images.Length > 0 ? images : throw new InvalidDataException($"{folder} holds no PNG image to validate on.");
    }

    /// <summary>The images of a folder with their LR images.</summary>
    /// <exception cref="InvalidDataException">None is there.</exception>
    public static IReadOnlyList<TrainingPhoto> Load(string folder, int scale) => [.. Load(folder).Select(image => PhotoSet.Pair(image.Name, image.Pixels, scale))];

    /// <summary>
    /// The protocol of the super-resolution papers: HR cropped to a multiple of the scale, LR by the MATLAB-compatible
    /// 8-bit bicubic, the network on the whole image, PSNR-Y without a border of <c>scale</c> pixels.
    /// </summary>
    /// <param name="shape">The network's shape.</param>
    /// <param name="weights">Its tensors.</param>
    /// <param name="images">HR and LR.</param>
    /// <param name="body">Type of the body's arithmetic.</param>
    public static IReadOnlyList<ValidationScore> Psnr(SrNetworkShape shape, IReadOnlyDictionary<string, TensorData> weights, IReadOnlyList<TrainingPhoto> images, ScalarType body = ScalarType.Float32)
    {
        using var parameters = new ParameterSet(shape.Parameters, weights, "the weights");
        using SrNetwork network = shape.CreateNetwork(parameters, body);
        float[] values = CropSampler.ValueTable(shape.Black);
        return [.. images.Select(image =>
        {
            using var scope = NewDisposeScope();
            using IDisposable noGradient = no_grad();
            Tensor x = NativeTensors.Create(Array.ConvertAll(image.Lr.Data, value => values[value]), [1, image.Lr.Height, image.Lr.Width, 3]);
            return new ValidationScore(image.Name, Metrics.Compare(image.Hr, Blocks.ToImage(network.Forward(x), shape.Black), crop: shape.Scale).PsnrY);
        })];
    }

    /// <summary>
    /// JointSR at about the mix of scales that a constant rate gives: of every ten blocks the most detailed one at scale 2,
    /// the four flattest at scale 8, the rest at scale 4. PSNR-Y over all pixels, and the seam figure.
    /// </summary>
    /// <param name="shape">The model's shape, of scales 2, 4 and 8.</param>
    /// <param name="values">Its tensors.</param>
    /// <param name="images">Sides in whole blocks.</param>
    /// <param name="shrinker">Makes LR.</param>
    internal static IReadOnlyList<ValidationScore> Joint(JointSrShape shape, IReadOnlyDictionary<string, TensorData> values, IReadOnlyList<Photo> images, BlockShrinker shrinker)
    {
        using var set = new JointSet(shape, values, "the weights", trainable: false);
        using var model = new JointPass(shape, set.Sets, ScalarType.Float32, training: false);
        return [.. images.Select(image =>
        {
            using var scope = NewDisposeScope();
            using IDisposable noGradient = no_grad();
            JointCrop[] crop = [JointSrTask.ValidationCrop(image.Pixels, shrinker)];
            ImageQuality quality = Metrics.Compare(image.Pixels, Blocks.ToImage(model.Image(model.Features(crop), crop), shrinker.Black));
            return new ValidationScore(image.Name, quality.PsnrY, quality.Seam ?? 1);
        })];
    }

    /// <summary>Blocks down and up again, each by itself: by Down-Net (LR rounded to 8 bits) or bicubic, and a network. PSNR-Y over all pixels.</summary>
    /// <param name="down">Down-Net's shape and tensors; null is bicubic.</param>
    /// <param name="shape">The network's shape.</param>
    /// <param name="network">Its tensors.</param>
    /// <param name="images">Sides in whole blocks.</param>
    public static IReadOnlyList<ValidationScore> RoundTrip((DownNetShape Shape, IReadOnlyDictionary<string, TensorData> Tensors)? down, SrNetworkShape shape,
        IReadOnlyDictionary<string, TensorData> network, IReadOnlyList<Photo> images)
    {
        using var parameters = new ParameterSet(shape.Parameters, network, "the weights");
        using SrNetwork upscaler = shape.CreateNetwork(parameters);
        using ParameterSet? downParameters = down is { } pair ? new ParameterSet(pair.Shape.Parameters, pair.Tensors, "the weights") : null;
        DownNetNetwork? downscaler = downParameters is null ? null : new DownNetNetwork(down!.Value.Shape, downParameters);
        float[] table = CropSampler.ValueTable(shape.Black);
        const int side = JointSrTask.Block;
        return [.. images.Select(image =>
        {
            using var scope = NewDisposeScope();
            using IDisposable noGradient = no_grad();
            int rows = image.Pixels.Height / side, columns = image.Pixels.Width / side, small = side / shape.Scale;
            ushort[] samples = StripPixels.CutBlocks(image.Pixels, 3, side, [.. Enumerable.Range(0, rows * columns)]).Samples;
            Tensor lr = downscaler is null
                ? NativeTensors.Create(Blocks.Shrunk(samples, side, shape.Scale, table), [rows * columns, small, small, 3])
                : DownNetGradient.Rounded(downscaler.Forward(NativeTensors.Create(Array.ConvertAll(samples, value => table[value]), [rows * columns, side, side, 3])), shape.Black);
            ImageQuality quality = Metrics.Compare(image.Pixels, Blocks.ToImage(Blocks.Stitch(upscaler.Forward(lr), rows, columns), shape.Black));
            return new ValidationScore(image.Name, quality.PsnrY, quality.Seam ?? 1);
        })];
    }
}

using BbmrCluster.Imaging;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>
/// What differs between the kinds of training: parameters, data, loss and validation. Owns its native memory. The work
/// of a step is drawn on any thread, and done on the training thread.
/// </summary>
internal abstract class TrainingTask : IDisposable
{
    /// <summary>The parameters that are trained, in named sets.</summary>
    public abstract IReadOnlyList<(string Name, ParameterSet Parameters)> Sets { get; }

    /// <summary>The gradient of a set after a step; overwritten by the next.</summary>
    public abstract Tensor Gradient(int set);

    /// <summary>Whether a step, counted from 0, trains a set.</summary>
    public virtual bool Trains(int set, int step) => true;

    /// <summary>Draws the data of a step, counted from 0; the same step gives the same data.</summary>
    /// <returns>Does the step: computes the gradients and returns the loss.</returns>
    public abstract Func<double> Draw(int step);

    /// <summary>Measures averaged parameters, one flat tensor for each set; empty without validation images.</summary>
    /// <returns>Name to figure, e.g. "photographs_psnr_y"; dB, but a ratio for "..._seam".</returns>
    public abstract IReadOnlyDictionary<string, double> Validate(IReadOnlyList<Tensor> averages);

    /// <summary>The figure of <see cref="Validate"/> by which the best weights are known; null without validation images.</summary>
    public abstract string? Measure { get; }

    /// <summary>Files of weights: suffix of the name ("" for the only one) to tensors.</summary>
    /// <param name="averages">As <see cref="Validate"/>.</param>
    public abstract IReadOnlyDictionary<string, IReadOnlyDictionary<string, TensorData>> Export(IReadOnlyList<Tensor> averages);

    /// <summary>Makes the task of a recipe, with its photographs.</summary>
    /// <exception cref="InvalidDataException">Photographs or start weights cannot be used; one sentence.</exception>
    public static TrainingTask Create(TrainingRecipe recipe, TrainingPaths paths, CancellationToken cancellation)
    {
        int leastSide = recipe.Kind == TrainingKind.Sr ? recipe.LrPatch * recipe.Scale!.Value : recipe.HrCrop!.Value;
        IReadOnlyList<Photo> photos = PhotoSet.Load(paths.Photos, "train", leastSide, cancellation);
        IReadOnlyList<ValidationSet> validation = ValidationSet.Load(paths, cancellation);
        return recipe.Kind switch
        {
            TrainingKind.Sr => new SrTask(recipe, photos, validation),
            TrainingKind.Jointsr => new JointSrTask(recipe, photos, validation),
            _ => new DownNetTask(recipe, photos, validation),
        };
    }

    /// <summary>Frees parameters and networks.</summary>
    public abstract void Dispose();

    /// <summary>The type of bodies.</summary>
    protected static ScalarType Body(TrainingRecipe recipe) => recipe.Precision == "bfloat16" ? ScalarType.BFloat16 : ScalarType.Float32;
}

/// <summary>An image cut into blocks, in raster order.</summary>
internal static class Blocks
{
    /// <summary>Each block shrunk by itself, as network values.</summary>
    /// <param name="samples">8-bit RGB blocks, one after another.</param>
    /// <param name="side">Of a block, pixels.</param>
    /// <param name="scale">Divides the side.</param>
    /// <param name="values">Network value of each 8-bit value.</param>
    public static float[] Shrunk(ReadOnlySpan<ushort> samples, int side, int scale, float[] values)
    {
        var small = new ushort[samples.Length / (scale * scale)];
        Bicubic.DownscaleBlocks(samples, side, 8, scale, small);
        return Array.ConvertAll(small, value => values[value]);
    }

    /// <summary>Blocks (B rows columns, s, s, C) in raster order to maps (B, rows s, columns s, C).</summary>
    public static Tensor Stitch(Tensor blocks, int rows, int columns)
    {
        using var scope = NewDisposeScope();
        long side = blocks.shape[1], channels = blocks.shape[3], maps = blocks.shape[0] / (rows * columns);
        return blocks.view(maps, rows, columns, side, side, channels).permute(0, 1, 3, 2, 4, 5).contiguous()
            .view(maps, rows * side, columns * side, channels).MoveToOuterDisposeScope();
    }

    /// <summary>Network values (1, H, W, 3) to an 8-bit image, clamped and rounded.</summary>
    /// <param name="values">Contiguous float32.</param>
    /// <param name="black">The value of black; white is 1.</param>
    public static PixelBuffer ToImage(Tensor values, float black)
    {
        float factor = 255 / (1 - black);
        byte[] bytes = Array.ConvertAll(values.data<float>().ToArray(), value => (byte)Math.Round(Math.Clamp((value - black) * factor, 0, 255)));
        return new PixelBuffer((int)values.shape[2], (int)values.shape[1], 3, 8, bytes);
    }
}

using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>One super-resolution network by L1 on patches.</summary>
internal sealed class SrTask : TrainingTask
{
    private readonly TrainingRecipe _recipe;
    private readonly SrNetworkShape _shape;
    private readonly ParameterSet _parameters;
    private readonly GradientStep _gradients;
    private readonly PatchSampler _sampler;
    private readonly IReadOnlyList<(string Name, IReadOnlyList<TrainingPhoto> Images)> _validation;

    public SrTask(TrainingRecipe recipe, IReadOnlyList<Photo> photos, IReadOnlyList<ValidationSet> validation)
    {
        int scale = recipe.Scale!.Value;
        (_recipe, _shape) = (recipe, recipe.ShapeAt(scale));
        _sampler = new PatchSampler([.. photos.Select(photo => PhotoSet.Pair(photo.Name, photo.Pixels, scale))], recipe);
        _validation = [.. validation.Select(set => (set.Name, set.Pairs(scale)))];
        _parameters = new ParameterSet(_shape.Parameters, Start(recipe, _shape), recipe.StartFrom ?? recipe.Name, trainable: true);
        _gradients = new GradientStep(_shape, _parameters, Body(recipe), Math.Min(recipe.Threads, recipe.Batch));
    }

    public override IReadOnlyList<(string Name, ParameterSet Parameters)> Sets => [("network", _parameters)];

    public override Tensor Gradient(int set) => _gradients.Gradient;

    public override Func<double> Draw(int step)
    {
        PatchBatch batch = _sampler.Draw(step);
        return () => _gradients.Compute(batch.Lr, batch.Hr, _recipe.Batch, _recipe.LrPatch);
    }

    public override string? Measure => _validation.Count > 0 ? _validation[^1].Name + "_psnr_y" : null;

    public override IReadOnlyDictionary<string, double> Validate(IReadOnlyList<Tensor> averages)
    {
        IReadOnlyDictionary<string, TensorData> weights = _parameters.Export(averages[0]);
        return _validation.ToDictionary(set => set.Name + "_psnr_y", set => Validation.Psnr(_shape, weights, set.Images).Average(score => score.PsnrY), StringComparer.Ordinal);
    }

    public override IReadOnlyDictionary<string, IReadOnlyDictionary<string, TensorData>> Export(IReadOnlyList<Tensor> averages) =>
        new Dictionary<string, IReadOnlyDictionary<string, TensorData>>(StringComparer.Ordinal) { [""] = _parameters.Export(averages[0]) };

    public override void Dispose()
    {
        _gradients.Dispose();
        _parameters.Dispose();
    }

    /// <summary>First values: bicubic, or those of a file, brought to this depth and scale.</summary>
    private static IReadOnlyDictionary<string, TensorData> Start(TrainingRecipe recipe, SrNetworkShape shape)
    {
        if (recipe.StartFrom is not { } path)
            return Initialisation.FromBicubic(shape, recipe.Seed);
        (SrNetworkShape other, IReadOnlyDictionary<string, TensorData> state) = Architectures.RecogniseSr(SafetensorsFile.Read(path), path);
        if (!string.Equals(other.Architecture, shape.Architecture, StringComparison.Ordinal) || other.Black != shape.Black)
            throw new InvalidDataException($"{path} holds {other.Description}, from which {shape.Description} cannot start.");
        state = Initialisation.Deepened(state, other, shape, recipe.Seed);
        return other.Scale == shape.Scale ? state : Initialisation.FromOtherScale(state, other, shape.Scale);
    }
}

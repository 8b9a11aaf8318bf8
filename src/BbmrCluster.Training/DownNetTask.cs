using BbmrCluster.Imaging;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>HR crops and their LR by bicubic, each crop by itself.</summary>
/// <param name="Hr">(B, side, side, 3) in network values.</param>
/// <param name="Lr">(B, side / scale, side / scale, 3).</param>
internal sealed record DownNetBatch(float[] Hr, float[] Lr);

/// <summary>
/// A Down-Net with its super-resolution network end to end (paper, equation 6): 2^-scale times the distance of its LR to
/// bicubic plus the distance of the result to HR, both mean absolute. LR is rounded to 8 bits as it is stored; the
/// gradient goes straight through the rounding.
/// </summary>
internal sealed class DownNetTask : TrainingTask
{
    private readonly TrainingRecipe _recipe;
    private readonly int _scale;
    private readonly DownNetShape _downShape;
    private readonly SrNetworkShape _shape;
    private readonly HrCropSampler _sampler;
    private readonly float[] _values;
    private readonly ParameterSet _down, _network;
    private readonly DownNetGradient _gradients;
    private readonly IReadOnlyList<(string Name, IReadOnlyList<Photo> Images)> _validation;
    private readonly Dictionary<string, double> _bicubicScores;

    public DownNetTask(TrainingRecipe recipe, IReadOnlyList<Photo> photos, IReadOnlyList<ValidationSet> validation)
    {
        (_recipe, _scale) = (recipe, recipe.Scale!.Value);
        (_downShape, _shape) = (new DownNetShape(_scale), recipe.ShapeAt(_scale));
        _values = CropSampler.ValueTable(_shape.Black);
        _sampler = new HrCropSampler(photos, recipe);
        _validation = [.. validation.Select(set => (set.Name, set.InBlocks())).Where(set => set.Item2.Count > 0)];
        _down = new ParameterSet(_downShape.Parameters,
            recipe.StartFrom is { } path ? SafetensorsFile.Read(path).Tensors : Initialisation.FromBoxAverage(_downShape, recipe.Seed), recipe.StartFrom ?? "the start", trainable: true);
        _network = new ParameterSet(_shape.Parameters, StartWeights.Network(recipe, _shape, 0).Tensors, "the start network", trainable: true);
        _gradients = new DownNetGradient(_downShape, _shape, _down, _network, Body(recipe), Math.Min(recipe.Threads, recipe.Batch));
        _bicubicScores = Scores(null, _network.Export(), "bicubic_");
    }

    public override IReadOnlyList<(string Name, ParameterSet Parameters)> Sets => [("downnet", _down), ("network", _network)];

    public override Tensor Gradient(int set) => _gradients.Gradient(set);

    public override bool Trains(int set, int step) => set == 0 || step >= _recipe.FitSteps;

    public override Func<double> Draw(int step)
    {
        PixelBuffer[] crops = _sampler.Draw(step).Crops;
        int side = _recipe.HrCrop!.Value;
        ushort[] samples = [.. crops.SelectMany(crop => crop.Data, (_, value) => (ushort)value)];
        var batch = new DownNetBatch(Array.ConvertAll(samples, value => _values[value]), Blocks.Shrunk(samples, side, _scale, _values));
        return () => _gradients.Compute(batch, _recipe.Batch, side, fitOnly: step < _recipe.FitSteps);
    }

    public override string? Measure => _validation.Count > 0 ? _validation[^1].Name + "_blocks_psnr_y" : null;

    public override IReadOnlyDictionary<string, double> Validate(IReadOnlyList<Tensor> averages) =>
        new Dictionary<string, double>(Scores((_downShape, _down.Export(averages[0])), _network.Export(averages[1]), "").Concat(_bicubicScores), StringComparer.Ordinal);

    /// <remarks>The names of the catalog are "downnet-NETWORK" and "NETWORK-downnet"; here the recipe's name and a suffix.</remarks>
    public override IReadOnlyDictionary<string, IReadOnlyDictionary<string, TensorData>> Export(IReadOnlyList<Tensor> averages) =>
        new Dictionary<string, IReadOnlyDictionary<string, TensorData>>(StringComparer.Ordinal)
        {
            [""] = _down.Export(averages[0]),
            [".network"] = _network.Export(averages[1]),
        };

    public override void Dispose()
    {
        _gradients.Dispose();
        _down.Dispose();
        _network.Dispose();
    }

    private Dictionary<string, double> Scores((DownNetShape, IReadOnlyDictionary<string, TensorData>)? down, IReadOnlyDictionary<string, TensorData> network, string label) =>
        _validation.ToDictionary(set => $"{set.Name}_blocks_{label}psnr_y", set => Validation.RoundTrip(down, _shape, network, set.Images).Average(score => score.PsnrY), StringComparer.Ordinal);
}

/// <summary>Equation 6 and its gradient, crops shared among workers.</summary>
internal sealed class DownNetGradient : IDisposable
{
    private readonly DataParallel _parallel;
    private readonly DownNetNetwork[] _downscalers;
    private readonly SrNetwork[] _upscalers;

    /// <param name="downShape">Shape of the Down-Net.</param>
    /// <param name="shape">Shape of the network behind it.</param>
    /// <param name="down">Parameters of the Down-Net; not owned.</param>
    /// <param name="network">Parameters of the network; not owned.</param>
    /// <param name="body">Type of the network's body.</param>
    /// <param name="workers">Threads.</param>
    public DownNetGradient(DownNetShape downShape, SrNetworkShape shape, ParameterSet down, ParameterSet network, ScalarType body, int workers)
    {
        _parallel = new DataParallel(workers, down, network);
        _downscalers = [.. Enumerable.Range(0, workers).Select(i => new DownNetNetwork(downShape, _parallel.Replica(i)))];
        _upscalers = [.. Enumerable.Range(0, workers).Select(i => shape.CreateNetwork(_parallel.Replica(i, 1), body, training: true))];
    }

    /// <summary>The gradient of Down-Net (0) or the network (1); overwritten by the next <see cref="Compute"/>.</summary>
    public Tensor Gradient(int set) => _parallel.Gradient(set);

    /// <summary>The loss and its gradient.</summary>
    /// <param name="batch">Crops.</param>
    /// <param name="count">How many.</param>
    /// <param name="side">Of a crop, HR pixels.</param>
    /// <param name="fitOnly">The distance to bicubic alone, with weight 1.</param>
    public double Compute(DownNetBatch batch, int count, int side, bool fitOnly)
    {
        SrNetworkShape shape = _upscalers[0].Shape;
        int small = side / shape.Scale, great = side * side * 3, little = small * small * 3;
        return _parallel.Compute(worker =>
        {
            (int first, int share) = _parallel.Share(worker, count);
            Tensor hr = NativeTensors.Create(batch.Hr.AsSpan(first * great, share * great), [share, side, side, 3]);
            Tensor lr = NativeTensors.Create(batch.Lr.AsSpan(first * little, share * little), [share, small, small, 3]);
            Tensor made = _downscalers[worker].Forward(hr);
            Tensor loss = (made - lr).abs().sum().DividedBy((double)count * little);
            if (!fitOnly)
                loss = loss.Times(Math.Pow(2, -shape.Scale)).Plus((_upscalers[worker].Forward(Rounded(made, shape.Black)) - hr).abs().sum().DividedBy((double)count * great));
            loss.backward();
            return loss.item<float>();
        });
    }

    /// <summary>Clamped and rounded to 8 bits; the gradient passes the rounding, and where a value was clamped stops.</summary>
    public static Tensor Rounded(Tensor lr, float black)
    {
        using var scope = NewDisposeScope();
        float factor = 255 / (1 - black);
        Tensor clamped = lr.Within(black, 1);
        Tensor rounded = clamped.detach().Plus(-black).Times(factor).round().DividedBy(factor).Plus(black);
        return clamped.Plus(rounded - clamped.detach()).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (SrNetwork upscaler in _upscalers)
            upscaler.Dispose();
        _parallel.Dispose();
    }
}

/// <summary>Super-resolution weights that JointSR and Down-Net start from.</summary>
internal static class StartWeights
{
    /// <summary>The file that a recipe names, or the shipped weights of its network.</summary>
    /// <param name="recipe">The recipe.</param>
    /// <param name="shape">What is wanted.</param>
    /// <param name="index">Which of the recipe's files.</param>
    /// <exception cref="InvalidDataException">Not there, or another network; one sentence.</exception>
    public static (SrNetworkShape Shape, IReadOnlyDictionary<string, TensorData> Tensors) Network(TrainingRecipe recipe, SrNetworkShape shape, int index)
    {
        (SrNetworkShape Shape, IReadOnlyDictionary<string, TensorData> Tensors) found;
        string source;
        if (recipe.StartNetworks is { } files)
        {
            source = files[index];
            found = Architectures.RecogniseSr(SafetensorsFile.Read(source), source);
        }
        else
        {
            LoadedModel model = new ModelCatalog().Load(ModelNames.Network(recipe.Network, recipe.Downscaler), shape.Scale);
            (source, found) = (model.FileName, (model.SrShape, model.Tensors));
        }
        return string.Equals(found.Shape.Description, shape.Description, StringComparison.Ordinal)
            ? (shape, found.Tensors)
            : throw new InvalidDataException($"{source} holds {found.Shape.Description}, {shape.Description} is needed.");
    }
}

using BbmrCluster.Imaging;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>One crop as the product would store it: LR blocks of each scale, each shrunk by itself.</summary>
/// <param name="Lr">For each scale the LR blocks, (n, s, s, 3) in network values.</param>
/// <param name="Places">For each scale the raster numbers of those blocks in the crop.</param>
/// <param name="Hr">The crop, (H, W, 3) in network values.</param>
/// <param name="Rows">Block rows.</param>
/// <param name="Columns">Block columns.</param>
internal sealed record JointCrop(IReadOnlyList<float[]> Lr, IReadOnlyList<int[]> Places, float[] Hr, int Rows, int Columns);

/// <summary>JointSR as one unit (paper sections 3.4 and 4.1): all extractors and the joint part by L1 on stitched crops.</summary>
internal sealed class JointSrTask : TrainingTask
{
    /// <summary>Side of a block, HR pixels.</summary>
    public const int Block = BlockGrid.DefaultBlockSize;

    private static readonly int[] Scales = [2, 4, 8];

    private readonly TrainingRecipe _recipe;
    private readonly JointSrShape _shape;
    private readonly HrCropSampler _sampler;
    private readonly BlockShrinker _shrinker;
    private readonly IReadOnlyList<(string Name, ParameterSet Parameters)> _sets;
    private readonly JointGradient _gradients;
    private readonly IReadOnlyList<(string Name, IReadOnlyList<Photo> Images)> _validation;
    private readonly IReadOnlyDictionary<string, double> _warmScores;

    public JointSrTask(TrainingRecipe recipe, IReadOnlyList<Photo> photos, IReadOnlyList<ValidationSet> validation)
    {
        _recipe = recipe;
        _shape = new JointSrShape([.. Scales.Select(recipe.ShapeAt)]);
        _shrinker = BlockShrinker.Of(recipe, _shape);
        _sampler = new HrCropSampler(photos, recipe);
        _validation = [.. validation.Select(set => (set.Name, set.InBlocks())).Where(set => set.Item2.Count > 0)];

        IReadOnlyDictionary<string, TensorData> warm = JointSrShape.WarmStart([.. Scales.Select((_, i) => StartWeights.Network(recipe, _shape.Extractors[i], i))]);
        _warmScores = Scores(warm, "warm_");
        IReadOnlyDictionary<string, TensorData> start = recipe.StartFrom is { } path ? SafetensorsFile.Read(path).Tensors : warm;
        _gradients = new JointGradient(_shape, start, recipe.StartFrom ?? "the warm start", Body(recipe), Math.Min(recipe.Threads, recipe.Batch), recipe.BlocksAtOnce);
        _sets = _gradients.Parameters.Named;
    }

    public override IReadOnlyList<(string Name, ParameterSet Parameters)> Sets => _sets;

    public override Tensor Gradient(int set) => _gradients.Gradient(set);

    public override Func<double> Draw(int step)
    {
        (PixelBuffer[] crops, Random random) = _sampler.Draw(step);
        JointCrop[] made = [.. crops.Select(crop =>
        {
            int[] order = _recipe.Assignment == "detail" ? ByDetail(crop) : Shuffled(crop, random);
            return MakeCrop(crop, order, _recipe.MixOrEqual, _shrinker);
        })];
        return () => _gradients.Compute(made);
    }

    public override string? Measure => _validation.Count > 0 ? _validation[^1].Name + "_blocks_psnr_y" : null;

    public override IReadOnlyDictionary<string, double> Validate(IReadOnlyList<Tensor> averages) =>
        new Dictionary<string, double>(Scores(Combined(averages), "").Concat(_warmScores), StringComparer.Ordinal);

    public override IReadOnlyDictionary<string, IReadOnlyDictionary<string, TensorData>> Export(IReadOnlyList<Tensor> averages) =>
        new Dictionary<string, IReadOnlyDictionary<string, TensorData>>(StringComparer.Ordinal) { [""] = Combined(averages) };

    public override void Dispose()
    {
        _gradients.Dispose();
        _shrinker.Dispose();
    }

    /// <summary>
    /// The blocks of an image at about the mix that the rate budget gives: of every ten blocks the most detailed one at
    /// scale 2, the four flattest at scale 8, the rest at scale 4.
    /// </summary>
    internal static JointCrop ValidationCrop(PixelBuffer image, BlockShrinker shrinker)
    {
        int blocks = image.Width / Block * (image.Height / Block), fine = (blocks + 5) / 10;
        return MakeCrop(image, ByDetail(image), [fine, blocks - (5 * fine), 4 * fine], shrinker);
    }

    /// <summary>A crop whose blocks, in the order given, get so many of each scale.</summary>
    /// <param name="image">Sides multiples of a block.</param>
    /// <param name="order">Raster numbers of all blocks.</param>
    /// <param name="counts">Blocks at scales 2, 4, 8.</param>
    /// <param name="shrinker">Makes LR.</param>
    internal static JointCrop MakeCrop(PixelBuffer image, int[] order, IReadOnlyList<int> counts, BlockShrinker shrinker)
    {
        var lr = new float[Scales.Length][];
        var places = new int[Scales.Length][];
        int first = 0;
        for (int s = 0; s < Scales.Length; s++)
        {
            places[s] = [.. order.Skip(first).Take(counts[s]).Order()];
            lr[s] = places[s].Length == 0 ? [] : shrinker.Shrink(StripPixels.CutBlocks(image, 3, Block, places[s]).Samples, Scales[s]);
            first += counts[s];
        }
        return new JointCrop(lr, places, Array.ConvertAll(image.Data, value => shrinker.Values[value]), image.Height / Block, image.Width / Block);
    }

    private static int[] ByDetail(PixelBuffer image)
    {
        int columns = image.Width / Block;
        return [.. Enumerable.Range(0, columns * (image.Height / Block))
            .OrderByDescending(block => CropSampler.MeanDifference(image, block % columns * Block, block / columns * Block, Block))];
    }

    private static int[] Shuffled(PixelBuffer image, Random random)
    {
        int[] order = [.. Enumerable.Range(0, image.Width / Block * (image.Height / Block))];
        random.Shuffle(order);
        return order;
    }

    private IReadOnlyDictionary<string, TensorData> Combined(IReadOnlyList<Tensor> averages) => _gradients.Parameters.Combined(averages);

    private Dictionary<string, double> Scores(IReadOnlyDictionary<string, TensorData> values, string label)
    {
        var scores = new Dictionary<string, double>(StringComparer.Ordinal);
        foreach ((string name, IReadOnlyList<Photo> images) in _validation)
        {
            IReadOnlyList<ValidationScore> found = Validation.Joint(_shape, values, images, _shrinker);
            scores[$"{name}_blocks_{label}psnr_y"] = found.Average(score => score.PsnrY);
            scores[$"{name}_blocks_{label}seam"] = found.Average(score => score.Seam);
        }
        return scores;
    }
}

/// <summary>Makes LR blocks as network values: by bicubic, or by trained Down-Nets that it owns. May be used on any thread.</summary>
internal sealed class BlockShrinker : IDisposable
{
    private readonly Dictionary<int, (DownNetNetwork Network, ParameterSet Parameters)>? _downNets;

    /// <param name="black">The networks' value of black.</param>
    /// <param name="downNets">Down-Nets for every scale in use; null is bicubic.</param>
    public BlockShrinker(float black, IReadOnlyDictionary<int, (DownNetShape Shape, IReadOnlyDictionary<string, TensorData> Tensors)>? downNets = null)
    {
        (Black, Values) = (black, CropSampler.ValueTable(black));
        _downNets = downNets?.ToDictionary(pair => pair.Key, pair =>
        {
            var parameters = new ParameterSet(pair.Value.Shape.Parameters, pair.Value.Tensors, $"the Down-Net of scale {pair.Key}");
            return (new DownNetNetwork(pair.Value.Shape, parameters), parameters);
        });
    }

    /// <summary>The value of black.</summary>
    public float Black { get; }

    /// <summary>Network value of each 8-bit value.</summary>
    public float[] Values { get; }

    /// <summary>As a recipe says; Down-Nets come from the catalog.</summary>
    public static BlockShrinker Of(TrainingRecipe recipe, JointSrShape shape) => new(shape.Extractors[0].Black, recipe.Downscaler is "bicubic" ? null : shape.Scales.ToDictionary(scale => scale, scale =>
    {
        LoadedModel model = new ModelCatalog().Load(ModelNames.DownNet(recipe.Network), scale);
        return ((DownNetShape)model.Shape, model.Tensors);
    }));

    /// <summary>Blocks of 128 x 128, each by itself, to (n, 128 / scale, 128 / scale, 3).</summary>
    public float[] Shrink(ushort[] samples, int scale)
    {
        if (_downNets is null)
            return Blocks.Shrunk(samples, JointSrTask.Block, scale, Values);
        NativeRuntime.SetThreads(1);
        using var scope = NewDisposeScope();
        using IDisposable noGradient = no_grad();
        long count = samples.Length / (JointSrTask.Block * JointSrTask.Block * 3);
        Tensor hr = NativeTensors.Create(Array.ConvertAll(samples, value => Values[value]), [count, JointSrTask.Block, JointSrTask.Block, 3]);
        return DownNetGradient.Rounded(_downNets[scale].Network.Forward(hr), Black).data<float>().ToArray();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach ((_, ParameterSet parameters) in _downNets?.Values ?? Enumerable.Empty<(DownNetNetwork, ParameterSet)>())
            parameters.Dispose();
    }
}

/// <summary>The parameters of a joint model as one set for each extractor and one for the joint part. Owns them.</summary>
internal sealed class JointSet : IDisposable
{
    private readonly JointSrShape _shape;

    /// <summary>Copies values in.</summary>
    /// <exception cref="InvalidDataException">They are not those of the shape; one sentence naming <paramref name="source"/>.</exception>
    public JointSet(JointSrShape shape, IReadOnlyDictionary<string, TensorData> values, string source, bool trainable)
    {
        _shape = shape;
        if (shape.Parameters.FirstOrDefault(p => !values.ContainsKey(p.Name)).Name is { } missing)
            throw new InvalidDataException($"{source} lacks the parameter '{missing}' of {shape.Description}.");
        Sets =
        [
            .. shape.Extractors.Select(e => new ParameterSet(e.FeatureParameters, shape.ExtractorOf(values, e.Scale), source, trainable)),
            new ParameterSet(shape.JointParameters, shape.JointOf(values), source, trainable),
        ];
    }

    /// <summary>The extractors' by ascending scale, then the joint part's.</summary>
    public IReadOnlyList<ParameterSet> Sets { get; }

    /// <summary>The sets with their names: "extractor2", ..., "joint".</summary>
    public IReadOnlyList<(string Name, ParameterSet Parameters)> Named =>
        [.. Sets.Select((set, i) => (i < _shape.Extractors.Count ? JointSrShape.Prefix(_shape.Scales[i]).TrimEnd('.') : "joint", set))];

    /// <summary>Flat tensors laid out like the sets as one model.</summary>
    public IReadOnlyDictionary<string, TensorData> Combined(IReadOnlyList<Tensor> flat) => Sets
        .SelectMany((set, i) => set.Export(flat[i]).Select(pair => KeyValuePair.Create(i < _shape.Extractors.Count ? JointSrShape.Prefix(_shape.Scales[i]) + pair.Key : pair.Key, pair.Value)))
        .ToDictionary(StringComparer.Ordinal);

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (ParameterSet set in Sets)
            set.Dispose();
    }
}

/// <summary>JointSR on crops: features of every block, and from them the stitched image. Owns its networks, not the parameters.</summary>
internal sealed class JointPass : IDisposable
{
    private readonly JointSrShape _shape;
    private readonly SrNetwork[] _extractors;
    private readonly JointSrHead _head;

    /// <param name="shape">The model's shape.</param>
    /// <param name="sets">As <see cref="JointSet.Sets"/>.</param>
    /// <param name="body">Type of the extractors' bodies.</param>
    /// <param name="training">Whether passes are differentiable.</param>
    public JointPass(JointSrShape shape, IReadOnlyList<ParameterSet> sets, ScalarType body, bool training)
    {
        _shape = shape;
        _extractors = [.. shape.Extractors.Select((extractor, i) => extractor.CreateNetwork(sets[i], body, training))];
        _head = new JointSrHead(shape.Scales, sets[^1], skipIdentity: !training, shape.Extractors[0].Mean);
    }

    /// <summary>Network values of the LR blocks of crops at a scale: (n, s, s, 3), crop after crop.</summary>
    public Tensor Lr(IReadOnlyList<JointCrop> crops, int scaleIndex)
    {
        float[] all = [.. crops.SelectMany(crop => crop.Lr[scaleIndex])];
        int side = JointSrTask.Block / _shape.Scales[scaleIndex];
        return NativeTensors.Create(all, [all.Length / (side * side * 3), side, side, 3]);
    }

    /// <summary>Features of LR blocks of one scale: (n, s, s, 3) to (n, 128 / k1, 128 / k1, 3 k1^2).</summary>
    public Tensor Features(Tensor lr, int scaleIndex)
    {
        using var scope = NewDisposeScope();
        return _head.Tail(_extractors[scaleIndex].Features(lr), _shape.Scales[scaleIndex], lr.shape[1], lr.shape[2]).MoveToOuterDisposeScope();
    }

    /// <summary>Features of all blocks of crops: those of the finest scale first, crop after crop within a scale.</summary>
    public Tensor Features(IReadOnlyList<JointCrop> crops)
    {
        using var scope = NewDisposeScope();
        return cat([.. Enumerable.Range(0, _extractors.Length).Where(s => crops.Any(crop => crop.Places[s].Length > 0)).Select(s => Features(Lr(crops, s), s))]).MoveToOuterDisposeScope();
    }

    /// <summary>The images of crops of one size: features as <see cref="Features(IReadOnlyList{JointCrop})"/> orders them to (crops, H, W, 3).</summary>
    public Tensor Image(Tensor features, IReadOnlyList<JointCrop> crops)
    {
        using var scope = NewDisposeScope();
        (int rows, int columns, int side) = (crops[0].Rows, crops[0].Columns, JointSrTask.Block / _shape.Scales[0]);
        var order = new long[crops.Count * rows * columns];
        long at = 0;
        for (int s = 0; s < _extractors.Length; s++)
        {
            for (int c = 0; c < crops.Count; c++)
            {
                foreach (int place in crops[c].Places[s])
                    order[(c * rows * columns) + place] = at++;
            }
        }
        Tensor map = Blocks.Stitch(features.index_select(0, tensor(order)), rows, columns);
        return _head.Image(map, Seams(rows), Seams(columns)).MoveToOuterDisposeScope();

        int[] Seams(int blocks) => [.. Enumerable.Range(1, blocks - 1).Select(seam => seam * side)];
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (SrNetwork extractor in _extractors)
            extractor.Dispose();
    }
}

/// <summary>
/// Loss and gradient of JointSR, crops shared among workers. With blocks at a time the gradient is taken in two passes:
/// features without gradient; joint part with gradient, which gives that of the features; then each batch of blocks again
/// with gradient, which takes over from there.
/// </summary>
internal sealed class JointGradient : IDisposable
{
    private readonly DataParallel _parallel;
    private readonly JointPass[] _passes;
    private readonly int _blocksAtOnce;

    /// <param name="shape">The model's shape.</param>
    /// <param name="values">Its tensors.</param>
    /// <param name="source">What messages call them.</param>
    /// <param name="body">Type of the extractors' bodies.</param>
    /// <param name="workers">Threads.</param>
    /// <param name="blocksAtOnce">0 is one pass.</param>
    public JointGradient(JointSrShape shape, IReadOnlyDictionary<string, TensorData> values, string source, ScalarType body, int workers, int blocksAtOnce)
    {
        Parameters = new JointSet(shape, values, source, trainable: true);
        _parallel = new DataParallel(workers, Parameters.Sets);
        _passes = [.. Enumerable.Range(0, workers).Select(worker =>
            new JointPass(shape, [.. Parameters.Sets.Select((_, set) => _parallel.Replica(worker, set))], body, training: true))];
        _blocksAtOnce = blocksAtOnce;
    }

    /// <summary>What is trained.</summary>
    public JointSet Parameters { get; }

    /// <summary>The gradient of a set; overwritten by the next <see cref="Compute"/>.</summary>
    public Tensor Gradient(int set) => _parallel.Gradient(set);

    /// <summary>Mean absolute error of the stitched crops over all values, and its gradient.</summary>
    /// <param name="crops">Of one size, at least one for each worker.</param>
    public double Compute(IReadOnlyList<JointCrop> crops)
    {
        double values = (double)crops.Count * crops[0].Hr.Length;
        return _parallel.Compute(worker =>
        {
            (int first, int count) = _parallel.Share(worker, crops.Count);
            JointCrop[] share = [.. crops.Skip(first).Take(count)];
            JointPass pass = _passes[worker];
            Tensor hr = NativeTensors.Create([.. share.SelectMany(crop => crop.Hr)], [count, share[0].Rows * JointSrTask.Block, share[0].Columns * JointSrTask.Block, 3]);
            if (_blocksAtOnce == 0)
            {
                Tensor loss = (pass.Image(pass.Features(share), share) - hr).abs().sum().DividedBy(values);
                loss.backward();
                return loss.item<float>();
            }
            return TwoPasses(pass, share, hr, values);
        });
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (JointPass pass in _passes)
            pass.Dispose();
        _parallel.Dispose();
        Parameters.Dispose();
    }

    private double TwoPasses(JointPass pass, JointCrop[] share, Tensor hr, double values)
    {
        Tensor[] lr = [.. Enumerable.Range(0, share[0].Lr.Count).Select(s => pass.Lr(share, s))];
        (int Scale, long First, long Count)[] batches = [.. lr.SelectMany((blocks, s) =>
            Enumerable.Range(0, (int)((blocks.shape[0] + _blocksAtOnce - 1) / _blocksAtOnce)).Select(i => (s, (long)i * _blocksAtOnce, Math.Min(_blocksAtOnce, blocks.shape[0] - ((long)i * _blocksAtOnce)))))];
        Tensor features;
        using (no_grad())
            features = cat([.. batches.Select(batch => pass.Features(lr[batch.Scale].narrow(0, batch.First, batch.Count), batch.Scale))]);
        features.requires_grad = true;
        Tensor loss = (pass.Image(features, share) - hr).abs().sum().DividedBy(values);
        loss.backward();

        long at = 0;
        Tensor gradient = features.grad!;
        foreach ((int scale, long first, long count) in batches)
        {
            using var scope = NewDisposeScope();
            pass.Features(lr[scale].narrow(0, first, count), scale).backward([gradient.narrow(0, at, count)]);
            at += count;
        }
        return loss.item<float>();
    }
}

using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.DownNet;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.SmfaNet;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.Catalog;

/// <summary>The architectures of this program: a new family of networks is one line here.</summary>
public static class Architectures
{
    private static readonly SrArchitecture[] Families = [new OmniSrArchitecture(), new CraftArchitecture(), new SmfaNetArchitecture()];

    // In checkpoints, the keys under which a state dict may lie; the moving average before the last weights.
    private static readonly string[] Wrappers = ["params_ema.", "params.", "state_dict.", "model.", "module."];

    /// <summary>Every descriptor.</summary>
    public static IReadOnlyList<NetworkArchitecture> All { get; } = [new JointSrArchitecture(Families), .. Families, new DownNetArchitecture()];

    /// <summary>The networks that the program knows by name, in the order of lists.</summary>
    public static IReadOnlyList<NamedNetwork> Networks { get; } = [.. Families.SelectMany(family => family.Networks)];

    /// <summary>A network that the program knows; null for another name.</summary>
    public static NamedNetwork? Find(string network) => Networks.FirstOrDefault(known => string.Equals(known.Name, network, StringComparison.Ordinal));

    /// <summary>
    /// Recognises a network by its tensors: architecture, width, depth and scale. Parameters may be wrapped as in official
    /// checkpoints (<c>params_ema.NAME</c>, <c>params.NAME</c>, <c>state_dict.NAME</c>, <c>model.NAME</c> or <c>module.NAME</c>); constant
    /// buffers are left out.
    /// </summary>
    /// <param name="state">Tensors by name.</param>
    /// <param name="source">What messages call them.</param>
    /// <returns>The shape, and the parameters under their official names.</returns>
    /// <exception cref="InvalidDataException">The tensors are those of no network here; one sentence.</exception>
    public static (NetworkShape Shape, IReadOnlyDictionary<string, TensorData> Parameters) Recognise(IReadOnlyDictionary<string, TensorData> state, string source)
    {
        state = Unwrap(state);
        NetworkArchitecture architecture = All.FirstOrDefault(one => one.Recognises(state))
            ?? throw new InvalidDataException($"{source} does not hold {string.Join(", ", All.Reverse().SkipLast(1).Reverse().Select(one => one.Title))} or {All[^1].Title}, by the names of its tensors.");
        return (architecture.ShapeOf(state, source), architecture.ParametersOf(state));
    }

    /// <summary>Recognises the super-resolution network of a weight file.</summary>
    /// <param name="file">The file.</param>
    /// <param name="source">What messages call it.</param>
    /// <returns>Shape, and the parameters under their official names.</returns>
    /// <exception cref="InvalidDataException">The tensors are those of no super-resolution network here; one sentence.</exception>
    public static (SrNetworkShape Shape, IReadOnlyDictionary<string, TensorData> Parameters) RecogniseSr(SafetensorsFile file, string source)
    {
        (NetworkShape shape, IReadOnlyDictionary<string, TensorData> parameters) = Recognise(file, source);
        return (Upscaling(shape, source), parameters);
    }

    /// <summary>A shape that upscales.</summary>
    /// <exception cref="InvalidDataException">It is another; one sentence.</exception>
    internal static SrNetworkShape Upscaling(NetworkShape shape, string source) =>
        shape as SrNetworkShape ?? throw new InvalidDataException($"{source} holds {shape.Description}, which does not upscale.");

    /// <summary>Key of a weight file's metadata: the range of values, white being 1, where it is not the family's usual one.</summary>
    internal const string RangeKey = "value_range";

    /// <summary>Recognises the network of a weight file, see the other overload; the file may say which values it takes for black.</summary>
    /// <param name="file">The file.</param>
    /// <param name="source">What messages call it.</param>
    /// <exception cref="InvalidDataException">Not a network here; one sentence.</exception>
    public static (NetworkShape Shape, IReadOnlyDictionary<string, TensorData> Parameters) Recognise(SafetensorsFile file, string source)
    {
        (NetworkShape shape, IReadOnlyDictionary<string, TensorData> parameters) = Recognise(file.Tensors, source);
        if (!file.Metadata.TryGetValue(RangeKey, out string? text))
            return (shape, parameters);
        try
        {
            ValueRange range = ValueRange.Parse(text);
            return range.White == 1 ? (WithBlack(shape, (float)range.Black), parameters) : throw new FormatException($"'{text}' has another white than 1.");
        }
        catch (FormatException problem)
        {
            throw new InvalidDataException($"{source} says a range of values that cannot be used: {problem.Message}", problem);
        }
    }

    private static NetworkShape WithBlack(NetworkShape shape, float black) => shape switch
    {
        SrNetworkShape sr => sr with { Black = black },
        JointSrShape joint => joint with { Extractors = [.. joint.Extractors.Select(extractor => extractor with { Black = black })] },
        _ => shape,
    };

    private static IReadOnlyDictionary<string, TensorData> Unwrap(IReadOnlyDictionary<string, TensorData> state)
    {
        // One may lie in another: state_dict.module.NAME.
        for (int depth = 0; depth < 4; depth++)
        {
            string? wrapper = Wrappers.FirstOrDefault(wrapper => state.Keys.Any(name => name.StartsWith(wrapper, StringComparison.Ordinal)));
            if (wrapper is null)
                break;
            state = state.Where(pair => pair.Key.StartsWith(wrapper, StringComparison.Ordinal)).ToDictionary(pair => pair.Key[wrapper.Length..], pair => pair.Value, StringComparer.Ordinal);
        }
        return state;
    }
}

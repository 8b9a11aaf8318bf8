using System.Security.Cryptography;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.Catalog;

/// <summary>Takes a weight file that was made elsewhere into the user's folder, under the name by which the catalog finds it.</summary>
public static class ModelImport
{
    /// <summary>
    /// Recognises the network by its tensors, checks that every parameter is there with its shape, copies the file as it is
    /// and writes a card beside it.
    /// </summary>
    /// <param name="catalog">Whose own folder it goes to.</param>
    /// <param name="file">A safetensors file; parameters under their official names, possibly wrapped in "params." or "params_ema.".</param>
    /// <param name="network">The network's name for --network, see <see cref="ModelNames.IsNetworkName"/>.</param>
    /// <param name="downscaler">What made the LR it was trained on: bicubic or downnet (it is one of a pair then).</param>
    /// <param name="licence">Under what terms it may be used, for the card.</param>
    /// <param name="replace">Replace a file of that name.</param>
    /// <returns>Its entry, read back.</returns>
    /// <exception cref="InvalidDataException">Not a usable weight file, or the name or the folder cannot be used: one sentence.</exception>
    /// <exception cref="IOException">It cannot be read or written.</exception>
    public static ModelEntry Add(ModelCatalog catalog, string file, string network, string downscaler, string? licence, bool replace)
    {
        if (!ModelNames.IsNetworkName(network))
            throw new InvalidDataException($"'{network}' cannot name a network: small letters, digits, '-', '_' and '.' are allowed, and not the ends -joint and -downnet or the beginning downnet-, which the program adds itself.");
        string folder = catalog.OwnFolder ?? throw new InvalidDataException("There is no home folder to put it in: name a folder of weights by the environment variable BBMR_MODELS.");
        if (catalog.FolderOf(network) is { } taken && !string.Equals(taken, folder, StringComparison.Ordinal))
            throw new InvalidDataException($"The network {network} has weights in {taken} already, and a network is never mixed from two folders: choose another name.");

        byte[] bytes = File.ReadAllBytes(file);
        if (bytes.AsSpan().StartsWith("PK"u8) || bytes.AsSpan().StartsWith<byte>([0x80, 0x02]))
            throw new InvalidDataException($"{file} is a PyTorch file (pickle), which can run code and is never read here: convert it to safetensors first.");
        (NetworkShape shape, IReadOnlyDictionary<string, TensorData> tensors) = NetworkShape.Recognise(SafetensorsFile.Parse(bytes, file).Tensors, file);
        ParameterSet.Check(shape.Parameters, tensors, file);
        if (tensors.FirstOrDefault(tensor => !tensor.Value.Values.All(float.IsFinite)) is { Key: { } broken })
            throw new InvalidDataException($"{file}: '{broken}' holds NaN or infinity.");

        string model = ModelCatalog.KindOf(shape) switch
        {
            ModelKind.DownNet => ModelNames.DownNet(network),
            ModelKind.Joint => ModelNames.Joint(network, downscaler),
            _ => ModelNames.Network(network, downscaler),
        };
        int? scale = shape is JointSrShape ? null : shape.Scale;
        if (ModelNames.Networks.Contains(network, StringComparer.Ordinal) && !string.Equals(ModelCatalog.StandardShape(model, scale).Architecture, shape.Architecture, StringComparison.Ordinal))
            throw new InvalidDataException($"{file} holds {shape.Description}, and {network} is the name of another architecture: choose another name.");
        string path = Path.Combine(folder, ModelNames.FileName(model, scale)), cardPath = Path.ChangeExtension(path, ".json");
        string hash = Convert.ToHexStringLower(SHA256.HashData(bytes));
        if (File.Exists(path) && !replace && !string.Equals(hash, Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(path))), StringComparison.Ordinal))
            throw new InvalidDataException($"{path} is there already with other weights; --force replaces it.");

        Directory.CreateDirectory(folder);
        // The card first: between the two, a card lies there alone or contradicts a file that is being replaced.
        ModelCard.Of(model, shape, hash, $"not known: added from {Path.GetFileName(file)}", licence ?? "not stated").Save(cardPath);
        string temporary = path + ".tmp";
        File.WriteAllBytes(temporary, bytes);
        File.Move(temporary, path, overwrite: true);
        ModelEntry entry = catalog.Verify().First(entry => string.Equals(entry.Path, path, StringComparison.Ordinal));
        return entry.Problem is { } problem ? throw new InvalidDataException(problem) : entry;
    }
}

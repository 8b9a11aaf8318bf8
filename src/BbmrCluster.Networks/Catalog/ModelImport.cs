using System.Security.Cryptography;
using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.Catalog;

/// <summary>Takes a weight file that was made elsewhere into the user's folder, under the name by which the catalog finds it.</summary>
public static class ModelImport
{
    /// <summary>
    /// Recognises the network by its tensors, checks that every parameter is there with its shape, and puts it into the
    /// user's folder with a card beside it: a safetensors file as it is, a PyTorch checkpoint as safetensors.
    /// </summary>
    /// <param name="catalog">Whose own folder it goes to.</param>
    /// <param name="file">A safetensors file or a PyTorch checkpoint (zip); parameters under their official names, possibly within "params", "params_ema", "state_dict" or "model".</param>
    /// <param name="network">The network's name for --network, see <see cref="ModelNames.IsNetworkName"/>.</param>
    /// <param name="downscaler">What made the LR it was trained on: bicubic or downnet (it is one of a pair then).</param>
    /// <param name="licence">Under what terms it may be used, for the card.</param>
    /// <param name="replace">Replace a file of that name.</param>
    /// <param name="range">Values that it takes for black and white; null takes what the file says, else what a trial shows. A file in which white is not 1 or black not the family's usual is rewritten.</param>
    /// <returns>Its entry, read back.</returns>
    /// <exception cref="InvalidDataException">Not a usable weight file, or the name or the folder cannot be used: one sentence.</exception>
    /// <exception cref="IOException">It cannot be read or written.</exception>
    public static ModelEntry Add(ModelCatalog catalog, string file, string network, string downscaler, string? licence, bool replace, ValueRange? range = null)
    {
        if (!ModelNames.IsNetworkName(network))
            throw new InvalidDataException($"'{network}' cannot name a network: small letters, digits, '-', '_' and '.' are allowed, and not the ends -joint and -downnet or the beginning downnet-, which the program adds itself, nor the scorers same and bicubic.");
        string folder = catalog.OwnFolder ?? throw new InvalidDataException("There is no home folder to put it in: name a folder of weights by the environment variable BBMR_MODELS.");
        if (catalog.FolderOf(network) is { } taken && !string.Equals(taken, folder, StringComparison.Ordinal))
            throw new InvalidDataException($"The network {network} has weights in {taken} already, and a network is never mixed from two folders: choose another name.");

        byte[] bytes = File.ReadAllBytes(file);
        (NetworkShape shape, byte[] weights) = Usable(bytes, file, range);
        string model = ModelCatalog.KindOf(shape) switch
        {
            ModelKind.DownNet => ModelNames.DownNet(network),
            ModelKind.Joint => ModelNames.Joint(network, downscaler),
            _ => ModelNames.Network(network, downscaler),
        };
        int? scale = shape is JointSrShape ? null : shape.Scale;
        if (Architectures.Find(network) is not null && !string.Equals(ModelCatalog.StandardShape(model, scale).Architecture, shape.Architecture, StringComparison.Ordinal))
            throw new InvalidDataException($"{file} holds {shape.Description}, and {network} is the name of another architecture: choose another name.");
        string path = Path.Combine(folder, ModelNames.FileName(model, scale)), cardPath = Path.ChangeExtension(path, ".json");
        string hash = Convert.ToHexStringLower(SHA256.HashData(weights));
        if (File.Exists(path) && !replace && !string.Equals(hash, Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(path))), StringComparison.Ordinal))
            throw new InvalidDataException($"{path} is there already with other weights; --force replaces it.");

        Directory.CreateDirectory(folder);
        // The card first: between the two, a card lies there alone or contradicts a file that is being replaced.
        ModelCard.Of(model, shape, hash, $"not known: added from {Path.GetFileName(file)}", licence ?? "not stated").Save(cardPath);
        string temporary = path + ".tmp";
        File.WriteAllBytes(temporary, weights);
        File.Move(temporary, path, overwrite: true);
        ModelEntry entry = catalog.Verify().First(entry => string.Equals(entry.Path, path, StringComparison.Ordinal));
        return entry.Problem is { } problem ? throw new InvalidDataException(problem) : entry;
    }

    /// <summary>The network of a file, and the safetensors file to keep.</summary>
    private static (NetworkShape Shape, byte[] Weights) Usable(byte[] bytes, string file, ValueRange? range)
    {
        if (TorchCheckpoint.IsBarePickle(bytes))
            throw new InvalidDataException($"{file} is a PyTorch file of the form before PyTorch 1.6, which is not read here: load and save it once with a newer PyTorch (torch.save writes the form that is read), or convert it to safetensors.");
        if (!TorchCheckpoint.IsZip(bytes) && !TorchCheckpoint.MayBeSafetensors(bytes))
            throw new InvalidDataException($"{file} is neither a safetensors file nor a PyTorch checkpoint.");
        SafetensorsFile? safe = TorchCheckpoint.IsZip(bytes) ? null : SafetensorsFile.Parse(bytes, file);
        (NetworkShape shape, IReadOnlyDictionary<string, TensorData> tensors) = safe is null
            ? Architectures.Recognise(TorchCheckpoint.Parse(bytes, file), file)
            : Architectures.Recognise(safe, file);
        ParameterSet.Check(shape.Parameters, tensors, file);
        if (tensors.FirstOrDefault(tensor => !tensor.Value.Values.All(float.IsFinite)) is { Key: { } broken })
            throw new InvalidDataException($"{file}: '{broken}' holds NaN or infinity.");

        NetworkShape kept = shape;
        if (shape is SrNetworkShape network)
        {
            if (range is null && network.Scale > 1 && safe?.Metadata.ContainsKey(Architectures.RangeKey) != true)
                range = ValueRangeProbe.Find(network, tensors);
            if (range is { } values)
                (kept, tensors) = network.InUnitRange(tensors, values);
        }
        else if (range is not null)
        {
            throw new InvalidDataException($"{file} holds {shape.Description}: a range of values can be told only of a network that upscales by itself.");
        }
        if (safe is not null && Equals(kept, shape) && (range is null || range.Value.White == 1))
            return (kept, bytes);

        var metadata = new Dictionary<string, string>(StringComparer.Ordinal) { ["architecture"] = shape.Architecture };
        if (kept is SrNetworkShape { Black: var black } sr && black != sr.UsualBlack)
            metadata.Add(Architectures.RangeKey, new ValueRange(black, 1).ToString());
        using var rewritten = new MemoryStream();
        SafetensorsFile.Write(rewritten, tensors, metadata);
        return (kept, rewritten.ToArray());
    }
}

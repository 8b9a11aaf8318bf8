using System.Globalization;

namespace BbmrCluster.Networks.Catalog;

/// <summary>What a weight file holds.</summary>
public enum ModelKind
{
    /// <summary>A super-resolution network at one scale.</summary>
    Network,

    /// <summary>A Down-Net at one scale.</summary>
    DownNet,

    /// <summary>JointSR: the extractors of several scales and the joint part, trained as one.</summary>
    Joint,
}

/// <summary>
/// Names of weight files. NETWORK is a name of the command line, K a scale:
/// <list type="table">
/// <item><term><c>NETWORK-xK</c></term><description>super-resolution network trained on bicubic LR</description></item>
/// <item><term><c>NETWORK-joint</c></term><description>JointSR of that family for bicubic LR, all its scales in one file</description></item>
/// <item><term><c>downnet-NETWORK-xK</c></term><description>Down-Net trained together with NETWORK at scale K</description></item>
/// <item><term><c>NETWORK-downnet-xK</c></term><description>super-resolution network trained together with that Down-Net</description></item>
/// <item><term><c>NETWORK-downnet-joint</c></term><description>JointSR for LR of these Down-Nets</description></item>
/// </list>
/// The first word says what is in the file, what follows which partner it was trained with: a pair differs from the
/// network alone, and a Down-Net from another family's, so neither can be taken for the other.
/// </summary>
public static class ModelNames
{
    private const string DownNetPrefix = "downnet-", PairSuffix = "-downnet", JointSuffix = "-joint";

    /// <summary>The super-resolution network for a downscaler: NETWORK or NETWORK-downnet.</summary>
    /// <param name="network">Network name.</param>
    /// <param name="downscaler">bicubic or downnet.</param>
    public static string Network(string network, string downscaler) => downscaler is "downnet" ? network + PairSuffix : network;

    /// <summary>The Down-Net of a network: downnet-NETWORK.</summary>
    public static string DownNet(string network) => DownNetPrefix + network;

    /// <summary>JointSR of a network for a downscaler: NETWORK-joint or NETWORK-downnet-joint.</summary>
    /// <param name="network">Network name.</param>
    /// <param name="downscaler">bicubic or downnet.</param>
    public static string Joint(string network, string downscaler) => Network(network, downscaler) + JointSuffix;

    /// <summary>The file of a model.</summary>
    /// <param name="model">A name of this class, e.g. "omnisr-light-joint".</param>
    /// <param name="scale">Null where the file holds several scales.</param>
    public static string FileName(string model, int? scale) =>
        scale is { } one ? string.Create(CultureInfo.InvariantCulture, $"{model}-x{one}.safetensors") : model + ".safetensors";

    /// <summary>Reads a file name; null when it is not one of these.</summary>
    /// <param name="fileName">Without folder.</param>
    public static (string Model, int? Scale)? Parse(string fileName)
    {
        const string extension = ".safetensors";
        if (!fileName.EndsWith(extension, StringComparison.Ordinal))
            return null;
        string name = fileName[..^extension.Length];
        int at = name.LastIndexOf("-x", StringComparison.Ordinal);
        (string Model, int? Scale) read = at > 0 && int.TryParse(name.AsSpan(at + 2), NumberStyles.None, CultureInfo.InvariantCulture, out int scale) && scale is >= 1 and <= 1024
            ? (name[..at], scale)
            : (name, null);
        // One scale unless it is a joint model, and no other spelling of the same.
        bool fits = (KindOf(read.Model) == ModelKind.Joint) == (read.Scale is null) && IsNetworkName(NetworkOf(read.Model))
            && string.Equals(FileName(read.Model, read.Scale), fileName, StringComparison.Ordinal);
        return fits ? read : null;
    }

    /// <summary>
    /// Whether a text can name a network: 1 to 64 of a-z, 0-9, '-', '_' and '.', a letter or digit first, and nothing that
    /// would be taken for one of the prefixes and suffixes here, or for a scorer without a network of its own.
    /// </summary>
    public static bool IsNetworkName(string name) =>
        name is { Length: >= 1 and <= 64 } && char.IsAsciiLetterOrDigit(name[0]) && name.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c is '-' or '_' or '.')
        && name is not ("same" or "bicubic" or "none") && KindOf(name) == ModelKind.Network && string.Equals(NetworkOf(name), name, StringComparison.Ordinal);

    /// <summary>What a name says about the file.</summary>
    /// <param name="model">A name of this class.</param>
    public static ModelKind KindOf(string model) =>
        model.EndsWith(JointSuffix, StringComparison.Ordinal) ? ModelKind.Joint
        : model.StartsWith(DownNetPrefix, StringComparison.Ordinal) ? ModelKind.DownNet
        : ModelKind.Network;

    /// <summary>The network that a name belongs to: without prefix and suffixes.</summary>
    public static string NetworkOf(string model)
    {
        if (model.StartsWith(DownNetPrefix, StringComparison.Ordinal))
            return model[DownNetPrefix.Length..];
        string rest = model.EndsWith(JointSuffix, StringComparison.Ordinal) ? model[..^JointSuffix.Length] : model;
        return rest.EndsWith(PairSuffix, StringComparison.Ordinal) ? rest[..^PairSuffix.Length] : rest;
    }

    /// <summary>Whether a model is part of the method with Down-Net.</summary>
    public static bool IsOfDownNet(string model) =>
        KindOf(model) == ModelKind.DownNet || string.Equals(model, Network(NetworkOf(model), "downnet"), StringComparison.Ordinal) || string.Equals(model, Joint(NetworkOf(model), "downnet"), StringComparison.Ordinal);
}

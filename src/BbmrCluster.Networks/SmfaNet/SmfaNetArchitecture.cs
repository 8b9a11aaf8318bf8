using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.SmfaNet;

/// <summary>SMFANet for the catalog: the published SMFANet+.</summary>
internal sealed class SmfaNetArchitecture : SrArchitecture
{
    /// <inheritdoc/>
    public override string Name => SmfaNetShape.ArchitectureName;

    /// <inheritdoc/>
    public override string Title => "an SMFANet network";

    /// <inheritdoc/>
    public override IReadOnlyList<NamedNetwork> Networks { get; } = [new("smfanet", SmfaNetShape.Published)];

    /// <inheritdoc/>
    public override string TailName => SmfaNetShape.Tail;

    /// <inheritdoc/>
    public override bool Recognises(IReadOnlyDictionary<string, TensorData> state) => state.ContainsKey("to_feat.weight");

    /// <inheritdoc/>
    public override SmfaNetShape ShapeOf(IReadOnlyDictionary<string, TensorData> state, string source) => SmfaNetShape.Of(state, source);
}

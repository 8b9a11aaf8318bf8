using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.DownNet;

/// <summary>Down-Net for the catalog.</summary>
internal sealed class DownNetArchitecture : NetworkArchitecture
{
    /// <inheritdoc/>
    public override string Name => DownNetShape.ArchitectureName;

    /// <inheritdoc/>
    public override string Title => "a Down-Net";

    /// <inheritdoc/>
    public override bool Recognises(IReadOnlyDictionary<string, TensorData> state) => state.ContainsKey("0.weight");

    /// <inheritdoc/>
    public override DownNetShape ShapeOf(IReadOnlyDictionary<string, TensorData> state, string source) => DownNetShape.Of(state, source);
}

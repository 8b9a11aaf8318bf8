using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.OmniSr;

/// <summary>OmniSR for the catalog: the very lightweight network of the BBMR paper and the published one.</summary>
internal sealed class OmniSrArchitecture : SrArchitecture
{
    /// <inheritdoc/>
    public override string Name => OmniSrShape.ArchitectureName;

    /// <inheritdoc/>
    public override string Title => "an OmniSR network";

    /// <inheritdoc/>
    public override IReadOnlyList<NamedNetwork> Networks { get; } = [new("omnisr-light", scale => new OmniSrShape(scale, 1)), new("omnisr", scale => new OmniSrShape(scale, 5))];

    /// <inheritdoc/>
    public override string TailName => OmniSrShape.Tail;

    /// <inheritdoc/>
    public override bool Recognises(IReadOnlyDictionary<string, TensorData> state) => state.ContainsKey("input.weight");

    /// <inheritdoc/>
    public override OmniSrShape ShapeOf(IReadOnlyDictionary<string, TensorData> state, string source) => OmniSrShape.Of(state, source);
}

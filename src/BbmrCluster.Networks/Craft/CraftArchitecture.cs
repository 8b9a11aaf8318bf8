using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.Craft;

/// <summary>CRAFT for the catalog: the published network.</summary>
internal sealed class CraftArchitecture : SrArchitecture
{
    /// <inheritdoc/>
    public override string Name => CraftShape.ArchitectureName;

    /// <inheritdoc/>
    public override string Title => "a CRAFT network";

    /// <inheritdoc/>
    public override IReadOnlyList<NamedNetwork> Networks { get; } = [new("craft", CraftShape.Published)];

    /// <inheritdoc/>
    public override string TailName => CraftShape.Tail;

    /// <inheritdoc/>
    public override bool Recognises(IReadOnlyDictionary<string, TensorData> state) => state.ContainsKey("conv_first.weight");

    /// <inheritdoc/>
    public override CraftShape ShapeOf(IReadOnlyDictionary<string, TensorData> state, string source) => CraftShape.Of(state, source);

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, TensorData> ParametersOf(IReadOnlyDictionary<string, TensorData> state) => CraftShape.WithoutBuffers(state);
}

using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.JointSr;

/// <summary>JointSR for the catalog.</summary>
/// <param name="families">The families whose bodies may extract features.</param>
internal sealed class JointSrArchitecture(IReadOnlyList<SrArchitecture> families) : NetworkArchitecture
{
    /// <inheritdoc/>
    public override string Name => JointSrShape.ArchitectureName;

    /// <inheritdoc/>
    public override string Title => "JointSR";

    /// <inheritdoc/>
    public override bool Recognises(IReadOnlyDictionary<string, TensorData> state) => JointSrShape.Recognises(state);

    /// <inheritdoc/>
    public override JointSrShape ShapeOf(IReadOnlyDictionary<string, TensorData> state, string source) => JointSrShape.Of(state, source, families);
}

namespace BbmrCluster.Actors.Protocol;

/// <summary>Something that whoever runs the cluster wants to read in a coordinator's log; told on the event stream of its process.</summary>
/// <param name="Text">One sentence, without a full stop.</param>
public sealed record ClusterNews(string Text);

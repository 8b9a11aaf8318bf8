using System.Runtime.CompilerServices;

[assembly: InternalsVisibleTo("BbmrCluster.Node.Tests")]

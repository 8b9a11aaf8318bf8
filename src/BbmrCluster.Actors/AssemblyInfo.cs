using System.Runtime.CompilerServices;

[assembly: InternalsVisibleTo("BbmrCluster.Actors.Tests")]
[assembly: InternalsVisibleTo("BbmrCluster.Benchmarks")]

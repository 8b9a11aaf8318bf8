using System.Runtime.CompilerServices;

[assembly: InternalsVisibleTo("BbmrCluster.Actors.Tests")]

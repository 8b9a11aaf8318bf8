using BbmrCluster.Cli;

return await Application.RunAsync(args);

using BbmrCluster.Cli;

int code = await Application.RunAsync(args);
if (code is ExitCodes.Interrupted or ExitCodes.Terminated)
    Interruption.EndNow(code);
return code;

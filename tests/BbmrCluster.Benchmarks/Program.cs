using BbmrCluster.Benchmarks;

// Each command measures one thing and prints a markdown table; `dotnet test` runs none of them.
(string Name, string Does, Action<string[]> Run)[] commands =
[
    ("engine", "networks on 64 blocks against the machine's rate [NETWORK...] [--scale S]... [--rounds N] [--threads N] [--processor-time] [--plain]", EngineBenchmark.Run),
    ("training", "training steps of light OmniSR: own passes against libtorch's graph [--scale S] [--rounds N] [--steps N] [--curve STEPS] [--photos FOLDER]", TrainingBenchmark.Run),
    ("broker", "devices that coordination can feed [--workers N,...] [--seconds S] [--warm S] [--lease-ms T] [--kill] [--apart] [--postgres CONNECTION]", BrokerBenchmark.Run),
    ("sharing", "how a cluster's time is shared between archives and workers [--postgres CONNECTION]", SharingBenchmark.Run),
    ("bulk", "memory and recovery of an archive of many images [IMAGES] [POSTGRES CONNECTION]", BulkBenchmark.Run),
    ("stand-ins", "the other process of broker --apart", BrokerBenchmark.RunStandIns),
    ("bulk-node", "the process that bulk measures", BulkBenchmark.RunNode),
    ("memory", "peak memory of a coordinator and a worker for a photograph, and for it stacked twice " + Photograph.Usage, MemoryBenchmark.Run),
    ("overhead", "a photograph by a bare loop, an embedded node and a clustered node " + Photograph.Usage + " [--rounds N]", OverheadBenchmark.Run),
    ("archive", "small real images through a cluster of processes: first run, second run, cost of each node [--photos FOLDER] [--folder FOLDER] [--images N] [--broken N] [--coordinators N] [--workers N] [--journal sqlite|postgres|CONNECTION]", ArchiveBenchmark.Run),
];

if (args.Length > 0 && commands.FirstOrDefault(command => command.Name == args[0]) is { Run: { } run })
{
    run(args[1..]);
    return Environment.ExitCode;
}
Console.Error.WriteLine("Measurements: dotnet run -c Release --project tests/BbmrCluster.Benchmarks -- COMMAND");
foreach ((string name, string does, _) in commands)
    Console.Error.WriteLine($"  {name,-12} {does}");
return 2;

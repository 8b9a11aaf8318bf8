using BbmrCluster.Actors.Settings;
using BbmrCluster.Actors.Workers;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Node.Cluster;

/// <summary>Engines on one device of a worker, whatever device the submitter had.</summary>
internal sealed class DeviceEngines(IEngineFactory engines, string device, int threads) : IEngineFactory
{
    public IReadOnlyDictionary<string, string> WeightHashes(EngineSettings settings) => engines.WeightHashes(Here(settings));

    public string DeviceClass(EngineSettings settings) => engines.DeviceClass(Here(settings));

    public IEngine Create(EngineSettings settings) => engines.Create(Here(settings));

    private EngineSettings Here(EngineSettings settings) => settings with { Device = device, Threads = threads };
}

/// <summary>A runner that does no lease with other weights than its job names: the same job gives the same bytes on every worker.</summary>
internal sealed class SameWeightsRunner(IStageRunner runner, IEngineFactory engines, string worker) : IStageRunner
{
    public DeviceCounts Run(LeaseWork work, Action<StageReport> report, CancellationToken cancellation)
    {
        if (work.Stage is Stage.Score or Stage.Pack or Stage.Reconstruct or Stage.Finish)
            Check(work.Job);
        return runner.Run(work, report, cancellation);
    }

    public void Dispose() => runner.Dispose();

    private void Check(ImageJob job)
    {
        IReadOnlyDictionary<string, string> here;
        try
        {
            here = engines.WeightHashes(job.Parameters.Engine);
        }
        catch (EngineUnavailableException error)
        {
            throw new StageFailedException(FailureClass.Transient, $"{job.DisplayName}: the worker {worker} cannot do it: {error.Message}", inner: error) { Code = "unavailable" };
        }
        if (job.Parameters.WeightHashes.FirstOrDefault(named => here.GetValueOrDefault(named.Key) != named.Value) is { Key: { } file })
            throw new StageFailedException(FailureClass.Transient, $"{job.DisplayName}: {file} of the worker {worker} differs from that of the node which took the job; give all nodes the same models") { Code = "other_weights" };
    }
}

/// <summary>Devices of a worker as the coordination takes them.</summary>
internal static class NodeDevices
{
    /// <summary>One slot per device.</summary>
    /// <exception cref="EngineUnavailableException">A device is not there, or the default network has no weights: one sentence.</exception>
    public static IReadOnlyList<DeviceSlot> Slots(NodeOptions options, EngineFactory engines, IBlobStore blobs, string scratch, StandStill? fault)
    {
        var slots = new List<DeviceSlot>();
        foreach (string device in options.Devices)
        {
            var here = new DeviceEngines(engines, device, options.Threads);
            string deviceClass = here.DeviceClass(EngineSettings.Default);
            slots.Add(new DeviceSlot(device.Replace(':', '-'), () =>
            {
                IStageRunner runner = new SameWeightsRunner(new StageRunner(here, blobs, new StageRunnerOptions(scratch)), here, options.Name);
                return fault is null ? runner : new StandStillRunner(runner, fault);
            }, deviceClass, new ImageBlobs(blobs), engines.AllWeights));
        }
        return slots;
    }
}

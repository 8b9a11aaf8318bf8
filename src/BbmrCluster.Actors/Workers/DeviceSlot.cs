using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Workers;

/// <summary>A device of this process.</summary>
/// <param name="Name">Unique in the process, e.g. "cpu" or "cuda-0"; 1 to 64 characters of a-z, 0-9 and '-'.</param>
/// <param name="CreateRunner">Makes the runner; called once, on the device's own thread, with its first lease. Its messages of failure go to the user.</param>
/// <param name="DeviceClass">The device class it has; null takes leases of any class.</param>
/// <param name="Blobs">For leases that do not fit a message; null where messages stay in the process.</param>
/// <param name="Weights">Weights that are here now, file name to SHA-256, the same for all devices of a process; null takes leases with any.</param>
public sealed record DeviceSlot(string Name, Func<IStageRunner> CreateRunner, string? DeviceClass = null, IImageBlobs? Blobs = null,
    Func<IReadOnlyDictionary<string, string>>? Weights = null);

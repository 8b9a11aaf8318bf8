using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Work;

namespace BbmrCluster.Actors.Workers;

/// <summary>An image that has work.</summary>
internal sealed record WaitingImage(ImageId Id, ArchiveId Archive, Priority Priority, int OpenLeases, long Arrival);

/// <summary>
/// Which worker serves which images. Pure and deterministic. Workers are assigned to images rather than leases to
/// workers: an image keeps the worker it has, so that its intermediate results stay near, and idle workers join the
/// image that has the most work left for each of its workers.
/// </summary>
internal static class Placement
{
    /// <summary>Assigns workers.</summary>
    /// <param name="images">Images with work.</param>
    /// <param name="workers">Workers that may get work.</param>
    /// <param name="previous">Assignments so far.</param>
    /// <returns>For every worker its images, the most important first.</returns>
    public static Dictionary<WorkerId, List<ImageId>> Assign(IEnumerable<WaitingImage> images, IEnumerable<WorkerId> workers, IReadOnlyDictionary<WorkerId, List<ImageId>> previous)
    {
        var ordered = Order(images).ToList();
        var result = workers.OrderBy(worker => worker.Value, StringComparer.Ordinal).ToDictionary(worker => worker, _ => new List<ImageId>());
        if (result.Count == 0)
            return result;

        var serving = new Dictionary<ImageId, int>();
        int fair = (ordered.Count + result.Count - 1) / result.Count;
        foreach (var image in ordered)
        {
            // The worker it has, unless that one has more than its share while others have less.
            var holder = result.Keys.Where(worker => previous.TryGetValue(worker, out var had) && had.Contains(image.Id))
                .Where(worker => result[worker].Count < fair).Select(worker => (WorkerId?)worker).FirstOrDefault();
            var chosen = holder ?? result.Keys.MinBy(worker => result[worker].Count);
            result[chosen].Add(image.Id);
            serving[image.Id] = 1;
        }
        foreach (var idle in result.Where(pair => pair.Value.Count == 0).Select(pair => pair.Key).ToList())
        {
            var most = ordered.Where(image => image.OpenLeases > serving[image.Id])
                .OrderByDescending(image => image.Priority.Value).ThenByDescending(image => (double)image.OpenLeases / serving[image.Id]).FirstOrDefault();
            if (most is null)
                break;
            result[idle].Add(most.Id);
            serving[most.Id]++;
        }
        return result;
    }

    /// <summary>By priority; within one, archives take turns, each with its oldest image first.</summary>
    public static IEnumerable<WaitingImage> Order(IEnumerable<WaitingImage> images) =>
        images.GroupBy(image => image.Archive)
            .SelectMany(archive => archive.GroupBy(image => image.Priority.Value).SelectMany(same => same.OrderBy(image => image.Arrival).Select((image, turn) => (image, turn))))
            .OrderByDescending(item => item.image.Priority.Value).ThenBy(item => item.turn).ThenBy(item => item.image.Arrival)
            .Select(item => item.image);
}

using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Workers;

/// <summary>An image that has work.</summary>
/// <param name="Id">The image.</param>
/// <param name="Archive">Its archive.</param>
/// <param name="Priority">Importance.</param>
/// <param name="DeviceClass">Only workers of this class can serve it.</param>
/// <param name="Useful">How many leases could be in workers' hands now.</param>
/// <param name="Arrival">Order in which images came.</param>
/// <param name="Weights">Only workers with these weights can serve it (<see cref="WeightKeys"/>).</param>
internal sealed record WaitingImage(ImageId Id, ArchiveId Archive, Priority Priority, string DeviceClass, int Useful, long Arrival, string Weights = "");

/// <summary>A worker that may get work.</summary>
/// <param name="Id">The worker.</param>
/// <param name="Devices">How many devices it has.</param>
/// <param name="Classes">Their classes; empty for any.</param>
/// <param name="Speed">Blocks per second; 0 when not known yet.</param>
/// <param name="Weights">The weights it has; null for any.</param>
internal sealed record PresentWorker(WorkerId Id, int Devices, IReadOnlyList<string> Classes, double Speed, IReadOnlySet<string>? Weights = null)
{
    /// <summary>Leases that it wants in hand.</summary>
    public int Credit => Devices * PullCredit.Of(Speed > 0 ? Images.LeasePlan.MaxBlocks * Devices / Speed : 1);

    public bool HasClass(string deviceClass) => Classes.Count == 0 || Classes.Contains(deviceClass, StringComparer.Ordinal);

    public bool Serves(WaitingImage image) => HasClass(image.DeviceClass) && (Weights is null || WeightKeys.AreIn(Weights, image.Weights));
}

/// <summary>
/// Which worker serves which images of which archives, and with what part of its time. Pure and deterministic. Workers
/// are assigned to images rather than leases to workers: an image keeps the worker it has as long as that is fair, so
/// that its intermediate results stay near.
/// </summary>
/// <remarks>
/// 1. Capacity (speed) is dealt out to archives in small portions, each to the one that has least for its weight, 4 to the
///    power of its priority, and can still use some. So equal archives have equal parts of the cluster, whatever their
///    number of images or the number of workers, and nobody is left without: an archive that gets no portion still has
///    its weight's part of one worker.
/// 2. The images of an archive are dealt out to its workers, so that each has leases enough for its devices.
/// 3. Whoever may run dry knows other images to turn to, with weight 0.
/// </remarks>
internal static class Placement
{
    private const int PortionsPerWorker = 4, Spare = 3;

    /// <summary>Assigns workers.</summary>
    /// <param name="images">Images with work.</param>
    /// <param name="workers">Workers that may get work.</param>
    /// <param name="previous">Assignments so far.</param>
    /// <returns>For every worker its archives with their images.</returns>
    public static Dictionary<WorkerId, List<ArchiveShare>> Assign(IEnumerable<WaitingImage> images, IEnumerable<PresentWorker> workers,
        IReadOnlyDictionary<WorkerId, List<ArchiveShare>> previous)
    {
        var plans = workers.OrderBy(worker => worker.Id.Value, StringComparer.Ordinal).Select(worker => new WorkerPlan(worker, previous.GetValueOrDefault(worker.Id))).ToList();
        var archives = images.GroupBy(image => (image.Archive, image.DeviceClass, image.Weights)).Select(group => new ArchivePlan(group, plans))
            .OrderByDescending(archive => archive.Weight).ThenBy(archive => archive.Arrival).ToList();
        if (plans.Count > 0)
        {
            Rate(plans);
            Deal(archives, plans);
            foreach (var archive in archives.Where(archive => archive.Parts.Count > 0))
                Spread(archive);
            AddSpares(archives, plans);
        }
        return plans.ToDictionary(plan => plan.Worker.Id, plan => plan.Shares());
    }

    /// <summary>Weight of a priority: one step is worth four times the workers.</summary>
    public static double WeightOf(Priority priority) => Math.Pow(4, priority.Value);

    // A worker that was not measured yet counts as the mean of those that were.
    private static void Rate(List<WorkerPlan> plans)
    {
        var known = plans.Where(plan => plan.Worker.Speed > 0).ToList();
        double mean = known.Count == 0 ? 1 : known.Sum(plan => plan.Worker.Speed) / known.Sum(plan => plan.Worker.Devices);
        foreach (var plan in plans)
            plan.Capacity = plan.Left = (plan.Worker.Speed > 0 ? plan.Worker.Speed : mean * plan.Worker.Devices) / mean;
    }

    private static void Deal(List<ArchivePlan> archives, List<WorkerPlan> plans)
    {
        double total = plans.Sum(plan => plan.Capacity), perDevice = total / plans.Sum(plan => plan.Worker.Devices);
        double portion = total / (PortionsPerWorker * Math.Max(plans.Count, Math.Min(archives.Count, 4 * plans.Count)));
        var queue = new PriorityQueue<ArchivePlan, (double, int)>();
        for (int i = 0; i < archives.Count; i++)
        {
            archives[i].Need = archives[i].Useful * perDevice;
            queue.Enqueue(archives[i], (portion / archives[i].Weight, i));
        }
        while (queue.TryDequeue(out var archive, out var key))
        {
            if (archive.Need <= 1e-9 || archive.Best() is not { } worker)
                continue;
            double part = Math.Min(Math.Min(portion, worker.Left), archive.Need);
            worker.Left -= part < worker.Left - 1e-9 ? part : worker.Left;
            archive.Need -= part;
            archive.Has += part;
            archive.Parts[worker] = archive.Parts.GetValueOrDefault(worker) + part;
            queue.Enqueue(archive, ((archive.Has + portion) / archive.Weight, key.Item2));
        }
        double weights = archives.Sum(archive => archive.Weight);
        foreach (var archive in archives.Where(archive => archive.Parts.Count == 0 && archive.Eligible.Count > 0))
        {
            var worker = archive.Eligible.MinBy(plan => plan.Guests)!;
            worker.Guests++;
            archive.Parts[worker] = Math.Max(total * archive.Weight / weights, 1e-9);
        }
    }

    private static void Spread(ArchivePlan archive)
    {
        var needs = archive.Parts.ToDictionary(part => part.Key, part => Math.Max(1, (int)Math.Ceiling(part.Key.Worker.Credit * part.Value / part.Key.Capacity)));
        var left = archive.Images.ToDictionary(image => image, image => image.Useful);
        var chosen = archive.Parts.Keys.ToDictionary(worker => worker, _ => new List<WaitingImage>());
        foreach (var image in archive.Images)
        {
            foreach (var worker in archive.Parts.Keys.Where(worker => needs[worker] > 0 && worker.Had.Contains(image.Id)))
                Take(image, worker);
        }
        foreach (var image in archive.Images)
        {
            while (left[image] > 0 && needs.Where(need => need.Value > 0 && !chosen[need.Key].Contains(image)).Select(need => need.Key).MaxBy(worker => needs[worker]) is { } worker)
                Take(image, worker);
        }
        foreach (var image in archive.Images.Where(image => !chosen.Values.Any(list => list.Contains(image))))
            chosen.MinBy(pair => pair.Value.Count).Value.Add(image);
        foreach (var (worker, list) in chosen)
        {
            worker.Served.UnionWith(list.Select(image => image.Id));
            worker.Parts.Add(new ArchiveShare(archive.Archive, archive.Parts[worker], [.. list.OrderBy(image => image.Arrival).Select(image => image.Id)]));
        }

        void Take(WaitingImage image, WorkerPlan worker)
        {
            int some = Math.Min(left[image], needs[worker]);
            if (some <= 0)
                return;
            left[image] -= some;
            needs[worker] -= some;
            chosen[worker].Add(image);
        }
    }

    private static void AddSpares(List<ArchivePlan> archives, List<WorkerPlan> plans)
    {
        var most = archives.SelectMany(archive => archive.Images.Where(image => image.Useful > 0).Select(image => (Archive: archive, Image: image)))
            .OrderByDescending(pair => pair.Archive.Weight).ThenByDescending(pair => pair.Image.Useful).ThenBy(pair => pair.Image.Arrival).Take(Math.Max(Spare, plans.Count)).ToList();
        for (int i = 0; i < plans.Count; i++)
        {
            for (int j = 0, found = 0; j < most.Count && found < Spare; j++)
            {
                var (archive, image) = most[(i + j) % most.Count];
                if (!plans[i].Worker.Serves(image) || !plans[i].Served.Add(image.Id))
                    continue;
                plans[i].Spares.Add((archive.Archive, image.Id));
                found++;
            }
        }
    }

    private sealed class WorkerPlan(PresentWorker worker, List<ArchiveShare>? had)
    {
        public PresentWorker Worker { get; } = worker;

        /// <summary>Images it served so far, spares aside.</summary>
        public HashSet<ImageId> Had { get; } = [.. (had ?? []).Where(share => share.Weight > 0).SelectMany(share => share.Images)];

        public HashSet<ArchiveId> HadArchives { get; } = [.. (had ?? []).Where(share => share.Weight > 0).Select(share => share.Archive)];

        public double Capacity { get; set; }

        public double Left { get; set; }

        /// <summary>Archives that got no portion and are served along.</summary>
        public int Guests { get; set; }

        public List<ArchiveShare> Parts { get; } = [];

        public HashSet<ImageId> Served { get; } = [];

        public List<(ArchiveId Archive, ImageId Image)> Spares { get; } = [];

        public List<ArchiveShare> Shares() => [.. Parts, .. Spares.Select(spare => new ArchiveShare(spare.Archive, 0, [spare.Image]))];
    }

    private sealed class ArchivePlan
    {
        private WorkerPlan? _current;

        public ArchivePlan(IEnumerable<WaitingImage> images, List<WorkerPlan> plans)
        {
            Images = [.. images.OrderBy(image => image.Arrival)];
            Archive = Images[0].Archive;
            Weight = WeightOf(new Priority(Images.Max(image => image.Priority.Value)));
            Arrival = Images[0].Arrival;
            Useful = Images.Sum(image => image.Useful);
            Eligible = [.. plans.Where(plan => plan.Worker.Serves(Images[0])).OrderBy(plan => plan.Worker.Classes.Count == 0 ? 99 : plan.Worker.Classes.Count)];
        }

        public ArchiveId Archive { get; }

        public List<WaitingImage> Images { get; }

        public double Weight { get; }

        public long Arrival { get; }

        public int Useful { get; }

        public double Need { get; set; }

        public double Has { get; set; }

        /// <summary>Workers that can serve it, the choosiest first.</summary>
        public List<WorkerPlan> Eligible { get; }

        public Dictionary<WorkerPlan, double> Parts { get; } = [];

        /// <summary>The worker to take the next portion from: whom it has begun, whom it had, whom nobody had, whoever has most left.</summary>
        public WorkerPlan? Best()
        {
            if (_current is { Left: > 0 })
                return _current;
            WorkerPlan? best = null;
            foreach (var plan in Eligible)
            {
                if (plan.Left <= 0)
                    continue;
                if (plan.HadArchives.Contains(Archive))
                    return _current = plan;
                bool free = plan.HadArchives.Count == 0, bestFree = best?.HadArchives.Count == 0;
                if (best is null || (free && !bestFree) || (free == bestFree && plan.Left > best.Left + 1e-9))
                    best = plan;
            }
            return _current = best;
        }
    }
}

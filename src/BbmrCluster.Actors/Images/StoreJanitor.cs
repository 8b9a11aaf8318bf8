using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Settings;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Images;

/// <summary>
/// Looks every few minutes for images in the store for which nothing was written in a long time, and asks their
/// coordinators to delete what nobody needs: blobs that a worker wrote after it was given up, or that stayed because a
/// process died before it deleted them. One in a cluster, with nothing to remember.
/// </summary>
/// <remarks>
/// It deletes nothing itself, so an image that is opened between its look and the deletion loses nothing: the image's
/// coordinator decides when the question arrives, grants no lease while it deletes, and is the only one that does either.
/// Images that coordinators of this cluster do not know count as nobody's: a store belongs to one cluster.
/// </remarks>
internal sealed class StoreJanitor : ReceiveActor, IWithTimers
{
    /// <summary>Images asked about at once; the rest have their turn the next time.</summary>
    public const int MostAtOnce = 200;

    private readonly ILoggingAdapter _log = Context.GetLogger();
    private HashSet<ImageId> _asked = [];
    private bool _looking;

    public StoreJanitor(IActorRef images, IImageBlobs blobs, CoordinationSettings settings)
    {
        Receive<Look>(look =>
        {
            if (_looking)
                return;
            _looking = true;
            _ = Task.Run(blobs.Images).PipeTo(Self, success: all => new Seen(all, null), failure: error => new Seen([], error));
        });
        Receive<Seen>(seen =>
        {
            _looking = false;
            if (seen.Failure is { } failure)
                _log.Warning("The store cannot be looked through: {Message}", failure.GetBaseException().Message);
            List<ImageCommands.SweepImage> questions = [.. Questions(seen.Images, Context.System.Scheduler.Now, settings, _asked)];
            _asked = [.. questions.Select(question => question.ImageId)];
            questions.ForEach(question => images.Tell(question));
        });
        Timers!.StartPeriodicTimer("look", Look.Instance, settings.JanitorInterval);
    }

    public ITimerScheduler? Timers { get; set; }

    public static Props Props(IActorRef images, IImageBlobs blobs, CoordinationSettings settings) =>
        Akka.Actor.Props.Create(() => new StoreJanitor(images, blobs, settings));

    /// <summary>What to ask about, the oldest first, after those that were not asked about the last time.</summary>
    public static IEnumerable<ImageCommands.SweepImage> Questions(IEnumerable<StoredImage> images, DateTimeOffset now, CoordinationSettings settings, IReadOnlySet<ImageId> asked) => images
        .Where(one => now - one.Written >= settings.OrphanAge)
        .OrderBy(one => asked.Contains(one.Image)).ThenBy(one => one.Written).ThenBy(one => one.Image.Value, StringComparer.Ordinal)
        .Take(MostAtOnce)
        .Select(one => new ImageCommands.SweepImage(one.Image, now - one.Written >= settings.IdleAge));

    private sealed record Look : INoSerializationVerificationNeeded, IDeadLetterSuppression
    {
        public static Look Instance { get; } = new();
    }

    private sealed record Seen(IReadOnlyList<StoredImage> Images, Exception? Failure) : INoSerializationVerificationNeeded, IDeadLetterSuppression;
}

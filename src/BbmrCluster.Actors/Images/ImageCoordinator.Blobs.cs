using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;
using static BbmrCluster.Actors.Protocol.ImageEvents;

namespace BbmrCluster.Actors.Images;

// Deletes what is left of an image that nobody works on: when it is forgotten, and when the janitor asks. This actor is the
// only one that grants leases of its image, there is one of it in a cluster, and while it deletes it grants none and does
// not stop. So blobs of leases to come are never deleted; those of leases that it took for lost are what is deleted.
internal sealed partial class ImageCoordinator
{
    private bool _deleting, _stopWhenDeleted;

    private void DeleteBlobs()
    {
        if (_blobs is not { } blobs)
            return;
        _deleting = true;
        // A job that failed or was cancelled may have left prepared outputs behind, or pieces of them of killed workers.
        var failed = State.Outcome is ImageOutcome.Failed ? State.Job : null;
        _ = Task.Run(() =>
        {
            blobs.DeleteImage(_id);
            if (failed is not null)
                CommitStage.Sweep(failed);
        }).PipeTo(Self, success: () => new BlobsDeleted(null), failure: error => new BlobsDeleted(error));
    }

    private void Sweep(ImageCommands.SweepImage command)
    {
        bool closing = State.Outcome is not null && _watchers.Count > 0;
        if (_active || _stopping is not null || _deleting || _forgetting || _book.Busy || !Settled || closing || (State.InProgress && !command.Unfinished) || _blobs is null)
            return;
        _deleting = true;
        // An outcome that its archive has perhaps not heard stays for as long as an archive may stay away.
        _unheard &= !command.Unfinished;
        // First the journal: it must not name blobs that are not there.
        EnqueueAndFlush(state => state.InProgress ? [new Submitted(state.Run, state.Policy, state.Job!)] : [], DeleteBlobs);
    }

    private void Deleted(BlobsDeleted deleted)
    {
        _deleting = false;
        if (deleted.Failure is { } failure)
            _log.Warning("Image {Image}: its intermediate results are not deleted: {Message}", _id, failure.GetBaseException().Message);
        if (_stopWhenDeleted)
        {
            Context.Stop(Self);
            return;
        }
        if (_active)
            Announce();
        else if (State.Job is null || State.InProgress)
        {
            // Whoever opens it brings its job along, so nothing in the journal is needed either.
            _forgetting = true;
            DeleteMessages(LastSequenceNr);
        }
        Continue();
    }

    private void StopWhenDeleted()
    {
        if (_deleting)
            _stopWhenDeleted = true;
        else
            Context.Stop(Self);
    }

    private sealed record BlobsDeleted(Exception? Failure) : INoSerializationVerificationNeeded, IDeadLetterSuppression;
}

using System.Globalization;
using Akka.Actor;
using Akka.Event;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;
using static BbmrCluster.Actors.Protocol.ImageEvents;

namespace BbmrCluster.Actors.Images;

// Leases: what workers ask for and get, and what becomes of a lease that ended, failed or was lost.
internal sealed partial class ImageCoordinator
{
    private void Request(ImageCommands.RequestLeases request)
    {
        if (!_workers.TryGetValue(request.Worker, out var known) || !known.Equals(Sender))
        {
            if (known is not null)
                _replaced[known] = (request.Worker, _book.Latest);
            _workers[request.Worker] = Context.Watch(Sender);
        }
        _waiting.Remove(request.Worker);
        _lastAsked = Now;
        var granted = new List<LeaseReplies.GrantedLease>();
        bool exhausted = false;
        // Same job, same bytes: another class of device gets nothing.
        if (request.DeviceClasses.Count > 0 && State.Job is not null && !request.DeviceClasses.Contains(State.Job.Parameters.DeviceClass, StringComparer.Ordinal))
        {
            exhausted = true;
        }
        else
        {
            for (int left = request.Count, bytes = 0; left > 0 && bytes < LargeWork && !exhausted; left--)
            {
                if ((Next() ?? (request.Second && Working && !Paused ? _book.Second(State, request.Worker, Now) : null)) is not { } piece)
                    exhausted = true;
                else if (Grant(piece, request.Worker) is { } lease)
                {
                    bytes += SizeOf(lease.Work);
                    granted.Add(lease);
                }
            }
            if (exhausted)
                _waiting.Add(request.Worker);
        }
        if (_unserved && granted.Count > 0)
        {
            _unserved = false;
            WaitsNoMore();
        }
        Sender.Tell(new LeaseReplies.LeasesGranted(_id, granted, exhausted));
        if (exhausted)
            MaybeFlush();
    }

    private void Unserved(BrokerNotices.NobodyServes notice)
    {
        if (_unserved || !Working || _book.InFlight.Count > 0)
            return;
        _unserved = true;
        Waits(notice.Lacks switch
        {
            Lack.Worker => "no worker is there, or all are drained",
            Lack.DeviceClass => $"no worker has devices of the class {State.Job!.Parameters.DeviceClass}",
            _ => $"no worker has the weights that the job names ({string.Join(", ", State.Job!.Parameters.WeightHashes.Keys.Order(StringComparer.Ordinal))}); give all nodes the same models",
        });
    }

    private void Waits(string reason) => Notify(new JobNotification.ImagePaused(_id, _waitsFor = reason));

    private void WaitsNoMore()
    {
        _waitsFor = null;
        Notify(new JobNotification.ImageResumed(_id));
    }

    private Piece? Next()
    {
        if (!Working)
            return null;
        if (!Paused)
            return _book.Next(State, Allowed, Now);
        // A full store is tried again with one of the leases that met it, now and then.
        return Now >= _probeAt && !_book.InFlight.Any(lease => lease.Id.Number > _pausedAfter)
            ? _book.Next(State, unit => _full.Contains(unit) && Allowed(unit), Now)
            : null;
    }

    private bool Allowed(WorkUnit unit) => unit.Stage switch
    {
        Stage.Reconstruct => _openGroups.Contains(State.Plan!.GroupOf(unit.FirstBlock)),
        // The report's counters are complete when nothing else is under way.
        Stage.Finish => (!State.Job!.Parameters.Reconstructs || _reconstructed) && _book.InFlight.Count == 0 && Settled,
        Stage.Commit => _book.InFlight.Count == 0 && Settled,
        _ => true,
    };

    // Null when it failed at once.
    private LeaseReplies.GrantedLease? Grant(Piece piece, WorkerId worker)
    {
        var lease = _book.Grant(piece, worker, Now);
        try
        {
            return Granted(lease, State.WorkOf(lease.Range, lease.Attempt, SecondsSinceCounted));
        }
        catch (StageFailedException failed)
        {
            // The blob store did not take the lease's lists.
            Failed(lease, failed.Failure, failed.Message, failed.Lost, failed.Code);
            return null;
        }
    }

    // About the bytes of a lease's lists in a message.
    private static int SizeOf(LeaseWork work) => (work.Strips.Count * 640) + (work.Scales?.Length ?? 0) + ((work.Scores?.Length ?? 0) * sizeof(double));

    // The lists of a very large image do not fit a message between nodes: they go by way of the blob store.
    private LeaseReplies.GrantedLease Granted(Lease lease, LeaseWork work)
    {
        if (_blobs is not { } blobs || !_settings.BetweenNodes || SizeOf(work) < LargeWork)
            return new LeaseReplies.GrantedLease(lease.Id, work);
        var whole = blobs.Write(_id, string.Create(CultureInfo.InvariantCulture, $"lease-{lease.Id.Epoch}-{lease.Id.Number}"), ProtocolSerializer.Bytes(work));
        return new LeaseReplies.GrantedLease(lease.Id, work with { Strips = [], Scales = null, Scores = null, Quarantined = [] }, whole);
    }

    private void Told(LeaseFacts.LeasesTold told)
    {
        var ends = new List<LeaseId>();
        foreach (var fact in told.Facts)
        {
            if (fact is LeaseFacts.LeaseReported reported)
            {
                Reported(reported);
            }
            else if (fact is LeaseFacts.ILeaseEnd end)
            {
                ends.Add(end.Lease);
                if (_book.Find(end.Lease) is { Closing: false } lease)
                    Ended(lease, end);
            }
        }
        if (ends.Count > 0)
            Sender.Tell(new LeaseReplies.LeasesAcknowledged(_id, ends));
        Continue();
    }

    private void Reported(LeaseFacts.LeaseReported reported)
    {
        var lease = _book.Find(reported.Lease);
        if (lease is not null)
            _book.Renew(lease, Now);
        if (!_active || !State.InProgress || (lease is null && _onlyCurrent))
            return;
        if (reported.Report is BlocksScored scores)
            Scored(scores, lease);
        else if (reported.Report is not Work.Working)
            Enqueue(state => state.Decide(reported.Report, lease is not null));
    }

    private void Ended(Lease lease, LeaseFacts.ILeaseEnd end)
    {
        switch (end)
        {
            case LeaseFacts.LeaseEnded ended:
                lease.Closing = true;
                double seconds = SecondsSinceCounted;
                _lastCounted = Now;
                _counts++;
                // After the lease's results are written, not before: until then nobody else gets the range.
                Enqueue(state => state.InProgress ? [new WorkCounted(ended.Counts, _book.TakeBisected(), seconds)] : [], () => Through(lease));
                break;
            case LeaseFacts.LeaseFailed failed:
                Failed(lease, failed.Failure, failed.Message, failed.Lost, failed.Code);
                break;
            default:
                lease.Closing = true;
                Enqueue(_ => [], () => GiveBack(lease));
                break;
        }
    }

    private void Through(Lease lease)
    {
        if (lease.Id.Number > _pausedAfter)
            Unpause();
        if (lease.Range.Stage == Stage.Score && State.InProgress)
        {
            Resolve(lease.Planned);
        }
        else if (!State.InProgress || State.IsDone(lease.Range))
        {
            _book.Measure(lease, Now);
            EndWithTwins(lease);
        }
        else
        {
            // What its worker told before got lost on the way: ends are repeated, results are not.
            Lost(lease, "the worker ended without a result");
        }
    }

    private void LoseLeases(WorkerId worker, int latest)
    {
        foreach (var lease in _book.InFlight.Where(lease => lease.Worker == worker && lease.Id.Number <= latest && !lease.Closing).ToList())
            Lost(lease, "the worker that held it was lost");
    }

    // The lease is not to blame for its worker, unless it loses one after the other.
    private void Lost(Lease lease, string message)
    {
        if (_book.Lost(lease) > _settings.WorkerLosses)
        {
            Failed(lease, FailureClass.Transient, message, null, null);
            return;
        }
        lease.Closing = true;
        if (lease.Id.Number > _pausedAfter)
            Unpause();
        _log.Debug("Image {Image}, lease {Lease}, {Range}: {Message}", _id, lease.Id, lease.Range, message);
        Enqueue(_ => [], () => GiveBack(lease with { Attempt = lease.Attempt + 1 }));
    }

    private void EndWithTwins(Lease lease)
    {
        foreach (var twin in _book.Twins(lease).ToList())
        {
            Cancel(twin);
            _book.End(twin.Id);
        }
        _book.End(lease.Id);
    }

    private void Failed(Lease lease, FailureClass failure, string message, BlobRef? lost, string? code)
    {
        lease.Closing = true;
        var stage = lease.Range.Stage;
        if (failure is FailureClass.Transient or FailureClass.Block && _book.Twins(lease).Any())
        {
            // Another worker is at the same range: its word counts.
            _book.End(lease.Id);
            return;
        }
        if (failure != FailureClass.StoreFull && lease.Id.Number > _pausedAfter)
            Unpause();
        _log.Debug("Image {Image}, lease {Lease}, {Range} failed: {Failure}, {Message}", _id, lease.Id, lease.Range, failure, message);
        if (failure == FailureClass.BlobLost && lost is null && stage != Stage.Commit)
            failure = FailureClass.Transient;
        switch (failure)
        {
            case FailureClass.Permanent:
                GiveUp(lease, code ?? "failed", message);
                break;
            case FailureClass.StoreFull:
                _book.End(lease.Id);
                _book.Requeue(lease, Now);
                Pause(lease, message);
                break;
            case FailureClass.BlobLost:
                string name = lost?.Name ?? "outputs";
                int losses = _losses[name] = _losses.GetValueOrDefault(name) + 1;
                if (losses > _settings.BlobLosses)
                    GiveUp(lease, code ?? "lost", message);
                else
                    Enqueue(state => state.DecideLost(stage, lost), () => GiveBack(lease));
                break;
            case var _ when stage == Stage.Score && State.InProgress:
                foreach (int block in Unsettled(lease.Range).ToList())
                    Await(block, new ImageChildren.BlockLeaseFailed(failure, lease.Range.BlockCount));
                Resolve(lease.Planned);
                break;
            default:
                Enqueue(_ => [], () =>
                {
                    if (!State.InProgress || _book.Retry(lease, failure, State.Facts?.Grid.BlocksPerStrip ?? 1, State.Policy.Attempts, Now))
                        _book.End(lease.Id);
                    else
                        GiveUp(lease, code ?? "failed", message);
                });
                break;
        }
    }

    private void GiveBack(Lease lease)
    {
        if (_book.End(lease.Id) is not null && State.InProgress && !_book.Twins(lease).Any())
            _book.Requeue(lease, Now);
    }

    private void GiveUp(Lease lease, string code, string message) =>
        Enqueue(state => state.DecideFailure(code, message), () => _book.End(lease.Id));

    private void Pause(Lease lease, string reason)
    {
        bool first = !Paused;
        _full.Add(lease.Planned);
        _probeAt = Now + _settings.FullPollInterval;
        _pausedAfter = Math.Max(_pausedAfter, _book.Latest);
        if (first && Working)
            Waits(reason);
    }

    private void Unpause()
    {
        if (!Paused)
            return;
        _full.Clear();
        WaitsNoMore();
    }
}

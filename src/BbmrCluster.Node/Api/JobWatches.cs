using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.CompilerServices;
using BbmrCluster.Actors.Client;
using BbmrCluster.Actors.Protocol;
using Microsoft.Extensions.Hosting;

namespace BbmrCluster.Node.Api;

/// <summary>An event with its place in what this process has told of a job.</summary>
internal sealed record NumberedEvent(long Number, JobEvent Event);

/// <summary>
/// What happens to jobs, as this node's clients watch it: one watch a job however many look on. The last events of a job are
/// kept for a while after the last client has gone, so that one whose connection broke goes on where it was
/// (Last-Event-ID). Progress of images is passed on, not kept: it is absolute, and the next one says it again.
/// </summary>
internal sealed class JobWatches(BbmrClient client, IHostApplicationLifetime lifetime)
{
    private static readonly TimeSpan KeptFor = TimeSpan.FromMinutes(2);
    private const int Kept = 1000;

    // Numbers of another process, or of an earlier watch, mean something else.
    private readonly ConcurrentDictionary<ArchiveId, Watch> _watches = new();

    /// <summary>Events of a job from now on, or from the one after <paramref name="lastEvent"/> where that is still known; ends after job_finished.</summary>
    /// <param name="id">The job.</param>
    /// <param name="lastEvent">Identity of the last event that the client has; null for none.</param>
    /// <param name="first">Told first unless the client goes on where it was, with the identity of the last event before it.</param>
    /// <param name="silence">After so long without an event, null is returned in place of one.</param>
    /// <param name="stop">Ends it.</param>
    public async IAsyncEnumerable<(string Id, JobEvent Event)?> EventsAsync(ArchiveId id, string? lastEvent, JobEvent first, TimeSpan silence, [EnumeratorCancellation] CancellationToken stop)
    {
        Watch watch;
        long last;
        bool goesOn;
        while (!(watch = _watches.GetOrAdd(id, _ => new Watch(this, id))).TryEnter(lastEvent, out last, out goesOn))
            _watches.TryRemove(new KeyValuePair<ArchiveId, Watch>(id, watch));
        try
        {
            if (!goesOn)
                yield return (watch.IdOf(last), first);
            while (true)
            {
                (IReadOnlyList<NumberedEvent> events, Task changed, bool ended) = watch.After(last);
                foreach (NumberedEvent one in events)
                {
                    last = Math.Max(last, one.Number);
                    yield return (watch.IdOf(one.Number), one.Event);
                    if (one.Event.Event == "job_finished")
                        yield break;
                }
                if (ended)
                    yield break;
                // Something now and then, so that both sides notice when the other is gone.
                if (events.Count == 0 && await Task.WhenAny(changed, Task.Delay(silence, stop)) != changed)
                {
                    stop.ThrowIfCancellationRequested();
                    yield return null;
                }
            }
        }
        finally
        {
            watch.Leave();
        }
    }

    private sealed class Watch
    {
        private readonly string _incarnation = Guid.NewGuid().ToString("n")[..12];
        private readonly Lock _lock = new();
        private readonly Queue<NumberedEvent> _kept = new();
        private readonly CancellationTokenSource _stop;
        private readonly Dictionary<string, NumberedEvent> _progress = new(StringComparer.Ordinal);
        private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private int _clients;
        private long _last, _dropped;
        private bool _ended, _closed;

        public Watch(JobWatches watches, ArchiveId id)
        {
            _stop = CancellationTokenSource.CreateLinkedTokenSource(watches.Lifetime.ApplicationStopping);
            _ = Task.Run(() => FollowAsync(watches, id));
        }

        /// <summary>False when a new watch is needed: of a job that ended, only who lost the connection before the end is told the rest.</summary>
        /// <param name="lastEvent">Identity of the last event that the client has.</param>
        /// <param name="last">Number after which it is told.</param>
        /// <param name="goesOn">Whether nothing is missing between the two.</param>
        public bool TryEnter(string? lastEvent, out long last, out bool goesOn)
        {
            lock (_lock)
            {
                (goesOn, last) = NumberOf(lastEvent) is { } number ? (true, number) : (false, _last);
                if (_closed || (_ended && last == _last))
                    return false;
                _clients++;
                return true;
            }
        }

        public void Leave()
        {
            lock (_lock)
                _clients--;
        }

        public string IdOf(long number) => string.Create(CultureInfo.InvariantCulture, $"{_incarnation}-{number}");

        /// <summary>Number of an event that this watch told and after which it still has all; null otherwise.</summary>
        private long? NumberOf(string? id) =>
            id?.Split('-') is [var incarnation, var text] && incarnation == _incarnation && long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long number)
                && number >= _dropped && number <= _last ? number : null;

        public (IReadOnlyList<NumberedEvent> Events, Task Changed, bool Ended) After(long number)
        {
            lock (_lock)
                return ([.. _kept.Concat(_progress.Values).Where(one => one.Number > number).OrderBy(one => one.Number)], _changed.Task, _ended);
        }

        private async Task FollowAsync(JobWatches watches, ArchiveId id)
        {
            try
            {
                await using ArchiveRun? run = await watches.Client.WatchAsync(id, _stop.Token);
                if (run is not null)
                {
                    Task cleaning = CloseWhenUnwatchedAsync();
                    await foreach (JobNotification notification in run.Notifications.WithCancellation(_stop.Token))
                    {
                        if (JobEvent.Of(id, notification) is { } one)
                            Add(one);
                    }
                    await cleaning;
                }
            }
            catch (Exception error) when (error is OperationCanceledException or Akka.Actor.AskTimeoutException)
            {
                // The node ends, nobody looks on any more, or no coordinator answers: clients ask again.
            }
            finally
            {
                lock (_lock)
                {
                    (_ended, _closed) = (true, true);
                    _changed.TrySetResult();
                }
                watches._watches.TryRemove(new KeyValuePair<ArchiveId, Watch>(id, this));
                _stop.Dispose();
            }
        }

        private void Add(JobEvent one)
        {
            lock (_lock)
            {
                var numbered = new NumberedEvent(++_last, one);
                if (one.Event == "image_progressed")
                {
                    _progress[one.Image!] = numbered;
                }
                else
                {
                    if (one.Event is "image_finished")
                        _progress.Remove(one.Image!);
                    _kept.Enqueue(numbered);
                    if (_kept.Count > Kept)
                        _dropped = _kept.Dequeue().Number;
                    _ended |= one.Event == "job_finished";
                }
                _changed.TrySetResult();
                _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            }
        }

        // Also once the job has ended: who lost the connection just then is still told.
        private async Task CloseWhenUnwatchedAsync()
        {
            long? since = null;
            while (true)
            {
                await Task.Delay(TimeSpan.FromSeconds(5), _stop.Token);
                lock (_lock)
                {
                    since = _clients > 0 ? null : since ?? Environment.TickCount64;
                    if (since is { } left && Environment.TickCount64 - left > KeptFor.TotalMilliseconds)
                    {
                        _closed = true;
                        _stop.Cancel();
                        return;
                    }
                }
            }
        }
    }

    private BbmrClient Client => client;

    private IHostApplicationLifetime Lifetime => lifetime;
}

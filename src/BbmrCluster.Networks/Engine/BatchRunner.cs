using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Networks.Engine;

/// <summary>A run of consecutive blocks of one scale for one device call.</summary>
/// <param name="Purpose">score or reconstruct.</param>
/// <param name="Scale">Scale factor.</param>
/// <param name="First">First block of the scale's list.</param>
/// <param name="Count">Blocks.</param>
internal sealed record Batch(string Purpose, int Scale, int First, int Count);

/// <summary>
/// Runs batches on worker threads of one libtorch thread each, and counts. Which worker computes a batch makes no
/// difference to its result, so results do not depend on the number of workers. A batch that runs out of memory is
/// done in halves.
/// </summary>
internal sealed class BatchRunner : IDisposable
{
    private readonly BlockingCollection<Action<int>> _work = [];
    private readonly Thread[] _threads;
    private readonly Lock _gate = new();
    private readonly Dictionary<(string Purpose, int Scale), (long Calls, long Blocks)> _calls = [];
    private long _precisionRetries, _smallerBatches;

    /// <summary>Starts the workers.</summary>
    /// <param name="workers">At least 1.</param>
    /// <param name="prepare">Called first on each worker's thread.</param>
    public BatchRunner(int workers, Action prepare)
    {
        _threads = new Thread[workers];
        for (int i = 0; i < workers; i++)
        {
            int worker = i;
            _threads[i] = new Thread(() =>
            {
                prepare();
                foreach (Action<int> action in _work.GetConsumingEnumerable())
                    action(worker);
            })
            { IsBackground = true, Name = "device worker" };
            _threads[i].Start();
        }
    }

    /// <summary>Workers.</summary>
    public int Workers => _threads.Length;

    /// <summary>Cuts a number of blocks into batches of at most <paramref name="largest"/>, in block order.</summary>
    public static IEnumerable<Batch> Cut(string purpose, int scale, int blocks, int largest)
    {
        for (int first = 0; first < blocks; first += largest)
            yield return new Batch(purpose, scale, first, Math.Min(largest, blocks - first));
    }

    /// <summary>Runs every batch once, in parallel; returns when all are done. The body gets the worker's number and the batch.</summary>
    public void Run(IEnumerable<Batch> batches, Action<int, Batch> body) => Run([.. batches.Select(batch => (Action<int>)(worker => Attempt(worker, batch, body)))]);

    /// <summary>Runs actions that are not device calls.</summary>
    /// <exception cref="NonFiniteOutputException">The first failure of an action, whatever it is, is thrown as it is.</exception>
    public void Run(IReadOnlyList<Action<int>> actions)
    {
        if (actions.Count == 0)
            return;
        using var done = new CountdownEvent(actions.Count);
        Exception? failure = null;
        foreach (Action<int> action in actions)
        {
            _work.Add(worker =>
            {
                try
                {
                    if (Volatile.Read(ref failure) is null)
                        action(worker);
                }
                catch (Exception problem)
                {
                    Interlocked.CompareExchange(ref failure, problem, null);
                }
                finally
                {
                    done.Signal();
                }
            });
        }
        done.Wait();
        if (failure is not null)
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
    }

    /// <summary>Notes blocks that were done again in float32.</summary>
    public void CountPrecisionRetries(int blocks) => Interlocked.Add(ref _precisionRetries, blocks);

    /// <summary>Notes a device call.</summary>
    public void CountCall(string purpose, int scale, int blocks)
    {
        lock (_gate)
        {
            (long calls, long sum) = _calls.GetValueOrDefault((purpose, scale));
            _calls[(purpose, scale)] = (calls + 1, sum + blocks);
        }
    }

    /// <summary>What was counted since the last time.</summary>
    public DeviceCounts Take()
    {
        lock (_gate)
        {
            DeviceCallCount[] calls = [.. _calls.OrderBy(c => c.Key.Purpose, StringComparer.Ordinal).ThenBy(c => c.Key.Scale)
                .Select(c => new DeviceCallCount(c.Key.Purpose, c.Key.Scale, c.Value.Calls, c.Value.Blocks))];
            _calls.Clear();
            return new DeviceCounts(calls, Interlocked.Exchange(ref _precisionRetries, 0), Interlocked.Exchange(ref _smallerBatches, 0));
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _work.CompleteAdding();
        foreach (Thread thread in _threads)
            thread.Join();
        _work.Dispose();
    }

    private void Attempt(int worker, Batch batch, Action<int, Batch> body)
    {
        try
        {
            body(worker, batch);
            CountCall(batch.Purpose, batch.Scale, batch.Count);
        }
        catch (Exception problem) when (batch.Count > 1 && IsOutOfMemory(problem))
        {
            Interlocked.Increment(ref _smallerBatches);
            int half = batch.Count / 2;
            Attempt(worker, batch with { Count = half }, body);
            Attempt(worker, batch with { First = batch.First + half, Count = batch.Count - half }, body);
        }
    }

    private static bool IsOutOfMemory(Exception problem) => problem is OutOfMemoryException
        || (problem is ExternalException && (problem.Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase)
            || problem.Message.Contains("can't allocate memory", StringComparison.OrdinalIgnoreCase)
            || problem.Message.Contains("not enough memory", StringComparison.OrdinalIgnoreCase)));
}

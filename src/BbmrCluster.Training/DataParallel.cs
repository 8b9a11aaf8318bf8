using System.Runtime.ExceptionServices;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Weights;
using static TorchSharp.torch;

namespace BbmrCluster.Training;

/// <summary>
/// Threads that each compute the gradient of a share of a batch, with one libtorch thread each. Every worker sees the
/// parameters through sets of its own, so that gradients never mix; they are added in the workers' order, so that equal
/// calls give equal bytes. Not for use by several threads at once.
/// </summary>
public sealed class DataParallel : IDisposable
{
    private readonly Worker[] _workers;
    private readonly Tensor[] _gradients;

    /// <summary>Starts the threads.</summary>
    /// <param name="workers">At least 1.</param>
    /// <param name="sets">The parameters whose gradients are wanted; not owned, and outlive this.</param>
    public DataParallel(int workers, params IReadOnlyList<ParameterSet> sets)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(workers, 1);
        using IDisposable noGradient = no_grad();
        _gradients = [.. sets.Select(set => zeros_like(set.Flat).DetachFromDisposeScope())];
        _workers = [.. Enumerable.Range(0, workers).Select(i => new Worker(i, [.. sets.Select(set => set.Share())]))];
    }

    /// <summary>Number of workers.</summary>
    public int Workers => _workers.Length;

    /// <summary>The set through which a worker sees the parameters; a network for that worker is built on it.</summary>
    public ParameterSet Replica(int worker, int set = 0) => _workers[worker].Sets[set];

    /// <summary>The sum of the workers' gradients of the last <see cref="Compute"/>, laid out as the set's flat tensor; overwritten by the next call.</summary>
    public Tensor Gradient(int set = 0) => _gradients[set];

    /// <summary>Samples of a worker's share of a batch: contiguous, as even as possible, the same for the same numbers.</summary>
    public (int First, int Count) Share(int worker, int batch)
    {
        int first = (int)((long)batch * worker / Workers);
        return (first, (int)((long)batch * (worker + 1) / Workers) - first);
    }

    /// <summary>
    /// Runs <paramref name="share"/> once on every worker's thread, inside a dispose scope, and adds up what it returns and
    /// the gradients it leaves in the worker's sets. Its losses must be those of a sum over the batch (a mean is divided by
    /// the whole batch's size).
    /// </summary>
    /// <param name="share">Gets the worker's number; returns the loss of the worker's share, after its backward pass.</param>
    /// <returns>The sum of the losses.</returns>
    public double Compute(Func<int, double> share)
    {
        foreach (Worker worker in _workers)
            worker.Begin(share);
        foreach (Worker worker in _workers)
            worker.End();
        using IDisposable noGradient = no_grad();
        if (_workers.FirstOrDefault(worker => worker.Failure is not null)?.Failure is { } failure)
        {
            foreach (Worker worker in _workers)
                worker.Release();
            failure.Throw();
        }

        for (int set = 0; set < _gradients.Length; set++)
        {
            _gradients[set].copy_(_workers[0].Gradients[set]!);
            foreach (Worker worker in _workers.Skip(1))
                _gradients[set].PlusInPlace(worker.Gradients[set]!);
        }
        foreach (Worker worker in _workers)
            worker.Release();
        return _workers.Sum(worker => worker.Loss);
    }

    /// <summary>Ends the threads.</summary>
    public void Dispose()
    {
        foreach (Worker worker in _workers)
            worker.Dispose();
        foreach (Tensor gradient in _gradients)
            gradient.Dispose();
    }

    private sealed class Worker : IDisposable
    {
        private readonly Thread _thread;
        private readonly SemaphoreSlim _begin = new(0), _end = new(0);
        private Func<int, double>? _share;

        public Worker(int number, ParameterSet[] sets)
        {
            Sets = sets;
            Gradients = new Tensor?[sets.Length];
            _thread = new Thread(() => Loop(number)) { IsBackground = true, Name = $"gradient {number}" };
            _thread.Start();
        }

        public ParameterSet[] Sets { get; }

        public Tensor?[] Gradients { get; }

        public double Loss { get; private set; }

        public ExceptionDispatchInfo? Failure { get; private set; }

        public void Begin(Func<int, double> share)
        {
            _share = share;
            _begin.Release();
        }

        public void End() => _end.Wait();

        /// <summary>Frees the gradients, also those of a share whose neighbour failed.</summary>
        public void Release()
        {
            foreach (Tensor? gradient in Gradients)
                gradient?.Dispose();
            Array.Clear(Gradients);
        }

        public void Dispose()
        {
            _share = null;
            _begin.Release();
            _thread.Join();
            foreach (ParameterSet set in Sets)
                set.Dispose();
            _begin.Dispose();
            _end.Dispose();
        }

        private void Loop(int number)
        {
            NativeRuntime.SetThreads(1);
            while (true)
            {
                _begin.Wait();
                if (_share is not { } share)
                    return;
                Failure = null;
                try
                {
                    using var scope = NewDisposeScope();
                    Loss = share(number);
                    for (int i = 0; i < Sets.Length; i++)
                        Gradients[i] = Sets[i].TakeGradient().DetachFromDisposeScope();
                }
                catch (Exception problem)
                {
                    Failure = ExceptionDispatchInfo.Capture(problem);
                    // What a backward pass left half done must not count in the next.
                    foreach (ParameterSet set in Sets)
                        set.TakeGradient().Dispose();
                }
                _end.Release();
            }
        }
    }
}

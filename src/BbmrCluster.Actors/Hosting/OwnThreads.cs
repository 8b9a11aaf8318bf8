using System.Diagnostics.CodeAnalysis;
using Akka.Configuration;
using Akka.Dispatch;

namespace BbmrCluster.Actors.Hosting;

/// <summary>
/// Executor of a dispatcher with so many threads of its own (setting <c>own-threads</c>), for what blocks. Threads that have
/// nothing to do sleep: those of the dispatchers that Akka brings yield in a loop first, which costs the processor more than
/// the work between.
/// </summary>
[SuppressMessage("Performance", "CA1812", Justification = "Made by Akka from hocon/dispatchers.hocon.")]
internal sealed class OwnThreads(Config config, IDispatcherPrerequisites prerequisites) : ExecutorServiceConfigurator(config, prerequisites)
{
    public override ExecutorService Produce(string id) => new Service(id, Config.GetInt("own-threads", 1));

    private sealed class Service : ExecutorService
    {
        private readonly Queue<IRunnable> _queue = new();
        private bool _ended;

        public Service(string id, int threads)
            : base(id)
        {
            for (int i = 0; i < threads; i++)
                new Thread(Run) { IsBackground = true, Name = id }.Start();
        }

        public override void Execute(IRunnable run)
        {
            lock (_queue)
            {
                if (_ended)
                    return;
                _queue.Enqueue(run);
                Monitor.Pulse(_queue);
            }
        }

        public override void Shutdown()
        {
            lock (_queue)
            {
                _ended = true;
                Monitor.PulseAll(_queue);
            }
        }

        private void Run()
        {
            while (true)
            {
                IRunnable? next;
                lock (_queue)
                {
                    while (!_queue.TryDequeue(out next))
                    {
                        if (_ended)
                            return;
                        Monitor.Wait(_queue);
                    }
                }
                next.Run();
            }
        }
    }
}

/// <summary>Gives each actor a thread of its own (<see cref="OwnThreads"/>) for its whole life.</summary>
[SuppressMessage("Performance", "CA1812", Justification = "Made by Akka from hocon/dispatchers.hocon.")]
internal sealed class OwnThreadDispatcher(Config config, IDispatcherPrerequisites prerequisites) : MessageDispatcherConfigurator(config, prerequisites)
{
    public override MessageDispatcher Dispatcher() =>
        new Dispatcher(this, Config.GetString("id"), 1, null, new OwnThreads(Config, Prerequisites), Config.GetTimeSpan("shutdown-timeout"));
}

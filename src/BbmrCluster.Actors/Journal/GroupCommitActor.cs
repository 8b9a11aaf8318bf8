using System.Data.Common;
using Akka.Pattern;
using Akka.Persistence;
using Microsoft.Data.Sqlite;

namespace BbmrCluster.Actors.Journal;

/// <summary>
/// A persistent actor around a pure state. What comes in while a write is under way is decided and written together
/// afterwards, as one journal entry: the cost of a journal is per transaction. Effects run only when the events that
/// justify them are written. A failed write stops the actor; whoever waits for it repeats itself and brings it back.
/// </summary>
/// <typeparam name="TState">Immutable state; follows from the journal alone.</typeparam>
/// <typeparam name="TEvent">Events of the journal.</typeparam>
internal abstract class GroupCommitActor<TState, TEvent> : ReceivePersistentActor
    where TState : class
{
    // Bounds the size of a journal entry.
    private const int MaxDecisions = 256;

    private readonly Queue<(Func<TState, IReadOnlyList<TEvent>> Decide, Action? Then)> _waiting = new();

    protected GroupCommitActor(TState empty) => State = empty;

    /// <summary>What the journal holds.</summary>
    protected TState State { get; private set; }

    protected bool Writing { get; private set; }

    /// <summary>Decisions that wait for a write.</summary>
    protected int Queued => _waiting.Count;

    /// <summary>Nothing waits to be written.</summary>
    protected bool Settled => !Writing && _waiting.Count == 0;

    /// <summary>No snapshots: a finished image deletes its events, an archive's are few.</summary>
    public override Recovery Recovery => new(SnapshotSelectionCriteria.None);

    /// <summary>Events follow from the state at the time of the write; <paramref name="then"/> runs after it (also when there was nothing to write).</summary>
    protected void Enqueue(Func<TState, IReadOnlyList<TEvent>> decide, Action? then = null) => _waiting.Enqueue((decide, then));

    /// <summary>Writes what waits, unless a write is under way, which will be followed by another.</summary>
    protected void Flush()
    {
        var effects = new List<Action>();
        if (Writing || Decide(effects) is not { Events: { Count: > 0 } events } decided)
            return;
        Writing = true;
        PersistAsync(Wrap(events), _ =>
        {
            State = decided.Next;
            Writing = false;
            effects.ForEach(effect => effect());
            Committed(events);
        });
    }

    // Decisions that turn out to change nothing need no write; their effects come at once.
    private (TState Next, List<TEvent> Events)? Decide(List<Action> effects)
    {
        while (_waiting.Count > 0)
        {
            var next = State;
            var events = new List<TEvent>();
            for (int i = 0; i < MaxDecisions && _waiting.TryDequeue(out var item); i++)
            {
                foreach (var one in item.Decide(next))
                {
                    next = Apply(next, one);
                    events.Add(one);
                }
                if (item.Then is { } then)
                    effects.Add(then);
            }
            if (events.Count > 0)
                return (next, events);
            var now = effects.ToList();
            effects.Clear();
            now.ForEach(effect => effect());
            if (Writing)
                return null;
        }
        return null;
    }

    protected void Restore(IEnumerable<TEvent> events) => State = events.Aggregate(State, Apply);

    /// <summary>Coming back would not help: whoever runs the node in this process must hear of it.</summary>
    protected override void OnRecoveryFailure(Exception reason, object? message = null)
    {
        base.OnRecoveryFailure(reason, message);
        if (JournalUnreadable.IsDamage(reason))
            Context.System.EventStream.Publish(new JournalUnreadable(PersistenceId, reason));
    }

    /// <summary>
    /// The journal refuses an entry, which it would do again: unlike a failed write this is no matter of time. The
    /// entity stops; whoever runs the node in this process hears of it.
    /// </summary>
    protected override void OnPersistRejected(Exception cause, object @event, long sequenceNr)
    {
        base.OnPersistRejected(cause, @event, sequenceNr);
        Writing = false;
        Rejected(cause);
    }

    /// <summary>What to do about an entry that the journal refuses. What it held is lost.</summary>
    protected virtual void Rejected(Exception cause)
    {
        Context.System.EventStream.Publish(new JournalUnreadable(PersistenceId, cause));
        Context.Stop(Self);
    }

    protected abstract TState Apply(TState state, TEvent one);

    protected abstract object Wrap(IReadOnlyList<TEvent> events);

    /// <summary>After each write and its effects. Decides whether to flush what came in meanwhile.</summary>
    protected abstract void Committed(IReadOnlyList<TEvent> events);
}

/// <summary>Told on the event stream of the process: what the journal holds of an entity cannot be read.</summary>
/// <param name="PersistenceId">The entity.</param>
/// <param name="Reason">How it was noticed.</param>
internal sealed record JournalUnreadable(string PersistenceId, Exception Reason)
{
    /// <summary>Whether an error tells of damage. A full disk or a busy database passes, and the next try may read.</summary>
    public static bool IsDamage(Exception error) => error switch
    {
        AggregateException many => many.InnerExceptions.Any(IsDamage),
        SqliteException sqlite => SqliteJournal.IsDamage(sqlite),
        DbException or IOException or TimeoutException or OperationCanceledException or OpenCircuitException or RecoveryTimedOutException => false,
        _ => true,
    };
}

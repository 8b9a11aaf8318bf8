using Akka.Actor;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Workers;

/// <summary>
/// One device on its own thread: makes, uses and disposes its stage runner there, one lease after the other. It blocks
/// while it works, so cancellation comes by token and not by message.
/// </summary>
internal sealed class DeviceExecutor : ReceiveActor
{
    public const string Dispatcher = "bbmr.device-dispatcher";

    private readonly DeviceSlot _slot;
    private IStageRunner? _runner;

    public DeviceExecutor(DeviceSlot slot)
    {
        _slot = slot;
        Receive<DeviceMessages.RunLease>(lease => Context.Parent.Tell(new DeviceMessages.DeviceEnded(lease.ImageId, Run(lease))));
    }

    public static Props Props(DeviceSlot slot) => Akka.Actor.Props.Create(() => new DeviceExecutor(slot)).WithDispatcher(Dispatcher);

    protected override void PostStop() => _runner?.Dispose();

    private LeaseFacts.ILeaseEnd Run(DeviceMessages.RunLease lease)
    {
        var (image, id) = (lease.ImageId, lease.Lease);
        if (!lease.Claim.TryTake() || lease.Cancellation.IsCancellationRequested)
            return new LeaseFacts.LeaseReturned(id);
        if (_runner is null)
        {
            try
            {
                _runner = _slot.CreateRunner();
            }
            catch (Exception error)
            {
                return new LeaseFacts.LeaseFailed(id, FailureClass.Permanent, error.Message, null, "device");
            }
        }
        var manager = Context.Parent;
        manager.Tell(new DeviceMessages.DeviceStarted(image, id));
        try
        {
            var work = lease.Whole is null ? lease.Work
                : ProtocolSerializer.Work((_slot.Blobs ?? throw new InvalidOperationException("this worker has no blob store")).Read(lease.Whole));
            return new LeaseFacts.LeaseEnded(id, _runner.Run(work, report => manager.Tell(new DeviceMessages.DeviceReport(image, id, report)), lease.Cancellation));
        }
        catch (OperationCanceledException) when (lease.Cancellation.IsCancellationRequested)
        {
            return new LeaseFacts.LeaseReturned(id);
        }
        catch (StageFailedException failed)
        {
            return new LeaseFacts.LeaseFailed(id, failed.Failure, failed.Message, failed.Lost, failed.Code);
        }
        catch (Exception error)
        {
            return new LeaseFacts.LeaseFailed(id, FailureClass.Transient, error.Message, null, null);
        }
    }
}

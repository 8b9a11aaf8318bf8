using System.Text.Json;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults;

/// <summary>
/// Real processes, really killed. The picture is 2 blocks wide and 33 high: 66 blocks, two leases in each of the stages
/// score, pack and reconstruct.
/// </summary>
public sealed class KillTests(UndisturbedRun undisturbed) : IClassFixture<UndisturbedRun>
{
    private const int Blocks = UndisturbedRun.Columns * UndisturbedRun.Strips;

    [Theory]
    [InlineData("ingest", 1, 0, 0)]
    [InlineData("ingest", 1, 20, 38)] // the header is a result too
    [InlineData("score", 2, 0, 64)]
    [InlineData("pack", 2, 0, 64)]
    [InlineData("pack", 1, 10, 20)]
    [InlineData("reconstruct", 1, 10, 20)]
    [InlineData("reconstruct", 2, 0, 64)]
    [InlineData("finish", 1, 0, 0)]
    [InlineData("commit", 1, 0, 0)]
    public void A_run_killed_at_any_stage_goes_on_and_gives_the_same_bytes(string stage, int lease, int results, int doneBlocks)
    {
        using var scratch = new ScratchFolder();
        undisturbed.CopyPictureTo(scratch["photo.png"]);
        using (Bbmr killed = Start(scratch, $"{stage}:{lease}:{results}"))
        {
            killed.WaitForError($"standing still at {stage} lease {lease} result {results}");
            // Progress tells what the journal holds: from here on these blocks must not be done again.
            if (doneBlocks > 0)
                killed.WaitForError($"photo.png: {stage} {doneBlocks} of {Blocks} blocks");
            killed.Signal("KILL");
            Assert.Equal(137, killed.Wait().ExitCode);
        }
        Assert.False(File.Exists(scratch["out", "photo.report.json"]), "the mark of done must come last");

        BbmrResult again = Run(scratch);
        Assert.True(again.ExitCode == 0, again.ToString());
        JsonElement line = Assert.Single(again.Images);
        Assert.Equal("done", line.GetProperty("state").GetString());
        if (stage != "ingest")
            Assert.True(line.GetProperty("resumed").GetInt32() >= LeasesBefore(stage, lease), again.ToString());
        AssertSameAsUndisturbed(scratch);
        Assert.True(DeviceCalls(scratch["out"]) <= undisturbed.DeviceCalls, $"{DeviceCalls(scratch["out"])} device calls, {undisturbed.DeviceCalls} undisturbed");
    }

    [Theory]
    [InlineData("INT", 130)]
    [InlineData("TERM", 143)]
    public void A_signal_ends_the_run_in_order_and_the_same_command_goes_on(string signal, int exitCode)
    {
        using var scratch = new ScratchFolder();
        undisturbed.CopyPictureTo(scratch["photo.png"]);
        using (Bbmr stopped = Start(scratch, "reconstruct:2:0"))
        {
            stopped.WaitForError("standing still");
            stopped.WaitForError($"photo.png: reconstruct 64 of {Blocks} blocks");
            stopped.Signal(signal);
            BbmrResult result = stopped.Wait();
            Assert.True(result.ExitCode == exitCode, result.ToString());
            Assert.Contains("run the same command to go on", result.Error, StringComparison.Ordinal);
            Assert.Equal("interrupted", Assert.Single(result.Images).GetProperty("state").GetString());
        }
        BbmrResult again = Run(scratch);
        Assert.True(again.ExitCode == 0, again.ToString());
        AssertSameAsUndisturbed(scratch);
        Assert.Equal(undisturbed.DeviceCalls, DeviceCalls(scratch["out"]));
    }

    [Fact]
    public void A_second_run_in_the_same_work_directory_says_who_has_it()
    {
        using var scratch = new ScratchFolder();
        undisturbed.CopyPictureTo(scratch["photo.png"]);
        using Bbmr first = Start(scratch, "score");
        first.WaitForError("standing still");
        BbmrResult second = Run(scratch);
        Assert.Equal(1, second.ExitCode);
        Assert.Matches($@"^bbmr: the work directory \S+ is in use by process {first.Id} on [^\n]+\n$", second.Error);
    }

    private static int LeasesBefore(string stage, int lease) => stage switch
    {
        "score" => 1 + (lease - 1),
        "pack" => 3 + (lease - 1),
        "reconstruct" => 5 + (lease - 1),
        "finish" => 7,
        _ => 8,
    };

    private Bbmr Start(ScratchFolder scratch, string stopAt) => Bbmr.Start(scratch.Path,
        new Dictionary<string, string>(undisturbed.Environment, StringComparer.Ordinal) { ["BBMR_FAULT_STOP_AT"] = stopAt }, [.. UndisturbedRun.Arguments, "-v"]);

    private BbmrResult Run(ScratchFolder scratch) => Bbmr.Run(scratch.Path, undisturbed.Environment, UndisturbedRun.Arguments);

    private void AssertSameAsUndisturbed(ScratchFolder scratch)
    {
        Assert.Equal(["photo.allocation.png", "photo.bbmr", "photo.png", "photo.report.json"], scratch.Files("out"));
        foreach ((string name, string hash) in undisturbed.Hashes)
            Assert.True(hash == UndisturbedRun.HashOf(scratch["out", name]), $"{name} differs from an undisturbed run");
    }

    private static long DeviceCalls(string folder) => UndisturbedRun.DeviceCallsOf(Path.Combine(folder, "photo.report.json"));
}

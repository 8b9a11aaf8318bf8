using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults;

/// <summary>
/// Real processes, really killed. The picture is 2 blocks wide and 33 high: 66 blocks, two leases in each of the stages
/// score, pack and reconstruct.
/// </summary>
public sealed class KillTests(UndisturbedRun undisturbed) : IClassFixture<UndisturbedRun>
{
    private const int Blocks = UndisturbedRun.Columns * UndisturbedRun.Strips;

    // Where each process of the chain is killed; leases and results are counted anew in each.
    private static readonly (string StopAt, string? Journaled, int Resumed)[] Kills =
    [
        ("ingest:1:0", null, 0),
        ("ingest:1:20", "ingest 38", 0), // the header is a result too
        ("score:2:0", "score 64", 0),
        ("pack:1:10", "pack 20", 2),
        ("pack:2:0", "pack 64", 3),
        ("reconstruct:1:10", "reconstruct 20", 4),
        ("reconstruct:2:0", "reconstruct 64", 4),
        ("finish:1:0", null, 6),
        ("commit:1:0", null, 7),
    ];

    [Fact]
    public void A_run_killed_again_and_again_at_every_stage_goes_on_and_gives_the_same_bytes()
    {
        using var scratch = new ScratchFolder();
        undisturbed.CopyPictureTo(scratch["photo.png"]);
        foreach ((string stopAt, string? journaled, int resumed) in Kills)
        {
            using Bbmr killed = Start(scratch, stopAt);
            string[] at = stopAt.Split(':');
            killed.WaitForError($"standing still at {at[0]} lease {at[1]} result {at[2]}");
            if (resumed > 0)
                Assert.True(Resumed(killed) >= resumed, $"{stopAt}: {killed.Error}");
            // Progress tells what the journal holds: from here on these blocks must not be done again.
            if (journaled is not null)
                killed.WaitForError($"photo.png: {journaled} of {Blocks} blocks");
            killed.Signal("KILL");
            Assert.Equal(137, killed.Wait().ExitCode);
            Assert.False(File.Exists(scratch["out", "photo.report.json"]), "the mark of done must come last");
        }
        BbmrResult again = Run(scratch);
        Assert.True(again.ExitCode == 0, again.ToString());
        JsonElement line = Assert.Single(again.Images);
        Assert.Equal("done", line.GetProperty("state").GetString());
        Assert.True(line.GetProperty("resumed").GetInt32() >= 8, again.ToString());
        AssertSameAsUndisturbed(scratch);
        Assert.True(DeviceCalls(scratch["out"]) <= undisturbed.DeviceCalls, $"{DeviceCalls(scratch["out"])} device calls, {undisturbed.DeviceCalls} undisturbed");
    }

    [Fact]
    public void A_signal_ends_the_run_in_order_the_same_command_goes_on_and_a_second_one_meanwhile_says_who_has_the_folder()
    {
        using var scratch = new ScratchFolder();
        undisturbed.CopyPictureTo(scratch["photo.png"]);
        foreach ((string stopAt, string journaled, string signal, int exitCode) in new[] { ("score:2:0", "score 64", "INT", 130), ("reconstruct:2:0", "reconstruct 64", "TERM", 143) })
        {
            using Bbmr stopped = Start(scratch, stopAt);
            stopped.WaitForError("standing still");
            stopped.WaitForError($"photo.png: {journaled} of {Blocks} blocks");
            if (signal == "INT")
            {
                BbmrResult second = Run(scratch);
                Assert.Equal(1, second.ExitCode);
                Assert.Matches($@"^bbmr: the work directory \S+ is in use by process {stopped.Id} on [^\n]+\n$", second.Error);
            }
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

    // As -v tells it.
    private static int Resumed(Bbmr run) =>
        Regex.Match(run.Error, "photo.png: goes on, ([0-9]+) leases? done already") is { Success: true } match ? int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture) : 0;

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

using System.Diagnostics;
using System.Globalization;
using BbmrCluster.Tests;

namespace BbmrCluster.Faults;

/// <summary>deploy/local-cluster.sh: the topology as processes, each with a supervisor.</summary>
public sealed class LocalClusterScriptTests : IDisposable
{
    private readonly ScratchFolder _scratch = new();

    public void Dispose()
    {
        _ = Script("down");
        _scratch.Dispose();
    }

    [ScriptFact]
    public void It_starts_scales_and_ends_a_cluster_and_starts_a_killed_node_again()
    {
        IReadOnlyDictionary<string, string> models = TestModels.EnvironmentFor(_scratch["models"]);
        int port = LoopbackCluster.FreePort(), http = LoopbackCluster.FreePort();
        AssertDone(Script("up", models, "journal=sqlite", "workers=1", "threads=1", Setting("port", port), Setting("http", http), $"bbmr=dotnet {Path.Combine(AppContext.BaseDirectory, "bbmr.dll")}"), "is ready: 1 coordinator, 1 worker;");
        Assert.Equal(3, Members(http));
        AssertDone(Script("status"), "coordinator-1 running", "api running", "worker-1 running", "restarts 0");

        string before = Node("worker-1");
        using (Process kill = Process.Start("kill", ["-KILL", before]))
            kill.WaitForExit();
        Until(() => Script("status").Output.Contains("restarts 1", StringComparison.Ordinal) && Node("worker-1") != before, "worker-1 again");
        AssertDone(Script("scale", models, "workers=2"));
        Until(() => Members(http) == 4, "four members");
        AssertDone(Script("scale", models, "workers=1"));
        AssertDone(Script("status"), "worker-1 running");
        Assert.DoesNotContain("worker-2", Script("status").Output, StringComparison.Ordinal);
        Assert.Contains("has left the cluster", File.ReadAllText(_scratch["cluster", "worker-2.log"]), StringComparison.Ordinal);

        string[] nodes = [Node("worker-1"), Node("api"), Node("coordinator-1")];
        AssertDone(Script("down"));
        Assert.All(nodes, node => Assert.False(Directory.Exists($"/proc/{node}"), $"process {node} is left"));
        Assert.All((string[])["worker-1", "api", "coordinator-1"], name => Assert.Contains("has left the cluster", File.ReadAllText(_scratch["cluster", $"{name}.log"]), StringComparison.Ordinal));
        ScriptResult ended = Script("status");
        Assert.Equal((1, true), (ended.ExitCode, ended.Output.Contains("coordinator-1 stopped", StringComparison.Ordinal)));
    }

    [ScriptFact]
    public void What_cannot_be_started_is_one_sentence()
    {
        Assert.Equal((1, $"local-cluster: there is no cluster in {_scratch["cluster"]}\n"), (Script("status").ExitCode, Script("status").Error));
        ScriptResult refused = Script("up", null, "journal=sqlite", "coordinators=3", "bbmr=true");
        Assert.Equal((1, "local-cluster: journal=sqlite is for one coordinator\n"), (refused.ExitCode, refused.Error));
        Assert.Equal((2, true), (Script("sideways").ExitCode, Script("sideways").Error.Contains("local-cluster.sh up", StringComparison.Ordinal)));
    }

    private static string Setting(string name, int value) => string.Create(CultureInfo.InvariantCulture, $"{name}={value}");

    private string Node(string name) => File.Exists(_scratch["cluster", $"{name}.node.pid"]) ? File.ReadAllText(_scratch["cluster", $"{name}.node.pid"]).Trim() : "";

    private int Members(int http)
    {
        BbmrResult nodes = Bbmr.Run(_scratch.Path, "nodes", "--json", "--server", string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{http}"));
        return nodes.ExitCode == 0 ? nodes.Lines.Count(node => node.GetProperty("state").GetString() == "up") : 0;
    }

    private void Until(Func<bool> holds, string what)
    {
        long until = Environment.TickCount64 + 180_000;
        while (!holds())
        {
            Assert.True(Environment.TickCount64 < until, $"Not reached: {what}.\n{string.Join('\n', Directory.GetFiles(_scratch["cluster"], "*.log").Select(file => $"--- {file}\n{File.ReadAllText(file)}"))}");
            Thread.Sleep(300);
        }
    }

    private static void AssertDone(ScriptResult result, params string[] says)
    {
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.All(says, text => Assert.Contains(text, result.Output, StringComparison.Ordinal));
    }

    private ScriptResult Script(string verb, IReadOnlyDictionary<string, string>? environment = null, params string[] settings)
    {
        var start = new ProcessStartInfo("bash") { WorkingDirectory = _scratch.Path, UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in (string[])[Path.Combine(Fixtures.Repository(), "deploy", "local-cluster.sh"), verb, $"folder={_scratch["cluster"]}", .. settings])
            start.ArgumentList.Add(argument);
        foreach ((string key, string value) in environment ?? new Dictionary<string, string>(StringComparer.Ordinal))
            start.Environment[key] = value;
        using Process script = Process.Start(start)!;
        Task<string> error = script.StandardError.ReadToEndAsync();
        string output = script.StandardOutput.ReadToEnd();
        script.WaitForExit();
        return new ScriptResult(script.ExitCode, output, error.GetAwaiter().GetResult());
    }

    private sealed record ScriptResult(int ExitCode, string Output, string Error);

    /// <summary>A test that runs a script; skipped with the reason where bash or one of its tools is missing.</summary>
    private sealed class ScriptFactAttribute : FactAttribute
    {
        public ScriptFactAttribute()
        {
            string[] missing = [.. new[] { "bash", "setsid", "realpath" }.Where(tool => !(Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(folder => File.Exists(Path.Combine(folder, tool))))];
            if (missing.Length > 0)
                Skip = $"not here: {string.Join(", ", missing)}";
        }
    }
}

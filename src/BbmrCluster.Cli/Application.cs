using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using BbmrCluster.Cli.Cluster;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Commands;
using BbmrCluster.Cli.Output;

namespace BbmrCluster.Cli;

/// <summary>The program: command tree, one exception boundary, exit codes.</summary>
internal static class Application
{
    /// <summary>Options that every command has.</summary>
    public static Option<bool> Json { get; } = new("--json") { Description = "One JSON object per line on stdout", Recursive = true };

    /// <summary>Only errors and results.</summary>
    public static Option<bool> Quiet { get; } = new("--quiet", "-q") { Description = "No messages, no progress; only results and errors", Recursive = true };

    /// <summary>More messages; details of unexpected errors.</summary>
    public static Option<bool> Verbose { get; } = new("--verbose", "-v") { Description = "More messages, and the details of unexpected errors", Recursive = true };

    /// <summary>Builds the whole tree.</summary>
    public static RootCommand CreateTree()
    {
        var root = new RootCommand("Stores photographs as blocks at several scales and restores them by super-resolution (BBMR).")
        {
            Json, Quiet, Verbose,
            RescaleCommands.Rescale(), RescaleCommands.Downscale(), RescaleCommands.Upscale(),
            ContainerCommands.Info(), ContainerCommands.Verify(), ContainerCommands.Extract(),
            ImageCommands.Superresolve(), ImageCommands.Resize(), ImageCommands.Compare(),
            ModelsCommand.Create(), TrainCommand.Create(), DoctorCommand.Create(),
            NodeCommand.Create(), ClusterCommands.Submit(), ClusterCommands.Jobs(), ClusterCommands.Status(), ClusterCommands.Watch(), ClusterCommands.Nodes(), ClusterCommands.Drain(),
        };
        foreach (Command command in ClusterCommands.Steering())
            root.Add(command);
        // "bbmr", not the path of the assembly, whatever started it.
        root.HelpName = "bbmr";
        foreach (HelpOption help in root.Options.OfType<HelpOption>())
            help.Action = new HelpWithExamples((SynchronousCommandLineAction)help.Action!);
        return root;
    }

    /// <summary>Parses and runs; returns the exit code.</summary>
    public static async Task<int> RunAsync(string[] args)
    {
        RootCommand root = CreateTree();
        ParseResult parsed = root.Parse(args);
        if (parsed.Action is ParseErrorAction)
            return UsageError(parsed);

        var terminal = Terminal.Create(parsed.GetValue(Json), parsed.GetValue(Quiet), parsed.GetValue(Verbose));
        using var interruption = new Interruption();
        BbmrCommand.Services = new CommandServices(terminal, interruption);
        try
        {
            int code = await parsed.InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null });
            return interruption.ExitCode ?? code;
        }
        catch (OperationCanceledException) when (interruption.ExitCode is int code)
        {
            return code;
        }
        catch (Exception e)
        {
            Failure failure = Failure.Of(e);
            terminal.Problem(failure.Message);
            if (failure.ExitCode == ExitCodes.Usage)
                Console.Error.WriteLine(HintFor(parsed));
            if (failure.Unexpected || terminal.IsVerbose)
                terminal.Detail(e.ToString());
            return failure.ExitCode;
        }
        finally
        {
            TemporaryFile.DeleteAll();
        }
    }

    private static int UsageError(ParseResult parsed)
    {
        // "A command is missing" says nothing beside the word that was taken for one.
        string[] messages = [.. parsed.Errors.Where(error => parsed.Errors.Count == 1 || error.SymbolResult is not CommandResult).Select(error => error.Message).Distinct(StringComparer.Ordinal)];
        foreach (string message in messages.Length > 0 ? messages : [parsed.Errors[^1].Message])
            Console.Error.WriteLine($"bbmr: {Terminal.Printable(string.Join(' ', message.Split(['\r', '\n', '\t'], StringSplitOptions.RemoveEmptyEntries)))}");
        Console.Error.WriteLine(HintFor(parsed));
        return ExitCodes.Usage;
    }

    private static string HintFor(ParseResult parsed) => $"Try '{BbmrCommand.PathOf(parsed.CommandResult.Command)} --help'.";
}

using System.CommandLine;
using System.CommandLine.Invocation;
using BbmrCluster.Cli.Output;

namespace BbmrCluster.Cli.CommandLine;

/// <summary>What a running command is given.</summary>
/// <param name="Terminal">Where it writes.</param>
/// <param name="Interruption">Ctrl-C and SIGTERM.</param>
internal sealed record CommandServices(Terminal Terminal, Interruption Interruption);

/// <summary>A command with examples for its help text.</summary>
internal sealed class BbmrCommand(string name, string description, params string[] examples) : Command(name, description)
{
    /// <summary>Whole command lines, the first one the most usual.</summary>
    public IReadOnlyList<string> Examples { get; } = examples;

    /// <summary>Set once per process, before a command runs.</summary>
    public static CommandServices? Services { get; set; }

    /// <summary>Sets what the command does.</summary>
    public void Run(Func<ParseResult, CommandServices, int> action) => SetAction(parsed => action(parsed, Services!));

    /// <summary>Sets what the command does.</summary>
    public void RunAsync(Func<ParseResult, CommandServices, Task<int>> action) => SetAction((parsed, _) => action(parsed, Services!));

    /// <summary>An argument for one or more files, where an option that does not exist is not mistaken for one.</summary>
    public static Argument<string[]> FilesArgument(string name, string description)
    {
        var argument = new Argument<string[]>(name) { Description = description, Arity = ArgumentArity.OneOrMore };
        argument.Validators.Add(result =>
        {
            foreach (string value in result.Tokens.Select(token => token.Value))
            {
                if (value.StartsWith('-') && !Path.Exists(value))
                    result.AddError($"There is no option '{value}', nor a file of that name.");
            }
        });
        return argument;
    }

    /// <summary>"bbmr models verify".</summary>
    public static string PathOf(Command command) => command.Parents.OfType<Command>().FirstOrDefault() is { } parent
        ? $"{PathOf(parent)} {command.Name}"
        : "bbmr";
}

/// <summary>The usual help text, then the command's examples.</summary>
internal sealed class HelpWithExamples(SynchronousCommandLineAction usual) : SynchronousCommandLineAction
{
    /// <inheritdoc/>
    public override bool ClearsParseErrors => true;

    /// <inheritdoc/>
    public override int Invoke(ParseResult parseResult)
    {
        int code = usual.Invoke(parseResult);
        IReadOnlyList<string> examples = parseResult.CommandResult.Command is BbmrCommand { Examples.Count: > 0 } command
            ? command.Examples
            : ["bbmr rescale photographs -r -o out", "bbmr info out/photo.bbmr", "bbmr rescale --help"];
        TextWriter output = parseResult.InvocationConfiguration.Output;
        output.WriteLine(examples.Count == 1 ? "Example:" : "Examples:");
        foreach (string example in examples)
            output.WriteLine($"  {example}");
        output.WriteLine();
        return code;
    }
}

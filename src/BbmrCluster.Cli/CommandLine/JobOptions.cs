using System.CommandLine;
using System.CommandLine.Parsing;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Cli.CommandLine;

/// <summary>
/// The options that rescale, downscale, upscale and submit share: those of a job (<see cref="JobOption"/>) and those of a run.
/// One instance belongs to one command.
/// </summary>
internal sealed class JobOptions
{
    private readonly Option<string?> _output = new("--output", "-o") { Description = "Folder for the results, made when it is not there (default: the current folder)", HelpName = "DIR" };
    private readonly Option<bool> _recursive = new("--recursive", "-r") { Description = "Go into folders; the folder tree is kept below the output folder" };
    private readonly Option<string> _device = Device();
    private readonly Option<int> _threads = Threads();
    private readonly Option<string?> _workDirectory = new("--work-dir") { Description = "Folder of journal and intermediate files, on a local disk (default: OUT/.bbmr)", HelpName = "DIR" };
    private readonly Option<long?> _maxWork = new("--max-work") { Description = "Most bytes of intermediate files, e.g. 20G (default: half of the free space)", HelpName = "BYTES", CustomParser = Amounts.Bytes };
    private readonly Option<bool> _dryRun = new("--dry-run") { Description = "Only say what would be done: blocks, work space, estimated time" };
    private readonly List<(JobOption Job, Option Option)> _options = [];
    private readonly JobKind? _kind;

    /// <summary>Adds the options to a command.</summary>
    /// <param name="command">The command.</param>
    /// <param name="kind">What the command does; null for one that is told and hands it to a cluster.</param>
    public JobOptions(Command command, JobKind? kind)
    {
        _kind = kind;
        command.Add(_output);
        command.Add(_recursive);
        foreach (JobOption option in JobOption.All.Where(option => kind is { } one ? option.Of.Has(one) && !option.ClusterOnly : true))
        {
            _options.Add((option, Of(option)));
            command.Add(_options[^1].Option);
        }
        // Another machine may have other networks, and says so itself.
        if (kind is null)
            return;
        if (_options.Find(one => one.Job.Name is "scorer").Option is Option<string> scorer)
            scorer.Validators.Add(OneThatIsHere);
        command.Add(_device);
        command.Add(_threads);
        command.Add(_workDirectory);
        command.Add(_maxWork);
        command.Add(_dryRun);
    }

    /// <summary>--precision, for any command that runs a network.</summary>
    public static Option<string> Precision() => (Option<string>)Of(JobOption.Get("precision"));

    /// <summary>--device, for any command that runs a network.</summary>
    public static Option<string> Device()
    {
        var option = new Option<string>("--device") { Description = "Where the networks run", HelpName = "auto|cpu|cuda:N", DefaultValueFactory = _ => EngineSettings.Default.Device };
        option.Validators.Add(result =>
        {
            string value = result.GetValueOrDefault<string>()!;
            if (value is not ("auto" or "cpu") && !(value.StartsWith("cuda:", StringComparison.Ordinal) && int.TryParse(value.AsSpan(5), out int index) && index >= 0))
                result.AddError($"'{value}' is not a device: auto, cpu, cuda:0, cuda:1, ...");
        });
        return option;
    }

    /// <summary>--threads, for any command that runs a network.</summary>
    public static Option<int> Threads() =>
        new("--threads") { Description = "Processor threads of the networks (default: one per core)", HelpName = "N", CustomParser = Amounts.Whole(1, 1024, "a number of threads") };

    /// <summary>What is asked of the job.</summary>
    /// <exception cref="UserErrorException">Values that contradict each other.</exception>
    public JobParameters Parameters(ParseResult parsed)
    {
        JobParameters parameters = JobParameters.Default with { Kind = _kind ?? JobParameters.Default.Kind };
        if (_kind is not null)
            parameters = parameters with { Engine = parameters.Engine with { Device = parsed.GetValue(_device)!, Threads = parsed.GetValue(_threads) } };
        try
        {
            // Only what was said: one option may choose the default of another.
            foreach ((JobOption job, Option option) in _options.Where(one => parsed.GetResult(one.Option) is { Implicit: false }))
            {
                if ((option is Option<bool> flag ? parsed.GetValue(flag) ? "yes" : null : parsed.GetValue((Option<string>)option)) is { } text)
                    parameters = job.Set(parameters, text);
            }
            return parameters.Validated();
        }
        catch (JobOptionException error)
        {
            throw new UserErrorException(error.Sentence(Written(error.Option)), ExitCodes.Usage);
        }
    }

    /// <summary>What is asked of the run.</summary>
    public RunValues Run(ParseResult parsed)
    {
        string output = parsed.GetValue(_output) ?? ".";
        return new RunValues(output, parsed.GetValue(_recursive), parsed.GetValue(_workDirectory) ?? Path.Combine(output, ".bbmr"), parsed.GetValue(_maxWork), parsed.GetValue(_dryRun));
    }

    private static Option Of(JobOption job)
    {
        string name = Written(job.Name);
        if (job.Form is JobOptionForm.Flag)
            return new Option<bool>(name) { Description = job.Description };
        var option = new Option<string>(name) { Description = job.Description, HelpName = job.Values };
        if (job.Default is { } usual)
            option.DefaultValueFactory = _ => usual;
        option.Validators.Add(result => Check(job, name, result));
        return option;
    }

    private static void Check(JobOption job, string name, OptionResult result)
    {
        try
        {
            if (result.GetValueOrDefault<string>() is { } text)
                job.Set(JobParameters.Default, text);
        }
        catch (JobOptionException error)
        {
            result.AddError(error.Sentence(name));
        }
    }

    private static void OneThatIsHere(OptionResult result)
    {
        string scorer = result.GetValueOrDefault<string>()!;
        IReadOnlyList<string> networks = new ModelCatalog().Networks;
        if (scorer is not ("same" or "bicubic") && !networks.Contains(scorer, StringComparer.Ordinal))
            result.AddError($"--scorer: there is no scorer '{scorer}'; choose same, bicubic or a network: {string.Join(", ", networks)}.");
    }

    private static string Written(string name) => "--" + name.Replace('_', '-');
}

/// <summary>What is asked of a run, beside its job.</summary>
/// <param name="Output">Folder for the results.</param>
/// <param name="Recursive">Go into folders.</param>
/// <param name="WorkDirectory">Journal and intermediate files.</param>
/// <param name="MaxWork">Quota in bytes; null for half of the free space.</param>
/// <param name="DryRun">Plan only.</param>
internal sealed record RunValues(string Output, bool Recursive, string WorkDirectory, long? MaxWork, bool DryRun);

using System.Globalization;

namespace BbmrCluster.Rescaling;

/// <summary>How a value of an option is written.</summary>
public enum JobOptionForm
{
    /// <summary>Text.</summary>
    Text,

    /// <summary>A whole number.</summary>
    Number,

    /// <summary>Whole numbers between commas.</summary>
    Numbers,

    /// <summary>yes or no; naming it alone means yes.</summary>
    Flag,
}

/// <summary>An option has a value that it cannot have.</summary>
/// <param name="option">Name as of <see cref="JobOption.Name"/>.</param>
/// <param name="reason">Why, with the value and without the option's name.</param>
public sealed class JobOptionException(string option, string reason) : Exception($"{option}: {reason.TrimEnd('.')}.")
{
    /// <summary>The option.</summary>
    public string Option => option;

    /// <summary>One sentence that calls the option by the name it has where it was written.</summary>
    public string Sentence(string written) => $"{written}: {reason.TrimEnd('.')}.";
}

/// <summary>
/// One thing that a user may say of a job. The table below is all that knows an option beside <see cref="JobParameters"/>:
/// command line, API and its description, journal, messages, identity and fingerprint of a job go through it.
/// </summary>
public sealed record JobOption
{
    private readonly Func<JobParameters, string?> _get;
    private readonly Func<JobParameters, string, JobParameters> _set;

    private JobOption(string name, string description, string values, JobOptionForm form, Func<JobParameters, string?> get, Func<JobParameters, string, JobParameters> set) =>
        (Name, Description, Values, Form, _get, _set) = (name, description, values, form, get, set);

    /// <summary>The options of the first version: journal, messages and identities have a place of its own for each.</summary>
    public static IReadOnlyList<JobOption> Placed { get; } =
    [
        Choice("kind", "What is done", "rescale|downscale|upscale", p => Lower(p.Kind), (p, v) => p with { Kind = Enum.Parse<JobKind>(v, ignoreCase: true) }) with { ClusterOnly = true },
        Choice("format", "Format of the restored image", "png|tiff|webp|jpeg", p => p.Format, (p, v) => p with { Format = v }, ("tif", "tiff"), ("jpg", "jpeg"))
            with { Of = JobKinds.Upscaling },
        Text("network", "Reconstruction network ('bbmr models list' shows them)", "NAME", p => p.Engine.Network, (p, v) => p with { Engine = p.Engine with { Network = v } })
            with { Of = JobKinds.Downscaling, Decides = JobKinds.All },
        Text("scorer", "How block errors are found: by a (very light) network, the reconstruction network itself, or without a network", "NAME|same|bicubic",
            p => p.Engine.Scorer, (p, v) => p with { Engine = p.Engine with { Scorer = v is not "none" ? v : throw new FormatException("there is no scorer 'none'") } }) with { Of = JobKinds.Downscaling, Decides = JobKinds.Downscaling },
        Text("allocator", "How block scales are chosen: least squared error, or the paper's Algorithm 1", "sse|paper[:t=..,max=..]",
            p => p.Allocator, (p, v) => p with { Allocator = Allocators.Parse(v).Name }) with { Of = JobKinds.Downscaling, Decides = JobKinds.Downscaling },
        new("scales", "Scales a block may be stored at", "K,K,K", JobOptionForm.Numbers, p => p.Engine.Scales.ToString(), (p, v) => p with { Engine = p.Engine with { Scales = ScaleSet.Parse(v) } })
            { Of = JobKinds.Downscaling, Decides = JobKinds.All },
        Number("rate", "Scale whose pixel rate the whole image keeps (default: the middle scale)", "K", 1, BlockGrid.DefaultBlockSize,
            p => p.HasRate ? p.Rate : null, (p, v) => p with { Rate = (int)v }) with { Of = JobKinds.Downscaling, Decides = JobKinds.Downscaling },
        Choice("downscaler", "How blocks are made smaller", "bicubic|downnet", p => p.Engine.Downscaler, (p, v) => p with { Engine = p.Engine with { Downscaler = v } })
            with { Of = JobKinds.Downscaling, Decides = JobKinds.Downscaling },
        // The weights tell what it came to, and those stand in a fingerprint.
        Choice("joint", "What joins the blocks: a jointly trained model, the networks block by block, or the former where there is one", "auto|trained|blockwise",
            p => p.Engine.Joint, (p, v) => p with { Engine = p.Engine with { Joint = v } }) with { Of = JobKinds.Downscaling },
        Choice("precision", "Arithmetic of the networks; auto takes bfloat16 where the device is faster with it", "auto|float32|bfloat16",
            p => p.Engine.Precision, (p, v) => p with { Engine = p.Engine with { Precision = v } }) with { Decides = JobKinds.All },
        Text("device_class", "Device class of the workers that do the job; by default that of most devices", "CLASS", p => p.DeviceClass is "" ? null : p.DeviceClass,
            (p, v) => p with { DeviceClass = v is { Length: <= 64 } && v.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.') ? v : throw new FormatException($"'{v}' is no device class such as cpu-avx2") })
            with { ClusterOnly = true },
        Flag("measure", "Also reconstruct a downscale, to record measured rather than estimated errors in the container", p => p.Measure, (p, v) => p with { Measure = v })
            with { Of = JobKinds.Downscale, Decides = JobKinds.Downscaling },
        Flag("allow_other_weights", "Take a network's present weights for an upscale where they differ from those that the container names",
            p => p.AllowOtherWeights, (p, v) => p with { AllowOtherWeights = v }) with { Of = JobKinds.Upscale },
        Flag("force", "Replace results that exist (never an input)", p => p.Force, (p, v) => p with { Force = v }),
        Number("max_pixels", "Refuse larger images", "N", 1, 1L << 50, p => p.Limits.MaxPixels, (p, v) => p with { Limits = p.Limits with { MaxPixels = v } }),
        Number("max_side", "Refuse images with a longer side", "N", 1, int.MaxValue, p => p.Limits.MaxSide, (p, v) => p with { Limits = p.Limits with { MaxSide = (int)v } }),
    ];

    /// <summary>
    /// All later ones. They travel by name, and only where they differ from what absence means, so that journals, identities and
    /// fingerprints of jobs that do not use an option stay what they were before there was one.
    /// </summary>
    public static IReadOnlyList<JobOption> Named { get; } =
    [
        // Changing it takes the block side and halo along that belong to it; whoever wants others names them after it.
        Choice("context", "What blocks see of each other: their neighbours, or nothing, as in the paper (blocks of 128)", "canvas|none",
            p => BlockContexts.NameOf(p.Engine.Context), (p, v) => BlockContexts.Parse(v) is var context && context == p.Engine.Context ? p : p with
            {
                Engine = context == BlockContext.None
                    ? p.Engine with { Context = BlockContext.None, BlockSize = BlockGrid.DefaultBlockSize, Halo = 0 }
                    : p.Engine with { Context = BlockContext.Canvas, BlockSize = BlockContexts.DefaultBlockSize, Halo = BlockContexts.DefaultHalo },
            }) with { Of = JobKinds.Downscaling, Decides = JobKinds.All, Absent = _ => "none" },
        Choice("block", "Side of a block in pixels", "128|64|32|16", p => Invariant(p.Engine.BlockSize), (p, v) => p with { Engine = p.Engine with { BlockSize = int.Parse(v, CultureInfo.InvariantCulture) } })
            with { Of = JobKinds.Downscaling, Decides = JobKinds.All, Absent = p => p.Engine.Context == BlockContext.None ? "128" : "" },
        Number("halo", "Stored pixels around a piece of the image that a network also sees", "N", 0, EngineSettings.MaxHalo, p => p.Engine.Halo, (p, v) => p with { Engine = p.Engine with { Halo = (int)v } })
            with { Of = JobKinds.Downscaling, Decides = JobKinds.All, Absent = p => p.Engine.Context == BlockContext.None ? "0" : "" },
    ];

    /// <summary>All options, in the order of help texts.</summary>
    public static IReadOnlyList<JobOption> All { get; } = [.. Placed, .. Named];

    /// <summary>Lower case, words joined by '_': a property of the API. The command line joins them by '-'.</summary>
    public string Name { get; }

    /// <summary>For people, without a full stop.</summary>
    public string Description { get; }

    /// <summary>Values as help texts show them; those of a choice with '|' between.</summary>
    public string Values { get; }

    /// <summary>How a value is written.</summary>
    public JobOptionForm Form { get; }

    /// <summary>The only values, where it is a choice; empty otherwise.</summary>
    public IReadOnlyList<string> Choices { get; private init; } = [];

    /// <summary>The kinds of jobs that it means something to.</summary>
    public JobKinds Of { get; private init; } = JobKinds.All;

    /// <summary>Only a cluster is asked for it: a local command says it by its name, or has no choice.</summary>
    public bool ClusterOnly { get; private init; }

    /// <summary>The kinds of jobs whose fingerprint it belongs to, since the bytes of their outputs depend on it.</summary>
    public JobKinds Decides { get; private init; }

    // What it means that a journal, message or report does not name it; null where that is the default, "" where it is always named.
    private Func<JobParameters, string>? Absent { get; init; }

    /// <summary>Its value by default, or null for one that is open by default.</summary>
    public string? Default => TextOf(JobParameters.Default);

    /// <summary>The option of a name.</summary>
    /// <exception cref="ArgumentException">There is none.</exception>
    public static JobOption Get(string name) => Find(name) ?? throw new ArgumentException($"There is no option '{name}' of a job.", nameof(name));

    /// <summary>The option of a name; null when there is none.</summary>
    public static JobOption? Find(string name) => All.FirstOrDefault(option => option.Name.Equals(name, StringComparison.OrdinalIgnoreCase));

    /// <summary>The later options (<see cref="Named"/>) that differ from what absence means, with their text.</summary>
    public static IEnumerable<(JobOption Option, string Text)> SetByName(JobParameters parameters) =>
        Named.Where(option => option.TextOf(parameters) is { } text && text != (option.Absent is { } absent ? absent(parameters) : option.Default)).Select(option => (option, option.TextOf(parameters)!));

    /// <summary>Its value as text; null while it is open.</summary>
    public string? TextOf(JobParameters parameters) => _get(parameters);

    /// <summary>Reads its value from text.</summary>
    /// <exception cref="JobOptionException">It cannot have that value.</exception>
    public JobParameters Set(JobParameters parameters, string text)
    {
        try
        {
            return _set(parameters, text);
        }
        catch (Exception error) when (error is FormatException or ArgumentException)
        {
            throw new JobOptionException(Name, error.Message.Split(" (Parameter", StringSplitOptions.None)[0]);
        }
    }

    private static JobOption Text(string name, string description, string values, Func<JobParameters, string?> get, Func<JobParameters, string, JobParameters> set) =>
        new(name, description, values, JobOptionForm.Text, get, (p, v) => v.Length > 0 ? set(p, v) : throw new FormatException("it is empty"));

    private static JobOption Choice(string name, string description, string values, Func<JobParameters, string> get, Func<JobParameters, string, JobParameters> set, params (string Also, string Means)[] others)
    {
        string[] choices = values.Split('|');
        return new(name, description, values, JobOptionForm.Text, get, (p, v) =>
        {
            string chosen = others.FirstOrDefault(other => other.Also == v).Means ?? v;
            return choices.Contains(chosen) ? set(p, chosen) : throw new FormatException($"there is no {name.Replace('_', ' ')} '{v}', but {string.Join(", ", choices[..^1])} and {choices[^1]}");
        })
        { Choices = choices };
    }

    private static JobOption Number(string name, string description, string values, long from, long to, Func<JobParameters, long?> get, Func<JobParameters, long, JobParameters> set) =>
        new(name, description, values, JobOptionForm.Number, p => get(p)?.ToString(CultureInfo.InvariantCulture),
            (p, v) => long.TryParse(v, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long number) && number >= from && number <= to ? set(p, number)
                : throw new FormatException(string.Create(CultureInfo.InvariantCulture, $"'{v}' is not a whole number from {from} to {to}")));

    private static JobOption Flag(string name, string description, Func<JobParameters, bool> get, Func<JobParameters, bool, JobParameters> set) =>
        new(name, description, "", JobOptionForm.Flag, p => get(p) ? "yes" : "no",
            (p, v) => set(p, v switch { "yes" or "true" => true, "no" or "false" => false, _ => throw new FormatException($"'{v}' is neither yes nor no") }));

    private static string Invariant(int value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Lower(JobKind kind) => kind.ToString().ToLowerInvariant();
}

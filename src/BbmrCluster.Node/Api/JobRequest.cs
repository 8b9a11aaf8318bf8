using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using BbmrCluster.Rescaling;
using Microsoft.AspNetCore.Http;
using Microsoft.OpenApi;

namespace BbmrCluster.Node.Api;

/// <summary>
/// What a client submits: a job over one or many images, whose paths are those of the cluster's nodes. What it asks of the job
/// (<see cref="JobOption"/>) stands beside these properties under its own names.
/// </summary>
public sealed record JobRequest
{
    /// <summary>Files and folders, absolute.</summary>
    [Description("Files and folders, absolute paths as the nodes see them")]
    public IReadOnlyList<string> Inputs { get; init; } = [];

    /// <summary>A text file with one input a line.</summary>
    [Description("A text file with one input a line, relative ones below its own folder; in place of inputs or with them. Below the output folder they keep their place under the folder of the manifest, others their whole path; missing files are taken and fail")]
    public string? Manifest { get; init; }

    /// <summary>Go into folders of folders.</summary>
    [Description("Go into folders of folders; the tree is kept below the output folder")]
    public bool Recursive { get; init; }

    /// <summary>Folder of the results, absolute.</summary>
    [Required, Description("Folder of the results, absolute; made when it is not there")]
    public required string Output { get; init; }

    /// <summary>For people.</summary>
    [Description("What the job is called")]
    public string Name { get; init; } = "";

    /// <summary>0 to 9.</summary>
    [Range(0, 9), Description("Importance, 0 to 9")]
    public int Priority { get; init; }

    /// <summary>Tries of a lease.</summary>
    [Range(1, 100), Description("Tries of a piece of work that fails for a passing reason")]
    public int Attempts { get; init; } = 3;

    /// <summary>quarantine or fail.</summary>
    [Description("quarantine: a block that cannot be scored gets the middle scale; fail: its image fails")]
    public string OnBadBlock { get; init; } = "quarantine";

    /// <summary>Options of the job by name; those that are missing or null have their default.</summary>
    [JsonExtensionData]
    public Dictionary<string, JsonElement>? Options { get; init; }

    /// <summary>All options of a job as <see cref="Options"/>, but for those that are open.</summary>
    public static Dictionary<string, JsonElement> OptionsOf(JobParameters parameters) => JobOption.All.Where(option => option.TextOf(parameters) is not null)
        .ToDictionary(option => option.Name, option => JsonSerializer.SerializeToElement(Json(option, option.TextOf(parameters)!)), StringComparer.Ordinal);

    /// <summary>What the options ask for, checked.</summary>
    /// <exception cref="BadHttpRequestException">A property that does not exist, or not of the kind that it has.</exception>
    /// <exception cref="JobOptionException">A value that it cannot have.</exception>
    public JobParameters Parameters()
    {
        JobParameters parameters = JobParameters.Default;
        foreach ((string name, JsonElement value) in Options ?? [])
        {
            JobOption option = JobOption.Find(name) ?? throw new BadHttpRequestException($"There is no property '{name}'.");
            if (value.ValueKind != JsonValueKind.Null)
                parameters = option.Set(parameters, Text(option, value));
        }
        return parameters.Validated();
    }

    /// <summary>The options for the description of the API.</summary>
    internal static void Describe(OpenApiSchema schema)
    {
        schema.AdditionalPropertiesAllowed = false;
        schema.AdditionalProperties = null;
        schema.Properties ??= new Dictionary<string, IOpenApiSchema>(StringComparer.Ordinal);
        foreach (JobOption option in JobOption.All)
        {
            schema.Properties[option.Name] = new OpenApiSchema
            {
                Description = option.Description,
                Type = option.Form switch { JobOptionForm.Flag => JsonSchemaType.Boolean, JobOptionForm.Number => JsonSchemaType.Integer, JobOptionForm.Numbers => JsonSchemaType.Array, _ => JsonSchemaType.String },
                Items = option.Form is JobOptionForm.Numbers ? new OpenApiSchema { Type = JsonSchemaType.Integer } : null,
                Enum = option.Choices.Count > 0 ? [.. option.Choices.Select(choice => (JsonNode)choice)] : null,
                Default = option.Default is { } text ? Json(option, text) : null,
            };
        }
    }

    private static JsonNode Json(JobOption option, string text) => option.Form switch
    {
        JobOptionForm.Flag => JsonValue.Create(text is "yes"),
        JobOptionForm.Text => JsonValue.Create(text),
        JobOptionForm.Number => JsonNode.Parse(text)!,
        _ => JsonNode.Parse($"[{text}]")!,
    };

    private static string Text(JobOption option, JsonElement value) => (option.Form, value.ValueKind) switch
    {
        (JobOptionForm.Text or JobOptionForm.Number, JsonValueKind.String) => value.GetString()!,
        (JobOptionForm.Number, JsonValueKind.Number) => value.GetRawText(),
        (JobOptionForm.Flag, JsonValueKind.True or JsonValueKind.False) => value.GetBoolean() ? "yes" : "no",
        (JobOptionForm.Numbers, JsonValueKind.Array) => string.Join(',', value.EnumerateArray().Select(number => number.GetRawText())),
        _ => throw new BadHttpRequestException($"{option.Name}: {option.Form switch
        {
            JobOptionForm.Flag => "true or false is",
            JobOptionForm.Number => "a whole number is",
            JobOptionForm.Numbers => "an array of whole numbers is",
            _ => "a text is",
        }} wanted."),
    };
}

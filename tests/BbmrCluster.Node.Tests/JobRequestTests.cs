using System.Text.Json;
using BbmrCluster.Node.Api;
using BbmrCluster.Rescaling;
using Microsoft.AspNetCore.Http;
using Microsoft.OpenApi;

namespace BbmrCluster.Node.Tests;

/// <summary>Between the command line and the planner a request is JSON, and every option of a job is in it under its own name.</summary>
public sealed class JobRequestTests
{
    public static TheoryData<string, string> Values
    {
        get
        {
            var values = new TheoryData<string, string>();
            foreach (JobOption option in JobOption.All)
            {
                foreach (string text in option.Form is JobOptionForm.Flag ? ["yes", "no"] : option.Choices.Append(option.Default).OfType<string>().Distinct())
                    values.Add(option.Name, text);
            }
            return values;
        }
    }

    [Theory]
    [MemberData(nameof(Values))]
    public void What_the_command_line_sends_is_what_the_planner_reads(string name, string text)
    {
        JobParameters parameters = JobOption.Get(name).Set(JobParameters.Default, text).Validated();
        var request = new JobRequest { Output = "/out", Inputs = ["/in"], Options = JobRequest.OptionsOf(parameters) };
        Assert.Equal(parameters, Read(JsonSerializer.Serialize(request, ApiJson.Options)).Parameters());
    }

    [Theory]
    [InlineData("""{"output":"/o"}""")]
    [InlineData("""{"output":"/o","rate":null,"network":null,"scales":null,"force":null}""")]
    [InlineData("""{"output":"/o","rate":"4","scales":[2,4,8],"FORCE":false,"max_pixels":1000000000}""")]
    public void What_is_missing_or_null_has_its_default(string json) => Assert.Equal(JobParameters.Default.Validated(), Read(json).Parameters());

    [Theory]
    [InlineData("\"colour\":\"red\"", "There is no property 'colour'.")]
    [InlineData("\"rate\":[4]", "rate: a whole number is wanted.")]
    [InlineData("\"force\":\"yes\"", "force: true or false is wanted.")]
    [InlineData("\"network\":7", "network: a text is wanted.")]
    [InlineData("\"scales\":\"2,4,8\"", "scales: an array of whole numbers is wanted.")]
    public void A_property_of_another_kind_is_malformed(string property, string sentence)
    {
        var error = Assert.Throws<BadHttpRequestException>(() => Read($$"""{"output":"/o",{{property}}}""").Parameters());
        Assert.Equal((400, sentence), (error.StatusCode, error.Message));
    }

    [Theory]
    [InlineData("\"rate\":16", "rate: 16 does not lie between the scales 2,4,8 as a divisor of 32.")]
    [InlineData("\"rate\":4.5", "rate: '4.5' is not a whole number from 1 to 128.")]
    [InlineData("\"max_pixels\":0", "max_pixels: '0' is not a whole number from 1 to 1125899906842624.")]
    [InlineData("\"scales\":[2,\"x\"]", "scales: '2,\"x\"' is not a list of scales such as 2,4,8.")]
    [InlineData("\"scales\":[]", "scales: '' is not a list of scales such as 2,4,8.")]
    [InlineData("\"format\":\"gif\"", "format: there is no format 'gif', but png, tiff, webp and jpeg.")]
    [InlineData("\"allocator\":\"best\"", "allocator: There is no allocator 'best'; there are sse and paper, e.g. paper:t=0.5,max=100.")]
    public void A_value_that_it_cannot_have_is_refused_by_its_name(string property, string sentence) =>
        Assert.Equal(sentence, Assert.Throws<JobOptionException>(() => Read($$"""{"output":"/o",{{property}}}""").Parameters()).Message);

    [Fact]
    public void The_description_has_every_option_with_kind_values_and_default()
    {
        var schema = new OpenApiSchema();
        JobRequest.Describe(schema);
        Assert.Equal(JobOption.All.Select(option => option.Name), schema.Properties!.Keys);
        Assert.Equal((JsonSchemaType.Integer, "K"), (schema.Properties["rate"].Type, JobOption.Get("rate").Values));
        Assert.Equal(JsonSchemaType.Boolean, schema.Properties["force"].Type);
        Assert.Equal("[2,4,8]", schema.Properties["scales"].Default!.ToJsonString());
        Assert.Equal(["rescale", "downscale", "upscale"], schema.Properties["kind"].Enum!.Select(value => value.GetValue<string>()));
    }

    private static JobRequest Read(string json) => JsonSerializer.Deserialize<JobRequest>(json, ApiJson.Options)!;
}

namespace BbmrCluster.Rescaling.Tests;

public sealed class JobParametersTests
{
    public static TheoryData<string> Names => [.. JobOption.All.Select(option => option.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void The_text_of_an_option_reads_back(string name)
    {
        JobOption option = JobOption.Get(name);
        Assert.Matches("^[a-z]+(_[a-z]+)*$", name);
        Assert.DoesNotContain(option.Description, text => text is '\n');
        foreach (string text in option.Choices.Append(option.Default).OfType<string>())
            Assert.Equal(text, option.TextOf(option.Set(JobParameters.Default, text)));
        Assert.Equal(option.Default, option.TextOf(JobParameters.Default));
    }

    [Fact]
    public void The_defaults_are_valid_and_keep_the_rate_of_the_middle_scale()
    {
        Assert.Equal(4, JobParameters.Default.Validated().Rate);
        Assert.Equal(8, (JobParameters.Default with { Engine = EngineSettings.Default with { Scales = new ScaleSet([4, 8, 16]) } }).Validated().Rate);
        Assert.Equal("paper:t=0", (JobParameters.Default with { Allocator = "paper" }).Validated().Allocator);
    }

    [Theory]
    [InlineData("kind", "sharpen", "--kind: there is no kind 'sharpen', but rescale, downscale and upscale.")]
    [InlineData("format", "gif", "--format: there is no format 'gif', but png, tiff, webp and jpeg.")]
    [InlineData("scorer", "", "--scorer: it is empty.")]
    [InlineData("scorer", "none", "--scorer: there is no scorer 'none'.")]
    [InlineData("precision", "half", "--precision: there is no precision 'half', but auto, float32 and bfloat16.")]
    [InlineData("network", "", "--network: it is empty.")]
    [InlineData("allocator", "best", "--allocator: There is no allocator 'best'; there are sse and paper, e.g. paper:t=0.5,max=100.")]
    [InlineData("scales", "2,4,x", "--scales: '2,4,x' is not a list of scales such as 2,4,8.")]
    [InlineData("scales", "2", "--scales: A scale set has two to four scales.")]
    [InlineData("rate", "0", "--rate: '0' is not a whole number from 1 to 128.")]
    [InlineData("rate", "16", "--rate: 16 does not lie between the scales 2,4,8 as a divisor of 32.")]
    [InlineData("rate", "3", "--rate: 3 does not lie between the scales 2,4,8 as a divisor of 32.")]
    [InlineData("max_pixels", "-1", "--max-pixels: '-1' is not a whole number from 1 to 1125899906842624.")]
    [InlineData("max_side", "1e3", "--max-side: '1e3' is not a whole number from 1 to 2147483647.")]
    [InlineData("device_class", "my class", "--device-class: 'my class' is no device class such as cpu-avx2.")]
    [InlineData("force", "perhaps", "--force: 'perhaps' is neither yes nor no.")]
    public void A_wrong_value_is_one_sentence_that_names_the_option_as_it_was_written(string name, string text, string sentence)
    {
        var error = Assert.Throws<JobOptionException>(() => JobOption.Get(name).Set(JobParameters.Default, text).Validated());
        Assert.Equal((name, sentence), (error.Option, error.Sentence("--" + name.Replace('_', '-'))));
        Assert.StartsWith(name + ": ", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("tif", "tiff", "tiff")]
    [InlineData("jpg", "jpeg", "jpg")]
    [InlineData("jpeg", "jpeg", "jpg")]
    [InlineData("webp", "webp", "webp")]
    public void A_format_has_a_name_and_an_extension(string text, string format, string extension)
    {
        JobParameters parameters = JobOption.Get("format").Set(JobParameters.Default, text);
        Assert.Equal((format, extension), (parameters.Format, parameters.ImageExtension));
        Assert.Equal(format, JobParameters.FormatOf("/out/a." + extension));
    }

    [Fact]
    public void Parameters_are_equal_when_they_say_the_same()
    {
        static JobParameters Made() => new() { WeightHashes = new WeightHashes([new("b", "1"), new("a", "2")]), Engine = EngineSettings.Default with { Scales = new ScaleSet([2, 4]) } };
        Assert.Equal((Made(), Made().GetHashCode()), (Made(), Made().GetHashCode()));
        Assert.NotEqual(Made(), Made() with { WeightHashes = new WeightHashes([new("a", "1"), new("b", "2")]) });
    }
}

namespace BbmrCluster.Rescaling.Tests;

public sealed class AllocatorsTests
{
    [Theory]
    [InlineData("sse", "sse")]
    [InlineData("paper", "paper:t=0")]
    [InlineData("paper:t=0", "paper:t=0")]
    [InlineData("paper:max=7", "paper:t=0,max=7")]
    [InlineData("paper: max=7, t=0.50", "paper:t=0.5,max=7")]
    public void Names_become_canonical_and_canonical_names_stay(string text, string canonical)
    {
        Assert.Equal(canonical, Allocators.Parse(text).Name);
        Assert.Equal(canonical, Allocators.Parse(canonical).Name);
    }

    [Theory]
    [InlineData("best", "no allocator 'best'")]
    [InlineData("", "no allocator ''")]
    [InlineData("SSE", "no allocator 'SSE'")]
    [InlineData("sse:t=1", "no parameter 't'")]
    [InlineData("paper:u=1", "no parameter 'u'")]
    [InlineData("paper:t", "name=value")]
    [InlineData("paper:", "name=value")]
    [InlineData("paper:t=1,t=2", "twice")]
    [InlineData("paper:t=-1", "0 to 100")]
    [InlineData("paper:t=NaN", "0 to 100")]
    [InlineData("paper:t=1e9", "0 to 100")]
    [InlineData("paper:max=1.5", "whole number")]
    [InlineData("paper:max=-1", "whole number")]
    [InlineData("paper:max=99999999999", "whole number")]
    public void Unknown_names_and_values_are_refused_in_one_sentence(string text, string part)
    {
        string message = Assert.Throws<FormatException>(() => Allocators.Parse(text)).Message;
        Assert.Contains(part, message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', message);
    }

    [Theory]
    [InlineData("paper:t=0.00001", "paper:t=0.00001")]
    [InlineData("paper:t=1E-05", "paper:t=0.00001")]
    [InlineData("paper:t=0.30000000000000004", null)]
    [InlineData("paper:t=1E-300", null)]
    [InlineData("paper:t=99.999999,max=3", "paper:t=99.999999,max=3")]
    [InlineData("paper:t=0", "paper:t=0")]
    public void A_name_reads_back_as_the_same_allocator(string text, string? canonical)
    {
        string name = Allocators.Parse(text).Name;
        Assert.Equal(canonical ?? name, name);
        Assert.Equal(name, Allocators.Parse(name).Name);
    }

    [Theory]
    [InlineData("paper:t=1e3")]
    [InlineData("paper:t=1e999")]
    [InlineData("paper:t=-1")]
    [InlineData("paper:t=NaN")]
    public void A_threshold_outside_its_range_is_refused(string text) => Assert.Throws<FormatException>(() => Allocators.Parse(text));
}

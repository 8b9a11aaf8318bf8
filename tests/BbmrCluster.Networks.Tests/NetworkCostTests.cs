using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.JointSr;

namespace BbmrCluster.Networks.Tests;

public sealed class NetworkCostTests
{
    [Theory]
    [InlineData("omnisr", 2, 784_604, 3.0648)]
    [InlineData("omnisr", 3, 793_259, null)]
    [InlineData("omnisr", 4, 805_376, 0.7871)]
    [InlineData("omnisr", 8, 888_464, 0.2179)]
    [InlineData("omnisr-light", 2, 193_436, 0.7621)]
    [InlineData("omnisr-light", 3, 202_091, null)]
    [InlineData("omnisr-light", 4, 214_208, 0.2117)]
    [InlineData("omnisr-light", 8, 297_296, 0.0741)]
    [InlineData("craft", 2, 737_756, 3.0708)]
    [InlineData("craft", 3, 744_251, null)]
    [InlineData("craft", 4, 753_344, 0.7837)]
    [InlineData("craft", 8, 815_696, 0.2120)]
    [InlineData("smfanet", 2, 480_300, 1.7981)]
    [InlineData("smfanet", 3, 486_795, null)]
    [InlineData("smfanet", 4, 495_888, 0.4655)]
    [InlineData("smfanet", 8, 558_240, 0.1323)]
    [InlineData("downnet-omnisr-light", 2, 10_176, 0.0523)]
    [InlineData("downnet-omnisr-light", 4, 19_392, 0.0614)]
    [InlineData("downnet-omnisr-light", 8, 28_608, 0.0637)]
    public void Parameters_and_multiply_accumulates_of_a_block_are_the_published_ones(string network, int scale, long parameters, double? gmac)
    {
        NetworkShape shape = ModelCatalog.StandardShape(network, scale);
        NetworkCost cost = shape.BlockCost();
        Assert.Equal(parameters, cost.Parameters);
        Assert.Equal(parameters, shape.Parameters.Sum(p => p.Shape.Aggregate(1L, (a, b) => a * b)));
        if (gmac is { } published)
            Assert.Equal(published, Math.Round(cost.Gmac, 4));
    }

    [Theory]
    [InlineData("omnisr", 777_680)]
    [InlineData("omnisr-light", 186_512)]
    [InlineData("craft", 732_560)]
    [InlineData("smfanet", 475_104)]
    public void The_feature_part_has_the_same_parameters_at_every_scale(string network, long parameters)
    {
        foreach (int scale in (int[])[2, 3, 4, 8])
        {
            var shape = (SrNetworkShape)ModelCatalog.StandardShape(network, scale);
            Assert.Equal(parameters, shape.Parameters.SkipLast(2).Sum(p => p.Shape.Aggregate(1L, (a, b) => a * b)));
            Assert.Equal([shape.TailName + ".weight", shape.TailName + ".bias"], shape.Parameters.TakeLast(2).Select(p => p.Name));
        }
    }

    [Theory]
    [InlineData("omnisr", 150_639, 2_483_679)]
    [InlineData("craft", 114_351, 2_312_031)]
    [InlineData("smfanet", 114_351, 1_539_663)]
    public void Joint_super_resolution_has_the_papers_parameters_and_costs(string network, long joint, long whole)
    {
        int[] scales = [2, 4, 8];
        SrNetworkShape[] shapes = [.. scales.Select(scale => (SrNetworkShape)ModelCatalog.StandardShape(network, scale))];
        long features = shapes.Sum(shape => shape.Parameters.SkipLast(2).Sum(p => p.Shape.Aggregate(1L, (a, b) => a * b)));
        foreach (SrNetworkShape shape in shapes)
        {
            NetworkCost cost = JointSrParameters.BlockCost(scales, shape.Channels, shape.Scale);
            Assert.Equal(joint, cost.Parameters);
            Assert.Equal(whole, features + cost.Parameters);
            // A tail costs what the network's own did; behind it come deblock and final convolution over 64 x 64 features.
            long tail = shape.Channels * 9L * 12 * 64 * 64;
            Assert.Equal(tail + ((3924 + 1296) * 64L * 64), cost.MultiplyAccumulates);
        }
    }

    [Fact]
    public void Cost_follows_the_block()
    {
        NetworkShape shape = ModelCatalog.StandardShape("downnet-omnisr", 4);
        Assert.Equal(4 * shape.BlockCost(128).MultiplyAccumulates, shape.BlockCost(256).MultiplyAccumulates);
    }
}

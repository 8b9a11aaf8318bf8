using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Rescaling.Tests;

public sealed class ScaleMapTests
{
    [Theory]
    [InlineData(1, 1, 2)]
    [InlineData(5, 1, 4)]
    [InlineData(60, 34, 3)]
    [InlineData(1, 100, 3)]
    [InlineData(512, 512, 4)]
    public void Random_maps_come_back_and_take_at_most_two_bits_a_block_and_a_byte(int columns, int rows, int scales)
    {
        var random = new Random(columns + rows);
        byte[] map = [.. Enumerable.Range(0, columns * rows).Select(_ => (byte)random.Next(scales))];
        byte[] coded = ScaleMap.Encode(map, columns);
        Assert.Equal(map, ScaleMap.Decode(coded, map.Length, columns, scales));
        Assert.True(coded.Length <= 1 + ((map.Length + 3) / 4));
    }

    [Fact]
    public void Maps_with_regions_shrink()
    {
        // A disc at the finest scale, sky at the coarsest.
        byte[] map = [.. Enumerable.Range(0, 60 * 34).Select(i => (byte)(Math.Pow((i % 60) - 30, 2) + Math.Pow((i / 60) - 20, 2) < 60 ? 0 : i / 60 < 12 ? 2 : 1))];
        byte[] coded = ScaleMap.Encode(map, 60);
        Assert.Equal(map, ScaleMap.Decode(coded, map.Length, 60, 3));
        Assert.InRange(coded.Length, 2, 510 / 4);
    }

    [Fact]
    public void The_bytes_of_a_map_are_these()
    {
        Assert.Equal([0, 0b00_10_01_00, 0b10], ScaleMap.Encode([0, 1, 2, 0, 2], 5));
        Assert.Equal([1, 0xAA, 0x65, 0x40, 0x70], ScaleMap.Encode([.. Enumerable.Repeat((byte)1, 20)], 5));
    }

    [Fact]
    public void Other_methods_lengths_and_scales_are_refused()
    {
        Assert.Throws<FormatException>(() => ScaleMap.Decode([], 4, 2, 3));
        Assert.Throws<FormatException>(() => ScaleMap.Decode([2, 0], 4, 2, 3));
        Assert.Throws<FormatException>(() => ScaleMap.Decode([0], 4, 2, 3));
        Assert.Throws<FormatException>(() => ScaleMap.Decode([0, 0, 0], 4, 2, 3));
        Assert.Throws<FormatException>(() => ScaleMap.Decode([0, 0b11], 4, 2, 3));
    }
}

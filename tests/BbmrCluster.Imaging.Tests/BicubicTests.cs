using BbmrCluster.Tests;

namespace BbmrCluster.Imaging.Tests;

public sealed class BicubicTests
{
    /// <summary>v(y,x) = (37x + 91y + 5 ((x y) mod 17)) mod 256, the vector of the reference implementation.</summary>
    private static int Pattern(int y, int x) => ((37 * x) + (91 * y) + (5 * (x * y % 17))) % 256;

    private static PixelBuffer PatternImage(int channels = 1, int bitDepth = 8)
    {
        PixelBuffer image = new(128, 128, channels, bitDepth);
        for (int i = 0; i < 128 * 128 * channels; i++)
        {
            int v = Pattern(i / channels / 128, i / channels % 128);
            if (bitDepth == 8)
                image.Data[i] = (byte)v;
            else
                image.Samples16[i] = (ushort)(v * 257);
        }

        return image;
    }

    [Theory]
    [InlineData(2, 521595, new[] { 70, 121, 122, 120, 105, 131 }, new[] { 148, 93, 116 })]
    [InlineData(4, 130313, new[] { 105, 127, 129, 134, 141, 123 }, new[] { 126, 136, 111 })]
    [InlineData(8, 32577, new[] { 117, 136, 133, 128, 130, 139 }, new[] { 125, 127, 126 })]
    public void Shrinking_8_bit_values_gives_the_reference_sums_and_corners(int factor, int sum, int[] first, int[] last)
    {
        PixelBuffer small = Bicubic.Resize(PatternImage(), ResizeScale.Down(factor));
        Assert.Equal(128 / factor, small.Width);
        Assert.Equal(sum, small.Data.Sum(v => v));
        Assert.Equal(first, small.Data.Take(6).Select(v => (int)v));
        Assert.Equal(last, small.Data.TakeLast(3).Select(v => (int)v));
    }

    [Theory]
    [InlineData(2, 2086541, new[] { 60, 76, 110, 125, 124, 121 })]
    [InlineData(4, 2085122, new[] { 102, 104, 107, 113, 119, 125 })]
    [InlineData(8, 2084955, new[] { 113, 114, 114, 115, 117, 119 })]
    public void Enlarging_the_shrunk_values_gives_the_reference_sums(int factor, int sum, int[] first)
    {
        PixelBuffer back = Bicubic.Resize(Bicubic.Resize(PatternImage(), ResizeScale.Down(factor)), ResizeScale.Up(factor));
        Assert.Equal(sum, back.Data.Sum(v => v));
        Assert.Equal(first, back.Data.Take(6).Select(v => (int)v));
    }

    [Theory]
    [InlineData(2, 521218.5, 70.1418, 115.555389)]
    [InlineData(4, 130304.625, 105.267375, 110.51554)]
    [InlineData(8, 32576.15625, 116.984281, 125.865992)]
    public void Real_values_are_not_rounded(int factor, double sum, double first, double last)
    {
        double[] values = [.. PatternImage().Data.Select(v => (double)v)];
        double[] small = Bicubic.Resize(values, 128, 128, 1, ResizeScale.Down(factor));
        Assert.Equal(sum, small.Sum(), 1e-6);
        Assert.Equal(first, small[0], 1e-4);
        Assert.Equal(last, small[^1], 1e-5);
    }

    [FixtureTheory]
    [InlineData("baby", 2)]
    [InlineData("bird", 2)]
    [InlineData("butterfly", 2)]
    [InlineData("head", 2)]
    [InlineData("woman", 2)]
    [InlineData("baby", 3)]
    [InlineData("bird", 3)]
    [InlineData("butterfly", 3)]
    [InlineData("head", 3)]
    [InlineData("woman", 3)]
    [InlineData("baby", 4)]
    [InlineData("bird", 4)]
    [InlineData("butterfly", 4)]
    [InlineData("head", 4)]
    [InlineData("woman", 4)]
    public void Set5_is_bit_identical_to_the_images_made_by_Matlab(string name, int factor)
    {
        PixelBuffer hr = TestImages.Load(Fixtures.Path($"set5/HR/{name}.png"));
        PixelBuffer expected = TestImages.Load(Fixtures.Path($"set5/LR_x{factor}/{name}x{factor}.png"));
        PixelBuffer small = Bicubic.Resize(hr.Crop(0, 0, hr.Width / factor * factor, hr.Height / factor * factor), ResizeScale.Down(factor));
        Assert.Equal((expected.Width, expected.Height), (small.Width, small.Height));
        Assert.Equal(0, small.Data.Zip(expected.Data).Count(p => p.First != p.Second));
    }

    [Theory]
    [InlineData(2, 8)]
    [InlineData(4, 8)]
    [InlineData(8, 8)]
    [InlineData(2, 16)]
    [InlineData(8, 16)]
    public void Blocks_shrink_exactly_as_images_do(int factor, int bitDepth)
    {
        Random random = new(7);
        const int side = 128;
        ushort[] blocks = new ushort[3 * side * side * 3];
        for (int i = 0; i < blocks.Length; i++)
            blocks[i] = (ushort)random.Next(1 << bitDepth);
        int small = side / factor;
        ushort[] lr = new ushort[3 * small * small * 3];
        Bicubic.DownscaleBlocks(blocks, side, bitDepth, factor, lr);
        for (int n = 0; n < 3; n++)
        {
            PixelBuffer image = new(side, side, 3, bitDepth);
            for (int i = 0; i < side * side * 3; i++)
            {
                if (bitDepth == 8)
                    image.Data[i] = (byte)blocks[(n * side * side * 3) + i];
                else
                    image.Samples16[i] = blocks[(n * side * side * 3) + i];
            }

            PixelBuffer expected = Bicubic.Resize(image, ResizeScale.Down(factor));
            IEnumerable<ushort> values = bitDepth == 8 ? expected.Data.Select(v => (ushort)v) : expected.Samples16.ToArray();
            Assert.Equal(values, lr.Skip(n * small * small * 3).Take(small * small * 3));
        }
    }

    [Fact]
    public void Whole_number_weights_give_the_same_as_real_ones()
    {
        // A grey image takes the plain loop for its columns, an RGB one the vector unit.
        PixelBuffer grey = Bicubic.Resize(PatternImage(1), ResizeScale.Down(4)), rgb = Bicubic.Resize(PatternImage(3), ResizeScale.Down(4));
        Assert.Equal(grey.Data.SelectMany(v => new[] { v, v, v }), rgb.Data);
    }

    [Theory]
    [InlineData(2)]
    [InlineData(8)]
    public void Blocks_are_enlarged_as_real_values(int factor)
    {
        Random random = new(3);
        const int side = 16;
        ushort[] lr = new ushort[2 * side * side * 3];
        for (int i = 0; i < lr.Length; i++)
            lr[i] = (ushort)random.Next(256);
        int large = side * factor;
        float[] hr = new float[2 * large * large * 3];
        Bicubic.UpscaleBlocks(lr, side, factor, hr);
        for (int n = 0; n < 2; n++)
        {
            double[] values = [.. lr.Skip(n * side * side * 3).Take(side * side * 3).Select(v => (double)v)];
            double[] expected = Bicubic.Resize(values, side, side, 3, ResizeScale.Up(factor));
            for (int i = 0; i < expected.Length; i++)
                Assert.Equal(expected[i], hr[(n * large * large * 3) + i], 1e-3);
        }

        Assert.Contains(hr, v => v is < 0 or > 255);
    }

    [Theory]
    [InlineData(1, 1, 8)]
    [InlineData(1, 5000, 8)]
    [InlineData(129, 1, 16)]
    [InlineData(7, 3, 16)]
    public void Any_size_can_be_resized_and_a_flat_image_stays_flat(int width, int height, int bitDepth)
    {
        PixelBuffer image = new(width, height, 4, bitDepth);
        image.Data.AsSpan().Fill(77);
        foreach (ResizeScale scale in new[] { ResizeScale.Down(2), ResizeScale.Down(3), ResizeScale.Down(8), ResizeScale.Up(3), new ResizeScale(3, 2) })
        {
            PixelBuffer result = Bicubic.Resize(image, scale);
            Assert.Equal((scale.Apply(width), scale.Apply(height)), (result.Width, result.Height));
            Assert.All(result.Data, v => Assert.Equal(77, v));
        }
    }

    [Theory]
    [InlineData("1/4", 1, 4)]
    [InlineData("2", 2, 1)]
    [InlineData(" 3 / 2 ", 3, 2)]
    public void Scales_are_read_as_fractions(string text, int numerator, int denominator) =>
        Assert.Equal(new ResizeScale(numerator, denominator), ResizeScale.Parse(text));

    [Theory]
    [InlineData("0")]
    [InlineData("1/0")]
    [InlineData("0.5")]
    [InlineData("1/2/3")]
    [InlineData("-2")]
    [InlineData("1/65")]
    public void What_is_no_scale_is_refused(string text) => Assert.Throws<FormatException>(() => ResizeScale.Parse(text));
}

using System.Text.Json;
using BbmrCluster.Tests;

namespace BbmrCluster.Imaging.Tests;

public sealed class MetricsTests
{
    public static TheoryData<string, int> Cases => new()
    {
        { "astronaut", 2 }, { "astronaut", 4 }, { "astronaut", 8 },
        { "coffee", 2 }, { "coffee", 4 }, { "coffee", 8 },
    };

    [FixtureTheory]
    [MemberData(nameof(Cases))]
    public void Psnr_and_ssim_agree_with_the_reference(string name, int scale)
    {
        PixelBuffer reference = TestImages.Load(Fixtures.Path($"metrics/{name}.png")), image = TestImages.Load(Fixtures.Path($"metrics/{name}_bicubic_x{scale}.png"));
        JsonElement expected = Expected(name).GetProperty("scales").GetProperty($"{scale}");
        ImageQuality whole = Metrics.Compare(reference, image), cropped = Metrics.Compare(reference, image, scale);
        Assert.Equal(expected.GetProperty("psnr_y_crop0").GetDouble(), whole.PsnrY, 1e-4);
        Assert.Equal(expected.GetProperty("psnr_y_crop_s").GetDouble(), cropped.PsnrY, 1e-4);
        Assert.Equal(expected.GetProperty("psnr_rgb_crop0").GetDouble(), whole.PsnrRgb, 1e-4);
        Assert.Equal(expected.GetProperty("ssim_y_crop0").GetDouble(), whole.SsimY!.Value, 1e-6);
    }

    [FixtureTheory]
    [MemberData(nameof(Cases))]
    public void Niqe_agrees_with_the_reference(string name, int scale)
    {
        NiqeParameters parameters = NiqeParameters.Read(Fixtures.Path("niqe/niqe_pris_params.npz"));
        double expected = Expected(name).GetProperty("scales").GetProperty($"{scale}").GetProperty("niqe_crop0").GetDouble();
        double score = Niqe.Score(TestImages.Load(Fixtures.Path($"metrics/{name}_bicubic_x{scale}.png")), parameters)!.Value;
        Assert.InRange(Math.Abs(score - expected) / expected, 0, 0.005);
    }

    [FixtureTheory]
    [InlineData("niqe_pris_params.npz")]
    [InlineData("modelparameters.mat")]
    public void Niqe_of_the_published_picture_is_as_published(string parameters) =>
        Assert.Equal(5.7296, Niqe.Score(TestImages.Load(Fixtures.Path("niqe/baboon.png")), NiqeParameters.Read(Fixtures.Path("niqe", parameters)))!.Value, 1e-3);

    [FixtureFact]
    public void Both_encodings_of_the_niqe_parameters_hold_the_same_numbers()
    {
        NiqeParameters mat = NiqeParameters.Read(Fixtures.Path("niqe/modelparameters.mat")), npz = NiqeParameters.Read(Fixtures.Path("niqe/niqe_pris_params.npz"));
        Assert.Equal(npz.Mean, mat.Mean);
        Assert.Equal(npz.Covariance, mat.Covariance);
        for (int i = 0; i < 49; i++)
            Assert.Equal(npz.Window[i / 7, i % 7], mat.Window[i / 7, i % 7], 1e-15);
    }

    [FixtureTheory]
    [InlineData("niqe_pris_params.npz")]
    [InlineData("modelparameters.mat")]
    public void Damaged_niqe_parameters_are_refused_in_one_sentence(string name)
    {
        byte[] bytes = File.ReadAllBytes(Fixtures.Path("niqe", name));
        using TestFolder folder = new();
        string path = folder.File("parameters");
        foreach (int length in new[] { 0, 1, 10, 127, 130, 200, 1000, bytes.Length / 2, bytes.Length - 40 })
        {
            File.WriteAllBytes(path, bytes[..length]);
            InvalidDataException error = Assert.Throws<InvalidDataException>(() => NiqeParameters.Read(path));
            Assert.StartsWith(path, error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Niqe_needs_two_blocks_with_texture()
    {
        double[,] unit = new double[36, 36], window = new double[7, 7];
        for (int i = 0; i < 36; i++)
            unit[i, i] = 1;
        for (int i = 0; i < 49; i++)
            window[i / 7, i % 7] = 1.0 / 49;
        NiqeParameters parameters = new(new double[36], unit, window);
        Assert.Null(Niqe.Score(TestImages.Noise(191, 96, 1, 8), parameters));
        Assert.Null(Niqe.Score(new PixelBuffer(400, 400, 3, 8), parameters));
        Assert.True(Niqe.Score(TestImages.Noise(192, 96, 1, 16), parameters) > 0);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(64)]
    public void Strips_give_the_same_figures_as_whole_images(int rows)
    {
        PixelBuffer a = TestImages.Noise(200, 150, 3, 8, 1), b = TestImages.Noise(200, 150, 3, 8, 2);
        QualityAccumulator strips = new(200, 150, crop: 3, blockSize: 32);
        for (int y = 0; y < 150; y += rows)
        {
            int height = Math.Min(rows, 150 - y);
            strips.Add(a.Crop(0, y, 200, height), b.Crop(0, y, 200, height));
        }

        Assert.Equal(Metrics.Compare(a, b, 3, 32), strips.Result());
    }

    [Fact]
    public void Equal_images_have_the_largest_psnr_and_no_seam()
    {
        PixelBuffer image = TestImages.Noise(300, 200, 3, 8);
        Assert.Equal(new ImageQuality(100, 100, 1, null, 0), Metrics.Compare(image, image));
    }

    [Fact]
    public void Grey_counts_as_three_equal_channels_alpha_does_not_count_and_16_bits_are_in_8_bit_units()
    {
        PixelBuffer grey = TestImages.Noise(40, 30, 1, 8, 5), other = TestImages.Noise(40, 30, 1, 8, 6);
        PixelBuffer wide = new(40, 30, 4, 16);
        for (int i = 0; i < 40 * 30; i++)
        {
            for (int c = 0; c < 3; c++)
                wide.Samples16[(i * 4) + c] = (ushort)(grey.Data[i] * 257);
            wide.Samples16[(i * 4) + 3] = (ushort)i;
        }

        Assert.Equal(100, Metrics.Compare(grey, wide).PsnrY);
        ImageQuality expected = Metrics.Compare(grey, other), actual = Metrics.Compare(wide, other);
        Assert.Equal(expected.PsnrY, actual.PsnrY, 1e-9);
        Assert.Equal(expected.PsnrRgb, actual.PsnrRgb, 1e-9);
        Assert.Equal(expected.SsimY!.Value, actual.SsimY!.Value, 1e-9);
    }

    [Fact]
    public void Sum_of_squared_errors_of_a_block_runs_over_its_inner_part()
    {
        ushort[] a = new ushort[4 * 4 * 3], b = new ushort[4 * 4 * 3];
        Array.Fill(b, (ushort)10);
        double step = 10 * (65.481 + 128.553 + 24.966) / 255;
        Assert.Equal(6 * step * step, Metrics.BlockSse(a, b, 4, 2, 3, 8), 1e-9);
        Assert.Equal(16 * step * step / 257 / 257, Metrics.BlockSse(a, b, 4, 4, 4, 16), 1e-9);
    }

    [Fact]
    public void Seam_is_one_for_noise_and_large_where_blocks_step()
    {
        PixelBuffer reference = TestImages.Noise(512, 384, 1, 8, 3), noise = TestImages.Noise(512, 384, 1, 8, 4), steps = new(512, 384, 1, 8);
        for (int i = 0; i < steps.Data.Length; i++)
        {
            int block = (i % 512 / 128) + (i / 512 / 128);
            steps.Data[i] = (byte)Math.Clamp(reference.Data[i] + (block % 2 * 20) + (i % 3), 0, 255);
        }

        Assert.InRange(Metrics.Compare(reference, noise).Seam!.Value, 0.98, 1.02);
        Assert.True(Metrics.Compare(reference, steps).Seam > 5);
    }

    [Fact]
    public void Seam_is_the_ratio_of_root_mean_squares_of_error_steps()
    {
        // Error on Y: 0 0 | s s, then in the second row 0 t | s s (pitch 2).
        PixelBuffer reference = new(4, 2, 1, 8), image = new(4, 2, 1, 8, [0, 0, 9, 9, 0, 4, 9, 9]);
        double unit = 219.0 / 255, s = 9 * unit, t = 4 * unit;
        double border = ((s * s) + ((s - t) * (s - t))) / 2, other = ((t * t) + (t * t)) / 8;
        Assert.Equal(Math.Sqrt(border / other), Metrics.Compare(reference, image, 0, 2).Seam!.Value, 1e-9);
    }

    [Fact]
    public void Figures_that_do_not_exist_are_null()
    {
        ImageQuality tiny = Metrics.Compare(TestImages.Noise(10, 500, 1, 8, 1), TestImages.Noise(10, 500, 1, 8, 2));
        Assert.Null(tiny.SsimY);
        Assert.NotNull(tiny.Seam);
        Assert.Null(Metrics.Compare(new PixelBuffer(1, 1, 1, 8), new PixelBuffer(1, 1, 1, 8)).Seam);
    }

    [Fact]
    public void Sizes_that_differ_or_vanish_are_refused()
    {
        PixelBuffer a = new(20, 20, 1, 8), b = new(20, 21, 1, 8);
        Assert.Throws<ArgumentException>(() => Metrics.Compare(a, b));
        Assert.Throws<ArgumentException>(() => Metrics.Compare(a, a, 10));
        Assert.Throws<InvalidOperationException>(() => new QualityAccumulator(20, 20).Result());
    }

    private static JsonElement Expected(string name)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Fixtures.Path("metrics/metrics.json")));
        return document.RootElement.GetProperty(name).Clone();
    }
}

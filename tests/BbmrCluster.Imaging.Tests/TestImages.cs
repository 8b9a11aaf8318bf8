namespace BbmrCluster.Imaging.Tests;

internal static class TestImages
{
    public static PixelBuffer Load(string path)
    {
        using TestFolder folder = new();
        return ImageFile.Load(path, ImageLimits.Default, folder.Path);
    }

    public static PixelBuffer Noise(int width, int height, int channels, int bitDepth, int seed = 1)
    {
        PixelBuffer image = new(width, height, channels, bitDepth);
        new Random(seed).NextBytes(image.Data);
        return image;
    }

    /// <summary>A picture with shapes and some grain, as compressible as a photograph.</summary>
    public static PixelBuffer Scene(int width, int height, int channels, int bitDepth, int seed = 1)
    {
        PixelBuffer image = new(width, height, channels, bitDepth);
        Random random = new(seed);
        for (int i = 0; i < width * height; i++)
        {
            int x = i % width, y = i / width;
            for (int c = 0; c < channels; c++)
            {
                double v = 0.5 + (0.3 * Math.Sin((x / (17.0 + c)) + (y / 29.0))) + (0.15 * Math.Cos(y / (11.0 + c))) + (0.02 * random.NextDouble());
                if (bitDepth == 8)
                    image.Data[(i * channels) + c] = (byte)(v * 255);
                else
                    image.Samples16[(i * channels) + c] = (ushort)(v * 65535);
            }
        }

        return image;
    }
}

/// <summary>A folder of its own for a test, removed with everything in it.</summary>
internal sealed class TestFolder : IDisposable
{
    public TestFolder() => Directory.CreateDirectory(Path);

    public string Path { get; } = System.IO.Path.Combine(System.IO.Path.GetTempPath(), $"bbmr-imaging-{Guid.NewGuid():N}");

    public string File(string name) => System.IO.Path.Combine(Path, name);

    public void Dispose() => Directory.Delete(Path, recursive: true);
}

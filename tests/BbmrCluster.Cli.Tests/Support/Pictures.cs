using NetVips;

namespace BbmrCluster.Tests;

/// <summary>Small pictures with smooth, busy and flat parts, always the same.</summary>
public static class Pictures
{
    /// <summary>Writes a picture; the format follows the extension.</summary>
    public static string Write(string path, int width, int height, int channels = 3)
    {
        byte[] samples = new byte[width * height * channels];
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                // Flat in the upper third, waves that get finer to the right in the middle, noise below.
                uint noise = unchecked((uint)((x * 73856093) ^ (y * 19349663)));
                noise = unchecked((noise ^ (noise >> 13)) * 1274126177);
                double value = y * 3 < height ? 90 + (x * 60.0 / width)
                    : y * 3 < 2 * height ? 128 + (90 * Math.Sin(x * (0.05 + (x * 0.5 / width))) * Math.Cos(y * 0.07))
                    : 128 + ((int)(noise >> 24) / 2.0) - 64 + (30 * Math.Sin(x * 0.02));
                for (int c = 0; c < channels; c++)
                    samples[(((y * width) + x) * channels) + c] = (byte)Math.Clamp(value + (c * 12), 0, 255);
            }
        }
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        using Image image = Image.NewFromMemory(samples, width, height, channels, Enums.BandFormat.Uchar);
        using Image tagged = image.Copy(interpretation: channels >= 3 ? Enums.Interpretation.Srgb : Enums.Interpretation.Bw);
        tagged.WriteToFile(path);
        return path;
    }

    /// <summary>A PNG header that promises 500 million rows, and nothing behind it.</summary>
    public static string WriteBomb(string path)
    {
        byte[] header =
        [
            0x89, (byte)'P', (byte)'N', (byte)'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, (byte)'I', (byte)'H', (byte)'D', (byte)'R',
            0, 0, 1, 0, 0x1d, 0xcd, 0x65, 0x00, 8, 2, 0, 0, 0,
        ];
        uint crc = System.IO.Hashing.Crc32.HashToUInt32(header.AsSpan(12));
        File.WriteAllBytes(path, [.. header, (byte)(crc >> 24), (byte)(crc >> 16), (byte)(crc >> 8), (byte)crc]);
        return path;
    }

    /// <summary>The first half of a JPEG.</summary>
    public static string WriteTruncatedJpeg(string path)
    {
        Write(path, 300, 260);
        byte[] whole = File.ReadAllBytes(path);
        File.WriteAllBytes(path, whole[..(whole.Length / 2)]);
        return path;
    }
}

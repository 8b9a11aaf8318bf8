using BbmrCluster.Imaging;
using BbmrCluster.Rescaling.Container;
using BbmrCluster.Tests;

namespace BbmrCluster.Rescaling.Tests;

/// <summary>
/// Files written by version 1 stay readable, and the layout stays what docs/container-format.md says. The atlases' own bytes
/// are the image coder's, which may change between its versions; they are taken from the file.
/// </summary>
public sealed class GoldenContainerTests : IDisposable
{
    private static readonly string Golden = Path.Combine(Fixtures.Repository(), "tests", "BbmrCluster.Rescaling.Tests", "golden", "v1.bbmr");
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_file_of_version_1_is_read()
    {
        ContainerSample sample = ContainerSample.Small();
        using ContainerReader reader = ContainerReader.Open(Golden, ImageLimits.Default);
        Assert.Empty(reader.Verify());
        Assert.Equal(sample.Header.Encode(), reader.Header.Encode());
        Assert.Equal(sample.ScaleIndex, reader.ScaleIndex);
        Assert.Equal(sample.Quality.Sse, reader.Quality!.Sse);
        for (int strip = 0; strip < 2; strip++)
            ContainerTests.AssertStrip(sample, strip, reader.UnpackStrip(strip));
    }

    [Fact]
    public void The_same_parts_give_the_same_file()
    {
        using ContainerReader reader = ContainerReader.Open(Golden, ImageLimits.Default);
        string path = _folder.File("again.bbmr");
        ContainerWriter.Write(path, reader.Header, reader.ScaleIndex, reader.Quality!, Enumerable.Range(0, 2).Select(strip => new ReadOnlyMemory<byte>(reader.ReadStrip(strip))));
        Assert.Equal(File.ReadAllBytes(Golden), File.ReadAllBytes(path));
    }

    [Fact]
    public void The_checksum_is_the_published_xxh3_128() =>
        Assert.Equal("99AA06D3014798D86001C324468D497F", Convert.ToHexString(ContainerLayout.Checksum([])));

    [Fact]
    public void Numbers_lie_where_the_format_document_says()
    {
        byte[] bytes = File.ReadAllBytes(Golden);
        Assert.Equal("8B42424D520D0A1A0A00", Convert.ToHexString(bytes[..10]));
        uint At(int offset) => BitConverter.ToUInt32(bytes, offset);
        int header = (int)At(12), map = (int)At(16), quality = (int)At(20), strips = (int)At(24);
        Assert.Equal((1, 2, 0), (BitConverter.ToUInt16(bytes, 10), strips, (int)At(28)));
        Assert.Equal(bytes.Length, BitConverter.ToInt64(bytes, 32));
        // Two bits for each of six blocks, lowest first.
        byte[] indices = ContainerSample.Small().ScaleIndex;
        int at = 56 + header + 16;
        Assert.Equal([0, (byte)(indices[0] | indices[1] << 2 | indices[2] << 4 | indices[3] << 6), (byte)(indices[4] | indices[5] << 2)], bytes[at..(at + map)]);
        at += map + 16;
        Assert.Equal((2, 0, "omnisr-light 0123abcd float32".Length), (bytes[at], bytes[at + 1], BitConverter.ToUInt16(bytes, at + 2)));
        Assert.Equal(5 * 1000.25f, BitConverter.ToSingle(bytes, at + quality - 4));
        at += quality + 16;
        int firstStrip = at + (strips * 32) + 16;
        Assert.Equal(firstStrip, BitConverter.ToInt64(bytes, at));
        Assert.Equal("STRP"u8.ToArray(), bytes[firstStrip..(firstStrip + 4)]);
        Assert.Equal(At(firstStrip + 4), BitConverter.ToUInt64(bytes, at + 8));
        Assert.Equal((0u, 4u), (At(firstStrip + 8), At(firstStrip + 12)));
        // The index repeats the strip's own checksum.
        int firstEnd = firstStrip + (int)At(firstStrip + 4);
        Assert.Equal(bytes[(firstEnd - 16)..firstEnd], bytes[(at + 16)..(at + 32)]);
        Assert.Equal(firstEnd, BitConverter.ToInt64(bytes, at + 32));
    }
}

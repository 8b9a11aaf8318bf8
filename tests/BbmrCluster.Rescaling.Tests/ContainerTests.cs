using BbmrCluster.Imaging;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Rescaling.Tests;

public sealed class ContainerTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(1, 1, "2,4,8", 8, 3, AlphaKind.None)]
    [InlineData(129, 1, "2,4,8", 8, 3, AlphaKind.Opaque)]
    [InlineData(1, 300, "2,4,8", 8, 1, AlphaKind.Stored)]
    [InlineData(300, 200, "2,4,8", 8, 3, AlphaKind.Stored)]
    [InlineData(300, 200, "2,4,8", 16, 3, AlphaKind.Stored)]
    [InlineData(257, 129, "2,4,8", 16, 1, AlphaKind.None)]
    [InlineData(200, 300, "1,2,4,8", 8, 3, AlphaKind.None)]
    [InlineData(200, 300, "2,16", 8, 1, AlphaKind.None)]
    public void What_is_written_is_read_again(int width, int height, string scales, int bitDepth, int colours, AlphaKind alpha)
    {
        var sample = new ContainerSample(width, height, 128, scales, bitDepth, colours, alpha);
        string path = _folder.File("a.bbmr");
        long length = sample.Write(path);
        Assert.Equal(new FileInfo(path).Length, length);

        using ContainerReader reader = ContainerReader.Open(path, ImageLimits.Default);
        Assert.Empty(reader.Verify());
        Assert.Equal(length, reader.FileBytes);
        Assert.Equal(sample.Header.Encode(), reader.Header.Encode());
        Assert.Equal(sample.Header with { WeightHashes = reader.Header.WeightHashes, Metadata = reader.Header.Metadata }, reader.Header);
        Assert.Equal(sample.Header.WeightHashes.OrderBy(pair => pair.Key), reader.Header.WeightHashes);
        Assert.Equivalent(sample.Header.Metadata, reader.Header.Metadata, strict: true);
        Assert.Equal(sample.ScaleIndex, reader.ScaleIndex);
        Assert.Equal((sample.Quality.Kind, sample.Quality.Label), (reader.Quality!.Kind, reader.Quality.Label));
        Assert.Equal(sample.Quality.Sse.Select(value => (double)(float)value), reader.Quality.Sse);
        Assert.Equal(sample.Header.Grid.Strips, reader.StripCount);
        // From the last to the first: each strip alone.
        for (int strip = reader.StripCount - 1; strip >= 0; strip--)
            AssertStrip(sample, strip, reader.UnpackStrip(strip));
    }

    [Fact]
    public void Equal_input_gives_equal_bytes() => Assert.Equal(ContainerSample.Small().Bytes(), ContainerSample.Small().Bytes());

    [Fact]
    public void A_failure_while_writing_leaves_no_container()
    {
        ContainerSample sample = ContainerSample.Small();
        string path = _folder.File("a.bbmr");
        IEnumerable<ReadOnlyMemory<byte>> Failing()
        {
            yield return sample.Strips[0];
            throw new IOException("disk full");
        }
        Assert.Throws<IOException>(() => ContainerWriter.Write(path, sample.Header, sample.ScaleIndex, sample.Quality, Failing()));
        Assert.Throws<ContainerException>(() => ContainerReader.Open(path, ImageLimits.Default));
    }

    [Fact]
    public void Parts_that_do_not_fit_are_not_written()
    {
        ContainerSample sample = ContainerSample.Small();
        void Refused(string reason, ContainerHeader? header = null, byte[]? scales = null, RecordedQuality? quality = null, params byte[][] strips)
        {
            string path = _folder.File("refused.bbmr");
            string message = Assert.Throws<ArgumentException>(() => ContainerWriter.Write(
                path, header ?? sample.Header, scales ?? sample.ScaleIndex, quality ?? sample.Quality, strips.Select(strip => new ReadOnlyMemory<byte>(strip)))).Message;
            Assert.Contains(reason, message, StringComparison.Ordinal);
        }
        byte[][] good = [.. sample.Strips];
        byte[] damaged = [.. good[0]];
        damaged[20] ^= 1;
        Refused("is not where it belongs", null, null, null, good[1], good[0]);
        Refused("1 strips instead of 2", null, null, null, good[0]);
        Refused("More than 2", null, null, null, good[0], good[1], good[1]);
        Refused("damaged", null, null, null, damaged, good[1]);
        Refused("stores alpha", sample.Header with { Alpha = AlphaKind.None }, null, null, good);
        Refused("5 scale indices", null, sample.ScaleIndex[1..], null, good);
        Refused("outside the scale set", null, [3, .. sample.ScaleIndex[1..]], null, good);
        Refused("for 6 blocks", null, null, sample.Quality with { Sse = [1] }, good);
        Refused("impossible squared error", null, null, sample.Quality with { Sse = [.. sample.Quality.Sse[1..], double.NaN] }, good);
        Refused("label", null, null, sample.Quality with { Label = "" }, good);
        Refused("source name", sample.Header with { Source = sample.Header.Source with { Name = "../x" } }, null, null, good);
        Refused("12 bits", sample.Header with { BitDepth = 12 }, null, null, good);
        Refused("rate", sample.Header with { Rate = 3 }, null, null, good);
        Refused("SHA-256", sample.Header with { Source = sample.Header.Source with { Sha256 = "00" } }, null, null, good);
    }

    [Fact]
    public void A_strip_of_another_place_image_or_depth_is_refused()
    {
        ContainerSample sample = ContainerSample.Small();
        StripFormat format = sample.Header.StripFormat;
        byte[] scales = sample.ScaleIndex[..3];
        string Reason(byte[] bytes, StripFormat f, int strip, byte[] s) => Assert.Throws<FormatException>(() => StripPacker.Unpack(bytes, f, strip, s)).Message;
        Assert.Contains("not where it belongs", Reason(sample.Strips[1], format, 0, scales), StringComparison.Ordinal);
        Assert.Contains("does not fit", Reason(sample.Strips[0], format, 0, [2, 2, 2]), StringComparison.Ordinal);
        Assert.Contains("cannot be decoded", Reason(sample.Strips[0], format with { BitDepth = 16 }, 0, scales), StringComparison.Ordinal);
        Assert.Contains("alpha", Reason(sample.Strips[1], format with { Alpha = AlphaKind.Opaque }, 1, sample.ScaleIndex[3..]), StringComparison.Ordinal);
        Assert.Contains("parts", Reason(sample.Strips[0], format with { Scales = new ScaleSet([1, 2, 4, 8], 16) }, 0, scales), StringComparison.Ordinal);
    }

    [Fact]
    public void Blocks_that_do_not_fit_the_image_are_not_packed()
    {
        var format = new StripFormat(new BlockGrid(16, 16, 16), new ScaleSet([2, 4], 16), 8, 1, AlphaKind.None);
        BlockBatch none = new(0, 4, 8), grey = new(1, 8, 8), coloured = new(1, 8, 8), bright = new(1, 8, 8);
        coloured.Samples[1] = 1;
        bright.Samples.AsSpan().Fill(256);
        void Refused(string reason, StripFormat f, byte scale, BlockBatch first, BlockBatch second, PixelBuffer? alpha = null) =>
            Assert.Contains(reason, Assert.Throws<ArgumentException>(() => StripPacker.Pack(f, 0, [scale], [first, second], alpha)).Message, StringComparison.Ordinal);
        Refused("grey", format, 0, coloured, none);
        Refused("256", format, 0, bright, none);
        Refused("scale 4", format, 1, none, grey);
        Refused("scale 2", format, 0, none, none);
        Refused("outside the scale set", format, 2, none, none);
        Refused("without it", format, 0, grey, none, new PixelBuffer(16, 16, 1, 8));
        Refused("another size", format with { Alpha = AlphaKind.Stored }, 0, grey, none, new PixelBuffer(15, 16, 1, 8));
    }

    [Theory]
    [InlineData(0, 0, 0)]
    [InlineData(1, 1, 1)]
    [InlineData(3, 0, 0)]
    [InlineData(2, 2, 1)]
    public void Wide_atlases_and_empty_scales_come_back(int first, int second, int third)
    {
        // 130 blocks of one scale are wider than some coders take, so they lie in rows.
        var format = new StripFormat(new BlockGrid(130 * 128, 128), ScaleSet.Parse("1,2,4,8"), 8, 3, AlphaKind.None);
        byte[] scales = [.. Enumerable.Repeat((byte)first, 127), (byte)second, (byte)third, (byte)first];
        BlockBatch[] blocks = [.. Enumerable.Range(0, 4).Select(s => new BlockBatch(scales.Count(index => index == s), 128 >> s, 8))];
        foreach (BlockBatch batch in blocks)
        {
            for (int i = 0; i < batch.Samples.Length; i++)
                batch.Samples[i] = (ushort)(i / (batch.Side * batch.Side * 3) & 255);
        }
        UnpackedStrip strip = StripPacker.Unpack(StripPacker.Pack(format, 0, scales, blocks, null), format, 0, scales);
        Assert.All(blocks.Zip(strip.ByScale), pair => Assert.Equal(pair.First.Samples, pair.Second.Samples));
    }

    [Fact]
    public void A_strip_tells_its_parts()
    {
        ContainerSample sample = ContainerSample.Small();
        for (int strip = 0; strip < 2; strip++)
        {
            IReadOnlyList<StripPart?> parts = StripPacker.PartsOf(sample.Strips[strip]);
            Assert.Equal([.. sample.LrBlocks[strip].Select(batch => batch.Count > 0), strip == 1], parts.Select(part => part is not null));
            // Prefix, four entries and the checksum.
            Assert.Equal(sample.Strips[strip].Length - 16 - (4 * 8) - 16, parts.Sum(part => part?.Bytes ?? 0));
            Assert.Equal(strip == 1, StripPacker.StoresAlpha(sample.Strips[strip]));
        }
        Assert.Throws<FormatException>(() => StripPacker.PartsOf(sample.Strips[0].AsMemory(0, 20)));
    }

    [Fact]
    public void The_psnr_of_a_quality_record_is_that_of_the_summed_error() =>
        Assert.Equal(10 * Math.Log10(255 * 255 * 800 / 1600.0), new RecordedQuality(QualityKind.Estimated, "x", [600, 1000]).Psnr(new BlockGrid(40, 20, 32)), 10);

    [Fact]
    public void Metadata_travel_outside_a_container_too()
    {
        var metadata = new ImageMetadata(null, [], [9], [7, 8], 3, 1.5, 2.5);
        Assert.Equivalent(metadata, MetadataCodec.Decode(MetadataCodec.Encode(metadata)), strict: true);
        Assert.Throws<FormatException>(() => MetadataCodec.Decode([0xFF, 0xFF]));
    }

    internal static void AssertStrip(ContainerSample sample, int number, UnpackedStrip strip)
    {
        Assert.Equal(sample.Header.Scales.Count, strip.ByScale.Count);
        for (int s = 0; s < strip.ByScale.Count; s++)
        {
            Assert.Equal(sample.LrBlocks[number][s].Samples, strip.ByScale[s].Samples);
            Assert.Equal((sample.LrBlocks[number][s].Side, sample.Header.BitDepth), (strip.ByScale[s].Side, strip.ByScale[s].BitDepth));
        }
        Assert.Equal(sample.Header.Alpha == AlphaKind.Stored ? sample.Alphas[number]!.Data : null, strip.Alpha?.Data);
    }
}

namespace BbmrCluster.Imaging.Tests;

public sealed class LosslessCodecTests
{
    [Theory]
    [InlineData(1, 8)]
    [InlineData(2, 8)]
    [InlineData(3, 8)]
    [InlineData(4, 8)]
    [InlineData(1, 16)]
    [InlineData(3, 16)]
    public void Pictures_come_back_exactly_and_are_smaller(int channels, int bitDepth)
    {
        PixelBuffer image = TestImages.Scene(192, 64, channels, bitDepth);
        CodedPixels coded = LosslessCodec.Encode(image);
        Assert.True(coded.Bytes.Length < image.Data.Length);
        Assert.Equal(image.Data, LosslessCodec.Decode(coded.Codec, coded.Bytes, 192, 64, channels, bitDepth).Data);
        Assert.Equal(coded.Bytes, LosslessCodec.Encode(image).Bytes);
        Assert.NotNull(LosslessCodec.NameOf(coded.Codec));
    }

    [Theory]
    [InlineData(1, 1, 3, 8)]
    [InlineData(16, 16, 3, 16)]
    [InlineData(17_000, 2, 3, 8)]
    public void Noise_and_extreme_sizes_come_back_exactly(int width, int height, int channels, int bitDepth)
    {
        PixelBuffer image = TestImages.Noise(width, height, channels, bitDepth);
        CodedPixels coded = LosslessCodec.Encode(image);
        Assert.True(coded.Bytes.Length <= image.Data.Length);
        Assert.Equal(image.Data, LosslessCodec.Decode(coded.Codec, coded.Bytes, width, height, channels, bitDepth).Data);
    }

    [Fact]
    public void Transparent_pixels_keep_their_colour()
    {
        PixelBuffer image = TestImages.Scene(64, 64, 4, 8);
        for (int i = 3; i < image.Data.Length; i += 4)
            image.Data[i] = 0;
        CodedPixels coded = LosslessCodec.Encode(image);
        Assert.Equal(image.Data, LosslessCodec.Decode(coded.Codec, coded.Bytes, 64, 64, 4, 8).Data);
    }

    [Fact]
    public void Anything_but_the_expected_picture_is_refused()
    {
        CodedPixels coded = LosslessCodec.Encode(TestImages.Scene(64, 32, 3, 8));
        Assert.Throws<InvalidDataException>(() => LosslessCodec.Decode(coded.Codec, coded.Bytes, 32, 64, 3, 8));
        Assert.Throws<InvalidDataException>(() => LosslessCodec.Decode(coded.Codec, coded.Bytes, 64, 32, 4, 8));
        Assert.Throws<InvalidDataException>(() => LosslessCodec.Decode(coded.Codec, coded.Bytes, 64, 32, 3, 16));
        Assert.Throws<InvalidDataException>(() => LosslessCodec.Decode(0, coded.Bytes, 64, 32, 3, 8));
        Assert.Throws<InvalidDataException>(() => LosslessCodec.Decode(200, coded.Bytes, 64, 32, 3, 8));
        foreach (byte codec in new byte[] { 0, 1, 2, 3 })
        {
            Assert.Throws<InvalidDataException>(() => LosslessCodec.Decode(codec, [], 64, 32, 3, 8));
            Assert.Throws<InvalidDataException>(() => LosslessCodec.Decode(codec, coded.Bytes.AsSpan(0, coded.Bytes.Length / 2), 64, 32, 3, 8));
        }
    }

    [Fact]
    public void Hostile_bytes_are_refused_or_give_a_picture_of_the_expected_size_but_never_crash()
    {
        CodedPixels coded = LosslessCodec.Encode(TestImages.Scene(48, 32, 3, 8));
        Random random = new(5);
        for (int i = 0; i < 200; i++)
        {
            byte[] bytes = (byte[])coded.Bytes.Clone();
            for (int k = 0; k <= i % 4; k++)
                bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
            try
            {
                PixelBuffer decoded = LosslessCodec.Decode(coded.Codec, bytes, 48, 32, 3, 8);
                Assert.Equal((48, 32, 3), (decoded.Width, decoded.Height, decoded.Channels));
            }
            catch (InvalidDataException e)
            {
                Assert.DoesNotContain('\n', e.Message);
            }
        }
    }
}

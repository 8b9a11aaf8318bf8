namespace BbmrCluster.Imaging.Tests;

public sealed class AllocationPictureTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(300, 200, 3, 8)]
    [InlineData(300, 200, 1, 8)]
    [InlineData(300, 200, 4, 16)]
    [InlineData(1, 1, 3, 8)]
    [InlineData(1, 5000, 3, 8)]
    [InlineData(129, 1, 2, 16)]
    public void Any_image_gets_a_picture_with_a_legend_and_always_the_same(int width, int height, int channels, int bitDepth)
    {
        PixelBuffer first = Render("a.png", width, height, channels, bitDepth, 1);
        byte[] bytes = File.ReadAllBytes(_folder.File("a.png"));
        Render("b.png", width, height, channels, bitDepth, 1);
        Assert.Equal(bytes, File.ReadAllBytes(_folder.File("b.png")));
        Assert.True(first.Width >= 560);
        Assert.Equal((3, 8), (first.Channels, first.BitDepth));
    }

    [Fact]
    public void Blocks_are_tinted_by_their_scale()
    {
        // A mid-grey picture of three blocks: warm, untouched, cool.
        PixelBuffer picture = Render("tints.png", 384, 128, 1, 8, 1, new byte[384 * 128].Select(_ => (byte)128).ToArray(), [0, 1, 2]);
        int left = (picture.Width - 384) / 2;
        Span<byte> At(int x) => picture.Data.AsSpan(((64 * picture.Width) + left + x) * 3, 3);
        Assert.True(At(64)[0] > At(64)[2] + 50);
        Assert.Equal([128, 128, 128], At(192).ToArray());
        Assert.True(At(320)[2] > At(320)[0] + 50);
    }

    [Theory]
    [InlineData(1, 0, 0)]
    [InlineData(2, 2, 0)]
    [InlineData(3, 2, 1)]
    [InlineData(4, 0, 1)]
    [InlineData(5, 0, 0)]
    [InlineData(6, 1, 0)]
    [InlineData(7, 1, 2)]
    [InlineData(8, 0, 2)]
    public void The_orientation_is_applied(int orientation, int column, int row)
    {
        // Six blocks, 3 across and 2 down; only the stored upper left one is warm. It moves with the orientation.
        PixelBuffer picture = Render("turned.png", 384, 256, 1, 8, orientation, Enumerable.Repeat((byte)128, 384 * 256).ToArray(), [0, 1, 1, 1, 1, 1]);
        (int across, int down) = orientation >= 5 ? (2, 3) : (3, 2);
        int left = (picture.Width - (across * 128)) / 2;
        for (int i = 0; i < 6; i++)
        {
            int x = (i % across * 128) + 64 + left, y = (i / across * 128) + 64;
            Span<byte> pixel = picture.Data.AsSpan(((y * picture.Width) + x) * 3, 3);
            Assert.Equal(i % across == column && i / across == row, pixel[0] > pixel[2] + 50);
        }

        Assert.True(picture.Height > down * 128);
    }

    [Fact]
    public void A_large_image_is_shrunk()
    {
        PixelBuffer picture = Render("large.png", 3300, 700, 3, 8, 1);
        Assert.InRange(picture.Width, 1000, 1600);
    }

    private PixelBuffer Render(string name, int width, int height, int channels, int bitDepth, int orientation, byte[]? data = null, byte[]? scaleIndex = null)
    {
        PixelBuffer image = data is null ? TestImages.Scene(width, height, channels, bitDepth) : new PixelBuffer(width, height, channels, bitDepth, data);
        List<string> strips = [];
        for (int y = 0; y < height; y += 128)
        {
            strips.Add(_folder.File($"strip{y}.raw"));
            File.WriteAllBytes(strips[^1], image.Crop(0, y, width, Math.Min(128, height - y)).Data);
        }

        bool alpha = channels is 2 or 4;
        ImageInfo info = new(width, height, channels - (alpha ? 1 : 0), alpha, bitDepth, "png", ImageMetadata.None with { Orientation = orientation });
        int blocks = ((width + 127) / 128) * ((height + 127) / 128);
        AllocationPicture.Render(_folder.File(name), info, strips, 128, [2, 4, 8], scaleIndex ?? [.. Enumerable.Range(0, blocks).Select(i => (byte)(i % 3))]);
        return ImageFile.Load(_folder.File(name), ImageLimits.Default, _folder.Path);
    }
}

using System.Buffers.Binary;
using System.Text;
using NetVips;

namespace BbmrCluster.Imaging.Tests;

public sealed class ImageFileTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string, int, int> LosslessKinds
    {
        get
        {
            TheoryData<string, int, int> data = [];
            foreach (string extension in new[] { "png", "tif", "webp", "avif" })
            {
                foreach (int channels in new[] { 1, 2, 3, 4 })
                {
                    data.Add(extension, channels, 8);
                    if (extension is "png" or "tif")
                        data.Add(extension, channels, 16);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(LosslessKinds))]
    public void Every_depth_and_alpha_comes_back_as_written(string extension, int channels, int bitDepth)
    {
        PixelBuffer image = TestImages.Scene(150, 201, channels, bitDepth);
        string path = Encode($"a.{extension}", image, 64, ImageMetadata.None);
        ImageInfo info = ImageFile.Probe(path, ImageLimits.Default);
        Assert.Equal((150, 201, bitDepth, channels is 2 or 4), (info.Width, info.Height, info.BitDepth, info.HasAlpha));
        PixelBuffer back = ImageFile.Load(path, ImageLimits.Default, _folder.Path);
        if (back.Channels > channels)
            back = GreyOf(back);
        Assert.Equal(image.Data, back.Data);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(1, 5000)]
    [InlineData(129, 1)]
    [InlineData(5000, 1)]
    public void Thin_images_come_back_as_written(int width, int height)
    {
        PixelBuffer image = TestImages.Noise(width, height, 3, 8);
        foreach (string extension in new[] { "png", "tif", "webp" })
            Assert.Equal(image.Data, ImageFile.Load(Encode("thin." + extension, image, 128, ImageMetadata.None), ImageLimits.Default, _folder.Path).Data);
        ImageInfo jpeg = ImageFile.Probe(Encode("thin.jpg", image, 128, ImageMetadata.None), ImageLimits.Default);
        Assert.Equal((width, height), (jpeg.Width, jpeg.Height));
    }

    [Theory]
    [InlineData("png")]
    [InlineData("tif")]
    [InlineData("webp")]
    [InlineData("jpg")]
    public void Profile_exif_xmp_orientation_and_resolution_are_carried(string extension)
    {
        ImageMetadata first = new(Icc(), null, Encoding.UTF8.GetBytes("<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"), null, 6, 10, 10);
        string source = Encode("source.jpg", TestImages.Scene(64, 48, 3, 8), 48, first);
        ImageInfo info = ImageFile.Probe(source, ImageLimits.Default);
        Assert.NotNull(info.Metadata.Exif);
        string path = Encode("out." + extension, TestImages.Scene(64, 48, 3, 8), 48, info.Metadata);
        ImageMetadata carried = ImageFile.Probe(path, ImageLimits.Default).Metadata;
        Assert.Equal(info.Metadata.Icc, carried.Icc);
        Assert.Equal(info.Metadata.Xmp, carried.Xmp);
        Assert.Equal(6, carried.Orientation);
        if (extension == "webp")
            return; // Its resolution lies in the EXIF block alone.
        Assert.Equal(10, carried.PixelsPerMillimetreX, 0.1);
        Assert.Equal(10, carried.PixelsPerMillimetreY, 0.1);
    }

    [Theory]
    [InlineData("png")]
    [InlineData("tif")]
    [InlineData("webp")]
    [InlineData("jpg")]
    [InlineData("avif")]
    public void Orientation_is_carried_without_any_exif_in_the_source(string extension)
    {
        string path = Encode("turned." + extension, TestImages.Scene(64, 48, 3, 8), 48, ImageMetadata.None with { Orientation = 8 });
        ImageInfo info = ImageFile.Probe(path, ImageLimits.Default);
        if (extension == "avif")
            Assert.Equal((48, 64, 1), (info.Width, info.Height, info.Metadata.Orientation));
        else
            Assert.Equal((64, 48, 8), (info.Width, info.Height, info.Metadata.Orientation));
    }

    [Theory]
    [InlineData("png")]
    [InlineData("tif")]
    [InlineData("webp")]
    [InlineData("jpg")]
    [InlineData("avif")]
    public void The_same_pixels_and_metadata_give_the_same_bytes(string extension)
    {
        ImageMetadata metadata = new(Icc(), null, null, null, 3, 10, 10);
        PixelBuffer image = TestImages.Scene(100, 90, 3, 8);
        byte[] first = File.ReadAllBytes(Encode("one." + extension, image, 32, metadata));
        Thread.Sleep(1100); // A clock in the file would show in its seconds.
        Assert.Equal(first, File.ReadAllBytes(Encode("two." + extension, image, 90, metadata)));
    }

    [Fact]
    public void A_palette_and_single_bits_are_expanded()
    {
        PixelBuffer scene = TestImages.Scene(60, 40, 3, 8);
        using Image rgb = ImageEncoder.ToImage(scene);
        rgb.Pngsave(_folder.File("palette.png"), palette: true);
        PixelBuffer palette = ImageFile.Load(_folder.File("palette.png"), ImageLimits.Default, _folder.Path);
        Assert.Equal((3, 8), (palette.Channels, palette.BitDepth));
        PixelBuffer bits = new(20, 10, 1, 8);
        for (int i = 0; i < bits.Data.Length; i++)
            bits.Data[i] = (byte)(i % 3 == 0 ? 255 : 0);
        using Image grey = ImageEncoder.ToImage(bits);
        grey.Pngsave(_folder.File("bits.png"), bitdepth: 1);
        grey.Tiffsave(_folder.File("bits.tif"), bitdepth: 1);
        Assert.Equal(bits.Data, ImageFile.Load(_folder.File("bits.png"), ImageLimits.Default, _folder.Path).Data);
        Assert.Equal(bits.Data, ImageFile.Load(_folder.File("bits.tif"), ImageLimits.Default, _folder.Path).Data);
    }

    [Fact]
    public void What_cannot_be_streamed_is_read_by_strips_all_the_same_and_its_raw_file_is_swept()
    {
        PixelBuffer scene = TestImages.Scene(300, 333, 3, 8);
        using Image image = ImageEncoder.ToImage(scene);
        image.Pngsave(_folder.File("interlaced.png"), interlace: true);
        image.Jpegsave(_folder.File("progressive.jpg"), interlace: true, q: 95);
        image.Jpegsave(_folder.File("plain.jpg"), interlace: false, q: 95);
        string temporary = _folder.File("temporary");
        foreach (string name in new[] { "interlaced.png", "progressive.jpg" })
        {
            using StripReader reader = StripReader.Open(_folder.File(name), ImageLimits.Default, 128, temporary);
            Assert.Equal(128, reader.ReadNext()!.Height);
            Assert.Single(Directory.GetFiles(temporary));
            Assert.Equal([128, 77], new[] { reader.ReadNext()!.Height, reader.ReadNext()!.Height });
            Assert.Null(reader.ReadNext());
            reader.Dispose();
            Assert.Empty(Directory.GetFiles(temporary));
        }

        Assert.Equal(scene.Data, ImageFile.Load(_folder.File("interlaced.png"), ImageLimits.Default, temporary).Data);
        Assert.Equal(ImageFile.Load(_folder.File("plain.jpg"), ImageLimits.Default, temporary).Data, ImageFile.Load(_folder.File("progressive.jpg"), ImageLimits.Default, temporary).Data);
        using StripReader streamed = StripReader.Open(_folder.File("plain.jpg"), ImageLimits.Default, 128, temporary);
        Assert.Empty(Directory.GetFiles(temporary));
    }

    [Fact]
    public void Memory_stays_bounded_when_a_large_image_is_read_and_written_by_strips()
    {
        string path = _folder.File("large.png");
        List<string> strips = [];
        using (Image gradient = Image.Xyz(8000, 6000))
        using (Image large = gradient.Cast(Enums.BandFormat.Uchar).Bandjoin(gradient[0].Cast(Enums.BandFormat.Uchar)))
            large.Copy(interpretation: Enums.Interpretation.Srgb).Pngsave(path, compression: 1, filter: Enums.ForeignPngFilter.Sub);
        long before = VipsRuntime.TrackedMemory.Now;
        long most = 0;
        using (StripReader reader = StripReader.Open(path, ImageLimits.Default, 128, _folder.Path))
        {
            Assert.Equal((8000, 6000, 3), (reader.Info.Width, reader.Info.Height, reader.Info.Channels));
            while (reader.ReadNext() is { } strip)
            {
                most = Math.Max(most, VipsRuntime.TrackedMemory.Now - before);
                strips.Add(_folder.File($"strip{strips.Count}.raw"));
                File.WriteAllBytes(strips[^1], strip.Data);
            }
        }

        Assert.Equal(47, strips.Count);
        // The image has 144 MB, a strip 3 MB.
        Assert.InRange(most, 0, 24_000_000);
        ImageInfo info = new(8000, 6000, 3, false, 8, "raw", ImageMetadata.None);
        ImageEncoder.Encode(_folder.File("again.png"), info, strips, EncodeOptions.Default);
        Assert.InRange(VipsRuntime.TrackedMemory.Peak - before, 0, 72_000_000);
        using StripReader again = StripReader.Open(_folder.File("again.png"), ImageLimits.Default, 128, _folder.Path);
        foreach (string strip in strips)
            Assert.True(again.ReadNext()!.Data.AsSpan().SequenceEqual(File.ReadAllBytes(strip)));
    }

    [Theory]
    [InlineData("jpg", 0.5)]
    [InlineData("jpg", 0.95)]
    [InlineData("progressive.jpg", 0.5)]
    [InlineData("png", 0.5)]
    [InlineData("png", 0.97)]
    [InlineData("tif", 0.5)]
    [InlineData("webp", 0.5)]
    [InlineData("avif", 0.5)]
    public void Truncated_pixel_data_is_an_error_and_never_grey(string extension, double part)
    {
        byte[] bytes = File.ReadAllBytes(Sample(extension));
        string path = _folder.File("cut." + extension);
        File.WriteAllBytes(path, bytes[..(int)(bytes.Length * part)]);
        Refused(path, "(");
    }

    [Theory]
    [InlineData("jpg")]
    [InlineData("png")]
    [InlineData("webp")]
    public void Damaged_pixel_data_is_an_error_or_at_least_no_crash(string extension)
    {
        byte[] bytes = File.ReadAllBytes(Sample(extension));
        string path = _folder.File("damaged." + extension);
        int refused = 0;
        for (int i = 0; i < 12; i++)
        {
            byte[] damaged = (byte[])bytes.Clone();
            int at = bytes.Length / 4 + (i * bytes.Length / 24);
            damaged.AsSpan(at, 8).Fill((byte)(i % 2 == 0 ? 0xFF : 0x5A));
            File.WriteAllBytes(path, damaged);
            try
            {
                ImageFile.Load(path, ImageLimits.Default, _folder.Path);
            }
            catch (ImageRefusedException e)
            {
                Assert.DoesNotContain('\n', e.Message);
                refused++;
            }
        }

        // PNG has a checksum and a JPEG code has gaps; WebP has neither and shows whatever the bits say.
        Assert.True(refused >= (extension == "png" ? 12 : extension == "jpg" ? 3 : 0), $"{refused} of 12 were noticed");
    }

    [Fact]
    public void Odd_but_harmless_bytes_in_a_jpeg_are_passed_over_with_a_note()
    {
        byte[] bytes = File.ReadAllBytes(Sample("jpg"));
        PixelBuffer expected = ImageFile.Load(Sample("jpg"), ImageLimits.Default, _folder.Path);
        string path = _folder.File("odd.jpg");
        // Two stray bytes after the last scan, before the end marker, as some cameras leave them.
        File.WriteAllBytes(path, [.. bytes[..^2], 0, 0, .. bytes[^2..]]);
        Assert.Equal(expected.Data, ImageFile.Load(path, ImageLimits.Default, _folder.Path).Data);
        Assert.Contains("2 stray bytes after the last block", Assert.Single(ImageFile.Judge(path)!.Notes), StringComparison.Ordinal);
        // And two before the second marker of the header, whose first one (JFIF) has 18 bytes.
        byte[] stray = [.. bytes[..20], 0, 0, .. bytes[20..]];
        File.WriteAllBytes(path, stray);
        Assert.Equal(expected.Data, ImageFile.Load(path, ImageLimits.Default, _folder.Path).Data);
        Assert.Contains("2 stray bytes in the header", Assert.Single(ImageFile.Judge(path)!.Notes), StringComparison.Ordinal);
        // Which excuses no damage after them.
        Random random = new(3);
        int found = 0;
        for (int i = 0; i < 20; i++)
        {
            byte[] damaged = (byte[])stray.Clone();
            random.NextBytes(damaged.AsSpan(random.Next(1000, damaged.Length - 300), 200));
            File.WriteAllBytes(path, damaged);
            bool refused = IsRefused(path);
            File.WriteAllBytes(path, [.. damaged[..20], .. damaged[22..]]);
            Assert.Equal(IsRefused(path), refused);
            found += refused ? 1 : 0;
        }

        Assert.InRange(found, 15, 20);
        bool IsRefused(string file)
        {
            try
            {
                ImageFile.Judge(file);
                return false;
            }
            catch (ImageRefusedException)
            {
                return true;
            }
        }
    }

    [Fact]
    public void Trifles_that_a_codec_warns_of_do_not_stop_it()
    {
        byte[] png = File.ReadAllBytes(Sample("png"));
        byte[] gamma = Chunk("gAMA", [0, 0, 0xB1, 0x8F]);
        string path = Write("twice.png", [.. png[..33], .. gamma, .. gamma, .. png[33..]]);
        Assert.Equal(ImageFile.Load(Sample("png"), ImageLimits.Default, _folder.Path).Data, ImageFile.Load(path, ImageLimits.Default, _folder.Path).Data);
    }

    [Fact]
    public void What_is_no_image_is_refused_with_one_sentence()
    {
        Refused(_folder.File("missing.png"), "there is no such file");
        Refused(_folder.Path, "this is a folder");
        Refused(Write("empty.jpg", []), "empty");
        Refused(Write("text.png", "Dear archivist, this is a letter.\n"u8.ToArray()), "no image in a known format");
        Refused(Write("short.png", [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0]), "PNG header");
        Refused(Write("short.jpg", [0xFF, 0xD8, 0xFF, 0xE0, 0, 16]), "JPEG header");
        Refused(Write("short.tif", [0x49, 0x49, 0x2A, 0, 8, 0, 0, 0]), "TIFF header");
        Refused(Write("short.webp", [.. "RIFF"u8, 4, 0, 0, 0, .. "WEBPVP8 "u8]), "WebP header");
        Refused(Write("short.avif", [0, 0, 0, 24, .. "ftypavif"u8, 0, 0, 0, 0, .. "mif1avif"u8]), "HEIF header");
        Refused(Write("old.gif", "GIF89a\u0001\0\u0001\0"u8.ToArray()), "no image in a known format");
    }

    [Theory]
    [InlineData(100, 500_000_000)]
    [InlineData(500_000_000, 100)]
    [InlineData(65_501, 10)]
    [InlineData(60_000, 60_000)]
    public void A_header_over_the_limits_is_refused_before_anything_is_allocated(int width, int height)
    {
        Refused(Write("bomb.png", PngHeader(width, height)), "over the limit");
        Refused(Write("bomb.tif", TiffHeader(width, height)), "over the limit");
    }

    [Fact]
    public void The_limits_can_be_set()
    {
        string path = Encode("a.jpg", TestImages.Scene(200, 100, 3, 8), 100, ImageMetadata.None);
        Refused(path, "over the limit of 199 a side", new ImageLimits(MaxSide: 199));
        Refused(path, "over the limit of 19999 in all", new ImageLimits(MaxPixels: 19_999));
        Assert.Equal(200, ImageFile.Probe(path, new ImageLimits(20_000, 200)).Width);
    }

    [Fact]
    public void Cmyk_lab_float_multi_page_and_animated_images_are_refused_each_with_its_reason()
    {
        using Image rgb = ImageEncoder.ToImage(TestImages.Scene(40, 30, 3, 8));
        using Image cmyk = ImageEncoder.ToImage(TestImages.Scene(40, 30, 4, 8)).Copy(interpretation: Enums.Interpretation.Cmyk);
        cmyk.Jpegsave(_folder.File("cmyk.jpg"));
        Refused(_folder.File("cmyk.jpg"), "CMYK");
        cmyk.Tiffsave(_folder.File("cmyk.tif"));
        Refused(_folder.File("cmyk.tif"), "CMYK");
        rgb.Colourspace(Enums.Interpretation.Lab).Tiffsave(_folder.File("lab.tif"));
        Refused(_folder.File("lab.tif"), "Lab");
        rgb.Cast(Enums.BandFormat.Float).Tiffsave(_folder.File("float.tif"));
        Refused(_folder.File("float.tif"), "floating-point");
        rgb.Cast(Enums.BandFormat.Int).Tiffsave(_folder.File("int.tif"));
        Refused(_folder.File("int.tif"), "without sign");
        rgb.Bandjoin(rgb).Tiffsave(_folder.File("six.tif"));
        Refused(_folder.File("six.tif"), "channels");
        using Image pages = Image.Arrayjoin([rgb, rgb.Invert()], across: 1).Mutate(m => m.Set(GValue.GIntType, "page-height", 30));
        pages.Tiffsave(_folder.File("pages.tif"));
        Refused(_folder.File("pages.tif"), "several pages");
        pages.Webpsave(_folder.File("moving.webp"));
        Refused(_folder.File("moving.webp"), "animated");
        byte[] png = File.ReadAllBytes(Encode("still.png", TestImages.Scene(40, 30, 3, 8), 30, ImageMetadata.None));
        Refused(Write("moving.png", [.. png[..33], .. Chunk("acTL", [0, 0, 0, 2, 0, 0, 0, 0]), .. png[33..]]), "animated");
    }

    [Fact]
    public void Names_with_brackets_and_blanks_are_names_and_no_options()
    {
        string path = Encode("a [page=1].png", TestImages.Scene(20, 10, 3, 8), 10, ImageMetadata.None);
        Assert.Equal(20, ImageFile.Probe(path, ImageLimits.Default).Width);
    }

    [Fact]
    public void Outputs_that_a_format_cannot_hold_are_refused_before_any_work()
    {
        ImageInfo wide = new(16_384, 1, 3, false, 8, "raw", ImageMetadata.None), alpha = new(10, 10, 3, true, 8, "raw", ImageMetadata.None);
        Assert.Contains("16383", ImageEncoder.WhyNot("a.webp", wide), StringComparison.Ordinal);
        Assert.Contains("alpha", ImageEncoder.WhyNot("a.jpg", alpha), StringComparison.Ordinal);
        Assert.Contains("cannot be written", ImageEncoder.WhyNot("a.bmp", alpha), StringComparison.Ordinal);
        Assert.Null(ImageEncoder.WhyNot("a.PNG", wide));
        Assert.Throws<ImageRefusedException>(() => ImageEncoder.Encode(_folder.File("a.jpg"), alpha, [], EncodeOptions.Default));
    }

    [Fact]
    public void Strips_that_do_not_make_up_the_image_are_refused_and_leave_nothing()
    {
        ImageInfo info = new(10, 10, 3, false, 8, "raw", ImageMetadata.None);
        string five = Write("five.raw", new byte[150]), odd = Write("odd.raw", new byte[151]), out1 = _folder.File("out.png");
        Assert.Throws<InvalidDataException>(() => ImageEncoder.Encode(out1, info, [five], EncodeOptions.Default));
        Assert.Throws<InvalidDataException>(() => ImageEncoder.Encode(out1, info, [five, odd], EncodeOptions.Default));
        Assert.False(File.Exists(out1));
        ImageEncoder.Encode(out1, info, [five, five], EncodeOptions.Default);
        Assert.True(File.Exists(out1));
    }

    [Fact]
    public void A_full_disk_is_told_as_such()
    {
        // /dev/full refuses every write with "no space left on device".
        PixelBuffer noise = TestImages.Noise(400, 400, 3, 8);
        string path = _folder.File("full.png");
        File.CreateSymbolicLink(path, "/dev/full");
        OutputFullException error = Assert.Throws<OutputFullException>(() => ImageEncoder.Encode(path, noise, ImageMetadata.None, EncodeOptions.Default));
        Assert.Contains("no room left", error.Message, StringComparison.Ordinal);
        Assert.False(Path.Exists(path));
    }

    private void Refused(string path, string reason, ImageLimits? limits = null)
    {
        ImageRefusedException error = Assert.Throws<ImageRefusedException>(() => ImageFile.Load(path, limits ?? ImageLimits.Default, _folder.Path));
        Assert.StartsWith(path + ": ", error.Message, StringComparison.Ordinal);
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    private string Write(string name, byte[] bytes)
    {
        File.WriteAllBytes(_folder.File(name), bytes);
        return _folder.File(name);
    }

    private string Sample(string extension)
    {
        string path = _folder.File("sample." + extension);
        if (extension != "progressive.jpg")
            return Encode("sample." + extension, TestImages.Scene(500, 400, 3, 8), 128, ImageMetadata.None);
        using Image image = ImageEncoder.ToImage(TestImages.Scene(500, 400, 3, 8));
        image.Jpegsave(path, interlace: true);
        return path;
    }

    private string Encode(string name, PixelBuffer image, int stripHeight, ImageMetadata metadata)
    {
        List<string> strips = [];
        for (int y = 0; y < image.Height; y += stripHeight)
            strips.Add(Write($"{name}.{y}.raw", image.Crop(0, y, image.Width, Math.Min(stripHeight, image.Height - y)).Data));
        bool alpha = image.Channels is 2 or 4;
        ImageInfo info = new(image.Width, image.Height, image.Channels - (alpha ? 1 : 0), alpha, image.BitDepth, "raw", metadata);
        ImageEncoder.Encode(_folder.File(name), info, strips, EncodeOptions.Default);
        return _folder.File(name);
    }

    private static PixelBuffer GreyOf(PixelBuffer rgb)
    {
        int alpha = rgb.Channels - 3;
        PixelBuffer grey = new(rgb.Width, rgb.Height, 1 + alpha, rgb.BitDepth);
        for (int i = 0; i < rgb.Width * rgb.Height; i++)
        {
            grey.Data[i * grey.Channels] = rgb.Data[i * rgb.Channels];
            if (alpha == 1)
                grey.Data[(i * 2) + 1] = rgb.Data[(i * 4) + 3];
        }

        return grey;
    }

    private static byte[] Icc()
    {
        VipsRuntime.Prepare();
        return Image.ProfileLoad("srgb");
    }

    private static byte[] PngHeader(int width, int height)
    {
        byte[] ihdr = [0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0];
        BinaryPrimitives.WriteInt32BigEndian(ihdr, width);
        BinaryPrimitives.WriteInt32BigEndian(ihdr.AsSpan(4), height);
        return [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, .. Chunk("IHDR", ihdr), .. Chunk("IDAT", [0x78, 0x9C, 3, 0, 0, 0, 0, 1]), .. Chunk("IEND", [])];
    }

    private static byte[] Chunk(string type, byte[] data)
    {
        byte[] body = [.. Encoding.ASCII.GetBytes(type), .. data], length = new byte[4], check = new byte[4];
        BinaryPrimitives.WriteInt32BigEndian(length, data.Length);
        uint crc = uint.MaxValue;
        foreach (byte b in body)
        {
            crc ^= b;
            for (int i = 0; i < 8; i++)
                crc = (crc >> 1) ^ ((crc & 1) * 0xEDB88320);
        }

        BinaryPrimitives.WriteUInt32BigEndian(check, ~crc);
        return [.. length, .. body, .. check];
    }

    private static byte[] TiffHeader(int width, int height)
    {
        (ushort Tag, uint Value)[] entries = [(256, (uint)width), (257, (uint)height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, (uint)height), (279, 1)];
        byte[] file = new byte[8 + 2 + (entries.Length * 12) + 4];
        "II*\0"u8.CopyTo(file);
        BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(4), 8);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(8), (ushort)entries.Length);
        for (int i = 0; i < entries.Length; i++)
        {
            Span<byte> entry = file.AsSpan(10 + (i * 12), 12);
            BinaryPrimitives.WriteUInt16LittleEndian(entry, entries[i].Tag);
            BinaryPrimitives.WriteUInt16LittleEndian(entry[2..], 4);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[4..], 1);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], entries[i].Value);
        }

        return file;
    }
}

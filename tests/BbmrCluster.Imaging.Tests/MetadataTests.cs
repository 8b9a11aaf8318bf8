using System.Buffers.Binary;
using System.IO.Hashing;
using System.Text;
using BbmrCluster.Imaging.Formats;
using BbmrCluster.Tests;
using NetVips;

namespace BbmrCluster.Imaging.Tests;

/// <summary>What a file carries beside its pixels is kept, or told, or the file is refused.</summary>
public sealed class MetadataTests : IDisposable
{
    private const ushort Make = 271, Artist = 315, DateTimeOriginal = 0x9003, GpsLatitude = 2;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("png", true)]
    [InlineData("png", false)]
    [InlineData("jpg", true)]
    [InlineData("jpg", false)]
    [InlineData("webp", false)]
    [InlineData("tif", true)]
    [InlineData("tif", false)]
    [InlineData("avif", false)]
    public void Exif_of_either_byte_order_comes_back(string extension, bool little)
    {
        ImageMetadata back = RoundTrip(extension, ImageMetadata.None with { Exif = Exif(little) }, out IReadOnlyList<string> notes);
        Assert.Empty(notes);
        TiffDirectory exif = TiffDirectory.Read(new MemoryStream(ExifBlock.Bare(back.Exif)!))!;
        Assert.Equal("Maker\0", Encoding.ASCII.GetString(exif.Fields[Make].Value!));
        Assert.Equal("2020:01:02 03:04:05\0", Encoding.ASCII.GetString(exif.Below[TiffDirectory.ExifDirectory][0].Fields[DateTimeOriginal].Value!));
        Assert.Equal([10.0, 30.0, 0.25], exif.Below[TiffDirectory.GpsDirectory][0].RationalsOf(GpsLatitude));
        if (extension is "png" or "jpg" or "webp")
            Assert.Equal(Exif(little), back.Exif);
    }

    [Theory]
    [InlineData("png")]
    [InlineData("jpg")]
    [InlineData("tif")]
    public void Iptc_comes_back_from_its_bare_form_and_from_the_coats_that_older_containers_keep(string extension)
    {
        byte[] records = [0x1C, 2, 25, 0, 5, .. "alpha"u8];
        foreach (byte[] form in new[] { records, Iptc.ToPhotoshop(records), [.. "Photoshop 3.0\0"u8, .. Iptc.ToPhotoshop(records)] })
            Assert.Equal(records, RoundTrip(extension, ImageMetadata.None with { Iptc = form }, out _).Iptc);
    }

    [Theory]
    [InlineData("png")]
    [InlineData("jpg")]
    [InlineData("tif")]
    [InlineData("webp")]
    [InlineData("avif")]
    public void Long_xmp_comes_back(string extension)
    {
        string words = string.Join(' ', Enumerable.Range(0, 30_000));
        byte[] xmp = Encoding.UTF8.GetBytes($"<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\"><rdf:Description rdf:about=\"\" xmlns:dc=\"http://purl.org/dc/elements/1.1/\" dc:source=\"{words}\"/></rdf:RDF></x:xmpmeta>");
        string back = Encoding.UTF8.GetString(RoundTrip(extension, ImageMetadata.None with { Xmp = xmp }, out _).Xmp!);
        Assert.Contains(words, back, StringComparison.Ordinal);
        Assert.DoesNotContain("HasExtendedXMP", back, StringComparison.Ordinal);
    }

    [Fact]
    public void Texts_are_kept_where_there_is_a_place_and_told_where_there_is_none()
    {
        ImageMetadata metadata = ImageMetadata.None with { Texts = [new ImageText("Author", "Some One"), new ImageText("Copyright", "\u00A9 Łódź"), new ImageText("Comment", "two\nlines")] };
        Assert.Equal(metadata.Texts, RoundTrip("png", metadata, out IReadOnlyList<string> notes).Texts);
        Assert.Empty(notes);
        Assert.Equal(["Author: Some One", "Copyright: \u00A9 Łódź", "two\nlines"], RoundTrip("jpg", metadata, out _).Texts.Select(text => text.Text));
        TiffDirectory tiff = TiffDirectory.Read(new MemoryStream(RoundTrip("tif", metadata, out _).Exif!))!;
        Assert.Equal("Some One\0", Encoding.UTF8.GetString(tiff.Fields[Artist].Value!));
        RoundTrip("webp", metadata, out notes);
        Assert.Equal(3, notes.Count);
    }

    [Theory]
    [InlineData("png")]
    [InlineData("jpg")]
    [InlineData("webp")]
    [InlineData("tif")]
    [InlineData("avif")]
    public void Nothing_is_invented(string extension)
    {
        ImageMetadata back = RoundTrip(extension, ImageMetadata.None, out IReadOnlyList<string> notes);
        Assert.Empty(notes);
        Assert.Equal((null, null, null, null, 1, 0, 0), (back.Icc, back.Exif, back.Xmp, back.Iptc, back.Orientation, back.PixelsPerMillimetreX, back.PixelsPerMillimetreY));
        byte[] bytes = File.ReadAllBytes(_folder.File("a." + extension));
        Assert.Equal(-1, bytes.AsSpan().IndexOf("pHYs"u8));
        Assert.Equal(-1, bytes.AsSpan().IndexOf("Exif"u8));
        Assert.Equal(-1, bytes.AsSpan().IndexOf("EXIF"u8));
    }

    [Theory]
    [InlineData("png")]
    [InlineData("jpg")]
    [InlineData("webp")]
    [InlineData("tif")]
    public void Exif_and_picture_agree_about_the_orientation(string extension)
    {
        byte[] exif = ExifBlock.WithOrientation(Exif(little: false), 6)!;
        ImageMetadata back = RoundTrip(extension, ImageMetadata.None with { Exif = exif, Orientation = 3 }, out _);
        Assert.Equal(3, back.Orientation);
        if (extension != "tif")
            Assert.Equal(3, ExifBlock.Orientation(back.Exif));
    }

    [Theory]
    [InlineData("png")]
    [InlineData("jpg")]
    [InlineData("webp")]
    [InlineData("tif")]
    [InlineData("avif")]
    public void Metadata_of_no_sense_never_stop_the_pixels(string extension)
    {
        Random random = new(7);
        for (int i = 0; i < 20; i++)
        {
            byte[] Noise(ReadOnlySpan<byte> head)
            {
                byte[] noise = new byte[random.Next(head.Length, 300)];
                random.NextBytes(noise);
                head.CopyTo(noise);
                return noise;
            }

            ImageMetadata metadata = new(Noise("acsp"u8), Noise(i % 2 == 0 ? "II*\0\b\0\0\0"u8 : "MM\0*\0\0\0\b"u8), Noise("<"u8), Noise("8BIM"u8), 1 + (i % 8), 5, 5)
            {
                Texts = [new ImageText(Encoding.Latin1.GetString(Noise("x"u8)), Encoding.Latin1.GetString(Noise("x"u8)))],
            };
            PixelBuffer image = TestImages.Scene(40, 30, 3, 8);
            ImageEncoder.Encode(_folder.File("a." + extension), image, metadata, EncodeOptions.Default);
            PixelBuffer back = ImageFile.Load(_folder.File("a." + extension), ImageLimits.Default, _folder.Path);
            Assert.Equal(40 * 30, back.Width * back.Height);
            if (extension is "png" or "webp" or "tif")
                Assert.Equal(image.Data, back.Data);
        }
    }

    [Theory]
    [InlineData("png")]
    [InlineData("jpg")]
    [InlineData("webp")]
    [InlineData("tif")]
    [InlineData("avif")]
    public void A_file_that_was_made_here_is_known_by_its_mark(string extension)
    {
        string path = _folder.File("a." + extension);
        foreach (ImageMetadata metadata in new[] { ImageMetadata.None, ImageMetadata.None with { Exif = Exif(little: true), Xmp = "<x/>"u8.ToArray(), Orientation = 6 } })
        {
            ImageEncoder.Encode(path, TestImages.Scene(40, 30, 3, 8), metadata, new EncodeOptions(Mark: true));
            Assert.True(ImageFile.IsMarked(path));
            Assert.Equal(40 * 30, ImageFile.Load(path, ImageLimits.Default, _folder.Path) is var back ? back.Width * back.Height : 0);
            ImageEncoder.Encode(path, TestImages.Scene(40, 30, 3, 8), metadata, EncodeOptions.Default);
            Assert.False(ImageFile.IsMarked(path));
        }

        Assert.False(ImageFile.IsMarked(_folder.File("missing.png")));
        Assert.False(ImageFile.IsMarked(_folder.Path));
    }

    [Fact]
    public void Chunks_behind_the_pixels_of_a_png_count()
    {
        ImageEncoder.Encode(_folder.File("a.png"), TestImages.Scene(40, 30, 3, 8), ImageMetadata.None, EncodeOptions.Default);
        byte[] png = File.ReadAllBytes(_folder.File("a.png")), exif = Exif(little: true);
        File.WriteAllBytes(_folder.File("b.png"), [.. png[..^12], .. Chunk("eXIf", exif), .. Chunk("tEXt", [.. "Author\0Some One"u8]), .. png[^12..]]);
        ImageMetadata metadata = ImageFile.Probe(_folder.File("b.png"), ImageLimits.Default).Metadata;
        Assert.Equal(exif, metadata.Exif);
        Assert.Equal([new ImageText("Author", "Some One")], metadata.Texts);
    }

    [Theory]
    [InlineData(12, 13)]
    [InlineData(9, 1)]
    [InlineData(1, 8)]
    public void Colours_by_numbers_become_a_profile_that_other_programs_can_use(int primaries, int transfer)
    {
        ImageEncoder.Encode(_folder.File("a.png"), TestImages.Scene(40, 30, 3, 8), ImageMetadata.None, EncodeOptions.Default);
        byte[] png = File.ReadAllBytes(_folder.File("a.png"));
        File.WriteAllBytes(_folder.File("b.png"), [.. png[..33], .. Chunk("cICP", [(byte)primaries, (byte)transfer, 0, 1]), .. png[33..]]);
        ImageInfo info = ImageFile.Probe(_folder.File("b.png"), ImageLimits.Default);
        Assert.Null(IccProfile.Problem(info.Metadata.Icc, 3));
        Assert.Contains("ICC profile", Assert.Single(info.Metadata.Notes), StringComparison.Ordinal);
        // White stays white, and the profile is one that a colour engine takes.
        using Image white = ImageEncoder.ToImage(new PixelBuffer(1, 1, 3, 8, [255, 255, 255]));
        using Image tagged = white.Mutate(m => m.Set(GValue.BlobType, "icc-profile-data", info.Metadata.Icc!));
        using Image standard = tagged.IccTransform("srgb", embedded: true);
        Assert.All(standard.Getpoint(0, 0), value => Assert.InRange(value, 254, 255));
    }

    [Fact]
    public void Colours_of_high_dynamic_range_are_kept_by_png_and_refused_by_the_others()
    {
        ImageEncoder.Encode(_folder.File("a.png"), TestImages.Scene(40, 30, 3, 16), ImageMetadata.None with { Cicp = [9, 16, 0, 1] }, EncodeOptions.Default);
        ImageInfo info = ImageFile.Probe(_folder.File("a.png"), ImageLimits.Default);
        Assert.Equal([9, 16, 0, 1], info.Metadata.Cicp);
        Assert.Null(ImageEncoder.WhyNot("b.png", info));
        foreach (string extension in new[] { "jpg", "webp", "tif", "avif" })
            Assert.Contains("high dynamic range", ImageEncoder.WhyNot("b." + extension, info), StringComparison.Ordinal);
    }

    [Fact]
    public void Gamma_of_a_png_without_a_profile_is_kept_unless_it_is_the_common_one()
    {
        ImageEncoder.Encode(_folder.File("a.png"), TestImages.Scene(40, 30, 1, 8), ImageMetadata.None, EncodeOptions.Default);
        byte[] png = File.ReadAllBytes(_folder.File("a.png"));
        foreach ((uint gamma, bool kept) in new[] { (100_000u, true), (45_455u, false), (55_556u, true) })
        {
            byte[] value = new byte[4];
            BinaryPrimitives.WriteUInt32BigEndian(value, gamma);
            File.WriteAllBytes(_folder.File("b.png"), [.. png[..33], .. Chunk("gAMA", value), .. png[33..]]);
            byte[]? icc = ImageFile.Probe(_folder.File("b.png"), ImageLimits.Default).Metadata.Icc;
            Assert.Equal(kept, icc is not null);
            Assert.True(icc is null || IccProfile.Problem(icc, 1) is null);
        }
    }

    [Theory]
    [InlineData(0, false)]
    [InlineData(1, true)]
    [InlineData(2, true)]
    public void An_extra_channel_of_a_tiff_is_what_the_file_says_it_is(ushort kind, bool isAlpha)
    {
        PixelBuffer image = TestImages.Scene(40, 30, 4, 8);
        string path = _folder.File("a.tif");
        ImageEncoder.Encode(path, image, ImageMetadata.None, EncodeOptions.Default);
        SetField(path, 338, kind);
        PixelBuffer back = ImageFile.Load(path, ImageLimits.Default, _folder.Path);
        Assert.Equal(isAlpha ? 4 : 3, back.Channels);
        for (int i = 0; i < 40 * 30; i++)
        {
            for (int c = 0; c < 3; c++)
            {
                int stored = image.Data[(4 * i) + c], alpha = image.Data[(4 * i) + 3];
                int expected = kind == 1 ? Math.Min(255, ((stored * 255) + (alpha / 2)) / alpha) : stored;
                Assert.InRange(back.Data[(back.Channels * i) + c], expected - 1, expected + 1);
            }
        }

        Assert.Equal(kind == 0 ? 1 : 0, ImageFile.Probe(path, ImageLimits.Default).Metadata.Notes.Count);
    }

    [Theory]
    [InlineData(262, 32803, "camera raw")]
    [InlineData(259, 34713, "camera raw")]
    [InlineData(259, 50000, "Zstandard")]
    [InlineData(259, 34925, "LZMA")]
    [InlineData(259, 12345, "number 12345")]
    public void Camera_raw_and_strange_compressions_of_tiff_are_called_that(ushort tag, ushort value, string reason)
    {
        string path = _folder.File("a.tif");
        ImageEncoder.Encode(path, TestImages.Scene(40, 30, 3, 8), ImageMetadata.None, EncodeOptions.Default);
        SetField(path, tag, value);
        Assert.Contains(reason, Assert.Throws<ImageRefusedException>(() => ImageFile.Probe(path, ImageLimits.Default)).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_picture_behind_a_jpeg_is_told()
    {
        string path = _folder.File("a.jpg");
        ImageEncoder.Encode(path, TestImages.Scene(40, 30, 3, 8), ImageMetadata.None, EncodeOptions.Default);
        byte[] jpeg = File.ReadAllBytes(path);
        foreach ((byte[] behind, string note) in new (byte[], string)[] { (jpeg, "another picture"), ([0, 0, 0, 24, .. "ftypmp42"u8, .. new byte[40]], "a video"), (new byte[50], ""), ([.. Enumerable.Repeat((byte)7, 50)], "50 bytes") })
        {
            File.WriteAllBytes(path, [.. jpeg, .. behind]);
            using StripReader reader = StripReader.Open(path, ImageLimits.Default, 64, _folder.Path);
            Assert.Contains(note, string.Join("; ", reader.Info.Metadata.Notes), StringComparison.Ordinal);
            Assert.Equal(note.Length > 0, reader.Info.Metadata.Notes.Count > 0);
        }
    }

    [Fact]
    public void Bits_that_a_format_cannot_hold_are_told()
    {
        foreach ((string extension, bool told) in new[] { ("png", false), ("tif", false), ("webp", true), ("jpg", true), ("avif", true) })
            Assert.Equal(told, ImageEncoder.Encode(_folder.File("a." + extension), TestImages.Scene(40, 30, 3, 16), ImageMetadata.None, EncodeOptions.Default).Any(note => note.Contains("bits", StringComparison.Ordinal)));
    }

    [CaseFact]
    public void Collected_cases_keep_what_they_carry()
    {
        Assert.Equal((200, 300, 1), Probe("k05-fromori6.avif") is var turned ? (turned.Width, turned.Height, ExifBlock.Orientation(turned.Metadata.Exif) ?? 1) : default);
        Assert.Contains("camera raw", Refusal("k07-raw.dng"), StringComparison.Ordinal);
        Assert.NotNull(Probe("k08-p3noicc.avif").Metadata.Icc);
        Assert.Equal([9, 16, 0, 1], Probe("k08-cicp-pq.png").Metadata.Cicp);
        Assert.Contains(TiffDirectory.GpsDirectory, TiffDirectory.Read(new MemoryStream(Probe("k09-exif.tif").Metadata.Exif!))!.Below.Keys);
        Assert.NotNull(Probe("k10-iptc.jpg").Metadata.Iptc);
        Assert.Contains(Make, TiffDirectory.Read(new MemoryStream(Probe("k11-exif-after.png").Metadata.Exif!))!.Fields.Keys);
        Assert.Contains("multiplied", Assert.Single(Probe("k12-premul.avif").Metadata.Notes), StringComparison.Ordinal);
        Assert.Contains("MPO", Assert.Single(Probe("k13-mpo.jpg").Metadata.Notes), StringComparison.Ordinal);
        Assert.Equal(3, Probe("k13-text.png").Metadata.Texts.Count);
        Assert.Contains("Zstandard", Refusal("k14-zstd.tif"), StringComparison.Ordinal);
        Assert.False(Probe("k22-unspec-extra.tif").HasAlpha);

        static ImageInfo Probe(string name) => ImageFile.Probe(Cases.Path(name), ImageLimits.Default);
        static string Refusal(string name) => Assert.Throws<ImageRefusedException>(() => Probe(name)).Reason;
    }

    private static byte[] Exif(bool little)
    {
        var root = TiffDirectory.Empty(little);
        var exif = TiffDirectory.Empty(little);
        var gps = TiffDirectory.Empty(little);
        root.Fields[Make] = new TiffField(Make, 2, 6, "Maker\0"u8.ToArray());
        exif.Fields[DateTimeOriginal] = new TiffField(DateTimeOriginal, 2, 20, "2020:01:02 03:04:05\0"u8.ToArray());
        byte[] latitude = new byte[24];
        for (int i = 0; i < 6; i++)
        {
            uint value = new uint[] { 10, 1, 30, 1, 1, 4 }[i];
            if (little)
                BinaryPrimitives.WriteUInt32LittleEndian(latitude.AsSpan(4 * i), value);
            else
                BinaryPrimitives.WriteUInt32BigEndian(latitude.AsSpan(4 * i), value);
        }

        gps.Fields[GpsLatitude] = new TiffField(GpsLatitude, 5, 3, latitude);
        root.Below[TiffDirectory.ExifDirectory] = [exif];
        root.Below[TiffDirectory.GpsDirectory] = [gps];
        return root.ToBlock();
    }

    private ImageMetadata RoundTrip(string extension, ImageMetadata metadata, out IReadOnlyList<string> notes)
    {
        string path = _folder.File("a." + extension);
        notes = ImageEncoder.Encode(path, TestImages.Scene(40, 30, 3, 8), metadata, EncodeOptions.Default);
        return ImageFile.Probe(path, ImageLimits.Default).Metadata;
    }

    // The first directory once more at the end, with one field changed.
    private static void SetField(string path, ushort tag, ushort value)
    {
        using FileStream file = File.Open(path, FileMode.Open);
        TiffDirectory directory = TiffDirectory.Read(file)!;
        directory.Set(tag, value);
        file.Position = file.Length;
        long at = directory.Write(file, little: true, big: false, 0);
        file.Position = 4;
        file.Write(BitConverter.GetBytes((uint)at));
    }

    private static byte[] Chunk(string type, byte[] body)
    {
        byte[] named = [.. Encoding.ASCII.GetBytes(type), .. body], length = new byte[4], sum = new byte[4];
        BinaryPrimitives.WriteInt32BigEndian(length, body.Length);
        BinaryPrimitives.WriteUInt32BigEndian(sum, Crc32.HashToUInt32(named));
        return [.. length, .. named, .. sum];
    }
}

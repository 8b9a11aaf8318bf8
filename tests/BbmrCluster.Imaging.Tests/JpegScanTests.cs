using System.Buffers.Binary;
using BbmrCluster.Tests;
using NetVips;
using Xunit.Abstractions;

namespace BbmrCluster.Imaging.Tests;

/// <summary>What a JPEG is refused for, and what it is not.</summary>
public sealed class JpegScanTests(ITestOutputHelper output) : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [CaseTheory]
    [InlineData("k01/b.jpg")]
    [InlineData("k02-extraneous-head-zeroed.jpg")]
    [InlineData("k03-corrupt-scan.jpg")]
    public void A_collected_damaged_file_is_refused(string name)
    {
        string reason = Assert.Throws<ImageRefusedException>(() => ImageFile.Load(Cases.Path(name), ImageLimits.Default, _folder.Path)).Reason;
        output.WriteLine(reason);
        Assert.Contains("truncated or damaged", reason, StringComparison.Ordinal);
    }

    [CaseFact]
    public void A_collected_file_without_its_end_marker_is_taken_with_a_note()
    {
        using StripReader reader = StripReader.Open(Cases.Path("k21-no-eoi.jpg"), ImageLimits.Default, 1000, _folder.Path);
        Assert.NotNull(reader.ReadNext());
        Assert.Contains("end marker", Assert.Single(reader.Info.Metadata.Notes), StringComparison.Ordinal);
    }

    [Fact]
    public void Every_photograph_that_is_at_hand_is_taken_without_a_note()
    {
        string photographs = Path.Combine(Fixtures.Repository(), "..", "shared", "photos");
        string[] files = [.. new[] { photographs, "/usr/share" }.Where(Directory.Exists)
            .SelectMany(folder => Directory.EnumerateFiles(folder, "*.jp*g", new EnumerationOptions { RecurseSubdirectories = true, IgnoreInaccessible = true }))];
        foreach (string file in files)
            Assert.Empty(ImageFile.Judge(file)!.Notes);
        output.WriteLine($"{files.Length} files");
    }

    [Fact]
    public void The_reason_is_that_of_the_file_itself_whoever_else_fails_at_the_same_time()
    {
        byte[] png = File.ReadAllBytes(Encode("whole.png")), tiff = File.ReadAllBytes(Encode("whole.tif"));
        File.WriteAllBytes(_folder.File("cut.png"), png[..(png.Length / 2)]);
        File.WriteAllBytes(_folder.File("cut.tif"), tiff[..(tiff.Length / 2)]);
        string[] alone = [ReasonOf("cut.png"), ReasonOf("cut.tif")];
        Assert.NotEqual(alone[0], alone[1]);
        Parallel.For(0, 40, new ParallelOptions { MaxDegreeOfParallelism = 4 }, i => Assert.Equal(alone[i % 2], ReasonOf(i % 2 == 0 ? "cut.png" : "cut.tif")));
    }

    [Fact]
    public void An_earlier_file_s_oddity_excuses_no_damage()
    {
        byte[] bytes = File.ReadAllBytes(Encode("whole.jpg"));
        File.WriteAllBytes(_folder.File("odd.jpg"), [.. bytes[..20], 0, 0, .. bytes[20..]]);
        byte[] damaged = (byte[])bytes.Clone();
        new Random(1).NextBytes(damaged.AsSpan(damaged.Length / 2, 200));
        File.WriteAllBytes(_folder.File("damaged.jpg"), damaged);
        string alone = ReasonOf("damaged.jpg");
        ImageFile.Load(_folder.File("odd.jpg"), ImageLimits.Default, _folder.Path);
        Assert.Equal(alone, ReasonOf("damaged.jpg"));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Damage_in_the_last_rows_is_refused(bool progressive)
    {
        using Image image = ImageEncoder.ToImage(TestImages.Scene(400, 304, 3, 8));
        string path = _folder.File("last.jpg");
        image.Jpegsave(path, interlace: progressive);
        byte[] bytes = File.ReadAllBytes(path);
        bytes.AsSpan(bytes.Length - 60, 40).Fill(0xFF);
        File.WriteAllBytes(path, bytes);
        Assert.Throws<ImageRefusedException>(() => ImageFile.Load(path, ImageLimits.Default, _folder.Path));
    }

    [Fact]
    public void A_missing_end_marker_is_a_note_only_when_all_pixels_are_there()
    {
        using Image image = ImageEncoder.ToImage(TestImages.Scene(400, 304, 3, 8));
        foreach (bool progressive in new[] { false, true })
        {
            string path = _folder.File("end.jpg");
            image.Jpegsave(path, interlace: progressive);
            byte[] bytes = File.ReadAllBytes(path);
            File.WriteAllBytes(path, bytes[..^2]);
            Assert.Contains("end marker is missing", Assert.Single(ImageFile.Judge(path)!.Notes), StringComparison.Ordinal);
            File.WriteAllBytes(path, bytes[..^6]);
            Assert.Throws<ImageRefusedException>(() => ImageFile.Judge(path));
            // A whole pass may be missing, too.
            int lastScan = bytes.AsSpan().LastIndexOf((ReadOnlySpan<byte>)[0xFF, 0xDA]);
            File.WriteAllBytes(path, bytes[..lastScan]);
            Assert.Throws<ImageRefusedException>(() => ImageFile.Judge(path));
        }
    }

    [Fact]
    public void A_wrong_length_in_the_header_does_not_pass_the_small_picture_inside_it_off_as_the_photograph()
    {
        using Image small = ImageEncoder.ToImage(TestImages.Scene(80, 60, 3, 8));
        byte[] thumbnail = small.JpegsaveBuffer(), photograph = File.ReadAllBytes(Encode("whole.jpg"));
        byte[] segment = [0xFF, 0xE1, 0, 0, .. "Exif\0\0"u8, .. thumbnail];
        BinaryPrimitives.WriteUInt16BigEndian(segment.AsSpan(2), (ushort)(segment.Length - 2));
        byte[] whole = [.. photograph[..2], .. segment, .. photograph[2..]];
        File.WriteAllBytes(_folder.File("with.jpg"), whole);
        Assert.Equal(400, ImageFile.Load(_folder.File("with.jpg"), ImageLimits.Default, _folder.Path).Width);
        foreach (ushort length in new ushort[] { 6, 8, 9, 10, 200, (ushort)(segment.Length + 50) })
        {
            BinaryPrimitives.WriteUInt16BigEndian(whole.AsSpan(4), length);
            File.WriteAllBytes(_folder.File("wrong.jpg"), whole);
            Assert.Throws<ImageRefusedException>(() => ImageFile.Load(_folder.File("wrong.jpg"), ImageLimits.Default, _folder.Path));
        }
    }

    private string ReasonOf(string name) =>
        Assert.Throws<ImageRefusedException>(() => ImageFile.Load(_folder.File(name), ImageLimits.Default, _folder.Path)).Reason;

    private string Encode(string name)
    {
        ImageEncoder.Encode(_folder.File(name), TestImages.Scene(400, 304, 3, 8), ImageMetadata.None, EncodeOptions.Default);
        return _folder.File(name);
    }
}

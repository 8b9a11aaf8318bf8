using System.Buffers.Binary;
using BbmrCluster.Imaging.Formats;
using BbmrCluster.Tests;
using NetVips;

namespace BbmrCluster.Imaging.Tests;

public sealed class IccProfileTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_whole_profile_is_kept_by_every_format()
    {
        Assert.Null(IccProfile.Problem(Profile(), 3));
        foreach (string extension in new[] { "png", "tif", "webp", "jpg", "avif" })
        {
            string path = _folder.File("a." + extension);
            Assert.Empty(Encode(path, Profile()));
            Assert.Equal(Profile(), ImageFile.Probe(path, ImageLimits.Default).Metadata.Icc);
        }
    }

    public static TheoryData<string> Ways => ["short", "longer", "cut", "signature", "space", "kind", "tags", "tag", "zeros", "noise"];

    [Theory]
    [MemberData(nameof(Ways))]
    public void A_profile_of_no_use_is_left_out_with_a_note_and_the_picture_is_written(string way)
    {
        byte[] profile = Broken(way);
        Assert.NotNull(IccProfile.Problem(profile, 3));
        foreach (string extension in new[] { "png", "tif", "webp", "jpg", "avif" })
        {
            string path = _folder.File($"{way}.{extension}");
            Assert.Contains("ICC profile", Assert.Single(Encode(path, profile)), StringComparison.Ordinal);
            Assert.Null(ImageFile.Probe(path, ImageLimits.Default).Metadata.Icc);
        }
    }

    [Theory]
    [MemberData(nameof(Ways))]
    public void A_source_with_a_profile_of_no_use_is_read_without_it_and_with_a_note(string way)
    {
        string path = _folder.File("source.jpg");
        ImageEncoder.Encode(path, TestImages.Scene(60, 40, 3, 8), ImageMetadata.None, EncodeOptions.Default);
        byte[] jpeg = File.ReadAllBytes(path), profile = Broken(way);
        int length = profile.Length + 16;
        File.WriteAllBytes(path, [.. jpeg[..2], 0xFF, 0xE2, (byte)(length >> 8), (byte)length, .. "ICC_PROFILE\0"u8, 1, 1, .. profile, .. jpeg[2..]]);
        ImageMetadata metadata = ImageFile.Probe(path, ImageLimits.Default).Metadata;
        Assert.Null(metadata.Icc);
        Assert.Contains("ICC profile", Assert.Single(metadata.Notes), StringComparison.Ordinal);
    }

    [CaseFact]
    public void A_collected_profile_of_a_wrong_length_is_left_out()
    {
        ImageMetadata metadata = ImageFile.Probe(Cases.Path("k04-icc-wrong-length.jpg"), ImageLimits.Default).Metadata;
        Assert.Null(metadata.Icc);
        Assert.Contains("1588", Assert.Single(metadata.Notes), StringComparison.Ordinal);
    }

    [Fact]
    public void A_profile_for_colours_is_of_no_use_to_a_grey_picture() => Assert.Contains("grey", IccProfile.Problem(Profile(), 1), StringComparison.Ordinal);

    private static IReadOnlyList<string> Encode(string path, byte[] profile) =>
        ImageEncoder.Encode(path, TestImages.Scene(60, 40, 3, 8), ImageMetadata.None with { Icc = profile }, EncodeOptions.Default);

    private static byte[] Profile()
    {
        VipsRuntime.Prepare();
        return Image.ProfileLoad("srgb");
    }

    private static byte[] Broken(string way)
    {
        byte[] profile = Profile();
        switch (way)
        {
            case "short":
                return profile[..100];
            case "longer":
                return [.. profile, 0, 0, 0, 0];
            case "cut":
                return profile[..(profile.Length / 2)];
            case "signature":
                profile[36] = 0;
                return profile;
            case "space":
                "CMYK"u8.CopyTo(profile.AsSpan(16));
                return profile;
            case "kind":
                "link"u8.CopyTo(profile.AsSpan(12));
                return profile;
            case "tags":
                BinaryPrimitives.WriteUInt32BigEndian(profile.AsSpan(128), 1_000_000);
                return profile;
            case "tag":
                BinaryPrimitives.WriteUInt32BigEndian(profile.AsSpan(136), (uint)profile.Length);
                return profile;
            case "zeros":
                return new byte[600];
            default:
                new Random(5).NextBytes(profile);
                return profile;
        }
    }
}

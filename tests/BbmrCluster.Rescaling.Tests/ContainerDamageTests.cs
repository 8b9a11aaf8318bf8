using System.Buffers.Binary;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Rescaling.Tests;

public sealed class ContainerDamageTests : IDisposable
{
    private static readonly ContainerSample Sample = ContainerSample.Small();
    private static readonly byte[] Whole = Sample.Bytes();
    private static readonly Preamble Parts = Preamble.Decode(Whole);
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(0x01)]
    [InlineData(0x80)]
    [InlineData(0xFF)]
    public void Every_flipped_byte_is_detected_and_stays_where_it_is(byte mask)
    {
        long secondStrip = Parts.StripsAt + Sample.Strips[0].Length;
        for (int at = 0; at < Whole.Length; at++)
        {
            byte[] bytes = [.. Whole];
            bytes[at] ^= mask;
            string path = _folder.Write(bytes);
            if (at < Parts.QualityAt)
            {
                ContainerException e = Assert.Throws<ContainerException>(() => ContainerReader.Open(path, ImageLimits.Default));
                Assert.Equal(path, e.Path);
                continue;
            }
            using ContainerReader reader = ContainerReader.Open(path, ImageLimits.Default);
            ContainerDamage damage = Assert.Single(reader.Verify());
            string part = at < Parts.IndexAt ? "quality" : at < Parts.StripsAt ? "index" : "strip";
            int? broken = part != "strip" ? null : at < secondStrip ? 0 : 1;
            Assert.Equal((part, broken), (damage.Part, damage.Strip));
            Assert.Equal(part == "quality", reader.Quality is null);
            Assert.Equal(Sample.ScaleIndex, reader.ScaleIndex);
            for (int strip = 0; strip < 2; strip++)
            {
                if (strip == broken)
                    Assert.Contains($"strip {strip} ", Assert.Throws<ContainerException>(() => reader.UnpackStrip(strip)).Reason, StringComparison.Ordinal);
                else
                    ContainerTests.AssertStrip(Sample, strip, reader.UnpackStrip(strip));
            }
        }
    }

    [Fact]
    public void A_file_cut_at_any_length_is_detected_and_whole_strips_stay_readable()
    {
        long firstEnd = Parts.StripsAt + Sample.Strips[0].Length;
        for (int length = 0; length < Whole.Length; length++)
        {
            string path = _folder.Write(Whole[..length]);
            if (length < Parts.QualityAt)
            {
                Assert.Contains(length == 0 ? "is empty" : "truncated", Assert.Throws<ContainerException>(() => ContainerReader.Open(path, ImageLimits.Default)).Reason, StringComparison.Ordinal);
                continue;
            }
            using ContainerReader reader = ContainerReader.Open(path, ImageLimits.Default);
            IReadOnlyList<ContainerDamage> damage = reader.Verify();
            Assert.Contains(damage, d => d.Part == "file" && d.Reason.Contains("truncated", StringComparison.Ordinal));
            Assert.Contains(damage, d => d.Strip == 1);
            Assert.Throws<ContainerException>(() => reader.UnpackStrip(1));
            Assert.Equal(length < firstEnd, damage.Any(d => d.Strip == 0));
            if (length >= firstEnd)
                ContainerTests.AssertStrip(Sample, 0, reader.UnpackStrip(0));
        }
    }

    [Fact]
    public void Bytes_after_the_end_are_detected()
    {
        using ContainerReader reader = ContainerReader.Open(_folder.Write([.. Whole, 0]), ImageLimits.Default);
        Assert.Equal("file", Assert.Single(reader.Verify()).Part);
    }

    [Fact]
    public void With_the_index_lost_a_damaged_strip_takes_only_later_ones_with_it()
    {
        byte[] bytes = [.. Whole];
        bytes[Parts.IndexAt] ^= 1;
        bytes[Parts.StripsAt + Sample.Strips[0].Length + 4] ^= 1;
        using ContainerReader reader = ContainerReader.Open(_folder.Write(bytes), ImageLimits.Default);
        Assert.Equal(["index", "strip"], reader.Verify().Select(damage => damage.Part));
        ContainerTests.AssertStrip(Sample, 0, reader.UnpackStrip(0));
        Assert.Contains("cannot be found", Assert.Throws<ContainerException>(() => reader.ReadStrip(1)).Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("0D0A", "0A")]
    [InlineData("0A", "0D0A")]
    [InlineData("8B", "0B")]
    [InlineData("1A", "")]
    [InlineData("00", "")]
    [InlineData("8B", "EFBFBD")]
    public void Text_mode_damage_is_called_by_its_name(string from, string to)
    {
        string changed = Replace(Convert.ToHexString(Whole), from, to);
        string reason = Assert.Throws<ContainerException>(() => ContainerReader.Open(_folder.Write(Convert.FromHexString(changed)), ImageLimits.Default)).Reason;
        Assert.Contains("text mode", reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Files_that_are_no_container_are_refused_in_one_sentence()
    {
        string Reason(string path) => Assert.Throws<ContainerException>(() => ContainerReader.Open(path, ImageLimits.Default)).Reason;
        Assert.Equal("is not a .bbmr container", Reason(_folder.Write("just some text, long enough to hold a preamble of 56 bytes ..."u8.ToArray())));
        Assert.Equal("is not a .bbmr container", Reason(_folder.Write([1])));
        Assert.Equal("is empty", Reason(_folder.Write([])));
        Assert.Equal("does not exist", Reason(_folder.File("none.bbmr")));
        Assert.Equal("does not exist", Reason(_folder.File("none/none.bbmr")));
        Assert.StartsWith("cannot be read", Reason(Path.GetDirectoryName(_folder.File("x"))!), StringComparison.Ordinal);
        byte[] newer = [.. Whole];
        newer[10] = 3;
        Assert.Equal("has container version 3; this program reads the versions 1 and 2", Reason(_folder.Write(newer)));
    }

    [Fact]
    public void Limits_hold_before_anything_is_allocated()
    {
        string path = _folder.Write(Whole);
        foreach (ImageLimits limits in new[] { new ImageLimits(799), new ImageLimits(MaxSide: 39) })
            Assert.Contains("more than the limit", Assert.Throws<ContainerException>(() => ContainerReader.Open(path, limits)).Reason, StringComparison.Ordinal);
        ContainerReader.Open(path, new ImageLimits(800, 40)).Dispose();
    }

    [Theory]
    [InlineData(12)]
    [InlineData(16)]
    [InlineData(20)]
    [InlineData(24)]
    [InlineData(32)]
    [InlineData(36)]
    public void Hostile_lengths_with_right_checksums_allocate_nothing_and_are_refused(int field)
    {
        foreach (uint value in new uint[] { 0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF })
        {
            byte[] bytes = [.. Whole];
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(field), value);
            if (bytes.AsSpan().SequenceEqual(Whole))
                continue;
            FixChecksum(bytes, 0, ContainerLayout.PreambleBytes);
            string path = _folder.Write(bytes);
            long before = GC.GetAllocatedBytesForCurrentThread();
            bool whole = true;
            try
            {
                using ContainerReader reader = ContainerReader.Open(path, ImageLimits.Default);
                whole = reader.Verify().Count == 0;
            }
            catch (ContainerException)
            {
                whole = false;
            }
            Assert.False(whole);
            Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1 << 20);
        }
    }

    [Fact]
    public void Hostile_headers_with_right_checksums_are_refused()
    {
        Refused("size of zero", header => header.Width = 0);
        Refused("more than the limit", header => header.Width = uint.MaxValue);
        Refused("more than the limit", header => (header.Width, header.Height) = (60_000, 60_000));
        Refused("blocks of 0", header => header.BlockSize = 0);
        Refused("blocks of 4294967295", header => header.BlockSize = uint.MaxValue);
        Refused("strips", header => header.BlockSize = 8);
        Refused("scale set", header => header.Scales.Clear());
        Refused("scale set", header => header.Scales[0] = 0);
        Refused("scale set", header => header.Scales[0] = 3);
        Refused("scale set", header => header.Scales[0] = uint.MaxValue);
        Refused("scale set", header => header.Scales[0] = 4);
        Refused("does not ascend", header => (header.Scales[0], header.Scales[1]) = (4, 2));
        Refused("scale set", header => header.Scales.AddRange([1, 16]));
        Refused("unknown scale", header => header.Scales.RemoveAt(2));
        Refused("the rate", header => header.Rate = 0);
        Refused("bits a sample", header => header.BitDepth = 32);
        Refused("colour channels", header => header.ColourChannels = 2);
        Refused("kind of alpha", header => header.Alpha = (Wire.Alpha)9);
        Refused("orientation", header => header.Metadata.Orientation = 9);
        Refused("resolution", header => header.Metadata.PixelsPerMillimetreX = double.NaN);
        Refused("does not name the source", header => header.Source = null);
        Refused("source name", header => header.Source.Name = "/etc/passwd");
        Refused("source name", header => header.Source.Name = "..");
        Refused("SHA-256", header => header.Source.Sha256 = Google.Protobuf.ByteString.Empty);
        Refused("SHA-256", header => header.Weights[0].Sha256 = Google.Protobuf.ByteString.CopyFrom(1, 2));
        Refused("twice", header => header.Weights.Add(header.Weights[0]));
        Refused("name", header => header.Network = "a\u001b[2J");
        Refused("name", header => header.Allocator = "");
    }

    [Fact]
    public void A_header_that_is_no_protobuf_is_refused()
    {
        byte[] bytes = [.. Whole];
        bytes.AsSpan(ContainerLayout.PreambleBytes, (int)Parts.Header).Fill(0xFF);
        FixChecksum(bytes, ContainerLayout.PreambleBytes, (int)Parts.Header + ContainerLayout.ChecksumBytes);
        Assert.Contains("cannot be read", Assert.Throws<ContainerException>(() => ContainerReader.Open(_folder.Write(bytes), ImageLimits.Default)).Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void Random_damage_under_right_checksums_crashes_nothing(int seed)
    {
        var random = new Random(seed);
        for (int run = 0; run < 250; run++)
        {
            byte[] bytes = [.. Whole];
            for (int changes = random.Next(1, 6); changes > 0; changes--)
                bytes[random.Next(bytes.Length)] = (byte)(random.Next(3) == 0 ? random.Next(2) * 255 : random.Next(256));
            if (random.Next(4) == 0)
                bytes = bytes[..random.Next(bytes.Length + 1)];
            FixAll(bytes);
            try
            {
                using ContainerReader reader = ContainerReader.Open(_folder.Write(bytes), ImageLimits.Default);
                reader.Verify();
                for (int strip = 0; strip < reader.StripCount; strip++)
                    Unpack(reader, strip);
            }
            catch (ContainerException e)
            {
                Assert.DoesNotContain('\n', e.Reason);
            }
        }

        static void Unpack(ContainerReader reader, int strip)
        {
            try
            {
                UnpackedStrip unpacked = reader.UnpackStrip(strip);
                Assert.Equal(reader.Header.Grid.Columns, unpacked.ByScale.Sum(batch => batch.Count));
            }
            catch (ContainerException e)
            {
                Assert.DoesNotContain('\n', e.Reason);
            }
        }
    }

    private void Refused(string reason, Action<Wire.Header> edit)
    {
        Wire.Header header = Wire.Header.Parser.ParseFrom(Whole.AsSpan(ContainerLayout.PreambleBytes, (int)Parts.Header));
        edit(header);
        byte[] section = ContainerLayout.WithChecksum(Google.Protobuf.MessageExtensions.ToByteArray(header));
        Preamble preamble = Parts with { Header = section.Length - ContainerLayout.ChecksumBytes };
        byte[] bytes = [.. preamble.Encode(), .. section, .. Whole.AsSpan((int)Parts.ScaleMapAt)];
        Assert.Contains(reason, Assert.Throws<ContainerException>(() => ContainerReader.Open(_folder.Write(bytes), ImageLimits.Default)).Reason, StringComparison.Ordinal);
    }

    /// <summary>Makes every checksum right again, as far as the lengths still lead to them.</summary>
    private static void FixAll(byte[] bytes)
    {
        FixChecksum(bytes, (int)Parts.StripsAt, Sample.Strips[0].Length);
        FixChecksum(bytes, (int)Parts.StripsAt + Sample.Strips[0].Length, Sample.Strips[1].Length);
        for (int strip = 0; strip < 2; strip++)
        {
            int end = (int)Parts.StripsAt + Sample.Strips.Take(strip + 1).Sum(s => s.Length), entry = (int)Parts.IndexAt + (strip * ContainerLayout.IndexEntryBytes);
            if (end <= bytes.Length)
                bytes.AsSpan(end - ContainerLayout.ChecksumBytes, ContainerLayout.ChecksumBytes).CopyTo(bytes.AsSpan(entry + 16));
        }
        FixChecksum(bytes, 0, ContainerLayout.PreambleBytes);
        FixChecksum(bytes, ContainerLayout.PreambleBytes, (int)Parts.Header + ContainerLayout.ChecksumBytes);
        FixChecksum(bytes, (int)Parts.ScaleMapAt, (int)Parts.ScaleMap + ContainerLayout.ChecksumBytes);
        FixChecksum(bytes, (int)Parts.QualityAt, (int)Parts.Quality + ContainerLayout.ChecksumBytes);
        FixChecksum(bytes, (int)Parts.IndexAt, (int)(Parts.StripsAt - Parts.IndexAt));
    }

    private static void FixChecksum(byte[] bytes, int offset, int length)
    {
        if (offset + length <= bytes.Length)
            ContainerLayout.Checksum(bytes.AsSpan(offset, length - ContainerLayout.ChecksumBytes)).CopyTo(bytes, offset + length - ContainerLayout.ChecksumBytes);
    }

    private static string Replace(string hex, string from, string to)
    {
        var result = new System.Text.StringBuilder();
        for (int i = 0; i < hex.Length;)
        {
            bool hit = string.CompareOrdinal(hex, i, from, 0, from.Length) == 0;
            result.Append(hit ? to : hex.AsSpan(i, 2));
            i += hit ? from.Length : 2;
        }
        return result.ToString();
    }
}

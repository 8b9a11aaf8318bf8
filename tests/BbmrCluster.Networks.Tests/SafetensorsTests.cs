using System.Buffers.Binary;
using System.Text;
using BbmrCluster.Networks.Weights;

namespace BbmrCluster.Networks.Tests;

public sealed class SafetensorsTests
{
    private static byte[] FileOf(string header, int dataBytes)
    {
        byte[] json = Encoding.UTF8.GetBytes(header);
        var file = new byte[8 + json.Length + dataBytes];
        BinaryPrimitives.WriteUInt64LittleEndian(file, (ulong)json.Length);
        json.CopyTo(file, 8);
        return file;
    }

    [Fact]
    public void What_is_written_is_read_again_bit_by_bit()
    {
        using var folder = new TemporaryFolder();
        string path = folder.File("a.safetensors");
        var tensors = new Dictionary<string, TensorData>
        {
            ["b"] = new([2, 3], [1, -2, 3.25f, float.MinValue, float.Epsilon, 0]),
            ["a"] = new([], [7]),
            ["empty"] = new([0, 5], []),
        };
        SafetensorsFile.Write(path, tensors, new Dictionary<string, string> { ["k"] = "v" });
        SafetensorsFile read = SafetensorsFile.Read(path);
        Assert.Equal("v", read.Metadata["k"]);
        Assert.Equal(tensors.Keys.Order(), read.Tensors.Keys.Order());
        foreach ((string name, TensorData tensor) in tensors)
        {
            Assert.Equal(tensor.Shape, read.Tensors[name].Shape);
            Assert.Equal(tensor.Values, read.Tensors[name].Values);
        }
        Assert.False(File.Exists(path + ".tmp"));
    }

    [Fact]
    public void Half_precision_is_stored_in_two_bytes_and_widened()
    {
        using var folder = new TemporaryFolder();
        string path = folder.File("a.safetensors");
        SafetensorsFile.Write(path, new Dictionary<string, TensorData> { ["a"] = new([3], [1, 1f / 3, -65504]) }, storage: TensorStorage.Float16);
        Assert.Equal([1, (float)(Half)(1f / 3), -65504], SafetensorsFile.Read(path).Tensors["a"].Values);
    }

    [Fact]
    public void Bfloat16_and_integers_are_widened()
    {
        byte[] file = FileOf("""{"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"i":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}}""", 12);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(file.Length - 12), 0x3FC0);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(file.Length - 10), 0xC000);
        BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(file.Length - 8), -7);
        SafetensorsFile read = SafetensorsFile.Parse(file, "f");
        Assert.Equal([1.5f, -2], read.Tensors["b"].Values);
        Assert.Equal([-7], read.Tensors["i"].Values);
    }

    [Theory]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}""", 4, "needs 8 bytes")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}""", 6, "overlaps")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}""", 12, "gap")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 3, "cut short")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 9, "belong to no tensor")]
    [InlineData("""{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}""", 4, "whole number")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}""", 4, "whole number")]
    [InlineData("""{"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,0]}}""", 0, "impossible shape")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}""", 4, "needs 4 bytes")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999999999]}}""", 4, "whole number")]
    [InlineData("""{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}""", 8, "type F64")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 4, "twice")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}""", 4, "lacks a type")]
    [InlineData("""{"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}}""", 4, "lacks a type")]
    [InlineData("""{"a":[1]}""", 0, "not an object")]
    [InlineData("""{"__metadata__":{"a":{"b":1}}}""", 0, "other than text")]
    [InlineData("""[]""", 0, "not a JSON object")]
    [InlineData("""{"a":""", 0, "not JSON")]
    public void A_header_that_contradicts_the_file_is_refused_with_the_reason(string header, int dataBytes, string reason)
    {
        InvalidDataException refusal = Assert.Throws<InvalidDataException>(() => SafetensorsFile.Parse(FileOf(header, dataBytes), "bad.safetensors"));
        Assert.StartsWith("bad.safetensors", refusal.Message, StringComparison.Ordinal);
        Assert.Contains(reason, refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_header_length_beyond_the_file_allocates_nothing()
    {
        var file = new byte[16];
        BinaryPrimitives.WriteUInt64LittleEndian(file, ulong.MaxValue);
        Assert.Contains("claims 18446744073709551615 bytes", Assert.Throws<InvalidDataException>(() => SafetensorsFile.Parse(file, "f")).Message);
        Assert.Throws<InvalidDataException>(() => SafetensorsFile.Parse(new byte[3], "f"));
    }

    [Fact]
    public void Every_truncation_and_every_flipped_header_byte_is_refused_or_read_but_never_crashes()
    {
        byte[] file = FileOf("""{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[2],"data_offsets":[8,12]}}""", 12);
        for (int length = 0; length < file.Length; length++)
            Assert.Throws<InvalidDataException>(() => SafetensorsFile.Parse(file.AsMemory(0, length), "f"));
        int refused = 0;
        for (int i = 0; i < file.Length - 12; i++)
        {
            for (int bit = 0; bit < 8; bit++)
            {
                byte[] damaged = [.. file];
                damaged[i] ^= (byte)(1 << bit);
                try
                {
                    SafetensorsFile.Parse(damaged, "f");
                }
                catch (InvalidDataException)
                {
                    refused++;
                }
            }
        }
        Assert.InRange(refused, 500, 8 * file.Length);
    }

    [Fact]
    public void Values_that_do_not_fit_their_shape_are_not_written()
    {
        using var folder = new TemporaryFolder();
        Assert.Throws<ArgumentException>(() => SafetensorsFile.Write(folder.File("a"), new Dictionary<string, TensorData> { ["a"] = new([3], [1]) }));
    }
}

internal sealed class TemporaryFolder : IDisposable
{
    public TemporaryFolder() => Directory.CreateDirectory(Root);

    public string Root { get; } = Path.Combine(Path.GetTempPath(), "bbmr-" + Guid.NewGuid().ToString("N"));

    public string File(string name) => Path.Combine(Root, name);

    public void Dispose() => Directory.Delete(Root, recursive: true);
}

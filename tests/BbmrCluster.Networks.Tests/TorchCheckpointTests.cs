using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;
using BbmrCluster.Imaging;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Craft;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Tests;

namespace BbmrCluster.Networks.Tests;

/// <summary>PyTorch checkpoints: those that are published are read, hostile ones are refused before they cost anything.</summary>
public sealed class TorchCheckpointTests : IDisposable
{
    private readonly TemporaryFolder _folder = new(), _own = new();

    public void Dispose()
    {
        _folder.Dispose();
        _own.Dispose();
    }

    private static string Refused(byte[] file)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        string message = Assert.Throws<InvalidDataException>(() => TorchCheckpoint.Parse(file, "evil.pth")).Message;
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 64 << 20);
        Assert.StartsWith("evil.pth is not a usable PyTorch checkpoint: ", message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', message);
        Assert.InRange(message.Length, 1, 600);
        return message;
    }

    [Fact]
    public void Tensors_of_every_type_and_layout_come_back()
    {
        byte[] Numbers<T>(int size, Func<byte[], T, int> write, params T[] values)
        {
            byte[] bytes = new byte[size * values.Length];
            for (int i = 0; i < values.Length; i++)
            {
                var one = new byte[size];
                write(one, values[i]);
                one.CopyTo(bytes, i * size);
            }
            return bytes;
        }

        byte[] floats = Numbers(4, (to, value) => { BinaryPrimitives.WriteSingleLittleEndian(to, value); return 0; }, 1f, 2f, 3f, 4f, 5f, 6f, 7f);
        var file = new TestCheckpoint();
        file.Storages["f"] = floats;
        file.Storages["h"] = Numbers(2, (to, value) => { BinaryPrimitives.WriteHalfLittleEndian(to, value); return 0; }, (Half)0.5, (Half)(-2));
        file.Storages["b"] = [0x80, 0x3f, 0x20, 0xc1];
        file.Storages["d"] = Numbers(8, (to, value) => { BinaryPrimitives.WriteDoubleLittleEndian(to, value); return 0; }, 0.25);
        file.Storages["l"] = Numbers(8, (to, value) => { BinaryPrimitives.WriteInt64LittleEndian(to, value); return 0; }, -7L, 9L);
        file.Storages["c"] = [0xff, 1];
        file.Begin().Dictionary(
            ("whole", p => p.Tensor("f", "FloatStorage", 7, 0, [7], [1])),
            ("transposed", p => p.Tensor("f", "FloatStorage", 7, 1, [3, 2], [1, 3])),
            ("repeated", p => p.Tensor("f", "FloatStorage", 7, 2, [4], [0])),
            ("scalar", p => p.Tensor("f", "FloatStorage", 7, 6, [], [])),
            ("none", p => p.Tensor("f", "FloatStorage", 7, 0, [0, 3], [3, 1])),
            ("half", p => p.Tensor("h", "HalfStorage", 2, 0, [2], [1])),
            ("brain", p => p.Tensor("b", "BFloat16Storage", 2, 0, [2], [1])),
            ("double", p => p.Tensor("d", "DoubleStorage", 1, 0, [1], [1])),
            ("long", p => p.Tensor("l", "LongStorage", 2, 0, [2], [1])),
            ("small", p => p.Tensor("c", "CharStorage", 2, 0, [2], [1])),
            ("parameter", p => p.Global("torch._utils", "_rebuild_parameter").Op('(').Tensor("f", "FloatStorage", 7, 0, [1], [1]).Op('\x88').OrderedDict().Op('t').Op('R')),
            ("epoch", p => p.Integer(300)), ("lr", p => p.Double(1e-4)), ("best", p => p.Op('N')), ("done", p => p.Op('\x88')),
            ("optimizer", p => p.Dictionary(("groups", q => q.Op(']').Op('(').Integer(1).Integer(-2).Op('e'))))).Op('.');
        IReadOnlyDictionary<string, TensorData> tensors = TorchCheckpoint.Parse(file.Bytes(), "good.pth");
        Assert.Equal(11, tensors.Count);
        Assert.Equal([1, 2, 3, 4, 5, 6, 7], tensors["whole"].Values);
        Assert.Equal([2, 5, 3, 6, 4, 7], tensors["transposed"].Values);
        Assert.Equal([3, 3, 3, 3], tensors["repeated"].Values);
        Assert.Equal([7], tensors["scalar"].Values);
        Assert.Empty(tensors["none"].Values);
        Assert.Equal([0.5f, -2], tensors["half"].Values);
        Assert.Equal([1, -10], tensors["brain"].Values);
        Assert.Equal([0.25f], tensors["double"].Values);
        Assert.Equal([-7, 9], tensors["long"].Values);
        Assert.Equal([-1, 1], tensors["small"].Values);
        Assert.Equal([1], tensors["parameter"].Values);
    }

    public static TheoryData<string, string, string> Callables => new()
    {
        { "os", "system", "os.system" },
        { "posix", "system", "posix.system" },
        { "builtins", "eval", "builtins.eval" },
        { "builtins", "getattr", "builtins.getattr" },
        { "subprocess", "Popen", "subprocess.Popen" },
        { "torch", "load", "torch.load" },
        { "torch._utils", "_rebuild_device_tensor_from_numpy", "torch._utils._rebuild_device" },
        { "torch", "EvilStorage", "torch.EvilStorage" },
        { "torch.storage", "FloatStorage", "torch.storage.FloatStorage" },
        { "collections", "deque", "collections.deque" },
        { "os\u001b[2J", "system", "os?[2J.system" },
    };

    [Theory]
    [MemberData(nameof(Callables))]
    public void A_callable_that_makes_no_tensor_is_refused_by_its_name(string module, string name, string said)
    {
        var file = new TestCheckpoint();
        file.Begin().Global(module, name).Op('(').Text("touch /tmp/owned").Op('t').Op('R').Op('.');
        Assert.Contains("it names " + said, Refused(file.Bytes()));
    }

    // INST, OBJ, NEWOBJ, STACK_GLOBAL, EXT1, DUP, POP, GET, PERSID, STRING, INT, FLOAT, FRAME, BINBYTES, NEXT_BUFFER, BYTEARRAY8 and what does not exist.
    [Theory]
    [InlineData('i')]
    [InlineData('o')]
    [InlineData('\x81')]
    [InlineData('\x93')]
    [InlineData('\x82')]
    [InlineData('2')]
    [InlineData('0')]
    [InlineData('g')]
    [InlineData('P')]
    [InlineData('S')]
    [InlineData('I')]
    [InlineData('F')]
    [InlineData('\x95')]
    [InlineData('B')]
    [InlineData('\x97')]
    [InlineData('\x96')]
    [InlineData('\xff')]
    public void An_opcode_that_no_dictionary_of_tensors_needs_is_refused(char opcode)
    {
        var file = new TestCheckpoint();
        file.Begin().Global("collections", "OrderedDict").Op(')').Op(opcode).Op('.');
        Assert.Contains($"opcode 0x{(int)opcode:x2}", Refused(file.Bytes()));
    }

    [Fact]
    public void Calls_and_attributes_that_make_no_tensor_are_refused()
    {
        Assert.Contains("make no tensor", Of(p => p.Text("print").Op(')').Op('R')));
        Assert.Contains("make no tensor", Of(p => p.Global("collections", "OrderedDict").Op('(').Op(']').Op('t').Op('R')));
        Assert.Contains("make no tensor", Of(p => p.Global("torch._utils", "_rebuild_tensor_v2").Op('(').Text("0").Op('t').Op('R')));
        Assert.Contains("make no tensor", Of(p => p.Global("torch._utils", "_rebuild_parameter").Op('(').Text("0").Op('t').Op('R')));
        Assert.Contains("make no tensor", Of(p => p.Global("torch", "FloatStorage").Op('(').Integer(1 << 30).Op('t').Op('R')));
        Assert.Contains("no tuple of arguments", Of(p => p.Global("collections", "OrderedDict").Op(']').Op('R')));
        Assert.Contains("other than a storage", Of(p => p.Text("storage").Op('Q')));
        Assert.Contains("other than a storage", Of(p => p.Op('(').Text("module").Global("torch", "FloatStorage").Text("0").Text("cpu").Integer(1).Op('t').Op('Q')));
        Assert.Contains("sets attributes", Of(p => p.Text("a").Dictionary().Op('b')));
        Assert.Contains("sets attributes", Of(p => p.Global("collections", "OrderedDict").Dictionary().Op('b')));
        Assert.Contains("keys other than", Of(p => p.Op('}').Op(')').Integer(1).Op('s')));
        Assert.Contains("sets items", Of(p => p.Op('}').Op('(').Text("a").Op('u')));
        Assert.Contains("other than a list", Of(p => p.Op('}').Integer(1).Op('a')));

        static string Of(Action<TestCheckpoint> make)
        {
            var file = new TestCheckpoint();
            make(file.Begin());
            return Refused(file.Op('.').Bytes());
        }
    }

    [Fact]
    public void Stacks_memos_and_lengths_that_do_not_fit_are_refused()
    {
        Assert.Contains("more objects than it made", Raw([0x80, 2, (byte)'s', (byte)'.']));
        Assert.Contains("more objects than it made", Raw([0x80, 2, (byte)'(', 0x85, (byte)'.']));
        Assert.Contains("more objects than it made", Raw([0x80, 2, (byte)'q', 1, (byte)'.']));
        Assert.Contains("never began", Raw([0x80, 2, (byte)'}', (byte)'t', (byte)'.']));
        Assert.Contains("never stored", Raw([0x80, 2, (byte)'h', 9, (byte)'.']));
        Assert.Contains("never stored", Raw([0x80, 2, (byte)'j', 0xff, 0xff, 0xff, 0x7f, (byte)'.']));
        Assert.Contains("cut short", Raw([0x80, 2, (byte)'j', 0xff, 0xff, 0xff, 0xff, (byte)'.']));
        Assert.Contains("cut short", Raw([0x80, 2, (byte)'X', 0xff, 0xff, 0xff, 0x7f, (byte)'a']));
        Assert.Contains("cut short", Raw([0x80, 2, (byte)'X', 0xff, 0xff, 0xff, 0xff, (byte)'a']));
        Assert.Contains("cut short", Raw([0x80, 2, (byte)'c', (byte)'o', (byte)'s']));
        Assert.Contains("cut short", Raw([0x80, 2, (byte)'}']));
        Assert.Contains("not UTF-8", Raw([0x80, 2, (byte)'X', 1, 0, 0, 0, 0xff, (byte)'.']));
        Assert.Contains("too large", Raw([0x80, 2, 0x8a, 200, 1, 2, 3]));
        Assert.Contains("of another pickle protocol", Raw([0x80, 5, (byte)'}', (byte)'.']));
        Assert.Contains("other than one object", Raw([0x80, 2, (byte)'}', (byte)'}', (byte)'.']));
        Assert.Contains("other than one object", Raw([0x80, 2, (byte)'.']));
        Assert.Contains("cut short", Raw([]));

        static string Raw(byte[] pickle) => Refused(new TestCheckpoint { Pickle = [.. pickle] }.Bytes());
    }

    /// <summary>Ten references to ten references to ...: small in the file, endless to whoever follows each.</summary>
    [Fact]
    public void Bombs_of_references_end_soon()
    {
        Assert.Contains("more objects than a network has", Refused(Nested(40)));
        Assert.Contains("refers to itself", Refused(Circle()));
        Assert.Contains("names of more than", Refused(LongNames()));

        static byte[] Nested(int levels)
        {
            var file = new TestCheckpoint();
            file.Begin().Op('}').Op('(').Text("level0").Op('}').Put(0);
            // In one dictionary, so that each level may be recalled by the next.
            for (byte level = 1; level <= levels; level++)
            {
                file.Text("level" + level).Op('}').Put(level).Op('(');
                for (int i = 0; i < 10; i++)
                    file.Text("k" + i).Get((byte)(level - 1));
                file.Op('u');
            }
            return file.Op('u').Op('.').Bytes();
        }

        static byte[] Circle()
        {
            var file = new TestCheckpoint();
            file.Begin().Op('}').Put(0).Text("again").Get(0).Op('s').Op('.');
            return file.Bytes();
        }

        static byte[] LongNames()
        {
            var file = new TestCheckpoint();
            file.Begin().Op('}').Text(new string('n', 1 << 20)).Op('}').Op('s').Op('.');
            return file.Bytes();
        }
    }

    [Theory]
    [InlineData(8, 0, new long[] { 8 }, new long[] { 1 }, "8 values, but there are 16 bytes")]
    [InlineData(3, 0, new long[] { 3 }, new long[] { 1 }, "3 values, but there are 16 bytes")]
    [InlineData(long.MaxValue, 0, new long[] { 4 }, new long[] { 1 }, "but there are 16 bytes")]
    [InlineData(4, 0, new long[] { 5 }, new long[] { 1 }, "reaches beyond")]
    [InlineData(4, 1, new long[] { 4 }, new long[] { 1 }, "reaches beyond")]
    [InlineData(4, 4, new long[] { 1 }, new long[] { 1 }, "reaches beyond")]
    [InlineData(4, 5, new long[] { 1 }, new long[] { 1 }, "begins behind")]
    [InlineData(4, long.MaxValue, new long[] { 2 }, new long[] { 1 }, "begins behind")]
    [InlineData(4, 0, new long[] { 2, 2 }, new long[] { 3, 1 }, "reaches beyond")]
    [InlineData(4, 0, new long[] { 2 }, new long[] { long.MaxValue }, "reaches beyond")]
    [InlineData(4, 0, new long[] { 1 << 20, 1 << 20 }, new long[] { 0, 0 }, "reaches beyond")]
    [InlineData(4, 0, new long[] { long.MaxValue, long.MaxValue, 2 }, new long[] { 0, 0, 0 }, "reaches beyond")]
    [InlineData(4, -1, new long[] { 1 }, new long[] { 1 }, "impossible shape")]
    [InlineData(4, 0, new long[] { -1 }, new long[] { 1 }, "impossible shape")]
    [InlineData(4, 0, new long[] { 2 }, new long[] { -1 }, "impossible shape")]
    [InlineData(4, 0, new long[] { 2 }, new long[] { 1, 1 }, "impossible shape")]
    [InlineData(4, 0, new long[] { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, new long[] { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, "impossible shape")]
    public void A_tensor_that_its_storage_does_not_hold_is_refused(long count, long offset, long[] shape, long[] strides, string reason)
    {
        var file = new TestCheckpoint { Storages = { ["0"] = new byte[16] } };
        file.Begin().Dictionary(("a", p => p.Tensor("0", "FloatStorage", count, offset, shape, strides))).Op('.');
        Assert.Contains(reason, Refused(file.Bytes()));
    }

    [Fact]
    public void Many_tensors_of_one_storage_are_not_more_than_the_file()
    {
        var file = new TestCheckpoint { Storages = { ["0"] = new byte[1 << 20] } };
        file.Begin().Dictionary([.. Enumerable.Range(0, 1000).Select(i => ($"t{i}", (Action<TestCheckpoint>)(p => p.Tensor("0", "FloatStorage", 1 << 18, 0, [1 << 18], [1]))))]).Op('.');
        Assert.Contains("larger than twice the file", Refused(file.Bytes()));
        var missing = new TestCheckpoint();
        missing.Begin().Dictionary(("a", p => p.Tensor("../../etc/passwd", "FloatStorage", 1, 0, [1], [1]))).Op('.');
        Assert.Contains("the values of 'a' are missing", Refused(missing.Bytes()));
    }

    [Fact]
    public void Archives_that_are_not_what_PyTorch_writes_are_refused()
    {
        TestCheckpoint Small()
        {
            var file = new TestCheckpoint { Storages = { ["0"] = new byte[64 << 10] } };
            file.Begin().Dictionary(("a", p => p.Tensor("0", "FloatStorage", 16 << 10, 0, [16 << 10], [1]))).Op('.');
            return file;
        }

        byte[] good = Small().Bytes();
        Assert.Single(TorchCheckpoint.Parse(good, "good.pth"));
        // 64 KB of zeros, and 64 MB of them, in a few bytes.
        Assert.Contains("is compressed", Refused(Small().Bytes(CompressionLevel.Optimal)));
        TestCheckpoint bomb = Small();
        bomb.Storages["0"] = new byte[64 << 20];
        Assert.Contains("is compressed", Refused(bomb.Bytes(CompressionLevel.SmallestSize)));
        Assert.Contains("0 entries 'data.pkl'", Refused(new TestCheckpoint { Root = "a/b", PickleName = "other.pkl" }.Bytes()));
        Assert.Contains("same name", Refused(Small().Bytes(twice: true)));
        TestCheckpoint big = Small();
        big.ByteOrder = "big";
        Assert.Contains("not little-endian", Refused(big.Bytes()));

        foreach (int length in (int[])[4, 30, 100, good.Length / 2, good.Length - 30, good.Length - 1])
            Assert.Contains("damaged or cut short", Refused(good[..length]));
        byte[] flipped = [.. good];
        flipped[good.AsSpan().IndexOf(new byte[4096]) + 1000] ^= 1;
        Assert.Contains("checksum", Refused(flipped));
        // Whatever byte is damaged: another message, or nothing that matters was hit, but never another exception.
        var random = new Random(1);
        for (int i = 0; i < 2000; i++)
        {
            byte[] damaged = [.. good];
            int tail = good.AsSpan().IndexOf(new byte[4096]) + (64 << 10) - 200;
            damaged[random.Next(2) == 0 ? random.Next(600) : random.Next(tail, good.Length)] = (byte)random.Next(256);
            try
            {
                TorchCheckpoint.Parse(damaged, "evil.pth");
            }
            catch (InvalidDataException problem)
            {
                Assert.StartsWith("evil.pth is not a usable PyTorch checkpoint: ", problem.Message, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void Storages_that_share_their_bytes_are_refused()
    {
        byte[] file = OverlappingArchive(storages: 200, bytes: 1 << 20);
        Assert.Contains("storages together are larger", Refused(file));
    }

    [Theory]
    [InlineData("params", "params_ema", 2)]
    [InlineData("model", "optimizer", 1)]
    [InlineData("state_dict", "epoch", 1)]
    public void Nested_dictionaries_of_checkpoints_are_opened(string first, string second, int which)
    {
        IReadOnlyDictionary<string, TensorData> weights = ReferenceNumbers.Weights(new OmniSrShape(2, 1).Parameters), other = weights.ToDictionary(pair => pair.Key, pair => pair.Value with { Values = [.. pair.Value.Values.Select(value => -value)] });
        var file = new TestCheckpoint();
        file.Begin().Dictionary((first, p => p.StateDict("a", weights)), (second, p => p.StateDict("b", second is "optimizer" or "epoch" ? new Dictionary<string, TensorData> { ["state.0.exp_avg"] = new([1], [1]) } : other))).Op('.');
        File.WriteAllBytes(_folder.File("w.pth"), file.Bytes());
        ModelEntry entry = ModelImport.Add(new ModelCatalog(_own.Root), _folder.File("w.pth"), "mine", "bicubic", "none", false);
        Assert.Equal((ModelState.Ready, 2), (entry.State, entry.Scale));
        IReadOnlyDictionary<string, TensorData> loaded = new ModelCatalog(_own.Root).Load("mine", 2).Tensors;
        Assert.All(which == 2 ? other : weights, pair => Assert.Equal(pair.Value.Values, loaded[pair.Key].Values));
    }

    /// <summary>A published CRAFT: the same tensors as its safetensors form, and its quality on Set5.</summary>
    [FixtureFact]
    public void The_published_craft_reaches_its_quality_on_Set5()
    {
        string file = Fixtures.Path("checkpoints", "craft_x4.pth"), lr = Fixtures.Path("set5", "LR_x4"), hr = Fixtures.Path("set5", "HR");
        ModelEntry entry = ModelImport.Add(new ModelCatalog(_own.Root), file, "craft-published", "bicubic", "MIT", false);
        Assert.Equal(("craft", 4, 753_344L), (entry.Card!.Architecture, entry.Scale, entry.Card.Parameters));
        IReadOnlyDictionary<string, TensorData> expected = CraftShape.WithoutBuffers(SafetensorsFile.Read(Fixtures.Path("checkpoints", "craft_x4.safetensors")).Tensors), loaded = new ModelCatalog(_own.Root).Load("craft-published", 4).Tensors;
        Assert.Equal(expected.Count, loaded.Count);
        Assert.All(expected, pair => Assert.Equal(pair.Value.Values, loaded[pair.Key].Values));

        Assert.Equal(32.40, PublishedQuality.Set5("craft-published", 4, _own.Root, lr, hr), 0.01);
    }

    /// <summary>An archive whose entries for storages all name the same bytes, as no zip library writes it.</summary>
    private static byte[] OverlappingArchive(int storages, int bytes)
    {
        var file = new TestCheckpoint();
        file.Begin().Dictionary([.. Enumerable.Range(0, storages).Select(i => ($"t{i}", (Action<TestCheckpoint>)(p => p.Tensor(i.ToString("D4"), "ByteStorage", bytes, 0, [1], [1]))))]).Op('.');
        file.Storages["0000"] = new byte[bytes];
        byte[] whole = file.Bytes();
        int end = whole.Length - 22, directory = BinaryPrimitives.ReadInt32LittleEndian(whole.AsSpan(end + 16));
        // The last entry of the directory is that of the storage.
        int entry = whole.AsSpan().LastIndexOf("PK\x01\x02"u8);
        byte[] record = whole[entry..end];
        var result = new MemoryStream();
        result.Write(whole.AsSpan(0, end));
        for (int i = 1; i < storages; i++)
        {
            byte[] copy = [.. record];
            Encoding.ASCII.GetBytes(i.ToString("D4")).CopyTo(copy, copy.AsSpan().LastIndexOf("0000"u8));
            result.Write(copy);
        }
        int size = (int)result.Length - directory;
        byte[] last = whole[end..];
        BinaryPrimitives.WriteUInt16LittleEndian(last.AsSpan(8), (ushort)(storages + 2));
        BinaryPrimitives.WriteUInt16LittleEndian(last.AsSpan(10), (ushort)(storages + 2));
        BinaryPrimitives.WriteInt32LittleEndian(last.AsSpan(12), size);
        result.Write(last);
        return result.ToArray();
    }
}

/// <summary>PSNR of Y as the papers measure it.</summary>
internal static class PublishedQuality
{
    /// <summary>Mean over Set5, dB, through <see cref="SuperResolver"/> in float32.</summary>
    public static double Set5(string network, int scale, string models, string lr, string hr)
    {
        using var resolver = new SuperResolver(new ModelCatalog(models), network, scale, "float32", "cpu");
        return Directory.GetFiles(hr, "*.png").Order(StringComparer.Ordinal).Average(path =>
        {
            PixelBuffer truth = Read(path), small = Read(Path.Combine(lr, $"{Path.GetFileNameWithoutExtension(path)}x{scale}.png"));
            PixelBuffer large = resolver.Upscale(small);
            return Metrics.Compare(truth.Crop(0, 0, large.Width, large.Height), large, crop: scale).PsnrY;
        });

        static PixelBuffer Read(string path) => ImageFile.Load(path, ImageLimits.Default, Path.GetTempPath());
    }
}

/// <summary>Writes what <c>torch.save</c> writes, opcode by opcode, so that a test can write what it never would.</summary>
internal sealed class TestCheckpoint
{
    public List<byte> Pickle { get; init; } = [];

    public Dictionary<string, byte[]> Storages { get; } = new(StringComparer.Ordinal);

    public string Root { get; init; } = "net_g";

    public string PickleName { get; init; } = "data.pkl";

    public string? ByteOrder { get; set; } = "little";

    public TestCheckpoint Begin()
    {
        Pickle.AddRange([0x80, 2]);
        return this;
    }

    public TestCheckpoint Op(char code)
    {
        Pickle.Add((byte)code);
        return this;
    }

    public TestCheckpoint Text(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text), length = new byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(length, bytes.Length);
        Pickle.AddRange([(byte)'X', .. length, .. bytes]);
        return this;
    }

    public TestCheckpoint Integer(long value)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, value);
        Pickle.AddRange(value is >= 0 and < 256 ? [(byte)'K', bytes[0]] : value is >= int.MinValue and <= int.MaxValue ? [(byte)'J', .. bytes[..4]] : [0x8a, 8, .. bytes]);
        return this;
    }

    public TestCheckpoint Double(double value)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteDoubleBigEndian(bytes, value);
        Pickle.AddRange([(byte)'G', .. bytes]);
        return this;
    }

    public TestCheckpoint Put(byte number)
    {
        Pickle.AddRange([(byte)'q', number]);
        return this;
    }

    public TestCheckpoint Get(byte number)
    {
        Pickle.AddRange([(byte)'h', number]);
        return this;
    }

    public TestCheckpoint Global(string module, string name)
    {
        Pickle.AddRange([(byte)'c', .. Encoding.UTF8.GetBytes(module + "\n" + name + "\n")]);
        return this;
    }

    public TestCheckpoint OrderedDict() => Global("collections", "OrderedDict").Op(')').Op('R');

    public TestCheckpoint Dictionary(params (string Key, Action<TestCheckpoint> Value)[] items)
    {
        Op('}').Op('(');
        foreach ((string key, Action<TestCheckpoint> value) in items)
            value(Text(key));
        return Op('u');
    }

    public TestCheckpoint Tensor(string storage, string type, long count, long offset, long[] shape, long[] strides)
    {
        Global("torch._utils", "_rebuild_tensor_v2").Op('(');
        Op('(').Text("storage").Global("torch", type).Text(storage).Text("cpu").Integer(count).Op('t').Op('Q');
        Integer(offset);
        foreach (long[] sizes in (long[][])[shape, strides])
        {
            Op('(');
            foreach (long size in sizes)
                Integer(size);
            Op('t');
        }
        return Op('\x89').OrderedDict().Op('t').Op('R');
    }

    public TestCheckpoint StateDict(string prefix, IReadOnlyDictionary<string, TensorData> tensors)
    {
        OrderedDict().Op('(');
        int number = 0;
        foreach ((string name, TensorData tensor) in tensors)
        {
            string key = prefix + number++;
            Storages[key] = System.Runtime.InteropServices.MemoryMarshal.AsBytes(tensor.Values.AsSpan()).ToArray();
            long[] strides = [.. tensor.Shape.Select((_, axis) => tensor.Shape[(axis + 1)..].Aggregate(1L, (product, size) => product * size))];
            Text(name).Tensor(key, "FloatStorage", tensor.Values.Length, 0, tensor.Shape, strides);
        }
        // The attribute that every state dict of a module has.
        return Op('u').Dictionary(("_metadata", p => p.OrderedDict())).Op('b');
    }

    public byte[] Bytes(CompressionLevel level = CompressionLevel.NoCompression, bool twice = false)
    {
        using var file = new MemoryStream();
        using (var archive = new ZipArchive(file, ZipArchiveMode.Create, leaveOpen: true))
        {
            Add($"{Root}/{PickleName}", [.. Pickle]);
            if (ByteOrder is { } order)
                Add($"{Root}/byteorder", Encoding.ASCII.GetBytes(order));
            foreach ((string key, byte[] bytes) in Storages)
                Add($"{Root}/data/{key}", bytes);
            if (twice)
                Add($"{Root}/data/{Storages.Keys.First()}", Storages.Values.First());

            void Add(string name, byte[] bytes)
            {
                using Stream entry = archive.CreateEntry(name, level).Open();
                entry.Write(bytes);
            }
        }
        return file.ToArray();
    }
}

using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace BbmrCluster.Networks.Weights;

/// <summary>A tensor that a pickle describes: a view of numbered values in a storage that lies elsewhere.</summary>
/// <param name="Storage">Name of the storage.</param>
/// <param name="Type">PyTorch's name of the storage's class, e.g. FloatStorage.</param>
/// <param name="Count">Values in the storage.</param>
/// <param name="Offset">First value.</param>
/// <param name="Shape">Sizes, outermost first.</param>
/// <param name="Strides">Values from one element to the next of each axis.</param>
internal sealed record PickledTensor(string Storage, string Type, long Count, long Offset, long[] Shape, long[] Strides);

/// <summary>
/// Reads the pickles by which <c>torch.save</c> describes dictionaries of tensors. It is no interpreter of Python: it knows
/// the opcodes for plain data and four globals (an ordered dictionary, a storage class, a tensor from a storage, a
/// parameter), makes plain data of them, calls nothing, and refuses every other opcode and global. What it makes is bounded
/// by the length of the pickle, since opcodes that copy (DUP, POP, GET by text) are not among them; objects that are
/// referred to many times are followed at most <see cref="MaxDepth"/> levels deep and <see cref="MaxTensors"/> times.
/// </summary>
internal sealed class TensorPickle
{
    private const int MaxDepth = 16, MaxTensors = 100_000, MaxRank = 8, MaxPath = 512;

    private readonly byte[] _bytes;
    private readonly string _name;
    private readonly Stack<object?> _stack = [];
    private readonly Dictionary<uint, object?> _memo = [];
    private int _at;

    private TensorPickle(byte[] bytes, string name) => (_bytes, _name) = (bytes, name);

    private enum Global
    {
        OrderedDict,
        RebuildTensor,
        RebuildParameter,
    }

    private sealed record Mark;

    private sealed record StorageClass(string Name);

    private sealed record Storage(string Key, string Type, long Count);

    /// <summary>Every tensor of a pickle of nested dictionaries, keys joined by dots; what is no tensor is left out.</summary>
    /// <param name="pickle">The pickle.</param>
    /// <param name="name">What messages call the file.</param>
    /// <exception cref="InvalidDataException">Not such a pickle; one sentence.</exception>
    public static IReadOnlyDictionary<string, PickledTensor> Read(byte[] pickle, string name)
    {
        var reader = new TensorPickle(pickle, name);
        var tensors = new Dictionary<string, PickledTensor>(StringComparer.Ordinal);
        int seen = 0;
        Flatten(reader.Run(), "", 0);
        return tensors;

        void Flatten(object? value, string path, int depth)
        {
            if (depth > MaxDepth || ++seen > MaxTensors)
                throw reader.Bad("it refers to itself, or to more objects than a network has");
            if (value is PickledTensor tensor && !tensors.TryAdd(path, tensor))
                throw reader.Bad($"it holds '{path}' twice");
            foreach ((object key, object? inner) in value as Dictionary<object, object?> ?? [])
            {
                string own = Convert.ToString(key, CultureInfo.InvariantCulture)!;
                if (path.Length + own.Length > MaxPath)
                    throw reader.Bad($"it holds names of more than {MaxPath} characters");
                Flatten(inner, path.Length == 0 ? own : path + "." + own, depth + 1);
            }
        }
    }

    private object? Run()
    {
        while (true)
        {
            byte code = Byte();
            switch ((char)code)
            {
                case '\x80':
                    if (Byte() is not (2 or 3))
                        throw Bad("it is of another pickle protocol than 2 and 3, which PyTorch writes");
                    break;
                case '.':
                    return _stack.Count == 1 ? Pop() : throw Bad("it ends with other than one object");
                case 'N': _stack.Push(null); break;
                case '\x88': _stack.Push(true); break;
                case '\x89': _stack.Push(false); break;
                case 'K': _stack.Push((long)Byte()); break;
                case 'M': _stack.Push((long)BinaryPrimitives.ReadUInt16LittleEndian(Bytes(2))); break;
                case 'J': _stack.Push((long)BinaryPrimitives.ReadInt32LittleEndian(Bytes(4))); break;
                case '\x8a': _stack.Push(LongInteger()); break;
                case 'G': _stack.Push(BinaryPrimitives.ReadDoubleBigEndian(Bytes(8))); break;
                case 'X': _stack.Push(Text(Length())); break;
                case '}': _stack.Push(new Dictionary<object, object?>()); break;
                case ']': _stack.Push(new List<object?>()); break;
                case ')': _stack.Push(Array.Empty<object?>()); break;
                case '(': _stack.Push(new Mark()); break;
                case 't': _stack.Push(ToMark()); break;
                case '\x85': _stack.Push(Last(1)); break;
                case '\x86': _stack.Push(Last(2)); break;
                case '\x87': _stack.Push(Last(3)); break;
                case 'q': _memo[Byte()] = Peek(); break;
                case 'r': _memo[(uint)Length()] = Peek(); break;
                case 'h': _stack.Push(Recall(Byte())); break;
                case 'j': _stack.Push(Recall((uint)Length())); break;
                case 'a':
                    AddTo(Last(1));
                    break;
                case 'e': AddTo(ToMark()); break;
                case 's': SetIn(Last(2)); break;
                case 'u': SetIn(ToMark()); break;
                case 'c': _stack.Push(Named(Line(), Line())); break;
                case 'Q': _stack.Push(StorageOf(Pop())); break;
                case 'R':
                    object?[] arguments = Pop() as object?[] ?? throw Bad("a call has no tuple of arguments");
                    _stack.Push(Made(Pop(), arguments));
                    break;
                case 'b':
                    // The attributes of an ordered dictionary (_metadata: versions of modules) are of no use here.
                    Pop();
                    if (Peek() is not Dictionary<object, object?>)
                        throw Bad("it sets attributes of something other than a dictionary");
                    break;
                default:
                    throw Bad(string.Create(CultureInfo.InvariantCulture, $"it holds the opcode 0x{code:x2} at byte {_at - 1}, which no dictionary of tensors needs"));
            }
        }
    }

    private object Named(string module, string name)
    {
        if (module is "torch" && name.EndsWith("Storage", StringComparison.Ordinal) && TorchCheckpoint.BytesOf(name) > 0)
            return new StorageClass(name);
        return (module, name) switch
        {
            ("collections", "OrderedDict") => Global.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global.RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global.RebuildParameter,
            _ => throw Bad($"it names {Printable(module)}.{Printable(name)}, and only tensors and plain data are read: a pickle could run any program by such a name"),
        };
    }

    private Storage StorageOf(object? id) => id is object?[] and ["storage", StorageClass type, string key, string, long count, ..] && count >= 0
        ? new Storage(key, type.Name, count)
        : throw Bad("it refers to something other than a storage of numbers");

    private object? Made(object? callable, object?[] arguments)
    {
        switch (callable)
        {
            case Global.OrderedDict when arguments.Length == 0:
                return new Dictionary<object, object?>();
            case Global.RebuildParameter when arguments is [PickledTensor tensor, ..]:
                return tensor;
            case Global.RebuildTensor when arguments is [Storage storage, long offset, object?[] sizes, object?[] strides, ..]:
                if (sizes.Length != strides.Length || sizes.Length > MaxRank || !sizes.Concat(strides).All(one => one is >= 0L) || offset < 0)
                    throw Bad("a tensor has an impossible shape");
                return new PickledTensor(storage.Key, storage.Type, storage.Count, offset, [.. sizes.Cast<long>()], [.. strides.Cast<long>()]);
            default:
                throw Bad("it calls something with arguments that make no tensor");
        }
    }

    private void AddTo(object?[] items) => (Peek() as List<object?> ?? throw Bad("it adds to something other than a list")).AddRange(items);

    private void SetIn(object?[] items)
    {
        if (Peek() is not Dictionary<object, object?> dictionary || items.Length % 2 != 0)
            throw Bad("it sets items of something other than a dictionary");
        for (int i = 0; i < items.Length; i += 2)
            dictionary[items[i] is string or long ? items[i]! : throw Bad("a dictionary has keys other than text and whole numbers")] = items[i + 1];
    }

    private object? Recall(uint number) => _memo.TryGetValue(number, out object? value) ? value : throw Bad("it recalls what it never stored");

    private object? Pop() => _stack.Count > 0 && _stack.Pop() is not Mark and var value ? value : throw Bad("it takes more objects than it made");

    private object? Peek() => _stack.Count > 0 && _stack.Peek() is not Mark and var value ? value : throw Bad("it takes more objects than it made");

    private object?[] Last(int count)
    {
        var items = new object?[count];
        while (count > 0)
            items[--count] = Pop();
        return items;
    }

    private object?[] ToMark()
    {
        var items = new List<object?>();
        while (_stack.Count > 0)
        {
            object? value = _stack.Pop();
            if (value is Mark)
            {
                items.Reverse();
                return [.. items];
            }
            items.Add(value);
        }
        throw Bad("it ends a group that never began");
    }

    private byte Byte() => Bytes(1)[0];

    private ReadOnlySpan<byte> Bytes(int count)
    {
        if (count > _bytes.Length - _at)
            throw Bad("it is cut short");
        _at += count;
        return _bytes.AsSpan(_at - count, count);
    }

    private int Length() => BinaryPrimitives.ReadUInt32LittleEndian(Bytes(4)) is <= int.MaxValue and var length ? (int)length : throw Bad("it is cut short");

    private string Text(int length)
    {
        try
        {
            return new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(Bytes(length));
        }
        catch (DecoderFallbackException)
        {
            throw Bad("a text is not UTF-8");
        }
    }

    private string Line()
    {
        int end = _bytes.AsSpan(_at).IndexOf((byte)'\n');
        string line = Text(end >= 0 ? end : throw Bad("it is cut short"));
        _at++;
        return line;
    }

    private long LongInteger()
    {
        int length = Byte();
        ReadOnlySpan<byte> bytes = length <= 8 ? Bytes(length) : throw Bad("a whole number is too large");
        long value = length > 0 && (sbyte)bytes[^1] < 0 ? -1 : 0;
        for (int i = length - 1; i >= 0; i--)
            value = (value << 8) | bytes[i];
        return value;
    }

    // A name from a hostile file must not write control characters, nor a page, to a terminal.
    private static string Printable(string text) => new([.. text.Take(64).Select(c => c is > ' ' and < '\x7f' ? c : '?')]);

    private InvalidDataException Bad(string reason) => TorchCheckpoint.Bad(_name, reason);
}

using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace BbmrCluster.Networks.Weights;

/// <summary>A tensor as plain numbers: shape and float32 values in row-major order. Integers are widened.</summary>
/// <param name="Shape">Sizes, outermost first; empty for a scalar.</param>
/// <param name="Values">Product of the shape.</param>
public sealed record TensorData(long[] Shape, float[] Values)
{
    /// <summary>"2x3x4", for messages.</summary>
    public string ShapeText => Describe(Shape);

    internal static string Describe(IReadOnlyList<long> shape) => shape.Count == 0 ? "scalar" : string.Join('x', shape.Select(s => s.ToString(CultureInfo.InvariantCulture)));
}

/// <summary>How <see cref="SafetensorsFile"/> stores values.</summary>
public enum TensorStorage
{
    /// <summary>4 bytes, exact.</summary>
    Float32,

    /// <summary>2 bytes, 11 significant bits.</summary>
    Float16,
}

/// <summary>
/// Reads and writes the safetensors format: 8 bytes header length, a JSON header with type, shape and byte range of
/// each tensor, then the values, little-endian. The header is untrusted: every length and range is checked against
/// the file before anything is allocated from it.
/// </summary>
public sealed class SafetensorsFile
{
    private const long MaxHeader = 16 << 20;
    private const int MaxRank = 8;

    private SafetensorsFile(IReadOnlyDictionary<string, TensorData> tensors, IReadOnlyDictionary<string, string> metadata) =>
        (Tensors, Metadata) = (tensors, metadata);

    /// <summary>Tensors by name. F32, F16, BF16 and I64 are read (integers must be exact in float32 to be of use).</summary>
    public IReadOnlyDictionary<string, TensorData> Tensors { get; }

    /// <summary>The free text pairs of the header.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    private sealed record Entry(string Name, string Type, long[] Shape, long Begin, long End);

    /// <summary>Reads a file.</summary>
    /// <exception cref="InvalidDataException">Not a safetensors file, or one whose header contradicts itself or the file; one sentence naming the file.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public static SafetensorsFile Read(string path) => Parse(File.ReadAllBytes(path), path);

    /// <summary>Reads a file that lies in memory.</summary>
    /// <param name="file">The whole file.</param>
    /// <param name="name">What messages call it.</param>
    /// <exception cref="InvalidDataException">As <see cref="Read"/>.</exception>
    public static SafetensorsFile Parse(ReadOnlyMemory<byte> file, string name)
    {
        if (file.Length < 8)
            throw Bad(name, "it is shorter than the 8 bytes of a header length");
        ulong headerLength = BinaryPrimitives.ReadUInt64LittleEndian(file.Span);
        if (headerLength > MaxHeader || (long)headerLength > file.Length - 8)
            throw Bad(name, $"its header claims {headerLength} bytes of a file of {file.Length}");
        ReadOnlyMemory<byte> data = file[(8 + (int)headerLength)..];

        List<Entry> entries;
        Dictionary<string, string> metadata;
        try
        {
            (entries, metadata) = ParseHeader(file.Slice(8, (int)headerLength), name);
        }
        catch (Exception problem) when (problem is JsonException or InvalidOperationException)
        {
            // InvalidOperationException: text that is not UTF-8 surfaces only when it is read.
            throw new InvalidDataException($"{name} is not a safetensors file: its header is not JSON.", problem);
        }
        CheckLayout(entries, data.Length, name);

        var tensors = new Dictionary<string, TensorData>(StringComparer.Ordinal);
        foreach (Entry entry in entries)
            tensors.Add(entry.Name, new TensorData(entry.Shape, Decode(entry, data.Span[(int)entry.Begin..(int)entry.End])));
        return new SafetensorsFile(tensors, metadata);
    }

    private static (List<Entry> Entries, Dictionary<string, string> Metadata) ParseHeader(ReadOnlyMemory<byte> json, string name)
    {
        var entries = new List<Entry>();
        var names = new HashSet<string>(StringComparer.Ordinal);
        var metadata = new Dictionary<string, string>(StringComparer.Ordinal);
        using JsonDocument header = JsonDocument.Parse(json, new JsonDocumentOptions { MaxDepth = 8 });
        if (header.RootElement.ValueKind != JsonValueKind.Object)
            throw Bad(name, "its header is not a JSON object");

        foreach (JsonProperty property in header.RootElement.EnumerateObject())
        {
            if (!names.Add(property.Name))
                throw Bad(name, $"its header names '{property.Name}' twice");
            if (property.Value.ValueKind != JsonValueKind.Object)
                throw Bad(name, $"the header entry '{property.Name}' is not an object");
            if (string.Equals(property.Name, "__metadata__", StringComparison.Ordinal))
            {
                foreach (JsonProperty pair in property.Value.EnumerateObject())
                    metadata[pair.Name] = pair.Value.ValueKind == JsonValueKind.String ? pair.Value.GetString()! : throw Bad(name, "its metadata holds something other than text");
            }
            else
            {
                entries.Add(ParseEntry(property, name));
            }
        }
        return (entries, metadata);
    }

    private static Entry ParseEntry(JsonProperty property, string name)
    {
        string tensor = property.Name;
        if (!property.Value.TryGetProperty("dtype", out JsonElement type) || type.ValueKind != JsonValueKind.String
            || !property.Value.TryGetProperty("shape", out JsonElement shape) || shape.ValueKind != JsonValueKind.Array || shape.GetArrayLength() > MaxRank
            || !property.Value.TryGetProperty("data_offsets", out JsonElement range) || range.ValueKind != JsonValueKind.Array || range.GetArrayLength() != 2)
        {
            throw Bad(name, $"the header entry '{tensor}' lacks a type, shape or byte range");
        }

        int itemSize = type.GetString() switch
        {
            "F32" => 4,
            "F16" or "BF16" => 2,
            "I64" => 8,
            string other => throw Bad(name, $"'{tensor}' has the type {other}, and only F32, F16, BF16 and I64 are read"),
            null => throw Bad(name, $"'{tensor}' has no type"),
        };

        long[] sizes = [.. shape.EnumerateArray().Select(Size)];
        long begin = Size(range[0]), end = Size(range[1]);
        long bytes = itemSize;
        foreach (long size in sizes)
        {
            if (size != 0 && bytes > int.MaxValue / size)
                throw Bad(name, $"'{tensor}' claims the impossible shape {TensorData.Describe(sizes)}");
            bytes *= size;
        }
        if (end < begin || end - begin != bytes)
            throw Bad(name, $"'{tensor}' of shape {TensorData.Describe(sizes)} needs {bytes} bytes, but its range is {begin} to {end}");
        return new Entry(tensor, type.GetString()!, sizes, begin, end);

        long Size(JsonElement element) => element.ValueKind == JsonValueKind.Number && element.TryGetInt64(out long value) && value >= 0
            ? value
            : throw Bad(name, $"'{tensor}' has a size or offset that is not a whole number of at least 0");
    }

    private static void CheckLayout(List<Entry> entries, long dataLength, string name)
    {
        long position = 0;
        foreach (Entry entry in entries.OrderBy(e => e.Begin).ThenBy(e => e.End))
        {
            if (entry.Begin != position)
                throw Bad(name, $"'{entry.Name}' {(entry.Begin < position ? "overlaps another tensor" : "leaves a gap before it")}");
            if (entry.End > dataLength)
                throw Bad(name, $"'{entry.Name}' reaches to byte {entry.End} of {dataLength}: the file is cut short");
            position = entry.End;
        }
        if (position != dataLength)
            throw Bad(name, $"{dataLength - position} bytes at its end belong to no tensor");
    }

    private static float[] Decode(Entry entry, ReadOnlySpan<byte> bytes)
    {
        switch (entry.Type)
        {
            case "F32":
                return MemoryMarshal.Cast<byte, float>(bytes).ToArray();
            case "F16":
            {
                ReadOnlySpan<Half> halves = MemoryMarshal.Cast<byte, Half>(bytes);
                var values = new float[halves.Length];
                for (int i = 0; i < values.Length; i++)
                    values[i] = (float)halves[i];
                return values;
            }
            case "BF16":
            {
                ReadOnlySpan<ushort> halves = MemoryMarshal.Cast<byte, ushort>(bytes);
                var values = new float[halves.Length];
                for (int i = 0; i < values.Length; i++)
                    values[i] = BitConverter.UInt32BitsToSingle((uint)halves[i] << 16);
                return values;
            }
            default:
            {
                ReadOnlySpan<long> integers = MemoryMarshal.Cast<byte, long>(bytes);
                var values = new float[integers.Length];
                for (int i = 0; i < values.Length; i++)
                    values[i] = integers[i];
                return values;
            }
        }
    }

    /// <summary>Writes tensors in ordinal order of their names, to a temporary name that is then renamed. Equal tensors give equal bytes.</summary>
    /// <exception cref="ArgumentException">A tensor's values do not fit its shape.</exception>
    /// <exception cref="IOException">It cannot be written.</exception>
    public static void Write(string path, IReadOnlyDictionary<string, TensorData> tensors, IReadOnlyDictionary<string, string>? metadata = null, TensorStorage storage = TensorStorage.Float32)
    {
        string temporary = path + ".tmp";
        using (FileStream file = File.Create(temporary))
            Write(file, tensors, metadata, storage);
        File.Move(temporary, path, overwrite: true);
    }

    /// <summary>Writes tensors as the other overload does, to a stream.</summary>
    public static void Write(Stream to, IReadOnlyDictionary<string, TensorData> tensors, IReadOnlyDictionary<string, string>? metadata = null, TensorStorage storage = TensorStorage.Float32)
    {
        int itemSize = storage == TensorStorage.Float16 ? 2 : 4;
        string[] names = [.. tensors.Keys.Order(StringComparer.Ordinal)];
        using var header = new MemoryStream();
        using (var json = new Utf8JsonWriter(header))
        {
            json.WriteStartObject();
            if (metadata is { Count: > 0 })
            {
                json.WriteStartObject("__metadata__");
                foreach ((string key, string value) in metadata.OrderBy(pair => pair.Key, StringComparer.Ordinal))
                    json.WriteString(key, value);
                json.WriteEndObject();
            }
            long position = 0;
            foreach (string name in names)
            {
                TensorData tensor = tensors[name];
                if (tensor.Shape.Aggregate(1L, (product, size) => product * size) != tensor.Values.LongLength)
                    throw new ArgumentException($"'{name}' has {tensor.Values.LongLength} values for the shape {tensor.ShapeText}.", nameof(tensors));
                long end = position + (tensor.Values.LongLength * itemSize);
                json.WriteStartObject(name);
                json.WriteString("dtype", storage == TensorStorage.Float16 ? "F16" : "F32");
                json.WriteStartArray("shape");
                foreach (long size in tensor.Shape)
                    json.WriteNumberValue(size);
                json.WriteEndArray();
                json.WriteStartArray("data_offsets");
                json.WriteNumberValue(position);
                json.WriteNumberValue(end);
                json.WriteEndArray();
                json.WriteEndObject();
                position = end;
            }
            json.WriteEndObject();
        }
        while (header.Length % 8 != 0)
            header.WriteByte((byte)' ');

        Span<byte> length = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(length, (ulong)header.Length);
        to.Write(length);
        to.Write(header.GetBuffer().AsSpan(0, (int)header.Length));
        foreach (string name in names)
        {
            float[] values = tensors[name].Values;
            to.Write(storage == TensorStorage.Float16
                ? MemoryMarshal.AsBytes(Array.ConvertAll(values, value => (Half)value).AsSpan())
                : MemoryMarshal.AsBytes(values.AsSpan()));
        }
    }

    private static InvalidDataException Bad(string name, string reason) => new($"{name} is not a usable safetensors file: {reason}.");
}

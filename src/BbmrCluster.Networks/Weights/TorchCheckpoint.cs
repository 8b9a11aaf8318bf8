using System.Buffers.Binary;
using System.IO.Compression;
using System.IO.Hashing;

namespace BbmrCluster.Networks.Weights;

/// <summary>
/// Reads the checkpoints that <c>torch.save</c> writes since PyTorch 1.6: a zip archive, its entries stored as they are, with
/// one pickle that describes tensors (<see cref="TensorPickle"/>) and a file of numbers for each storage. No code of the
/// file is ever run, and memory is bounded by the file's own length: compressed entries are refused (PyTorch writes none),
/// and so are tensors that together are larger than twice the file.
/// </summary>
public static class TorchCheckpoint
{
    private const int MaxPickle = 64 << 20;

    /// <summary>Whether a file begins as a checkpoint of this form.</summary>
    public static bool IsZip(ReadOnlySpan<byte> file) => file.StartsWith("PK\x03\x04"u8) || file.StartsWith("PK\x05\x06"u8);

    /// <summary>Whether a file begins as a bare pickle: what <c>torch.save</c> wrote before PyTorch 1.6, which is not read here.</summary>
    public static bool IsBarePickle(ReadOnlySpan<byte> file) => file.Length > 2 && file[0] == 0x80 && file[1] is >= 1 and <= 5 && !MayBeSafetensors(file);

    /// <summary>Reads a file that lies in memory.</summary>
    /// <param name="file">The whole file.</param>
    /// <param name="name">What messages call it.</param>
    /// <returns>Every tensor, keys of nested dictionaries joined by dots, as float32; what is no tensor is left out.</returns>
    /// <exception cref="InvalidDataException">Not a checkpoint, or one that holds more than plain data and tensors or contradicts itself: one sentence naming the file.</exception>
    public static IReadOnlyDictionary<string, TensorData> Parse(byte[] file, string name)
    {
        try
        {
            using var archive = new ZipArchive(new MemoryStream(file, writable: false));
            var entries = new Dictionary<string, ZipArchiveEntry>(StringComparer.Ordinal);
            foreach (ZipArchiveEntry entry in archive.Entries)
            {
                if (!entries.TryAdd(entry.FullName, entry))
                    throw Bad(name, "two of its entries have the same name");
            }
            const string description = "/data.pkl";
            string[] described = [.. entries.Keys.Where(entry => entry.EndsWith(description, StringComparison.Ordinal))];
            if (described.Length != 1)
                throw Bad(name, $"it has {described.Length} entries 'data.pkl' where a checkpoint has one");
            string root = described[0][..^description.Length];
            if (entries.TryGetValue(root + "/byteorder", out ZipArchiveEntry? order) && !Content(order, 16).AsSpan().StartsWith("little"u8))
                throw Bad(name, "its numbers are not little-endian");

            IReadOnlyDictionary<string, PickledTensor> pickled = TensorPickle.Read(Content(entries[described[0]], MaxPickle), name);
            Check(pickled, entries, root, file.Length, name);
            var storages = new Dictionary<string, byte[]>(StringComparer.Ordinal);
            var tensors = new Dictionary<string, TensorData>(StringComparer.Ordinal);
            foreach ((string tensor, PickledTensor view) in pickled)
            {
                if (!storages.TryGetValue(view.Storage, out byte[]? bytes))
                    storages.Add(view.Storage, bytes = Content(entries[$"{root}/data/{view.Storage}"], file.Length));
                tensors.Add(tensor, new TensorData(view.Shape, Values(view, bytes)));
            }
            return tensors;
        }
        catch (Exception problem) when (problem is InvalidDataException && !problem.Message.StartsWith(name, StringComparison.Ordinal))
        {
            throw new InvalidDataException($"{name} is not a usable PyTorch checkpoint: it is damaged or cut short ({problem.Message.TrimEnd('.')}).", problem);
        }
        catch (Exception problem) when (problem is IOException or NotSupportedException or ArgumentException or OverflowException)
        {
            // A zip directory that points anywhere makes the library fail in several ways.
            throw new InvalidDataException($"{name} is not a usable PyTorch checkpoint: it is damaged or cut short ({problem.Message.TrimEnd('.')}).", problem);
        }

        byte[] Content(ZipArchiveEntry entry, long most)
        {
            // A stored entry is as long as its bytes in the file; a compressed one could be of any size.
            if (entry.CompressedLength != entry.Length)
                throw Bad(name, $"its entry '{Short(entry.FullName)}' is compressed, as PyTorch writes none");
            if (entry.IsEncrypted)
                throw Bad(name, $"its entry '{Short(entry.FullName)}' is encrypted");
            if (entry.Length > most)
                throw Bad(name, $"its entry '{Short(entry.FullName)}' claims {entry.Length} bytes");
            var bytes = new byte[entry.Length];
            using Stream stream = entry.Open();
            stream.ReadExactly(bytes);
            // Some writers leave the checksum out.
            if (entry.Crc32 != 0 && Crc32.HashToUInt32(bytes) != entry.Crc32)
                throw Bad(name, $"its entry '{Short(entry.FullName)}' is damaged: the checksum differs");
            return bytes;
        }
    }

    /// <summary>Bytes of a value of a storage class; 0 for one that is not read.</summary>
    internal static int BytesOf(string storage) => storage switch
    {
        "DoubleStorage" or "LongStorage" => 8,
        "FloatStorage" or "IntStorage" => 4,
        "HalfStorage" or "BFloat16Storage" or "ShortStorage" => 2,
        "ByteStorage" or "CharStorage" or "BoolStorage" => 1,
        _ => 0,
    };

    internal static InvalidDataException Bad(string name, string reason) => new($"{name} is not a usable PyTorch checkpoint: {reason}.");

    // Everything that a tensor claims is held to the file before anything is allocated from it.
    private static void Check(IReadOnlyDictionary<string, PickledTensor> tensors, Dictionary<string, ZipArchiveEntry> entries, string root, long fileLength, string name)
    {
        long total = 0, stored = 0;
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach ((string tensor, PickledTensor view) in tensors)
        {
            if (!entries.TryGetValue($"{root}/data/{view.Storage}", out ZipArchiveEntry? storage))
                throw Bad(name, $"the values of '{Short(tensor)}' are missing");
            int size = BytesOf(view.Type);
            if (view.Count > storage.Length / size || view.Count * size != storage.Length)
                throw Bad(name, $"'{Short(tensor)}' lies in a storage of {view.Count} values, but there are {storage.Length} bytes");
            // Entries of a hostile archive may share their bytes.
            if (seen.Add(view.Storage) && (stored += storage.Length) > fileLength)
                throw Bad(name, $"its storages together are larger than the file of {fileLength} bytes");
            if (view.Offset > view.Count)
                throw Bad(name, $"'{Short(tensor)}' begins behind its storage of {view.Count} values");
            long count = 1, last = view.Offset;
            bool empty = view.Shape.Contains(0);
            for (int axis = 0; axis < view.Shape.Length && !empty; axis++)
            {
                if (view.Shape[axis] > view.Count || (count *= view.Shape[axis]) > view.Count
                    || (view.Shape[axis] > 1 && (view.Strides[axis] > view.Count || (last += (view.Shape[axis] - 1) * view.Strides[axis]) >= view.Count)))
                {
                    throw Bad(name, $"'{Short(tensor)}' of shape {TensorData.Describe(view.Shape)} reaches beyond its storage of {view.Count} values");
                }
            }
            if (!empty && last >= view.Count)
                throw Bad(name, $"'{Short(tensor)}' of shape {TensorData.Describe(view.Shape)} reaches beyond its storage of {view.Count} values");
            total += empty ? 0 : count * size;
            if (total > 2 * fileLength)
                throw Bad(name, $"its tensors together are larger than twice the file of {fileLength} bytes");
        }
    }

    private static float[] Values(PickledTensor view, byte[] storage)
    {
        int rank = view.Shape.Length;
        if (view.Shape.Contains(0))
            return [];
        var values = new float[view.Shape.Aggregate(1L, (product, size) => product * size)];
        var at = new long[rank];
        long position = view.Offset;
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = Value(view.Type, storage, (int)position);
            for (int axis = rank - 1; axis >= 0; axis--)
            {
                position += view.Strides[axis];
                if (++at[axis] < view.Shape[axis])
                    break;
                position -= view.Strides[axis] * view.Shape[axis];
                at[axis] = 0;
            }
        }
        return values;
    }

    private static float Value(string type, ReadOnlySpan<byte> storage, int index) => type switch
    {
        "FloatStorage" => BinaryPrimitives.ReadSingleLittleEndian(storage[(index * 4)..]),
        "HalfStorage" => (float)BinaryPrimitives.ReadHalfLittleEndian(storage[(index * 2)..]),
        "BFloat16Storage" => BitConverter.UInt32BitsToSingle((uint)BinaryPrimitives.ReadUInt16LittleEndian(storage[(index * 2)..]) << 16),
        "DoubleStorage" => (float)BinaryPrimitives.ReadDoubleLittleEndian(storage[(index * 8)..]),
        "LongStorage" => BinaryPrimitives.ReadInt64LittleEndian(storage[(index * 8)..]),
        "IntStorage" => BinaryPrimitives.ReadInt32LittleEndian(storage[(index * 4)..]),
        "ShortStorage" => BinaryPrimitives.ReadInt16LittleEndian(storage[(index * 2)..]),
        "CharStorage" => (sbyte)storage[index],
        _ => storage[index],
    };

    /// <summary>Whether a file may be safetensors: it begins with the length of its header, whose low bytes may look like a pickle's; the header follows.</summary>
    internal static bool MayBeSafetensors(ReadOnlySpan<byte> file) => file.Length > 8 && file[8] == (byte)'{';

    private static string Short(string text) => new([.. text.Take(128).Select(c => char.IsControl(c) ? '?' : c)]);
}

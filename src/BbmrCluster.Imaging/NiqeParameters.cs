using System.Buffers.Binary;
using System.Globalization;
using System.IO.Compression;
using System.Text;
using System.Text.RegularExpressions;

namespace BbmrCluster.Imaging;

/// <summary>The parameters of the NIQE model: mean and covariance of 36 features of pristine pictures, and the window.</summary>
/// <param name="Mean">36 values.</param>
/// <param name="Covariance">36 x 36.</param>
/// <param name="Window">7 x 7, sum 1.</param>
public sealed partial record NiqeParameters(double[] Mean, double[,] Covariance, double[,] Window)
{
    internal const int Features = 36, WindowSide = 7;
    private const int MaxFileBytes = 16 << 20;

    /// <summary>Reads the original release's <c>modelparameters.mat</c> (level 5) or BasicSR's <c>niqe_pris_params.npz</c>, told apart by content.</summary>
    /// <exception cref="InvalidDataException">The file is not one of these: one sentence with its name.</exception>
    /// <exception cref="IOException">The file cannot be read.</exception>
    public static NiqeParameters Read(string path)
    {
        if (new FileInfo(path) is { Exists: true, Length: > MaxFileBytes })
            throw new InvalidDataException($"{path}: too large for NIQE parameters.");
        byte[] bytes = File.ReadAllBytes(path);
        try
        {
            Dictionary<string, Matrix> arrays = bytes.AsSpan().StartsWith("PK"u8) ? ReadNpz(bytes)
                : bytes.AsSpan().StartsWith("MATLAB 5.0"u8) ? ReadMat(bytes)
                : throw new InvalidDataException("neither an .npz archive nor a MATLAB level 5 file");
            return new NiqeParameters(
                Take(arrays, "mu", 1, Features).Values,
                Square(Take(arrays, "cov", Features, Features)),
                arrays.Keys.Any(k => k.Contains("window", StringComparison.Ordinal)) ? Square(Take(arrays, "window", WindowSide, WindowSide)) : GaussianWindow());
        }
        catch (Exception e) when (e is InvalidDataException or ArgumentException or EndOfStreamException or NotSupportedException)
        {
            throw new InvalidDataException($"{path}: these are no NIQE parameters ({e.Message.TrimEnd('.')}).", e);
        }
    }

    private static Matrix Take(Dictionary<string, Matrix> arrays, string name, int rows, int columns)
    {
        Matrix found = arrays.FirstOrDefault(a => a.Key.Contains(name, StringComparison.Ordinal)).Value
            ?? throw new InvalidDataException($"no array '{name}' in it");
        if (found.Rows != rows || found.Columns != columns || !found.Values.All(double.IsFinite))
            throw new InvalidDataException($"the array '{name}' is not {rows}x{columns} finite numbers");
        return found;
    }

    private static double[,] Square(Matrix matrix)
    {
        double[,] square = new double[matrix.Rows, matrix.Columns];
        Buffer.BlockCopy(matrix.Values, 0, square, 0, matrix.Values.Length * sizeof(double));
        return square;
    }

    /// <summary>Sigma 7/6, as the release builds it where it stores none.</summary>
    private static double[,] GaussianWindow()
    {
        double[,] window = new double[WindowSide, WindowSide];
        double sum = 0;
        for (int pass = 0; pass < 2; pass++)
        {
            for (int i = 0; i < window.Length; i++)
            {
                int y = (i / WindowSide) - (WindowSide / 2), x = (i % WindowSide) - (WindowSide / 2);
                double value = Math.Exp(-((x * x) + (y * y)) / (2 * (7.0 / 6) * (7.0 / 6)));
                if (pass == 0)
                    sum += value;
                else
                    window[i / WindowSide, i % WindowSide] = value / sum;
            }
        }

        return window;
    }

    private static Dictionary<string, Matrix> ReadNpz(byte[] bytes)
    {
        Dictionary<string, Matrix> arrays = new(StringComparer.Ordinal);
        using ZipArchive archive = new(new MemoryStream(bytes), ZipArchiveMode.Read);
        foreach (ZipArchiveEntry entry in archive.Entries.Where(e => e.Name.EndsWith(".npy", StringComparison.Ordinal)).Take(16))
        {
            using Stream stream = entry.Open();
            byte[] content = new byte[(int)Math.Min(entry.Length, 1 << 20)];
            stream.ReadExactly(content);
            arrays[Path.GetFileNameWithoutExtension(entry.Name)] = ReadNpy(content);
        }

        return arrays;
    }

    private static Matrix ReadNpy(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < 12 || bytes[0] != 0x93 || !bytes[1..].StartsWith("NUMPY"u8))
            throw new InvalidDataException("an entry is no .npy array");
        int lengthBytes = bytes[6] == 1 ? 2 : 4;
        long headerLength = lengthBytes == 2 ? BinaryPrimitives.ReadUInt16LittleEndian(bytes[8..]) : BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
        int start = 8 + lengthBytes;
        if (headerLength > bytes.Length - start)
            throw new InvalidDataException("an array's header is longer than the array");
        string header = Encoding.ASCII.GetString(bytes.Slice(start, (int)headerLength));
        Match shape = NpyShape().Match(header);
        if (!header.Contains("'<f8'", StringComparison.Ordinal) || !shape.Success)
            throw new InvalidDataException("an array is not a matrix of 64-bit numbers");
        int rows = int.Parse(shape.Groups["rows"].ValueSpan, CultureInfo.InvariantCulture), columns = int.Parse(shape.Groups["columns"].ValueSpan, CultureInfo.InvariantCulture);
        bool columnsFirst = header.Contains("'fortran_order': True", StringComparison.Ordinal);
        return Matrix.FromBytes(rows, columns, bytes[(start + (int)headerLength)..], columnsFirst);
    }

    [GeneratedRegex(@"'shape': \((?<rows>\d{1,3}), (?<columns>\d{1,3})\)", RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, 1000)]
    private static partial Regex NpyShape();

    /// <summary>
    /// Level 5: elements of type, length, data, padded to 8 bytes; short ones have both numbers in four bytes. Matrices of
    /// real numbers are taken, everything else is passed over.
    /// </summary>
    private static Dictionary<string, Matrix> ReadMat(byte[] bytes)
    {
        if (bytes.Length < 128 || bytes[126] != 'I' || bytes[127] != 'M')
            throw new InvalidDataException("the MATLAB file is not little-endian");
        Dictionary<string, Matrix> arrays = new(StringComparer.Ordinal);
        ReadOnlyMemory<byte> rest = bytes.AsMemory(128);
        while (rest.Length >= 8)
        {
            MatElement element = MatElement.Next(ref rest);
            if (element.Type == MatElement.Compressed)
            {
                using ZLibStream inflated = new(new MemoryStream(element.Data.ToArray()), CompressionMode.Decompress);
                byte[] buffer = new byte[1 << 20];
                ReadOnlyMemory<byte> inner = buffer.AsMemory(0, inflated.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false));
                element = MatElement.Next(ref inner);
            }

            if (element.Type == MatElement.Array)
                ReadMatArray(element.Content, arrays);
        }

        return arrays;
    }

    private static void ReadMatArray(ReadOnlyMemory<byte> data, Dictionary<string, Matrix> arrays)
    {
        const byte DoubleClass = 6;
        MatElement flags = MatElement.Next(ref data), sizes = MatElement.Next(ref data), name = MatElement.Next(ref data);
        if (flags.Data.Length < 8 || flags.Data[0] != DoubleClass || sizes.Data.Length != 8)
            return;
        int rows = BinaryPrimitives.ReadInt32LittleEndian(sizes.Data), columns = BinaryPrimitives.ReadInt32LittleEndian(sizes.Data[4..]);
        if (rows is < 1 or > 999 || columns is < 1 or > 999)
            throw new InvalidDataException("an array has a strange size");
        MatElement values = MatElement.Next(ref data);
        if (values.Type != MatElement.Double)
            throw new InvalidDataException("an array is not of 64-bit numbers");
        arrays[Encoding.ASCII.GetString(name.Data)] = Matrix.FromBytes(rows, columns, values.Data, columnsFirst: true);
    }

    private sealed record Matrix(int Rows, int Columns, double[] Values)
    {
        public static Matrix FromBytes(int rows, int columns, ReadOnlySpan<byte> bytes, bool columnsFirst)
        {
            if (bytes.Length != rows * columns * sizeof(double))
                throw new InvalidDataException($"an array of {rows}x{columns} numbers has {bytes.Length} bytes");
            double[] values = new double[rows * columns];
            for (int i = 0; i < values.Length; i++)
            {
                int stored = columnsFirst ? (i % columns * rows) + (i / columns) : i;
                values[i] = BinaryPrimitives.ReadDoubleLittleEndian(bytes[(stored * sizeof(double))..]);
            }

            return new Matrix(rows, columns, values);
        }
    }

    private sealed class MatElement(uint type, ReadOnlyMemory<byte> content)
    {
        public const uint Double = 9, Array = 14, Compressed = 15;

        public uint Type { get; } = type;

        public ReadOnlyMemory<byte> Content { get; } = content;

        public ReadOnlySpan<byte> Data => Content.Span;

        public static MatElement Next(ref ReadOnlyMemory<byte> rest)
        {
            if (rest.Length < 8)
                throw new InvalidDataException("the file ends in the middle of an array");
            uint first = BinaryPrimitives.ReadUInt32LittleEndian(rest.Span);
            bool small = first >> 16 != 0;
            uint type = small ? first & 0xFFFF : first, length = small ? first >> 16 : BinaryPrimitives.ReadUInt32LittleEndian(rest.Span[4..]);
            int start = small ? 4 : 8;
            if (length > rest.Length - start || (small && length > 4))
                throw new InvalidDataException("the file ends in the middle of an array");
            ReadOnlyMemory<byte> content = rest.Slice(start, (int)length);
            int end = small ? 8 : type == Compressed ? start + (int)length : start + (((int)length + 7) / 8 * 8);
            rest = rest[Math.Min(end, rest.Length)..];
            return new MatElement(type, content);
        }
    }
}

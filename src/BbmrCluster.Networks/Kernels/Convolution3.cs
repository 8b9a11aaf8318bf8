using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using static TorchSharp.torch;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>Takes a finished row of a convolution.</summary>
/// <param name="image">Image of the batch.</param>
/// <param name="row">Row of the image.</param>
/// <param name="values">Width x outputs (rounded up to a multiple of 16), valid during the call.</param>
internal unsafe delegate void RowSink(int image, int row, float* values);

/// <summary>
/// 3x3 convolution with zero padding in float32 over maps with the channels last, whatever their number. Three pixels of
/// a row lie side by side, so each row of the kernel is one matrix product over overlapping left rows.
/// </summary>
internal sealed unsafe class Convolution3 : IDisposable
{
    private readonly FloatProduct[] _rows = new FloatProduct[3];
    private readonly NativeFloats _bias;
    private readonly int _inputs;
    private NativeFloats? _scratch;

    /// <summary>Prepares weights.</summary>
    /// <param name="weight">outputs x inputs x 3 x 3, row-major.</param>
    /// <param name="bias">Outputs, or empty.</param>
    /// <param name="inputs">Channels of the map.</param>
    /// <param name="outputs">Channels of the result.</param>
    public Convolution3(ReadOnlySpan<float> weight, ReadOnlySpan<float> bias, int inputs, int outputs)
    {
        _inputs = inputs;
        var part = new float[3 * inputs * outputs];
        for (int y = 0; y < 3; y++)
        {
            for (int o = 0; o < outputs; o++)
            {
                for (int i = 0; i < inputs; i++)
                {
                    for (int x = 0; x < 3; x++)
                        part[(((x * inputs) + i) * outputs) + o] = weight[(((o * inputs) + i) * 9) + (y * 3) + x];
                }
            }
            _rows[y] = new FloatProduct(part, 3 * inputs, outputs);
        }
        _bias = new NativeFloats(_rows[0].Outputs);
        bias.CopyTo(new Span<float>(_bias.Pointer, outputs));
    }

    /// <summary>Convolves a map once, (B, H, W, C) float32 contiguous; the caller owns the result.</summary>
    public static Tensor Run(Tensor x, Tensor weight, Tensor? bias)
    {
        using var scope = NewDisposeScope();
        long[] shape = x.shape;
        int inputs = (int)shape[3], outputs = (int)weight.shape[0], width = (int)shape[2];
        using var convolution = new Convolution3(Values(weight.contiguous()), bias is null ? [] : Values(bias.contiguous()), inputs, outputs);
        Tensor result = empty([shape[0], shape[1], width, outputs], ScalarType.Float32);
        float* to = Address(result);
        convolution.Run(Address(x), inputs, (int)shape[0], (int)shape[1], width, (image, y, values) =>
        {
            float* line = to + (((image * shape[1]) + y) * width * outputs);
            for (int column = 0; column < width; column++, line += outputs, values += convolution.Outputs)
                Buffer.MemoryCopy(values, line, outputs * sizeof(float), outputs * sizeof(float));
        });
        return result.MoveToOuterDisposeScope();

        static ReadOnlySpan<float> Values(Tensor tensor) => MemoryMarshal.Cast<byte, float>(tensor.bytes);

        static float* Address(Tensor tensor) => (float*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(tensor.bytes));
    }

    /// <summary>Length of a result pixel.</summary>
    public int Outputs => _rows[0].Outputs;

    /// <summary>Convolves a batch of maps, row after row.</summary>
    /// <typeparam name="T">float, or ushort for bfloat16.</typeparam>
    /// <param name="maps">images x height x width pixels.</param>
    /// <param name="stride">From one pixel to the next, at least the inputs.</param>
    /// <param name="images">Maps.</param>
    /// <param name="height">Rows of a map.</param>
    /// <param name="width">Columns of a map.</param>
    /// <param name="sink">Gets every row once, in order.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Run<T>(T* maps, int stride, int images, int height, int width, RowSink sink)
        where T : unmanaged
    {
        int line = (width + 2) * _inputs, result = width * Outputs;
        if (_scratch is null || _scratch.Count < (3 * line) + result)
        {
            _scratch?.Dispose();
            _scratch = new NativeFloats((3 * line) + result);
        }
        float* lines = _scratch.Pointer, values = lines + (3 * line);
        for (int image = 0; image < images; image++)
        {
            T* map = maps + ((long)image * height * width * stride);
            Fill(map, 0);
            for (int y = 0; y < height; y++)
            {
                if (y + 1 < height)
                    Fill(map, y + 1);
                for (int x = 0; x < width; x++)
                    Buffer.MemoryCopy(_bias.Pointer, values + (x * Outputs), Outputs * sizeof(float), Outputs * sizeof(float));
                for (int k = Math.Max(0, 1 - y); k < Math.Min(3, height - y + 1); k++)
                    _rows[k].Accumulate(lines + ((y + k - 1) % 3 * line), _inputs, values, Outputs, width);
                sink(image, y, values);
            }
        }

        void Fill(T* map, int y)
        {
            float* to = lines + (y % 3 * line);
            NativeMemory.Clear(to, (nuint)_inputs * sizeof(float));
            NativeMemory.Clear(to + line - _inputs, (nuint)_inputs * sizeof(float));
            T* from = map + ((long)y * width * stride);
            to += _inputs;
            if (stride == _inputs)
            {
                Widen(from, to, width * _inputs);
                return;
            }
            for (int x = 0; x < width; x++, from += stride, to += _inputs)
                Widen(from, to, _inputs);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (FloatProduct row in _rows)
            row.Dispose();
        _bias.Dispose();
        _scratch?.Dispose();
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Widen<T>(T* from, float* to, int count)
        where T : unmanaged
    {
        int i = 0;
        for (; i + Lanes <= count; i += Lanes)
            Load(from + i).Store(to + i);
        for (; i < count; i++)
            to[i] = LoadScalar(from + i);
    }
}

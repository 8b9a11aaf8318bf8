using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Kernels;

/// <summary>Takes a finished row of a convolution; on several threads at once where there are shares, each with rows that follow one another.</summary>
/// <param name="share">Number of the share, for scratch of its own.</param>
/// <param name="image">Image of the batch.</param>
/// <param name="row">Row of the image.</param>
/// <param name="values">Width x outputs (rounded up to whole vectors), valid during the call.</param>
internal unsafe delegate void RowSink(int share, int image, int row, float* values);

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
        convolution.Run(Address(x), inputs, (int)shape[0], (int)shape[1], width, (_, image, y, values) =>
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
    /// <typeparam name="T">float or <see cref="BFloat16"/>.</typeparam>
    /// <param name="maps">images x height x width pixels.</param>
    /// <param name="stride">From one pixel to the next, at least the inputs.</param>
    /// <param name="images">Maps.</param>
    /// <param name="height">Rows of a map.</param>
    /// <param name="width">Columns of a map.</param>
    /// <param name="sink">Gets every row once.</param>
    /// <param name="inOrder">On one thread and in order, for a sink that writes what has been read.</param>
    public void Run<T>(T* maps, int stride, int images, int height, int width, RowSink sink, bool inOrder = false)
        where T : unmanaged
    {
        int scratch = (3 * (width + 2) * _inputs) + (width * Outputs), shares = inOrder ? 1 : SharesOf(images, height, width);
        if (_scratch is null || _scratch.Count < shares * (long)scratch)
        {
            _scratch?.Dispose();
            _scratch = new NativeFloats(shares * (long)scratch);
        }
        float* lines = _scratch.Pointer;
        Shares.Run(shares, images * height, (share, first, count) => Run(maps, stride, height, width, share, first, count, lines + (share * (long)scratch), sink));
    }

    /// <summary>Shares of a call.</summary>
    public int SharesOf(int images, int height, int width) => Shares.Count(images * height, (long)width * 3 * _inputs);

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Run<T>(T* maps, int stride, int height, int width, int share, int first, int count, float* lines, RowSink sink)
        where T : unmanaged
    {
        int line = (width + 2) * _inputs;
        float* values = lines + (3 * line);
        for (int row = first; row < first + count; row++)
        {
            int y = row % height;
            T* map = maps + ((long)(row - y) * width * stride);
            if (row == first || y == 0)
            {
                if (y > 0)
                    Fill(map, y - 1);
                Fill(map, y);
            }
            if (y + 1 < height)
                Fill(map, y + 1);
            float* start = _bias.Pointer;
            int startStride = 0;
            for (int k = Math.Max(0, 1 - y); k < Math.Min(3, height - y + 1); k++)
            {
                _rows[k].Run(lines + ((y + k - 1) % 3 * line), _inputs, start, startStride, values, Outputs, width);
                start = values;
                startStride = Outputs;
            }
            sink(share, row / height, y, values);
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
                Elementwise.Convert(from, to, width * _inputs);
                return;
            }
            for (int x = 0; x < width; x++, from += stride, to += _inputs)
                Elementwise.Convert(from, to, _inputs);
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
}

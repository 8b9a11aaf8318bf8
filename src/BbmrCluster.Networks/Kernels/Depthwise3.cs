using System.Runtime.CompilerServices;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Depthwise 3x3 convolution with zero padding over maps with the channels last (a multiple of 16), together with what
/// follows it. Each column of a row is loaded once and added to the three results it belongs to.
/// </summary>
internal sealed unsafe class Depthwise3 : IDisposable
{
    private readonly NativeFloats _weights, _bias;
    private readonly int _channels;
    private NativeFloats? _zeros, _rowSums;

    /// <summary>Prepares weights.</summary>
    /// <param name="weight">channels x 3 x 3, row-major.</param>
    /// <param name="bias">Channels, or empty.</param>
    /// <param name="channels">A multiple of 16.</param>
    public Depthwise3(ReadOnlySpan<float> weight, ReadOnlySpan<float> bias, int channels)
    {
        _channels = channels;
        _weights = new NativeFloats(channels * 9);
        int lanes = Floats.Count;
        for (int c = 0; c < channels; c++)
        {
            for (int tap = 0; tap < 9; tap++)
                _weights.Pointer[(c / lanes * 9 * lanes) + (tap * lanes) + (c % lanes)] = weight[(c * 9) + tap];
        }
        _bias = new NativeFloats(channels);
        bias.CopyTo(new Span<float>(_bias.Pointer, channels));
    }

    /// <summary>Convolution and bias; added to what is there where wanted.</summary>
    /// <typeparam name="T">float or <see cref="BFloat16"/>.</typeparam>
    /// <param name="from">images x height x width pixels.</param>
    /// <param name="fromStride">From one pixel to the next.</param>
    /// <param name="to">As many pixels; another place.</param>
    /// <param name="toStride">From one pixel to the next.</param>
    /// <param name="images">Maps.</param>
    /// <param name="height">Rows of a map.</param>
    /// <param name="width">Columns of a map.</param>
    /// <param name="add">Add to the values at <paramref name="to"/>.</param>
    public void Run<T>(T* from, int fromStride, T* to, int toStride, int images, int height, int width, bool add = false)
        where T : unmanaged
    {
        T* zeros = Zeros<T>(width * fromStride);
        Shares.Run(images * height, (long)width * _channels, (first, count) =>
        {
            if (Floats.Wide)
                RunRows<Floats16, T>(from, fromStride, to, toStride, zeros, first, count, height, width, add);
            else
                RunRows<Floats8, T>(from, fromStride, to, toStride, zeros, first, count, height, width, add);
        });
    }

    /// <summary>Convolution, bias and GELU; parameters as <see cref="Run"/>.</summary>
    /// <param name="from">See there.</param>
    /// <param name="to">See there.</param>
    /// <param name="images">See there.</param>
    /// <param name="height">See there.</param>
    /// <param name="width">See there.</param>
    /// <param name="sums">images x channels, to which the results of every image are added.</param>
    public void Gelu<T>(T* from, T* to, int images, int height, int width, float* sums)
        where T : unmanaged
    {
        T* zeros = Zeros<T>(width * _channels);
        // Summed row by row first: the order must not depend on where shares meet.
        if (_rowSums is null || _rowSums.Count < images * height * _channels)
        {
            _rowSums?.Dispose();
            _rowSums = new NativeFloats(images * height * _channels);
        }
        float* rowSums = _rowSums.Pointer;
        Shares.Run(images * height, (long)width * _channels, (first, count) =>
        {
            if (Floats.Wide)
                GeluRows<Floats16, T>(from, to, zeros, first, count, height, width, rowSums);
            else
                GeluRows<Floats8, T>(from, to, zeros, first, count, height, width, rowSums);
        });
        for (int row = 0; row < images * height; row++)
        {
            for (int c = 0; c < _channels; c++)
                sums[(row / height * _channels) + c] += rowSums[(row * _channels) + c];
        }
    }

    /// <summary>Convolution, then GELU of the first half of the channels times the second half; half as many channels result.</summary>
    /// <param name="from">See <see cref="Run"/>.</param>
    /// <param name="to">See there.</param>
    /// <param name="images">See there.</param>
    /// <param name="height">See there.</param>
    /// <param name="width">See there.</param>
    public void Gate<T>(T* from, T* to, int images, int height, int width)
        where T : unmanaged
    {
        T* zeros = Zeros<T>(width * _channels);
        Shares.Run(images * height, (long)width * _channels, (first, count) =>
        {
            if (Floats.Wide)
                GateRows<Floats16, T>(from, to, zeros, first, count, height, width);
            else
                GateRows<Floats8, T>(from, to, zeros, first, count, height, width);
        });
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _weights.Dispose();
        _bias.Dispose();
        _zeros?.Dispose();
        _rowSums?.Dispose();
    }

    /// <summary>The lines above, at and below a row; zeros beyond its image.</summary>
    private static void Rows<T>(T* from, int row, int height, int line, T* zeros, out T* above, out T* here, out T* below)
        where T : unmanaged
    {
        int y = row % height;
        here = from + ((long)row * line);
        above = y == 0 ? zeros : here - line;
        below = y == height - 1 ? zeros : here + line;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void RunRows<V, T>(T* from, int fromStride, T* to, int toStride, T* zeros, int first, int count, int height, int width, bool add)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        for (int row = first; row < first + count; row++)
        {
            Rows(from, row, height, width * fromStride, zeros, out T* above, out T* here, out T* below);
            T* result = to + ((long)row * width * toStride);
            for (int c = 0; c < _channels; c += V.Count)
                Plain<V, T>(above + c, here + c, below + c, fromStride, result + c, toStride, width, _weights.Pointer + (c * 9), _bias.Pointer + c, add);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void GeluRows<V, T>(T* from, T* to, T* zeros, int first, int count, int height, int width, float* rowSums)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        for (int row = first; row < first + count; row++)
        {
            Rows(from, row, height, width * _channels, zeros, out T* above, out T* here, out T* below);
            T* result = to + ((long)row * width * _channels);
            for (int c = 0; c < _channels; c += V.Count)
                Activated<V, T>(above + c, here + c, below + c, _channels, result + c, width, _weights.Pointer + (c * 9), _bias.Pointer + c, rowSums + (row * _channels) + c);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void GateRows<V, T>(T* from, T* to, T* zeros, int first, int count, int height, int width)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        int half = _channels / 2;
        for (int row = first; row < first + count; row++)
        {
            Rows(from, row, height, width * _channels, zeros, out T* above, out T* here, out T* below);
            T* result = to + ((long)row * width * half);
            for (int c = 0; c < half; c += V.Count)
                Gated<V, T>(above + c, here + c, below + c, half, result + c, width, _weights.Pointer + (c * 9), _weights.Pointer + ((c + half) * 9));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Plain<V, T>(T* above, T* here, T* below, int stride, T* to, int toStride, int width, float* w, float* bias, bool add)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        int n = V.Count;
        V w0 = V.Load(w), w1 = V.Load(w + n), w2 = V.Load(w + (2 * n)), w3 = V.Load(w + (3 * n)), w4 = V.Load(w + (4 * n)),
            w5 = V.Load(w + (5 * n)), w6 = V.Load(w + (6 * n)), w7 = V.Load(w + (7 * n)), w8 = V.Load(w + (8 * n)), start = V.Load(bias);
        V a = V.Load(above), b = V.Load(here), c = V.Load(below);
        V current = V.MultiplyAdd(a, w1, V.MultiplyAdd(b, w4, V.MultiplyAdd(c, w7, start)));
        V next = V.MultiplyAdd(a, w0, V.MultiplyAdd(b, w3, V.MultiplyAdd(c, w6, start)));
        for (int x = 1; x < width; x++)
        {
            above += stride;
            here += stride;
            below += stride;
            a = V.Load(above);
            b = V.Load(here);
            c = V.Load(below);
            V done = V.MultiplyAdd(a, w2, V.MultiplyAdd(b, w5, V.MultiplyAdd(c, w8, current)));
            current = V.MultiplyAdd(a, w1, V.MultiplyAdd(b, w4, V.MultiplyAdd(c, w7, next)));
            next = V.MultiplyAdd(a, w0, V.MultiplyAdd(b, w3, V.MultiplyAdd(c, w6, start)));
            V.Store(add ? done + V.Load(to) : done, to);
            to += toStride;
        }
        V.Store(add ? current + V.Load(to) : current, to);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Activated<V, T>(T* above, T* here, T* below, int stride, T* to, int width, float* w, float* bias, float* sums)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        int n = V.Count;
        V w0 = V.Load(w), w1 = V.Load(w + n), w2 = V.Load(w + (2 * n)), w3 = V.Load(w + (3 * n)), w4 = V.Load(w + (4 * n)),
            w5 = V.Load(w + (5 * n)), w6 = V.Load(w + (6 * n)), w7 = V.Load(w + (7 * n)), w8 = V.Load(w + (8 * n)), start = V.Load(bias);
        V a = V.Load(above), b = V.Load(here), c = V.Load(below), sum = default;
        V current = V.MultiplyAdd(a, w1, V.MultiplyAdd(b, w4, V.MultiplyAdd(c, w7, start)));
        V next = V.MultiplyAdd(a, w0, V.MultiplyAdd(b, w3, V.MultiplyAdd(c, w6, start)));
        for (int x = 1; x < width; x++)
        {
            above += stride;
            here += stride;
            below += stride;
            a = V.Load(above);
            b = V.Load(here);
            c = V.Load(below);
            V done = VectorMath.Gelu<V, T>(V.MultiplyAdd(a, w2, V.MultiplyAdd(b, w5, V.MultiplyAdd(c, w8, current))));
            current = V.MultiplyAdd(a, w1, V.MultiplyAdd(b, w4, V.MultiplyAdd(c, w7, next)));
            next = V.MultiplyAdd(a, w0, V.MultiplyAdd(b, w3, V.MultiplyAdd(c, w6, start)));
            sum += done;
            V.Store(done, to);
            to += stride;
        }
        V last = VectorMath.Gelu<V, T>(current);
        V.Store(sum + last, sums);
        V.Store(last, to);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Gated<V, T>(T* above, T* here, T* below, int half, T* to, int width, float* w, float* v)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        int n = V.Count;
        V w0 = V.Load(w), w1 = V.Load(w + n), w2 = V.Load(w + (2 * n)), w3 = V.Load(w + (3 * n)), w4 = V.Load(w + (4 * n)),
            w5 = V.Load(w + (5 * n)), w6 = V.Load(w + (6 * n)), w7 = V.Load(w + (7 * n)), w8 = V.Load(w + (8 * n));
        V v0 = V.Load(v), v1 = V.Load(v + n), v2 = V.Load(v + (2 * n)), v3 = V.Load(v + (3 * n)), v4 = V.Load(v + (4 * n)),
            v5 = V.Load(v + (5 * n)), v6 = V.Load(v + (6 * n)), v7 = V.Load(v + (7 * n)), v8 = V.Load(v + (8 * n));
        int stride = 2 * half;
        V a = V.Load(above), b = V.Load(here), c = V.Load(below);
        V current = V.MultiplyAdd(a, w1, V.MultiplyAdd(b, w4, c * w7)), next = V.MultiplyAdd(a, w0, V.MultiplyAdd(b, w3, c * w6));
        a = V.Load(above + half);
        b = V.Load(here + half);
        c = V.Load(below + half);
        V gateCurrent = V.MultiplyAdd(a, v1, V.MultiplyAdd(b, v4, c * v7)), gateNext = V.MultiplyAdd(a, v0, V.MultiplyAdd(b, v3, c * v6));
        for (int x = 1; x < width; x++)
        {
            above += stride;
            here += stride;
            below += stride;
            a = V.Load(above);
            b = V.Load(here);
            c = V.Load(below);
            V done = V.MultiplyAdd(a, w2, V.MultiplyAdd(b, w5, V.MultiplyAdd(c, w8, current)));
            current = V.MultiplyAdd(a, w1, V.MultiplyAdd(b, w4, V.MultiplyAdd(c, w7, next)));
            next = V.MultiplyAdd(a, w0, V.MultiplyAdd(b, w3, c * w6));
            a = V.Load(above + half);
            b = V.Load(here + half);
            c = V.Load(below + half);
            V gate = V.MultiplyAdd(a, v2, V.MultiplyAdd(b, v5, V.MultiplyAdd(c, v8, gateCurrent)));
            gateCurrent = V.MultiplyAdd(a, v1, V.MultiplyAdd(b, v4, V.MultiplyAdd(c, v7, gateNext)));
            gateNext = V.MultiplyAdd(a, v0, V.MultiplyAdd(b, v3, c * v6));
            V.Store(VectorMath.Gelu<V, T>(done) * gate, to);
            to += half;
        }
        V.Store(VectorMath.Gelu<V, T>(current) * gateCurrent, to);
    }

    private T* Zeros<T>(int values)
        where T : unmanaged
    {
        if (_zeros is null || _zeros.Count < values)
        {
            _zeros?.Dispose();
            _zeros = new NativeFloats(values);
        }
        return (T*)_zeros.Pointer;
    }
}

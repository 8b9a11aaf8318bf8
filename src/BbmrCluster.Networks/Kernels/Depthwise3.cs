using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Depthwise 3x3 convolution with zero padding over maps with the channels last (a multiple of 16), together with what
/// follows it. Each column of a row is loaded once and added to the three results it belongs to.
/// </summary>
internal sealed unsafe class Depthwise3 : IDisposable
{
    private const int Taps = 9 * Lanes;

    private readonly NativeFloats _weights, _bias;
    private readonly int _channels;
    private NativeFloats? _zeros;

    /// <summary>Prepares weights.</summary>
    /// <param name="weight">channels x 3 x 3, row-major.</param>
    /// <param name="bias">Channels, or empty.</param>
    /// <param name="channels">A multiple of 16.</param>
    public Depthwise3(ReadOnlySpan<float> weight, ReadOnlySpan<float> bias, int channels)
    {
        _channels = channels;
        _weights = new NativeFloats(channels * 9);
        for (int c = 0; c < channels; c++)
        {
            for (int tap = 0; tap < 9; tap++)
                _weights.Pointer[(c / Lanes * Taps) + (tap * Lanes) + (c % Lanes)] = weight[(c * 9) + tap];
        }
        _bias = new NativeFloats(channels);
        bias.CopyTo(new Span<float>(_bias.Pointer, channels));
    }

    /// <summary>Convolution and bias; added to what is there where wanted.</summary>
    /// <typeparam name="T">float, or ushort for bfloat16.</typeparam>
    /// <param name="from">images x height x width pixels.</param>
    /// <param name="fromStride">From one pixel to the next.</param>
    /// <param name="to">As many pixels; another place.</param>
    /// <param name="toStride">From one pixel to the next.</param>
    /// <param name="images">Maps.</param>
    /// <param name="height">Rows of a map.</param>
    /// <param name="width">Columns of a map.</param>
    /// <param name="add">Add to the values at <paramref name="to"/>.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Run<T>(T* from, int fromStride, T* to, int toStride, int images, int height, int width, bool add = false)
        where T : unmanaged
    {
        T* zeros = Zeros<T>(width * fromStride);
        for (int row = 0; row < images * height; row++)
        {
            Rows(from, row, height, width * fromStride, zeros, out T* above, out T* here, out T* below);
            T* result = to + ((long)row * width * toStride);
            for (int c = 0; c < _channels; c += Lanes)
                Plain(above + c, here + c, below + c, fromStride, result + c, toStride, width, _weights.Pointer + (c / Lanes * Taps), _bias.Pointer + c, add);
        }
    }

    /// <summary>Convolution, bias and GELU; parameters as <see cref="Run"/>.</summary>
    /// <param name="from">See there.</param>
    /// <param name="to">See there.</param>
    /// <param name="images">See there.</param>
    /// <param name="height">See there.</param>
    /// <param name="width">See there.</param>
    /// <param name="sums">images x channels, to which the results of every image are added.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Gelu<T>(T* from, T* to, int images, int height, int width, float* sums)
        where T : unmanaged
    {
        T* zeros = Zeros<T>(width * _channels);
        for (int row = 0; row < images * height; row++)
        {
            Rows(from, row, height, width * _channels, zeros, out T* above, out T* here, out T* below);
            T* result = to + ((long)row * width * _channels);
            for (int c = 0; c < _channels; c += Lanes)
                Activated(above + c, here + c, below + c, _channels, result + c, width, _weights.Pointer + (c / Lanes * Taps), _bias.Pointer + c, sums + (row / height * _channels) + c);
        }
    }

    /// <summary>Convolution, then GELU of the first half of the channels times the second half; half as many channels result.</summary>
    /// <param name="from">See <see cref="Run"/>.</param>
    /// <param name="to">See there.</param>
    /// <param name="images">See there.</param>
    /// <param name="height">See there.</param>
    /// <param name="width">See there.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Gate<T>(T* from, T* to, int images, int height, int width)
        where T : unmanaged
    {
        int half = _channels / 2;
        T* zeros = Zeros<T>(width * _channels);
        for (int row = 0; row < images * height; row++)
        {
            Rows(from, row, height, width * _channels, zeros, out T* above, out T* here, out T* below);
            T* result = to + ((long)row * width * half);
            for (int c = 0; c < half; c += Lanes)
                Gated(above + c, here + c, below + c, half, result + c, width, _weights.Pointer + (c / Lanes * Taps), _weights.Pointer + ((c + half) / Lanes * Taps));
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _weights.Dispose();
        _bias.Dispose();
        _zeros?.Dispose();
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
    private static void Plain<T>(T* above, T* here, T* below, int stride, T* to, int toStride, int width, float* w, float* bias, bool add)
        where T : unmanaged
    {
        Vector512<float> w0 = Vector512.Load(w), w1 = Vector512.Load(w + 16), w2 = Vector512.Load(w + 32), w3 = Vector512.Load(w + 48), w4 = Vector512.Load(w + 64),
            w5 = Vector512.Load(w + 80), w6 = Vector512.Load(w + 96), w7 = Vector512.Load(w + 112), w8 = Vector512.Load(w + 128), start = Vector512.Load(bias);
        Vector512<float> a = Load(above), b = Load(here), c = Load(below);
        Vector512<float> current = MultiplyAdd(a, w1, MultiplyAdd(b, w4, MultiplyAdd(c, w7, start)));
        Vector512<float> next = MultiplyAdd(a, w0, MultiplyAdd(b, w3, MultiplyAdd(c, w6, start)));
        for (int x = 1; x < width; x++)
        {
            above += stride;
            here += stride;
            below += stride;
            a = Load(above);
            b = Load(here);
            c = Load(below);
            Vector512<float> done = MultiplyAdd(a, w2, MultiplyAdd(b, w5, MultiplyAdd(c, w8, current)));
            current = MultiplyAdd(a, w1, MultiplyAdd(b, w4, MultiplyAdd(c, w7, next)));
            next = MultiplyAdd(a, w0, MultiplyAdd(b, w3, MultiplyAdd(c, w6, start)));
            Store(add ? done + Load(to) : done, to);
            to += toStride;
        }
        Store(add ? current + Load(to) : current, to);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Activated<T>(T* above, T* here, T* below, int stride, T* to, int width, float* w, float* bias, float* sums)
        where T : unmanaged
    {
        Vector512<float> w0 = Vector512.Load(w), w1 = Vector512.Load(w + 16), w2 = Vector512.Load(w + 32), w3 = Vector512.Load(w + 48), w4 = Vector512.Load(w + 64),
            w5 = Vector512.Load(w + 80), w6 = Vector512.Load(w + 96), w7 = Vector512.Load(w + 112), w8 = Vector512.Load(w + 128), start = Vector512.Load(bias);
        Vector512<float> a = Load(above), b = Load(here), c = Load(below), sum = Vector512.Load(sums);
        Vector512<float> current = MultiplyAdd(a, w1, MultiplyAdd(b, w4, MultiplyAdd(c, w7, start)));
        Vector512<float> next = MultiplyAdd(a, w0, MultiplyAdd(b, w3, MultiplyAdd(c, w6, start)));
        for (int x = 1; x < width; x++)
        {
            above += stride;
            here += stride;
            below += stride;
            a = Load(above);
            b = Load(here);
            c = Load(below);
            Vector512<float> done = VectorMath.Gelu<T>(MultiplyAdd(a, w2, MultiplyAdd(b, w5, MultiplyAdd(c, w8, current))));
            current = MultiplyAdd(a, w1, MultiplyAdd(b, w4, MultiplyAdd(c, w7, next)));
            next = MultiplyAdd(a, w0, MultiplyAdd(b, w3, MultiplyAdd(c, w6, start)));
            sum += done;
            Store(done, to);
            to += stride;
        }
        Vector512<float> last = VectorMath.Gelu<T>(current);
        (sum + last).Store(sums);
        Store(last, to);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Gated<T>(T* above, T* here, T* below, int half, T* to, int width, float* w, float* v)
        where T : unmanaged
    {
        Vector512<float> w0 = Vector512.Load(w), w1 = Vector512.Load(w + 16), w2 = Vector512.Load(w + 32), w3 = Vector512.Load(w + 48), w4 = Vector512.Load(w + 64),
            w5 = Vector512.Load(w + 80), w6 = Vector512.Load(w + 96), w7 = Vector512.Load(w + 112), w8 = Vector512.Load(w + 128);
        Vector512<float> v0 = Vector512.Load(v), v1 = Vector512.Load(v + 16), v2 = Vector512.Load(v + 32), v3 = Vector512.Load(v + 48), v4 = Vector512.Load(v + 64),
            v5 = Vector512.Load(v + 80), v6 = Vector512.Load(v + 96), v7 = Vector512.Load(v + 112), v8 = Vector512.Load(v + 128);
        int stride = 2 * half;
        Vector512<float> a = Load(above), b = Load(here), c = Load(below);
        Vector512<float> current = MultiplyAdd(a, w1, MultiplyAdd(b, w4, c * w7)), next = MultiplyAdd(a, w0, MultiplyAdd(b, w3, c * w6));
        a = Load(above + half);
        b = Load(here + half);
        c = Load(below + half);
        Vector512<float> gateCurrent = MultiplyAdd(a, v1, MultiplyAdd(b, v4, c * v7)), gateNext = MultiplyAdd(a, v0, MultiplyAdd(b, v3, c * v6));
        for (int x = 1; x < width; x++)
        {
            above += stride;
            here += stride;
            below += stride;
            a = Load(above);
            b = Load(here);
            c = Load(below);
            Vector512<float> done = MultiplyAdd(a, w2, MultiplyAdd(b, w5, MultiplyAdd(c, w8, current)));
            current = MultiplyAdd(a, w1, MultiplyAdd(b, w4, MultiplyAdd(c, w7, next)));
            next = MultiplyAdd(a, w0, MultiplyAdd(b, w3, c * w6));
            a = Load(above + half);
            b = Load(here + half);
            c = Load(below + half);
            Vector512<float> gate = MultiplyAdd(a, v2, MultiplyAdd(b, v5, MultiplyAdd(c, v8, gateCurrent)));
            gateCurrent = MultiplyAdd(a, v1, MultiplyAdd(b, v4, MultiplyAdd(c, v7, gateNext)));
            gateNext = MultiplyAdd(a, v0, MultiplyAdd(b, v3, c * v6));
            Store(VectorMath.Gelu<T>(done) * gate, to);
            to += half;
        }
        Store(VectorMath.Gelu<T>(current) * gateCurrent, to);
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

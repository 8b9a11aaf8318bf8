using System.Runtime.CompilerServices;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Depthwise 3x3 convolutions on maps (batch, height, width, channels) together with the activations around them, and
/// their gradients. Works on two vectors of channels at a time, in float32, with three rows of the map in the first-level cache.
/// Zeros surround the map; the width is a multiple of 4, channels are multiples of 32. Weights are (channels, 9).
/// </summary>
/// <typeparam name="V">The vectors.</typeparam>
internal static unsafe class DepthwiseTraining<V>
    where V : unmanaged, IFloats<V>
{
    private const int Taps = 9;

    private static int Chunk
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 2 * V.Count;
    }

    private static int Table => Taps * Chunk;

    /// <summary>Scratch values that a call needs for maps of this width.</summary>
    public static int Scratch(int width) => (17 * (width + 2) * Chunk) + (6 * Table) + (4 * Chunk);

    /// <summary>The convolution alone.</summary>
    /// <param name="x">(batch, height, width, channels).</param>
    /// <param name="weight">(channels, 9).</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="channels">Of <paramref name="x"/> and <paramref name="y"/>.</param>
    /// <param name="y">Gets the result.</param>
    /// <param name="scratch"><see cref="Scratch"/> values.</param>
    public static void Forward<T>(T* x, float* weight, int batch, int height, int width, int channels, T* y, float* scratch)
        where T : unmanaged
    {
        var ring = new Ring(scratch, width);
        float* table = ring.End, line = table + Table;
        for (int c = 0; c < channels; c += Chunk)
        {
            Prepare<T>(weight, c, reversed: false, table);
            for (int image = 0; image < batch; image++)
            {
                T* from = x + ((long)image * height * width * channels) + c, to = y + ((long)image * height * width * channels) + c;
                ring.Clear(-1);
                Read(from, channels, width, ring[0]);
                for (int row = 0; row < height; row++)
                {
                    if (row + 1 < height)
                        Read(from + ((long)(row + 1) * width * channels), channels, width, ring[row + 1]);
                    else
                        ring.Clear(row + 1);
                    Convolve(ring[row - 1], ring[row], ring[row + 1], table, width, line);
                    Write(line, to + ((long)row * width * channels), channels, width);
                }
            }
        }
    }

    /// <summary>The gradients of <see cref="Forward"/>.</summary>
    /// <param name="x">As <see cref="Forward"/>.</param>
    /// <param name="weight">As <see cref="Forward"/>.</param>
    /// <param name="y">Gradient of the result.</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="channels">Of all maps.</param>
    /// <param name="gradient">Gets the gradient of <paramref name="x"/>.</param>
    /// <param name="weightGradient">(channels, 9), added to.</param>
    /// <param name="scratch"><see cref="Scratch"/> values.</param>
    public static void Backward<T>(T* x, float* weight, T* y, int batch, int height, int width, int channels, T* gradient, float* weightGradient, float* scratch)
        where T : unmanaged
    {
        var maps = new Ring(scratch, width);
        var slopes = new Ring(maps.End, width);
        float* table = slopes.End, sums = table + Table, line = sums + Table;
        for (int c = 0; c < channels; c += Chunk)
        {
            Prepare<T>(weight, c, reversed: true, table);
            Zero(sums, Table);
            for (int image = 0; image < batch; image++)
            {
                long at = ((long)image * height * width * channels) + c;
                maps.Clear(-1);
                slopes.Clear(-1);
                for (int row = -1; row < height; row++)
                {
                    if (row + 1 < height)
                    {
                        long next = at + ((long)(row + 1) * width * channels);
                        Read(x + next, channels, width, maps[row + 1]);
                        Read(y + next, channels, width, slopes[row + 1]);
                    }
                    else
                    {
                        maps.Clear(row + 1);
                        slopes.Clear(row + 1);
                    }
                    if (row < 0)
                        continue;
                    Correlate(maps[row - 1], maps[row], maps[row + 1], slopes[row], width, sums);
                    Convolve(slopes[row - 1], slopes[row], slopes[row + 1], table, width, line);
                    Write(line, gradient + at + ((long)row * width * channels), channels, width);
                }
            }
            AddWeights<T>(sums, c, weightGradient);
        }
    }

    /// <summary>The convolution y of 128 channels, and gate = GELU of its first 64 times its last 64.</summary>
    /// <param name="x">(batch, height, width, 128).</param>
    /// <param name="weight">(128, 9).</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="y">(batch, height, width, 128).</param>
    /// <param name="gate">(batch, height, width, 64).</param>
    /// <param name="scratch"><see cref="Scratch"/> values.</param>
    public static void GateForward<T>(T* x, float* weight, int batch, int height, int width, T* y, T* gate, float* scratch)
        where T : unmanaged
    {
        const int half = 64, both = 128;
        var left = new Ring(scratch, width);
        var right = new Ring(left.End, width);
        float* tables = right.End, line = tables + (2 * Table), other = line + (width * Chunk);
        for (int c = 0; c < half; c += Chunk)
        {
            Prepare<T>(weight, c, reversed: false, tables);
            Prepare<T>(weight, c + half, reversed: false, tables + Table);
            for (int image = 0; image < batch; image++)
            {
                long pixels = (long)image * height * width;
                left.Clear(-1);
                right.Clear(-1);
                for (int row = -1; row < height; row++)
                {
                    long at = pixels + ((long)row * width);
                    if (row + 1 < height)
                    {
                        T* next = x + ((at + width) * both) + c;
                        Read(next, both, width, left[row + 1]);
                        Read(next + half, both, width, right[row + 1]);
                    }
                    else
                    {
                        left.Clear(row + 1);
                        right.Clear(row + 1);
                    }
                    if (row < 0)
                        continue;
                    Convolve(left[row - 1], left[row], left[row + 1], tables, width, line);
                    Convolve(right[row - 1], right[row], right[row + 1], tables + Table, width, other);
                    T* to = y + (at * both) + c, gated = gate + (at * half) + c;
                    for (int i = 0; i < width * Chunk; i += Chunk, to += both, gated += half)
                    {
                        V a0 = V.Load(line + i), a1 = V.Load(line + i + V.Count), b0 = V.Load(other + i), b1 = V.Load(other + i + V.Count);
                        V.StorePair(a0, a1, to);
                        V.StorePair(b0, b1, to + half);
                        V.StorePair(Gelu(a0) * b0, Gelu(a1) * b1, gated);
                    }
                }
            }
        }
    }

    /// <summary>The gradients of <see cref="GateForward"/>.</summary>
    /// <param name="x">As <see cref="GateForward"/>.</param>
    /// <param name="weight">As <see cref="GateForward"/>.</param>
    /// <param name="y">As <see cref="GateForward"/> made it.</param>
    /// <param name="gate">Gradient of the gate.</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="gradient">Gets the gradient of <paramref name="x"/>.</param>
    /// <param name="weightGradient">(128, 9), added to.</param>
    /// <param name="scratch"><see cref="Scratch"/> values.</param>
    public static void GateBackward<T>(T* x, float* weight, T* y, T* gate, int batch, int height, int width, T* gradient, float* weightGradient, float* scratch)
        where T : unmanaged
    {
        const int half = 64, both = 128;
        Ring leftMaps = new(scratch, width), rightMaps = new(leftMaps.End, width), left = new(rightMaps.End, width), right = new(left.End, width);
        float* tables = right.End, sums = tables + (2 * Table), line = sums + (2 * Table);
        for (int c = 0; c < half; c += Chunk)
        {
            Prepare<T>(weight, c, reversed: true, tables);
            Prepare<T>(weight, c + half, reversed: true, tables + Table);
            Zero(sums, 2 * Table);
            for (int image = 0; image < batch; image++)
            {
                long pixels = (long)image * height * width;
                leftMaps.Clear(-1);
                rightMaps.Clear(-1);
                left.Clear(-1);
                right.Clear(-1);
                for (int row = -1; row < height; row++)
                {
                    long at = pixels + ((long)row * width);
                    if (row + 1 < height)
                    {
                        T* next = x + ((at + width) * both) + c;
                        Read(next, both, width, leftMaps[row + 1]);
                        Read(next + half, both, width, rightMaps[row + 1]);
                        GateSlopes(y + ((at + width) * both) + c, gate + ((at + width) * half) + c, width, left[row + 1], right[row + 1]);
                    }
                    else
                    {
                        leftMaps.Clear(row + 1);
                        rightMaps.Clear(row + 1);
                        left.Clear(row + 1);
                        right.Clear(row + 1);
                    }
                    if (row < 0)
                        continue;
                    Correlate(leftMaps[row - 1], leftMaps[row], leftMaps[row + 1], left[row], width, sums);
                    Convolve(left[row - 1], left[row], left[row + 1], tables, width, line);
                    Write(line, gradient + (at * both) + c, both, width);
                    Correlate(rightMaps[row - 1], rightMaps[row], rightMaps[row + 1], right[row], width, sums + Table);
                    Convolve(right[row - 1], right[row], right[row + 1], tables + Table, width, line);
                    Write(line, gradient + (at * both) + half + c, both, width);
                }
            }
            AddWeights<T>(sums, c, weightGradient);
            AddWeights<T>(sums + Table, c + half, weightGradient);
        }
    }

    /// <summary>y = convolution of GELU(x + before), plus after, and the mean of GELU(y) over each map; 64 channels.</summary>
    /// <param name="x">(batch, height, width, 64).</param>
    /// <param name="before">(64).</param>
    /// <param name="weight">(64, 9).</param>
    /// <param name="after">(64).</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="y">(batch, height, width, 64).</param>
    /// <param name="means">(batch, 64).</param>
    /// <param name="scratch"><see cref="Scratch"/> values.</param>
    public static void LocalForward<T>(T* x, float* before, float* weight, float* after, int batch, int height, int width, T* y, float* means, float* scratch)
        where T : unmanaged
    {
        const int channels = 64;
        var ring = new Ring(scratch, width);
        float* table = ring.End, biases = table + Table, line = biases + (2 * Chunk);
        for (int c = 0; c < channels; c += Chunk)
        {
            Prepare<T>(weight, c, reversed: false, table);
            Order<T>(before + c, Chunk, biases);
            Order<T>(after + c, Chunk, biases + Chunk);
            V after0 = V.Load(biases + Chunk), after1 = V.Load(biases + Chunk + V.Count);
            for (int image = 0; image < batch; image++)
            {
                long at = ((long)image * height * width * channels) + c;
                V sum0 = default, sum1 = default;
                ring.Clear(-1);
                for (int row = -1; row < height; row++)
                {
                    if (row + 1 < height)
                        ReadGelu(x + at + ((long)(row + 1) * width * channels), biases, channels, width, ring[row + 1]);
                    else
                        ring.Clear(row + 1);
                    if (row < 0)
                        continue;
                    Convolve(ring[row - 1], ring[row], ring[row + 1], table, width, line);
                    T* to = y + at + ((long)row * width * channels);
                    for (int i = 0; i < width * Chunk; i += Chunk, to += channels)
                    {
                        V a0 = V.Load(line + i) + after0, a1 = V.Load(line + i + V.Count) + after1;
                        V.StorePair(a0, a1, to);
                        sum0 += Gelu(a0);
                        sum1 += Gelu(a1);
                    }
                }
                V share = V.Create(1f / (height * width));
                V.Store(sum0 * share, line);
                V.Store(sum1 * share, line + V.Count);
                for (int i = 0; i < Chunk; i++)
                    means[(image * channels) + c + i] = line[PairPlace<V, T>(i)];
            }
        }
    }

    /// <summary>z = GELU(y) scaled by a factor for each map and channel; 64 channels.</summary>
    /// <param name="y">(batch, pixels, 64).</param>
    /// <param name="factors">(batch, 64).</param>
    /// <param name="batch">Maps.</param>
    /// <param name="pixels">Pixels of a map.</param>
    /// <param name="z">(batch, pixels, 64).</param>
    public static void ScaleForward<T>(T* y, float* factors, int batch, int pixels, T* z)
        where T : unmanaged
    {
        const int channels = 64;
        int n = V.Count;
        float* ordered = stackalloc float[channels];
        for (int image = 0; image < batch; image++, factors += channels)
        {
            Order<T>(factors, channels, ordered);
            for (int pixel = 0; pixel < pixels; pixel++, y += channels, z += channels)
            {
                for (int c = 0; c < channels; c += 2 * n)
                {
                    (V a0, V a1) = V.LoadPair(y + c);
                    V.StorePair(Gelu(a0) * V.Load(ordered + c), Gelu(a1) * V.Load(ordered + c + n), z + c);
                }
            }
        }
    }

    /// <summary>The gradients of the factors of <see cref="ScaleForward"/>.</summary>
    /// <param name="y">As <see cref="ScaleForward"/>.</param>
    /// <param name="z">Gradient of z.</param>
    /// <param name="batch">Maps.</param>
    /// <param name="pixels">Pixels of a map.</param>
    /// <param name="factorGradient">(batch, 64); overwritten.</param>
    public static void ScaleBackward<T>(T* y, T* z, int batch, int pixels, float* factorGradient)
        where T : unmanaged
    {
        const int channels = 64;
        int n = V.Count;
        float* ordered = stackalloc float[channels];
        for (int image = 0; image < batch; image++, factorGradient += channels, y += (long)pixels * channels, z += (long)pixels * channels)
        {
            for (int c = 0; c < channels; c += 2 * n)
            {
                V s0 = default, s1 = default;
                for (long at = c; at < (long)pixels * channels; at += channels)
                {
                    (V a0, V a1) = V.LoadPair(y + at);
                    (V d0, V d1) = V.LoadPair(z + at);
                    s0 = V.MultiplyAdd(Gelu(a0), d0, s0);
                    s1 = V.MultiplyAdd(Gelu(a1), d1, s1);
                }
                V.Store(s0, ordered + c);
                V.Store(s1, ordered + c + n);
            }
            for (int c = 0; c < channels; c++)
                factorGradient[c] = ordered[PairPlace<V, T>(c)];
        }
    }

    /// <summary>The gradients of <see cref="LocalForward"/>, given that of z = GELU(y) factor and of the means.</summary>
    /// <param name="x">As <see cref="LocalForward"/>.</param>
    /// <param name="before">As <see cref="LocalForward"/>.</param>
    /// <param name="weight">As <see cref="LocalForward"/>.</param>
    /// <param name="y">As <see cref="LocalForward"/> made it.</param>
    /// <param name="z">Gradient of z.</param>
    /// <param name="factors">(batch, 64).</param>
    /// <param name="meanGradient">(batch, 64).</param>
    /// <param name="batch">Maps.</param>
    /// <param name="height">Rows.</param>
    /// <param name="width">Columns.</param>
    /// <param name="gradient">Gets the gradient of <paramref name="x"/>.</param>
    /// <param name="beforeGradient">(64), added to.</param>
    /// <param name="weightGradient">(64, 9), added to.</param>
    /// <param name="afterGradient">(64), added to.</param>
    /// <param name="scratch"><see cref="Scratch"/> values.</param>
    public static void LocalBackward<T>(T* x, float* before, float* weight, T* y, T* z, float* factors, float* meanGradient, int batch, int height, int width, T* gradient, float* beforeGradient, float* weightGradient, float* afterGradient, float* scratch)
        where T : unmanaged
    {
        const int channels = 64;
        Ring maps = new(scratch, width), derivatives = new(maps.End, width), slopes = new(derivatives.End, width);
        float* table = slopes.End, sums = table + Table, biases = sums + Table, line = biases + (3 * Chunk);
        for (int c = 0; c < channels; c += Chunk)
        {
            Prepare<T>(weight, c, reversed: true, table);
            Zero(sums, Table);
            Order<T>(before + c, Chunk, biases);
            V before0 = default, before1 = default, after0 = default, after1 = default;
            for (int image = 0; image < batch; image++)
            {
                long at = ((long)image * height * width * channels) + c;
                Order<T>(factors + (image * channels) + c, Chunk, biases + Chunk);
                Order<T>(meanGradient + (image * channels) + c, Chunk, biases + (2 * Chunk));
                V f0 = V.Load(biases + Chunk), f1 = V.Load(biases + Chunk + V.Count), share = V.Create(1f / (height * width));
                V m0 = V.Load(biases + (2 * Chunk)) * share, m1 = V.Load(biases + (2 * Chunk) + V.Count) * share;
                maps.Clear(-1);
                slopes.Clear(-1);
                for (int row = -1; row < height; row++)
                {
                    if (row + 1 < height)
                    {
                        long next = at + ((long)(row + 1) * width * channels);
                        ReadGelu(x + next, biases, channels, width, maps[row + 1], derivatives[row + 1]);
                        float* slope = Edge(slopes[row + 1], width);
                        for (int column = 0; column < width; column++, next += channels, slope += Chunk)
                        {
                            (V a0, V a1) = V.LoadPair(y + next);
                            (V d0, V d1) = V.LoadPair(z + next);
                            _ = Gelu(a0, out a0);
                            _ = Gelu(a1, out a1);
                            d0 = V.MultiplyAdd(d0, f0, m0) * a0;
                            d1 = V.MultiplyAdd(d1, f1, m1) * a1;
                            after0 += d0;
                            after1 += d1;
                            V.Store(d0, slope);
                            V.Store(d1, slope + V.Count);
                        }
                    }
                    else
                    {
                        maps.Clear(row + 1);
                        slopes.Clear(row + 1);
                    }
                    if (row < 0)
                        continue;
                    Correlate(maps[row - 1], maps[row], maps[row + 1], slopes[row], width, sums);
                    Convolve(slopes[row - 1], slopes[row], slopes[row + 1], table, width, line);
                    T* to = gradient + at + ((long)row * width * channels);
                    float* derivative = derivatives[row] + Chunk;
                    for (int i = 0; i < width * Chunk; i += Chunk, to += channels)
                    {
                        V d0 = V.Load(line + i) * V.Load(derivative + i), d1 = V.Load(line + i + V.Count) * V.Load(derivative + i + V.Count);
                        before0 += d0;
                        before1 += d1;
                        V.StorePair(d0, d1, to);
                    }
                }
            }
            AddWeights<T>(sums, c, weightGradient);
            V.Store(before0, line);
            V.Store(before1, line + V.Count);
            V.Store(after0, line + (2 * V.Count));
            V.Store(after1, line + (3 * V.Count));
            for (int i = 0; i < Chunk; i++)
            {
                beforeGradient[c + i] += line[PairPlace<V, T>(i)];
                afterGradient[c + i] += line[Chunk + PairPlace<V, T>(i)];
            }
        }
    }

    /// <summary>Gradients of the convolution that lead through the gate, for a row.</summary>
    private static void GateSlopes<T>(T* y, T* gate, int width, float* left, float* right)
        where T : unmanaged
    {
        left = Edge(left, width);
        right = Edge(right, width);
        for (int column = 0; column < width; column++, y += 128, gate += 64, left += Chunk, right += Chunk)
        {
            (V a0, V a1) = V.LoadPair(y);
            (V b0, V b1) = V.LoadPair(y + 64);
            (V d0, V d1) = V.LoadPair(gate);
            V value0 = Gelu(a0, out V slope0), value1 = Gelu(a1, out V slope1);
            V.Store(d0 * b0 * slope0, left);
            V.Store(d1 * b1 * slope1, left + V.Count);
            V.Store(d0 * value0, right);
            V.Store(d1 * value1, right + V.Count);
        }
    }

    /// <summary>A row as float32 between two pixels of zeros.</summary>
    private static void Read<T>(T* from, int stride, int width, float* to)
        where T : unmanaged
    {
        to = Edge(to, width);
        for (int column = 0; column < width; column++, from += stride, to += Chunk)
        {
            (V a, V b) = V.LoadPair(from);
            V.Store(a, to);
            V.Store(b, to + V.Count);
        }
    }

    /// <summary>GELU of a row plus a bias, between two pixels of zeros.</summary>
    private static void ReadGelu<T>(T* from, float* bias, int stride, int width, float* to)
        where T : unmanaged
    {
        to = Edge(to, width);
        V bias0 = V.Load(bias), bias1 = V.Load(bias + V.Count);
        for (int column = 0; column < width; column++, from += stride, to += Chunk)
        {
            (V a, V b) = V.LoadPair(from);
            V.Store(Gelu(a + bias0), to);
            V.Store(Gelu(b + bias1), to + V.Count);
        }
    }

    /// <summary>The same with the derivative.</summary>
    private static void ReadGelu<T>(T* from, float* bias, int stride, int width, float* to, float* derivative)
        where T : unmanaged
    {
        to = Edge(to, width);
        derivative += Chunk;
        V bias0 = V.Load(bias), bias1 = V.Load(bias + V.Count);
        for (int column = 0; column < width; column++, from += stride, to += Chunk, derivative += Chunk)
        {
            (V a, V b) = V.LoadPair(from);
            V.Store(Gelu(a + bias0, out V slope0), to);
            V.Store(Gelu(b + bias1, out V slope1), to + V.Count);
            V.Store(slope0, derivative);
            V.Store(slope1, derivative + V.Count);
        }
    }

    private static void Write<T>(float* from, T* to, int stride, int width)
        where T : unmanaged
    {
        for (int column = 0; column < width; column++, from += Chunk, to += stride)
            V.StorePair(V.Load(from), V.Load(from + V.Count), to);
    }

    /// <summary>Clears the pixels beside a row of a ring; returns where the row itself begins.</summary>
    private static float* Edge(float* row, int width)
    {
        Zero(row, Chunk);
        Zero(row + ((width + 1) * Chunk), Chunk);
        return row + Chunk;
    }

    private static void Convolve(float* above, float* row, float* below, float* table, int width, float* to)
    {
        float** lines = stackalloc float*[3];
        lines[0] = above;
        lines[1] = row;
        lines[2] = below;
        for (int i = 0; i < width * Chunk; i += 4 * Chunk, to += 4 * Chunk)
        {
            V a0 = default, a1 = default, b0 = default, b1 = default, c0 = default, c1 = default, d0 = default, d1 = default;
            float* weight = table;
            for (int line = 0; line < 3; line++)
            {
                float* x = lines[line] + i;
                for (int tap = 0; tap < 3; tap++, x += Chunk, weight += Chunk)
                {
                    V w0 = V.Load(weight), w1 = V.Load(weight + V.Count);
                    a0 = V.MultiplyAdd(w0, V.Load(x), a0);
                    a1 = V.MultiplyAdd(w1, V.Load(x + V.Count), a1);
                    b0 = V.MultiplyAdd(w0, V.Load(x + (2 * V.Count)), b0);
                    b1 = V.MultiplyAdd(w1, V.Load(x + (3 * V.Count)), b1);
                    c0 = V.MultiplyAdd(w0, V.Load(x + (4 * V.Count)), c0);
                    c1 = V.MultiplyAdd(w1, V.Load(x + (5 * V.Count)), c1);
                    d0 = V.MultiplyAdd(w0, V.Load(x + (6 * V.Count)), d0);
                    d1 = V.MultiplyAdd(w1, V.Load(x + (7 * V.Count)), d1);
                }
            }
            V.Store(a0, to);
            V.Store(a1, to + V.Count);
            V.Store(b0, to + (2 * V.Count));
            V.Store(b1, to + (3 * V.Count));
            V.Store(c0, to + (4 * V.Count));
            V.Store(c1, to + (5 * V.Count));
            V.Store(d0, to + (6 * V.Count));
            V.Store(d1, to + (7 * V.Count));
        }
    }

    /// <summary>Adds a row's part of the weights' gradients.</summary>
    private static void Correlate(float* above, float* row, float* below, float* slopes, int width, float* sums)
    {
        float** lines = stackalloc float*[3];
        lines[0] = above;
        lines[1] = row;
        lines[2] = below;
        for (int line = 0; line < 3; line++, sums += 3 * Chunk)
        {
            float* x = lines[line];
            V a0 = V.Load(sums), a1 = V.Load(sums + V.Count), b0 = V.Load(sums + (2 * V.Count)), b1 = V.Load(sums + (3 * V.Count)), c0 = V.Load(sums + (4 * V.Count)), c1 = V.Load(sums + (5 * V.Count));
            for (int i = 0; i < width * Chunk; i += Chunk)
            {
                V d0 = V.Load(slopes + Chunk + i), d1 = V.Load(slopes + Chunk + i + V.Count);
                a0 = V.MultiplyAdd(d0, V.Load(x + i), a0);
                a1 = V.MultiplyAdd(d1, V.Load(x + i + V.Count), a1);
                b0 = V.MultiplyAdd(d0, V.Load(x + i + (2 * V.Count)), b0);
                b1 = V.MultiplyAdd(d1, V.Load(x + i + (3 * V.Count)), b1);
                c0 = V.MultiplyAdd(d0, V.Load(x + i + (4 * V.Count)), c0);
                c1 = V.MultiplyAdd(d1, V.Load(x + i + (5 * V.Count)), c1);
            }
            V.Store(a0, sums);
            V.Store(a1, sums + V.Count);
            V.Store(b0, sums + (2 * V.Count));
            V.Store(b1, sums + (3 * V.Count));
            V.Store(c0, sums + (4 * V.Count));
            V.Store(c1, sums + (5 * V.Count));
        }
    }

    /// <summary>The weights of a chunk of channels as rows of one tap each, in the order of <see cref="IFloats{V}.LoadPair"/>; reversed, as the gradient needs them.</summary>
    private static void Prepare<T>(float* weight, int first, bool reversed, float* table)
        where T : unmanaged
    {
        for (int i = 0; i < Chunk; i++)
        {
            for (int tap = 0; tap < Taps; tap++)
                table[(tap * Chunk) + PairPlace<V, T>(i)] = weight[((first + i) * Taps) + (reversed ? Taps - 1 - tap : tap)];
        }
    }

    private static void AddWeights<T>(float* sums, int first, float* gradient)
        where T : unmanaged
    {
        for (int i = 0; i < Chunk; i++)
        {
            for (int tap = 0; tap < Taps; tap++)
                gradient[((first + i) * Taps) + tap] += sums[(tap * Chunk) + PairPlace<V, T>(i)];
        }
    }

    private static void Order<T>(float* from, int count, float* to)
        where T : unmanaged
    {
        for (int i = 0; i < count; i++)
            to[PairPlace<V, T>(i)] = from[i];
    }

    private static void Zero(float* values, int count) => new Span<float>(values, count).Clear();

    /// <summary>Three rows of a chunk of channels, each between two pixels of zeros; a row's number may be -1.</summary>
    private readonly struct Ring(float* start, int width)
    {
        public float* this[int row] => start + ((row + 3) % 3 * (width + 2) * Chunk);

        public float* End => start + (3 * (width + 2) * Chunk);

        public void Clear(int row) => Zero(this[row], (width + 2) * Chunk);
    }
}

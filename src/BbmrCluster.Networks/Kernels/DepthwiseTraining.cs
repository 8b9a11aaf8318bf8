using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Depthwise 3x3 convolutions on maps (batch, height, width, channels) together with the activations around them, and
/// their gradients. Works on 32 channels at a time, in float32, with three rows of the map in the first-level cache.
/// Zeros surround the map; the width is a multiple of 4, channels are multiples of 32. Weights are (channels, 9).
/// </summary>
internal static unsafe class DepthwiseTraining
{
    private const int Chunk = 32, Taps = 9, Table = Taps * Chunk;

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
                        Vector512<float> a0 = Load(line + i), a1 = Load(line + i + 16), b0 = Load(other + i), b1 = Load(other + i + 16);
                        StorePair(a0, a1, to);
                        StorePair(b0, b1, to + half);
                        StorePair(Gelu(a0) * b0, Gelu(a1) * b1, gated);
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
            Order<T>(before + c, biases);
            Order<T>(after + c, biases + Chunk);
            Vector512<float> after0 = Load(biases + Chunk), after1 = Load(biases + Chunk + 16);
            for (int image = 0; image < batch; image++)
            {
                long at = ((long)image * height * width * channels) + c;
                Vector512<float> sum0 = default, sum1 = default;
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
                        Vector512<float> a0 = Load(line + i) + after0, a1 = Load(line + i + 16) + after1;
                        StorePair(a0, a1, to);
                        sum0 += Gelu(a0);
                        sum1 += Gelu(a1);
                    }
                }
                Vector512<float> share = Vector512.Create(1f / (height * width));
                Store(sum0 * share, line);
                Store(sum1 * share, line + 16);
                for (int i = 0; i < Chunk; i++)
                    means[(image * channels) + c + i] = line[PairPlace<T>(i)];
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
        float* ordered = stackalloc float[channels];
        for (int image = 0; image < batch; image++, factors += channels)
        {
            Order<T>(factors, ordered);
            Order<T>(factors + Chunk, ordered + Chunk);
            Vector512<float> f0 = Load(ordered), f1 = Load(ordered + 16), f2 = Load(ordered + 32), f3 = Load(ordered + 48);
            for (int pixel = 0; pixel < pixels; pixel++, y += channels, z += channels)
            {
                (Vector512<float> a0, Vector512<float> a1) = LoadPair(y);
                (Vector512<float> a2, Vector512<float> a3) = LoadPair(y + 32);
                StorePair(Gelu(a0) * f0, Gelu(a1) * f1, z);
                StorePair(Gelu(a2) * f2, Gelu(a3) * f3, z + 32);
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
        float* ordered = stackalloc float[channels];
        for (int image = 0; image < batch; image++, factorGradient += channels)
        {
            Vector512<float> s0 = default, s1 = default, s2 = default, s3 = default;
            for (int pixel = 0; pixel < pixels; pixel++, y += channels, z += channels)
            {
                (Vector512<float> a0, Vector512<float> a1) = LoadPair(y);
                (Vector512<float> a2, Vector512<float> a3) = LoadPair(y + 32);
                (Vector512<float> d0, Vector512<float> d1) = LoadPair(z);
                (Vector512<float> d2, Vector512<float> d3) = LoadPair(z + 32);
                s0 = MultiplyAdd(Gelu(a0), d0, s0);
                s1 = MultiplyAdd(Gelu(a1), d1, s1);
                s2 = MultiplyAdd(Gelu(a2), d2, s2);
                s3 = MultiplyAdd(Gelu(a3), d3, s3);
            }
            Store(s0, ordered);
            Store(s1, ordered + 16);
            Store(s2, ordered + 32);
            Store(s3, ordered + 48);
            for (int c = 0; c < channels; c++)
                factorGradient[c] = ordered[(c & 32) + PairPlace<T>(c & 31)];
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
            Order<T>(before + c, biases);
            Vector512<float> before0 = default, before1 = default, after0 = default, after1 = default;
            for (int image = 0; image < batch; image++)
            {
                long at = ((long)image * height * width * channels) + c;
                Order<T>(factors + (image * channels) + c, biases + Chunk);
                Order<T>(meanGradient + (image * channels) + c, biases + (2 * Chunk));
                Vector512<float> f0 = Load(biases + Chunk), f1 = Load(biases + Chunk + 16), share = Vector512.Create(1f / (height * width));
                Vector512<float> m0 = Load(biases + (2 * Chunk)) * share, m1 = Load(biases + (2 * Chunk) + 16) * share;
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
                            (Vector512<float> a0, Vector512<float> a1) = LoadPair(y + next);
                            (Vector512<float> d0, Vector512<float> d1) = LoadPair(z + next);
                            _ = Gelu(a0, out a0);
                            _ = Gelu(a1, out a1);
                            d0 = MultiplyAdd(d0, f0, m0) * a0;
                            d1 = MultiplyAdd(d1, f1, m1) * a1;
                            after0 += d0;
                            after1 += d1;
                            Store(d0, slope);
                            Store(d1, slope + 16);
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
                        Vector512<float> d0 = Load(line + i) * Load(derivative + i), d1 = Load(line + i + 16) * Load(derivative + i + 16);
                        before0 += d0;
                        before1 += d1;
                        StorePair(d0, d1, to);
                    }
                }
            }
            AddWeights<T>(sums, c, weightGradient);
            Store(before0, line);
            Store(before1, line + 16);
            Store(after0, line + 32);
            Store(after1, line + 48);
            for (int i = 0; i < Chunk; i++)
            {
                beforeGradient[c + i] += line[PairPlace<T>(i)];
                afterGradient[c + i] += line[Chunk + PairPlace<T>(i)];
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
            (Vector512<float> a0, Vector512<float> a1) = LoadPair(y);
            (Vector512<float> b0, Vector512<float> b1) = LoadPair(y + 64);
            (Vector512<float> d0, Vector512<float> d1) = LoadPair(gate);
            Vector512<float> value0 = Gelu(a0, out Vector512<float> slope0), value1 = Gelu(a1, out Vector512<float> slope1);
            Store(d0 * b0 * slope0, left);
            Store(d1 * b1 * slope1, left + 16);
            Store(d0 * value0, right);
            Store(d1 * value1, right + 16);
        }
    }

    /// <summary>A row as float32 between two pixels of zeros.</summary>
    private static void Read<T>(T* from, int stride, int width, float* to)
        where T : unmanaged
    {
        to = Edge(to, width);
        for (int column = 0; column < width; column++, from += stride, to += Chunk)
        {
            (Vector512<float> a, Vector512<float> b) = LoadPair(from);
            Store(a, to);
            Store(b, to + 16);
        }
    }

    /// <summary>GELU of a row plus a bias, between two pixels of zeros.</summary>
    private static void ReadGelu<T>(T* from, float* bias, int stride, int width, float* to)
        where T : unmanaged
    {
        to = Edge(to, width);
        Vector512<float> bias0 = Load(bias), bias1 = Load(bias + 16);
        for (int column = 0; column < width; column++, from += stride, to += Chunk)
        {
            (Vector512<float> a, Vector512<float> b) = LoadPair(from);
            Store(Gelu(a + bias0), to);
            Store(Gelu(b + bias1), to + 16);
        }
    }

    /// <summary>The same with the derivative.</summary>
    private static void ReadGelu<T>(T* from, float* bias, int stride, int width, float* to, float* derivative)
        where T : unmanaged
    {
        to = Edge(to, width);
        derivative += Chunk;
        Vector512<float> bias0 = Load(bias), bias1 = Load(bias + 16);
        for (int column = 0; column < width; column++, from += stride, to += Chunk, derivative += Chunk)
        {
            (Vector512<float> a, Vector512<float> b) = LoadPair(from);
            Store(Gelu(a + bias0, out Vector512<float> slope0), to);
            Store(Gelu(b + bias1, out Vector512<float> slope1), to + 16);
            Store(slope0, derivative);
            Store(slope1, derivative + 16);
        }
    }

    private static void Write<T>(float* from, T* to, int stride, int width)
        where T : unmanaged
    {
        for (int column = 0; column < width; column++, from += Chunk, to += stride)
            StorePair(Load(from), Load(from + 16), to);
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
            Vector512<float> a0 = default, a1 = default, b0 = default, b1 = default, c0 = default, c1 = default, d0 = default, d1 = default;
            float* weight = table;
            for (int line = 0; line < 3; line++)
            {
                float* x = lines[line] + i;
                for (int tap = 0; tap < 3; tap++, x += Chunk, weight += Chunk)
                {
                    Vector512<float> w0 = Load(weight), w1 = Load(weight + 16);
                    a0 = MultiplyAdd(w0, Load(x), a0);
                    a1 = MultiplyAdd(w1, Load(x + 16), a1);
                    b0 = MultiplyAdd(w0, Load(x + 32), b0);
                    b1 = MultiplyAdd(w1, Load(x + 48), b1);
                    c0 = MultiplyAdd(w0, Load(x + 64), c0);
                    c1 = MultiplyAdd(w1, Load(x + 80), c1);
                    d0 = MultiplyAdd(w0, Load(x + 96), d0);
                    d1 = MultiplyAdd(w1, Load(x + 112), d1);
                }
            }
            Store(a0, to);
            Store(a1, to + 16);
            Store(b0, to + 32);
            Store(b1, to + 48);
            Store(c0, to + 64);
            Store(c1, to + 80);
            Store(d0, to + 96);
            Store(d1, to + 112);
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
            Vector512<float> a0 = Load(sums), a1 = Load(sums + 16), b0 = Load(sums + 32), b1 = Load(sums + 48), c0 = Load(sums + 64), c1 = Load(sums + 80);
            for (int i = 0; i < width * Chunk; i += Chunk)
            {
                Vector512<float> d0 = Load(slopes + Chunk + i), d1 = Load(slopes + Chunk + i + 16);
                a0 = MultiplyAdd(d0, Load(x + i), a0);
                a1 = MultiplyAdd(d1, Load(x + i + 16), a1);
                b0 = MultiplyAdd(d0, Load(x + i + 32), b0);
                b1 = MultiplyAdd(d1, Load(x + i + 48), b1);
                c0 = MultiplyAdd(d0, Load(x + i + 64), c0);
                c1 = MultiplyAdd(d1, Load(x + i + 80), c1);
            }
            Store(a0, sums);
            Store(a1, sums + 16);
            Store(b0, sums + 32);
            Store(b1, sums + 48);
            Store(c0, sums + 64);
            Store(c1, sums + 80);
        }
    }

    /// <summary>The weights of 32 channels as rows of one tap each, in the order of <see cref="LoadPair"/>; reversed, as the gradient needs them.</summary>
    private static void Prepare<T>(float* weight, int first, bool reversed, float* table)
        where T : unmanaged
    {
        for (int i = 0; i < Chunk; i++)
        {
            for (int tap = 0; tap < Taps; tap++)
                table[(tap * Chunk) + PairPlace<T>(i)] = weight[((first + i) * Taps) + (reversed ? Taps - 1 - tap : tap)];
        }
    }

    private static void AddWeights<T>(float* sums, int first, float* gradient)
        where T : unmanaged
    {
        for (int i = 0; i < Chunk; i++)
        {
            for (int tap = 0; tap < Taps; tap++)
                gradient[((first + i) * Taps) + tap] += sums[(tap * Chunk) + PairPlace<T>(i)];
        }
    }

    private static void Order<T>(float* from, float* to)
        where T : unmanaged
    {
        for (int i = 0; i < Chunk; i++)
            to[PairPlace<T>(i)] = from[i];
    }

    private static void Zero(float* values, int count) => new Span<float>(values, count).Clear();

    /// <summary>Three rows of 32 channels, each between two pixels of zeros; a row's number may be -1.</summary>
    private readonly struct Ring(float* start, int width)
    {
        public float* this[int row] => start + ((row + 3) % 3 * (width + 2) * Chunk);

        public float* End => start + (3 * (width + 2) * Chunk);

        public void Clear(int row) => Zero(this[row], (width + 2) * Chunk);
    }
}

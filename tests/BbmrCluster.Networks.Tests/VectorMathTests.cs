using BbmrCluster.Networks.Kernels;

namespace BbmrCluster.Networks.Tests;

/// <summary>Functions, loads, stores and tiles with vectors of 8 and, where the processor has them, of 16.</summary>
public sealed unsafe class VectorMathTests
{
    private static double Erf(double x)
    {
        // The Taylor series, in double precision good to 1e-12 up to 4.
        double sum = 0, term = x;
        for (int n = 0; Math.Abs(term) > 1e-17 || n < 20; n++)
        {
            sum += term / ((2 * n) + 1);
            term *= -x * x / (n + 1);
        }
        return 2 / Math.Sqrt(Math.PI) * sum;
    }

    private static IEnumerable<float> Range(float from, float to) => Enumerable.Range(0, 4001).Select(i => from + ((to - from) * i / 4000));

    private static float[] Lanes<V>(V values)
        where V : unmanaged, IFloats<V>
    {
        var lanes = new float[V.Count];
        fixed (float* to = lanes)
            V.Store(values, to);
        return lanes;
    }

    private static float Last<V>(V values)
        where V : unmanaged, IFloats<V> => Lanes(values)[^1];

    /// <summary>Runs a check with the vectors that this processor has; the narrow ones always.</summary>
    private static void WithBoth(Action narrow, Action wide)
    {
        narrow();
        if (Floats.Wide)
            wide();
    }

    [Fact]
    public void Exp_is_good_to_two_in_ten_million_and_holds_its_range()
    {
        WithBoth(Check<Floats8>, Check<Floats16>);

        static void Check<V>()
            where V : unmanaged, IFloats<V>
        {
            foreach (float x in Range(-87, 88))
                Assert.InRange(Last(VectorMath.Exp(V.Create(x))) / Math.Exp(x), 1 - 2e-7, 1 + 2e-7);
            foreach (float x in Range(-87, 0))
                Assert.InRange(Last(VectorMath.ExpOfNegative<V, BFloat16>(V.Create(x))) / Math.Exp(x), 1 - 1.1e-5, 1 + 1.1e-5);
            Assert.Equal(Last(VectorMath.Exp(V.Create(-87f))), Last(VectorMath.Exp(V.Create(float.NegativeInfinity))));
            Assert.True(float.IsFinite(Last(VectorMath.Exp(V.Create(1000f)))));
            Assert.True(float.IsNaN(Last(VectorMath.Exp(V.Create(float.NaN)))));
        }
    }

    [Fact]
    public void Gelu_its_derivative_and_sigmoid_are_good_to_a_millionth()
    {
        WithBoth(Check<Floats8>, Check<Floats16>);

        static void Check<V>()
            where V : unmanaged, IFloats<V>
        {
            foreach (float x in Range(-5.6f, 5.6f))
            {
                double cumulative = 0.5 * (1 + Erf(x / Math.Sqrt(2))), density = Math.Exp(-0.5 * x * x) / Math.Sqrt(2 * Math.PI);
                Assert.InRange(Last(VectorMath.Gelu(V.Create(x))) - (x * cumulative), -1e-6 * Math.Abs(x), 1e-6 * Math.Abs(x));
                Assert.InRange(Last(VectorMath.Gelu<V, BFloat16>(V.Create(x))) - (x * cumulative), -2e-5 * Math.Abs(x), 2e-5 * Math.Abs(x));
                V value = VectorMath.Gelu(V.Create(x), out V derivative);
                Assert.InRange(Last(value) - (x * cumulative), -1e-6 * Math.Abs(x), 1e-6 * Math.Abs(x));
                Assert.InRange(Last(derivative) - cumulative - (x * density), -1e-6, 1e-6);
                Assert.InRange(Last(VectorMath.Sigmoid(V.Create(x))) * (1 + Math.Exp(-x)), 1 - 5e-7, 1 + 5e-7);
            }
            Assert.Equal(100f, Last(VectorMath.Gelu(V.Create(100f))), 1e-4f);
            Assert.Equal(0f, Last(VectorMath.Gelu(V.Create(-100f))), 1e-4f);
            Assert.True(float.IsNaN(Last(VectorMath.Gelu(V.Create(float.NaN)))));
        }
    }

    [Fact]
    public void Bfloat16_is_rounded_to_nearest_even_and_pairs_come_back_in_place()
    {
        WithBoth(Check<Floats8>, Check<Floats16>);

        static void Check<V>()
            where V : unmanaged, IFloats<V>
        {
            var random = new Random(1);
            int n = V.Count, count = 2 * n;
            var values = new float[count];
            BFloat16* stored = stackalloc BFloat16[count], paired = stackalloc BFloat16[count];
            float* table = stackalloc float[count];
            for (int round = 0; round < 100; round++)
            {
                for (int i = 0; i < count; i++)
                    values[i] = BitConverter.UInt32BitsToSingle(((uint)random.Next(0x3000, 0x4800) << 16) | (uint)(i < 4 ? 0x8000 : random.Next(1 << 16)));
                values[9] = float.NaN;
                values[10] = float.NegativeInfinity;
                fixed (float* from = values)
                {
                    V.Store(V.Load(from), stored);
                    V.Store(V.Load(from + n), stored + n);
                    for (int i = 0; i < count; i++)
                        table[VectorMath.PairPlace<V, BFloat16>(i)] = values[i];
                    V.StorePair(V.Load(table), V.Load(table + n), paired);
                    V.StoreEight(V.Load(from), (BFloat16*)table);
                    Assert.True(new Span<BFloat16>(table, 8).SequenceEqual(new Span<BFloat16>(stored, 8)));
                }
                (V first, V second) = V.LoadPair(paired);
                V.Store(first, table);
                V.Store(second, table + n);
                for (int i = 0; i < count; i++)
                {
                    Assert.Equal(stored[i], paired[i]);
                    float back = stored[i].ToSingle();
                    Assert.Equal(back, Lanes(V.Load(stored + (i / n * n)))[i % n]);
                    Assert.Equal(back, VectorMath.LoadScalar(stored + i));
                    Assert.Equal(back, table[VectorMath.PairPlace<V, BFloat16>(i)]);
                    if (float.IsFinite(values[i]))
                    {
                        Assert.Equal(stored[i], BFloat16.Of(values[i]));
                        Assert.InRange(Math.Abs(back - values[i]), 0, Math.Abs(values[i]) / 256);
                        Assert.True((BitConverter.SingleToUInt32Bits(values[i]) & 0xffff) != 0x8000 || stored[i].Bits % 2 == 0);
                    }
                }
                Assert.True(float.IsNaN(stored[9].ToSingle()) && float.IsNegativeInfinity(stored[10].ToSingle()));
            }
        }
    }

    [Fact]
    public void Float32_loads_stores_sums_and_transpositions_are_plain()
    {
        WithBoth(Check<Floats8>, Check<Floats16>);

        static void Check<V>()
            where V : unmanaged, IFloats<V>
        {
            int count = 2 * V.Count;
            float* values = stackalloc float[count], copy = stackalloc float[count], map = stackalloc float[32 * 48], turned = stackalloc float[32 * 48];
            for (int i = 0; i < count; i++)
                values[i] = i + 1;
            (V first, V second) = V.LoadPair(values);
            V.StorePair(first, second, copy);
            Assert.True(new Span<float>(values, count).SequenceEqual(new Span<float>(copy, count)));
            Assert.Equal(V.Count * (V.Count + 1) / 2, V.Sum(V.Load(values)));
            Assert.Equal(19, VectorMath.PairPlace<V, float>(19));
            for (int i = 0; i < 32 * 48; i++)
                map[i] = i;
            VectorMath.Transpose<V>(map, 32, 48, turned);
            for (int row = 0; row < 32; row++)
            {
                for (int column = 0; column < 48; column++)
                    Assert.Equal(map[(row * 48) + column], turned[(column * 32) + row]);
            }
        }
    }

    /// <summary>Every tile shape, its remainders, both orders of the left side and every kind of start.</summary>
    [Fact]
    public void Products_are_chains_in_the_order_of_the_depth_whatever_the_tile()
    {
        WithBoth(Check<Floats8>, Check<Floats16>);

        static void Check<V>()
            where V : unmanaged, IFloats<V>
        {
            var random = new Random(2);
            float[] Draw(int count) => [.. Enumerable.Range(0, count).Select(_ => random.NextSingle() - 0.5f)];
            foreach (int rows in (int[])[1, 3, 4, 7, 8, 13, 16])
            {
                for (int vectors = 1; vectors <= 9; vectors++)
                {
                    int columns = vectors * V.Count, depth = 1 + (rows % 5);
                    float[] a = Draw(rows * depth), b = Draw(depth * columns), start = Draw(rows * columns), c = new float[rows * columns];
                    foreach (bool across in (bool[])[false, true])
                    {
                        foreach (int kind in (int[])[0, 1, 2])
                        {
                            start.CopyTo(c, 0);
                            fixed (float* left = a, right = b, shared = start, result = c)
                            {
                                Tiles.Multiply<V>(left, across ? 1 : depth, across ? rows : 1, right, columns, kind == 0 ? null : kind == 1 ? shared : result, kind == 2 ? columns : 0,
                                    result, columns, rows, columns, depth);
                            }
                            for (int i = 0; i < c.Length; i++)
                            {
                                int row = i / columns, column = i % columns;
                                float expected = kind == 0 ? 0 : kind == 1 ? start[column] : start[i];
                                for (int d = 0; d < depth; d++)
                                    expected = MathF.FusedMultiplyAdd(a[across ? (d * rows) + row : (row * depth) + d], b[(d * columns) + column], expected);
                                Assert.Equal(expected, c[i]);
                            }
                        }
                    }
                }
            }
        }
    }
}

using System.Runtime.Intrinsics;
using BbmrCluster.Networks.Kernels;

namespace BbmrCluster.Networks.Tests;

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

    [Fact]
    public void Exp_is_good_to_two_in_ten_million_and_holds_its_range()
    {
        foreach (float x in Range(-87, 88))
            Assert.InRange(VectorMath.Exp(Vector512.Create(x))[3] / Math.Exp(x), 1 - 2e-7, 1 + 2e-7);
        Assert.Equal(VectorMath.Exp(Vector512.Create(-87f)), VectorMath.Exp(Vector512.Create(float.NegativeInfinity)));
        Assert.True(float.IsFinite(VectorMath.Exp(Vector512.Create(1000f))[0]));
        Assert.True(float.IsNaN(VectorMath.Exp(Vector512.Create(float.NaN))[0]));
    }

    [Fact]
    public void Gelu_its_derivative_and_sigmoid_are_good_to_a_millionth()
    {
        foreach (float x in Range(-5.6f, 5.6f))
        {
            double cumulative = 0.5 * (1 + Erf(x / Math.Sqrt(2))), density = Math.Exp(-0.5 * x * x) / Math.Sqrt(2 * Math.PI);
            Assert.InRange(VectorMath.Gelu(Vector512.Create(x))[5] - (x * cumulative), -1e-6 * Math.Abs(x), 1e-6 * Math.Abs(x));
            Vector512<float> value = VectorMath.Gelu(Vector512.Create(x), out Vector512<float> derivative);
            Assert.InRange(value[1] - (x * cumulative), -1e-6 * Math.Abs(x), 1e-6 * Math.Abs(x));
            Assert.InRange(derivative[2] - cumulative - (x * density), -1e-6, 1e-6);
            Assert.InRange(VectorMath.Sigmoid(Vector512.Create(x))[0] * (1 + Math.Exp(-x)), 1 - 5e-7, 1 + 5e-7);
        }
        Assert.Equal(100f, VectorMath.Gelu(Vector512.Create(100f))[0], 1e-4f);
        Assert.Equal(0f, VectorMath.Gelu(Vector512.Create(-100f))[0], 1e-4f);
        Assert.True(float.IsNaN(VectorMath.Gelu(Vector512.Create(float.NaN))[0]));
    }

    [Fact]
    public void Bfloat16_is_rounded_to_nearest_even_and_pairs_come_back_in_place()
    {
        var random = new Random(1);
        var values = new float[32];
        ushort* stored = stackalloc ushort[32], paired = stackalloc ushort[32];
        float* table = stackalloc float[32];
        for (int round = 0; round < 100; round++)
        {
            for (int i = 0; i < 32; i++)
                values[i] = BitConverter.UInt32BitsToSingle(((uint)random.Next(0x3000, 0x4800) << 16) | (uint)(i < 8 ? 0x8000 : random.Next(1 << 16)));
            values[9] = float.NaN;
            values[10] = float.NegativeInfinity;
            fixed (float* from = values)
            {
                VectorMath.Store(Vector512.Load(from), stored);
                VectorMath.Store(Vector512.Load(from + 16), stored + 16);
                for (int i = 0; i < 32; i++)
                    table[VectorMath.PairPlace<ushort>(i)] = values[i];
                VectorMath.StorePair(Vector512.Load(table), Vector512.Load(table + 16), paired);
            }
            (Vector512<float> first, Vector512<float> second) = VectorMath.LoadPair(paired);
            first.Store(table);
            second.Store(table + 16);
            for (int i = 0; i < 32; i++)
            {
                Assert.Equal(stored[i], paired[i]);
                float back = VectorMath.Load(stored + (i & 16))[i & 15];
                Assert.Equal(back, VectorMath.LoadScalar(stored + i));
                Assert.Equal(back, table[VectorMath.PairPlace<ushort>(i)]);
                if (float.IsFinite(values[i]))
                {
                    Assert.Equal(stored[i], VectorMath.ToBFloat16(values[i]));
                    Assert.InRange(Math.Abs(back - values[i]), 0, Math.Abs(values[i]) / 256);
                    Assert.True((BitConverter.SingleToUInt32Bits(values[i]) & 0xffff) != 0x8000 || stored[i] % 2 == 0);
                }
            }
            Assert.True(float.IsNaN(VectorMath.LoadScalar(stored + 9)) && float.IsNegativeInfinity(VectorMath.LoadScalar(stored + 10)));
        }
    }

    [Fact]
    public void Float32_loads_stores_and_sums_are_plain()
    {
        float* values = stackalloc float[32], copy = stackalloc float[32];
        for (int i = 0; i < 32; i++)
            values[i] = i + 1;
        (Vector512<float> first, Vector512<float> second) = VectorMath.LoadPair(values);
        VectorMath.StorePair(first, second, copy);
        Assert.True(new Span<float>(values, 32).SequenceEqual(new Span<float>(copy, 32)));
        Assert.Equal(136, VectorMath.Sum(VectorMath.Load(values)));
        Assert.Equal(19, VectorMath.PairPlace<float>(19));
    }
}

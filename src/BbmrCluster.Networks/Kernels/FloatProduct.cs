using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Float32 matrix product with a fixed right side, packed into panels of up to 64 columns. On this kind of processor as
/// fast as the vector units allow, and every row of the result depends on its own row alone: neither the number of rows
/// nor threads change a bit.
/// </summary>
internal sealed unsafe class FloatProduct : IDisposable
{
    // Rows of a panel that stay in the first-level cache while the pixels pass by.
    private const int Depth = 96;

    private readonly NativeFloats _packed;
    private readonly int[] _panels;

    /// <summary>Packs a right side.</summary>
    /// <param name="values">inputs x outputs, row-major.</param>
    /// <param name="inputs">Rows of the right side.</param>
    /// <param name="outputs">Columns; results have them rounded up to a multiple of 16, the rest being zero.</param>
    public FloatProduct(ReadOnlySpan<float> values, int inputs, int outputs)
    {
        (Inputs, Outputs) = (inputs, (outputs + Lanes - 1) / Lanes * Lanes);
        int vectors = Outputs / Lanes, widest = vectors % 4 != 0 && vectors % 3 == 0 ? 3 : 4;
        var panels = new List<int>();
        for (int left = vectors; left > 0; left -= panels[^1])
            panels.Add(Math.Min(left, widest));
        _panels = [.. panels];

        _packed = new NativeFloats((long)inputs * Outputs);
        float* to = _packed.Pointer;
        int column = 0;
        foreach (int panel in _panels)
        {
            for (int row = 0; row < inputs; row++)
            {
                for (int i = 0; i < panel * Lanes; i++, to++)
                    *to = column + i < outputs ? values[(row * outputs) + column + i] : 0;
            }
            column += panel * Lanes;
        }
    }

    /// <summary>Length of a left row.</summary>
    public int Inputs { get; }

    /// <summary>Length of a result row, a multiple of 16.</summary>
    public int Outputs { get; }

    /// <summary>c += a b.</summary>
    /// <param name="a">Left rows.</param>
    /// <param name="aStride">From one left row to the next; rows may overlap.</param>
    /// <param name="c">Result rows of <see cref="Outputs"/>.</param>
    /// <param name="cStride">From one result row to the next.</param>
    /// <param name="rows">Rows.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Accumulate(float* a, int aStride, float* c, int cStride, int rows)
    {
        for (int from = 0; from < Inputs; from += Depth)
        {
            int depth = Math.Min(Depth, Inputs - from), column = 0;
            foreach (int panel in _panels)
            {
                float* b = _packed.Pointer + ((long)column * Inputs) + (from * panel * Lanes), left = a + from, to = c + column;
                int row = 0;
                switch (panel)
                {
                    case 4:
                        for (; row + 4 <= rows; row += 4, left += 4 * aStride, to += 4 * cStride)
                            FourByFour(left, aStride, b, to, cStride, depth);
                        break;
                    case 3:
                        for (; row + 4 <= rows; row += 4, left += 4 * aStride, to += 4 * cStride)
                            FourByThree(left, aStride, b, to, cStride, depth);
                        break;
                    case 2:
                        for (; row + 4 <= rows; row += 4, left += 4 * aStride, to += 4 * cStride)
                            FourByTwo(left, aStride, b, to, cStride, depth);
                        break;
                    default:
                        for (; row + 8 <= rows; row += 8, left += 8 * aStride, to += 8 * cStride)
                            EightByOne(left, aStride, b, to, cStride, depth);
                        break;
                }
                for (; row < rows; row++, left += aStride, to += cStride)
                    OneRow(left, b, to, depth, panel);
                column += panel * Lanes;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _packed.Dispose();

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void OneRow(float* a, float* b, float* c, int depth, int panel)
    {
        for (int v = 0; v < panel; v++)
        {
            Vector512<float> sum = Vector512.Load(c + (v * Lanes));
            for (int i = 0; i < depth; i++)
                sum = MultiplyAdd(Vector512.Create(a[i]), Vector512.Load(b + (((i * panel) + v) * Lanes)), sum);
            sum.Store(c + (v * Lanes));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void FourByFour(float* a, int aStride, float* b, float* c, int cStride, int depth)
    {
        float* a1 = a + aStride, a2 = a1 + aStride, a3 = a2 + aStride, c1 = c + cStride, c2 = c1 + cStride, c3 = c2 + cStride;
        Vector512<float> s00 = Vector512.Load(c), s01 = Vector512.Load(c + 16), s02 = Vector512.Load(c + 32), s03 = Vector512.Load(c + 48);
        Vector512<float> s10 = Vector512.Load(c1), s11 = Vector512.Load(c1 + 16), s12 = Vector512.Load(c1 + 32), s13 = Vector512.Load(c1 + 48);
        Vector512<float> s20 = Vector512.Load(c2), s21 = Vector512.Load(c2 + 16), s22 = Vector512.Load(c2 + 32), s23 = Vector512.Load(c2 + 48);
        Vector512<float> s30 = Vector512.Load(c3), s31 = Vector512.Load(c3 + 16), s32 = Vector512.Load(c3 + 32), s33 = Vector512.Load(c3 + 48);
        for (int i = 0; i < depth; i++, b += 64)
        {
            Vector512<float> b0 = Vector512.Load(b), b1 = Vector512.Load(b + 16), b2 = Vector512.Load(b + 32), b3 = Vector512.Load(b + 48);
            Vector512<float> x = Vector512.Create(a[i]);
            s00 = MultiplyAdd(x, b0, s00);
            s01 = MultiplyAdd(x, b1, s01);
            s02 = MultiplyAdd(x, b2, s02);
            s03 = MultiplyAdd(x, b3, s03);
            x = Vector512.Create(a1[i]);
            s10 = MultiplyAdd(x, b0, s10);
            s11 = MultiplyAdd(x, b1, s11);
            s12 = MultiplyAdd(x, b2, s12);
            s13 = MultiplyAdd(x, b3, s13);
            x = Vector512.Create(a2[i]);
            s20 = MultiplyAdd(x, b0, s20);
            s21 = MultiplyAdd(x, b1, s21);
            s22 = MultiplyAdd(x, b2, s22);
            s23 = MultiplyAdd(x, b3, s23);
            x = Vector512.Create(a3[i]);
            s30 = MultiplyAdd(x, b0, s30);
            s31 = MultiplyAdd(x, b1, s31);
            s32 = MultiplyAdd(x, b2, s32);
            s33 = MultiplyAdd(x, b3, s33);
        }
        s00.Store(c);
        s01.Store(c + 16);
        s02.Store(c + 32);
        s03.Store(c + 48);
        s10.Store(c1);
        s11.Store(c1 + 16);
        s12.Store(c1 + 32);
        s13.Store(c1 + 48);
        s20.Store(c2);
        s21.Store(c2 + 16);
        s22.Store(c2 + 32);
        s23.Store(c2 + 48);
        s30.Store(c3);
        s31.Store(c3 + 16);
        s32.Store(c3 + 32);
        s33.Store(c3 + 48);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void FourByThree(float* a, int aStride, float* b, float* c, int cStride, int depth)
    {
        float* a1 = a + aStride, a2 = a1 + aStride, a3 = a2 + aStride, c1 = c + cStride, c2 = c1 + cStride, c3 = c2 + cStride;
        Vector512<float> s00 = Vector512.Load(c), s01 = Vector512.Load(c + 16), s02 = Vector512.Load(c + 32);
        Vector512<float> s10 = Vector512.Load(c1), s11 = Vector512.Load(c1 + 16), s12 = Vector512.Load(c1 + 32);
        Vector512<float> s20 = Vector512.Load(c2), s21 = Vector512.Load(c2 + 16), s22 = Vector512.Load(c2 + 32);
        Vector512<float> s30 = Vector512.Load(c3), s31 = Vector512.Load(c3 + 16), s32 = Vector512.Load(c3 + 32);
        for (int i = 0; i < depth; i++, b += 48)
        {
            Vector512<float> b0 = Vector512.Load(b), b1 = Vector512.Load(b + 16), b2 = Vector512.Load(b + 32);
            Vector512<float> x = Vector512.Create(a[i]);
            s00 = MultiplyAdd(x, b0, s00);
            s01 = MultiplyAdd(x, b1, s01);
            s02 = MultiplyAdd(x, b2, s02);
            x = Vector512.Create(a1[i]);
            s10 = MultiplyAdd(x, b0, s10);
            s11 = MultiplyAdd(x, b1, s11);
            s12 = MultiplyAdd(x, b2, s12);
            x = Vector512.Create(a2[i]);
            s20 = MultiplyAdd(x, b0, s20);
            s21 = MultiplyAdd(x, b1, s21);
            s22 = MultiplyAdd(x, b2, s22);
            x = Vector512.Create(a3[i]);
            s30 = MultiplyAdd(x, b0, s30);
            s31 = MultiplyAdd(x, b1, s31);
            s32 = MultiplyAdd(x, b2, s32);
        }
        s00.Store(c);
        s01.Store(c + 16);
        s02.Store(c + 32);
        s10.Store(c1);
        s11.Store(c1 + 16);
        s12.Store(c1 + 32);
        s20.Store(c2);
        s21.Store(c2 + 16);
        s22.Store(c2 + 32);
        s30.Store(c3);
        s31.Store(c3 + 16);
        s32.Store(c3 + 32);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void FourByTwo(float* a, int aStride, float* b, float* c, int cStride, int depth)
    {
        float* a1 = a + aStride, a2 = a1 + aStride, a3 = a2 + aStride, c1 = c + cStride, c2 = c1 + cStride, c3 = c2 + cStride;
        Vector512<float> s00 = Vector512.Load(c), s01 = Vector512.Load(c + 16), s10 = Vector512.Load(c1), s11 = Vector512.Load(c1 + 16);
        Vector512<float> s20 = Vector512.Load(c2), s21 = Vector512.Load(c2 + 16), s30 = Vector512.Load(c3), s31 = Vector512.Load(c3 + 16);
        for (int i = 0; i < depth; i++, b += 32)
        {
            Vector512<float> b0 = Vector512.Load(b), b1 = Vector512.Load(b + 16);
            Vector512<float> x = Vector512.Create(a[i]);
            s00 = MultiplyAdd(x, b0, s00);
            s01 = MultiplyAdd(x, b1, s01);
            x = Vector512.Create(a1[i]);
            s10 = MultiplyAdd(x, b0, s10);
            s11 = MultiplyAdd(x, b1, s11);
            x = Vector512.Create(a2[i]);
            s20 = MultiplyAdd(x, b0, s20);
            s21 = MultiplyAdd(x, b1, s21);
            x = Vector512.Create(a3[i]);
            s30 = MultiplyAdd(x, b0, s30);
            s31 = MultiplyAdd(x, b1, s31);
        }
        s00.Store(c);
        s01.Store(c + 16);
        s10.Store(c1);
        s11.Store(c1 + 16);
        s20.Store(c2);
        s21.Store(c2 + 16);
        s30.Store(c3);
        s31.Store(c3 + 16);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void EightByOne(float* a, int aStride, float* b, float* c, int cStride, int depth)
    {
        float* a1 = a + aStride, a2 = a1 + aStride, a3 = a2 + aStride, a4 = a3 + aStride, a5 = a4 + aStride, a6 = a5 + aStride, a7 = a6 + aStride;
        Vector512<float> s0 = Vector512.Load(c), s1 = Vector512.Load(c + cStride), s2 = Vector512.Load(c + (2 * cStride)), s3 = Vector512.Load(c + (3 * cStride));
        Vector512<float> s4 = Vector512.Load(c + (4 * cStride)), s5 = Vector512.Load(c + (5 * cStride)), s6 = Vector512.Load(c + (6 * cStride)), s7 = Vector512.Load(c + (7 * cStride));
        for (int i = 0; i < depth; i++, b += 16)
        {
            Vector512<float> b0 = Vector512.Load(b);
            s0 = MultiplyAdd(Vector512.Create(a[i]), b0, s0);
            s1 = MultiplyAdd(Vector512.Create(a1[i]), b0, s1);
            s2 = MultiplyAdd(Vector512.Create(a2[i]), b0, s2);
            s3 = MultiplyAdd(Vector512.Create(a3[i]), b0, s3);
            s4 = MultiplyAdd(Vector512.Create(a4[i]), b0, s4);
            s5 = MultiplyAdd(Vector512.Create(a5[i]), b0, s5);
            s6 = MultiplyAdd(Vector512.Create(a6[i]), b0, s6);
            s7 = MultiplyAdd(Vector512.Create(a7[i]), b0, s7);
        }
        s0.Store(c);
        s1.Store(c + cStride);
        s2.Store(c + (2 * cStride));
        s3.Store(c + (3 * cStride));
        s4.Store(c + (4 * cStride));
        s5.Store(c + (5 * cStride));
        s6.Store(c + (6 * cStride));
        s7.Store(c + (7 * cStride));
    }
}

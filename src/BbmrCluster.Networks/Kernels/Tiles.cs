using System.Runtime.CompilerServices;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Float32 matrix products, tile by tile: four rows times as many vectors as the registers hold. Every value is one chain of
/// multiply-adds in the order of the depth, whatever tile it is in.
/// </summary>
internal static unsafe class Tiles
{
    /// <summary>Vectors of the next panel when so many are left: no panel of one vector where it can be helped.</summary>
    public static int Panel(int left, int widest) => left == widest + 1 ? (left + 1) / 2 : Math.Min(left, widest);

    /// <summary>c[row][column] = start[row][column] + sum over i of a[row][i] b[i][column].</summary>
    /// <param name="a">The left side.</param>
    /// <param name="aRow">From one row of it to the next.</param>
    /// <param name="aStep">From one value of a row to the next.</param>
    /// <param name="b">The right side; the values of a row lie side by side.</param>
    /// <param name="bRow">From one row of it to the next.</param>
    /// <param name="start">Null for zeros; may be <paramref name="c"/>.</param>
    /// <param name="startRow">From one row of it to the next; 0 for one that all share.</param>
    /// <param name="c">The result.</param>
    /// <param name="cRow">From one row of it to the next.</param>
    /// <param name="rows">Rows of the result.</param>
    /// <param name="columns">Columns of the result, whole vectors.</param>
    /// <param name="depth">Length of the sums.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Multiply<V>(float* a, int aRow, int aStep, float* b, int bRow, float* start, int startRow, float* c, int cRow, int rows, int columns, int depth)
        where V : unmanaged, IFloats<V>
    {
        for (int left = columns / V.Count; left > 0;)
        {
            int vectors = Panel(left, V.TileVectors), width = vectors * V.Count;
            Column<V>(a, aRow, aStep, b, bRow, start, startRow, c, cRow, rows, vectors, depth);
            left -= vectors;
            b += width;
            c += width;
            if (start is not null)
                start += width;
        }
    }

    /// <summary>As <see cref="Multiply"/>, for a panel of up to <see cref="IFloats{V}.TileVectors"/> vectors.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Column<V>(float* a, int aRow, int aStep, float* b, int bRow, float* start, int startRow, float* c, int cRow, int rows, int vectors, int depth)
        where V : unmanaged, IFloats<V>
    {
        int row = 0, each = vectors == 1 ? 8 : 4;
        for (; row + each <= rows; row += each)
        {
            switch (vectors)
            {
                case 4:
                    FourByFour<V>(a, aRow, aStep, b, bRow, start, startRow, c, cRow, depth);
                    break;
                case 3:
                    FourByThree<V>(a, aRow, aStep, b, bRow, start, startRow, c, cRow, depth);
                    break;
                case 2:
                    FourByTwo<V>(a, aRow, aStep, b, bRow, start, startRow, c, cRow, depth);
                    break;
                default:
                    EightByOne<V>(a, aRow, aStep, b, bRow, start, startRow, c, cRow, depth);
                    break;
            }
            a += (long)each * aRow;
            c += (long)each * cRow;
            if (start is not null)
                start += (long)each * startRow;
        }
        for (; row < rows; row++)
        {
            for (int v = 0; v < vectors; v++)
                OneByOne<V>(a, aStep, b + (v * V.Count), bRow, start is null ? null : start + (v * V.Count), c + (v * V.Count), depth);
            a += aRow;
            c += cRow;
            if (start is not null)
                start += startRow;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void OneByOne<V>(float* a, long aStep, float* b, long bRow, float* start, float* c, int depth)
        where V : unmanaged, IFloats<V>
    {
        V sum = start is null ? default : V.Load(start);
        for (; depth > 0; depth--, a += aStep, b += bRow)
            sum = V.MultiplyAdd(V.Create(*a), V.Load(b), sum);
        V.Store(sum, c);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void FourByFour<V>(float* a, long aRow, long aStep, float* b, long bRow, float* start, long startRow, float* c, long cRow, int depth)
        where V : unmanaged, IFloats<V>
    {
        int n = V.Count;
        V s00 = default, s01 = default, s02 = default, s03 = default;
        V s10 = default, s11 = default, s12 = default, s13 = default;
        V s20 = default, s21 = default, s22 = default, s23 = default;
        V s30 = default, s31 = default, s32 = default, s33 = default;
        if (start is not null)
        {
            s00 = V.Load(start);
            s01 = V.Load(start + n);
            s02 = V.Load(start + (2 * n));
            s03 = V.Load(start + (3 * n));
            s10 = V.Load(start + startRow);
            s11 = V.Load(start + startRow + n);
            s12 = V.Load(start + startRow + (2 * n));
            s13 = V.Load(start + startRow + (3 * n));
            s20 = V.Load(start + (2 * startRow));
            s21 = V.Load(start + (2 * startRow) + n);
            s22 = V.Load(start + (2 * startRow) + (2 * n));
            s23 = V.Load(start + (2 * startRow) + (3 * n));
            s30 = V.Load(start + (3 * startRow));
            s31 = V.Load(start + (3 * startRow) + n);
            s32 = V.Load(start + (3 * startRow) + (2 * n));
            s33 = V.Load(start + (3 * startRow) + (3 * n));
        }
        float* a1 = a + aRow, a2 = a1 + aRow, a3 = a2 + aRow;
        for (long at = 0, end = depth * aStep; at != end; at += aStep, b += bRow)
        {
            V b0 = V.Load(b), b1 = V.Load(b + n), b2 = V.Load(b + (2 * n)), b3 = V.Load(b + (3 * n));
            V x = V.Create(a[at]);
            s00 = V.MultiplyAdd(x, b0, s00);
            s01 = V.MultiplyAdd(x, b1, s01);
            s02 = V.MultiplyAdd(x, b2, s02);
            s03 = V.MultiplyAdd(x, b3, s03);
            x = V.Create(a1[at]);
            s10 = V.MultiplyAdd(x, b0, s10);
            s11 = V.MultiplyAdd(x, b1, s11);
            s12 = V.MultiplyAdd(x, b2, s12);
            s13 = V.MultiplyAdd(x, b3, s13);
            x = V.Create(a2[at]);
            s20 = V.MultiplyAdd(x, b0, s20);
            s21 = V.MultiplyAdd(x, b1, s21);
            s22 = V.MultiplyAdd(x, b2, s22);
            s23 = V.MultiplyAdd(x, b3, s23);
            x = V.Create(a3[at]);
            s30 = V.MultiplyAdd(x, b0, s30);
            s31 = V.MultiplyAdd(x, b1, s31);
            s32 = V.MultiplyAdd(x, b2, s32);
            s33 = V.MultiplyAdd(x, b3, s33);
        }
        V.Store(s00, c);
        V.Store(s01, c + n);
        V.Store(s02, c + (2 * n));
        V.Store(s03, c + (3 * n));
        c += cRow;
        V.Store(s10, c);
        V.Store(s11, c + n);
        V.Store(s12, c + (2 * n));
        V.Store(s13, c + (3 * n));
        c += cRow;
        V.Store(s20, c);
        V.Store(s21, c + n);
        V.Store(s22, c + (2 * n));
        V.Store(s23, c + (3 * n));
        c += cRow;
        V.Store(s30, c);
        V.Store(s31, c + n);
        V.Store(s32, c + (2 * n));
        V.Store(s33, c + (3 * n));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void FourByThree<V>(float* a, long aRow, long aStep, float* b, long bRow, float* start, long startRow, float* c, long cRow, int depth)
        where V : unmanaged, IFloats<V>
    {
        int n = V.Count;
        V s00 = default, s01 = default, s02 = default;
        V s10 = default, s11 = default, s12 = default;
        V s20 = default, s21 = default, s22 = default;
        V s30 = default, s31 = default, s32 = default;
        if (start is not null)
        {
            s00 = V.Load(start);
            s01 = V.Load(start + n);
            s02 = V.Load(start + (2 * n));
            s10 = V.Load(start + startRow);
            s11 = V.Load(start + startRow + n);
            s12 = V.Load(start + startRow + (2 * n));
            s20 = V.Load(start + (2 * startRow));
            s21 = V.Load(start + (2 * startRow) + n);
            s22 = V.Load(start + (2 * startRow) + (2 * n));
            s30 = V.Load(start + (3 * startRow));
            s31 = V.Load(start + (3 * startRow) + n);
            s32 = V.Load(start + (3 * startRow) + (2 * n));
        }
        float* a1 = a + aRow, a2 = a1 + aRow, a3 = a2 + aRow;
        for (long at = 0, end = depth * aStep; at != end; at += aStep, b += bRow)
        {
            V b0 = V.Load(b), b1 = V.Load(b + n), b2 = V.Load(b + (2 * n));
            V x = V.Create(a[at]);
            s00 = V.MultiplyAdd(x, b0, s00);
            s01 = V.MultiplyAdd(x, b1, s01);
            s02 = V.MultiplyAdd(x, b2, s02);
            x = V.Create(a1[at]);
            s10 = V.MultiplyAdd(x, b0, s10);
            s11 = V.MultiplyAdd(x, b1, s11);
            s12 = V.MultiplyAdd(x, b2, s12);
            x = V.Create(a2[at]);
            s20 = V.MultiplyAdd(x, b0, s20);
            s21 = V.MultiplyAdd(x, b1, s21);
            s22 = V.MultiplyAdd(x, b2, s22);
            x = V.Create(a3[at]);
            s30 = V.MultiplyAdd(x, b0, s30);
            s31 = V.MultiplyAdd(x, b1, s31);
            s32 = V.MultiplyAdd(x, b2, s32);
        }
        V.Store(s00, c);
        V.Store(s01, c + n);
        V.Store(s02, c + (2 * n));
        c += cRow;
        V.Store(s10, c);
        V.Store(s11, c + n);
        V.Store(s12, c + (2 * n));
        c += cRow;
        V.Store(s20, c);
        V.Store(s21, c + n);
        V.Store(s22, c + (2 * n));
        c += cRow;
        V.Store(s30, c);
        V.Store(s31, c + n);
        V.Store(s32, c + (2 * n));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void FourByTwo<V>(float* a, long aRow, long aStep, float* b, long bRow, float* start, long startRow, float* c, long cRow, int depth)
        where V : unmanaged, IFloats<V>
    {
        int n = V.Count;
        V s00 = default, s01 = default;
        V s10 = default, s11 = default;
        V s20 = default, s21 = default;
        V s30 = default, s31 = default;
        if (start is not null)
        {
            s00 = V.Load(start);
            s01 = V.Load(start + n);
            s10 = V.Load(start + startRow);
            s11 = V.Load(start + startRow + n);
            s20 = V.Load(start + (2 * startRow));
            s21 = V.Load(start + (2 * startRow) + n);
            s30 = V.Load(start + (3 * startRow));
            s31 = V.Load(start + (3 * startRow) + n);
        }
        float* a1 = a + aRow, a2 = a1 + aRow, a3 = a2 + aRow;
        for (long at = 0, end = depth * aStep; at != end; at += aStep, b += bRow)
        {
            V b0 = V.Load(b), b1 = V.Load(b + n);
            V x = V.Create(a[at]);
            s00 = V.MultiplyAdd(x, b0, s00);
            s01 = V.MultiplyAdd(x, b1, s01);
            x = V.Create(a1[at]);
            s10 = V.MultiplyAdd(x, b0, s10);
            s11 = V.MultiplyAdd(x, b1, s11);
            x = V.Create(a2[at]);
            s20 = V.MultiplyAdd(x, b0, s20);
            s21 = V.MultiplyAdd(x, b1, s21);
            x = V.Create(a3[at]);
            s30 = V.MultiplyAdd(x, b0, s30);
            s31 = V.MultiplyAdd(x, b1, s31);
        }
        V.Store(s00, c);
        V.Store(s01, c + n);
        c += cRow;
        V.Store(s10, c);
        V.Store(s11, c + n);
        c += cRow;
        V.Store(s20, c);
        V.Store(s21, c + n);
        c += cRow;
        V.Store(s30, c);
        V.Store(s31, c + n);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void EightByOne<V>(float* a, long aRow, long aStep, float* b, long bRow, float* start, long startRow, float* c, long cRow, int depth)
        where V : unmanaged, IFloats<V>
    {
        V s0 = default;
        V s1 = default;
        V s2 = default;
        V s3 = default;
        V s4 = default;
        V s5 = default;
        V s6 = default;
        V s7 = default;
        if (start is not null)
        {
            s0 = V.Load(start);
            s1 = V.Load(start + startRow);
            s2 = V.Load(start + (2 * startRow));
            s3 = V.Load(start + (3 * startRow));
            s4 = V.Load(start + (4 * startRow));
            s5 = V.Load(start + (5 * startRow));
            s6 = V.Load(start + (6 * startRow));
            s7 = V.Load(start + (7 * startRow));
        }
        float* a1 = a + aRow, a2 = a1 + aRow, a3 = a2 + aRow, a4 = a3 + aRow, a5 = a4 + aRow, a6 = a5 + aRow, a7 = a6 + aRow;
        for (long at = 0, end = depth * aStep; at != end; at += aStep, b += bRow)
        {
            V b0 = V.Load(b);
            s0 = V.MultiplyAdd(V.Create(a[at]), b0, s0);
            s1 = V.MultiplyAdd(V.Create(a1[at]), b0, s1);
            s2 = V.MultiplyAdd(V.Create(a2[at]), b0, s2);
            s3 = V.MultiplyAdd(V.Create(a3[at]), b0, s3);
            s4 = V.MultiplyAdd(V.Create(a4[at]), b0, s4);
            s5 = V.MultiplyAdd(V.Create(a5[at]), b0, s5);
            s6 = V.MultiplyAdd(V.Create(a6[at]), b0, s6);
            s7 = V.MultiplyAdd(V.Create(a7[at]), b0, s7);
        }
        V.Store(s0, c);
        c += cRow;
        V.Store(s1, c);
        c += cRow;
        V.Store(s2, c);
        c += cRow;
        V.Store(s3, c);
        c += cRow;
        V.Store(s4, c);
        c += cRow;
        V.Store(s5, c);
        c += cRow;
        V.Store(s6, c);
        c += cRow;
        V.Store(s7, c);
    }
}

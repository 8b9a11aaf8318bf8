using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using static BbmrCluster.Networks.Kernels.VectorMath;

namespace BbmrCluster.Networks.Kernels;

/// <summary>Small float32 matrices whose rows are one vector (16 values) or a multiple of it: the products inside attention.</summary>
internal static unsafe class Squares
{
    /// <summary>to[j][i] = from[i][j] for 16 x 16 values.</summary>
    /// <param name="from">16 rows.</param>
    /// <param name="fromStride">Values from row to row.</param>
    /// <param name="to">16 rows; not overlapping <paramref name="from"/>.</param>
    /// <param name="toStride">Values from row to row.</param>
    public static void Transpose(float* from, int fromStride, float* to, int toStride)
    {
        if (!Avx512F.IsSupported)
        {
            for (int i = 0; i < Lanes; i++)
            {
                for (int j = 0; j < Lanes; j++)
                    to[(j * toStride) + i] = from[(i * fromStride) + j];
            }
            return;
        }

        // Four rows at a time: after two interleavings, lane group l of u[k] holds column 4 l + k of the four rows.
        Vector512<float>* u = stackalloc Vector512<float>[16];
        for (int four = 0; four < 4; four++)
        {
            float* row = from + (4 * four * fromStride);
            Vector512<float> a = Load(row), b = Load(row + fromStride), c = Load(row + (2 * fromStride)), d = Load(row + (3 * fromStride));
            Vector512<double> ab = Avx512F.UnpackLow(a, b).AsDouble(), cd = Avx512F.UnpackLow(c, d).AsDouble();
            u[four] = Avx512F.UnpackLow(ab, cd).AsSingle();
            u[4 + four] = Avx512F.UnpackHigh(ab, cd).AsSingle();
            ab = Avx512F.UnpackHigh(a, b).AsDouble();
            cd = Avx512F.UnpackHigh(c, d).AsDouble();
            u[8 + four] = Avx512F.UnpackLow(ab, cd).AsSingle();
            u[12 + four] = Avx512F.UnpackHigh(ab, cd).AsSingle();
        }
        for (int k = 0; k < 4; k++)
        {
            Vector512<float> even = Avx512F.Shuffle4x128(u[4 * k], u[(4 * k) + 1], 0x88), odd = Avx512F.Shuffle4x128(u[4 * k], u[(4 * k) + 1], 0xdd);
            Vector512<float> evens = Avx512F.Shuffle4x128(u[(4 * k) + 2], u[(4 * k) + 3], 0x88), odds = Avx512F.Shuffle4x128(u[(4 * k) + 2], u[(4 * k) + 3], 0xdd);
            Store(Avx512F.Shuffle4x128(even, evens, 0x88), to + (k * toStride));
            Store(Avx512F.Shuffle4x128(odd, odds, 0x88), to + ((4 + k) * toStride));
            Store(Avx512F.Shuffle4x128(even, evens, 0xdd), to + ((8 + k) * toStride));
            Store(Avx512F.Shuffle4x128(odd, odds, 0xdd), to + ((12 + k) * toStride));
        }
    }

    /// <summary>result[j][i] = sum over p of a[p][j] b[p][i]: 16 x 16.</summary>
    /// <param name="a">(count, 16).</param>
    /// <param name="b">(count, 16).</param>
    /// <param name="count">Positions.</param>
    /// <param name="result">(16, 16).</param>
    public static void OuterProducts(float* a, float* b, int count, float* result)
    {
        // Eight rows at a time leave registers for the operands.
        for (int half = 0; half < Lanes; half += 8)
        {
            Vector512<float> r0 = default, r1 = default, r2 = default, r3 = default, r4 = default, r5 = default, r6 = default, r7 = default;
            float* x = a + half;
            for (int p = 0; p < count; p++, x += Lanes)
            {
                Vector512<float> y = Load(b + (p * Lanes));
                r0 = MultiplyAdd(Vector512.Create(x[0]), y, r0);
                r1 = MultiplyAdd(Vector512.Create(x[1]), y, r1);
                r2 = MultiplyAdd(Vector512.Create(x[2]), y, r2);
                r3 = MultiplyAdd(Vector512.Create(x[3]), y, r3);
                r4 = MultiplyAdd(Vector512.Create(x[4]), y, r4);
                r5 = MultiplyAdd(Vector512.Create(x[5]), y, r5);
                r6 = MultiplyAdd(Vector512.Create(x[6]), y, r6);
                r7 = MultiplyAdd(Vector512.Create(x[7]), y, r7);
            }
            float* to = result + (half * Lanes);
            Store(r0, to);
            Store(r1, to + 16);
            Store(r2, to + 32);
            Store(r3, to + 48);
            Store(r4, to + 64);
            Store(r5, to + 80);
            Store(r6, to + 96);
            Store(r7, to + 112);
        }
    }

    /// <summary>
    /// result[i][c] = sum over j of a[i][j] b[j][c], c below 16; with <paramref name="across"/> a is read transposed:
    /// sum over j of a[j][i] b[j][c].
    /// </summary>
    /// <param name="a">(rows, stride) or, across, (inner, stride).</param>
    /// <param name="stride">Values from row to row of a.</param>
    /// <param name="across">Whether a is transposed.</param>
    /// <param name="b">(inner, 16).</param>
    /// <param name="inner">Length of the sum.</param>
    /// <param name="rows">Rows of the result, a multiple of 4.</param>
    /// <param name="result">(rows, 16).</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void RowProducts(float* a, int stride, bool across, float* b, int inner, int rows, float* result)
    {
        int down = across ? 1 : stride, along = across ? stride : 1;
        int i = 0;
        for (; i + 8 <= rows; i += 8)
        {
            Vector512<float> r0 = default, r1 = default, r2 = default, r3 = default, r4 = default, r5 = default, r6 = default, r7 = default;
            float* x = a + ((long)i * down);
            for (int j = 0; j < inner; j++, x += along)
            {
                Vector512<float> y = Load(b + (j * Lanes));
                r0 = MultiplyAdd(Vector512.Create(x[0]), y, r0);
                r1 = MultiplyAdd(Vector512.Create(x[down]), y, r1);
                r2 = MultiplyAdd(Vector512.Create(x[2 * down]), y, r2);
                r3 = MultiplyAdd(Vector512.Create(x[3 * down]), y, r3);
                r4 = MultiplyAdd(Vector512.Create(x[4 * down]), y, r4);
                r5 = MultiplyAdd(Vector512.Create(x[5 * down]), y, r5);
                r6 = MultiplyAdd(Vector512.Create(x[6 * down]), y, r6);
                r7 = MultiplyAdd(Vector512.Create(x[7 * down]), y, r7);
            }
            float* to = result + (i * Lanes);
            Store(r0, to);
            Store(r1, to + 16);
            Store(r2, to + 32);
            Store(r3, to + 48);
            Store(r4, to + 64);
            Store(r5, to + 80);
            Store(r6, to + 96);
            Store(r7, to + 112);
        }
        for (; i < rows; i += 4)
        {
            Vector512<float> r0 = default, r1 = default, r2 = default, r3 = default;
            float* x = a + ((long)i * down);
            for (int j = 0; j < inner; j++, x += along)
            {
                Vector512<float> y = Load(b + (j * Lanes));
                r0 = MultiplyAdd(Vector512.Create(x[0]), y, r0);
                r1 = MultiplyAdd(Vector512.Create(x[down]), y, r1);
                r2 = MultiplyAdd(Vector512.Create(x[2 * down]), y, r2);
                r3 = MultiplyAdd(Vector512.Create(x[3 * down]), y, r3);
            }
            float* to = result + (i * Lanes);
            Store(r0, to);
            Store(r1, to + 16);
            Store(r2, to + 32);
            Store(r3, to + 48);
        }
    }

    /// <summary>result[i][j] = start[i][j] + sum over c of a[i][c] b[c][j], for 64 rows, 64 columns, 16 inner.</summary>
    /// <param name="a">(64, 16).</param>
    /// <param name="b">(16, 64).</param>
    /// <param name="start">(64, 64), or null for zeros.</param>
    /// <param name="result">(64, 64).</param>
    public static void WideProducts(float* a, float* b, float* start, float* result)
    {
        const int side = 64;
        for (int i = 0; i < side; i += 4, a += 4 * Lanes, result += 4 * side)
        {
            Vector512<float> p0 = default, p1 = default, p2 = default, p3 = default, q0 = default, q1 = default, q2 = default, q3 = default;
            Vector512<float> r0 = default, r1 = default, r2 = default, r3 = default, s0 = default, s1 = default, s2 = default, s3 = default;
            if (start != null)
            {
                p0 = Load(start);
                p1 = Load(start + 16);
                p2 = Load(start + 32);
                p3 = Load(start + 48);
                q0 = Load(start + 64);
                q1 = Load(start + 80);
                q2 = Load(start + 96);
                q3 = Load(start + 112);
                r0 = Load(start + 128);
                r1 = Load(start + 144);
                r2 = Load(start + 160);
                r3 = Load(start + 176);
                s0 = Load(start + 192);
                s1 = Load(start + 208);
                s2 = Load(start + 224);
                s3 = Load(start + 240);
                start += 4 * side;
            }
            float* y = b;
            for (int c = 0; c < Lanes; c++, y += side)
            {
                Vector512<float> y0 = Load(y), y1 = Load(y + 16), y2 = Load(y + 32), y3 = Load(y + 48);
                Vector512<float> x = Vector512.Create(a[c]);
                p0 = MultiplyAdd(x, y0, p0);
                p1 = MultiplyAdd(x, y1, p1);
                p2 = MultiplyAdd(x, y2, p2);
                p3 = MultiplyAdd(x, y3, p3);
                x = Vector512.Create(a[Lanes + c]);
                q0 = MultiplyAdd(x, y0, q0);
                q1 = MultiplyAdd(x, y1, q1);
                q2 = MultiplyAdd(x, y2, q2);
                q3 = MultiplyAdd(x, y3, q3);
                x = Vector512.Create(a[(2 * Lanes) + c]);
                r0 = MultiplyAdd(x, y0, r0);
                r1 = MultiplyAdd(x, y1, r1);
                r2 = MultiplyAdd(x, y2, r2);
                r3 = MultiplyAdd(x, y3, r3);
                x = Vector512.Create(a[(3 * Lanes) + c]);
                s0 = MultiplyAdd(x, y0, s0);
                s1 = MultiplyAdd(x, y1, s1);
                s2 = MultiplyAdd(x, y2, s2);
                s3 = MultiplyAdd(x, y3, s3);
            }
            Store(p0, result);
            Store(p1, result + 16);
            Store(p2, result + 32);
            Store(p3, result + 48);
            Store(q0, result + 64);
            Store(q1, result + 80);
            Store(q2, result + 96);
            Store(q3, result + 112);
            Store(r0, result + 128);
            Store(r1, result + 144);
            Store(r2, result + 160);
            Store(r3, result + 176);
            Store(s0, result + 192);
            Store(s1, result + 208);
            Store(s2, result + 224);
            Store(s3, result + 240);
        }
    }
}

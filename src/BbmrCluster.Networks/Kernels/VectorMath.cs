using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// What the vector loops over maps are built of: 16 float32 lanes, loads and stores of float32 and bfloat16 (held as the
/// upper 16 bits of a float32), and functions. Written with portable vectors: one instruction each with AVX-512, several
/// without. Pointers need no alignment; nothing here checks bounds.
/// </summary>
internal static unsafe class VectorMath
{
    /// <summary>Values in a vector.</summary>
    public const int Lanes = 16;

    /// <summary>a b + c, fused where the processor can.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> MultiplyAdd(Vector512<float> a, Vector512<float> b, Vector512<float> c) => Vector512.MultiplyAddEstimate(a, b, c);

    /// <summary>16 consecutive values; <typeparamref name="T"/> is float, or ushort for bfloat16.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load<T>(T* from)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return Vector512.Load((float*)from);
        Vector256<ushort> half = Vector256.Load((ushort*)from);
        Vector512<uint> wide = Avx512F.IsSupported
            ? Avx512F.ConvertToVector512UInt32(half)
            : Vector512.Create(Vector256.WidenLower(half), Vector256.WidenUpper(half));
        return (wide << 16).AsSingle();
    }

    /// <summary>Stores 16 values; to bfloat16 rounded to nearest, ties to even. Infinity and the processor's NaN stay what they are.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store<T>(Vector512<float> values, T* to)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
        {
            values.Store((float*)to);
            return;
        }
        Vector512<uint> half = Rounded(values) >> 16;
        Vector256<ushort> narrow = Avx512F.IsSupported ? Avx512F.ConvertToVector256UInt16(half) : Vector256.Narrow(half.GetLower(), half.GetUpper());
        narrow.Store((ushort*)to);
    }

    /// <summary>Stores the first 8 values, rounded as <see cref="Store"/> does.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreLower<T>(Vector512<float> values, T* to)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
        {
            values.GetLower().Store((float*)to);
            return;
        }
        Vector256<uint> half = (Rounded(values) >> 16).GetLower();
        Vector128.Narrow(half.GetLower(), half.GetUpper()).Store((ushort*)to);
    }

    /// <summary>
    /// 32 consecutive values as two vectors: of bfloat16 the even and the odd ones, which costs one instruction each; of
    /// float32 the first and the last 16. For loops that do not care which value is in which lane; <see cref="StorePair"/> undoes it.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Vector512<float> First, Vector512<float> Second) LoadPair<T>(T* from)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return (Vector512.Load((float*)from), Vector512.Load((float*)from + Lanes));
        Vector512<uint> both = Vector512.Load((uint*)from);
        return ((both << 16).AsSingle(), (both & Vector512.Create(0xffff0000u)).AsSingle());
    }

    /// <summary>Stores what <see cref="LoadPair"/> loaded, rounded as <see cref="Store"/> does.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StorePair<T>(Vector512<float> first, Vector512<float> second, T* to)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
        {
            first.Store((float*)to);
            second.Store((float*)to + Lanes);
            return;
        }
        ((Rounded(first) >> 16) | (Rounded(second) & Vector512.Create(0xffff0000u))).Store((uint*)to);
    }

    /// <summary>Where channel <paramref name="channel"/> of 32 lies after <see cref="LoadPair"/>, counted through both vectors: for tables of weights in that order.</summary>
    public static int PairPlace<T>(int channel)
        where T : unmanaged => typeof(T) == typeof(float) ? channel : ((channel & 1) * Lanes) + (channel >> 1);

    /// <summary>One value.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float LoadScalar<T>(T* from)
        where T : unmanaged => typeof(T) == typeof(float) ? *(float*)from : BitConverter.UInt32BitsToSingle((uint)*(ushort*)from << 16);

    /// <summary>Stores one value, rounded as <see cref="Store"/> does.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreScalar<T>(float value, T* to)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            *(float*)to = value;
        else
            *(ushort*)to = ToBFloat16(value);
    }

    /// <summary>A float32 as bfloat16, to nearest, ties to even.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ushort ToBFloat16(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        return (ushort)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }

    /// <summary>e^x: relative error below 2e-7; arguments are held within -87 and 88, NaN stays NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Exp(Vector512<float> x)
    {
        x = Clamp(x, Vector512.Create(-87f), Vector512.Create(88f));
        // Adding 1.5 x 2^23 leaves the whole part of x / ln 2 in the lowest bits, ready to go into the exponent.
        Vector512<float> magic = Vector512.Create(12582912f);
        Vector512<float> shifted = MultiplyAdd(x, Vector512.Create(1.442695f), magic);
        Vector512<float> whole = shifted - magic;
        // ln 2 in two parts, so that the remainder is exact.
        Vector512<float> f = MultiplyAdd(whole, Vector512.Create(-0.693359375f), x);
        f = MultiplyAdd(whole, Vector512.Create(2.1219444e-4f), f);
        // Chebyshev fit of e^f, |f| up to ln 2 / 2.
        Vector512<float> p = MultiplyAdd(Vector512.Create(0.0013941108f), f, Vector512.Create(0.008375126f));
        p = MultiplyAdd(p, f, Vector512.Create(0.04166635f));
        p = MultiplyAdd(p, f, Vector512.Create(0.16666415f));
        p = MultiplyAdd(p, f, Vector512.Create(0.5f));
        p = MultiplyAdd(p, f, Vector512<float>.One);
        p = MultiplyAdd(p, f, Vector512<float>.One);
        return (p.AsInt32() + (shifted.AsInt32() << 23)).AsSingle();
    }

    /// <summary>erf(x / sqrt 2): absolute error below 1e-6, NaN stays NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> ErfOfRootHalf(Vector512<float> x)
    {
        // erf is 1 to 2e-8 beyond 4; inside, a Chebyshev fit of erf(z) / z in z^2 / 8 - 1.
        Vector512<float> z = x * Vector512.Create(0.70710677f);
        z = Clamp(z, Vector512.Create(-4f), Vector512.Create(4f));
        Vector512<float> s = MultiplyAdd(z * z, Vector512.Create(0.125f), Vector512.Create(-1f));
        Vector512<float> p = MultiplyAdd(Vector512.Create(0.0028532047f), s, Vector512.Create(-0.0062095793f));
        p = MultiplyAdd(p, s, Vector512.Create(0.0022209515f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.0024137914f));
        p = MultiplyAdd(p, s, Vector512.Create(0.016475461f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.0274991f));
        p = MultiplyAdd(p, s, Vector512.Create(0.032163497f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.043638363f));
        p = MultiplyAdd(p, s, Vector512.Create(0.060078792f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.0751835f));
        p = MultiplyAdd(p, s, Vector512.Create(0.090191044f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.10766778f));
        p = MultiplyAdd(p, s, Vector512.Create(0.1316756f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.17657737f));
        p = MultiplyAdd(p, s, Vector512.Create(0.353531f));
        return p * z;
    }

    /// <summary>GELU in its erf form, x (1 + erf(x / sqrt 2)) / 2: absolute error below 1e-6 |x|.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Gelu(Vector512<float> x)
    {
        Vector512<float> half = x * Vector512.Create(0.5f);
        return MultiplyAdd(half, ErfOfRootHalf(x), half);
    }

    /// <summary>GELU as exact as <typeparamref name="T"/> can tell: of bfloat16 with an absolute error below 2e-5 |x|.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Gelu<T>(Vector512<float> x)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return Gelu(x);
        // As ErfOfRootHalf, but only to 3, where erf is 1 to 2e-5.
        Vector512<float> z = Clamp(x * Vector512.Create(0.70710677f), Vector512.Create(-3f), Vector512.Create(3f));
        Vector512<float> s = MultiplyAdd(z * z, Vector512.Create(2f / 9), Vector512.Create(-1f));
        Vector512<float> p = MultiplyAdd(Vector512.Create(-0.0032704142f), s, Vector512.Create(0.0082610063f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.011217893f));
        p = MultiplyAdd(p, s, Vector512.Create(0.021611357f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.044184554f));
        p = MultiplyAdd(p, s, Vector512.Create(0.073464185f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.1100537f));
        p = MultiplyAdd(p, s, Vector512.Create(0.1573792f));
        p = MultiplyAdd(p, s, Vector512.Create(-0.22879915f));
        p = MultiplyAdd(p, s, Vector512.Create(0.47013417f));
        Vector512<float> half = x * Vector512.Create(0.5f);
        return MultiplyAdd(half * z, p, half);
    }

    /// <summary>
    /// e^x for x up to 0 as exact as <typeparamref name="T"/> can tell: of bfloat16 with a relative error below 1e-5.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> ExpOfNegative<T>(Vector512<float> x)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return Exp(x);
        x = Vector512.MaxNative(Vector512.Create(-87f), x);
        Vector512<float> magic = Vector512.Create(12582912f), shifted = MultiplyAdd(x, Vector512.Create(1.442695f), magic);
        Vector512<float> f = MultiplyAdd(shifted - magic, Vector512.Create(-0.6931472f), x);
        Vector512<float> p = MultiplyAdd(Vector512.Create(0.041875646f), f, Vector512.Create(0.16792142f));
        p = MultiplyAdd(p, f, Vector512.Create(0.4999937f));
        p = MultiplyAdd(p, f, Vector512.Create(0.99996227f));
        p = MultiplyAdd(p, f, Vector512<float>.One);
        return (p.AsInt32() + (shifted.AsInt32() << 23)).AsSingle();
    }

    /// <summary>GELU and its derivative.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Gelu(Vector512<float> x, out Vector512<float> derivative)
    {
        Vector512<float> half = Vector512.Create(0.5f), cumulative = MultiplyAdd(half, ErfOfRootHalf(x), half);
        Vector512<float> density = Exp(x * x * Vector512.Create(-0.5f)) * Vector512.Create(0.3989423f);
        derivative = MultiplyAdd(x, density, cumulative);
        return x * cumulative;
    }

    /// <summary>1 / (1 + e^-x).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Sigmoid(Vector512<float> x) => Vector512<float>.One / (Vector512<float>.One + Exp(-x));

    /// <summary>Transposes 16 x 16 values: lane j of row i becomes lane i of row j.</summary>
    /// <param name="from">First row.</param>
    /// <param name="fromStride">From row to row.</param>
    /// <param name="to">First row of the result; another place.</param>
    /// <param name="toStride">From row to row.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
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
        // Four rows at a time: 4 x 4 squares within the quarters of the vectors, then the quarters are exchanged.
        Vector512<float>* squares = stackalloc Vector512<float>[Lanes];
        for (int i = 0; i < Lanes; i += 4, from += 4 * fromStride)
        {
            Vector512<float> r0 = Vector512.Load(from), r1 = Vector512.Load(from + fromStride), r2 = Vector512.Load(from + (2 * fromStride)), r3 = Vector512.Load(from + (3 * fromStride));
            Vector512<double> low01 = Avx512F.UnpackLow(r0, r1).AsDouble(), low23 = Avx512F.UnpackLow(r2, r3).AsDouble();
            Vector512<double> high01 = Avx512F.UnpackHigh(r0, r1).AsDouble(), high23 = Avx512F.UnpackHigh(r2, r3).AsDouble();
            squares[i] = Avx512F.UnpackLow(low01, low23).AsSingle();
            squares[i + 1] = Avx512F.UnpackHigh(low01, low23).AsSingle();
            squares[i + 2] = Avx512F.UnpackLow(high01, high23).AsSingle();
            squares[i + 3] = Avx512F.UnpackHigh(high01, high23).AsSingle();
        }
        for (int i = 0; i < 4; i++, to += toStride)
        {
            Vector512<float> even01 = Avx512F.Shuffle4x128(squares[i], squares[i + 4], 0x88), odd01 = Avx512F.Shuffle4x128(squares[i], squares[i + 4], 0xdd);
            Vector512<float> even23 = Avx512F.Shuffle4x128(squares[i + 8], squares[i + 12], 0x88), odd23 = Avx512F.Shuffle4x128(squares[i + 8], squares[i + 12], 0xdd);
            Avx512F.Shuffle4x128(even01, even23, 0x88).Store(to);
            Avx512F.Shuffle4x128(odd01, odd23, 0x88).Store(to + (4 * toStride));
            Avx512F.Shuffle4x128(even01, even23, 0xdd).Store(to + (8 * toStride));
            Avx512F.Shuffle4x128(odd01, odd23, 0xdd).Store(to + (12 * toStride));
        }
    }

    /// <summary>The sum of all lanes, in an order that does not depend on the processor.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Sum(Vector512<float> values)
    {
        Vector256<float> eight = values.GetLower() + values.GetUpper();
        Vector128<float> four = eight.GetLower() + eight.GetUpper();
        four += Vector128.Shuffle(four, Vector128.Create(2, 3, 0, 1));
        return four[0] + four[1];
    }

    // One instruction each where Max and Min, which define every case of NaN, are several; x last lets its NaN through.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Clamp(Vector512<float> x, Vector512<float> low, Vector512<float> high) => Vector512.MinNative(high, Vector512.MaxNative(low, x));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<uint> Rounded(Vector512<float> values)
    {
        Vector512<uint> bits = values.AsUInt32();
        return bits + Vector512.Create(0x7fffu) + ((bits >> 16) & Vector512<uint>.One);
    }
}

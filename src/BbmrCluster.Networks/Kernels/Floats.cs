using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// A register of float32 lanes: <see cref="Floats16"/> with AVX-512, <see cref="Floats8"/> without. Loops are written once for
/// any of them and take the number of lanes, and with it the shape of their tiles, from the type; an entry point chooses by
/// <see cref="Floats.Wide"/>, of which the compiler at run time keeps one side. A result does not depend on the lanes unless
/// it is a sum over them. Pointers need no alignment; nothing here checks bounds.
/// </summary>
internal unsafe interface IFloats<TSelf>
    where TSelf : unmanaged, IFloats<TSelf>
{
    /// <summary>Lanes.</summary>
    static abstract int Count { get; }

    /// <summary>Vectors side by side in a tile of four rows: as many as leave registers for the operands.</summary>
    static abstract int TileVectors { get; }

    /// <summary>The same in every lane.</summary>
    static abstract TSelf Create(float value);

    /// <summary>Consecutive values; <typeparamref name="T"/> is float or <see cref="BFloat16"/>.</summary>
    static abstract TSelf Load<T>(T* from)
        where T : unmanaged;

    /// <summary>Stores the lanes; to bfloat16 rounded to nearest, ties to even. Infinity and the processor's NaN stay what they are.</summary>
    static abstract void Store<T>(TSelf values, T* to)
        where T : unmanaged;

    /// <summary>
    /// Twice as many values as lanes: of bfloat16 the even and the odd ones, which costs one instruction each; of float32
    /// the first and the last half. For loops that do not care which value is in which lane; <see cref="StorePair"/> undoes it.
    /// </summary>
    static abstract (TSelf First, TSelf Second) LoadPair<T>(T* from)
        where T : unmanaged;

    /// <summary>Stores what <see cref="LoadPair"/> loaded, rounded as <see cref="Store"/> does.</summary>
    static abstract void StorePair<T>(TSelf first, TSelf second, T* to)
        where T : unmanaged;

    /// <summary>The sum of all lanes.</summary>
    static abstract float Sum(TSelf values);

    /// <summary>Stores the first 8 values.</summary>
    static abstract void StoreEight<T>(TSelf values, T* to)
        where T : unmanaged;

    static abstract TSelf operator +(TSelf a, TSelf b);

    static abstract TSelf operator -(TSelf a, TSelf b);

    static abstract TSelf operator *(TSelf a, TSelf b);

    static abstract TSelf operator /(TSelf a, TSelf b);

    /// <summary>a b + c, fused where the processor can.</summary>
    static abstract TSelf MultiplyAdd(TSelf a, TSelf b, TSelf c);

    /// <summary>One instruction; where a lane is NaN, b.</summary>
    static abstract TSelf Max(TSelf a, TSelf b);

    /// <summary>One instruction; where a lane is NaN, b.</summary>
    static abstract TSelf Min(TSelf a, TSelf b);

    /// <summary>Square roots.</summary>
    static abstract TSelf Sqrt(TSelf a);

    /// <summary>Adds the lowest 9 bits of <paramref name="whole"/> to the exponent: values times a power of two.</summary>
    static abstract TSelf AddToExponent(TSelf values, TSelf whole);

    /// <summary>Transposes a square of as many rows as lanes: lane j of row i becomes lane i of row j.</summary>
    /// <param name="from">First row.</param>
    /// <param name="fromStride">From row to row.</param>
    /// <param name="to">First row of the result; another place.</param>
    /// <param name="toStride">From row to row.</param>
    static abstract void Transpose(float* from, int fromStride, float* to, int toStride);
}

/// <summary>Which of the vectors this processor has.</summary>
internal static class Floats
{
    /// <summary>Whether loops run with <see cref="Floats16"/>.</summary>
    public static bool Wide
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => Avx512F.IsSupported;
    }

    /// <summary>Lanes of this processor's vectors.</summary>
    public static int Count => Wide ? Floats16.Count : Floats8.Count;

    /// <summary>A number of channels up to whole vectors of this processor.</summary>
    public static int RoundUp(int channels) => (channels + Count - 1) / Count * Count;
}

/// <summary>One register of AVX-512.</summary>
internal readonly unsafe struct Floats16 : IFloats<Floats16>
{
    private readonly Vector512<float> _lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Floats16(Vector512<float> lanes) => _lanes = lanes;

    public static int Count
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 16;
    }

    public static int TileVectors
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 4;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static implicit operator Floats16(Vector512<float> lanes) => new(lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static implicit operator Vector512<float>(Floats16 values) => values._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Create(float value) => Vector512.Create(value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Load<T>(T* from)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return Vector512.Load((float*)from);
        return (Avx512F.ConvertToVector512UInt32(Vector256.Load((ushort*)from)) << 16).AsSingle();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store<T>(Floats16 values, T* to)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            values._lanes.Store((float*)to);
        else
            Avx512F.ConvertToVector256UInt16(Rounded(values) >> 16).Store((ushort*)to);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Floats16 First, Floats16 Second) LoadPair<T>(T* from)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return (Vector512.Load((float*)from), Vector512.Load((float*)from + 16));
        Vector512<uint> both = Vector512.Load((uint*)from);
        return ((both << 16).AsSingle(), (both & Vector512.Create(0xffff0000u)).AsSingle());
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StorePair<T>(Floats16 first, Floats16 second, T* to)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
        {
            first._lanes.Store((float*)to);
            second._lanes.Store((float*)to + 16);
            return;
        }
        ((Rounded(first) >> 16) | (Rounded(second) & Vector512.Create(0xffff0000u))).Store((uint*)to);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Sum(Floats16 values) => Floats8.Sum(values._lanes.GetLower() + values._lanes.GetUpper());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreEight<T>(Floats16 values, T* to)
        where T : unmanaged => Floats8.Store(values._lanes.GetLower(), to);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 operator +(Floats16 a, Floats16 b) => a._lanes + b._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 operator -(Floats16 a, Floats16 b) => a._lanes - b._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 operator *(Floats16 a, Floats16 b) => a._lanes * b._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 operator /(Floats16 a, Floats16 b) => a._lanes / b._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 MultiplyAdd(Floats16 a, Floats16 b, Floats16 c) => Vector512.MultiplyAddEstimate(a._lanes, b._lanes, c._lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Max(Floats16 a, Floats16 b) => Vector512.MaxNative(a._lanes, b._lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Min(Floats16 a, Floats16 b) => Vector512.MinNative(a._lanes, b._lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 Sqrt(Floats16 a) => Vector512.Sqrt(a._lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats16 AddToExponent(Floats16 values, Floats16 whole) => (values._lanes.AsInt32() + (whole._lanes.AsInt32() << 23)).AsSingle();

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Transpose(float* from, int fromStride, float* to, int toStride)
    {
        // Four rows at a time: 4 x 4 squares within the quarters of the vectors, then the quarters are exchanged.
        Vector512<float>* squares = stackalloc Vector512<float>[16];
        for (int i = 0; i < 16; i += 4, from += 4 * fromStride)
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

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<uint> Rounded(Floats16 values)
    {
        Vector512<uint> bits = values._lanes.AsUInt32();
        return bits + Vector512.Create(0x7fffu) + ((bits >> 16) & Vector512<uint>.One);
    }
}

/// <summary>One register of AVX2; of portable vectors where there is none.</summary>
internal readonly unsafe struct Floats8 : IFloats<Floats8>
{
    private readonly Vector256<float> _lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Floats8(Vector256<float> lanes) => _lanes = lanes;

    public static int Count
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 8;
    }

    public static int TileVectors
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => 3;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static implicit operator Floats8(Vector256<float> lanes) => new(lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static implicit operator Vector256<float>(Floats8 values) => values._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Create(float value) => Vector256.Create(value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Load<T>(T* from)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return Vector256.Load((float*)from);
        Vector128<ushort> half = Vector128.Load((ushort*)from);
        Vector256<uint> wide = Avx2.IsSupported
            ? Avx2.ConvertToVector256Int32(half).AsUInt32()
            : Vector256.Create(Vector128.WidenLower(half), Vector128.WidenUpper(half));
        return (wide << 16).AsSingle();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store<T>(Floats8 values, T* to)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
        {
            values._lanes.Store((float*)to);
            return;
        }
        Vector256<uint> half = Rounded(values) >> 16;
        Vector128<ushort> narrow = Sse41.IsSupported ? Sse41.PackUnsignedSaturate(half.GetLower().AsInt32(), half.GetUpper().AsInt32()) : Vector128.Narrow(half.GetLower(), half.GetUpper());
        narrow.Store((ushort*)to);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static (Floats8 First, Floats8 Second) LoadPair<T>(T* from)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return (Vector256.Load((float*)from), Vector256.Load((float*)from + 8));
        Vector256<uint> both = Vector256.Load((uint*)from);
        return ((both << 16).AsSingle(), (both & Vector256.Create(0xffff0000u)).AsSingle());
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StorePair<T>(Floats8 first, Floats8 second, T* to)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
        {
            first._lanes.Store((float*)to);
            second._lanes.Store((float*)to + 8);
            return;
        }
        ((Rounded(first) >> 16) | (Rounded(second) & Vector256.Create(0xffff0000u))).Store((uint*)to);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Sum(Floats8 values)
    {
        Vector128<float> four = values._lanes.GetLower() + values._lanes.GetUpper();
        four += Vector128.Shuffle(four, Vector128.Create(2, 3, 0, 1));
        return four[0] + four[1];
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreEight<T>(Floats8 values, T* to)
        where T : unmanaged => Store(values, to);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 operator +(Floats8 a, Floats8 b) => a._lanes + b._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 operator -(Floats8 a, Floats8 b) => a._lanes - b._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 operator *(Floats8 a, Floats8 b) => a._lanes * b._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 operator /(Floats8 a, Floats8 b) => a._lanes / b._lanes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 MultiplyAdd(Floats8 a, Floats8 b, Floats8 c) => Vector256.MultiplyAddEstimate(a._lanes, b._lanes, c._lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Max(Floats8 a, Floats8 b) => Vector256.MaxNative(a._lanes, b._lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Min(Floats8 a, Floats8 b) => Vector256.MinNative(a._lanes, b._lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 Sqrt(Floats8 a) => Vector256.Sqrt(a._lanes);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Floats8 AddToExponent(Floats8 values, Floats8 whole) => (values._lanes.AsInt32() + (whole._lanes.AsInt32() << 23)).AsSingle();

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Transpose(float* from, int fromStride, float* to, int toStride)
    {
        if (!Avx.IsSupported)
        {
            for (int i = 0; i < 8; i++)
            {
                for (int j = 0; j < 8; j++)
                    to[(j * toStride) + i] = from[(i * fromStride) + j];
            }
            return;
        }
        // Halves of rows i and i + 4 side by side, then 4 x 4 squares within the halves.
        for (int half = 0; half < 8; half += 4, from += 4, to += 4 * toStride)
        {
            Vector256<float> r0 = Both(from, fromStride), r1 = Both(from + fromStride, fromStride), r2 = Both(from + (2 * fromStride), fromStride), r3 = Both(from + (3 * fromStride), fromStride);
            Vector256<double> low01 = Avx.UnpackLow(r0, r1).AsDouble(), low23 = Avx.UnpackLow(r2, r3).AsDouble();
            Vector256<double> high01 = Avx.UnpackHigh(r0, r1).AsDouble(), high23 = Avx.UnpackHigh(r2, r3).AsDouble();
            Avx.UnpackLow(low01, low23).AsSingle().Store(to);
            Avx.UnpackHigh(low01, low23).AsSingle().Store(to + toStride);
            Avx.UnpackLow(high01, high23).AsSingle().Store(to + (2 * toStride));
            Avx.UnpackHigh(high01, high23).AsSingle().Store(to + (3 * toStride));
        }

        static Vector256<float> Both(float* row, int stride) => Vector256.Create(Vector128.Load(row), Vector128.Load(row + (4 * stride)));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<uint> Rounded(Floats8 values)
    {
        Vector256<uint> bits = values._lanes.AsUInt32();
        return bits + Vector256.Create(0x7fffu) + ((bits >> 16) & Vector256<uint>.One);
    }
}

using System.Runtime.CompilerServices;

namespace BbmrCluster.Networks.Kernels;

/// <summary>Functions of vectors, and single values of maps of either type.</summary>
internal static unsafe class VectorMath
{
    /// <summary>Where one of the values that <see cref="IFloats{V}.LoadPair"/> loads lies, counted through both vectors; for more values, pair by pair: for tables in that order.</summary>
    public static int PairPlace<V, T>(int value)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        int pair = 2 * V.Count, within = value % pair;
        return typeof(T) == typeof(float) ? value : value - within + ((within & 1) * V.Count) + (within >> 1);
    }

    /// <summary>One value; <typeparamref name="T"/> is float or <see cref="BFloat16"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float LoadScalar<T>(T* from)
        where T : unmanaged => typeof(T) == typeof(float) ? *(float*)from : ((BFloat16*)from)->ToSingle();

    /// <summary>Stores one value, rounded to nearest, ties to even.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreScalar<T>(float value, T* to)
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            *(float*)to = value;
        else
            *(BFloat16*)to = BFloat16.Of(value);
    }

    /// <summary>e^x: relative error below 2e-7; arguments are held within -87 and 88, NaN stays NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Exp<V>(V x)
        where V : unmanaged, IFloats<V>
    {
        x = Clamp(x, V.Create(-87f), V.Create(88f));
        // Adding 1.5 x 2^23 leaves the whole part of x / ln 2 in the lowest bits, ready to go into the exponent.
        V magic = V.Create(12582912f);
        V shifted = V.MultiplyAdd(x, V.Create(1.442695f), magic);
        V whole = shifted - magic;
        // ln 2 in two parts, so that the remainder is exact.
        V f = V.MultiplyAdd(whole, V.Create(-0.693359375f), x);
        f = V.MultiplyAdd(whole, V.Create(2.1219444e-4f), f);
        // Chebyshev fit of e^f, |f| up to ln 2 / 2.
        V p = V.MultiplyAdd(V.Create(0.0013941108f), f, V.Create(0.008375126f));
        p = V.MultiplyAdd(p, f, V.Create(0.04166635f));
        p = V.MultiplyAdd(p, f, V.Create(0.16666415f));
        p = V.MultiplyAdd(p, f, V.Create(0.5f));
        p = V.MultiplyAdd(p, f, V.Create(1));
        p = V.MultiplyAdd(p, f, V.Create(1));
        return V.AddToExponent(p, shifted);
    }

    /// <summary>erf(x / sqrt 2): absolute error below 1e-6, NaN stays NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V ErfOfRootHalf<V>(V x)
        where V : unmanaged, IFloats<V>
    {
        // erf is 1 to 2e-8 beyond 4; inside, a Chebyshev fit of erf(z) / z in z^2 / 8 - 1.
        V z = x * V.Create(0.70710677f);
        z = Clamp(z, V.Create(-4f), V.Create(4f));
        V s = V.MultiplyAdd(z * z, V.Create(0.125f), V.Create(-1f));
        V p = V.MultiplyAdd(V.Create(0.0028532047f), s, V.Create(-0.0062095793f));
        p = V.MultiplyAdd(p, s, V.Create(0.0022209515f));
        p = V.MultiplyAdd(p, s, V.Create(-0.0024137914f));
        p = V.MultiplyAdd(p, s, V.Create(0.016475461f));
        p = V.MultiplyAdd(p, s, V.Create(-0.0274991f));
        p = V.MultiplyAdd(p, s, V.Create(0.032163497f));
        p = V.MultiplyAdd(p, s, V.Create(-0.043638363f));
        p = V.MultiplyAdd(p, s, V.Create(0.060078792f));
        p = V.MultiplyAdd(p, s, V.Create(-0.0751835f));
        p = V.MultiplyAdd(p, s, V.Create(0.090191044f));
        p = V.MultiplyAdd(p, s, V.Create(-0.10766778f));
        p = V.MultiplyAdd(p, s, V.Create(0.1316756f));
        p = V.MultiplyAdd(p, s, V.Create(-0.17657737f));
        p = V.MultiplyAdd(p, s, V.Create(0.353531f));
        return p * z;
    }

    /// <summary>GELU in its erf form, x (1 + erf(x / sqrt 2)) / 2: absolute error below 1e-6 |x|.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Gelu<V>(V x)
        where V : unmanaged, IFloats<V>
    {
        V half = x * V.Create(0.5f);
        return V.MultiplyAdd(half, ErfOfRootHalf(x), half);
    }

    /// <summary>GELU as exact as <typeparamref name="T"/> can tell: of bfloat16 with an absolute error below 2e-5 |x|.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Gelu<V, T>(V x)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return Gelu(x);
        // As ErfOfRootHalf, but only to 3, where erf is 1 to 2e-5.
        V z = Clamp(x * V.Create(0.70710677f), V.Create(-3f), V.Create(3f));
        V s = V.MultiplyAdd(z * z, V.Create(2f / 9), V.Create(-1f));
        V p = V.MultiplyAdd(V.Create(-0.0032704142f), s, V.Create(0.0082610063f));
        p = V.MultiplyAdd(p, s, V.Create(-0.011217893f));
        p = V.MultiplyAdd(p, s, V.Create(0.021611357f));
        p = V.MultiplyAdd(p, s, V.Create(-0.044184554f));
        p = V.MultiplyAdd(p, s, V.Create(0.073464185f));
        p = V.MultiplyAdd(p, s, V.Create(-0.1100537f));
        p = V.MultiplyAdd(p, s, V.Create(0.1573792f));
        p = V.MultiplyAdd(p, s, V.Create(-0.22879915f));
        p = V.MultiplyAdd(p, s, V.Create(0.47013417f));
        V half = x * V.Create(0.5f);
        return V.MultiplyAdd(half * z, p, half);
    }

    /// <summary>
    /// e^x for x up to 0 as exact as <typeparamref name="T"/> can tell: of bfloat16 with a relative error below 1e-5.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V ExpOfNegative<V, T>(V x)
        where V : unmanaged, IFloats<V>
        where T : unmanaged
    {
        if (typeof(T) == typeof(float))
            return Exp(x);
        x = V.Max(V.Create(-87f), x);
        V magic = V.Create(12582912f), shifted = V.MultiplyAdd(x, V.Create(1.442695f), magic);
        V f = V.MultiplyAdd(shifted - magic, V.Create(-0.6931472f), x);
        V p = V.MultiplyAdd(V.Create(0.041875646f), f, V.Create(0.16792142f));
        p = V.MultiplyAdd(p, f, V.Create(0.4999937f));
        p = V.MultiplyAdd(p, f, V.Create(0.99996227f));
        p = V.MultiplyAdd(p, f, V.Create(1));
        return V.AddToExponent(p, shifted);
    }

    /// <summary>GELU and its derivative.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Gelu<V>(V x, out V derivative)
        where V : unmanaged, IFloats<V>
    {
        V half = V.Create(0.5f), cumulative = V.MultiplyAdd(half, ErfOfRootHalf(x), half);
        V density = Exp(x * x * V.Create(-0.5f)) * V.Create(0.3989423f);
        derivative = V.MultiplyAdd(x, density, cumulative);
        return x * cumulative;
    }

    /// <summary>1 / (1 + e^-x).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Sigmoid<V>(V x)
        where V : unmanaged, IFloats<V> => V.Create(1) / (V.Create(1) + Exp(default(V) - x));

    /// <summary>Transposes rows x columns values that lie without gaps, both multiples of the lanes.</summary>
    public static void Transpose<V>(float* from, int rows, int columns, float* to)
        where V : unmanaged, IFloats<V>
    {
        for (int row = 0; row < rows; row += V.Count)
        {
            for (int column = 0; column < columns; column += V.Count)
                V.Transpose(from + (row * columns) + column, columns, to + (column * rows) + row, rows);
        }
    }

    // One instruction each where Max and Min, which define every case of NaN, are several; x last lets its NaN through.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static V Clamp<V>(V x, V low, V high)
        where V : unmanaged, IFloats<V> => V.Min(high, V.Max(low, x));
}

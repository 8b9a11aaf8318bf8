using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Engine;

/// <summary>Conversions between whole sample values and a network's, whose black is -1 or 0 and whose white is 1.</summary>
internal static class Samples
{
    /// <summary>Samples as a map of the given shape.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static Tensor ToMap(ReadOnlySpan<ushort> samples, int maximum, long[] shape, Device device, float black)
    {
        var values = new float[samples.Length];
        float scale = (1 - black) / maximum;
        for (int i = 0; i < values.Length; i++)
            values[i] = (samples[i] * scale) + black;
        return NativeTensors.Create(values, shape, device);
    }

    /// <summary>Rounds to the nearest whole sample (halves up), clamped.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void ToSamples(ReadOnlySpan<float> values, int maximum, Span<ushort> samples, float black)
    {
        float scale = maximum / (1 - black);
        for (int i = 0; i < values.Length; i++)
            samples[i] = (ushort)Math.Clamp(MathF.Floor(((values[i] - black) * scale) + 0.5f), 0, maximum);
    }

    /// <summary>A float32 map's values in row-major order.</summary>
    public static float[] Values(Tensor map)
    {
        using var scope = NewDisposeScope();
        return MemoryMarshal.Cast<byte, float>(map.cpu().contiguous().bytes).ToArray();
    }

    /// <summary>Whether all values are finite.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static bool AllFinite(ReadOnlySpan<float> values)
    {
        int i = 0;
        Vector512<uint> exponent = Vector512.Create(0x7f800000u), notFinite = default;
        for (; i + Vector512<float>.Count <= values.Length; i += Vector512<float>.Count)
            notFinite |= Vector512.Equals(Vector512.Create(values[i..]).AsUInt32() & exponent, exponent);
        if (notFinite != default)
            return false;
        for (; i < values.Length; i++)
        {
            if (!float.IsFinite(values[i]))
                return false;
        }
        return true;
    }
}

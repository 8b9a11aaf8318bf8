namespace BbmrCluster.Networks.Kernels;

/// <summary>A bfloat16 as it lies in a map: the upper 16 bits of a float32.</summary>
/// <param name="Bits">Sign, eight bits of exponent, seven of mantissa.</param>
internal readonly record struct BFloat16(ushort Bits)
{
    /// <summary>Exact.</summary>
    public float ToSingle() => BitConverter.UInt32BitsToSingle((uint)Bits << 16);

    /// <summary>The nearest one, ties to even.</summary>
    public static BFloat16 Of(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        return new BFloat16((ushort)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16));
    }
}

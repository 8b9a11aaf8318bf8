using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace BbmrCluster.Networks;

/// <summary>
/// Tensors in libtorch's own memory, which is aligned to 64 bytes. TorchSharp's <c>tensor(array)</c> pins a managed
/// array at whatever address it has, and some products of libtorch depend in their last bits on the alignment: equal
/// calls would not give equal bytes.
/// </summary>
public static class NativeTensors
{
    /// <summary>Copies values into a new float32 tensor; it belongs to the current dispose scope.</summary>
    /// <param name="values">Product of the shape, row-major.</param>
    /// <param name="shape">Sizes, outermost first.</param>
    /// <param name="device">Null is the processor.</param>
    public static Tensor Create(ReadOnlySpan<float> values, long[] shape, Device? device = null)
    {
        Tensor made = empty(shape, ScalarType.Float32);
        values.CopyTo(MemoryMarshal.Cast<byte, float>(made.bytes));
        if (device is null || device.type == TorchSharp.DeviceType.CPU)
            return made;
        using (made)
        {
            // From pinned memory the copy runs beside what the GPU still computes; libtorch keeps the memory until it is done.
            using Tensor pinned = made.pin_memory();
            Tensor there = empty(shape, ScalarType.Float32, device);
            there.copy_(pinned, true);
            return there;
        }
    }

    /// <summary>The address of a contiguous tensor's values on the processor; valid as long as the tensor lives.</summary>
    /// <typeparam name="T">float, or <see cref="Kernels.BFloat16"/>.</typeparam>
    internal static unsafe T* Data<T>(Tensor tensor)
        where T : unmanaged => (T*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(tensor.bytes));
}

using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// A 1x1 convolution with weights prepared once: in bfloat16 a product of libtorch (oneDNN, float32 sums),
/// in float32 <see cref="FloatProduct"/>. Either writes into a buffer that is there, so nothing is allocated.
/// </summary>
internal sealed unsafe class Pointwise : IDisposable
{
    private readonly FloatProduct? _float32;
    private readonly Tensor? _bfloat16;
    private readonly NativeFloats? _bias;

    /// <summary>Prepares weights.</summary>
    /// <param name="weight">outputs x inputs, row-major.</param>
    /// <param name="inputs">Channels of the left map.</param>
    /// <param name="outputs">Channels of the result, a multiple of 16.</param>
    /// <param name="type">Type of both maps.</param>
    /// <param name="bias">Outputs, or empty.</param>
    public Pointwise(ReadOnlySpan<float> weight, int inputs, int outputs, ScalarType type, ReadOnlySpan<float> bias = default)
    {
        if (!bias.IsEmpty)
            _bias = new NativeFloats(bias);
        var transposed = new float[inputs * outputs];
        for (int o = 0; o < outputs; o++)
        {
            for (int i = 0; i < inputs; i++)
                transposed[(i * outputs) + o] = weight[(o * inputs) + i];
        }
        if (type == ScalarType.Float32)
        {
            _float32 = new FloatProduct(transposed, inputs, outputs);
            return;
        }
        using var scope = NewDisposeScope();
        _bfloat16 = NativeTensors.Create(transposed, [inputs, outputs]).to(type).DetachFromDisposeScope();
    }

    /// <summary>to = from W + bias, or to += from W + bias, for the first rows of two buffers.</summary>
    public void Run(MapBuffer from, MapBuffer to, int rows, bool add = false)
    {
        if (_bias is not null)
        {
            if (_float32 is null)
                Begin<ushort>(to, rows, add);
            else
                Begin<float>(to, rows, add);
            add = true;
        }
        if (_float32 is null)
        {
            to.Rows(rows).addmm_(from.Rows(rows), _bfloat16!, add ? 1 : 0, 1);
            return;
        }
        if (!add)
            NativeMemory.Clear(to.Pointer, (nuint)rows * (nuint)to.Channels * sizeof(float));
        _float32.Accumulate((float*)from.Pointer, from.Channels, (float*)to.Pointer, to.Channels, rows);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _float32?.Dispose();
        _bfloat16?.Dispose();
        _bias?.Dispose();
    }

    private void Begin<T>(MapBuffer to, int rows, bool add)
        where T : unmanaged
    {
        if (add)
            Elementwise.AddBias((T*)to.Pointer, _bias!.Pointer, (T*)to.Pointer, rows, to.Channels);
        else
            Elementwise.Fill((T*)to.Pointer, _bias!.Pointer, rows, to.Channels);
    }
}

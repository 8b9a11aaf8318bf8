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
        if (_float32 is null)
        {
            if (_bias is not null)
                Begin((BFloat16*)to.Pointer, rows, to.Channels, add);
            to.Rows(rows).addmm_(from.Rows(rows), _bfloat16!, add || _bias is not null ? 1 : 0, 1);
            return;
        }
        float* result = (float*)to.Pointer, start = add ? result : _bias is null ? null : _bias.Pointer;
        if (add && _bias is not null)
            Begin(result, rows, to.Channels, add);
        float* left = (float*)from.Pointer;
        int startStride = add ? to.Channels : 0;
        Shares.Run(rows, from.Channels + to.Channels, (first, count) => _float32.Run(
            left + ((long)first * from.Channels), from.Channels, start is null ? null : start + ((long)first * startStride), startStride, result + ((long)first * to.Channels), to.Channels, count));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _float32?.Dispose();
        _bfloat16?.Dispose();
        _bias?.Dispose();
    }

    private void Begin<T>(T* to, int rows, int channels, bool add)
        where T : unmanaged
    {
        if (add)
            Elementwise.AddBias(to, _bias!.Pointer, to, rows, channels);
        else
            Elementwise.Fill(to, _bias!.Pointer, rows, channels);
    }
}

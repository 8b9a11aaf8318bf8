using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Kernels;

/// <summary>A 3x3 convolution in the type of a network's body: bfloat16 by libtorch (oneDNN, float32 sums), float32 by <see cref="Convolution3"/>.</summary>
internal sealed unsafe class BodyConvolution3 : IDisposable
{
    private readonly Convolution3? _float32;
    private readonly Tensor? _bfloat16;
    private readonly NativeFloats _bias;
    private NativeFloats? _row;

    /// <summary>Prepares weights.</summary>
    /// <param name="weight">outputs x inputs x 3 x 3, row-major.</param>
    /// <param name="bias">Outputs.</param>
    /// <param name="inputs">A multiple of 16.</param>
    /// <param name="outputs">A multiple of 16.</param>
    /// <param name="type">Type of the map.</param>
    public BodyConvolution3(ReadOnlySpan<float> weight, ReadOnlySpan<float> bias, int inputs, int outputs, ScalarType type)
    {
        _bias = new NativeFloats(bias);
        if (type == ScalarType.Float32)
        {
            _float32 = new Convolution3(weight, bias, inputs, outputs);
            return;
        }
        using var scope = NewDisposeScope();
        _bfloat16 = NativeTensors.Create(weight, [outputs, inputs, 3, 3]).to(type).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).DetachFromDisposeScope();
    }

    /// <summary>Convolves the first maps of a buffer, row after row.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void Run(MapBuffer maps, int images, int height, int width, RowSink sink)
    {
        if (_float32 is not null)
        {
            _float32.Run((float*)maps.Pointer, maps.Channels, images, height, width, sink);
            return;
        }
        using var scope = NewDisposeScope();
        Tensor x = maps.Rows((long)images * height * width).view(images, height, width, maps.Channels).permute(0, 3, 1, 2);
        Tensor y = nn.functional.conv2d(x, _bfloat16!, padding: [1, 1]).permute(0, 2, 3, 1).contiguous();
        int outputs = (int)_bias.Count;
        if (_row is null || _row.Count < width * outputs)
        {
            _row?.Dispose();
            _row = new NativeFloats(width * outputs);
        }
        BFloat16* from = (BFloat16*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(y.bytes));
        for (int row = 0; row < images * height; row++, from += width * outputs)
        {
            Elementwise.AddBias(from, _bias.Pointer, _row.Pointer, width, outputs);
            sink(0, row / height, row % height, _row.Pointer);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _float32?.Dispose();
        _bfloat16?.Dispose();
        _bias.Dispose();
        _row?.Dispose();
    }
}

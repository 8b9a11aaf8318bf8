using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// A reused map of some rows (pixels) and channels in libtorch's memory, seen by own loops as a pointer and by libtorch
/// as a tensor. Grows when more rows are asked for, so that batches of one shape touch no fresh page. Outlives dispose
/// scopes; used on one thread.
/// </summary>
/// <param name="channels">Channels of a pixel.</param>
/// <param name="type">Float32 or BFloat16.</param>
internal sealed unsafe class MapBuffer(int channels, ScalarType type) : IDisposable
{
    // Loops may read (never write) up to a vector behind the last pixel.
    private const int Slack = 64;

    private readonly Dictionary<long, Tensor> _views = [];
    private Tensor? _memory;
    private long _rows;

    /// <summary>Channels of a pixel.</summary>
    public int Channels => channels;

    /// <summary>The first value; valid after <see cref="Reserve"/>.</summary>
    public void* Pointer { get; private set; }

    /// <summary>Makes room for this many pixels; contents are lost when it grows.</summary>
    public void Reserve(long rows)
    {
        if (rows <= _rows)
            return;
        Release();
        _memory = zeros([(rows * channels) + Slack], type).DetachFromDisposeScope();
        Pointer = Unsafe.AsPointer(ref MemoryMarshal.GetReference(_memory.bytes));
        _rows = rows;
    }

    /// <summary>The first pixels as a tensor (rows, channels); belongs to this buffer.</summary>
    public Tensor Rows(long rows)
    {
        if (!_views.TryGetValue(rows, out Tensor? view))
        {
            using var scope = NewDisposeScope();
            view = _memory!.narrow(0, 0, rows * channels).view(rows, channels).DetachFromDisposeScope();
            _views.Add(rows, view);
        }
        return view;
    }

    /// <inheritdoc/>
    public void Dispose() => Release();

    private void Release()
    {
        foreach (Tensor view in _views.Values)
            view.Dispose();
        _views.Clear();
        _memory?.Dispose();
        _memory = null;
        Pointer = null;
        _rows = 0;
    }
}

/// <summary>Float32 numbers in native memory, aligned to 64 bytes: weights in the order of a loop, or its scratch.</summary>
internal sealed unsafe class NativeFloats : IDisposable
{
    /// <summary>Zeros.</summary>
    public NativeFloats(long count)
    {
        Count = count;
        nuint bytes = (nuint)((count + 16) * sizeof(float));
        Pointer = (float*)NativeMemory.AlignedAlloc(bytes, 64);
        NativeMemory.Clear(Pointer, bytes);
    }

    /// <summary>A copy of values.</summary>
    public NativeFloats(ReadOnlySpan<float> values)
        : this(values.Length) => values.CopyTo(new Span<float>(Pointer, values.Length));

    /// <summary>How many.</summary>
    public long Count { get; }

    /// <summary>The first.</summary>
    public float* Pointer { get; private set; }

    /// <inheritdoc/>
    public void Dispose()
    {
        NativeMemory.AlignedFree(Pointer);
        Pointer = null;
    }
}

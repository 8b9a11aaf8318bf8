using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Weights;

/// <summary>
/// The named float32 parameters of a network, all views of one flat tensor, so that an optimizer works on a single
/// tensor. Owns its native memory until disposed; lives outside every dispose scope.
/// </summary>
public sealed class ParameterSet : IDisposable
{
    private readonly Dictionary<string, Tensor> _views = new(StringComparer.Ordinal);
    private readonly Dictionary<string, long> _offsets = new(StringComparer.Ordinal);
    private Tensor? _direct;

    /// <summary>Copies values in.</summary>
    /// <param name="shapes">Every parameter, in the order in which they lie in <see cref="Flat"/>.</param>
    /// <param name="values">A tensor for each; others are an error.</param>
    /// <param name="source">What messages call the values.</param>
    /// <param name="trainable">Whether gradients are wanted.</param>
    /// <param name="device">Where the values live; null is the processor.</param>
    /// <exception cref="InvalidDataException">A parameter is missing, unknown or of another shape; one sentence.</exception>
    public ParameterSet(IReadOnlyList<(string Name, long[] Shape)> shapes, IReadOnlyDictionary<string, TensorData> values, string source, bool trainable = false, Device? device = null)
    {
        Shapes = shapes;
        Check(shapes, values, source);
        long total = shapes.Sum(p => Count(p.Shape));
        var flat = new float[total];
        long at = 0;
        foreach ((string name, _) in shapes)
        {
            float[] part = values[name].Values;
            part.CopyTo(flat, at);
            at += part.Length;
        }

        using IDisposable noGradient = no_grad();
        Flat = NativeTensors.Create(flat, [total], device).DetachFromDisposeScope();
        MakeViews(trainable);
    }

    private ParameterSet(ParameterSet other)
    {
        Shapes = other.Shapes;
        using IDisposable noGradient = no_grad();
        Flat = other.Flat.alias().DetachFromDisposeScope();
        MakeViews(trainable: true);
    }

    /// <summary>Names and shapes, in flat order.</summary>
    public IReadOnlyList<(string Name, long[] Shape)> Shapes { get; }

    /// <summary>All values, one after another.</summary>
    public Tensor Flat { get; }

    /// <summary>A parameter by its official name; float32, a view of <see cref="Flat"/>.</summary>
    public Tensor this[string name] => _views[name];

    /// <summary>Whether there is a parameter of this name.</summary>
    public bool Has(string name) => _views.ContainsKey(name);

    /// <summary>
    /// A set over the same values with gradients of its own, for another thread; the values follow this set's as long as
    /// either lives. The caller owns it.
    /// </summary>
    public ParameterSet Share() => new(this);

    /// <summary>
    /// The gradients of all parameters as one new flat tensor (zero where a parameter got none); clears them.
    /// The caller owns the result.
    /// </summary>
    public Tensor TakeGradient()
    {
        using var scope = NewDisposeScope();
        var parts = new List<Tensor>(Shapes.Count);
        foreach ((string name, long[] shape) in Shapes)
        {
            Tensor view = _views[name];
            parts.Add(view.grad is { } gradient ? gradient.reshape(-1) : zeros(Count(shape), device: Flat.device));
            view.grad = null;
        }
        Tensor all = cat(parts);
        if (_direct is not null)
        {
            using IDisposable noGradient = no_grad();
            all.PlusInPlace(_direct);
            _direct.zero_();
        }
        return all.MoveToOuterDisposeScope();
    }

    /// <summary>The values of a parameter, row-major; only on the processor, and as long as the set lives.</summary>
    internal unsafe float* Values(string name) => NativeTensors.Data<float>(Flat) + _offsets[name];

    /// <summary>
    /// Where own backward passes add a parameter's gradient, row-major; <see cref="TakeGradient"/> adds it to what the
    /// graph found and clears it. Valid until the set is disposed.
    /// </summary>
    internal unsafe float* Gradient(string name)
    {
        using IDisposable noGradient = no_grad();
        _direct ??= zeros_like(Flat).DetachFromDisposeScope();
        return NativeTensors.Data<float>(_direct) + _offsets[name];
    }

    /// <summary>Copies the values out of this set or of a flat tensor laid out like it.</summary>
    public IReadOnlyDictionary<string, TensorData> Export(Tensor? flat = null)
    {
        float[] all = MemoryMarshal.Cast<byte, float>((flat ?? Flat).cpu().bytes).ToArray();
        var result = new Dictionary<string, TensorData>(StringComparer.Ordinal);
        int at = 0;
        foreach ((string name, long[] shape) in Shapes)
        {
            int count = (int)Count(shape);
            result.Add(name, new TensorData(shape, all[at..(at + count)]));
            at += count;
        }
        return result;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Tensor view in _views.Values)
            view.Dispose();
        _direct?.Dispose();
        Flat.Dispose();
    }

    private void MakeViews(bool trainable)
    {
        long at = 0;
        foreach ((string name, long[] shape) in Shapes)
        {
            using var scope = NewDisposeScope();
            Tensor view = Flat.narrow(0, at, Count(shape)).view(shape).DetachFromDisposeScope();
            view.requires_grad = trainable;
            _views.Add(name, view);
            _offsets.Add(name, at);
            at += Count(shape);
        }
    }

    private static long Count(long[] shape) => shape.Aggregate(1L, (product, size) => product * size);

    /// <summary>Checks that values are there for every parameter and for nothing else.</summary>
    /// <param name="shapes">Every parameter.</param>
    /// <param name="values">Their values.</param>
    /// <param name="source">What messages call them.</param>
    /// <exception cref="InvalidDataException">A parameter is missing, unknown or of another shape; one sentence.</exception>
    public static void Check(IReadOnlyList<(string Name, long[] Shape)> shapes, IReadOnlyDictionary<string, TensorData> values, string source)
    {
        foreach ((string name, long[] shape) in shapes)
        {
            if (!values.TryGetValue(name, out TensorData? value))
                throw new InvalidDataException($"{source} lacks the parameter '{name}'.");
            if (!value.Shape.AsSpan().SequenceEqual(shape))
                throw new InvalidDataException($"{source}: '{name}' has the shape {value.ShapeText}, {TensorData.Describe(shape)} is needed.");
        }
        if (values.Count != shapes.Count)
        {
            var known = shapes.Select(p => p.Name).ToHashSet(StringComparer.Ordinal);
            throw new InvalidDataException($"{source} holds '{values.Keys.First(name => !known.Contains(name))}', which the network does not have.");
        }
    }
}

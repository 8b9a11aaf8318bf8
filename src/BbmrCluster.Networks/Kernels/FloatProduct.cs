using System.Runtime.CompilerServices;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// Float32 matrix product with a fixed right side, packed into panels of a tile's width. Nearly as fast as the vector units
/// allow, and every row of the result depends on its own row alone: neither the number of rows nor threads change a bit.
/// </summary>
internal sealed unsafe class FloatProduct : IDisposable
{
    // Rows of a panel that stay in the first-level cache while the pixels pass by.
    private const int Depth = 96;

    private readonly NativeFloats _packed;
    private readonly int[] _panels;

    /// <summary>Packs a right side.</summary>
    /// <param name="values">inputs x outputs, row-major.</param>
    /// <param name="inputs">Rows of the right side.</param>
    /// <param name="outputs">Columns; results have them rounded up to whole vectors, the rest being zero.</param>
    public FloatProduct(ReadOnlySpan<float> values, int inputs, int outputs)
    {
        (Inputs, Outputs) = (inputs, Floats.RoundUp(outputs));
        int lanes = Floats.Count, widest = Floats.Wide ? Floats16.TileVectors : Floats8.TileVectors;
        var panels = new List<int>();
        for (int left = Outputs / lanes; left > 0; left -= panels[^1])
            panels.Add(Tiles.Panel(left, widest));
        _panels = [.. panels];

        _packed = new NativeFloats((long)inputs * Outputs);
        float* to = _packed.Pointer;
        int column = 0;
        foreach (int panel in _panels)
        {
            for (int row = 0; row < inputs; row++)
            {
                for (int i = 0; i < panel * lanes; i++, to++)
                    *to = column + i < outputs ? values[(row * outputs) + column + i] : 0;
            }
            column += panel * lanes;
        }
    }

    /// <summary>Length of a left row.</summary>
    public int Inputs { get; }

    /// <summary>Length of a result row, whole vectors.</summary>
    public int Outputs { get; }

    /// <summary>c = start + a b.</summary>
    /// <param name="a">Left rows.</param>
    /// <param name="aStride">From one left row to the next; rows may overlap.</param>
    /// <param name="start">Null for zeros; may be <paramref name="c"/>.</param>
    /// <param name="startStride">From one of its rows to the next; 0 for one that all share.</param>
    /// <param name="c">Result rows of <see cref="Outputs"/>.</param>
    /// <param name="cStride">From one result row to the next.</param>
    /// <param name="rows">Rows.</param>
    public void Run(float* a, int aStride, float* start, int startStride, float* c, int cStride, int rows)
    {
        if (Floats.Wide)
            Run<Floats16>(a, aStride, start, startStride, c, cStride, rows);
        else
            Run<Floats8>(a, aStride, start, startStride, c, cStride, rows);
    }

    /// <summary>c += a b; parameters as <see cref="Run(float*, int, float*, int, float*, int, int)"/>.</summary>
    public void Accumulate(float* a, int aStride, float* c, int cStride, int rows) => Run(a, aStride, c, cStride, c, cStride, rows);

    /// <inheritdoc/>
    public void Dispose() => _packed.Dispose();

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Run<V>(float* a, int aStride, float* start, int startStride, float* c, int cStride, int rows)
        where V : unmanaged, IFloats<V>
    {
        for (int from = 0; from < Inputs; from += Depth)
        {
            int depth = Math.Min(Depth, Inputs - from), column = 0;
            foreach (int panel in _panels)
            {
                int width = panel * V.Count;
                Tiles.Column<V>(a + from, aStride, 1, _packed.Pointer + ((long)column * Inputs) + (from * width), width,
                    start is null ? null : start + column, startStride, c + column, cStride, rows, panel, depth);
                column += width;
            }
            start = c;
            startStride = cStride;
        }
    }
}

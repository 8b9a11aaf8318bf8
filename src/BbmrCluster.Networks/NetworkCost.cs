namespace BbmrCluster.Networks;

/// <summary>
/// Size and arithmetic of a network. Multiply-accumulates are counted as the papers' tool (thop) does: convolutions and
/// linear layers without their bias, 4 for each element of a layer normalisation module, 3 n - 1 for each softmax row of
/// n, 1 for each element of a PReLU. The products inside attention are not in that count, nor are pooling, activations
/// and normalisations written as plain functions.
/// </summary>
/// <param name="Parameters">Trained values.</param>
/// <param name="MultiplyAccumulates">Multiply-accumulates for one block.</param>
public readonly record struct NetworkCost(long Parameters, long MultiplyAccumulates)
{
    /// <summary>Multiply-accumulates in units of 1e9.</summary>
    public double Gmac => MultiplyAccumulates / 1e9;

    /// <summary>Both sums.</summary>
    public static NetworkCost operator +(NetworkCost left, NetworkCost right) => left.Add(right);

    /// <summary>Both sums.</summary>
    public NetworkCost Add(NetworkCost other) => new(Parameters + other.Parameters, MultiplyAccumulates + other.MultiplyAccumulates);

    /// <summary>
    /// The cost of parameters each of which is used at a number of positions: a weight of several axes costs its size for
    /// each output position, biases and scales cost nothing by themselves.
    /// </summary>
    /// <param name="parameters">Names and shapes.</param>
    /// <param name="positions">Name to output positions (pixels or rows) of the layer it belongs to; 0 leaves it out.</param>
    /// <param name="more">What is counted beside: softmax and normalisation.</param>
    internal static NetworkCost Of(IReadOnlyList<(string Name, long[] Shape)> parameters, Func<string, long> positions, long more)
    {
        long values = 0, products = more;
        foreach ((string name, long[] shape) in parameters)
        {
            long size = shape.Aggregate(1L, (product, n) => product * n);
            values += size;
            if (shape.Length > 1 && name.EndsWith(".weight", StringComparison.Ordinal))
                products += size * positions(name);
        }
        return new NetworkCost(values, products);
    }

    /// <summary>Rows of n through a softmax.</summary>
    internal static long Softmax(long rows, long n) => rows * ((3 * n) - 1);
}

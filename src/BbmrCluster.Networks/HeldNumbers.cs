using TorchSharp;
using static TorchSharp.torch;

namespace BbmrCluster.Networks;

/// <summary>
/// Arithmetic between tensors and numbers that keeps the numbers alive. TorchSharp 0.107 hands the raw handle of a
/// temporary <see cref="Scalar"/> to libtorch, which a garbage collection during the call may free: operators with numbers
/// and a + b (which multiplies b by a temporary 1) then fail now and then on a busy machine. A test keeps those operators
/// out of the program.
/// </summary>
public static class HeldNumbers
{
    private static readonly Scalar One = 1.ToScalar();

    /// <summary>a + b.</summary>
    public static Tensor Plus(this Tensor a, Tensor b) => a.add(b, One);

    /// <summary>a = a + b; returns a.</summary>
    public static Tensor PlusInPlace(this Tensor a, Tensor b) => a.add_(b, One);

    /// <summary>a + b.</summary>
    public static Tensor Plus(this Tensor a, double b)
    {
        using Scalar number = b.ToScalar();
        return a.add(number);
    }

    /// <summary>a b.</summary>
    public static Tensor Times(this Tensor a, double b)
    {
        using Scalar number = b.ToScalar();
        return a.mul(number);
    }

    /// <summary>a = a b; returns a.</summary>
    public static Tensor TimesInPlace(this Tensor a, double b)
    {
        using Scalar number = b.ToScalar();
        return a.mul_(number);
    }

    /// <summary>a / b.</summary>
    public static Tensor DividedBy(this Tensor a, double b)
    {
        using Scalar number = b.ToScalar();
        return a.div(number);
    }

    /// <summary>a, but at least b.</summary>
    public static Tensor AtLeast(this Tensor a, double b)
    {
        using Scalar number = b.ToScalar();
        return a.clamp_min(number);
    }

    /// <summary>a, but within two limits.</summary>
    public static Tensor Within(this Tensor a, double low, double high)
    {
        using Scalar from = low.ToScalar(), to = high.ToScalar();
        return a.clamp(from, to);
    }
}

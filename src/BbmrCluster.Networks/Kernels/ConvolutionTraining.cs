using System.Diagnostics.CodeAnalysis;
using BbmrCluster.Networks.Weights;
using static BbmrCluster.Networks.Kernels.VectorMath;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace BbmrCluster.Networks.Kernels;

/// <summary>
/// A differentiable 3x3 convolution with zero padding: forward in float32, so that losses are those of float32 ends;
/// backward with products of bfloat16, whose rounding only the gradients see. For training on the processor.
/// </summary>
internal static unsafe class ConvolutionTraining
{
    /// <summary>Convolves.</summary>
    /// <param name="x">(B, H, W, C) float32, contiguous; C is a multiple of 16.</param>
    /// <param name="parameters">Hold the weight and get its gradient directly.</param>
    /// <param name="name">The parameter's name without ".weight" and ".bias"; it has both.</param>
    public static Tensor Run(Tensor x, ParameterSet parameters, string name) =>
        is_grad_enabled() && x.requires_grad
            ? Function.apply(x, parameters, name)
            : Nhwc.Convolution(x, parameters[name + ".weight"], parameters[name + ".bias"]);

    /// <summary>Adds the gradients of weight and bias to the set's; returns that of <paramref name="x"/>.</summary>
    private static Tensor Backward(Tensor x, Tensor y, ParameterSet parameters, string name)
    {
        using var scope = NewDisposeScope();
        int batch = (int)x.shape[0], height = (int)x.shape[1], width = (int)x.shape[2], inputs = (int)x.shape[3], outputs = (int)y.shape[3];
        float* slope = NativeTensors.Data<float>(y), biasGradient = parameters.Gradient(name + ".bias");
        if (Floats.Wide)
            Bias<Floats16>(slope, (long)batch * height * width, outputs, biasGradient);
        else
            Bias<Floats8>(slope, (long)batch * height * width, outputs, biasGradient);

        // On maps with a frame of zeros a shift by a pixel is a shift of the rows of a matrix.
        Tensor maps = Framed(x), slopes = Framed(y);
        long rows = maps.shape[0], reach = width + 3;
        Tensor inner = slopes.narrow(0, reach, rows - (2 * reach)).t(), product = empty([outputs, inputs], ScalarType.BFloat16);
        BFloat16* values = NativeTensors.Data<BFloat16>(product);
        float* gradient = parameters.Gradient(name + ".weight");
        for (int tap = 0; tap < 9; tap++)
        {
            long shift = ((tap / 3 - 1) * (width + 2)) + (tap % 3) - 1;
            product.addmm_(inner, maps.narrow(0, reach + shift, rows - (2 * reach)), 0, 1);
            for (int i = 0; i < outputs * inputs; i++)
                gradient[(i * 9) + tap] += LoadScalar(values + i);
        }

        Tensor turned = parameters[name + ".weight"].flip(2, 3).transpose(0, 1).to(ScalarType.BFloat16);
        Tensor result = F.conv2d(slopes.view(batch, height + 2, width + 2, outputs).permute(0, 3, 1, 2), turned);
        return result.permute(0, 2, 3, 1).to(ScalarType.Float32).contiguous().MoveToOuterDisposeScope();
    }

    /// <summary>The map in bfloat16 with a frame of zeros, as (B (H + 2) (W + 2), C).</summary>
    private static Tensor Framed(Tensor map)
    {
        long batch = map.shape[0], height = map.shape[1], width = map.shape[2], line = width * map.shape[3], channels = map.shape[3];
        Tensor result = empty([batch * (height + 2) * (width + 2), channels], ScalarType.BFloat16);
        float* from = NativeTensors.Data<float>(map);
        BFloat16* to = NativeTensors.Data<BFloat16>(result);
        for (long image = 0; image < batch; image++)
        {
            to = Zero(to, (width + 3) * channels);
            for (long row = 0; row < height; row++, from += line)
            {
                Elementwise.Convert(from, to, line);
                to = Zero(to + line, 2 * channels);
            }
            to = Zero(to, (width + 1) * channels);
        }
        return result;

        static BFloat16* Zero(BFloat16* to, long count)
        {
            new Span<BFloat16>(to, (int)count).Clear();
            return to + count;
        }
    }

    private static void Bias<V>(float* y, long rows, int outputs, float* gradient)
        where V : unmanaged, IFloats<V>
    {
        int whole = outputs / V.Count * V.Count;
        for (int channel = 0; channel < whole; channel += V.Count)
        {
            V sum = default;
            for (long row = 0; row < rows; row++)
                sum += V.Load(y + (row * outputs) + channel);
            V.Store(V.Load(gradient + channel) + sum, gradient + channel);
        }
        for (int channel = whole; channel < outputs; channel++)
        {
            float sum = 0;
            for (long row = 0; row < rows; row++)
                sum += y[(row * outputs) + channel];
            gradient[channel] += sum;
        }
    }

    [SuppressMessage("Performance", "CA1812", Justification = "Made by apply.")]
    private sealed class Function : autograd.SingleTensorFunction<Function>
    {
        public override string Name => "Convolution3";

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            (Tensor x, ParameterSet parameters, string name) = ((Tensor)vars[0], (ParameterSet)vars[1], (string)vars[2]);
            ctx.save_for_backward([x]);
            ctx.save_data("parameters", parameters);
            ctx.save_data("name", name);
            return Nhwc.Convolution(x, parameters[name + ".weight"], parameters[name + ".bias"]);
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            using var scope = NewDisposeScope();
            Tensor x = ctx.get_saved_variables()[0];
            return [Backward(x, grad_output.contiguous(), (ParameterSet)ctx.get_data("parameters"), (string)ctx.get_data("name")).MoveToOuterDisposeScope(), null!, null!];
        }
    }
}

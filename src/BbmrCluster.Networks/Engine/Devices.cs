using System.Globalization;
using System.Runtime.Intrinsics.X86;
using BbmrCluster.Rescaling;
using TorchSharp;

namespace BbmrCluster.Networks.Engine;

/// <summary>What this machine and this build of libtorch can compute on.</summary>
public static class Devices
{
    /// <summary>Whether the processor multiplies bfloat16 by itself (AVX-512 BF16); without it float32 is faster and better.</summary>
    public static bool CpuHasBFloat16 { get; } = Avx512F.IsSupported && (X86Base.CpuId(7, 1).Eax & (1 << 5)) != 0;

    /// <summary>Resolves auto, cpu or cuda:N.</summary>
    /// <exception cref="EngineUnavailableException">The device is not there: one sentence.</exception>
    public static torch.Device Resolve(string device)
    {
        if (device is "cpu")
            return torch.CPU;
        if (device is "auto")
            return torch.cuda.is_available() ? new torch.Device(DeviceType.CUDA, 0) : torch.CPU;
        if (!device.StartsWith("cuda:", StringComparison.Ordinal) || !int.TryParse(device.AsSpan(5), NumberStyles.None, CultureInfo.InvariantCulture, out int index))
            throw new EngineUnavailableException($"There is no device '{device}': choose auto, cpu or cuda:N.");
        if (!torch.cuda.is_available())
            throw new EngineUnavailableException($"The device {device} is not there: this build computes on the processor only (build with -p:Accelerator=cuda on a machine with an NVIDIA GPU), so use --device cpu.");
        if (index >= torch.cuda.device_count())
            throw new EngineUnavailableException($"The device {device} is not there: the machine has {torch.cuda.device_count()} CUDA device(s), counted from cuda:0.");
        return new torch.Device(DeviceType.CUDA, index);
    }

    /// <summary>What must be equal for equal bytes: "cuda", or "cpu-" with the widest instruction set that oneDNN uses here.</summary>
    public static string ClassOf(torch.Device device) => device.type == DeviceType.CUDA ? "cuda"
        : CpuHasBFloat16 ? "cpu-avx512-bf16"
        : Avx512F.IsSupported ? "cpu-avx512"
        : Avx2.IsSupported ? "cpu-avx2"
        : "cpu";

    /// <summary>The precision that "auto" takes on devices of a class, as of <see cref="ClassOf"/>.</summary>
    public static string FasterPrecision(string deviceClass) =>
        deviceClass.StartsWith("cuda", StringComparison.Ordinal) || deviceClass.EndsWith("-bf16", StringComparison.Ordinal) ? "bfloat16" : "float32";

    /// <summary>The type of the networks' bodies for a precision setting.</summary>
    /// <exception cref="EngineUnavailableException">Unknown, or bfloat16 on a processor without it: one sentence.</exception>
    public static torch.ScalarType BodyType(string precision, torch.Device device)
    {
        bool able = device.type == DeviceType.CUDA || CpuHasBFloat16;
        return precision switch
        {
            "float32" => torch.ScalarType.Float32,
            "auto" => able ? torch.ScalarType.BFloat16 : torch.ScalarType.Float32,
            "bfloat16" => able ? torch.ScalarType.BFloat16
                : throw new EngineUnavailableException("This processor has no bfloat16 instructions (AVX-512 BF16): use --precision float32 or auto."),
            _ => throw new EngineUnavailableException($"There is no precision '{precision}': choose auto, float32 or bfloat16."),
        };
    }
}

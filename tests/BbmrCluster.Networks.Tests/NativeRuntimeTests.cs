using System.Runtime.InteropServices;
using TorchSharp;

namespace BbmrCluster.Networks.Tests;

public sealed class NativeRuntimeTests
{
    [Fact]
    public void OpenMP_and_instruction_set_are_set_for_native_code()
    {
        NativeRuntime.Apply();
        Assert.NotNull(NativeRuntime.EnvironmentOfNativeCode("OMP_WAIT_POLICY"));
        Assert.NotNull(NativeRuntime.EnvironmentOfNativeCode("ATEN_CPU_CAPABILITY"));
        if (Environment.GetEnvironmentVariable("OMP_WAIT_POLICY") is null)
            Assert.Equal("PASSIVE", NativeRuntime.EnvironmentOfNativeCode("OMP_WAIT_POLICY"));
        if (Environment.GetEnvironmentVariable("ATEN_CPU_CAPABILITY") is null)
            Assert.Equal("avx2", NativeRuntime.EnvironmentOfNativeCode("ATEN_CPU_CAPABILITY"));
    }

    [Fact]
    public void Large_blocks_come_from_the_heap_that_is_kept()
    {
        NativeRuntime.Apply();
        nuint before = Statistics().MappedBlocks;
        nint block = Allocate(16 << 20);
        nuint after = Statistics().MappedBlocks;
        Release(block);
        // By default glibc would map 16 MB by itself and give it back at once.
        Assert.Equal(before, after);
    }

    [Fact]
    public void Tensors_can_be_made_and_freed()
    {
        using torch.Tensor ones = torch.ones(1000, 1000);
        Assert.Equal(1e6, ones.sum().item<float>());
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct AllocatorStatistics
    {
        public nuint Arena, FreeChunks, FastBins, MappedBlocks, MappedBytes, Unused, FastBytes, Used, Free, Top;
    }

    [DllImport("libc", EntryPoint = "mallinfo2")]
    private static extern AllocatorStatistics Statistics();

    [DllImport("libc", EntryPoint = "malloc")]
    private static extern nint Allocate(nuint bytes);

    [DllImport("libc", EntryPoint = "free")]
    private static extern void Release(nint block);
}

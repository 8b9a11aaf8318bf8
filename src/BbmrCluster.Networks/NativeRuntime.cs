using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using TorchSharp;

namespace BbmrCluster.Networks;

/// <summary>
/// Settings of the native libraries that must be in force before libtorch is loaded: the allocator, the OpenMP policy
/// and the instruction set of libtorch's own loops. They are made when this assembly is first used, by the C library,
/// because native code reads the C environment, which <see cref="Environment"/> does not write. Whatever the user has
/// set stays.
/// </summary>
public static class NativeRuntime
{
    // glibc's mallopt parameters.
    private const int TrimThreshold = -1, TopPad = -2, MmapMax = -4, ArenaMax = -8;
    private static int _applied;

    /// <summary>Makes the settings; later calls do nothing.</summary>
    [ModuleInitializer]
    [System.Diagnostics.CodeAnalysis.SuppressMessage("Usage", "CA2255", Justification = "The settings must come before the first call into libtorch, whoever makes it.")]
    public static void Apply()
    {
        if (Interlocked.Exchange(ref _applied, 1) != 0 || !OperatingSystem.IsLinux())
            return;
        try
        {
            // Sleeping OpenMP threads leave the core to others; spinning ones halve the speed of two workers.
            _ = SetEnvironment("OMP_WAIT_POLICY", "PASSIVE", 0);
            // The AVX-512 versions of exp, softmax and GELU are ten times slower in some processes (see the room's README).
            _ = SetEnvironment("ATEN_CPU_CAPABILITY", "avx2", 0);

            // Keep freed blocks: touching fresh pages costs more than most layers here.
            if (!UserTunesAllocator())
            {
                _ = SetAllocatorOption(TrimThreshold, int.MaxValue);
                _ = SetAllocatorOption(TopPad, 256 << 20);
                _ = SetAllocatorOption(MmapMax, 0);
                // And share them: what threads keep each for themselves adds up to some hundred megabytes.
                _ = SetAllocatorOption(ArenaMax, Math.Max(1, Environment.ProcessorCount / 4));
            }
        }
        catch (EntryPointNotFoundException)
        {
            // A C library without mallopt (musl): slower, not wrong.
        }
    }

    /// <summary>Sets libtorch's threads for the calling thread and those started after it.</summary>
    /// <param name="threads">At least 1.</param>
    public static void SetThreads(int threads)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(threads, 1);
        torch.set_num_threads(threads);
    }

    /// <summary>The C library's value of an environment variable, as native code sees it; null when it is not set.</summary>
    public static string? EnvironmentOfNativeCode(string name) => Marshal.PtrToStringUTF8(GetEnvironment(name));

    private static bool UserTunesAllocator() =>
        GetEnvironment("MALLOC_TRIM_THRESHOLD_") != 0 || GetEnvironment("MALLOC_TOP_PAD_") != 0 || GetEnvironment("MALLOC_MMAP_MAX_") != 0
        || GetEnvironment("MALLOC_MMAP_THRESHOLD_") != 0 || GetEnvironment("MALLOC_ARENA_MAX") != 0;

    [DllImport("libc", EntryPoint = "setenv", CharSet = CharSet.Ansi, BestFitMapping = false, ThrowOnUnmappableChar = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int SetEnvironment(string name, string value, int overwrite);

    [DllImport("libc", EntryPoint = "getenv", CharSet = CharSet.Ansi, BestFitMapping = false, ThrowOnUnmappableChar = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern nint GetEnvironment(string name);

    [DllImport("libc", EntryPoint = "mallopt")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int SetAllocatorOption(int option, int value);
}

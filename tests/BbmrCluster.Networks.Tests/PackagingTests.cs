using System.Diagnostics;
using System.Text;
using System.Text.Json;
using BbmrCluster.Tests;

namespace BbmrCluster.Networks.Tests;

public sealed class PackagingTests
{
    private static readonly string Native = Path.Combine(AppContext.BaseDirectory, "runtimes", "linux-x64", "native");

    [Fact]
    public void The_accelerator_property_swaps_the_tensor_package_and_nothing_else()
    {
        string[] cpu = Packages("cpu"), cuda = Packages("cuda");
        Assert.Equal(["libtorch-cpu-linux-x64"], cpu.Except(cuda));
        Assert.Equal(["TorchSharp-cuda-linux"], cuda.Except(cpu));
        Assert.Contains("TorchSharp", cuda);
    }

    private static string[] Packages(string accelerator)
    {
        string project = Path.Combine(Fixtures.Repository(), "src", "BbmrCluster.Networks", "BbmrCluster.Networks.csproj");
        using Process process = Process.Start(new ProcessStartInfo("dotnet", ["msbuild", project, "-getItem:PackageReference", $"-p:Accelerator={accelerator}", "-nodeReuse:false"])
        {
            RedirectStandardOutput = true,
            UseShellExecute = false,
        })!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        using JsonDocument json = JsonDocument.Parse(output);
        return [.. json.RootElement.GetProperty("Items").GetProperty("PackageReference").EnumerateArray()
            .Select(item => item.GetProperty("Identity").GetString()!).Order(StringComparer.Ordinal)];
    }

    [Fact]
    public void The_version_requirement_that_older_hosts_lack_is_weak()
    {
        byte[] elf = File.ReadAllBytes(Path.Combine(Native, "libLibTorchSharp.so"));
        Assert.Equal("\u007fELF", Encoding.ASCII.GetString(elf, 0, 4));
        long sections = BitConverter.ToInt64(elf, 0x28);
        int size = BitConverter.ToUInt16(elf, 0x3a), count = BitConverter.ToUInt16(elf, 0x3c);
        var flags = new List<ushort>();
        for (int s = 0; s < count; s++)
        {
            int header = (int)(sections + ((long)s * size));
            if (BitConverter.ToUInt32(elf, header + 4) != 0x6ffffffe)
                continue;
            long need = BitConverter.ToInt64(elf, header + 24);
            while (true)
            {
                long auxiliary = need + BitConverter.ToUInt32(elf, (int)need + 8);
                for (int i = 0; i < BitConverter.ToUInt16(elf, (int)need + 2); i++)
                {
                    if (BitConverter.ToUInt32(elf, (int)auxiliary) == 0x0297f842)
                        flags.Add(BitConverter.ToUInt16(elf, (int)auxiliary + 4));
                    auxiliary += BitConverter.ToUInt32(elf, (int)auxiliary + 12);
                }
                uint next = BitConverter.ToUInt32(elf, (int)need + 12);
                if (next == 0)
                    break;
                need += next;
            }
        }
        Assert.Equal([2], flags);
    }

    [Fact]
    public void Libraries_that_are_never_loaded_stay_out_of_the_output()
    {
        string[] names = [.. Directory.EnumerateFiles(Native).Select(path => Path.GetFileName(path)!)];
        Assert.Contains("libtorch_cpu.so", names);
        Assert.DoesNotContain(names, name => name.Contains("python", StringComparison.Ordinal) || name.Contains("test", StringComparison.Ordinal) || name.Contains("backend_with_compiler", StringComparison.Ordinal));
        // TorchSharp copies half a gigabyte into this folder after a first load that failed.
        Assert.False(Directory.Exists(Path.Combine(AppContext.BaseDirectory, "cpu")));
    }
}

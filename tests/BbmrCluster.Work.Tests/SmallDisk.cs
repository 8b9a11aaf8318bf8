using System.Diagnostics;

namespace BbmrCluster.Work.Tests;

/// <summary>A file system of a few megabytes, to fill it up; only the administrator can mount one.</summary>
public sealed class SmallDisk : IDisposable
{
    public SmallDisk(string below, long bytes)
    {
        Path = Directory.CreateDirectory(System.IO.Path.Combine(below, "small-disk")).FullName;
        if (!Run("mount", "-t", "tmpfs", "-o", $"size={bytes}", "tmpfs", Path))
            throw new InvalidOperationException("A tmpfs cannot be mounted.");
    }

    public string Path { get; }

    public void Dispose() => Run("umount", "-l", Path);

    public static bool Run(string program, params string[] arguments)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo(program, arguments) { UseShellExecute = false, RedirectStandardError = true, RedirectStandardOutput = true })!;
            process.WaitForExit();
            return process.ExitCode == 0;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return false;
        }
    }
}

/// <summary>A test that mounts a small disk; skipped where that is not allowed.</summary>
public sealed class SmallDiskFactAttribute : FactAttribute
{
    private static readonly Lazy<bool> CanMount = new(() =>
    {
        string folder = Directory.CreateTempSubdirectory("bbmr-mount-").FullName;
        try
        {
            using var disk = new SmallDisk(folder, 1 << 20);
            return true;
        }
        catch (InvalidOperationException)
        {
            return false;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    });

    public SmallDiskFactAttribute()
    {
        if (!CanMount.Value)
            Skip = "mounting a tmpfs is not allowed here";
    }
}

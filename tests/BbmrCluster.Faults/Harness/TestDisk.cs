using System.Globalization;

namespace BbmrCluster.Faults.Harness;

/// <summary>
/// A small disk to fill up: a file system in a sparse file, large enough for the 2 GB that a store wants to keep free.
/// Filling it writes nothing.
/// </summary>
public sealed class TestDisk : IDisposable
{
    private const long Megabyte = 1 << 20, Size = 2600 * Megabyte;

    private readonly string _image;

    public TestDisk(string below)
    {
        _image = System.IO.Path.Combine(below, "disk.img");
        Path = Directory.CreateDirectory(System.IO.Path.Combine(below, "disk")).FullName;
        using (FileStream file = File.Create(_image))
            file.SetLength(Size);
        Machine.Require("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", _image);
        Machine.Require("mount", "-o", "loop", _image, Path);
    }

    /// <summary>Why there can be no disk here; null when there can.</summary>
    public static string? WhyNot { get; } = FindOut();

    public string Path { get; }

    private string Filler => System.IO.Path.Combine(Path, "filler");

    /// <summary>Leaves so many megabytes free.</summary>
    public void Fill(int megabytesLeft)
    {
        // Else it would be the machine's own disk that is filled.
        if (new DriveInfo(Path).TotalSize > Size)
            throw new FaultException($"{Path} is no longer the small disk: something unmounted it.");
        long free = new DriveInfo(Path).AvailableFreeSpace - (megabytesLeft * Megabyte);
        // What others write meanwhile may take the last of it: then as much as there is.
        for (; free > 0 && !Machine.Run("fallocate", "-l", free.ToString(CultureInfo.InvariantCulture), Filler); free -= 64 * 1024)
            File.Delete(Filler);
    }

    public void Free() => File.Delete(Filler);

    public void Dispose()
    {
        Machine.Run("umount", "-l", Path);
        File.Delete(_image);
    }

    private static string? FindOut()
    {
        if (!Machine.IsAdministrator)
            return "only the administrator can mount a disk";
        string folder = Directory.CreateTempSubdirectory("bbmr-disk-").FullName;
        try
        {
            using var disk = new TestDisk(folder);
            return null;
        }
        catch (InvalidOperationException error)
        {
            return "a disk cannot be mounted here: " + error.Message.ReplaceLineEndings(" ");
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}

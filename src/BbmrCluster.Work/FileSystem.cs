using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace BbmrCluster.Work;

/// <summary>What the base library does not say about files: identity, durability, a full disk.</summary>
public static class FileSystem
{
    private const int NoSpace = 28, QuotaExceeded = 122;

    // File systems on which locks or renames of another host may not be seen at once.
    private static readonly HashSet<string> NetworkFormats = new(StringComparer.OrdinalIgnoreCase)
    {
        "nfs", "nfs4", "nfsd", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ceph", "lustre", "glusterfs", "gpfs", "beegfs",
        "coda", "codafs", "ncp", "ncpfs", "ocfs2", "gfs", "gfs2", "vboxsf", "vboxfs", "vmhgfs", "fhgfs", "davfs", "novell", "kafs", "acfs", "panfs",
        "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.davfs",
    };

    /// <summary>Whether an error of the operating system means that the disk or the user's quota is full.</summary>
    public static bool IsFull(Exception error) => error is IOException { HResult: NoSpace or QuotaExceeded };

    /// <summary>Bytes free for this user on the file system that holds a path (which need not exist yet).</summary>
    public static long FreeBytes(string path) => Drive(path).AvailableFreeSpace;

    /// <summary>Size in bytes of the file system that holds a path (which need not exist yet).</summary>
    public static long TotalBytes(string path) => Drive(path).TotalSize;

    /// <summary>Name of the file system that holds a path (which need not exist yet), e.g. "ext4".</summary>
    public static string Format(string path) => Drive(path).DriveFormat;

    /// <summary>Whether a file system of this name lies on other machines.</summary>
    public static bool IsNetwork(string format) => NetworkFormats.Contains(format);

    /// <summary>Whether two paths lead to one file, through symbolic or hard links too. False when either is missing.</summary>
    public static bool IsSameFile(string a, string b) =>
        Identity(a) is { } first && Identity(b) is { } second && first == second;

    /// <summary>Device and inode of what a path leads to; null when there is nothing.</summary>
    public static (uint Major, uint Minor, ulong Inode)? Identity(string path)
    {
        const int currentDirectory = -100;
        const uint inode = 0x100;
        var status = new byte[256];
        if (statx(currentDirectory, path, 0, inode, status) != 0)
            return null;
        return (BitConverter.ToUInt32(status, 136), BitConverter.ToUInt32(status, 140), BitConverter.ToUInt64(status, 32));
    }

    /// <summary>Brings the entries of a directory to the disk, so that a rename in it survives a power cut.</summary>
    public static void SyncDirectory(string path)
    {
        const int closeOnExec = 0x80000;
        int descriptor = open(path, closeOnExec);
        if (descriptor < 0)
            return;
        // Some file systems refuse to sync a directory; the rename itself is then as durable as it gets.
        _ = fsync(descriptor);
        _ = close(descriptor);
    }

    /// <summary>Brings a finished file's bytes to the disk.</summary>
    public static void SyncFile(string path)
    {
        using var handle = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite);
        RandomAccess.FlushToDisk(handle);
    }

    /// <summary>SHA-256 of a file, lower-case hex, read once from the top.</summary>
    public static string Sha256(string path, CancellationToken cancellation)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete, 1, FileOptions.SequentialScan);
        var buffer = new byte[1 << 18];
        for (int read; (read = file.Read(buffer)) > 0;)
        {
            cancellation.ThrowIfCancellationRequested();
            hash.AppendData(buffer, 0, read);
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    /// <summary>Bytes for people: "12.3 GB".</summary>
    public static string Size(long bytes) => bytes switch
    {
        >= 1_000_000_000 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e9:0.0} GB"),
        >= 1_000_000 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e6:0.0} MB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes:#,0} bytes"),
    };

    /// <summary>Reads an amount of bytes as people write it: "500000000", "20G" (times 1024), "1.5 TB" (times 1000); null when it is none.</summary>
    public static long? ParseSize(string text)
    {
        (string Suffix, long Factor)[] units =
        [
            ("KiB", 1L << 10), ("MiB", 1L << 20), ("GiB", 1L << 30), ("TiB", 1L << 40),
            ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000),
            ("K", 1L << 10), ("M", 1L << 20), ("G", 1L << 30), ("T", 1L << 40), ("B", 1), ("", 1),
        ];
        text = text.Trim();
        foreach (var (suffix, factor) in units)
        {
            if (text.EndsWith(suffix, StringComparison.OrdinalIgnoreCase)
                && double.TryParse(text[..^suffix.Length], NumberStyles.AllowDecimalPoint | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out double value)
                && value * factor is >= 1 and < 9e18)
                return (long)(value * factor);
        }
        return null;
    }

    private static DriveInfo Drive(string path)
    {
        string existing = Path.GetFullPath(path);
        while (!Directory.Exists(existing) && !File.Exists(existing) && Path.GetDirectoryName(existing) is { } parent)
            existing = parent;
        return new DriveInfo(existing);
    }

#pragma warning disable IDE1006, SYSLIB1054, CA2101, CA5392 // Names of the C library.
    [DllImport("libc", EntryPoint = "statx", SetLastError = true)]
    private static extern int statx(int directory, [MarshalAs(UnmanagedType.LPUTF8Str)] string path, int flags, uint mask, byte[] status);

    [DllImport("libc", EntryPoint = "open", SetLastError = true)]
    private static extern int open([MarshalAs(UnmanagedType.LPUTF8Str)] string path, int flags);

    [DllImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static extern int fsync(int descriptor);

    [DllImport("libc", EntryPoint = "close", SetLastError = true)]
    private static extern int close(int descriptor);
#pragma warning restore IDE1006, SYSLIB1054, CA2101, CA5392
}

/// <summary>Memory of this process.</summary>
public static class ProcessMemory
{
    /// <summary>Largest resident set so far, bytes; null where the system does not say (/proc/self/status, VmHWM).</summary>
    public static long? Peak()
    {
        try
        {
            const string field = "VmHWM:";
            string? line = File.ReadLines("/proc/self/status").FirstOrDefault(line => line.StartsWith(field, StringComparison.Ordinal));
            return line is not null && long.TryParse(line[field.Length..].Replace("kB", "", StringComparison.Ordinal), NumberStyles.AllowLeadingWhite | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out long kilobytes)
                ? kilobytes * 1024
                : null;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}

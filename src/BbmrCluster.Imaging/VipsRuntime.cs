using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using NetVips;

namespace BbmrCluster.Imaging;

/// <summary>
/// Bounds on libvips, in force before its first call: one or two threads (the rest of the machine belongs to the
/// networks and the heartbeats), no operation cache, no loader that fuzzing has not covered, and a place for the
/// temporary files it makes when an image that it cannot stream is larger than 64 MiB.
/// </summary>
public static partial class VipsRuntime
{
    private static readonly Lock Gate = new();
    private static readonly ReaderWriterLockSlim Calls = new(LockRecursionPolicy.SupportsRecursion);
    private static bool s_ready;

    /// <summary>Version of the loaded libvips, "8.18.7".</summary>
    public static string Version
    {
        get
        {
            Prepare();
            return $"{NetVips.NetVips.Version(0)}.{NetVips.NetVips.Version(1)}.{NetVips.NetVips.Version(2)}";
        }
    }

    /// <summary>
    /// Sends libvips' temporary files to a directory of the host, which sweeps it. Call it once, before the first image
    /// is opened: libvips looks the place up once.
    /// </summary>
    /// <param name="directory">An existing directory.</param>
    public static void UseTemporaryDirectory(string directory) => SetEnvironment("TMPDIR", Path.GetFullPath(directory));

    /// <summary>libvips' own count of pixel memory: now and at most so far, bytes.</summary>
    public static (long Now, long Peak) TrackedMemory => (Stats.Mem, (long)Stats.MemHighwater);

    [ModuleInitializer]
    [SuppressMessage("Usage", "CA2255", Justification = "libvips reads these once, whoever calls it first.")]
    internal static void Initialize()
    {
        // Read by libvips from the C environment, which Environment.SetEnvironmentVariable does not reach.
        SetEnvironment("VIPS_DISC_THRESHOLD", "64m");
        // libvips prints warnings of its codecs on stderr; what matters comes back as an error.
        SetEnvironment("VIPS_WARNING", "0");
    }

    /// <summary>Applies the bounds that need the library itself; every entry point of this room calls it.</summary>
    internal static void Prepare()
    {
        if (Volatile.Read(ref s_ready))
            return;
        lock (Gate)
        {
            if (s_ready)
                return;
            NetVips.NetVips.Concurrency = Math.Min(2, Environment.ProcessorCount);
            Cache.Max = 0;
            Cache.MaxMem = 0;
            Cache.MaxFiles = 0;
            NetVips.NetVips.BlockUntrusted = true;
            // Raw strips are our own; the loader counts as untrusted because it believes what it is told.
            Operation.Block("VipsForeignLoadRaw", false);
            Volatile.Write(ref s_ready, true);
        }
    }

    /// <summary>
    /// Calls libvips. It keeps the texts of errors and warnings in one place for the whole process, so an exception's text may be
    /// that of another file: see <see cref="ReasonOf"/>.
    /// </summary>
    internal static T Call<T>(Func<T> call)
    {
        Prepare();
        Calls.EnterReadLock();
        try
        {
            return call();
        }
        finally
        {
            Calls.ExitReadLock();
        }
    }

    /// <summary>
    /// Says why something failed in libvips: does it again while nobody else calls libvips, so that the text is its own. Takes as long as
    /// the failure did and holds up the others meanwhile; where those do not come to an end it gives up.
    /// </summary>
    /// <param name="attempt">What failed, from its beginning.</param>
    /// <returns>A part of a sentence without a full stop; null when it does not fail now or fails without a word.</returns>
    internal static string? ReasonOf(Action attempt)
    {
        if (!Calls.TryEnterWriteLock(TimeSpan.FromSeconds(10)))
            return null;
        try
        {
            ClearErrors();
            attempt();
            return null;
        }
        catch (VipsException e)
        {
            // "unable to call pngload\nVipsForeignLoad: reason\nreason again": the lines after the first say why.
            string? line = e.Message.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries)
                .FirstOrDefault(l => !l.StartsWith("unable to ", StringComparison.Ordinal));
            int colon = line?.IndexOf(": ", StringComparison.Ordinal) ?? -1;
            return (colon > 0 && colon < line!.Length - 2 ? line[(colon + 2)..] : line)?.TrimEnd('.');
        }
        finally
        {
            Calls.ExitWriteLock();
        }
    }

    [LibraryImport("libvips.so.42", EntryPoint = "vips_error_clear")]
    private static partial void ClearErrors();

    private static void SetEnvironment(string name, string value)
    {
        if (SetEnvironmentNative(name, value, 1) != 0)
            throw new InvalidOperationException($"The environment variable {name} cannot be set.");
    }

    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int SetEnvironmentNative(string name, string value, int overwrite);
}

namespace BbmrCluster.Imaging;

/// <summary>The disk (or a quota on it) is full: one sentence; nothing half-written was left behind.</summary>
public sealed class OutputFullException(string path, Exception inner) : IOException($"{path}: there is no room left on the disk", inner)
{
    private const int NoSpace = 28, FileTooBig = 27, QuotaExceeded = 122;

    /// <summary>Whether an error of the file system says that there is no room.</summary>
    public static bool IsFull(IOException exception) =>
        exception is OutputFullException || (exception.HResult & 0xFFFF) is NoSpace or FileTooBig or QuotaExceeded;
}

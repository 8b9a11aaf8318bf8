using NetVips;

namespace BbmrCluster.Imaging;

/// <summary>
/// Decodes an image once, from the top, strip by strip, in memory that does not grow with its height. Values come as
/// stored: no colour conversion, no rotation, palettes expanded, bits below 8 scaled to 8, alpha as the last channel.
/// Whatever damage the codec can notice is an error (JPEG and WebP have no checksum: a flipped bit may pass as a picture).
/// Images that their codec cannot stream (progressive JPEG, interlaced PNG, WebP, HEIF) are decoded into a raw file
/// under the temporary directory first. Not thread-safe, but each call may come from another thread.
/// </summary>
public sealed class StripReader : IDisposable
{
    private readonly string _path;
    private readonly ImageLimits _limits;
    private readonly int _stripHeight;
    private Image? _image;
    private FileStream? _raw;
    private bool _tolerant;
    private int _next;

    private StripReader(string path, ImageLimits limits, int stripHeight, Image image, ImageInfo info)
    {
        (_path, _limits, _stripHeight, _image, Info) = (path, limits, stripHeight, image, info);
    }

    /// <summary>The header.</summary>
    public ImageInfo Info { get; }

    /// <summary>Opens a file and checks its header.</summary>
    /// <param name="path">See <see cref="ImageFile.Probe"/>.</param>
    /// <param name="limits">Bounds on rows, columns and area.</param>
    /// <param name="stripHeight">Rows of a strip; the last one may have fewer.</param>
    /// <param name="temporaryDirectory">Where a raw file may lie until <see cref="Dispose"/>; made when missing.</param>
    /// <exception cref="ImageRefusedException">As <see cref="ImageFile.Probe"/>; and, where the codec cannot stream, damaged pixel data.</exception>
    /// <exception cref="OutputFullException">No room for the raw file.</exception>
    public static StripReader Open(string path, ImageLimits limits, int stripHeight, string temporaryDirectory)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(stripHeight, 1);
        StripReader reader = OpenStrictly(path, limits, stripHeight);
        (Image image, ImageInfo info) = (reader._image!, reader.Info);
        try
        {
            if (info.Format is "webp" or "heif" || ImageFile.Number(image, "jpeg-multiscan", 0) != 0 || ImageFile.Number(image, "interlaced", 0) != 0)
                reader.DecodeToRawFile(temporaryDirectory);
            return reader;
        }
        catch
        {
            reader.Dispose();
            throw;
        }
    }

    /// <summary>The next strip, or null after the last.</summary>
    /// <exception cref="ImageRefusedException">The pixel data is truncated or damaged.</exception>
    public PixelBuffer? ReadNext()
    {
        if (_next >= Info.Height)
            return null;
        int rows = Math.Min(_stripHeight, Info.Height - _next);
        PixelBuffer strip;
        if (_raw is null)
        {
            strip = Decode(rows);
        }
        else
        {
            strip = new PixelBuffer(Info.Width, rows, Info.Channels, Info.BitDepth);
            _raw.ReadExactly(strip.Data);
        }

        _next += rows;
        return strip;
    }

    /// <summary>Closes the file and removes the raw file.</summary>
    public void Dispose()
    {
        _image?.Dispose();
        _image = null;
        _raw?.Dispose();
        _raw = null;
    }

    /// <summary>
    /// Damage inside a JPEG is a warning of its codec, and so are a few oddities that real cameras write. We stop at
    /// every warning, and when it was such an oddity begin again from the top without that. The other codecs have errors
    /// for damage and warn of trifles.
    /// </summary>
    private static StripReader OpenStrictly(string path, ImageLimits limits, int stripHeight)
    {
        Image image = ImageFile.Open(path, limits, Enums.FailOn.Error, out ImageInfo info);
        if (info.Format != "jpeg")
            return new StripReader(path, limits, stripHeight, image, info) { _tolerant = true };
        try
        {
            Image strict = ImageFile.Open(path, limits, Enums.FailOn.Warning, out info);
            image.Dispose();
            return new StripReader(path, limits, stripHeight, strict, info);
        }
        catch (ImageRefusedException e) when (e.InnerException is VipsException inner && IsHarmless(inner))
        {
            return new StripReader(path, limits, stripHeight, image, info) { _tolerant = true };
        }
        catch
        {
            image.Dispose();
            throw;
        }
    }

    private PixelBuffer Decode(int rows)
    {
        ObjectDisposedException.ThrowIf(_image is null, this);
        try
        {
            // A region of its own for each strip: regions belong to the thread that made them.
            using Region region = Region.New(_image);
            return new PixelBuffer(Info.Width, rows, Info.Channels, Info.BitDepth, region.Fetch(0, _next, Info.Width, rows));
        }
        catch (VipsException e) when (!_tolerant && IsHarmless(e))
        {
            Reopen();
            return Decode(rows);
        }
        catch (VipsException e)
        {
            throw new ImageRefusedException(_path, $"the pixel data is truncated or damaged ({ImageFile.FirstLine(e)})", e);
        }
    }

    /// <summary>Whether a message does not speak of damaged pixel data. A real error comes again in the second reading.</summary>
    private static bool IsHarmless(VipsException e) =>
        e.Message.Contains("extraneous bytes before marker", StringComparison.Ordinal)
        || e.Message.Contains("bad ICC marker", StringComparison.Ordinal)
        || !(e.Message.Contains("Corrupt JPEG data", StringComparison.Ordinal) || e.Message.Contains("Premature end", StringComparison.OrdinalIgnoreCase));

    private void Reopen()
    {
        _image!.Dispose();
        _image = null;
        _image = ImageFile.Open(_path, _limits, Enums.FailOn.Error, out ImageInfo info);
        _tolerant = true;
        if (info.Width != Info.Width || info.Height != Info.Height || info.Channels != Info.Channels || info.BitDepth != Info.BitDepth)
            throw new ImageRefusedException(_path, "the file changed while it was read");
        int target = _next;
        for (_next = 0; _next < target; _next += Math.Min(_stripHeight, target - _next))
            _ = Decode(Math.Min(_stripHeight, target - _next));
    }

    private void DecodeToRawFile(string temporaryDirectory)
    {
        try
        {
            Directory.CreateDirectory(temporaryDirectory);
            // The name is gone at once on close, and after a crash the owner of the directory sweeps it.
            _raw = new FileStream(Path.Combine(temporaryDirectory, $"{Guid.NewGuid():N}.raw"), FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, 1 << 16, FileOptions.DeleteOnClose);
            for (; _next < Info.Height; _next += _stripHeight)
                _raw.Write(Decode(Math.Min(_stripHeight, Info.Height - _next)).Data);
            _raw.Position = 0;
            _next = 0;
        }
        catch (IOException e) when (OutputFullException.IsFull(e))
        {
            throw new OutputFullException(temporaryDirectory, e);
        }
        finally
        {
            _image?.Dispose();
            _image = null;
        }
    }
}

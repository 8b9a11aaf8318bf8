using BbmrCluster.Imaging.Formats;
using NetVips;

namespace BbmrCluster.Imaging;

/// <summary>
/// Decodes an image once, from the top, strip by strip, in memory that does not grow with its height. Values come as
/// stored: no colour conversion, no rotation, palettes expanded, bits below 8 scaled to 8, alpha as the last channel.
/// Damage is an error as far as it shows (JPEG and WebP have no checksum: a flipped bit may pass as a picture); a JPEG is followed from
/// its first to its last marker before it is decoded. Images that their codec cannot stream (progressive JPEG, interlaced PNG, WebP, HEIF)
/// are decoded into a raw file under the temporary directory with the first strip. Not thread-safe, but each call may come from another thread.
/// </summary>
public sealed class StripReader : IDisposable
{
    private readonly string _path;
    private readonly ImageLimits _limits;
    private readonly int _stripHeight;
    private Image? _image;
    private FileStream? _raw;
    private readonly string? _rawDirectory;
    private readonly bool _strict;
    private readonly ExtraChannel _extra;
    private int _next;

    private StripReader(string path, ImageLimits limits, int stripHeight, string? rawDirectory, bool strict, ExtraChannel extra, Image image, ImageInfo info)
    {
        (_path, _limits, _stripHeight, _rawDirectory, _strict, _extra, _image, Info) = (path, limits, stripHeight, rawDirectory, strict, extra, image, info);
    }

    /// <summary>The header, with notes on the whole file.</summary>
    public ImageInfo Info { get; }

    /// <summary>Opens a file and checks its header.</summary>
    /// <param name="path">See <see cref="ImageFile.Probe"/>.</param>
    /// <param name="limits">Bounds on rows, columns and area.</param>
    /// <param name="stripHeight">Rows of a strip; the last one may have fewer.</param>
    /// <param name="temporaryDirectory">Where a raw file may lie until <see cref="Dispose"/>; made when missing.</param>
    /// <exception cref="ImageRefusedException">As <see cref="ImageFile.Probe"/>; and a JPEG that is damaged anywhere.</exception>
    public static StripReader Open(string path, ImageLimits limits, int stripHeight, string temporaryDirectory)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(stripHeight, 1);
        JpegFindings? jpeg = ImageFile.Judge(path);
        // What cannot be followed is left to its codec, which then may not even warn.
        bool strict = jpeg?.Coding == JpegCoding.Other;
        Image image = ImageFile.Open(path, limits, strict, out ImageInfo info, out ExtraChannel extra);
        string[] more = jpeg is null ? [] : [.. jpeg.Notes, .. ImageFile.BehindEnd(path, jpeg.End, info.Metadata)];
        if (more.Length > 0)
            info = info with { Metadata = info.Metadata with { Notes = [.. info.Metadata.Notes, .. more] } };
        bool streams = info.Format is not ("webp" or "heif") && ImageFile.Number(image, "jpeg-multiscan", 0) == 0 && ImageFile.Number(image, "interlaced", 0) == 0;
        return new StripReader(path, limits, stripHeight, streams ? null : temporaryDirectory, strict, extra, image, info);
    }

    /// <summary>The next strip, or null after the last.</summary>
    /// <exception cref="ImageRefusedException">The pixel data is truncated or damaged.</exception>
    /// <exception cref="OutputFullException">No room for the raw file.</exception>
    public PixelBuffer? ReadNext()
    {
        if (_next >= Info.Height)
            return null;
        if (_rawDirectory is not null && _raw is null)
            DecodeToRawFile(_rawDirectory);
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

    private PixelBuffer Decode(int rows)
    {
        ObjectDisposedException.ThrowIf(_image is null, this);
        try
        {
            return VipsRuntime.Call(() =>
            {
                // A region of its own for each strip: regions belong to the thread that made them.
                using Region region = Region.New(_image);
                var pixels = new PixelBuffer(Info.Width, rows, _image.Bands, Info.BitDepth, region.Fetch(0, _next, Info.Width, rows));
                return _image.Bands > Info.Channels ? pixels.Without(Info.Channels) : _extra == ExtraChannel.Premultiplied && Info.HasAlpha ? Straight(pixels) : pixels;
            });
        }
        catch (VipsException e)
        {
            string? reason = VipsRuntime.ReasonOf(ReadAgain);
            throw new ImageRefusedException(_path, $"the pixel data is truncated or damaged{(reason is null ? "" : $" ({reason})")}", e);
        }
    }

    // Colours that are multiplied with their transparency, divided by it again: rounded, and 0 where nothing is seen.
    private static PixelBuffer Straight(PixelBuffer pixels)
    {
        int channels = pixels.Channels, most = pixels.MaxValue;
        if (pixels.BitDepth == 8)
            Divide(pixels.Data.AsSpan());
        else
            Divide(pixels.Samples16);
        return pixels;

        void Divide<T>(Span<T> samples)
            where T : unmanaged, System.Numerics.IBinaryInteger<T>
        {
            for (int i = 0; i < samples.Length; i += channels)
            {
                int alpha = int.CreateChecked(samples[i + channels - 1]);
                if (alpha == most)
                    continue;
                for (int c = i; c < i + channels - 1; c++)
                    samples[c] = alpha == 0 ? T.Zero : T.CreateChecked(Math.Min(most, ((int.CreateChecked(samples[c]) * (long)most) + (alpha / 2)) / alpha));
            }
        }
    }

    private void ReadAgain()
    {
        using Image image = ImageFile.Open(_path, _limits, _strict, out _, out _);
        using Region region = Region.New(image);
        for (int y = 0; y < image.Height; y += _stripHeight)
            region.Fetch(0, y, image.Width, Math.Min(_stripHeight, image.Height - y));
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

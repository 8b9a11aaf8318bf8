namespace BbmrCluster.Imaging;

/// <summary>What a file's header says, after checks against <see cref="ImageLimits"/>.</summary>
/// <param name="Width">Pixels as stored (orientation is not applied).</param>
/// <param name="Height">Pixels as stored.</param>
/// <param name="ColourChannels">1 (grey) or 3 (RGB; palettes are expanded).</param>
/// <param name="HasAlpha">Whether an alpha channel follows the colours.</param>
/// <param name="BitDepth">8 or 16 bits a sample.</param>
/// <param name="Format">Short lower-case format name: jpeg, png, webp, tiff, heif, ...</param>
/// <param name="Metadata">What is carried from source to output unchanged.</param>
public sealed record ImageInfo(int Width, int Height, int ColourChannels, bool HasAlpha, int BitDepth, string Format, ImageMetadata Metadata)
{
    /// <summary>Samples per pixel including alpha.</summary>
    public int Channels => ColourChannels + (HasAlpha ? 1 : 0);
}

/// <summary>Metadata carried, never applied: values are processed as stored.</summary>
/// <param name="Icc">ICC profile bytes.</param>
/// <param name="Exif">EXIF block from its byte order mark; containers of version 0.1 may have the head of JPEG before it.</param>
/// <param name="Xmp">XMP packet.</param>
/// <param name="Iptc">IPTC records (IIM); containers of version 0.1 may have the coats of Photoshop around them.</param>
/// <param name="Orientation">EXIF orientation 1 to 8; 1 when the file does not say.</param>
/// <param name="PixelsPerMillimetreX">Horizontal resolution; 0 when unknown.</param>
/// <param name="PixelsPerMillimetreY">Vertical resolution; 0 when unknown.</param>
public sealed record ImageMetadata(byte[]? Icc, byte[]? Exif, byte[]? Xmp, byte[]? Iptc, int Orientation, double PixelsPerMillimetreX, double PixelsPerMillimetreY)
{
    /// <summary>No metadata.</summary>
    public static ImageMetadata None { get; } = new(null, null, null, null, 1, 0, 0);

    /// <summary>Colours of high dynamic range by numbers (ITU-T H.273): primaries, transfer, matrix 0, full range 1. Null for all others.</summary>
    public byte[]? Cicp { get; init; }

    /// <summary>Texts with a keyword, as PNG has them; a comment of a JPEG is one with the keyword Comment.</summary>
    public IReadOnlyList<ImageText> Texts { get; init; } = [];

    /// <summary>
    /// What whoever keeps the outputs should know about the source: harmless oddities, and what it has that is left behind. One sentence each, without a
    /// full stop.
    /// </summary>
    public IReadOnlyList<string> Notes { get; init; } = [];
}

/// <summary>A text about a picture.</summary>
/// <param name="Keyword">What it is: Author, Copyright, Comment, ...</param>
/// <param name="Text">The text.</param>
public sealed record ImageText(string Keyword, string Text);

/// <summary>Bounds checked from the header, before any pixel is decoded or allocated.</summary>
/// <param name="MaxPixels">Width x height, pixels.</param>
/// <param name="MaxSide">Largest width or height, pixels.</param>
public sealed record ImageLimits(long MaxPixels = 1_000_000_000, int MaxSide = 65_500)
{
    /// <summary>One gigapixel, 65,500 pixels a side.</summary>
    public static ImageLimits Default { get; } = new();
}

/// <summary>An input that cannot or must not be processed: one sentence for the person who reads it, no stack trace needed.</summary>
public sealed class ImageRefusedException(string path, string reason, Exception? inner = null) : Exception($"{path}: {reason}", inner)
{
    /// <summary>The file as it was named.</summary>
    public string Path { get; } = path;

    /// <summary>Why, without the file name.</summary>
    public string Reason { get; } = reason;
}

namespace BbmrCluster.Imaging.Formats;

/// <summary>What a file carries beside its pixels, as found in it. Blocks are without the heads that formats put before them.</summary>
internal sealed class RawMetadata
{
    /// <summary>ICC profile.</summary>
    public byte[]? Icc { get; set; }

    /// <summary>EXIF block, from its byte order mark.</summary>
    public byte[]? Exif { get; set; }

    /// <summary>XMP packet.</summary>
    public byte[]? Xmp { get; set; }

    /// <summary>The further packet that JPEG keeps apart when all is longer than 64 kB.</summary>
    public byte[]? XmpExtension { get; set; }

    /// <summary>IPTC records (IIM).</summary>
    public byte[]? Iptc { get; set; }

    /// <summary>Texts with a keyword.</summary>
    public List<ImageText> Texts { get; } = [];

    /// <summary>Colours by numbers (H.273): primaries, transfer, matrix, full range.</summary>
    public byte[]? Cicp { get; set; }

    /// <summary>Colours by gamma and chromaticities, where the file names no profile.</summary>
    public ColourSpace? Colours { get; set; }

    /// <summary>Resolution, where the file itself names one.</summary>
    public (double X, double Y)? PixelsPerMillimetre { get; set; }

    /// <summary>The file holds more pictures.</summary>
    public bool MorePictures { get; set; }

    /// <summary>Oddities and what is left behind.</summary>
    public List<string> Notes { get; } = [];
}

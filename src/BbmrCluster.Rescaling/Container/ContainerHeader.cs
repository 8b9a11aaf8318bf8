using BbmrCluster.Imaging;
using Google.Protobuf;

namespace BbmrCluster.Rescaling.Container;

/// <summary>What a container says about its image and how it was made. Nothing in it depends on clock or host.</summary>
/// <param name="Width">Image width, pixels as stored in the source.</param>
/// <param name="Height">Image height, pixels.</param>
/// <param name="BlockSize">Block side, HR pixels, 8 to 1,024.</param>
/// <param name="Scales">The scale set.</param>
/// <param name="Rate">The scale whose rate was kept.</param>
/// <param name="Allocator">Canonical allocator name with parameters, e.g. "paper:t=0,max=408".</param>
/// <param name="Scorer">A network, same (the reconstruction network) or bicubic (no network).</param>
/// <param name="Downscaler">bicubic or downnet.</param>
/// <param name="Network">Reconstruction network the container was made for.</param>
/// <param name="Precision">Precision of the networks, e.g. float32.</param>
/// <param name="WeightHashes">Weight file name to SHA-256 (64 lower-case hex digits).</param>
/// <param name="Source">The file it was made from.</param>
/// <param name="BitDepth">8 or 16 bits a sample.</param>
/// <param name="ColourChannels">1 (grey) or 3 (RGB).</param>
/// <param name="Alpha">Whether there is an alpha channel and where.</param>
/// <param name="Metadata">Carried to the reconstructed image unchanged.</param>
public sealed record ContainerHeader(
    int Width, int Height, int BlockSize, ScaleSet Scales, int Rate, string Allocator, string Scorer, string Downscaler, string Network,
    string Precision, IReadOnlyDictionary<string, string> WeightHashes, ContainerSource Source, int BitDepth, int ColourChannels,
    AlphaKind Alpha, ImageMetadata Metadata)
{
    /// <summary>What blocks saw of each other. Containers of version 1 hold blocks by themselves.</summary>
    public BlockContext Context { get; init; }

    /// <summary>LR pixels beyond a tile that networks see on every side; 0 without context.</summary>
    public int Halo { get; init; }

    /// <summary>Largest encoded header, metadata included: 64 MiB.</summary>
    public const int MaxBytes = 64 << 20;

    /// <summary>The block grid.</summary>
    public BlockGrid Grid => EngineSettings.GridOf(Width, Height, Context, BlockSize);

    /// <summary>What is needed to read a strip.</summary>
    public StripFormat StripFormat => new(Grid, Scales, BitDepth, ColourChannels, Alpha);

    /// <summary>The header section: protobuf, equal headers give equal bytes.</summary>
    /// <exception cref="FormatException">A value is outside its range; the message goes on from "the header ".</exception>
    internal byte[] Encode()
    {
        if (Problem(ImageLimits.Default with { MaxPixels = long.MaxValue, MaxSide = int.MaxValue }) is { } problem)
            throw new FormatException(problem);
        var wire = new Wire.Header
        {
            Width = (uint)Width,
            Height = (uint)Height,
            BlockSize = (uint)BlockSize,
            Rate = (uint)Rate,
            Allocator = Allocator,
            Scorer = Scorer,
            Downscaler = Downscaler,
            Network = Network,
            Precision = Precision,
            Source = new Wire.Source { Name = Source.Name, Size = (ulong)Source.Size, Sha256 = FromHex(Source.Sha256), Format = Source.Format },
            BitDepth = (uint)BitDepth,
            ColourChannels = (uint)ColourChannels,
            Alpha = (Wire.Alpha)Alpha,
            Metadata = MetadataCodec.ToWire(Metadata),
            Context = (uint)Context,
            Halo = (uint)Halo,
        };
        wire.Scales.AddRange(Scales.Scales.Select(scale => (uint)scale));
        wire.Weights.AddRange(WeightHashes.OrderBy(pair => pair.Key, StringComparer.Ordinal)
            .Select(pair => new Wire.Weights { Name = pair.Key, Sha256 = FromHex(pair.Value) }));
        byte[] bytes = wire.ToByteArray();
        return bytes.Length <= MaxBytes ? bytes : throw new FormatException($"takes {bytes.Length} bytes, more than {MaxBytes}");
    }

    /// <summary>Reads a header section and checks every value.</summary>
    /// <exception cref="FormatException">Not a header, or a value is outside its range; the message goes on from "the header ".</exception>
    internal static ContainerHeader Decode(byte[] bytes, ImageLimits limits)
    {
        Wire.Header wire;
        try
        {
            wire = Wire.Header.Parser.ParseFrom(bytes);
        }
        catch (InvalidProtocolBufferException e)
        {
            throw new FormatException("cannot be read", e);
        }
        if (wire.BlockSize is < 8 or > 1024)
            throw new FormatException($"has blocks of {wire.BlockSize} pixels");
        if (wire.Scales.Count > 4 || wire.Scales.Any(scale => scale is < 1 or > 1024))
            throw new FormatException("has an impossible scale set");
        ScaleSet scales;
        try
        {
            scales = new ScaleSet(wire.Scales.Select(scale => (int)scale), (int)wire.BlockSize);
        }
        catch (ArgumentException e)
        {
            throw new FormatException("has an impossible scale set", e);
        }
        if (!scales.Scales.SequenceEqual(wire.Scales.Select(scale => (int)scale)))
            throw new FormatException("has a scale set that does not ascend");
        var weights = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (Wire.Weights weight in wire.Weights)
        {
            if (!weights.TryAdd(weight.Name, ToHex(weight.Sha256)))
                throw new FormatException("names a weight file twice");
        }
        Wire.Source source = wire.Source ?? throw new FormatException("does not name the source");
        var header = new ContainerHeader(
            Saturate(wire.Width), Saturate(wire.Height), (int)wire.BlockSize, scales, Saturate(wire.Rate), wire.Allocator, wire.Scorer, wire.Downscaler,
            wire.Network, wire.Precision, weights, new ContainerSource(source.Name, (long)Math.Min(source.Size, long.MaxValue), ToHex(source.Sha256), source.Format),
            Saturate(wire.BitDepth), Saturate(wire.ColourChannels), (AlphaKind)(int)wire.Alpha, MetadataCodec.FromWire(wire.Metadata ?? new Wire.Metadata()))
        {
            Context = (BlockContext)Saturate(wire.Context),
            Halo = Saturate(wire.Halo),
        };
        return header.Problem(limits) is { } problem ? throw new FormatException(problem) : header;
    }

    private string? Problem(ImageLimits limits)
    {
        if (Width < 1 || Height < 1)
            return "has a size of zero";
        if (Width > limits.MaxSide || Height > limits.MaxSide || (long)Width * Height > limits.MaxPixels)
            return $"says {Width}x{Height} pixels, more than the limit of {limits.MaxPixels} pixels and {limits.MaxSide} a side";
        if (BlockSize is < 8 or > 1024)
            return $"has blocks of {BlockSize} pixels";
        if (Scales.Scales.Any(scale => BlockSize % scale != 0))
            return "has an impossible scale set";
        if (Context is not (BlockContext.None or BlockContext.Canvas) || (Context == BlockContext.None && Halo != 0) || Halo > EngineSettings.MaxHalo)
            return $"has an unknown kind of context ({(int)Context}, halo {Halo})";
        if (Context == BlockContext.Canvas && (BlockGrid.TileSize % BlockSize != 0 || !Canvas.Supports(Scales)))
            return $"has blocks of {BlockSize} pixels with scales {Scales} in a canvas";
        if (Rate < 1 || BlockSize % Rate != 0)
            return $"has the rate {Rate}";
        if (BitDepth is not (8 or 16))
            return $"has {BitDepth} bits a sample";
        if (ColourChannels is not (1 or 3))
            return $"has {ColourChannels} colour channels";
        if (Alpha is not (AlphaKind.None or AlphaKind.Opaque or AlphaKind.Stored))
            return $"has an unknown kind of alpha ({(int)Alpha})";
        if (new[] { Allocator, Scorer, Downscaler, Network, Precision, Source.Format }.Concat(WeightHashes.Keys).Any(name => !IsName(name)))
            return "has a name that is empty, too long or not printable";
        if (!IsSha256(Source.Sha256) || !WeightHashes.Values.All(IsSha256))
            return "has a SHA-256 of another length";
        if (Source.Size < 0)
            return "has a source size below zero";
        // A name, never a path: a reader may use it to name its output.
        if (Source.Name is not { Length: >= 1 and <= 1024 } || Source.Name is "." or ".." || Source.Name.AsSpan().ContainsAny('/', '\0'))
            return "has a source name that is not a file name";
        if (Metadata.Orientation is < 1 or > 8)
            return $"has the orientation {Metadata.Orientation}";
        return IsResolution(Metadata.PixelsPerMillimetreX) && IsResolution(Metadata.PixelsPerMillimetreY) ? null : "has an impossible resolution";
    }

    private static bool IsName(string name) => name is { Length: >= 1 and <= 256 } && name.All(c => c is >= ' ' and <= '~');

    private static bool IsSha256(string hash) => hash.Length == 64 && hash.All(char.IsAsciiHexDigitLower);

    private static bool IsResolution(double value) => double.IsFinite(value) && value >= 0;

    private static int Saturate(uint value) => (int)Math.Min(value, int.MaxValue);

    private static ByteString FromHex(string hash) => ByteString.CopyFrom(Convert.FromHexString(hash));

    private static string ToHex(ByteString hash) => Convert.ToHexStringLower(hash.Span);
}

/// <summary>The file a container was made from.</summary>
/// <param name="Name">File name without folders.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Sha256">64 lower-case hex digits.</param>
/// <param name="Format">Short lower-case format name, e.g. jpeg.</param>
public sealed record ContainerSource(string Name, long Size, string Sha256, string Format);

/// <summary>What became of an alpha channel.</summary>
public enum AlphaKind
{
    /// <summary>The source had none.</summary>
    None = 0,

    /// <summary>It was the largest value everywhere: a flag is enough.</summary>
    Opaque = 1,

    /// <summary>Strips store it losslessly at full size.</summary>
    Stored = 2,
}

/// <summary>Where recorded quality comes from.</summary>
public enum QualityKind
{
    /// <summary>The scorer's word: block by block, without deblocking.</summary>
    Estimated = 1,

    /// <summary>From the reconstruction itself.</summary>
    Measured = 2,
}

/// <summary>Squared error of each block at its scale, or of each tile of smaller blocks, with a label that says what it is.</summary>
/// <param name="Kind">Estimated or measured.</param>
/// <param name="Label">Who says so, e.g. scorer and weight hash, or network, weight hash and precision; 1 to 1,024 printable ASCII characters.</param>
/// <param name="Sse">
/// One value per block in raster order, or per tile of 128 x 128 pixels where blocks are smaller and see their neighbours:
/// squared error of Y over the pixels inside the image, 8-bit units squared.
/// Stored as float32 (relative error below 6e-8, far below 1e-6 dB).
/// </param>
public sealed record RecordedQuality(QualityKind Kind, string Label, double[] Sse)
{
    /// <summary>Values that a container of a grid holds.</summary>
    public static int ValuesOf(BlockGrid grid) => grid.Tiles * grid.Strips;

    /// <summary>Sums the errors of blocks, raster order, over what the record has a value for.</summary>
    public static double[] Gather(double[] blocks, BlockGrid grid)
    {
        var values = new double[ValuesOf(grid)];
        for (int block = 0; block < blocks.Length; block++)
            values[(grid.StripOf(block) * grid.Tiles) + (block % grid.Columns * grid.BlockSize / grid.StripHeight)] += blocks[block];
        return values;
    }

    /// <summary>PSNR-Y of the whole image in dB, capped at 100.</summary>
    public double Psnr(BlockGrid grid) => BlockScores.PsnrOf(Sse.Sum(), (long)grid.Width * grid.Height);
}

/// <summary>A container that cannot be read, or a part of it that is damaged: one sentence for the person who reads it.</summary>
public sealed class ContainerException(string path, string reason, Exception? inner = null) : Exception($"{path}: {reason}", inner)
{
    /// <summary>The file as it was named.</summary>
    public string Path { get; } = path;

    /// <summary>Why, without the file name.</summary>
    public string Reason { get; } = reason;
}

/// <summary>Metadata as bytes (protobuf, the container's own message), to carry it outside a container.</summary>
public static class MetadataCodec
{
    /// <summary>Equal metadata give equal bytes.</summary>
    public static byte[] Encode(ImageMetadata metadata) => ToWire(metadata).ToByteArray();

    /// <summary>Reads <see cref="Encode"/>'s bytes.</summary>
    /// <exception cref="FormatException">Not metadata.</exception>
    public static ImageMetadata Decode(byte[] bytes)
    {
        try
        {
            return FromWire(Wire.Metadata.Parser.ParseFrom(bytes));
        }
        catch (InvalidProtocolBufferException e)
        {
            throw new FormatException("The metadata cannot be read.", e);
        }
    }

    internal static Wire.Metadata ToWire(ImageMetadata metadata)
    {
        var wire = new Wire.Metadata
        {
            Orientation = (uint)metadata.Orientation,
            PixelsPerMillimetreX = metadata.PixelsPerMillimetreX,
            PixelsPerMillimetreY = metadata.PixelsPerMillimetreY,
        };
        wire.Notes.AddRange(metadata.Notes);
        wire.Texts.AddRange(metadata.Texts.Select(text => new Wire.Text { Keyword = text.Keyword, Text_ = text.Text }));
        if (metadata.Cicp is { } cicp)
            wire.Cicp = ByteString.CopyFrom(cicp);
        if (metadata.Icc is { } icc)
            wire.Icc = ByteString.CopyFrom(icc);
        if (metadata.Exif is { } exif)
            wire.Exif = ByteString.CopyFrom(exif);
        if (metadata.Xmp is { } xmp)
            wire.Xmp = ByteString.CopyFrom(xmp);
        if (metadata.Iptc is { } iptc)
            wire.Iptc = ByteString.CopyFrom(iptc);
        return wire;
    }

    internal static ImageMetadata FromWire(Wire.Metadata wire) => new(
        wire.HasIcc ? wire.Icc.ToByteArray() : null, wire.HasExif ? wire.Exif.ToByteArray() : null,
        wire.HasXmp ? wire.Xmp.ToByteArray() : null, wire.HasIptc ? wire.Iptc.ToByteArray() : null,
        (int)Math.Min(wire.Orientation, int.MaxValue), wire.PixelsPerMillimetreX, wire.PixelsPerMillimetreY)
    {
        Notes = [.. wire.Notes],
        Texts = [.. wire.Texts.Select(text => new ImageText(text.Keyword, text.Text_))],
        Cicp = wire.HasCicp ? wire.Cicp.ToByteArray() : null,
    };
}

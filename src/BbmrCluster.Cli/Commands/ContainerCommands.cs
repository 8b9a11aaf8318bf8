using System.CommandLine;
using System.Globalization;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Cli.Commands;

/// <summary>info, verify, extract: read containers without starting a node.</summary>
internal static class ContainerCommands
{
    /// <summary>bbmr info.</summary>
    public static Command Info()
    {
        var files = BbmrCommand.FilesArgument("FILE.bbmr", "Containers");
        var command = new BbmrCommand("info", "Tells everything a container says about itself.", "bbmr info out/photo.bbmr", "bbmr info out/*.bbmr --json") { files };
        command.Run((parsed, services) => ForEach(parsed.GetRequiredValue(files), services.Terminal, path => ShowInfo(path, services.Terminal)));
        return command;
    }

    /// <summary>bbmr verify.</summary>
    public static Command Verify()
    {
        var files = BbmrCommand.FilesArgument("FILE.bbmr", "Containers");
        var deep = new Option<bool>("--deep") { Description = "Also restore the image with the pinned networks and look for values that are not finite" };
        var source = new Option<string?>("--source") { Description = "With --deep: the photograph it was made from, to hold the measured errors to", HelpName = "FILE" };
        Option<string> device = JobOptions.Device();
        Option<int> threads = JobOptions.Threads();
        var command = new BbmrCommand("verify", "Checks every byte of a container against its checksums.",
            "bbmr verify out/photo.bbmr", "bbmr verify out/photo.bbmr --deep --source photo.jpg") { files, deep, source, device, threads };
        command.Validators.Add(result =>
        {
            if (result.GetValue(source) is not null && !result.GetValue(deep))
                result.AddError("--source needs --deep.");
            if (result.GetValue(source) is not null && result.GetValue(files) is { Length: > 1 })
                result.AddError("--source belongs to one container.");
        });
        command.Run((parsed, services) => ForEach(parsed.GetRequiredValue(files), services.Terminal, path =>
        {
            using ContainerReader reader = Open(path);
            IReadOnlyList<ContainerDamage> damage = reader.Verify();
            DeepVerification? deepResult = damage.Count == 0 && parsed.GetValue(deep)
                ? DeepVerification.Run(reader, parsed.GetValue(source), parsed.GetValue(device)!, parsed.GetValue(threads), services.Terminal)
                : null;
            return ShowVerification(path, reader, damage, deepResult, services.Terminal);
        }));
        return command;
    }

    /// <summary>bbmr extract.</summary>
    public static Command Extract()
    {
        var file = new Argument<string>("FILE.bbmr") { Description = "Container" };
        var output = new Option<string?>("--output", "-o") { Description = "Image to write, its format by extension (default: NAME.preview.png in the current folder)", HelpName = "FILE" };
        var scale = new Option<int?>("--scale") { Description = "The preview is smaller by this (default: the middle scale)", HelpName = "K", CustomParser = argument => Amounts.Whole(1, 128, "a scale")(argument) };
        var force = new Option<bool>("--force") { Description = "Replace an existing file" };
        var command = new BbmrCommand("extract", "Writes the small preview that a container holds, without a network: blocks of other scales are brought to one scale by bicubic.",
            "bbmr extract out/photo.bbmr -o preview.png") { file, output, scale, force };
        command.Run((parsed, services) =>
        {
            string path = parsed.GetRequiredValue(file);
            using ContainerReader reader = Open(path);
            string target = parsed.GetValue(output) ?? Path.GetFileNameWithoutExtension(path) + ".preview.png";
            int at = parsed.GetValue(scale) ?? reader.Header.Scales.Middle;
            if (reader.Header.Scales.IndexOf(at) < 0)
                throw new UserErrorException($"--scale {at} is not one of the container's scales {reader.Header.Scales}.", ExitCodes.Usage);
            if (ImageEncoder.WhyNot(target, new ImageInfo(reader.Header.Width / at, reader.Header.Height / at, reader.Header.ColourChannels, HasAlpha: false, reader.Header.BitDepth, "", reader.Header.Metadata)) is { } reason)
                throw new UserErrorException($"{target}: {reason}.");
            using var temporary = TemporaryFile.For(target, parsed.GetValue(force), path);
            (int width, int height, IReadOnlyList<string> notes) = Preview.Write(reader, at, temporary.Path);
            temporary.Commit();
            foreach (string note in notes)
                services.Terminal.Message($"{path}: note: {note}");
            services.Terminal.Result(string.Create(CultureInfo.InvariantCulture, $"{target}: {width}x{height} pixels, 1/{at} of {reader.Header.Width}x{reader.Header.Height}"));
            services.Terminal.Json(new { input = path, output = target, width, height, scale = at });
            return ExitCodes.Done;
        });
        return command;
    }

    private static ContainerReader Open(string path) => ContainerReader.Open(Files.Readable(path), ImageLimits.Default with { MaxPixels = long.MaxValue / 8, MaxSide = int.MaxValue });

    private static int ForEach(string[] paths, Terminal terminal, Func<string, bool> action)
    {
        int failed = 0;
        foreach (string path in paths)
        {
            try
            {
                if (!action(path))
                    failed++;
            }
            catch (Exception e) when (e is not OperationCanceledException && Failure.Of(e) is { Unexpected: false } failure)
            {
                failed++;
                terminal.Problem(failure.Message);
                terminal.Json(new { file = path, ok = false, error = failure.Message });
            }
        }
        return ExitCodes.Of(paths.Length - failed, failed);
    }

    private static bool ShowInfo(string path, Terminal terminal)
    {
        using ContainerReader reader = Open(path);
        ContainerHeader h = reader.Header;
        BlockGrid grid = h.Grid;
        long bytes = new FileInfo(path).Length;
        int[] counts = new int[h.Scales.Count];
        foreach (byte index in reader.ScaleIndex)
            counts[index]++;
        long lrPixels = counts.Select((count, index) => (long)count * (h.BlockSize / h.Scales[index]) * (h.BlockSize / h.Scales[index])).Sum();
        long pixels = (long)h.Width * h.Height;
        double ratePixels = (double)lrPixels / ((long)grid.Count * h.BlockSize * h.BlockSize), ratePixelsImage = (double)lrPixels / pixels;
        double bitsPerPixel = 8.0 * bytes / pixels;
        string alpha = h.Alpha switch { AlphaKind.Stored => "stored", AlphaKind.Opaque => "opaque", _ => "none" };
        string? kind = reader.Quality is { } quality ? quality.Kind == QualityKind.Measured ? "measured" : "estimated" : null;
        double? psnr = reader.Quality?.Psnr(grid);
        ContainerDamage? damage = reader.DamageAtOpen is [var first, ..] ? first : null;

        terminal.Json(new
        {
            file = path, ok = damage is null, error = damage?.Reason, width = h.Width, height = h.Height, bit_depth = h.BitDepth, colour_channels = h.ColourChannels, alpha,
            bytes, blocks = grid.Count, columns = grid.Columns, strips = grid.Strips, block_size = h.BlockSize, context = BlockContexts.NameOf(h.Context), halo = h.Halo,
            scales = h.Scales.Scales, rate = h.Rate, counts = CountsByScale(h.Scales, counts), lr_pixels = lrPixels,
            rate_pixels = ratePixels, rate_pixels_image = ratePixelsImage, bits_per_pixel = bitsPerPixel,
            allocator = h.Allocator, scorer = h.Scorer, downscaler = h.Downscaler, network = h.Network, precision = h.Precision, weights = h.WeightHashes,
            quality_kind = kind, quality_by = reader.Quality?.Label, psnr_y = psnr,
            source = new { name = h.Source.Name, bytes = h.Source.Size, sha256 = h.Source.Sha256, format = h.Source.Format },
            metadata = new { icc_bytes = h.Metadata.Icc?.Length, exif_bytes = h.Metadata.Exif?.Length, xmp_bytes = h.Metadata.Xmp?.Length, iptc_bytes = h.Metadata.Iptc?.Length, orientation = h.Metadata.Orientation },
        });

        Line(path, "BBMR container, version 1, " + Amounts.Text(bytes));
        Line("image", $"{h.Width}x{h.Height} pixels, {(h.ColourChannels == 1 ? "grey" : "RGB")}, {h.BitDepth} bits, alpha {alpha}");
        Line("blocks", $"{grid.Columns} x {grid.BlockRows} = {grid.Count} of {h.BlockSize}x{h.BlockSize} pixels");
        Line("scales", string.Join(", ", h.Scales.Scales.Select((scale, index) => string.Create(CultureInfo.InvariantCulture, $"x{scale}: {Amounts.Count(counts[index], "block")} ({100.0 * counts[index] / grid.Count:0.0} %)"))));
        Line("stored", string.Create(CultureInfo.InvariantCulture, $"{lrPixels} LR pixels, 1/{1 / ratePixels:0.##} of the blocks' pixels; {bitsPerPixel:0.000} bits per pixel, LR coded without loss"));
        Line("made by", $"allocator {h.Allocator}, scorer {h.Scorer}, downscaler {h.Downscaler}, rate {h.Rate}, precision {h.Precision}");
        Line("network", h.Network);
        foreach ((string name, string hash) in h.WeightHashes.OrderBy(pair => pair.Key, StringComparer.Ordinal))
            Line("", $"{name}  sha256 {hash}");
        Line("quality", psnr is { } value ? string.Create(CultureInfo.InvariantCulture, $"{value:0.00} dB PSNR-Y, {kind} ({reader.Quality!.Label})") : "the quality record is damaged");
        Line("source", $"{h.Source.Name}, {h.Source.Format}, {Amounts.Text(h.Source.Size)}");
        Line("", $"sha256 {h.Source.Sha256}");
        Line("metadata", MetadataText(h.Metadata));
        foreach (ContainerDamage part in reader.DamageAtOpen)
            terminal.Problem($"{path}: {part.Reason}");
        return damage is null;

        void Line(string label, string text) => terminal.Result(label == path ? $"{path}: {text}" : $"  {label,-9} {text}");
    }

    private static bool ShowVerification(string path, ContainerReader reader, IReadOnlyList<ContainerDamage> damage, DeepVerification? deep, Terminal terminal)
    {
        bool ok = damage.Count == 0 && deep is null or { Ok: true };
        terminal.Json(new
        {
            file = path, ok, error = damage.Count > 0 ? damage[0].Reason : deep?.Problem, strips = reader.StripCount,
            damage = damage.Select(part => new { part = part.Part, strip = part.Strip, reason = part.Reason }),
            deep = deep is null ? null : new { deep.Blocks, psnr_y = deep.PsnrY, recorded_psnr_y = deep.RecordedPsnrY, quality_kind = deep.QualityKind, compared = deep.Compared, problem = deep.Problem },
        });
        foreach (ContainerDamage part in damage)
            terminal.Problem($"{path}: {part.Reason}");
        if (damage.Count > 0)
            terminal.Result(string.Create(CultureInfo.InvariantCulture, $"{path}: damaged in {damage.Count} parts; {reader.StripCount - damage.Count(part => part.Part == "strip")} of {reader.StripCount} strips are whole"));
        else if (deep is { Problem: { } problem })
            terminal.Problem($"{path}: {problem}");
        else
            terminal.Result($"{path}: {(deep is null ? "every byte matches its checksum" : deep.Summary)}");
        return ok;
    }

    internal static Dictionary<string, int> CountsByScale(ScaleSet scales, int[] counts) =>
        scales.Scales.Select((scale, index) => (scale, index)).ToDictionary(pair => pair.scale.ToString(CultureInfo.InvariantCulture), pair => counts[pair.index], StringComparer.Ordinal);

    private static string MetadataText(ImageMetadata metadata)
    {
        var parts = new List<string>();
        void Add(string name, byte[]? bytes)
        {
            if (bytes is not null)
                parts.Add($"{name} {Amounts.Text(bytes.Length)}");
        }
        Add("ICC", metadata.Icc);
        Add("EXIF", metadata.Exif);
        Add("XMP", metadata.Xmp);
        Add("IPTC", metadata.Iptc);
        if (metadata.Orientation != 1)
            parts.Add(string.Create(CultureInfo.InvariantCulture, $"orientation {metadata.Orientation}"));
        return parts.Count == 0 ? "none" : string.Join(", ", parts);
    }
}

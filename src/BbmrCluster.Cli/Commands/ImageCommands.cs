using System.CommandLine;
using System.Globalization;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Imaging;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.Engine;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Cli.Commands;

/// <summary>superresolve, resize, compare: whole images in memory, no blocks, no node.</summary>
internal static class ImageCommands
{
    /// <summary>bbmr superresolve.</summary>
    public static Command Superresolve()
    {
        (Argument<string> input, Argument<string> output, Option<bool> force) = InputAndOutput();
        var network = new Option<string>("--network") { Description = "Network ('bbmr models list' shows them)", HelpName = "NAME", DefaultValueFactory = _ => EngineSettings.Default.Network };
        var scale = new Option<int>("--scale") { Description = "Factor for both sides", HelpName = "2|4|8", Required = true, CustomParser = Amounts.Whole(2, 8, "a factor") };
        Option<string> precision = JobOptions.Precision(), device = JobOptions.Device();
        Option<int> threads = JobOptions.Threads();
        var command = new BbmrCommand("superresolve", "Runs one network on a whole image, without blocks. Takes about 3 KB of memory for each pixel of the input.",
            "bbmr superresolve small.png large.png --network omnisr-light --scale 4") { input, output, network, scale, precision, device, threads, force };
        command.Run((parsed, services) =>
        {
            NativeRuntime.Apply();
            string from = parsed.GetRequiredValue(input), to = parsed.GetRequiredValue(output);
            PixelBuffer source = Load(from, out ImageInfo info);
            int factor = parsed.GetRequiredValue(scale);
            CheckOutput(to, info with { Width = info.Width * factor, Height = info.Height * factor });
            using var resolver = new SuperResolver(new ModelCatalog(), parsed.GetValue(network)!, factor, parsed.GetValue(precision)!, parsed.GetValue(device)!, parsed.GetValue(threads));
            return Save(from, to, parsed.GetValue(force), resolver.Upscale(source), info, services.Terminal);
        });
        return command;
    }

    /// <summary>bbmr resize.</summary>
    public static Command Resize()
    {
        (Argument<string> input, Argument<string> output, Option<bool> force) = InputAndOutput();
        var scale = new Option<ResizeScale>("--scale")
        {
            Description = "Factor for both sides, as a whole number or a fraction", HelpName = "1/4", Required = true,
            CustomParser = argument =>
            {
                try
                {
                    return ResizeScale.Parse(argument.Tokens[0].Value);
                }
                catch (FormatException e)
                {
                    argument.AddError(e.Message);
                    return default;
                }
            },
        };
        var command = new BbmrCommand("resize", "Resizes an image by bicubic interpolation, equal to MATLAB's imresize on whole numbers.",
            "bbmr resize photo.png small.png --scale 1/4") { input, output, scale, force };
        command.Run((parsed, services) =>
        {
            string from = parsed.GetRequiredValue(input), to = parsed.GetRequiredValue(output);
            PixelBuffer source = Load(from, out ImageInfo info);
            return Save(from, to, parsed.GetValue(force), Bicubic.Resize(source, parsed.GetRequiredValue(scale)), info, services.Terminal);
        });
        return command;
    }

    /// <summary>bbmr compare.</summary>
    public static Command Compare()
    {
        var reference = new Argument<string>("REFERENCE") { Description = "The original" };
        var image = new Argument<string>("IMAGE") { Description = "The image to judge, of the same size" };
        var crop = new Option<int>("--crop") { Description = "Pixels left out at each side", HelpName = "N", CustomParser = Amounts.Whole(0, 30_000, "a number of pixels") };
        var niqe = new Option<string?>("--niqe-parameters") { Description = "Also judge IMAGE by NIQE with this model (.mat of the original release, or .npz)", HelpName = "FILE" };
        var command = new BbmrCommand("compare", "Measures an image against its original: PSNR, SSIM, seams, NIQE.",
            "bbmr compare photo.png out/photo.png", "bbmr compare photo.png out/photo.png --crop 4 --json") { reference, image, crop, niqe };
        command.Run((parsed, services) =>
        {
            string first = parsed.GetRequiredValue(reference), second = parsed.GetRequiredValue(image);
            int border = parsed.GetValue(crop);
            NiqeParameters? model = parsed.GetValue(niqe) is { } file ? NiqeParameters.Read(Files.Readable(file)) : null;
            PixelBuffer a = Load(first, out _), b = Load(second, out _);
            if ((a.Width, a.Height) != (b.Width, b.Height))
                throw new UserErrorException($"{first} has {a.Width}x{a.Height} pixels and {second} has {b.Width}x{b.Height}; only images of one size can be compared.");
            if (2 * border >= Math.Min(a.Width, a.Height))
                throw new UserErrorException($"--crop {border} leaves nothing of {a.Width}x{a.Height} pixels.", ExitCodes.Usage);
            ImageQuality quality = Metrics.Compare(a, b, border);
            double? naturalness = model is null ? null : Niqe.Score(b, model, border);
            services.Terminal.Json(new { reference = first, image = second, width = a.Width, height = a.Height, crop = border, psnr_y = quality.PsnrY, psnr_rgb = quality.PsnrRgb, ssim_y = quality.SsimY, niqe = naturalness, seam = quality.Seam });
            Line("psnr_y", quality.PsnrY, "0.0000", " dB");
            Line("psnr_rgb", quality.PsnrRgb, "0.0000", " dB");
            Line("ssim_y", quality.SsimY, "0.000000", "");
            Line("niqe", naturalness, "0.0000", "");
            Line("seam", quality.Seam, "0.0000", "");
            return ExitCodes.Done;

            void Line(string name, double? value, string format, string unit) =>
                services.Terminal.Result($"{name,-9} {(value is { } v ? v.ToString(format, CultureInfo.InvariantCulture) + unit : "-")}");
        });
        return command;
    }

    internal static (Argument<string> Input, Argument<string> Output, Option<bool> Force) InputAndOutput() => (
        new Argument<string>("IN") { Description = "Image to read" },
        new Argument<string>("OUT") { Description = "Image to write; the extension chooses the format" },
        new Option<bool>("--force") { Description = "Replace an existing file" });

    internal static PixelBuffer Load(string path, out ImageInfo info)
    {
        Files.Readable(path);
        return ImageFile.Load(path, ImageLimits.Default, Path.GetTempPath(), out info);
    }

    internal static int Save(string from, string to, bool force, PixelBuffer result, ImageInfo source, Terminal terminal)
    {
        CheckOutput(to, source with { Width = result.Width, Height = result.Height });
        using var temporary = TemporaryFile.For(to, force, from);
        string[] notes = [.. source.Metadata.Notes.Concat(ImageEncoder.Encode(temporary.Path, result, source.Metadata, EncodeOptions.Default)).Distinct(StringComparer.Ordinal)];
        temporary.Commit();
        terminal.Json(new { input = from, output = to, width = result.Width, height = result.Height, notes = notes.Length > 0 ? notes : null });
        foreach (string note in notes)
            terminal.Message($"{from}: note: {note}");
        terminal.Result(string.Create(CultureInfo.InvariantCulture, $"{to}: {result.Width}x{result.Height} pixels from {source.Width}x{source.Height}"));
        return ExitCodes.Done;
    }

    private static void CheckOutput(string path, ImageInfo image)
    {
        if (ImageEncoder.WhyNot(path, image) is { } reason)
            throw new UserErrorException($"{path}: {reason}.");
    }
}

using System.Diagnostics;
using System.Globalization;
using NetVips;
using Xunit.Abstractions;

namespace BbmrCluster.Imaging.Tests;

/// <summary>Damaged JPEGs: the verdict on each, beside what libjpeg-turbo's djpeg says where that is installed.</summary>
public sealed class JpegDamageTests(ITestOutputHelper output) : IDisposable
{
    private const int PerKind = 6;

    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Random_damage_is_refused_or_told_or_leaves_the_picture_as_it_was()
    {
        List<Row> rows = [];
        foreach ((string encoder, string clean) in Encoders())
        {
            Verdict whole = Judge(clean);
            Assert.True(whole.Refused is null && (whole.Notes.Count == 0) != encoder.EndsWith("arithmetic", StringComparison.Ordinal), $"{encoder}: {whole.Refused}");
            byte[] bytes = File.ReadAllBytes(clean);
            Random random = new(20);
            int damage = 0;
            foreach ((string kind, Func<byte[], Random, byte[]> hurt) in Damages)
            {
                for (int i = 0; i < PerKind; i++)
                {
                    string path = _folder.File($"damaged{damage++}.jpg");
                    File.WriteAllBytes(path, hurt(bytes, random));
                    Verdict verdict = Judge(path);
                    double psnr = verdict.Pixels is null ? double.NaN : Psnr(whole.Pixels!, verdict.Pixels);
                    rows.Add(new Row(encoder, kind, verdict, Djpeg(path), psnr));
                    File.Delete(path);
                }
            }
        }

        Print(rows);
        Assert.True(rows.Count >= 200, $"only {rows.Count} damages");
        // What djpeg warns of in the pixels is never taken in silence.
        Assert.DoesNotContain(rows, row => row is { Verdict: { Refused: null, Notes.Count: 0 }, Djpeg.Length: > 0 });
    }

    private void Print(List<Row> rows)
    {
        output.WriteLine("| encoder | damages | refused | taken with a note | taken, same pixels | taken, other pixels | of these djpeg warns | djpeg warns or fails | refused though djpeg is silent |");
        output.WriteLine("|---|---|---|---|---|---|---|---|---|");
        foreach (IGrouping<string, Row> group in rows.GroupBy(row => row.Encoder).Append(rows.GroupBy(_ => "all").Single()))
        {
            Row[] silent = [.. group.Where(row => row.Verdict is { Refused: null, Notes.Count: 0 })];
            output.WriteLine(string.Join(" | ", "| " + group.Key, group.Count(), group.Count(row => row.Verdict.Refused is not null), group.Count(row => row.Verdict is { Refused: null, Notes.Count: > 0 }),
                silent.Count(row => row.Psnr >= 100), silent.Count(row => row.Psnr < 100), silent.Count(row => row.Psnr < 100 && row.Djpeg is { Length: > 0 }),
                group.First().Djpeg is null ? "not installed" : group.Count(row => row.Djpeg!.Length > 0),
                group.First().Djpeg is null ? "" : group.Count(row => row.Djpeg!.Length == 0 && row.Verdict.Refused is not null)) + " |");
        }
        foreach (Row row in rows.Where(row => row.Verdict.Refused is null && row.Psnr < 100))
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"taken, {row.Psnr:0.0} dB: {row.Encoder}, {row.Kind}; {string.Join("; ", row.Verdict.Notes)}; djpeg: {row.Djpeg}"));
        foreach (Row row in rows.Where(row => row.Verdict.Refused is not null && row.Djpeg == ""))
            output.WriteLine($"refused: {row.Encoder}, {row.Kind}: {row.Verdict.Refused}");
    }

    private static IEnumerable<(string Kind, Func<byte[], Random, byte[]> Hurt)> Damages =>
    [
        ("overwritten", (b, r) => Overwrite(b, r, r.Next(40, 301), (span, random) => random.NextBytes(span))),
        ("zeroed", (b, r) => Overwrite(b, r, r.Next(40, 301), (span, _) => span.Clear())),
        ("a few bytes", (b, r) => Overwrite(b, r, r.Next(1, 5), (span, random) => random.NextBytes(span))),
        ("cut out", (b, r) => { int at = r.Next(2, b.Length - 400); return [.. b[..at], .. b[(at + r.Next(1, 301))..]]; }),
        ("put in", (b, r) => { int at = r.Next(2, b.Length - 2); byte[] more = new byte[r.Next(1, 301)]; r.NextBytes(more); return [.. b[..at], .. more, .. b[at..]]; }),
        ("cut off", (b, r) => b[..r.Next(2, b.Length - 2)]),
    ];

    private static byte[] Overwrite(byte[] bytes, Random random, int count, Action<Span<byte>, Random> with)
    {
        byte[] damaged = (byte[])bytes.Clone();
        with(damaged.AsSpan(random.Next(2, bytes.Length - count), count), random);
        return damaged;
    }

    private IEnumerable<(string Name, string Path)> Encoders()
    {
        using Image image = ImageEncoder.ToImage(TestImages.Scene(400, 304, 3, 8));
        string At(string name) => _folder.File(name + ".jpg");
        image.Jpegsave(At("baseline"), q: 75);
        image.Jpegsave(At("optimised"), q: 90, optimizeCoding: true);
        image.Jpegsave(At("progressive"), q: 85, interlace: true);
        image.Jpegsave(At("restart"), q: 80, restartInterval: 20);
        image.Jpegsave(At("full"), q: 95, subsampleMode: Enums.ForeignSubsample.Off);
        foreach (string name in new[] { "baseline", "optimised", "progressive", "restart", "full" })
            yield return ("libvips " + name, At(name));
        string ppm = _folder.File("scene.ppm");
        byte[] pixels = TestImages.Scene(400, 304, 3, 8).Data;
        File.WriteAllBytes(ppm, [.. "P6\n400 304\n255\n"u8, .. pixels]);
        foreach ((string name, string[] options) in new (string, string[])[] { ("baseline", []), ("progressive", ["-progressive"]), ("restart", ["-restart", "1"]), ("grey", ["-grayscale"]), ("arithmetic", ["-arithmetic"]) })
        {
            if (Run("cjpeg", [.. options, "-quality", "85", "-outfile", At("cjpeg" + name), ppm]) == "")
                yield return ("cjpeg " + name, At("cjpeg" + name));
        }
        foreach (string name in new[] { "none", "plane" })
        {
            if (Run("mogrify", ["-format", "jpg", "-interlace", name, "-sampling-factor", "4:2:2", "-quality", "88", "-path", _folder.Path, ppm]) == "")
                yield return ($"ImageMagick {name}", At("scene"));
        }
    }

    private Verdict Judge(string path)
    {
        try
        {
            using StripReader reader = StripReader.Open(path, ImageLimits.Default, 4096, _folder.Path);
            return new Verdict(null, reader.Info.Metadata.Notes, reader.ReadNext());
        }
        catch (ImageRefusedException e)
        {
            return new Verdict(e.Reason, [], null);
        }
    }

    private static double Psnr(PixelBuffer a, PixelBuffer b)
    {
        if ((a.Width, a.Height, a.Channels) != (b.Width, b.Height, b.Channels))
            return 0;
        double sum = 0;
        for (int i = 0; i < a.Data.Length; i++)
            sum += (a.Data[i] - b.Data[i]) * (double)(a.Data[i] - b.Data[i]);
        return sum == 0 ? 100 : Math.Min(99.9, 10 * Math.Log10(255.0 * 255 * a.Data.Length / sum));
    }

    // What it says; "" for nothing, null where it is not installed.
    private static string? Djpeg(string path) => Run("djpeg", ["-outfile", "/dev/null", path]);

    private static string? Run(string program, string[] arguments)
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true, RedirectStandardOutput = true, UseShellExecute = false })!;
            string said = process.StandardError.ReadToEnd().Trim();
            process.WaitForExit();
            return process.ExitCode == 0 || said.Length > 0 ? said : $"exit code {process.ExitCode}";
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }

    private sealed record Verdict(string? Refused, IReadOnlyList<string> Notes, PixelBuffer? Pixels);

    private sealed record Row(string Encoder, string Kind, Verdict Verdict, string? Djpeg, double Psnr);
}

using System.Globalization;
using BbmrCluster.Cli.CommandLine;

namespace BbmrCluster.Cli.Output;

/// <summary>Collects what became of the images of a run and ends it with a summary.</summary>
internal sealed class RunSummary
{
    private readonly List<ImageLine> _lines = [];

    /// <summary>Images of one state.</summary>
    public int Count(string state) => _lines.Count(line => line.State == state);

    /// <summary>Images so far.</summary>
    public int Total => _lines.Count;

    /// <summary>Pictures in folders that were not taken.</summary>
    public int PassedOver { get; set; }

    /// <summary>Adds an image.</summary>
    public void Add(ImageLine line) => _lines.Add(line);

    /// <summary>0, 1 or 3 by what was done and what failed.</summary>
    public int ExitCode => ExitCodes.Of(Count("done") + Count("skipped"), Count("failed"));

    /// <summary>Writes the summary: failures with reasons first, on stderr; the figures last.</summary>
    public void Write(Terminal terminal, TimeSpan elapsed)
    {
        ImageLine[] failed = [.. _lines.Where(line => line.State == "failed")];
        double[] gains = [.. _lines.Where(line => line.GainDb is not null).Select(line => line.GainDb!.Value).Order()];
        double? median = gains.Length == 0 ? null : gains.Length % 2 == 1 ? gains[gains.Length / 2] : (gains[(gains.Length / 2) - 1] + gains[gains.Length / 2]) / 2;
        ImageLine? worst = _lines.Where(line => line.GainDb is not null).MinBy(line => line.GainDb);
        long? bytesIn = Sum(line => line.SourceBytes), bytesStored = Sum(line => line.ContainerBytes);
        terminal.Json(new
        {
            summary = true, done = Count("done"), skipped = Count("skipped"), failed = failed.Length, interrupted = Count("interrupted"), passed_over = PassedOver,
            failures = failed.Select(line => new { file = line.Input, code = line.Code, error = line.Error }),
            median_gain_db = median, worst_gain_db = worst?.GainDb, worst_gain_file = worst?.Input,
            bytes_in = bytesIn, bytes_stored = bytesStored, seconds = elapsed.TotalSeconds,
        });

        if (failed.Length > 0 && _lines.Count > 1)
        {
            terminal.Message($"{failed.Length} failed:");
            foreach (ImageLine line in failed)
                terminal.Message($"  {line.Input}: {line.Error}");
        }
        var parts = new List<string> { $"{Count("done")} done", $"{Count("skipped")} skipped", $"{failed.Length} failed" };
        if (Count("interrupted") > 0)
            parts.Add($"{Count("interrupted")} not finished");
        if (median is not null)
            parts.Add(string.Create(CultureInfo.InvariantCulture, $"gain {median:+0.00;-0.00} dB median, {worst!.GainDb:+0.00;-0.00} dB worst ({worst.Input})"));
        if (bytesIn is { } read && bytesStored is { } stored)
            parts.Add($"{Amounts.Text(read)} in, {Amounts.Text(stored)} stored");
        terminal.Message($"{string.Join(", ", parts)}, {Amounts.Text(elapsed)}");

        long? Sum(Func<ImageLine, long?> of) => _lines.Any(line => of(line) is not null) ? _lines.Sum(line => of(line) ?? 0) : null;
    }
}

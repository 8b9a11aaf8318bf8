using BbmrCluster.Networks.Catalog;
using ScottPlot;

namespace BbmrCluster.Training;

/// <summary>A picture of a training's log.</summary>
public static class LearningCurve
{
    /// <summary>Reads a log; damaged lines are left out.</summary>
    /// <param name="path">NAME.log.jsonl; need not exist.</param>
    public static IReadOnlyList<TrainingProgress> Read(string path)
    {
        if (!File.Exists(path))
            return [];
        using var file = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        var lines = new List<TrainingProgress>();
        while (file.ReadLine() is { } line)
        {
            if (Trainer.Parse(line) is { } progress)
                lines.Add(progress);
        }
        return lines;
    }

    /// <summary>The validation figure that decides (on photographs if there are any), over the steps; null without validation.</summary>
    /// <param name="log">In order of the steps.</param>
    public static ValidationCurve? Summary(IReadOnlyList<TrainingProgress> log)
    {
        TrainingProgress[] points = [.. log.Where(line => line.Scores is not null)];
        string? measure = points.LastOrDefault()?.Scores!.Keys
            .Where(name => name.EndsWith("_psnr_y", StringComparison.Ordinal) && !name.Contains("_warm_", StringComparison.Ordinal) && !name.Contains("_bicubic_", StringComparison.Ordinal))
            .OrderByDescending(name => name.StartsWith(ValidationSet.Photographs, StringComparison.Ordinal)).FirstOrDefault();
        if (measure is null)
            return null;
        points = [.. points.Where(line => line.Scores!.ContainsKey(measure))];
        return new ValidationCurve(measure, [.. points.Select(line => line.Step)], [.. points.Select(line => Math.Round(line.Scores![measure], 3))]);
    }

    /// <summary>Draws the loss (left axis) and the validation figures in dB (right axis) over the steps; PNG, 960 x 540.</summary>
    /// <param name="log">In order of the steps.</param>
    /// <param name="title">Above the picture.</param>
    /// <param name="path">Replaced if it exists.</param>
    public static void Draw(IReadOnlyList<TrainingProgress> log, string title, string path)
    {
        using var plot = new Plot();
        plot.Title(title);
        plot.XLabel("step");
        plot.YLabel("loss");
        if (log.Count > 0)
        {
            ScottPlot.Plottables.Scatter loss = plot.Add.ScatterLine(log.Select(line => (double)line.Step).ToArray(), log.Select(line => line.Loss).ToArray());
            (loss.LegendText, loss.Color) = ("loss", Colors.Gray);
            plot.Axes.Right.Label.Text = "PSNR of Y, dB";
            foreach (string name in log.SelectMany(line => line.Scores?.Keys ?? []).Where(name => name.EndsWith("_psnr_y", StringComparison.Ordinal)).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal))
            {
                TrainingProgress[] points = [.. log.Where(line => line.Scores?.ContainsKey(name) == true)];
                ScottPlot.Plottables.Scatter scores = plot.Add.Scatter(points.Select(line => (double)line.Step).ToArray(), points.Select(line => line.Scores![name]).ToArray());
                (scores.LegendText, scores.Axes.YAxis) = (name, plot.Axes.Right);
            }
            plot.ShowLegend(Alignment.MiddleRight);
        }
        string temporary = path + ".tmp.png";
        plot.SavePng(temporary, 960, 540);
        File.Move(temporary, path, overwrite: true);
    }
}

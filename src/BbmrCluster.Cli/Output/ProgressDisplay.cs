using System.Diagnostics;
using System.Globalization;
using BbmrCluster.Cli.CommandLine;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace BbmrCluster.Cli.Output;

/// <summary>How far a run is.</summary>
/// <param name="Images">Images in all.</param>
/// <param name="Settled">Images done, skipped or failed.</param>
/// <param name="Fraction">Of all work, 0 to 1.</param>
/// <param name="Activity">What is going on, e.g. "sky.jpg: score 45 %".</param>
/// <param name="Remaining">Time left; null while it cannot be told.</param>
internal sealed record RunProgress(int Images, int Settled, double Fraction, string Activity, TimeSpan? Remaining);

/// <summary>Shows how far a run is on stderr: a live bar on a terminal, else now and then a plain line.</summary>
internal abstract class ProgressDisplay : IAsyncDisposable
{
    /// <summary>Chooses by where stderr leads.</summary>
    public static ProgressDisplay For(Terminal terminal) =>
        !terminal.ShowsProgress ? new NoProgress() : terminal.IsInteractive ? new BarProgress(terminal) : new LineProgress(terminal);

    /// <summary>Takes the newest state; cheap, may be called often.</summary>
    public abstract void Show(RunProgress progress);

    /// <summary>Ends the display.</summary>
    public abstract ValueTask DisposeAsync();

    /// <summary>"12 of 340".</summary>
    protected static string CountOf(RunProgress p) => string.Create(CultureInfo.InvariantCulture, $"{p.Settled} of {p.Images}");
}

/// <summary>-q.</summary>
internal sealed class NoProgress : ProgressDisplay
{
    public override void Show(RunProgress progress)
    {
    }

    public override ValueTask DisposeAsync() => ValueTask.CompletedTask;
}

/// <summary>
/// Lines for logs: no control codes. The first after two seconds, then one each ten seconds, each minute after ten
/// minutes, so that a night's log stays readable.
/// </summary>
internal sealed class LineProgress(Terminal terminal) : ProgressDisplay
{
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private TimeSpan _next = TimeSpan.FromSeconds(2);

    public override void Show(RunProgress progress)
    {
        if (_clock.Elapsed < _next)
            return;
        _next = _clock.Elapsed + (_clock.Elapsed.TotalMinutes < 10 ? TimeSpan.FromSeconds(10) : TimeSpan.FromMinutes(1));
        string left = progress.Remaining is { } remaining ? $", about {Amounts.Text(remaining)} left" : "";
        terminal.Message(string.Create(CultureInfo.InvariantCulture, $"{100 * progress.Fraction:0} %, {CountOf(progress)} images settled, {progress.Activity}{left}"));
    }

    public override ValueTask DisposeAsync() => ValueTask.CompletedTask;
}

/// <summary>A bar with percentage and time left, redrawn in place.</summary>
internal sealed class BarProgress : ProgressDisplay
{
    private readonly Terminal _terminal;
    private readonly IAnsiConsole _console;
    private readonly TaskCompletionSource _end = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task _loop;
    private volatile RunProgress _newest = new(0, 0, 0, "starting", null);

    public BarProgress(Terminal terminal)
    {
        _terminal = terminal;
        _console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Out = new AnsiConsoleOutput(Console.Error),
            Interactive = InteractionSupport.Yes,
            ColorSystem = Terminal.AllowsColour ? ColorSystemSupport.Detect : ColorSystemSupport.NoColors,
        });
        // Lines written meanwhile go above the bar. Results may go to a file: those do not pass the console.
        _terminal.AroundMessage = (writer, text) =>
        {
            if (ReferenceEquals(writer, Console.Error) || !Console.IsOutputRedirected)
                _console.Write(new Text(text + Environment.NewLine));
            else
                writer.WriteLine(text);
        };
        _loop = _console.Progress().AutoClear(true).HideCompleted(false)
            .Columns(new ProgressBarColumn { Width = 30 }, new PercentageColumn(), new ActivityColumn(this))
            .StartAsync(async context =>
            {
                ProgressTask task = context.AddTask("run", maxValue: 1);
                while (!_end.Task.IsCompleted)
                {
                    task.Value = Math.Min(_newest.Fraction, 0.9999);
                    context.Refresh();
                    await Task.WhenAny(_end.Task, Task.Delay(250));
                }
            });
    }

    public override void Show(RunProgress progress) => _newest = progress;

    public override async ValueTask DisposeAsync()
    {
        _end.TrySetResult();
        await _loop;
        _terminal.AroundMessage = null;
    }

    private sealed class ActivityColumn(BarProgress owner) : ProgressColumn
    {
        protected override bool NoWrap => true;

        public override IRenderable Render(RenderOptions options, ProgressTask task, TimeSpan deltaTime)
        {
            RunProgress p = owner._newest;
            string left = p.Remaining is { } remaining ? $"{Amounts.Text(remaining)} left" : "--";
            return new Text(Terminal.Printable($"{left}  {CountOf(p)}  {p.Activity}")) { Overflow = Overflow.Ellipsis };
        }
    }
}

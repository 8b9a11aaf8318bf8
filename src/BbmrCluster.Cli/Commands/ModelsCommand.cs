using System.CommandLine;
using System.Globalization;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Cli.Commands;

/// <summary>bbmr models: which networks are here, whether their files are whole, and how closely they meet reference files.</summary>
internal static class ModelsCommand
{
    /// <summary>Creates the command and its subcommands.</summary>
    public static Command Create()
    {
        var list = new BbmrCommand("list", "Lists the networks, with their scores and training.", "bbmr models list", "bbmr models list --json");
        list.Run((_, services) =>
        {
            var catalog = new ModelCatalog();
            IReadOnlyList<ModelEntry> entries = catalog.List();
            foreach (ModelEntry entry in entries)
                Show(entry, catalog, services.Terminal, absent: false);
            // A line for each file that could be there would hide those that are.
            foreach (IGrouping<string, ModelEntry> absent in entries.Where(entry => entry.State == ModelState.WithoutWeights).GroupBy(entry => entry.Model, StringComparer.Ordinal))
                services.Terminal.Result(string.Create(CultureInfo.InvariantCulture, $"{absent.Key,-26} {string.Join('/', absent.SelectMany(ScalesOf).Select(scale => $"x{scale}")),-8}  no weights"));
            services.Terminal.Message($"looked for in {string.Join(", then ", catalog.Folders)}");
            return ExitCodes.Done;
        });

        var verify = new BbmrCommand("verify", "Reads every weight file and holds it to the hash of its card.", "bbmr models verify");
        verify.Run((_, services) =>
        {
            var catalog = new ModelCatalog();
            ModelEntry[] here = [.. catalog.Verify().Where(entry => entry.State != ModelState.WithoutWeights)];
            foreach (ModelEntry entry in here)
                Show(entry, catalog, services.Terminal, absent: true);
            if (here.Length == 0)
                throw new UserErrorException($"{string.Join(", ", catalog.Folders)}: there are no weights here.");
            return ExitCodes.Of(here.Count(entry => entry.State != ModelState.Damaged), here.Count(entry => entry.State == ModelState.Damaged));
        });

        var added = new Argument<string>("FILE") { Description = "Weights as safetensors or as PyTorch checkpoint (.pth, .pt), under the names of the official implementation" };
        var name = new Option<string>("--name") { Description = "Name of the network for --network", HelpName = "NAME", Required = true };
        var licence = new Option<string?>("--licence") { Description = "Under what terms the weights may be used, for the card", HelpName = "TEXT" };
        var downscaler = new Option<string>("--downscaler") { Description = "What made the LR images it was trained on", HelpName = "bicubic|downnet", DefaultValueFactory = _ => "bicubic" };
        downscaler.AcceptOnlyFromAmong("bicubic", "downnet");
        var range = new Option<ValueRange?>("--range")
        {
            Description = "Values that the network takes for black and white, e.g. 0..1, -1..1, 0..255 (default: what a trial shows)", HelpName = "BLACK..WHITE",
            CustomParser = argument =>
            {
                try
                {
                    return ValueRange.Parse(argument.Tokens[0].Value);
                }
                catch (FormatException problem)
                {
                    argument.AddError(problem.Message);
                    return null;
                }
            },
        };
        var force = new Option<bool>("--force") { Description = "Replace weights of that name and scale" };
        var add = new BbmrCommand("add", "Takes a weight file into your own folder of models: architecture, width, depth and scale are read off its tensors.",
            "bbmr models add craft_x4.pth --name craft --licence MIT", "bbmr models add omnisr_x4.safetensors --name omnisr --licence Apache-2.0 --range -1..1") { added, name, licence, downscaler, range, force };
        add.Run((parsed, services) =>
        {
            var catalog = new ModelCatalog();
            ModelEntry entry = ModelImport.Add(catalog, Files.Readable(parsed.GetRequiredValue(added)), parsed.GetRequiredValue(name), parsed.GetValue(downscaler)!, parsed.GetValue(licence), parsed.GetValue(force), parsed.GetValue(range));
            Show(entry, catalog, services.Terminal, absent: false);
            services.Terminal.Message($"{entry.Path}: {entry.Card!.Description}");
            return ExitCodes.Done;
        });

        var files = new Argument<string[]>("FILE") { Description = "Reference files (safetensors with weights, input and output)", Arity = ArgumentArity.OneOrMore };
        var parity = new BbmrCommand("parity", "Runs reference files in float32 and prints how far the network is from them.", "bbmr models parity fixtures/networks/omnisr_x4.safetensors") { files };
        parity.Run((parsed, services) => Parity(parsed.GetRequiredValue(files), services.Terminal));

        return new BbmrCommand("models", "Lists, verifies, adds and compares network weights.", "bbmr models list", "bbmr models verify") { list, verify, add, parity };
    }

    /// <summary>One line for the doctor.</summary>
    /// <exception cref="UserErrorException">Weights of the default network are missing or damaged.</exception>
    public static string Summary()
    {
        var catalog = new ModelCatalog();
        IReadOnlyList<ModelEntry> entries = catalog.Verify();
        if (entries.FirstOrDefault(entry => entry.State == ModelState.Damaged) is { } damaged)
            throw new UserErrorException(damaged.Problem ?? $"{damaged.Path} is damaged");
        ModelEntry[] ready = [.. entries.Where(entry => entry.State is ModelState.Ready or ModelState.WithoutCard)];
        string folders = string.Join(" or ", catalog.Folders);
        return ready.Length == 0
            ? throw new UserErrorException($"there are no weights in {folders}")
            : $"{string.Join(", ", ready.GroupBy(entry => entry.Model, StringComparer.Ordinal).Select(group => $"{group.Key} x{string.Join("/", group.SelectMany(ScalesOf))}"))} in {string.Join(" and ", ready.Select(entry => Path.GetDirectoryName(entry.Path)).Distinct(StringComparer.Ordinal))}";
    }

    private static IReadOnlyList<int> ScalesOf(ModelEntry entry) => entry.Scale is { } scale ? [scale] : entry.Card?.Scales ?? ModelCatalog.Scales;

    private static void Show(ModelEntry entry, ModelCatalog catalog, Terminal terminal, bool absent)
    {
        // What is here says itself what it is; what is not would be as this project trains it.
        NetworkShape? shape = entry.State switch
        {
            ModelState.WithoutWeights => ModelCatalog.StandardShape(entry.Model, entry.Scale),
            ModelState.Damaged => null,
            _ => TryLoad(ref entry, catalog),
        };
        string state = entry.State switch { ModelState.Ready => "ready", ModelState.WithoutCard => "without card", ModelState.WithoutWeights => "no weights", _ => "damaged" };
        ModelCard? card = entry.Card;
        NetworkCost? cost = shape?.BlockCost();
        terminal.Json(new
        {
            network = entry.Model, kind = entry.Kind.ToString().ToLowerInvariant(), scale = entry.Scale, scales = shape?.Scales ?? ScalesOf(entry), state = state.Replace(' ', '_'), path = entry.Path, problem = entry.Problem,
            architecture = shape?.Architecture ?? card?.Architecture, description = shape?.Description ?? card?.Description,
            parameters = cost?.Parameters ?? card?.Parameters, gmac_per_block = cost is { } known ? Math.Round(known.Gmac, 4) : (double?)null, sha256 = card?.Sha256, downscaler = card?.Downscaler ?? (ModelNames.IsOfDownNet(entry.Model) ? "downnet" : "bicubic"),
            data = card?.Data, steps = card?.Steps, seconds = card?.Seconds, scores = card?.Scores, licence = card?.Licence,
        });
        if (entry.State == ModelState.WithoutWeights && !absent)
            return;
        string scores = card is null ? "" : string.Concat(card.Scores.Select(score => string.Create(CultureInfo.InvariantCulture, $", {score.Key} {score.Value:0.00}")));
        string about = entry.State == ModelState.Damaged ? entry.Problem! : string.Create(CultureInfo.InvariantCulture, $"{cost?.Gmac:0.000} GMAC, {cost?.Parameters:N0} values{(card is { Steps: > 0 } ? $", {card.Steps:N0} steps" : "")}{scores}");
        terminal.Result(string.Create(CultureInfo.InvariantCulture, $"{entry.Model,-26} {string.Join('/', (shape?.Scales ?? ScalesOf(entry)).Select(scale => $"x{scale}")),-8}  {state,-12}  {about}").TrimEnd());
    }

    private static NetworkShape? TryLoad(ref ModelEntry entry, ModelCatalog catalog)
    {
        try
        {
            return catalog.Load(entry.Model, entry.Scale).Shape;
        }
        catch (EngineUnavailableException problem)
        {
            entry = entry with { State = ModelState.Damaged, Problem = problem.Message };
            return null;
        }
    }

    private static int Parity(string[] files, Terminal terminal)
    {
        NativeRuntime.Apply();
        int failed = 0;
        foreach (string file in files)
        {
            try
            {
                ParityResult result = FixtureParity.Run(Files.Readable(file));
                terminal.Json(new { file, error = (string?)null, architecture = result.Architecture, scale = result.Scale, max_abs_error = result.MaxAbsError, max_rel_error = result.MaxRelError, loss_rel_error = result.LossRelError, grad_norm_rel_error = result.GradNormRelError });
                string gradient = result.LossRelError is { } loss && result.GradNormRelError is { } norm
                    ? string.Create(CultureInfo.InvariantCulture, $", loss_rel_error {loss:0.0e+0}, grad_norm_rel_error {norm:0.0e+0}")
                    : "";
                terminal.Result(string.Create(CultureInfo.InvariantCulture, $"{file}: {result.Architecture} x{result.Scale}, max_abs_error {result.MaxAbsError:0.0e+0}, max_rel_error {result.MaxRelError:0.0e+0}{gradient}"));
            }
            catch (Exception e) when (Failure.Of(e) is { Unexpected: false } failure)
            {
                failed++;
                terminal.Json(new { file, error = failure.Message });
                terminal.Problem(failure.Message);
            }
        }
        return ExitCodes.Of(files.Length - failed, failed);
    }
}

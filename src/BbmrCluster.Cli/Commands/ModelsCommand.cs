using System.CommandLine;
using System.Globalization;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Cli.Output;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;

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
            foreach (ModelEntry entry in new ModelCatalog().List())
                Show(entry, services.Terminal);
            return ExitCodes.Done;
        });

        var verify = new BbmrCommand("verify", "Reads every weight file and holds it to the hash of its card.", "bbmr models verify");
        verify.Run((_, services) =>
        {
            ModelEntry[] here = [.. new ModelCatalog().Verify().Where(entry => entry.State != ModelState.WithoutWeights)];
            foreach (ModelEntry entry in here)
                Show(entry, services.Terminal);
            if (here.Length == 0)
                throw new UserErrorException($"{new ModelCatalog().Folder}: there are no weights here.");
            return ExitCodes.Of(here.Count(entry => entry.State != ModelState.Damaged), here.Count(entry => entry.State == ModelState.Damaged));
        });

        var files = new Argument<string[]>("FILE") { Description = "Reference files (safetensors with weights, input and output)", Arity = ArgumentArity.OneOrMore };
        var parity = new BbmrCommand("parity", "Runs reference files in float32 and prints how far the network is from them.", "bbmr models parity fixtures/networks/omnisr_x4.safetensors") { files };
        parity.Run((parsed, services) => Parity(parsed.GetRequiredValue(files), services.Terminal));

        return new BbmrCommand("models", "Lists, verifies and compares network weights.", "bbmr models list", "bbmr models verify") { list, verify, parity };
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
        return ready.Length == 0
            ? throw new UserErrorException($"there are no weights in {catalog.Folder}")
            : $"{string.Join(", ", ready.GroupBy(entry => entry.Model, StringComparer.Ordinal).Select(group => $"{group.Key} x{string.Join("/", group.Select(entry => entry.Scale))}"))} in {catalog.Folder}";
    }

    private static void Show(ModelEntry entry, Terminal terminal)
    {
        string state = entry.State switch { ModelState.Ready => "ready", ModelState.WithoutCard => "without card", ModelState.WithoutWeights => "no weights", _ => "damaged" };
        ModelCard? card = entry.Card;
        NetworkCost cost = ModelCatalog.StandardShape(entry.Model, entry.Scale).BlockCost();
        terminal.Json(new
        {
            network = entry.Model, scale = entry.Scale, state = state.Replace(' ', '_'), path = entry.Path, problem = entry.Problem, architecture = card?.Architecture,
            parameters = card?.Parameters ?? cost.Parameters, gmac_per_block = Math.Round(cost.Gmac, 4), sha256 = card?.Sha256, downscaler = card?.Downscaler, data = card?.Data, steps = card?.Steps, seconds = card?.Seconds, scores = card?.Scores, licence = card?.Licence,
        });
        string about = card is null ? entry.Problem ?? "" : string.Create(CultureInfo.InvariantCulture,
            $"{card.Parameters:N0} values, {card.Steps:N0} steps{string.Concat(card.Scores.Select(score => string.Create(CultureInfo.InvariantCulture, $", {score.Key} {score.Value:0.00}")))}");
        if (entry.State == ModelState.Damaged)
            about = entry.Problem!;
        // JSON has the reason; for people the state says enough.
        if (entry.State == ModelState.WithoutWeights)
            about = "";
        terminal.Result(string.Create(CultureInfo.InvariantCulture, $"{entry.Model,-26} {(entry.Scale is { } scale ? "x" + scale : ""),-2}  {cost.Gmac,6:0.000} GMAC  {state,-12}  {about}").TrimEnd());
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

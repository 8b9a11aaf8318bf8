using System.CommandLine;
using System.Globalization;
using BbmrCluster.Cli.CommandLine;
using BbmrCluster.Networks;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Training;

namespace BbmrCluster.Cli.Commands;

/// <summary>bbmr train: follows a recipe and reports as it goes.</summary>
internal static class TrainCommand
{
    /// <summary>Creates the command.</summary>
    public static Command Create()
    {
        var recipeFile = new Argument<string>("RECIPE") { Description = "Training recipe (JSON)" };
        var photos = new Option<string>("--photos") { Description = "Folder of photographs to train on; with photos.tsv its split val is validated on", HelpName = "DIR", Required = true };
        var validation = new Option<string?>("--validation") { Description = "Folder of PNG images to validate on as well, e.g. Set5", HelpName = "DIR" };
        var output = new Option<string>("--output", "-o") { Description = "Folder for weights, checkpoint and log", HelpName = "DIR", DefaultValueFactory = _ => "training" };
        var publish = new Option<string?>("--publish") { Description = "When done, write the best weights with their card into this folder of models", HelpName = "DIR" };
        var data = new Option<string?>("--data") { Description = "What the card says of the photographs", HelpName = "TEXT" };
        var licence = new Option<string>("--licence") { Description = "What the card says of the terms of use", HelpName = "TEXT", DefaultValueFactory = _ => "Trained by BbmrCluster; mind the terms of the photographs. No photograph is part of the file." };
        var resume = new Option<bool>("--resume") { Description = "Go on from the checkpoint in the output folder" };
        var force = new Option<bool>("--force") { Description = "Begin anew where the output folder holds a checkpoint; without it and --resume that is refused" };
        var command = new BbmrCommand("train", "Trains a network by a recipe. Ctrl-C writes a checkpoint; --resume goes on from the last one, also after a kill.",
            "bbmr train recipe.json --photos photographs --validation set5 -o training", "bbmr train recipe.json --photos photographs -o training --resume --publish models") { recipeFile, photos, validation, output, resume, force, publish, data, licence };
        command.RunAsync(async (parsed, services) =>
        {
            NativeRuntime.Apply();
            TrainingRecipe recipe = TrainingRecipe.Load(Files.Readable(parsed.GetRequiredValue(recipeFile)));
            var paths = new TrainingPaths(parsed.GetRequiredValue(photos), parsed.GetValue(validation), parsed.GetValue(output)!);
            foreach (string folder in new[] { paths.Photos, paths.Validation }.OfType<string>())
            {
                if (!Directory.Exists(folder))
                    throw new UserErrorException($"{folder}: there is no such folder.");
            }
            string checkpoint = Trainer.CheckpointOf(recipe, paths.Output);
            if (File.Exists(checkpoint) && !parsed.GetValue(resume) && !parsed.GetValue(force))
                throw new UserErrorException($"{checkpoint}: this checkpoint of an earlier training would be lost; go on from it with --resume, or begin anew with --force.");
            CancellationToken stop = services.Interruption.Graceful();
            try
            {
                TrainingProgress last = await Task.Run(() => Trainer.Run(recipe, paths, parsed.GetValue(resume), progress =>
                {
                    services.Terminal.Json(new { step = progress.Step, steps = recipe.Steps, seconds = progress.Seconds, learning_rate = progress.Rate, loss = progress.Loss, seconds_left = progress.SecondsLeft, scores = progress.Scores });
                    services.Terminal.Result(Text(progress, recipe.Steps));
                }, stop), CancellationToken.None);
                services.Terminal.Message($"{Path.Combine(paths.Output, recipe.Name + ".safetensors")}: done after {Amounts.Text(TimeSpan.FromSeconds(last.Seconds))}");
                if (parsed.GetValue(publish) is { } models)
                {
                    foreach (ModelCard card in await Task.Run(() => ModelPublisher.Publish(recipe, paths, new Publication(parsed.GetValue(data), parsed.GetValue(licence)!), models), CancellationToken.None))
                        services.Terminal.Message($"{Path.Combine(models, ModelNames.FileName(card.Network, card.Scale))}: written with its card");
                }
                return ExitCodes.Done;
            }
            catch (OperationCanceledException) when (services.Interruption.ExitCode is int code)
            {
                services.Terminal.Message("stopped; run the same command with --resume to go on");
                return code;
            }
        });
        return command;
    }

    private static string Text(TrainingProgress progress, int steps)
    {
        string scores = progress.Scores is { } figures ? string.Concat(figures.Select(figure => string.Create(CultureInfo.InvariantCulture, $", {figure.Key} {figure.Value:0.000}"))) : "";
        return string.Create(CultureInfo.InvariantCulture, $"step {progress.Step} of {steps}, loss {progress.Loss:0.00000}, rate {progress.Rate:0.0e+0}{scores}, {Amounts.Text(TimeSpan.FromSeconds(progress.Seconds))}, about {Amounts.Text(TimeSpan.FromSeconds(progress.SecondsLeft))} left");
    }
}

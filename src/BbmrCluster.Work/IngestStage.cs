using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Work;

/// <summary>
/// Looks whether the image is done already, reads the header and brings the pixels (or the container's strips) into the
/// blob store. Codecs have no random access, so a lease that is run again decodes from the top; strips that exist are
/// not written again.
/// </summary>
internal static class IngestStage
{
    public static void RunImage(StageContext context)
    {
        ImageJob job = context.Job;
        if (Begin(context) is not { } source)
            return;
        // A JPEG is judged as a whole before anything else happens; pixels are decoded strip by strip below.
        using StripReader reader = context.Busy(() => StripReader.Open(job.Source, job.Parameters.Limits, BlockGrid.TileSize, context.Scratch));
        ImageInfo info = reader.Info;
        if (job.Parameters.Kind == JobKind.Rescale && ImageEncoder.WhyNot(job.Outputs.Image!, info) is { } reason)
            throw Permanent(job, reason, "refused");
        ImageFacts facts = Facts(context, source, info, out bool isNew);

        // What was made of another file under the same name is void.
        var known = isNew ? [] : context.Work.Strips.Where(strip => strip.Raw is not null).ToDictionary(strip => strip.Strip);
        if (known.Count < facts.Grid.Strips)
        {
            if (reader.Info.Width != facts.Width || reader.Info.Height != facts.Height || reader.Info.BitDepth != facts.BitDepth)
                throw Changed(job);
            // A file that its codec cannot stream is decoded as a whole with the first strip.
            for (int strip = 0; context.Busy(reader.ReadNext) is { } raw; strip++)
            {
                context.Cancellation.ThrowIfCancellationRequested();
                context.Report(known.ContainsKey(strip) ? new Working() : new StripIngested(new StripBlobs(strip, Raw: context.Write("raw", strip, raw.Data))));
            }
        }
        RequireUnchanged(job, source);
    }

    public static void RunContainer(StageContext context)
    {
        ImageJob job = context.Job;
        if (Begin(context) is not { } source)
            return;
        using ContainerReader reader = ContainerReader.Open(job.Source, job.Parameters.Limits);
        ContainerHeader header = reader.Header;
        RequireSameNetwork(job, header);
        var info = new ImageInfo(header.Width, header.Height, header.ColourChannels, header.Alpha != AlphaKind.None, header.BitDepth, header.Source.Format, header.Metadata);
        if (ImageEncoder.WhyNot(job.Outputs.Image!, info) is { } reason)
            throw Permanent(job, reason, "refused");
        Facts(context, source, info, out bool isNew);
        context.Report(new ScalesRead(reader.ScaleIndex));
        var known = isNew ? [] : context.Work.Strips.Where(strip => strip.Packed is not null).ToDictionary(strip => strip.Strip);
        for (int strip = 0; strip < reader.StripCount; strip++)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            if (!known.ContainsKey(strip))
                context.Report(new StripIngested(new StripBlobs(strip, Packed: context.Write("packed", strip, reader.ReadStrip(strip)))));
        }
        RequireUnchanged(job, source);
    }

    // Null when there is nothing to do.
    private static FileInfo? Begin(StageContext context)
    {
        ImageJob job = context.Job;
        var source = new FileInfo(job.Source);
        if (!source.Exists)
            throw Permanent(job, job.Source.Contains('\uFFFD', StringComparison.Ordinal) ? "the file cannot be opened: its name is not UTF-8" : "the file is not there", "not_found");
        if (ExistingOutputs.Check(job, context.Cancellation) is { } done)
        {
            context.Report(new AlreadyDone(done));
            return null;
        }
        return source;
    }

    // Journaled facts stay as they are as long as the file is the one they describe.
    private static ImageFacts Facts(StageContext context, FileInfo source, ImageInfo info, out bool isNew)
    {
        ImageJob job = context.Job;
        ImageFacts? known = context.Work.Facts;
        isNew = known is null || !known.IsOf(source, context.Cancellation);
        ImageFacts facts = isNew
            ? new ImageFacts(info.Width, info.Height, info.ColourChannels, info.HasAlpha, info.BitDepth, info.Format, source.Length, source.LastWriteTimeUtc,
                context.Busy(() => FileSystem.Sha256(job.Source, context.Cancellation)), null)
            {
                Context = job.Parameters.Engine.Context,
                BlockSize = job.Parameters.Engine.BlockSize,
            }
            : known!;
        if (isNew)
        {
            RequireRoom(context, facts);
            PrepareFolders(job, context.Work.Attempt);
        }
        // Reported again for known facts too: the metadata blob may be what was lost.
        facts = facts with
        {
            Metadata = info.Metadata == ImageMetadata.None ? null : context.Blobs.Write(job.Id, "metadata", context.Work.Attempt, MetadataCodec.Encode(info.Metadata)),
        };
        context.Report(new ImageProbed(facts));
        return facts;
    }

    private static void RequireRoom(StageContext context, ImageFacts facts)
    {
        long needed = WorkSpace.Estimate(context.Job, facts);
        StoreRoom room = context.Blobs.Room;
        long most = room.Most ?? room.Quota;
        if (needed > most)
            throw Permanent(context.Job, $"it needs {FileSystem.Size(needed)} of work space and the limit is {FileSystem.Size(most)} (--max-work)", "work_space");
        if (room.Lacks(needed) is { } reason)
            throw new StageFailedException(FailureClass.StoreFull, reason) { Code = "full" };
    }

    private static void PrepareFolders(ImageJob job, int attempt)
    {
        try
        {
            foreach (string file in OutputNaming.FilesOf(job.Outputs, job.Parameters.Kind))
                Directory.CreateDirectory(Path.GetDirectoryName(file)!);
            // Better to know now than after the work that nothing can be written there.
            string probe = CommitStage.TemporaryPath(job, CommitStage.NewMark(attempt), job.Outputs.Report);
            File.WriteAllBytes(probe, []);
            CommitStage.Sweep(job);
        }
        catch (Exception error) when ((error is IOException or UnauthorizedAccessException) && !FileSystem.IsFull(error))
        {
            throw new StageFailedException(FailureClass.Permanent, $"{job.DisplayName}: the output folder cannot be written: {error.Message}", inner: error) { Code = "output" };
        }
    }

    private static void RequireSameNetwork(ImageJob job, ContainerHeader header)
    {
        if (header.Context == BlockContext.None && header.BlockSize != BlockGrid.DefaultBlockSize)
            throw Permanent(job, $"it has blocks of {header.BlockSize} pixels by themselves and this program reconstructs such blocks of {BlockGrid.DefaultBlockSize}", "refused");
        if ((header.Context, header.BlockSize, header.Halo) != (job.Parameters.Engine.Context, job.Parameters.Engine.BlockSize, job.Parameters.Engine.Halo))
            throw Permanent(job, $"it has blocks of {header.BlockSize} pixels with context {BlockContexts.NameOf(header.Context)} and the job another kind", "refused");
        if (!header.Scales.Equals(job.Parameters.Engine.Scales))
            throw Permanent(job, $"it was made with the scales {header.Scales}, not {job.Parameters.Engine.Scales}", "refused");
        if (job.Parameters.AllowOtherWeights)
            return;
        if (header.Network != job.Parameters.Engine.Network)
            throw Permanent(job, $"it was made for the network {header.Network}, not {job.Parameters.Engine.Network} (--allow-other-weights takes it all the same)", "other_weights");
        // What the container pins beyond the weights of this job (its scorer's) has no part in a reconstruction.
        if (job.Parameters.WeightHashes.FirstOrDefault(pair => !header.WeightHashes.TryGetValue(pair.Key, out string? pinned) || pinned != pair.Value) is { Key: not null } other)
            throw Permanent(job, $"it was made with other weights than {other.Key} here (--allow-other-weights takes these all the same)", "other_weights");
    }

    private static void RequireUnchanged(ImageJob job, FileInfo before)
    {
        var after = new FileInfo(job.Source);
        if (!after.Exists || after.Length != before.Length || after.LastWriteTimeUtc != before.LastWriteTimeUtc)
            throw Changed(job);
    }

    /// <summary>The file is not the one that the work began with.</summary>
    public static StageFailedException Changed(ImageJob job) => Permanent(job, "the file changed while it was worked on; run the same command again", "source_changed");

    private static StageFailedException Permanent(ImageJob job, string reason, string code) =>
        new(FailureClass.Permanent, $"{job.DisplayName}: {reason}") { Code = code };
}

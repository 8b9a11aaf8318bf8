using System.Globalization;
using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;
using BbmrCluster.Rescaling.Container;

namespace BbmrCluster.Work;

/// <summary>
/// Makes the outputs: joins the rows at strip borders, measures, encodes, writes the container and the picture of the
/// allocation, reads everything back and compares, and writes the report. All under temporary names; the commit renames.
/// Memory: a few strips, whatever the height of the image.
/// </summary>
internal sealed class FinishStage(StageContext context)
{
    private readonly long _started = TimeProvider.System.GetTimestamp();
    private readonly ImageJob _job = context.Job;
    private readonly string _mark = CommitStage.NewMark(context.Work.Attempt);
    private readonly ImageFacts _facts = context.Facts;
    private readonly IReadOnlyList<StripBlobs> _strips = context.Work.Strips;
    private readonly List<OutputFile> _outputs = [];
    private readonly List<KeptStrip> _final = [];
    private readonly List<string> _notes = [];
    private bool _storesAlpha;
    private double? _filePsnr;

    private bool Measures => _job.Parameters.Kind != JobKind.Upscale && _job.Parameters.Reconstructs;

    private bool WritesImage => _job.Parameters.Kind != JobKind.Downscale;

    public void Run()
    {
        if (_strips.Count != _facts.Grid.Strips)
            throw new InvalidOperationException($"A finish has {_strips.Count} of {_facts.Grid.Strips} strips.");
        // A run that goes on days later must not give an old picture a new name. One that was deleted meanwhile has had its turn.
        if (new FileInfo(_job.Source) is { Exists: true } source && !context.Busy(() => _facts.IsOf(source, context.Cancellation)))
            throw IngestStage.Changed(_job);
        try
        {
            Measured? measured = _job.Parameters.Reconstructs ? Reconstructed() : null;
            if (_job.Parameters.Kind != JobKind.Upscale)
                WriteContainer(measured);
            if (WritesImage)
                WriteImage();
            if (_job.Parameters.Kind != JobKind.Upscale && _job.Outputs.AllocationPicture is { } picture)
                WritePicture(picture);
            string report = WriteReport(measured);
            context.Report(new OutputsPrepared(_outputs, report));
        }
        catch
        {
            foreach (string file in OutputNaming.FilesOf(_job.Outputs, _job.Parameters.Kind).Select(Temporary).Where(File.Exists))
                File.Delete(file);
            throw;
        }
        finally
        {
            foreach (BlobRef blob in _final.Select(strip => strip.Blob).OfType<BlobRef>())
                context.Blobs.Delete(blob);
        }
    }

    private string Temporary(string output) => CommitStage.TemporaryPath(_job, _mark, output);

    private void Add(string path) => _outputs.Add(new OutputFile(path, Temporary(path), new FileInfo(Temporary(path)).Length,
        context.Busy(() => FileSystem.Sha256(Temporary(path), context.Cancellation))));

    /// <summary>What the reconstruction is worth; all null for an upscale, which has nothing to compare with.</summary>
    private sealed record Measured(double[]? Sse, ImageQuality? Quality, double? UniformPsnr);

    // Joins borders and passes the finished rows of every strip on, in order.
    private Measured Reconstructed()
    {
        var quality = Measures ? new QualityAccumulator(_facts.Width, _facts.Height, 0, _facts.Grid.StripHeight) : null;
        var sse = Measures ? new double[RecordedQuality.ValuesOf(_facts.Grid)] : null;
        bool joins = _job.Parameters.Engine.Context == BlockContext.None;
        double uniform = 0;
        PixelBuffer rows = ReadRows(0);
        PixelBuffer? raw = Measures ? context.ReadRaw(_strips[0]) : null;
        for (int strip = 0; strip < _strips.Count; strip++)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            bool last = strip == _strips.Count - 1;
            PixelBuffer? nextRows = last ? null : ReadRows(strip + 1), nextRaw = last || !Measures ? null : context.ReadRaw(_strips[strip + 1]);
            if (nextRows is not null && joins)
            {
                Border border = Join(strip, rows, nextRows);
                border.CopyInto(rows, nextRows);
                if (_job.Parameters.Kind == JobKind.Rescale)
                    uniform += UniformBorder(strip, border, rows, nextRows).SquaredErrorAgainst(raw!, nextRaw!, _facts);
            }
            if (Measures)
            {
                quality!.Add(raw!, rows);
                SquaredError.ByTile(raw!, rows, _facts.Grid, _facts.ColourChannels).CopyTo(sse!, strip * _facts.Grid.Tiles);
                uniform += _strips[strip].UniformSse ?? 0;
            }
            if (WritesImage)
                _final.Add(context.Keep("final", strip, StripPixels.Join(rows, AlphaOf(strip, raw), _facts.HasAlpha).Data));
            context.Report(new Working());
            (rows, raw) = (nextRows!, nextRaw);
        }
        if (!Measures)
            return new Measured(null, null, null);
        ImageQuality result = quality!.Result();
        double? uniformPsnr = _job.Parameters.Kind != JobKind.Rescale ? null
            : !context.Scales.AsSpan().ContainsAnyExcept((byte)_job.Parameters.Engine.Scales.MiddleIndex) ? result.PsnrY
            : Metrics.Psnr(context.Work.UniformSse ?? uniform, (long)_facts.Width * _facts.Height);
        return new Measured(sse, result, uniformPsnr);
    }

    private PixelBuffer ReadRows(int strip) => context.ReadRows(_strips[strip]);

    private PixelBuffer? AlphaOf(int strip, PixelBuffer? raw) =>
        !_facts.HasAlpha ? null : raw is not null ? StripPixels.Alpha(raw, _facts.HasAlpha) : context.Unpack(_strips[strip]).Alpha;

    private Border Join(int upper, PixelBuffer above, PixelBuffer below) =>
        Join(upper, _strips[upper].Bottom, _strips[upper + 1].Top, above, below);

    private Border Join(int upper, BlobRef? bottom, BlobRef? top, PixelBuffer above, PixelBuffer below)
    {
        IReconstructor reconstructor = context.Engine.Reconstructor;
        ushort[] rgb = reconstructor.JoinBorder(ReadBand(bottom, upper), ReadBand(top, upper + 1), _facts.BitDepth);
        int stride = _facts.Grid.Columns * _facts.Grid.BlockSize, count = reconstructor.BorderRows;
        // The upper strip always has all its rows; of the lower one the image may show fewer than the border has.
        var joined = new Border(new PixelBuffer(_facts.Width, count, above.Channels, above.BitDepth),
            new PixelBuffer(_facts.Width, Math.Min(count, below.Height), above.Channels, above.BitDepth));
        StripPixels.Crop(rgb, stride, joined.Above, 0, joined.Above.Height);
        StripPixels.Crop(rgb.AsSpan(count * stride * 3), stride, joined.Below, 0, joined.Below.Height);
        return joined;
    }

    // Where no block near the border has another scale, both reconstructions are one.
    private Border UniformBorder(int upper, Border border, PixelBuffer above, PixelBuffer below) =>
        _strips[upper].UniformBottom == _strips[upper].Bottom && _strips[upper + 1].UniformTop == _strips[upper + 1].Top
            ? border
            : Join(upper, _strips[upper].UniformBottom, _strips[upper + 1].UniformTop, above, below);

    private FeatureBand ReadBand(BlobRef? blob, int strip) => StripPixels.Decode(context.Read(blob, "feature band", strip));

    private void WriteImage()
    {
        string path = _job.Outputs.Image!, temporary = Temporary(path);
        var info = new ImageInfo(_facts.Width, _facts.Height, _facts.ColourChannels, _facts.HasAlpha, _facts.BitDepth, _facts.Format, context.Metadata);
        string[] files = [.. _final.Select(strip => strip.File ?? context.Blobs.LocalFile(strip.Blob!, context.Scratch))];
        _notes.AddRange(context.Busy(() => ImageEncoder.Encode(temporary, info, files, new EncodeOptions(Mark: true))));
        context.Busy(() => Verify(temporary, info));
        Add(path);
    }

    // The written image is decoded again: sample for sample where the format keeps samples, else measured once more. Metadata that do not come
    // back as they were written are told: pixels are worth more.
    private void Verify(string temporary, ImageInfo written)
    {
        bool exact = ImageEncoder.KeepsSamples(temporary, written);
        QualityAccumulator? quality = Measures && !exact ? new QualityAccumulator(_facts.Width, _facts.Height, 0, _facts.Grid.BlockSize) : null;
        try
        {
            using StripReader reader = StripReader.Open(temporary, new ImageLimits(long.MaxValue, int.MaxValue), _facts.Grid.StripHeight, context.Scratch);
            if (reader.Info.Width != written.Width || reader.Info.Height != written.Height)
                throw Unverified(temporary, $"it has {reader.Info.Width}x{reader.Info.Height} pixels");
            for (int strip = 0; strip < _strips.Count; strip++)
            {
                context.Cancellation.ThrowIfCancellationRequested();
                PixelBuffer? decoded = reader.ReadNext() is { } read ? StripPixels.As(read, written) : null;
                if (exact && (decoded is null || BlobNames.Hash(decoded.Data) != _final[strip].Hash))
                    throw Unverified(temporary, $"strip {strip} differs");
                if (decoded is not null)
                    quality?.Add(context.ReadRaw(_strips[strip]), decoded);
            }
        }
        catch (ImageRefusedException error)
        {
            throw Unverified(temporary, error.Reason);
        }
        if (quality is not null)
        {
            _filePsnr = quality.Result().PsnrY;
            _notes.Add(string.Create(CultureInfo.InvariantCulture,
                $"quality was measured before the picture was coded as {Path.GetExtension(temporary)[1..]}, which loses some: the file itself has {_filePsnr:0.00} dB"));
        }
        _notes.AddRange(ImageEncoder.CompareMetadata(temporary, written, _notes));
    }

    private void WriteContainer(Measured? measured)
    {
        string path = _job.Outputs.Container!, temporary = Temporary(path);
        for (int strip = 0; strip < _strips.Count && _facts.HasAlpha && !_storesAlpha; strip++)
            _storesAlpha = StripPacker.StoresAlpha(context.Read(_strips[strip].Packed, "packed blocks", strip));
        var header = new ContainerHeader(
            _facts.Width, _facts.Height, _facts.Grid.BlockSize, _job.Parameters.Engine.Scales, _job.Parameters.Rate, _job.Parameters.Allocator, _job.Parameters.Engine.Scorer, _job.Parameters.Engine.Downscaler,
            _job.Parameters.Engine.Network, _job.Parameters.Engine.Precision, _job.Parameters.WeightHashes,
            new ContainerSource(Path.GetFileName(_job.Source), _facts.SourceBytes, _facts.SourceSha256, _facts.Format),
            _facts.BitDepth, _facts.ColourChannels, !_facts.HasAlpha ? AlphaKind.None : _storesAlpha ? AlphaKind.Stored : AlphaKind.Opaque, context.Metadata)
        {
            Context = _job.Parameters.Engine.Context,
            Halo = _job.Parameters.Engine.Halo,
        };
        ContainerWriter.Write(temporary, header, context.Scales, Quality(measured?.Sse),
            _strips.Select(strip => (ReadOnlyMemory<byte>)context.Read(strip.Packed, "packed blocks", strip.Strip)));
        using (ContainerReader reader = ContainerReader.Open(temporary, new ImageLimits(long.MaxValue, int.MaxValue)))
        {
            if (context.Busy(reader.Verify) is [var damage, ..])
                throw Unverified(temporary, damage.Reason);
        }
        context.Report(new Working());
        Add(path);
    }

    private RecordedQuality Quality(double[]? measured)
    {
        string weights = string.Join(' ', _job.Parameters.WeightHashes.OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => $"{pair.Key}={pair.Value[..16]}"));
        if (measured is not null)
            return new RecordedQuality(QualityKind.Measured, $"{_job.Parameters.Engine.Network} {_job.Parameters.Engine.Precision} {weights}".TrimEnd(), measured);
        double[] scores = context.Work.Scores ?? throw new InvalidOperationException("A finish has no scores.");
        return new RecordedQuality(QualityKind.Estimated, $"{_job.Parameters.Engine.Scorer} {_job.Parameters.Engine.Precision} {weights}".TrimEnd(),
            RecordedQuality.Gather(Enumerable.Range(0, scores.Length).All(block => IsScored(scores, block)) ? scores : WithoutNetwork(scores), _facts.Grid));
    }

    private bool IsScored(double[] scores, int block) => double.IsFinite(scores[block]) && !context.Work.Quarantined.Contains(block);

    // A block that the scorer could not score is estimated by bicubic from what is stored of it.
    private double[] WithoutNetwork(double[] scores)
    {
        var filled = (double[])scores.Clone();
        int side = _facts.Grid.BlockSize, columns = _facts.Grid.Columns;
        foreach (StripBlobs strip in _strips)
        {
            int first = _facts.Grid.FirstBlockOf(strip.Strip);
            int[] unscored = [.. Enumerable.Range(0, _facts.Grid.BlocksOf(strip.Strip)).Where(block => !IsScored(scores, first + block))];
            if (unscored.Length == 0)
                continue;
            PixelBuffer raw = context.ReadRaw(strip);
            UnpackedStrip stored = context.Unpack(strip);
            ReadOnlySpan<byte> scaleIndex = context.ScalesOf(strip.Strip);
            ushort[] reference = new ushort[side * side * 3], made = new ushort[side * side * 3];
            var upscaled = new float[side * side * 3];
            foreach (int block in unscored)
            {
                BlockBatch lr = stored.ByScale[scaleIndex[block]];
                int position = scaleIndex[..block].Count(scaleIndex[block]), top = block / columns * side;
                Bicubic.UpscaleBlocks(lr.Block(position), lr.Side, _job.Parameters.Engine.Scales[scaleIndex[block]], upscaled);
                for (int i = 0; i < made.Length; i++)
                    made[i] = (ushort)Math.Clamp(MathF.Floor(upscaled[i] + 0.5f), 0, lr.MaxValue);
                PixelBuffer row = raw.Crop(0, top, raw.Width, Math.Min(side, raw.Height - top));
                StripPixels.CutBlock(row, block % columns, _facts.ColourChannels, side, reference);
                BlockExtent extent = _facts.Grid.ExtentOf(first + block);
                filled[first + block] = Metrics.BlockSse(reference, made, side, extent.Width, extent.Height, _facts.BitDepth);
            }
        }
        return filled;
    }

    private void WritePicture(string path)
    {
        var info = new ImageInfo(_facts.Width, _facts.Height, _facts.ColourChannels, _facts.HasAlpha, _facts.BitDepth, _facts.Format, context.Metadata);
        string[] files = [.. _strips.Select(strip => context.Blobs.LocalFile(strip.Raw ?? throw new InvalidOperationException($"A finish lacks the raw samples of strip {strip.Strip}."), context.Scratch))];
        string temporary = Temporary(path);
        byte[] scales = context.Scales;
        context.Busy(() => AllocationPicture.Render(temporary, info, files, _facts.Grid.BlockSize, _job.Parameters.Engine.Scales.Scales, scales));
        Add(path);
    }

    private string WriteReport(Measured? measured)
    {
        JobTally tally = context.Work.Tally;
        ScaleSet scales = _job.Parameters.Engine.Scales;
        BlockGrid grid = _facts.Grid;
        int[] counts = new int[scales.Count];
        foreach (byte index in context.Scales)
            counts[index]++;
        long blockPixels = (long)grid.BlockSize * grid.BlockSize, pixels = (long)_facts.Width * _facts.Height;
        long lrPixels = counts.Select((count, index) => count * (blockPixels / scales[index] / scales[index])).Sum();
        long containerBytes = _job.Parameters.Kind == JobKind.Upscale ? _facts.SourceBytes : _outputs.Single(output => output.Path == _job.Outputs.Container).Length;
        double[]? scores = context.Work.Scores;
        var report = new JobReport
        {
            Input = _job.DisplayName,
            Kind = _job.Parameters.Kind,
            Width = _facts.Width,
            Height = _facts.Height,
            Blocks = grid.Count,
            RatePixels = (double)lrPixels / (grid.Count * blockPixels),
            RatePixelsImage = (double)lrPixels / pixels,
            BitsPerPixel = 8.0 * containerBytes / pixels,
            PsnrY = measured?.Quality?.PsnrY,
            PsnrYFile = _filePsnr,
            SsimY = measured?.Quality?.SsimY,
            PsnrYEstimated = scores is not null && Enumerable.Range(0, scores.Length).All(block => IsScored(scores, block)) ? Metrics.Psnr(scores.Sum(), pixels) : null,
            PsnrYUniform = measured?.UniformPsnr,
            GainDb = measured?.Quality?.PsnrY - measured?.UniformPsnr,
            Seam = measured?.Quality?.Seam,
            Counts = scales.Scales.Select((scale, index) => (scale, index))
                .ToDictionary(pair => pair.scale.ToString(CultureInfo.InvariantCulture), pair => counts[pair.index], StringComparer.Ordinal),
            Seconds = tally.Seconds + TimeProvider.System.GetElapsedTime(_started).TotalSeconds,
            PeakMemoryBytes = ProcessMemory.Peak(),
            Resumed = tally.ResumedLeases,
            SourceBytes = _facts.SourceBytes,
            ContainerBytes = containerBytes,
            ImageBytes = WritesImage ? _outputs.Single(output => output.Path == _job.Outputs.Image).Length : null,
            Allocation = tally.AllocationMethod is { } method
                ? new AllocationReport(method, tally.AllocationSse, tally.AllocationDualBound, Gap(tally.AllocationSse, tally.AllocationDualBound))
                : null,
            Device = new DeviceReport(_job.Parameters.DeviceClass,
                [.. tally.Calls.GroupBy(call => (call.Purpose, call.Scale)).OrderBy(group => group.Key.Purpose, StringComparer.Ordinal).ThenBy(group => group.Key.Scale)
                    .Select(group => (group.Key, Calls: group.Sum(call => call.Calls), Blocks: group.Sum(call => call.Blocks)))
                    .Select(sum => new DeviceCallReport(sum.Key.Purpose, sum.Key.Scale, sum.Calls, sum.Blocks, sum.Calls == 0 ? 0 : (double)sum.Blocks / sum.Calls))],
                tally.PrecisionRetries, tally.SmallerBatches, tally.BisectedLeases),
            Notes = [.. context.Metadata.Notes.Concat(_notes).Distinct(StringComparer.Ordinal)],
            QuarantinedBlocks = context.Work.Quarantined,
            Fingerprint = Fingerprint.Of(_job, _facts.SourceBytes, _facts.SourceModified, _facts.SourceSha256),
            Outputs = [.. _outputs.Select(output => new OutputReport(Path.GetFileName(output.Path), output.Length, output.Sha256))],
        };
        string json = report.ToJson();
        File.WriteAllText(Temporary(_job.Outputs.Report), json);
        FileSystem.SyncFile(Temporary(_job.Outputs.Report));
        Add(_job.Outputs.Report);
        return json;
    }

    private static double? Gap(double? sse, double? bound) => (sse, bound) switch
    {
        (null, _) or (_, null) => null,
        ( <= 0, _) => 0,
        (_, <= 0) => null,
        var (found, best) => Math.Max(0, 10 * Math.Log10(found.Value / best.Value)),
    };

    private StageFailedException Unverified(string file, string what) =>
        new(FailureClass.Transient, $"{_job.DisplayName}: {Path.GetFileName(file)} did not read back as it was written: {what}") { Code = "unverified" };

    /// <summary>Rows at both sides of a strip border.</summary>
    private sealed record Border(PixelBuffer Above, PixelBuffer Below)
    {
        public void CopyInto(PixelBuffer upper, PixelBuffer lower)
        {
            Above.Data.CopyTo(upper.Data, upper.Data.Length - Above.Data.Length);
            Below.Data.CopyTo(lower.Data, 0);
        }

        public double SquaredErrorAgainst(PixelBuffer upper, PixelBuffer lower, ImageFacts facts) =>
            SquaredError.ByTile(upper.Crop(0, upper.Height - Above.Height, upper.Width, Above.Height), Above, facts.Grid, facts.ColourChannels).Sum()
            + SquaredError.ByTile(lower.Crop(0, 0, lower.Width, Below.Height), Below, facts.Grid, facts.ColourChannels).Sum();
    }
}

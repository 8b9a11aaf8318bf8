using BbmrCluster.Networks.JointSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;
using static TorchSharp.torch;

namespace BbmrCluster.Networks.Engine;

/// <summary>JointSR strip by strip (paper section 3.4): features of every block, stitched, deblocked, brought to image rows.</summary>
internal sealed class JointReconstructor : IReconstructor, IDisposable
{
    /// <summary>Feature rows kept at a strip border.</summary>
    private const int BandRows = 2 * JointSrHead.Halo;

    private readonly NetworkSet _networks;
    private readonly BatchRunner _runner;
    private readonly Device _device;
    private readonly Func<int, int> _largestBatch;
    private readonly ScaleSet _scales;
    private readonly ParameterSet _parameters;
    private readonly JointSrHead _head;
    private readonly int _finest, _channels;
    private readonly float _black;

    /// <param name="name">Network name.</param>
    /// <param name="networks">Feature extractors.</param>
    /// <param name="scales">The scale set.</param>
    /// <param name="runner">Workers.</param>
    /// <param name="device">Where it runs.</param>
    /// <param name="largestBatch">Scale to blocks in a device call.</param>
    /// <param name="joint">Values of the joint part, see <see cref="JointSrParameters"/>: trained, or the warm start.</param>
    /// <param name="skipIdentity">Leave out parts that are the identity.</param>
    public JointReconstructor(string name, NetworkSet networks, ScaleSet scales, BatchRunner runner, Device device, Func<int, int> largestBatch,
        IReadOnlyDictionary<string, TensorData> joint, bool skipIdentity = true)
    {
        (Name, _networks, _scales, _runner, _device, _largestBatch) = (name, networks, scales, runner, device, largestBatch);
        _finest = scales[0];
        _channels = JointSrParameters.FeatureChannels(_finest);
        SrNetworkShape extractor = networks.ShapeAt(_finest);
        _black = extractor.Black;
        _parameters = new ParameterSet(JointSrParameters.Shapes(scales.Scales, extractor.Channels), joint, "the joint part", device: device);
        _head = new JointSrHead(scales.Scales, _parameters, skipIdentity, extractor.Mean);
    }

    public string Name { get; }

    public int BorderRows => JointSrHead.Halo * _finest;

    public IReadOnlyList<ReconstructedStrip> Reconstruct(LrStrips strips)
    {
        Check(strips);
        float[][] maps = Features(strips);
        var results = new ReconstructedStrip[strips.Strips];
        int bitDepth = strips.ByScale.First(batch => batch.Count > 0).BitDepth;
        _runner.Run([.. Enumerable.Range(0, strips.Strips).Select(strip => (Action<int>)(_ => results[strip] = Finish(maps[strip], strips.Columns, bitDepth)))]);
        return results;
    }

    public ushort[] JoinBorder(FeatureBand above, FeatureBand below, int bitDepth)
    {
        foreach (FeatureBand band in (FeatureBand[])[above, below])
        {
            if (band.Rows != BandRows || band.Channels != _channels || band.Width != above.Width || band.Width % Side != 0 || band.Values.Length != band.Rows * band.Width * band.Channels)
                throw new ArgumentException($"A band of {band.Rows} rows, {band.Width} columns and {band.Channels} channels does not fit {BandRows} rows of {_channels} channels.", nameof(above));
        }
        ushort[] rows = [];
        _runner.Run([_ => rows = ToImage([.. above.Values, .. below.Values], 2 * BandRows, above.Width, [BandRows], bitDepth, BandRows - JointSrHead.Halo, 2 * JointSrHead.Halo)]);
        return rows;
    }

    public void Dispose() => _parameters.Dispose();

    /// <summary>Side of a block's features.</summary>
    private int Side => BlockGrid.DefaultBlockSize / _finest;

    private void Check(LrStrips strips)
    {
        if (!strips.Scales.Equals(_scales))
            throw new ArgumentException($"The strips have the scales {strips.Scales}, the engine was made for {_scales}.", nameof(strips));
        if (strips.Columns < 1 || strips.Strips < 1 || strips.ScaleIndex.Length != strips.Columns * strips.Strips || strips.ByScale.Count != _scales.Count)
            throw new ArgumentException($"{strips.ScaleIndex.Length} blocks in {strips.ByScale.Count} scales are not {strips.Strips} strips of {strips.Columns}.", nameof(strips));
        for (int s = 0; s < _scales.Count; s++)
        {
            int wanted = strips.ScaleIndex.Count(index => index == s), side = BlockGrid.DefaultBlockSize / _scales[s];
            if (strips.ByScale[s].Count != wanted || (wanted > 0 && strips.ByScale[s].Side != side))
                throw new ArgumentException($"Scale {_scales[s]} has {strips.ByScale[s].Count} blocks of side {strips.ByScale[s].Side} where {wanted} of side {side} are needed.", nameof(strips));
        }
    }

    /// <summary>The stitched features of each strip: Side x (Columns Side) x channels.</summary>
    private float[][] Features(LrStrips strips)
    {
        int side = Side, rowLength = side * _channels, width = strips.Columns * rowLength;
        var maps = new float[strips.Strips][];
        for (int strip = 0; strip < maps.Length; strip++)
            maps[strip] = new float[side * width];
        int[][] places = [.. Enumerable.Range(0, _scales.Count).Select(s => Enumerable.Range(0, strips.ScaleIndex.Length).Where(block => strips.ScaleIndex[block] == s).ToArray())];

        _runner.Run(_scales.Scales.SelectMany((scale, s) => BatchRunner.Cut("reconstruct", scale, places[s].Length, _largestBatch(scale))), (worker, batch) =>
        {
            int s = _scales.IndexOf(batch.Scale);
            float[] values = NetworkCall.Run(MapBatch.Of(strips.ByScale[s], batch.First, batch.Count), _device, _black, _runner, batch.Purpose, batch.Scale, _networks.Body,
                (map, float32) => _head.Tail(_networks.At(batch.Scale, worker, float32).Features(map), batch.Scale, map.shape[1], map.shape[2]));
            if (values.Length != batch.Count * side * rowLength)
                throw new InvalidOperationException($"{batch.Count} blocks of scale {batch.Scale} gave {values.Length} features where {batch.Count * side * rowLength} belong.");
            for (int i = 0; i < batch.Count; i++)
            {
                int block = places[s][batch.First + i];
                ReadOnlySpan<float> features = values.AsSpan(i * side * rowLength, side * rowLength);
                if (!Samples.AllFinite(features))
                    throw new NonFiniteOutputException($"Block {block} of the lease came out of {Name} at scale {batch.Scale} as NaN or infinity, in float32 too.");
                float[] target = maps[block / strips.Columns];
                for (int row = 0; row < side; row++)
                    features.Slice(row * rowLength, rowLength).CopyTo(target.AsSpan((row * width) + (block % strips.Columns * rowLength)));
            }
        });
        return maps;
    }

    private ReconstructedStrip Finish(float[] map, int columns, int bitDepth)
    {
        int side = Side, width = columns * side, band = BandRows * width * _channels;
        ushort[] rows = ToImage(map, side, width, [], bitDepth, 0, side);
        return new ReconstructedStrip(rows,
            new FeatureBand(BandRows, width, _channels, map[..band]),
            new FeatureBand(BandRows, width, _channels, map[^band..]));
    }

    /// <summary>A feature map to samples of the image rows of some of its feature rows.</summary>
    private ushort[] ToImage(float[] map, int height, int width, int[] seamRows, int bitDepth, int firstRow, int rowCount)
    {
        using IDisposable noGradient = no_grad();
        using var scope = NewDisposeScope();
        int[] seamColumns = [.. Enumerable.Range(1, (width / Side) - 1).Select(column => column * Side)];
        Tensor image = _head.Image(NativeTensors.Create(map, [1, height, width, _channels], _device), seamRows, seamColumns);
        float[] values = Samples.Values(image.narrow(1, firstRow * _finest, rowCount * _finest));
        if (!Samples.AllFinite(values))
            throw new NonFiniteOutputException($"The joint part of {Name} gave NaN or infinity.");
        var samples = new ushort[values.Length];
        Samples.ToSamples(values, (1 << bitDepth) - 1, samples, _black);
        return samples;
    }
}

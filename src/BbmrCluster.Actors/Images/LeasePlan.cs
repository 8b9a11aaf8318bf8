using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Images;

/// <summary>A range of blocks at one stage.</summary>
internal readonly record struct WorkUnit(Stage Stage, int FirstBlock, int BlockCount)
{
    public int End => FirstBlock + BlockCount;

    public bool Contains(int block) => block >= FirstBlock && block < End;
}

/// <summary>
/// The leases of an image: whole strips worth at most 64 blocks of 128 x 128 pixels, or tiles of smaller ones. Boundaries depend
/// on the grid alone, so that any run cuts alike. A strip wider than that is one lease, except for Score of blocks as large as tiles.
/// </summary>
internal sealed class LeasePlan
{
    /// <summary>Blocks of 128 x 128 pixels, or tiles, of a lease.</summary>
    public const int MaxBlocks = 64;

    private readonly BlockGrid _grid;
    private readonly int _stripsPerGroup;

    public LeasePlan(BlockGrid grid)
    {
        _grid = grid;
        _stripsPerGroup = Math.Max(1, MaxBlocks / grid.Tiles);
        Groups = (grid.Strips + _stripsPerGroup - 1) / _stripsPerGroup;
        Score = [.. ScoreUnits()];
    }

    /// <summary>Groups of whole strips, the unit of Pack and Reconstruct.</summary>
    public int Groups { get; }

    public IReadOnlyList<WorkUnit> Score { get; }

    public IEnumerable<WorkUnit> Of(Stage stage) => stage switch
    {
        Stage.Score => Score,
        Stage.Pack or Stage.Reconstruct => Enumerable.Range(0, Groups).Select(group => Group(stage, group)),
        _ => [Whole(stage)],
    };

    public WorkUnit Whole(Stage stage) => new(stage, 0, _grid.Count);

    public WorkUnit Group(Stage stage, int group)
    {
        int first = _grid.FirstBlockOf(group * _stripsPerGroup), end = Math.Min(_grid.FirstBlockOf((group + 1) * _stripsPerGroup), _grid.Count);
        return new WorkUnit(stage, first, end - first);
    }

    public int GroupOf(int block) => _grid.StripOf(block) / _stripsPerGroup;

    /// <summary>The Score lease that holds a block.</summary>
    public WorkUnit ScoreOf(int block)
    {
        int low = 0, high = Score.Count - 1;
        while (low < high)
        {
            int middle = (low + high + 1) / 2;
            (low, high) = Score[middle].FirstBlock <= block ? (middle, high) : (low, middle - 1);
        }
        return Score[low];
    }

    /// <summary>Strips that hold a range of blocks.</summary>
    public Range Strips(WorkUnit unit) => _grid.StripOf(unit.FirstBlock)..(_grid.StripOf(unit.End - 1) + 1);

    /// <summary>Strips that a range of blocks reads: with context also those beside them.</summary>
    public Range Inputs(WorkUnit unit, BlockContext context)
    {
        Range own = Strips(unit);
        int beside = context == BlockContext.Canvas ? 1 : 0;
        return Math.Max(0, own.Start.Value - beside)..Math.Min(_grid.Strips, own.End.Value + beside);
    }

    private IEnumerable<WorkUnit> ScoreUnits()
    {
        for (int group = 0; group < Groups; group++)
        {
            var whole = Group(Stage.Score, group);
            if (_grid.BlockSize < _grid.StripHeight)
            {
                // Blocks of one tile do not follow each other.
                yield return whole;
                continue;
            }
            for (int first = whole.FirstBlock; first < whole.End; first += MaxBlocks)
                yield return whole with { FirstBlock = first, BlockCount = Math.Min(MaxBlocks, whole.End - first) };
        }
    }
}

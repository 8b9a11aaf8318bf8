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
/// The leases of an image: whole strips worth at most 64 blocks. Boundaries depend on the grid alone, so that any run
/// cuts alike. A strip wider than that is one lease, except for Score, where blocks stand alone and it is cut.
/// </summary>
internal sealed class LeasePlan
{
    public const int MaxBlocks = 64;

    private readonly BlockGrid _grid;
    private readonly int _stripsPerGroup;

    public LeasePlan(BlockGrid grid)
    {
        _grid = grid;
        _stripsPerGroup = Math.Max(1, MaxBlocks / grid.Columns);
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
        int first = group * _stripsPerGroup, strips = Math.Min(_stripsPerGroup, _grid.Strips - first);
        return new WorkUnit(stage, first * _grid.Columns, strips * _grid.Columns);
    }

    public int GroupOf(int block) => block / _grid.Columns / _stripsPerGroup;

    /// <summary>The Score lease that holds a block.</summary>
    public WorkUnit ScoreOf(int block)
    {
        int group = GroupOf(block), perGroup = ((_stripsPerGroup * _grid.Columns) + MaxBlocks - 1) / MaxBlocks;
        return Score[(group * perGroup) + ((block - (group * _stripsPerGroup * _grid.Columns)) / MaxBlocks)];
    }

    /// <summary>Strips that hold a range of blocks.</summary>
    public Range Strips(WorkUnit unit) => (unit.FirstBlock / _grid.Columns)..(((unit.End - 1) / _grid.Columns) + 1);

    private IEnumerable<WorkUnit> ScoreUnits()
    {
        for (int group = 0; group < Groups; group++)
        {
            var whole = Group(Stage.Score, group);
            for (int first = whole.FirstBlock; first < whole.End; first += MaxBlocks)
                yield return whole with { FirstBlock = first, BlockCount = Math.Min(MaxBlocks, whole.End - first) };
        }
    }
}

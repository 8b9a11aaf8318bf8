namespace BbmrCluster.Tests;

/// <summary>
/// Finds collected files that once went wrong: <c>BBMR_CASES</c>, or <c>../shared/cases</c> beside the repository.
/// </summary>
public static class Cases
{
    public static string? Root { get; } = Find();

    public const string Missing = "no collected cases here (set BBMR_CASES, or put them into ../shared/cases beside the repository)";

    /// <summary>Path below the folder of cases.</summary>
    public static string Path(string name) => System.IO.Path.Combine(Root ?? throw new InvalidOperationException(Missing), name);

    private static string? Find()
    {
        string folder = Environment.GetEnvironmentVariable("BBMR_CASES") is { Length: > 0 } named
            ? named
            : System.IO.Path.Combine(Fixtures.Repository(), "..", "shared", "cases");
        return Directory.Exists(folder) ? System.IO.Path.GetFullPath(folder) : null;
    }
}

/// <summary>A test that needs the collected cases; skipped with the reason where there are none.</summary>
public sealed class CaseFactAttribute : FactAttribute
{
    public CaseFactAttribute()
    {
        if (Cases.Root is null)
            Skip = Cases.Missing;
    }
}

/// <summary>A theory that needs the collected cases.</summary>
public sealed class CaseTheoryAttribute : TheoryAttribute
{
    public CaseTheoryAttribute()
    {
        if (Cases.Root is null)
            Skip = Cases.Missing;
    }
}

using System.Runtime.CompilerServices;

namespace BbmrCluster.Tests;

/// <summary>
/// Finds the reference fixtures: <c>BBMR_FIXTURES</c>, or <c>../shared/fixtures</c> beside the repository.
/// </summary>
public static class Fixtures
{
    public static string? Root { get; } = Find();

    public const string Missing = "no reference fixtures here (set BBMR_FIXTURES, or put them into ../shared/fixtures beside the repository)";

    /// <summary>Path below the fixtures folder.</summary>
    public static string Path(params string[] parts) => System.IO.Path.Combine([Root ?? throw new InvalidOperationException(Missing), .. parts]);

    /// <summary>Root of the repository this test was compiled in.</summary>
    public static string Repository([CallerFilePath] string here = "") =>
        System.IO.Path.GetFullPath(System.IO.Path.Combine(System.IO.Path.GetDirectoryName(here)!, "..", ".."));

    private static string? Find()
    {
        string folder = Environment.GetEnvironmentVariable("BBMR_FIXTURES") is { Length: > 0 } named
            ? named
            : System.IO.Path.Combine(Repository(), "..", "shared", "fixtures");
        return Directory.Exists(System.IO.Path.Combine(folder, "networks")) ? System.IO.Path.GetFullPath(folder) : null;
    }
}

/// <summary>A test that needs the reference fixtures; skipped with the reason where there are none.</summary>
public sealed class FixtureFactAttribute : FactAttribute
{
    public FixtureFactAttribute()
    {
        if (Fixtures.Root is null)
            Skip = Fixtures.Missing;
    }
}

/// <summary>A theory that needs the reference fixtures.</summary>
public sealed class FixtureTheoryAttribute : TheoryAttribute
{
    public FixtureTheoryAttribute()
    {
        if (Fixtures.Root is null)
            Skip = Fixtures.Missing;
    }
}

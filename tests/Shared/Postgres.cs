namespace BbmrCluster.Tests;

/// <summary>A PostgreSQL server for tests: the connection string in BBMR_TEST_POSTGRES, of a user who may create databases.</summary>
public static class Postgres
{
    public const string Missing = "no PostgreSQL here (set BBMR_TEST_POSTGRES to a connection string of a user who may create databases; .ci/run starts one where it can)";

    public static string? Server { get; } = Environment.GetEnvironmentVariable("BBMR_TEST_POSTGRES") is { Length: > 0 } named ? named : null;
}

/// <summary>A test that needs a database server; skipped with the reason where there is none.</summary>
public sealed class PostgresFactAttribute : FactAttribute
{
    public PostgresFactAttribute()
    {
        if (Postgres.Server is null)
            Skip = Postgres.Missing;
    }
}

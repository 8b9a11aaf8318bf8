using System.Reflection;
using Xunit.Sdk;

namespace BbmrCluster.Tests;

/// <summary>An S3-compatible server for tests: its address in BBMR_TEST_S3, credentials that may make buckets in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.</summary>
public static class S3
{
    public const string Missing = "no S3-compatible server here (set BBMR_TEST_S3 to its address, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; .ci/run starts one where it can)";

    public static string? Server { get; } = Environment.GetEnvironmentVariable("BBMR_TEST_S3") is { Length: > 0 } named ? named : null;
}

/// <summary>A test that needs an S3-compatible server; skipped with the reason where there is none.</summary>
public sealed class S3FactAttribute : FactAttribute
{
    public S3FactAttribute()
    {
        if (S3.Server is null)
            Skip = S3.Missing;
    }
}

/// <summary>As <see cref="InlineDataAttribute"/>, for a row that needs an S3-compatible server.</summary>
public sealed class S3InlineDataAttribute : DataAttribute
{
    private readonly object[] _values;

    public S3InlineDataAttribute(params object[] values)
    {
        _values = values;
        if (S3.Server is null)
            Skip = S3.Missing;
    }

    public override IEnumerable<object[]> GetData(MethodInfo testMethod) => [_values];
}

using System.Globalization;
using Akka.Actor;
using BbmrCluster.Actors.Journal;
using BbmrCluster.Actors.Protocol;
using BbmrCluster.Actors.Tests.Coordination;
using BbmrCluster.Rescaling;
using BbmrCluster.Work;

namespace BbmrCluster.Actors.Tests.State;

/// <summary>Whatever a user may say of a job reaches its images: through messages and journal, into identity and fingerprint.</summary>
public sealed class JobParametersTests : IDisposable
{
    private static readonly ImageJob Job = FakeWorld.Job("a", 10, 10);

    private readonly ActorSystem _system = ActorSystem.Create("parameters", "akka.loglevel = OFF");

    /// <summary>Each option with a value that is not the default.</summary>
    public static TheoryData<string, string> Changed
    {
        get
        {
            var changed = new TheoryData<string, string>();
            foreach (JobOption option in JobOption.All)
                changed.Add(option.Name, Other(option));
            return changed;
        }
    }

    public void Dispose() => _system.Dispose();

    [Fact]
    public void Ids_stay_what_they_were() => Assert.Equal("da00d257fbca3317027aae91559cb91a", Job.Id.Value);

    [Theory]
    [MemberData(nameof(Changed))]
    public void An_option_survives_messages_and_journal_and_makes_another_image(string name, string text)
    {
        JobOption option = JobOption.Get(name);
        JobParameters parameters = option.Set(Job.Parameters, text);
        Assert.NotEqual(option.TextOf(Job.Parameters), option.TextOf(parameters));
        // A format stands in the names of outputs.
        ImageJob job = Job with { Parameters = parameters, Outputs = Job.Outputs with { Image = "/out/a." + parameters.ImageExtension } };
        // Weights tell what joins the blocks.
        Assert.Equal(name is "joint", JobIdentity.Of(Job) == JobIdentity.Of(job));

        var serializer = new ProtocolSerializer((ExtendedActorSystem)_system);
        var opened = (ImageCommands.OpenImage)Again(serializer, new ImageCommands.OpenImage(job.Id, new ArchiveId("a"), new RunId("r"), new WorkPolicy(), job));
        Assert.Equal(job, opened.Job);
        var filled = (PageEvents.Filled)((PageEvents.Batch)Again(serializer, new PageEvents.Batch([new PageEvents.Filled([Job, job, job with { Source = "/in/b" }])]))).Events[0];
        Assert.Equal([Job, job, job with { Source = "/in/b" }], filled.Jobs);
        Assert.Same(filled.Jobs[1].Parameters, filled.Jobs[2].Parameters);
    }

    [Theory]
    [InlineData("128", "4")]
    [InlineData("64", "0")]
    [InlineData("32", "8")]
    public void Blocks_that_see_their_neighbours_keep_side_and_halo_on_the_way(string block, string halo)
    {
        JobParameters parameters = new[] { ("context", "canvas"), ("block", block), ("halo", halo) }.Aggregate(Job.Parameters, (known, one) => JobOption.Get(one.Item1).Set(known, one.Item2));
        ImageJob job = Job with { Parameters = parameters };
        var serializer = new ProtocolSerializer((ExtendedActorSystem)_system);
        var opened = (ImageCommands.OpenImage)Again(serializer, new ImageCommands.OpenImage(job.Id, new ArchiveId("a"), new RunId("r"), new WorkPolicy(), job));
        Assert.Equal(job, opened.Job);
    }

    [Theory]
    [MemberData(nameof(Changed))]
    public void An_option_is_in_the_fingerprint_where_it_decides_bytes(string name, string text)
    {
        JobOption option = JobOption.Get(name);
        foreach (JobKind kind in Enum.GetValues<JobKind>().Where(_ => name is not "kind"))
        {
            ImageJob before = Job with { Parameters = Job.Parameters with { Kind = kind } }, after = before with { Parameters = option.Set(before.Parameters, text) };
            string? difference = Fingerprint.Of(before, 1, default, "").DiffersFrom(after);
            // A context takes its block side and halo along.
            Assert.Equal(option.Decides.Has(kind) ? name is "context" ? "with another block, context, halo" : $"with another {name}" : null, difference);
        }
    }

    [Fact]
    public void Ids_depend_on_everything_that_decides_bytes_and_outputs()
    {
        ImageJob[] others =
        [
            Job with { Source = "/in/b" }, Job with { Outputs = Job.Outputs with { Image = null } },
            Job with { Parameters = Job.Parameters with { Engine = Job.Parameters.Engine with { MaxBatch = 3 } } },
            Job with { Parameters = Job.Parameters with { WeightHashes = new([new("w", "01")]) } },
        ];
        Assert.Equal(JobIdentity.Of(Job), JobIdentity.Of(Job with { Id = new ImageId("x"), DisplayName = "elsewhere" }));
        Assert.Equal(others.Length + 1, others.Append(Job).Select(JobIdentity.Of).Distinct().Count());
    }

    private static string Other(JobOption option) => option.Choices.Count > 0 ? option.Choices.First(choice => choice != option.TextOf(Job.Parameters)) : option.Form switch
    {
        JobOptionForm.Flag => option.Default is "no" ? "yes" : "no",
        JobOptionForm.Number => option.Default is { } text ? (long.Parse(text, CultureInfo.InvariantCulture) - 1).ToString(CultureInfo.InvariantCulture) : "8",
        JobOptionForm.Numbers => "4,8,16",
        _ => option.Name is "allocator" ? "paper:t=0.5" : "other",
    };

    private static object Again(ProtocolSerializer serializer, object message) => serializer.FromBinary(serializer.ToBinary(message), serializer.Manifest(message));
}

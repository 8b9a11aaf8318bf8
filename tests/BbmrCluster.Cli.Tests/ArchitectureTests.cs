using System.Reflection;
using System.Reflection.Metadata;
using System.Reflection.Metadata.Ecma335;
using System.Reflection.PortableExecutable;
using System.Xml.Linq;
using BbmrCluster.Tests;

namespace BbmrCluster.Cli.Tests;

/// <summary>Dependencies between the rooms of src point one way, and coordination loads no tensor library.</summary>
public sealed class ArchitectureTests
{
    /// <summary>Each room and the rooms below it that it may use.</summary>
    private static readonly Dictionary<string, string[]> Rooms = new(StringComparer.Ordinal)
    {
        ["BbmrCluster.Imaging"] = [],
        ["BbmrCluster.Rescaling"] = ["BbmrCluster.Imaging"],
        ["BbmrCluster.Networks"] = ["BbmrCluster.Rescaling", "BbmrCluster.Imaging"],
        ["BbmrCluster.Work"] = ["BbmrCluster.Rescaling", "BbmrCluster.Imaging"],
        ["BbmrCluster.Actors"] = ["BbmrCluster.Work", "BbmrCluster.Rescaling", "BbmrCluster.Imaging"],
        ["BbmrCluster.Training"] = ["BbmrCluster.Networks", "BbmrCluster.Rescaling", "BbmrCluster.Imaging"],
        ["BbmrCluster.Node"] = ["BbmrCluster.Actors", "BbmrCluster.Work", "BbmrCluster.Networks", "BbmrCluster.Rescaling", "BbmrCluster.Imaging"],
        ["BbmrCluster.Cli"] =
        [
            "BbmrCluster.Node", "BbmrCluster.Training", "BbmrCluster.Actors", "BbmrCluster.Work", "BbmrCluster.Networks", "BbmrCluster.Rescaling",
            "BbmrCluster.Imaging",
        ],
    };

    public static TheoryData<string> RoomNames => [.. Rooms.Keys];

    [Fact]
    public void Every_folder_of_src_is_a_room_with_a_place_in_the_order()
    {
        Assert.Equal(Rooms.Keys.Order(StringComparer.Ordinal), Directory.GetDirectories(Path.Combine(Fixtures.Repository(), "src")).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        foreach ((string room, string[] below) in Rooms)
            Assert.All(below, other => Assert.Empty(Rooms[other].Except(below).Append(room).Intersect(Rooms[other])));
    }

    /// <summary>See HeldNumbers in Networks: these make a temporary number that may be freed while libtorch reads it.</summary>
    [Theory]
    [InlineData("BbmrCluster.Networks")]
    [InlineData("BbmrCluster.Training")]
    public void No_tensor_meets_a_number_that_nobody_holds(string room)
    {
        string path = Path.Combine(AppContext.BaseDirectory, room + ".dll");
        Module module = Assembly.LoadFrom(path).ManifestModule;
        using var file = new PEReader(File.OpenRead(path));
        MetadataReader metadata = file.GetMetadataReader();
        MethodBase[] called = [.. metadata.MemberReferences
            .Where(handle => metadata.GetMemberReference(handle) is { Parent.Kind: HandleKind.TypeReference } member && member.GetKind() == MemberReferenceKind.Method)
            .Select(handle => module.ResolveMethod(MetadataTokens.GetToken(handle))!)
            .Where(method => method.DeclaringType!.Name is "Tensor" or "Scalar")];
        Assert.Contains(called, method => method.Name == "view");
        Assert.DoesNotContain(called, method => method.Name switch
        {
            "op_Implicit" => method.DeclaringType!.Name == "Scalar",
            "op_Addition" or "square" or "softplus" or "celu" or "elu" => true,
            "op_Subtraction" or "op_Multiply" or "op_Division" or "op_Modulus" => method.GetParameters().Any(parameter => parameter.ParameterType.Name != "Tensor"),
            "add" or "add_" => method.GetParameters() is [{ ParameterType.Name: "Tensor" }],
            _ => false,
        });
    }

    [Theory]
    [MemberData(nameof(RoomNames))]
    public void A_room_s_assembly_refers_only_to_rooms_below_it(string room)
    {
        string[] used = [.. AssemblyReferences(room).Where(IsOurs)];
        Assert.Empty(used.Except(Rooms[room]));
    }

    [Theory]
    [MemberData(nameof(RoomNames))]
    public void A_room_s_project_refers_only_to_rooms_below_it(string room)
    {
        string[] used = [.. References(ProjectOf("src", room), "ProjectReference").Select(path => Path.GetFileNameWithoutExtension(path))];
        Assert.Empty(used.Except(Rooms[room]));
    }

    [Theory]
    [InlineData("src", "BbmrCluster.Imaging")]
    [InlineData("src", "BbmrCluster.Rescaling")]
    [InlineData("src", "BbmrCluster.Work")]
    [InlineData("src", "BbmrCluster.Actors")]
    [InlineData("tests", "BbmrCluster.Work.Tests")]
    [InlineData("tests", "BbmrCluster.Actors.Tests")]
    public void Nothing_around_coordination_brings_a_tensor_library(string folder, string project) =>
        Assert.DoesNotContain(Packages(ProjectOf(folder, project)), IsTensorLibrary);

    /// <summary>Pixels, blobs and files work without any actor, and the actors' house speaks to no store itself.</summary>
    [Fact]
    public void Work_knows_no_actors_and_actors_no_clients_of_stores()
    {
        Assert.DoesNotContain(AssemblyReferences("BbmrCluster.Work"), name => name.StartsWith("Akka", StringComparison.Ordinal));
        Assert.DoesNotContain(Packages(ProjectOf("tests", "BbmrCluster.Work.Tests")), name => name.StartsWith("Akka", StringComparison.Ordinal));
        Assert.DoesNotContain(AssemblyReferences("BbmrCluster.Actors"), name => name.StartsWith("AWSSDK", StringComparison.Ordinal) || name == "System.Net.Http");
        Assert.Contains(AssemblyReferences("BbmrCluster.Actors"), name => name.StartsWith("Akka", StringComparison.Ordinal));
        Assert.Contains("AWSSDK.S3", AssemblyReferences("BbmrCluster.Work"));
    }

    [Fact]
    public void The_checks_see_what_they_look_for()
    {
        Assert.Contains(Packages(ProjectOf("src", "BbmrCluster.Networks")), IsTensorLibrary);
        Assert.Contains("TorchSharp", AssemblyReferences("BbmrCluster.Networks"));
        Assert.Contains("BbmrCluster.Imaging", AssemblyReferences("BbmrCluster.Rescaling"));
        Assert.Contains("BbmrCluster.Rescaling", AssemblyReferences("BbmrCluster.Actors"));
        Assert.Contains("BbmrCluster.Work", AssemblyReferences("BbmrCluster.Actors"));
    }

    private static bool IsOurs(string assembly) => assembly == "bbmr" || assembly.StartsWith("BbmrCluster.", StringComparison.Ordinal);

    private static bool IsTensorLibrary(string package) =>
        package.StartsWith("TorchSharp", StringComparison.OrdinalIgnoreCase) || package.StartsWith("libtorch", StringComparison.OrdinalIgnoreCase);

    private static string[] AssemblyReferences(string room)
    {
        string file = Path.Combine(AppContext.BaseDirectory, (room == "BbmrCluster.Cli" ? "bbmr" : room) + ".dll");
        using var assembly = new PEReader(File.OpenRead(file));
        MetadataReader metadata = assembly.GetMetadataReader();
        return [.. metadata.AssemblyReferences.Select(handle => metadata.GetString(metadata.GetAssemblyReference(handle).Name))];
    }

    private static string ProjectOf(string folder, string name) => Path.Combine(Fixtures.Repository(), folder, name, name + ".csproj");

    private static string[] References(string project, string kind) =>
        [.. XDocument.Load(project).Descendants(kind).Select(reference => reference.Attribute("Include")!.Value)];

    /// <summary>Packages of a project and of all projects it refers to.</summary>
    private static HashSet<string> Packages(string project)
    {
        HashSet<string> packages = [.. References(project, "PackageReference")];
        foreach (string reference in References(project, "ProjectReference"))
            packages.UnionWith(Packages(Path.GetFullPath(Path.Combine(Path.GetDirectoryName(project)!, reference))));
        return packages;
    }
}

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

    /// <summary>
    /// Folders that still know each other, which count as one. Nothing else may come into their circle, and whoever takes one
    /// out of it takes it out of here.
    /// </summary>
    private static readonly string[][] Entangled =
    [
        ["BbmrCluster.Imaging", "BbmrCluster.Imaging.Formats"],
        ["BbmrCluster.Networks", "BbmrCluster.Networks.Kernels", "BbmrCluster.Networks.SmfaNet", "BbmrCluster.Networks.Weights"],
        ["BbmrCluster.Node.Api", "BbmrCluster.Node.Cluster"],
        ["BbmrCluster.Cli", "BbmrCluster.Cli.Cluster", "BbmrCluster.Cli.CommandLine", "BbmrCluster.Cli.Commands", "BbmrCluster.Cli.Output"],
    ];

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

    /// <summary>
    /// A folder is a namespace, and what folders of a room use of each other runs in no circle. Types of the room itself are
    /// a folder like any other.
    /// </summary>
    [Theory]
    [MemberData(nameof(RoomNames))]
    public void Folders_of_a_room_use_each_other_in_one_direction(string room)
    {
        Dictionary<string, HashSet<string>> uses = FolderUses(room);
        Assert.NotEmpty(uses);
        foreach (string[] entangled in Entangled.Where(group => uses.ContainsKey(group[0])))
        {
            // Each is in the circle indeed: what it uses, directly or not, uses it.
            Assert.All(entangled, folder => Assert.Superset(entangled.ToHashSet(StringComparer.Ordinal), Reached(uses, folder)));
            uses = uses.GroupBy(pair => Name(pair.Key), StringComparer.Ordinal).ToDictionary(
                group => group.Key,
                group => group.SelectMany(pair => pair.Value).Select(Name).Where(used => used != group.Key).ToHashSet(StringComparer.Ordinal),
                StringComparer.Ordinal);
            string Name(string folder) => entangled.Contains(folder) ? entangled[0] : folder;
        }
        var below = new Dictionary<string, HashSet<string>>(StringComparer.Ordinal);
        while (below.Count < uses.Count)
        {
            string[] free = [.. uses.Keys.Where(folder => !below.ContainsKey(folder) && uses[folder].All(below.ContainsKey))];
            if (free.Length == 0)
            {
                Assert.Fail("In a circle, or above one: " + string.Join("; ", uses.Where(pair => !below.ContainsKey(pair.Key))
                    .Select(pair => $"{pair.Key} -> {string.Join(", ", pair.Value.Where(used => !below.ContainsKey(used)))}")));
            }
            foreach (string folder in free)
                below[folder] = uses[folder];
        }
    }

    [Theory]
    [MemberData(nameof(RoomNames))]
    public void A_file_s_namespace_is_its_folder(string room)
    {
        string src = Path.Combine(Fixtures.Repository(), "src");
        string[] strangers = [.. Directory.EnumerateFiles(Path.Combine(src, room), "*.cs", SearchOption.AllDirectories)
            .Select(file => (Name: Path.GetRelativePath(src, file), Namespace: File.ReadLines(file).FirstOrDefault(line => line.StartsWith("namespace ", StringComparison.Ordinal))))
            .Where(file => file.Namespace is not null && !file.Name.Contains("/obj/", StringComparison.Ordinal) && !file.Name.Contains("/bin/", StringComparison.Ordinal))
            .Where(file => file.Namespace != $"namespace {Path.GetDirectoryName(file.Name)!.Replace('/', '.')};")
            .Select(file => file.Name)];
        Assert.Empty(strangers);
    }

    [Fact]
    public void The_check_of_folders_sees_what_they_use()
    {
        Dictionary<string, HashSet<string>> uses = FolderUses("BbmrCluster.Actors");
        // A base type, a call and a field each.
        Assert.Superset(new HashSet<string> { "BbmrCluster.Actors.Journal", "BbmrCluster.Actors.Protocol", "BbmrCluster.Actors.Settings" }, uses["BbmrCluster.Actors.Images"]);
        Assert.Contains("BbmrCluster.Actors.Images", uses["BbmrCluster.Actors.Hosting"]);
    }

    /// <summary>What a folder uses, directly or by way of others.</summary>
    private static HashSet<string> Reached(Dictionary<string, HashSet<string>> uses, string folder)
    {
        HashSet<string> reached = [.. uses[folder]];
        for (int before = 0; before != reached.Count;)
        {
            before = reached.Count;
            reached.UnionWith(reached.ToArray().SelectMany(used => uses[used]));
        }
        return reached;
    }

    /// <summary>The folders of a room, each with the others of the room that its types use: in their members, and in the bodies of their methods.</summary>
    private static Dictionary<string, HashSet<string>> FolderUses(string room)
    {
        ArchUnitNET.Domain.Architecture loaded = new ArchUnitNET.Loader.ArchLoader().LoadAssemblies(Assembly.LoadFrom(AssemblyFile(room))).Build();
        // Type parameters have no namespace.
        bool IsHere(ArchUnitNET.Domain.IType type) =>
            type.Namespace is { FullName: var name } && (name == room || name.StartsWith(room + ".", StringComparison.Ordinal));
        return loaded.Types.Where(IsHere).GroupBy(type => type.Namespace.FullName, StringComparer.Ordinal).ToDictionary(
            folder => folder.Key,
            folder => folder.SelectMany(type => type.Dependencies).Select(use => use.Target).Where(IsHere)
                .Select(type => type.Namespace.FullName).Where(other => other != folder.Key).ToHashSet(StringComparer.Ordinal),
            StringComparer.Ordinal);
    }

    private static bool IsOurs(string assembly) => assembly == "bbmr" || assembly.StartsWith("BbmrCluster.", StringComparison.Ordinal);

    private static bool IsTensorLibrary(string package) =>
        package.StartsWith("TorchSharp", StringComparison.OrdinalIgnoreCase) || package.StartsWith("libtorch", StringComparison.OrdinalIgnoreCase);

    private static string AssemblyFile(string room) => Path.Combine(AppContext.BaseDirectory, (room == "BbmrCluster.Cli" ? "bbmr" : room) + ".dll");

    private static string[] AssemblyReferences(string room)
    {
        using var assembly = new PEReader(File.OpenRead(AssemblyFile(room)));
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

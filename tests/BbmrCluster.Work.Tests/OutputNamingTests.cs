using BbmrCluster.Rescaling;

namespace BbmrCluster.Work.Tests;

public sealed class OutputNamingTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("bbmr-names-").FullName;

    public void Dispose() => Directory.Delete(_root, recursive: true);

    private string File_(string name, string content = "x")
    {
        string path = Path.Combine(_root, name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, content);
        return path;
    }

    private string In(string name) => Path.Combine(_root, name);

    private OutputPlan Plan(string[] inputs, bool recursive = true, JobKind kind = JobKind.Rescale, string? outputs = null) =>
        OutputNaming.Plan(inputs, outputs ?? In("out"), kind, "png", recursive);

    private string[] Containers(OutputPlan plan) => [.. plan.Images.Select(image => Path.GetRelativePath(In("out"), image.Outputs.Container!))];

    [Fact]
    public void The_tree_is_kept_and_the_order_is_that_of_names()
    {
        File_("archive/b.jpg");
        File_("archive/a.png");
        File_("archive/sub/deep/c.TIF");
        File_("archive/notes.txt");
        File_("archive/.hidden.jpg");
        OutputPlan plan = Plan([In("archive")]);
        Assert.Equal(["a.bbmr", "b.bbmr", "sub/deep/c.bbmr"], Containers(plan));
        Assert.Equal(In("out/sub/deep/c.allocation.png"), plan.Images[2].Outputs.AllocationPicture);
        Assert.Equal(In("out/sub/deep/c.report.json"), plan.Images[2].Outputs.Report);
        Assert.Equal(In("archive/sub/deep/c.TIF"), plan.Images[2].DisplayName);
        Assert.Equal(["a.bbmr", "b.bbmr"], Containers(Plan([In("archive")], recursive: false)));
    }

    [Fact]
    public void Pictures_of_other_formats_are_counted_and_folders_of_storage_systems_are_left_alone()
    {
        File_("in/a.jpg");
        File_("in/x.jxl");
        File_("in/m.JP2");
        File_("in/raw.nef");
        File_("in/notes.txt");
        foreach (string folder in new[] { "@eaDir/a.jpg", "#recycle", "#snapshot", "@Recycle", "lost+found", "$RECYCLE.BIN", "__MACOSX", "System Volume Information" })
            File_($"in/{folder}/thumbnail.jpg");
        OutputPlan plan = Plan([In("in")]);
        Assert.Equal(["a.bbmr"], Containers(plan));
        Assert.Equal([In("in/m.JP2"), In("in/raw.nef"), In("in/x.jxl")], plan.PassedOver.Select(file => file.DisplayName));
        Assert.Empty(plan.Refused);
    }

    [Fact]
    public void Names_that_would_be_one_keep_their_extensions()
    {
        File_("in/a.jpg");
        File_("in/a.png");
        File_("in/a.jpg.png");
        File_("in/b.jpg");
        Assert.Equal(["a.jpg.bbmr", "a.jpg.png.bbmr", "a.png.bbmr", "b.bbmr"], Containers(Plan([In("in")])));
        Assert.Equal(In("out/a.jpg.report.json"), Plan([In("in")]).Images[0].Outputs.Report);
    }

    [Fact]
    public void Names_that_are_one_all_the_same_are_refused()
    {
        File_("x/a.jpg");
        File_("y/a.jpg");
        OutputPlan plan = Plan([In("x"), In("y")]);
        Assert.Equal(["a.jpg.bbmr"], Containers(plan));
        Assert.Equal((In("y/a.jpg"), "conflict"), (plan.Refused.Single().DisplayName, plan.Refused.Single().Code));
    }

    [Fact]
    public void An_input_is_never_an_output()
    {
        File_("in/a.jpg");
        File_("in/a.png");
        File_("in/b.png");
        OutputPlan plan = Plan([In("in")], outputs: In("in"));
        Assert.Equal([In("in/b.png")], plan.Refused.Select(refused => refused.DisplayName));
        Assert.Equal([In("in/a.jpg.png"), In("in/a.png.png")], plan.Images.Select(image => image.Outputs.Image));
    }

    [Fact]
    public void Own_outputs_and_the_output_folder_are_not_inputs()
    {
        File_("in/a.jpg");
        File_("in/out/a.png");
        File_("in/a.allocation.png");
        File_("in/a.bbmr");
        File_("in/.bbmr/tmp/t.png");
        File_("in/made.png");
        File_("in/made.report.json", Report("made.png").ToJson());
        File_("in/mine.png");
        File_("in/mine.report.json", "{}");
        OutputPlan plan = Plan([In("in")], outputs: In("in/out"));
        Assert.Equal([In("in/a.jpg"), In("in/mine.png")], plan.Images.Select(image => image.Source));
        Assert.Equal([In("in/made.png")], Plan([In("in/made.png")]).Images.Select(image => image.Source));
    }

    [Fact]
    public void Links_are_followed_once_and_loops_end()
    {
        File_("in/sub/a.jpg");
        Directory.CreateSymbolicLink(In("in/sub/up"), In("in"));
        Directory.CreateSymbolicLink(In("in/twin"), In("in/sub"));
        File.CreateSymbolicLink(In("in/self.jpg"), In("in/self.jpg"));
        OutputPlan plan = Plan([In("in"), In("in"), In("in/sub/a.jpg")]);
        Assert.Equal([In("in/self.jpg"), In("in/sub/a.jpg")], plan.Images.Select(image => image.Source));
    }

    [Fact]
    public void Of_a_list_the_tree_is_kept_and_what_is_missing_is_taken()
    {
        File_("lists/2020/a.jpg");
        File_("lists/2021/a.jpg");
        File_("elsewhere/sub/b.jpg");
        var list = new InputList(In("lists"), [In("lists/2020/a.jpg"), In("lists/2021"), In("lists/gone/a.jpg"), In("elsewhere"), In("elsewhere/gone.jpg")]);
        OutputPlan plan = OutputNaming.Plan([], In("out"), JobKind.Rescale, "png", recursive: true, list);
        string other = In("elsewhere").TrimStart('/');
        Assert.Equal(["2020/a.bbmr", "2021/a.bbmr", "gone/a.bbmr", $"{other}/sub/b.bbmr", $"{other}/gone.bbmr"], Containers(plan));
        Assert.Empty(plan.Refused);
    }

    [Fact]
    public void What_is_not_there_or_empty_is_listed()
    {
        Directory.CreateDirectory(In("empty"));
        File_("texts/a.txt");
        OutputPlan plan = Plan([In("empty"), In("nowhere"), In("texts"), In("texts/a.txt")]);
        Assert.Equal([(In("empty"), "empty"), (In("nowhere"), "not_found"), (In("texts"), "empty")], plan.Refused.Select(refused => (refused.DisplayName, refused.Code)));
        Assert.Single(plan.Images);
    }

    [Fact]
    public void Hostile_names_stay_below_the_output_folder_or_are_refused()
    {
        File_("in/ -rf .jpg");
        File_("in/..jpg");
        File_("in/a\nb.jpg");
        File_("in/ü'\"$(x).jpg");
        File_("in/" + new string('l', 250) + ".jpg");
        OutputPlan plan = Plan([In("in"), In("in/..jpg")]);
        Assert.Equal("name_too_long", plan.Refused.Single().Code);
        Assert.Equal(4, plan.Images.Count);
        foreach (PlannedImage image in plan.Images)
        {
            foreach (string file in OutputNaming.FilesOf(image.Outputs, JobKind.Rescale))
                Assert.Equal(In("out"), Path.GetDirectoryName(Path.GetFullPath(file)));
        }
    }

    [Fact]
    public void Containers_are_taken_for_an_upscale_and_its_report_has_a_name_of_its_own()
    {
        File_("in/a.bbmr");
        File_("in/a.jpg");
        PlannedImage image = Plan([In("in")], kind: JobKind.Upscale).Images.Single();
        Assert.Equal(new OutputPaths(In("in/a.bbmr"), In("out/a.png"), null, In("out/a.upscale.report.json")), image.Outputs);
        Assert.Equal([In("out/a.png"), In("out/a.upscale.report.json")], OutputNaming.FilesOf(image.Outputs, JobKind.Upscale));
    }

    internal static JobReport Report(params string[] outputs) => new()
    {
        Input = "in",
        Kind = JobKind.Rescale,
        Width = 1,
        Height = 1,
        Blocks = 1,
        RatePixels = 0.0625,
        RatePixelsImage = 1,
        BitsPerPixel = 1,
        Counts = new Dictionary<string, int> { ["4"] = 1 },
        Seconds = 1,
        Resumed = 0,
        SourceBytes = 1,
        Device = new DeviceReport("fake", [], 0, 0, 0),
        QuarantinedBlocks = [],
        Fingerprint = new Fingerprint(JobKind.Rescale, 1, DateTime.UnixEpoch, "00", new Dictionary<string, string>(), new Dictionary<string, string>()),
        Outputs = [.. outputs.Select(name => new OutputReport(name, 1, "00"))],
    };
}

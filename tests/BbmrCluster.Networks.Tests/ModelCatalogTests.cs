using System.Security.Cryptography;
using BbmrCluster.Networks.Catalog;
using BbmrCluster.Networks.OmniSr;
using BbmrCluster.Networks.Weights;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Networks.Tests;

public sealed class ModelCatalogTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    private string WriteModel(int scale, string? hash = null, int osags = 1)
    {
        string path = _folder.File($"omnisr-light-x{scale}.safetensors");
        SafetensorsFile.Write(path, ReferenceNumbers.Weights(new OmniSrShape(scale, osags).Parameters));
        ModelCard.Of("omnisr-light", new OmniSrShape(scale, 1), hash ?? Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(path))),
            "test", "test", 1, 1, scores: new Dictionary<string, double> { ["set5_psnr_y"] = 30 }).Save(Path.ChangeExtension(path, ".json"));
        return path;
    }

    [Fact]
    public void Every_known_network_is_listed_with_its_state()
    {
        WriteModel(4);
        IReadOnlyList<ModelEntry> list = new ModelCatalog(_folder.Root).List();
        Assert.Equal(Architectures.Networks.Count * 11, list.Count);
        ModelEntry ready = Assert.Single(list, entry => entry.State == ModelState.Ready);
        Assert.Equal(("omnisr-light", 4, 30), (ready.Model, ready.Scale, ready.Card!.Scores["set5_psnr_y"]));
        Assert.All(list.Where(entry => entry != ready), entry => Assert.True(entry is { State: ModelState.WithoutWeights, Problem: not null }));
    }

    [Fact]
    public void Hashes_are_those_of_the_files_as_they_are_now()
    {
        string path = WriteModel(4);
        var catalog = new ModelCatalog(_folder.Root);
        string before = catalog.Hashes()["omnisr-light-x4.safetensors"];
        Assert.Equal(before, Assert.Single(catalog.Hashes()).Value);
        Assert.Equal(catalog.Load("omnisr-light", 4).Sha256, before);
        byte[] bytes = [.. File.ReadAllBytes(path), 0];
        File.WriteAllBytes(path, bytes);
        WriteModel(2);
        Assert.Equal(["omnisr-light-x2.safetensors", "omnisr-light-x4.safetensors"], catalog.Hashes().Keys);
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(bytes)), catalog.Hashes()["omnisr-light-x4.safetensors"]);
    }

    [Fact]
    public void Weights_that_differ_from_their_card_are_refused()
    {
        WriteModel(4, hash: new string('0', 64));
        var catalog = new ModelCatalog(_folder.Root);
        Assert.Contains("is not the file that its card describes", Assert.Throws<EngineUnavailableException>(() => catalog.Load("omnisr-light", 4)).Message);
        Assert.Equal(ModelState.Damaged, Assert.Single(catalog.Verify(), entry => entry is { Model: "omnisr-light", Scale: 4 }).State);
    }

    [Fact]
    public void A_changed_byte_a_wrong_network_and_a_broken_card_are_found()
    {
        string path = WriteModel(2);
        byte[] bytes = File.ReadAllBytes(path);
        bytes[^1] ^= 1;
        File.WriteAllBytes(path, bytes);
        Assert.Equal(ModelState.Damaged, new ModelCatalog(_folder.Root).Verify().First(entry => entry is { Model: "omnisr-light", Scale: 2 }).State);

        WriteModel(8, osags: 2);
        Assert.Contains("2 groups at scale 8", new ModelCatalog(_folder.Root).Verify().First(entry => entry is { Model: "omnisr-light", Scale: 8 }).Problem);

        File.WriteAllText(_folder.File("omnisr-light-x8.json"), "{}");
        Assert.Contains("is not a model card", new ModelCatalog(_folder.Root).List().First(entry => entry is { Model: "omnisr-light", Scale: 8 }).Problem);
    }

    [Fact]
    public void Weights_are_read_once_and_shared()
    {
        WriteModel(4);
        Assert.Same(new ModelCatalog(_folder.Root).Load("omnisr-light", 4), new ModelCatalog(_folder.Root).Load("omnisr-light", 4));
    }

    [Fact]
    public void Weights_without_a_card_are_used_as_they_are()
    {
        string path = WriteModel(4);
        File.Delete(Path.ChangeExtension(path, ".json"));
        var catalog = new ModelCatalog(_folder.Root);
        Assert.Equal(ModelState.WithoutCard, catalog.Verify().First(entry => entry is { Model: "omnisr-light", Scale: 4 }).State);
        Assert.Equal(4, catalog.Load("omnisr-light", 4).Shape.Scale);
    }
}

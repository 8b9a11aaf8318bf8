using BbmrCluster.Node.Cluster;
using BbmrCluster.Tests;
using k8s;
using k8s.Models;
using YamlDotNet.Core;
using YamlDotNet.Serialization;

namespace BbmrCluster.Node.Tests;

/// <summary>The topologies that are shipped, read as their tools read them, against the settings that a node knows.</summary>
public sealed class DeploymentTests : IDisposable
{
    private readonly string _folder = Path.Combine(Path.GetTempPath(), "bbmr-" + Guid.NewGuid().ToString("N"));

    public DeploymentTests()
    {
        Directory.CreateDirectory(_folder);
        foreach (string secret in (string[])["token", "journal-password", "node.pem", "authority.pem"])
            File.WriteAllText(Path.Combine(_folder, secret), "secret");
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static string Read(params string[] path) => File.ReadAllText(Path.Combine([Fixtures.Repository(), .. path]));

    private static List<object> Manifests() => KubernetesYaml.LoadAllFromString(Read("deploy", "kubernetes", "bbmr.yaml"), strict: true);

    /// <summary>Every service of the compose file with its keys.</summary>
    private static IEnumerable<(string Name, Dictionary<object, object> Keys)> Services()
    {
        using var text = new StringReader(Read("docker-compose.yml"));
        var compose = (Dictionary<object, object>)new DeserializerBuilder().Build().Deserialize<object>(new MergingParser(new Parser(text)));
        return ((Dictionary<object, object>)compose["services"]).Select(service => ((string)service.Key, (Dictionary<object, object>)service.Value));
    }

    [Fact]
    public void Kubernetes_starts_nodes_with_settings_that_they_accept()
    {
        List<object> manifests = Manifests();
        IDictionary<string, string> settings = Assert.Single(manifests.OfType<V1ConfigMap>()).Data;
        var pods = manifests.OfType<V1Deployment>().Select(item => item.Spec.Template.Spec).Concat(manifests.OfType<V1StatefulSet>().Select(item => item.Spec.Template.Spec)).ToList();
        Assert.Equal(3, pods.Count);
        var roles = new List<string>();
        foreach (V1PodSpec pod in pods)
        {
            V1Container container = Assert.Single(pod.Containers);
            string[] arguments = [.. container.Args.Select(argument => argument.Replace("$(POD)", "bbmr-coordinator-0", StringComparison.Ordinal).Replace("$(ADDRESS)", "10.0.0.7", StringComparison.Ordinal))];
            NodeOptions options = Options(arguments, settings);
            roles.AddRange(options.Roles);
            Assert.Equal(3, options.Seeds.Count);
            Assert.True(pod.TerminationGracePeriodSeconds > (options.IsWorker ? options.Drain.TotalSeconds : 0));
            Assert.Equal("/healthz/live", container.LivenessProbe.HttpGet.Path);
            Assert.Equal("/healthz/ready", container.ReadinessProbe.HttpGet.Path);
            Assert.Contains(container.VolumeMounts, mount => mount.MountPath == options.Store.ToString());
            Assert.Equal(container.VolumeMounts.Select(mount => mount.Name).Order(), pod.Volumes.Select(volume => volume.Name).Order());
        }
        Assert.Equal(["api", "coordinator", "worker"], roles.Order(StringComparer.Ordinal));
        // Each coordinator is a seed under the name that its headless service gives it.
        V1StatefulSet coordinators = Assert.Single(manifests.OfType<V1StatefulSet>());
        Assert.Equal(Enumerable.Range(0, coordinators.Spec.Replicas!.Value).Select(i => $"{coordinators.Metadata.Name}-{i}.{coordinators.Spec.ServiceName}:4053"), settings["BBMR_SEED_NODES"].Split(','));
        Assert.All(manifests.OfType<V1PodDisruptionBudget>(), budget => Assert.Contains(Labels(manifests), labels => budget.Spec.Selector.MatchLabels.All(labels.Contains)));
    }

    [Fact]
    public void Compose_starts_nodes_with_settings_that_they_accept()
    {
        var roles = new List<string>();
        foreach ((string name, Dictionary<object, object> service) in Services().Where(service => service.Name != "database"))
        {
            string command = ((string)service["command"]).Replace("\"$$(hostname)\"", "0123abc", StringComparison.Ordinal);
            string[] words = command[command.IndexOf("node", StringComparison.Ordinal)..].Trim('\'').Split(' ');
            NodeOptions options = Options(words, ((Dictionary<object, object>)service["environment"]).ToDictionary(pair => (string)pair.Key, pair => (string)pair.Value, StringComparer.Ordinal));
            roles.Add(string.Join(',', options.Roles));
            Assert.True(service["stop_grace_period"] is "120s" && options.Drain < TimeSpan.FromSeconds(120), name);
            Assert.Equal(["coordinator-1:4053", "coordinator-2:4053", "coordinator-3:4053"], options.Seeds.Select(seed => seed.ToString()));
            if (options.IsCoordinator)
                Assert.Equal((name, name), (options.Name, options.Public.Host));
        }
        Assert.Equal(["api", "coordinator", "coordinator", "coordinator", "worker"], roles.Order(StringComparer.Ordinal));
    }

    /// <summary>What a node makes of a container: the image's environment, the container's, its arguments; files are where secrets are mounted.</summary>
    private NodeOptions Options(string[] arguments, IDictionary<string, string> environment)
    {
        var all = new Dictionary<string, string>(environment, StringComparer.Ordinal);
        foreach (string line in Read("deploy", "Dockerfile").Split('\n').Where(line => line.StartsWith("ENV ", StringComparison.Ordinal)))
        {
            foreach (string pair in line.Split(' ').Where(pair => pair.StartsWith("BBMR_", StringComparison.Ordinal)))
                all.TryAdd(pair.Split('=')[0], pair.Split('=')[1]);
        }
        Assert.All(all.Keys, key => Assert.Contains(NodeSettings.All, setting => setting.Variable == key));
        foreach ((string key, string value) in all.Where(pair => pair.Value.StartsWith("/run/secrets/", StringComparison.Ordinal)).ToList())
            all[key] = Path.Combine(_folder, Path.GetFileName(value));

        Assert.Equal("node", arguments[0]);
        var commandLine = new Dictionary<string, string>(StringComparer.Ordinal);
        for (int i = 1; i < arguments.Length; i += 2)
            commandLine[NodeSettings.All.First(setting => setting.Option == arguments[i]).Key] = arguments[i + 1];
        return NodeSettings.Read(commandLine, null, all.GetValueOrDefault);
    }

    private static IEnumerable<IDictionary<string, string>> Labels(List<object> manifests) =>
        manifests.OfType<V1Deployment>().Select(item => item.Spec.Template.Metadata.Labels).Concat(manifests.OfType<V1StatefulSet>().Select(item => item.Spec.Template.Metadata.Labels));
}

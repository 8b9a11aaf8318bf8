using BbmrCluster.Imaging;
using BbmrCluster.Rescaling;

namespace BbmrCluster.Work.Tests;

/// <summary>A folder of a test, with a store and helpers; everything is deleted at the end.</summary>
public sealed class Bench : IDisposable
{
    public Bench(DirectoryBlobStoreOptions? store = null, string? root = null)
    {
        Root = root ?? Directory.CreateTempSubdirectory("bbmr-stages-").FullName;
        Out = Path.Combine(Root, "out");
        Scratch = Directory.CreateDirectory(Path.Combine(Root, "scratch")).FullName;
        Store = new DirectoryBlobStore(Path.Combine(Root, "blobs"), store ?? new DirectoryBlobStoreOptions(Floor: 0));
        Runner = new StageRunner(Engines, Store, new StageRunnerOptions(Scratch));
    }

    public string Root { get; }

    public string Out { get; }

    public string Scratch { get; }

    public DirectoryBlobStore Store { get; }

    public FakeEngineFactory Engines { get; } = new();

    public StageRunner Runner { get; }

    public void Dispose()
    {
        Runner.Dispose();
        Directory.Delete(Root, recursive: true);
    }

    /// <summary>Writes a picture with smooth, busy and flat parts; the same arguments give the same one.</summary>
    public string Picture(string name, int width, int height, int channels = 3, int bitDepth = 8, ImageMetadata? metadata = null, bool opaque = false)
    {
        string path = Path.Combine(Root, name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        ImageEncoder.Encode(path, Pixels(width, height, channels, bitDepth, opaque), metadata ?? ImageMetadata.None, EncodeOptions.Default);
        return path;
    }

    public static PixelBuffer Pixels(int width, int height, int channels, int bitDepth, bool opaque = false)
    {
        var pixels = new PixelBuffer(width, height, channels, bitDepth);
        uint noise = 12345;
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                for (int c = 0; c < channels; c++)
                {
                    noise = (noise * 1664525) + 1013904223;
                    double busy = ((x / 128) + (y / 128)) % 3 == 0 ? (noise >> 24) / 255.0 : ((x / 128) + (y / 128)) % 3 == 1 ? 0.5 : 0.5 + (0.4 * Math.Sin((x + (2 * y) + (17 * c)) / 15.0));
                    bool alpha = channels is 2 or 4 && c == channels - 1;
                    double value = alpha ? opaque || x < width / 2 ? 1 : 0.25 : busy;
                    int at = (((y * width) + x) * channels) + c;
                    if (bitDepth == 8)
                        pixels.Data[at] = (byte)(value * 255);
                    else
                        pixels.Samples16[at] = (ushort)(value * 65535);
                }
            }
        }
        return pixels;
    }

    public ImageJob Job(string source, JobKind kind = JobKind.Rescale, bool measure = false, bool force = false, string format = "png", string id = "img", string? outputs = null, EngineSettings? engine = null)
    {
        OutputPaths paths = OutputNaming.Plan([source], outputs ?? Out, kind, format, recursive: false).Images.Single().Outputs;
        EngineSettings settings = engine ?? EngineSettings.Default with { Network = "fake", Scorer = "bicubic", Precision = "float32", Device = "cpu" };
        var parameters = new JobParameters { Kind = kind, Engine = settings, DeviceClass = "fake", WeightHashes = new(Engines.WeightHashes(settings)), Rate = 4, Measure = measure, Force = force };
        return new ImageJob(new ImageId(id), source, Path.GetFileName(source), paths, parameters);
    }

    public SequentialDriver Driver(ImageJob job) => new(Runner, job);

    /// <summary>Runs everything; returns the driver for a look at what came out.</summary>
    public SequentialDriver Finish(ImageJob job, int blocksPerScore = 64, int stripsPerLease = 1)
    {
        var driver = Driver(job);
        driver.BlocksPerScore = blocksPerScore;
        driver.StripsPerLease = stripsPerLease;
        driver.RunAll();
        return driver;
    }
}

namespace BbmrCluster.Cli.Commands;
using System.CommandLine; using BbmrCluster.Rescaling; using BbmrCluster.Cli.Output;
static class RescaleCommands { public static Command Rescale()=>new("rescale"); public static Command Downscale()=>new("downscale"); public static Command Upscale()=>new("upscale"); }
static class DoctorCommand { public static Command Create()=>new("doctor"); }
static class ModelsCommand { public static Command Create()=>new("models"); }
record DeepVerification(int Blocks, string? QualityKind, double? RecordedPsnrY, double? PsnrY, bool Compared, string? Problem) { public bool Ok=>true; public string Summary=>""; public static DeepVerification Run(ContainerReader r,string? s,string d,int t,Terminal x)=>throw new NotSupportedException(); }

// Compiled by MSBuild (NativeLibraries.targets), not part of the assembly.
using System;
using System.IO;
using Microsoft.Build.Framework;
using Microsoft.Build.Utilities;

/// <summary>
/// Copies an ELF shared library and marks one symbol-version requirement weak (VER_FLG_WEAK in vna_flags of the
/// Elf64_Vernaux entry whose vna_hash is VersionHash), so that the loader warns instead of refusing when the host's
/// libstdc++ does not know the version. Does nothing when the destination is already up to date.
/// </summary>
public sealed class WeakenVersionRequirement : Task
{
    private const ushort WeakFlag = 2;

    [Required] public string Source { get; set; } = "";
    [Required] public string Destination { get; set; } = "";
    [Required] public string VersionHash { get; set; } = "";

    public override bool Execute()
    {
        var written = File.GetLastWriteTimeUtc(Source);
        var existing = new FileInfo(Destination);
        if (existing.Exists && existing.LastWriteTimeUtc == written && existing.Length == new FileInfo(Source).Length)
            return true;

        byte[] elf = File.ReadAllBytes(Source);
        uint hash = Convert.ToUInt32(VersionHash, 16);
        if (!TryWeaken(elf, hash, out string problem))
        {
            Log.LogError("{0}: {1}. This build knows TorchSharp 0.107.0; another version needs NativeLibraries.targets to be looked at.", Source, problem);
            return false;
        }

        Directory.CreateDirectory(Path.GetDirectoryName(Destination)!);
        string temporary = Destination + "." + Guid.NewGuid().ToString("N") + ".tmp";
        File.WriteAllBytes(temporary, elf);
        File.SetLastWriteTimeUtc(temporary, written);
        File.Delete(Destination);
        File.Move(temporary, Destination);
        Log.LogMessage(MessageImportance.Normal, "{0}: version requirement {1} made weak", Destination, VersionHash);
        return true;
    }

    private static bool TryWeaken(byte[] elf, uint hash, out string problem)
    {
        problem = "not a little-endian 64-bit ELF file";
        if (elf.Length < 64 || elf[0] != 0x7f || elf[1] != 'E' || elf[2] != 'L' || elf[3] != 'F' || elf[4] != 2 || elf[5] != 1)
            return false;

        long sections = BitConverter.ToInt64(elf, 0x28);
        int size = BitConverter.ToUInt16(elf, 0x3a), count = BitConverter.ToUInt16(elf, 0x3c);
        problem = "its section table lies outside the file";
        if (size < 64 || sections <= 0 || sections + (long)size * count > elf.Length)
            return false;

        const uint versionNeeds = 0x6ffffffe;
        for (int s = 0; s < count; s++)
        {
            int header = checked((int)(sections + (long)s * size));
            if (BitConverter.ToUInt32(elf, header + 4) != versionNeeds)
                continue;
            long need = BitConverter.ToInt64(elf, header + 24), end = need + BitConverter.ToInt64(elf, header + 32);
            problem = "its version table lies outside the file";
            if (need < 0 || end > elf.Length)
                return false;

            problem = "its version table holds no requirement with hash 0x" + hash.ToString("x8");
            while (need + 16 <= end)
            {
                int entries = BitConverter.ToUInt16(elf, (int)need + 2);
                long auxiliary = need + BitConverter.ToUInt32(elf, (int)need + 8);
                for (int i = 0; i < entries && auxiliary + 16 <= end; i++)
                {
                    if (BitConverter.ToUInt32(elf, (int)auxiliary) == hash)
                    {
                        elf[auxiliary + 4] |= (byte)WeakFlag;
                        return true;
                    }
                    auxiliary += BitConverter.ToUInt32(elf, (int)auxiliary + 12);
                }
                uint next = BitConverter.ToUInt32(elf, (int)need + 12);
                if (next == 0)
                    return false;
                need += next;
            }
            return false;
        }
        problem = "it has no version requirements section";
        return false;
    }
}

using System.Buffers.Binary;
using System.Text;

namespace BbmrCluster.Imaging.Formats;

/// <summary>ICC profiles: whether one can be used, and profiles for colours that a file only names by numbers.</summary>
internal static class IccProfile
{
    private const int HeaderBytes = 128;

    /// <summary>
    /// Checks a profile against its own structure (ICC.1, 7.2 and 7.3) and the picture, as strictly as the pickiest writer of a format does.
    /// </summary>
    /// <param name="profile">The profile.</param>
    /// <param name="colourChannels">1 or 3.</param>
    /// <returns>Why it is of no use, as the end of a sentence; null when it is whole.</returns>
    public static string? Problem(ReadOnlySpan<byte> profile, int colourChannels)
    {
        if (profile.Length < HeaderBytes + 4)
            return "is shorter than its header";
        if (BinaryPrimitives.ReadUInt32BigEndian(profile) != profile.Length)
            return $"says that it has {BinaryPrimitives.ReadUInt32BigEndian(profile)} bytes and has {profile.Length}";
        if (!profile[36..].StartsWith("acsp"u8))
            return "has no signature";
        if (profile[8] > 3 && profile.Length % 4 != 0)
            return "has a length that is no multiple of four";
        if (BinaryPrimitives.ReadUInt32BigEndian(profile[64..]) > ushort.MaxValue)
            return "names an impossible rendering intent";
        ReadOnlySpan<byte> space = profile.Slice(16, 4);
        if (!space.SequenceEqual(colourChannels == 1 ? "GRAY"u8 : "RGB "u8))
            return $"is for {Name(space)} and the picture is {(colourChannels == 1 ? "grey" : "RGB")}";
        ReadOnlySpan<byte> kind = profile.Slice(12, 4), connection = profile.Slice(20, 4);
        if (kind.SequenceEqual("link"u8) || kind.SequenceEqual("abst"u8) || kind.SequenceEqual("nmcl"u8))
            return $"is of a kind ({Name(kind)}) that describes no picture";
        if (!connection.SequenceEqual("XYZ "u8) && !connection.SequenceEqual("Lab "u8))
            return $"leads to {Name(connection)}";
        uint tags = BinaryPrimitives.ReadUInt32BigEndian(profile[HeaderBytes..]);
        if (tags > (profile.Length - HeaderBytes - 4) / 12)
            return $"names {tags} parts, more than it holds";
        for (int i = 0; i < tags; i++)
        {
            ReadOnlySpan<byte> tag = profile.Slice(HeaderBytes + 4 + (12 * i), 12);
            if ((ulong)BinaryPrimitives.ReadUInt32BigEndian(tag[4..]) + BinaryPrimitives.ReadUInt32BigEndian(tag[8..]) > (ulong)profile.Length)
                return $"has a part ({Name(tag[..4])}) that lies outside of it";
        }
        return null;
    }

    /// <summary>Makes a profile (ICC.1:2010, version 4.3, a matrix and curves; for grey a curve). Equal colours give equal bytes.</summary>
    /// <param name="colours">Chromaticities and curve.</param>
    /// <param name="colourChannels">1 or 3.</param>
    public static byte[] Of(ColourSpace colours, int colourChannels)
    {
        double[][] matrix = ToD50(colours.Primaries, out double[][] adaptation);
        byte[] curve = Part("para", [.. U16(colours.Curve.AsSpan(1).SequenceEqual([1, 0, 0, 0]) ? 0 : 3), 0, 0,
            .. (colours.Curve.AsSpan(1).SequenceEqual([1, 0, 0, 0]) ? colours.Curve.Take(1) : colours.Curve).SelectMany(Fixed)]);
        List<(string Tag, byte[] Data)> parts =
        [
            ("desc", Text("Colours of the source")),
            ("cprt", Text("No copyright, use freely")),
            ("wtpt", Part("XYZ ", [.. Fixed(0.9642), .. Fixed(1), .. Fixed(0.8249)])),
            ("chad", Part("sf32", [.. adaptation.SelectMany(row => row).SelectMany(Fixed)])),
        ];
        if (colourChannels == 1)
        {
            parts.Add(("kTRC", curve));
        }
        else
        {
            string[] names = ["r", "g", "b"];
            for (int i = 0; i < 3; i++)
            {
                parts.Add((names[i] + "XYZ", Part("XYZ ", [.. Fixed(matrix[0][i]), .. Fixed(matrix[1][i]), .. Fixed(matrix[2][i])])));
                parts.Add((names[i] + "TRC", curve));
            }
        }
        int at = HeaderBytes + 4 + (12 * parts.Count);
        List<byte> table = [.. U32((uint)parts.Count)], data = [];
        foreach ((string tag, byte[] body) in parts)
        {
            table.AddRange([.. Encoding.ASCII.GetBytes(tag), .. U32((uint)(at + data.Count)), .. U32((uint)body.Length)]);
            data.AddRange(body);
            while (data.Count % 4 != 0)
                data.Add(0);
        }
        byte[] profile = [.. new byte[HeaderBytes], .. table, .. data];
        BinaryPrimitives.WriteUInt32BigEndian(profile, (uint)profile.Length);
        BinaryPrimitives.WriteUInt32BigEndian(profile.AsSpan(8), 0x04300000);
        "mntr"u8.CopyTo(profile.AsSpan(12));
        (colourChannels == 1 ? "GRAY"u8 : "RGB "u8).CopyTo(profile.AsSpan(16));
        "XYZ "u8.CopyTo(profile.AsSpan(20));
        // A date that is one: the profile must not depend on the clock.
        byte[] date = [.. U16(2020), .. U16(1), .. U16(1), .. U16(0), .. U16(0), .. U16(0)];
        date.CopyTo(profile.AsSpan(24));
        "acsp"u8.CopyTo(profile.AsSpan(36));
        byte[] illuminant = [.. Fixed(0.9642), .. Fixed(1), .. Fixed(0.8249)];
        illuminant.CopyTo(profile.AsSpan(68));
        return profile;
    }

    // RGB to XYZ under D50, adapted by Bradford (ICC.1, annex E).
    private static double[][] ToD50(double[] p, out double[][] adaptation)
    {
        double[] Xyz(int i) => [p[i] / p[i + 1], 1, (1 - p[i] - p[i + 1]) / p[i + 1]];
        double[] white = Xyz(6);
        double[][] columns = [Xyz(0), Xyz(2), Xyz(4)];
        double[][] primaries = [.. Enumerable.Range(0, 3).Select(row => columns.Select(c => c[row]).ToArray())];
        double[] scale = Times(Inverse(primaries), white);
        double[][] matrix = [.. primaries.Select(row => row.Select((value, i) => value * scale[i]).ToArray())];
        double[][] bradford = [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]];
        double[] from = Times(bradford, white), to = Times(bradford, [0.9642, 1, 0.8249]);
        double[][] gain = [[to[0] / from[0], 0, 0], [0, to[1] / from[1], 0], [0, 0, to[2] / from[2]]];
        adaptation = Product(Inverse(bradford), Product(gain, bradford));
        return Product(adaptation, matrix);
    }

    private static double[] Times(double[][] m, double[] v) => [.. m.Select(row => row.Zip(v, (a, b) => a * b).Sum())];

    private static double[][] Product(double[][] a, double[][] b) =>
        [.. a.Select(row => Enumerable.Range(0, 3).Select(i => row[0] * b[0][i] + row[1] * b[1][i] + row[2] * b[2][i]).ToArray())];

    private static double[][] Inverse(double[][] m)
    {
        double Minor(int r, int c)
        {
            int[] rows = [.. Enumerable.Range(0, 3).Where(i => i != r)], columns = [.. Enumerable.Range(0, 3).Where(i => i != c)];
            return (m[rows[0]][columns[0]] * m[rows[1]][columns[1]]) - (m[rows[0]][columns[1]] * m[rows[1]][columns[0]]);
        }

        double determinant = (m[0][0] * Minor(0, 0)) - (m[0][1] * Minor(0, 1)) + (m[0][2] * Minor(0, 2));
        return [.. Enumerable.Range(0, 3).Select(r => Enumerable.Range(0, 3).Select(c => ((r + c) % 2 == 0 ? 1 : -1) * Minor(c, r) / determinant).ToArray())];
    }

    private static byte[] Part(string type, byte[] body) => [.. Encoding.ASCII.GetBytes(type), 0, 0, 0, 0, .. body];

    private static byte[] Text(string text) =>
        Part("mluc", [.. U32(1), .. U32(12), .. "enUS"u8, .. U32((uint)(2 * text.Length)), .. U32(28), .. Encoding.BigEndianUnicode.GetBytes(text)]);

    private static byte[] Fixed(double value) => U32((uint)(int)Math.Round(value * 65536));

    private static byte[] U16(int value) => [(byte)(value >> 8), (byte)value];

    private static byte[] U32(uint value) => [(byte)(value >> 24), (byte)(value >> 16), (byte)(value >> 8), (byte)value];

    private static string Name(ReadOnlySpan<byte> signature) =>
        signature.ContainsAnyExceptInRange((byte)' ', (byte)'~') ? "something unknown" : $"\"{Encoding.ASCII.GetString(signature).TrimEnd()}\"";
}

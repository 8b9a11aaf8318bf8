using System.Text;
using System.Xml;
using System.Xml.Linq;

namespace BbmrCluster.Imaging.Formats;

/// <summary>XMP packets.</summary>
internal static class Xmp
{
    private static readonly XNamespace Rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", Note = "http://ns.adobe.com/xmp/note/";

    /// <summary>Joins a packet with the further one that JPEG keeps apart (XMP specification, part 3, 1.1.3.1).</summary>
    public static (byte[]? Packet, string? Note) Joined(byte[]? packet, byte[]? extension)
    {
        if (extension is null)
            return (packet, null);
        if (packet is null)
            return (extension, null);
        try
        {
            XDocument main = Parse(packet), more = Parse(extension);
            XElement into = main.Descendants(Rdf + "RDF").First();
            foreach (XElement description in into.Elements(Rdf + "Description").ToArray())
            {
                description.Attribute(Note + "HasExtendedXMP")?.Remove();
                description.Element(Note + "HasExtendedXMP")?.Remove();
                if (!description.HasElements && description.Attributes().All(a => a.IsNamespaceDeclaration || a.Name == Rdf + "about"))
                    description.Remove();
            }
            into.Add(more.Descendants(Rdf + "RDF").First().Elements());
            return (Encoding.UTF8.GetBytes(main.Root!.ToString(SaveOptions.DisableFormatting)), null);
        }
        catch (Exception e) when (e is XmlException or InvalidOperationException)
        {
            return (packet, "the second part of its XMP cannot be read; it was left out");
        }
    }

    private static XDocument Parse(byte[] packet)
    {
        using var reader = XmlReader.Create(new MemoryStream(packet), new XmlReaderSettings { DtdProcessing = DtdProcessing.Prohibit, XmlResolver = null });
        return XDocument.Load(reader);
    }
}

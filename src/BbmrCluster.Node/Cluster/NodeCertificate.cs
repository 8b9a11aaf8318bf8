using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Akka.Remote.Hosting;

namespace BbmrCluster.Node.Cluster;

/// <summary>Certificates of traffic between nodes: every node shows its own and checks the other's against the authorities.</summary>
internal static class NodeCertificate
{
    /// <summary>TLS options of the transport.</summary>
    /// <exception cref="NodeConfigurationException">A file cannot be used.</exception>
    public static SslOptions Options(NodeOptions options)
    {
        X509Certificate2 own = Load(options);
        X509Certificate2Collection? authorities = options.Authority is null ? null : Authorities(options.Authority);
        if (authorities is not null && !IsSignedBy(own, authorities))
            throw Unusable(options.Authority!, $"it holds no authority that signed {options.Certificate}, so no other node would accept it");
        return new SslOptions
        {
            X509Certificate = own,
            SuppressValidation = false,
            RequireMutualAuthentication = true,
            // Nodes are reached under many names; who they are is told by the authority that signed for them.
            ValidateCertificateHostname = false,
            CustomValidator = authorities is null ? null : (certificate, _, _, _, _) => certificate is not null && IsSignedBy(certificate, authorities),
        };
    }

    private static X509Certificate2 Load(NodeOptions options)
    {
        string path = options.Certificate!;
        try
        {
            X509Certificate2 certificate;
            if (IsPem(path))
            {
                using X509Certificate2 pem = options.CertificatePassword is null
                    ? X509Certificate2.CreateFromPemFile(path, options.Key)
                    : X509Certificate2.CreateFromEncryptedPemFile(path, options.CertificatePassword, options.Key);
                // The transport wants the key in the certificate's own store.
                certificate = X509CertificateLoader.LoadPkcs12(pem.Export(X509ContentType.Pkcs12), null);
            }
            else
            {
                certificate = X509CertificateLoader.LoadPkcs12FromFile(path, options.CertificatePassword);
            }
            if (!certificate.HasPrivateKey)
                throw Unusable(path, "it holds no private key; name the key's file as tls_key");
            if (certificate.NotAfter < DateTime.Now || certificate.NotBefore > DateTime.Now)
                throw Unusable(path, $"it is valid from {certificate.NotBefore:yyyy-MM-dd} to {certificate.NotAfter:yyyy-MM-dd} only");
            return certificate;
        }
        catch (Exception error) when (error is CryptographicException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw Unusable(path, error.Message.TrimEnd('.'));
        }
    }

    private static X509Certificate2Collection Authorities(string path)
    {
        var authorities = new X509Certificate2Collection();
        try
        {
            authorities.ImportFromPemFile(path);
        }
        catch (Exception error) when (error is CryptographicException or IOException or UnauthorizedAccessException)
        {
            throw Unusable(path, error.Message.TrimEnd('.'));
        }
        return authorities.Count > 0 ? authorities : throw Unusable(path, "it holds no certificate in PEM form");
    }

    private static bool IsSignedBy(X509Certificate2 certificate, X509Certificate2Collection authorities)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(authorities);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        return chain.Build(certificate);
    }

    private static bool IsPem(string path)
    {
        using var reader = new StreamReader(path);
        var head = new char[4096];
        int read = reader.ReadBlock(head, 0, head.Length);
        return new string(head, 0, read).Contains("-----BEGIN", StringComparison.Ordinal);
    }

    private static NodeConfigurationException Unusable(string path, string reason) => new([$"The certificate file {path} cannot be used: {reason}."]);
}

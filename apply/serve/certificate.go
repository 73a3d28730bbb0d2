package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// Validity is how long a self-made certificate is valid.
const Validity = 30 * 24 * time.Hour

// Fingerprint returns the SHA-256 of a certificate as tools print it: pairs of upper-case hex
// digits with colons between them.
func Fingerprint(cert tls.Certificate) string {
	s := sha256.Sum256(cert.Certificate[0])
	return strings.ReplaceAll(strings.ToUpper(fmt.Sprintf("% x", s[:])), " ", ":")
}

// PEM returns a certificate as it is given to those who shall trust it; its key is not in it.
func PEM(cert tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
}

// SelfMade makes a certificate for names, each a host name or an address, valid from now on
// for [Validity]. Its key exists in this process only.
func SelfMade(now time.Time, names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	// It signs itself, so whoever trusts it trusts it as an authority: for itself alone, since
	// nobody has its key once the process has ended.
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "pannier serve"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(Validity), // clocks of two machines differ
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

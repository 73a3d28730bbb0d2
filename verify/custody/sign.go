package custody

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// What our signatures are for, as "ssh-keygen -Y verify -n" wants to know: a signature that was
// made for something else says nothing here.
const (
	Namespace        = "pannier-custody" // lines of custody logs
	NamespaceReceipt = "pannier-receipt" // receipts and inventories
)

const (
	sigMagic   = "SSHSIG"
	sigVersion = 1
	sigPEM     = "SSH SIGNATURE"
	maxSig     = 32 << 10
)

// ErrSignature says that bytes are not signed as they should be.
var ErrSignature = errors.New("not a good signature")

// Key signs. Its signatures are SSH signatures (OpenSSH's PROTOCOL.sshsig), which
// "ssh-keygen -Y verify" accepts.
type Key struct{ signer ssh.Signer }

// ErrEncryptedKey says that a private key needs a passphrase, which nobody is asked for.
var ErrEncryptedKey = errors.New("the key is protected by a passphrase")

// ParseKey reads a private key as ssh-keygen writes it. Errors: [ErrEncryptedKey], and the
// parser's.
func ParseKey(data []byte) (*Key, error) {
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, ErrEncryptedKey
	}
	if err != nil {
		return nil, err
	}
	return &Key{signer}, nil
}

// Fingerprint is the key's, as ssh-keygen -l shows it.
func (k *Key) Fingerprint() string { return ssh.FingerprintSHA256(k.signer.PublicKey()) }

// sshsig is what follows the magic in a signature.
type sshsig struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// toSign is what follows the magic in the bytes that are signed.
type toSign struct {
	Namespace string
	Reserved  string
	Hash      string
	Sum       []byte
}

// Sign returns the armored signature of message, in one of our namespaces.
func (k *Key) Sign(namespace string, message []byte) ([]byte, error) {
	sum := sha512.Sum512(message)
	data := append([]byte(sigMagic), ssh.Marshal(toSign{Namespace: namespace, Hash: "sha512", Sum: sum[:]})...)
	algorithm := k.signer.PublicKey().Type()
	if algorithm == ssh.KeyAlgoRSA {
		algorithm = ssh.KeyAlgoRSASHA512 // ssh-rsa means SHA-1
	}
	signer, ok := k.signer.(ssh.AlgorithmSigner)
	if !ok {
		return nil, fmt.Errorf("a key of type %s cannot sign this", algorithm)
	}
	sig, err := signer.SignWithAlgorithm(rand.Reader, data, algorithm)
	if err != nil {
		return nil, err
	}
	blob := append([]byte(sigMagic), ssh.Marshal(sshsig{
		Version: sigVersion, PublicKey: k.signer.PublicKey().Marshal(), Namespace: namespace, Hash: "sha512", Signature: ssh.Marshal(sig),
	})...)
	return pem.EncodeToMemory(&pem.Block{Type: sigPEM, Bytes: blob}), nil
}

// Signer is whose key made a signature. Nothing says yet that anybody trusts it.
type Signer struct {
	Key         ssh.PublicKey
	Fingerprint string
	Namespace   string // that it was made in
}

// VerifySignature checks an armored signature of message, made in a namespace, and returns who
// made it. Errors wrap [ErrSignature].
func VerifySignature(namespace string, message, armored []byte) (*Signer, error) {
	fail := func(format string, args ...any) (*Signer, error) {
		return nil, fmt.Errorf("%w: %s", ErrSignature, fmt.Sprintf(format, args...))
	}
	if len(armored) > maxSig {
		return fail("longer than %d bytes", maxSig)
	}
	block, rest := pem.Decode(armored)
	if block == nil || block.Type != sigPEM || len(bytes.TrimSpace(rest)) > 0 {
		return fail("it is no SSH signature")
	}
	body, ok := bytes.CutPrefix(block.Bytes, []byte(sigMagic))
	var s sshsig
	if !ok || ssh.Unmarshal(body, &s) != nil || s.Version != sigVersion {
		return fail("it is no SSH signature of version %d", sigVersion)
	}
	if s.Namespace != namespace {
		return fail("it was made for %q, not for %q", s.Namespace, namespace)
	}
	var h crypto.Hash
	var sum []byte
	switch s.Hash {
	case "sha512":
		h = crypto.SHA512
		v := sha512.Sum512(message)
		sum = v[:]
	case "sha256":
		h = crypto.SHA256
		v := sha256.Sum256(message)
		sum = v[:]
	}
	if h == 0 {
		return fail("hash %q is not known", s.Hash)
	}
	key, err := ssh.ParsePublicKey(s.PublicKey)
	if err != nil {
		return fail("its key: %v", err)
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(s.Signature, &sig); err != nil {
		return fail("%v", err)
	}
	switch sig.Format {
	case ssh.KeyAlgoRSA, "ssh-dss": // SHA-1
		return fail("algorithm %s is not accepted", sig.Format)
	}
	data := append([]byte(sigMagic), ssh.Marshal(toSign{Namespace: s.Namespace, Reserved: s.Reserved, Hash: s.Hash, Sum: sum})...)
	if err := key.Verify(data, &sig); err != nil {
		return fail("%v", err)
	}
	return &Signer{Key: key, Fingerprint: ssh.FingerprintSHA256(key), Namespace: namespace}, nil
}

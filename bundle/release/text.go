package release

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
)

// ErrText says that a file is not the release.txt of one release.
var ErrText = errors.New("invalid release.txt")

// MaxText bounds a release.txt, in bytes. Those of 4.x have about 30 KiB.
const MaxText = 1 << 20

// Text is what a release.txt says: what "oc adm release info" printed when the release was
// published beside its clients. Nobody signs it; it is a second opinion.
type Text struct {
	Version string        // of the line Name; may be empty
	Arch    string        // of the line OS/Arch, as in tags; may be empty
	Digest  digest.Digest // of the lines Digest and Pull From, which agree
	Source  string        // the repository that Pull From names
}

// The columns of release.txt are as wide as its longest label, which changes from version to
// version.
var (
	textName   = regexp.MustCompile(`(?m)^[ \t]*Name:[ \t]+(\S+)[ \t\r]*$`)
	textArch   = regexp.MustCompile(`(?m)^[ \t]*OS/Arch:[ \t]+linux/(\S+)[ \t\r]*$`)
	textDigest = regexp.MustCompile(`(?m)^[ \t]*Digest:[ \t]+(\S+)[ \t\r]*$`)
	textPull   = regexp.MustCompile(`(?m)^Pull From:[ \t]+(\S+)[ \t\r]*$`)
)

// ParseText reads a release.txt. Both Digest and Pull From must be there, and name the same
// digest. Errors wrap [ErrText].
func ParseText(data []byte) (*Text, error) {
	if len(data) > MaxText {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrText, len(data), MaxText)
	}
	name, err := textField("Name", textName, data)
	if err != nil {
		return nil, err
	}
	arch, err := textField("OS/Arch", textArch, data)
	if err != nil {
		return nil, err
	}
	named, err := textField("Digest", textDigest, data)
	if err != nil {
		return nil, err
	}
	pull, err := textField("Pull From", textPull, data)
	if err != nil {
		return nil, err
	}
	if named == "" || pull == "" {
		return nil, fmt.Errorf("%w: the line Digest or the line Pull From is missing", ErrText)
	}
	t := &Text{Version: name, Digest: digest.Digest(named)}
	if err := content.CheckDigest(t.Digest); err != nil {
		return nil, fmt.Errorf("%w: Digest: %w", ErrText, err)
	}
	ref, err := ParseImageReference(pull)
	if err != nil {
		return nil, fmt.Errorf("%w: Pull From: %w", ErrText, err)
	}
	if ref.Digest != t.Digest {
		return nil, fmt.Errorf("%w: Digest is %s, and Pull From says %s", ErrText, t.Digest, pull)
	}
	t.Source = ref.Repository
	if a, err := NormalizeArch(arch); err == nil {
		t.Arch = a
	}
	return t, nil
}

// textField returns the value of a line, "" if there is none. A line that stands twice with
// two values is refused: which one a person reads is chance.
func textField(label string, rule *regexp.Regexp, data []byte) (string, error) {
	var value string
	for _, m := range rule.FindAllSubmatch(data, 16) {
		v := string(m[1])
		if value != "" && v != value {
			return "", fmt.Errorf("%w: %s is %q, and again %q", ErrText, label, short(value), short(v))
		}
		value = v
	}
	return value, nil
}

// short cuts a text for a message.
func short(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

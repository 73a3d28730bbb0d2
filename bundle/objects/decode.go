package objects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"
)

// ErrInvalid says that text is not what it should be: no YAML, no legal name, no registry
// and repository.
var ErrInvalid = errors.New("invalid")

// MaxDocument is the most bytes of YAML that [Decode] reads. A ConfigMap may hold 1 MiB;
// the largest manifests in release payloads, CRDs, have less than that too.
const MaxDocument = 4 << 20

// maxDocuments bounds how many documents one file may hold.
const maxDocuments = 1000

// Decode reads one YAML or JSON document into v, a pointer to a struct with json tags.
// Fields that v does not have are ignored. Of a key that stands twice the last counts, as it
// does for a cluster: the published manifest with the release keys has such a key. Errors wrap
// [ErrInvalid]. The data may be hostile: at most [MaxDocument] bytes are taken, and what
// aliases may expand to is bounded.
func Decode(data []byte, v any) error {
	if len(data) > MaxDocument {
		return fmt.Errorf("%w: a document of %d bytes, at most %d are read", ErrInvalid, len(data), MaxDocument)
	}
	raw, err := yaml.YAMLToJSON(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Documents cuts a file at its YAML document markers; documents without content are left
// out. A file without markers, JSON too, is one document. The results share data's memory.
// Errors wrap [ErrInvalid].
func Documents(data []byte) ([][]byte, error) {
	var docs [][]byte
	start, content := 0, false
	end := func(at int) {
		if content {
			docs = append(docs, data[start:at])
		}
		content = false
	}
	for at := 0; at < len(data); {
		line := data[at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		next := at + len(line)
		text := bytes.TrimRight(line, " \t\r\n")
		switch {
		case bytes.Equal(text, []byte("---")) || bytes.HasPrefix(line, []byte("--- ")):
			end(at)
			start = at
			content = len(text) > 3
		case len(text) > 0 && text[0] != '#':
			content = true
		}
		at = next
		if len(docs) > maxDocuments {
			return nil, fmt.Errorf("%w: more than %d documents in one file", ErrInvalid, maxDocuments)
		}
	}
	end(len(data))
	return docs, nil
}

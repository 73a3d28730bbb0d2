package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// maxRegistries bounds the inflated registries.conf of a machine config, in bytes.
const maxRegistries = 16 << 20

// machineConfig is the part of a MachineConfig that holds files.
type machineConfig struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		Config struct {
			Storage struct {
				Files []struct {
					Path     string `json:"path"`
					Contents struct {
						Source      string `json:"source"`
						Compression string `json:"compression"`
					} `json:"contents"`
				} `json:"files"`
			} `json:"storage"`
		} `json:"config"`
	} `json:"spec"`
}

// registries are the mirrors that a machine config brings to its nodes. A machine config
// without the file brings none.
func (m *machineConfig) registries() ([]pair, error) {
	for _, f := range m.Spec.Config.Storage.Files {
		if f.Path != registriesFile {
			continue
		}
		text, err := decodeDataURL(f.Contents.Source)
		if err == nil && (f.Contents.Compression == "gzip" || bytes.HasPrefix(text, []byte{0x1f, 0x8b})) {
			text, err = inflate(text)
		}
		if err != nil {
			return nil, fmt.Errorf("MachineConfig %s: %s: %w", m.Metadata.Name, f.Path, err)
		}
		return parseRegistries(text), nil
	}
	return nil, nil
}

// decodeDataURL reads "data:[type][;base64],content", as RFC 2397 has it.
func decodeDataURL(s string) ([]byte, error) {
	rest, ok := strings.CutPrefix(s, "data:")
	head, content, found := strings.Cut(rest, ",")
	if !ok || !found {
		return nil, errors.New("its contents are no data: URL")
	}
	plain, err := url.PathUnescape(content)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(head, ";base64") {
		return []byte(plain), nil
	}
	raw, err := base64.StdEncoding.DecodeString(plain)
	if err != nil {
		raw, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(plain, "="))
	}
	return raw, err
}

func inflate(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(z, maxRegistries+1))
	if err == nil && len(text) > maxRegistries {
		err = fmt.Errorf("more than %d bytes", maxRegistries)
	}
	return text, err
}

var registryLine = regexp.MustCompile(`^\s*(prefix|location)\s*=\s*["']([^"']*)["']`)

// parseRegistries reads the mirrors of a registries.conf as the machine-config operator
// writes it: tables [[registry]] with prefix or location, and below them
// [[registry.mirror]] with location. Everything else is passed over.
func parseRegistries(text []byte) []pair {
	var out []pair
	var prefix, location string
	var mirrors []string
	table := ""
	end := func() {
		source := location
		if prefix != "" {
			source = prefix
		}
		for _, m := range mirrors {
			out = append(out, pair{source, m})
		}
		prefix, location, mirrors = "", "", nil
	}
	for line := range strings.Lines(string(text)) {
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "[") {
			table = trimmed
			if strings.HasPrefix(table, "[[registry]]") {
				end()
			}
			continue
		}
		m := registryLine.FindStringSubmatch(line)
		switch {
		case m == nil:
		case strings.HasPrefix(table, "[[registry]]") && m[1] == "prefix":
			prefix = m[2]
		case strings.HasPrefix(table, "[[registry]]"):
			location = m[2]
		case strings.HasPrefix(table, "[[registry.mirror]]") && m[1] == "location":
			mirrors = append(mirrors, m[2])
		}
	}
	end()
	return out
}

// rendered remembers what rendered machine configs hold: they never change, and are large.
type rendered struct {
	c    *Cluster
	seen map[string]*renderedConfig
}

type renderedConfig struct {
	mirrors    []pair
	controller string // hash of the machine-config controller that rendered it
	version    string // of the release that it was rendered for; "" on older clusters
}

func (r *rendered) config(ctx context.Context, name string) (*renderedConfig, error) {
	if seen := r.seen[name]; seen != nil {
		return seen, nil
	}
	var m machineConfig
	if err := r.c.get(ctx, machineConfigs, "", name, &m); err != nil {
		return nil, err
	}
	pairs, err := m.registries()
	if err != nil {
		return nil, err
	}
	if r.seen == nil {
		r.seen = map[string]*renderedConfig{}
	}
	r.seen[name] = &renderedConfig{
		mirrors:    pairs,
		controller: m.Metadata.Annotations["machineconfiguration.openshift.io/generated-by-controller-version"],
		version:    m.Metadata.Annotations["machineconfiguration.openshift.io/release-image-version"],
	}
	return r.seen[name], nil
}

// arrival says how far mirrors have come in one pool.
type arrival struct {
	rendered bool   // the configuration that the pool asks for has them
	done     bool   // and every machine of the pool has that configuration
	lacks    []pair // what the configuration lacks
}

// arrived looks at one pool. That a pool calls itself updated means nothing before the
// configuration that it asks for is seen to hold the mirrors: right after the write it is
// still the old one.
func (r *rendered) arrived(ctx context.Context, p *pool, want []pair) (arrival, error) {
	name := p.Spec.Configuration.Name
	if name == "" {
		return arrival{lacks: want}, nil
	}
	conf, err := r.config(ctx, name)
	if isNotFound(err) { // replaced since the pool was read
		return arrival{lacks: want}, nil
	}
	if err != nil {
		return arrival{}, err
	}
	a := arrival{lacks: missing(conf.mirrors, want)}
	a.rendered = len(a.lacks) == 0
	a.done = a.rendered && p.settled()
	return a, nil
}

// wantedPairs are all mirrors that objects name, signature ConfigMaps passed over.
func wantedPairs(sets []mirrorSet) []pair {
	var out []pair
	for _, s := range sets {
		for _, p := range s.pairs() {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// maxAuthFile bounds, in bytes, an auth file.
const maxAuthFile = 4 << 20

// authEntry is one entry of an auth file, decoded.
type authEntry struct {
	raw                string // the key as written
	username, password string
	identity, registry string // identitytoken and registrytoken
}

func (e authEntry) empty() bool {
	return e.username == "" && e.password == "" && e.identity == "" && e.registry == ""
}

func (e authEntry) credential() auth.Credential {
	return auth.Credential{Username: e.username, Password: e.password, RefreshToken: e.identity, AccessToken: e.registry}
}

// authFile is an auth file with its keys brought into one form.
type authFile struct {
	name    string
	auths   map[string]authEntry
	helpers map[string]string // credHelpers
	store   string            // credsStore
}

// credentials are the auth files of a client, in the order of search.
type credentials struct {
	files    []authFile
	searched []string // every file that was looked for, for messages
	log      *slog.Logger
}

// loadCredentials reads the files. With explicit, one that is not there is an error.
func loadCredentials(files []string, explicit bool, log *slog.Logger) (*credentials, error) {
	c := &credentials{searched: files, log: log}
	for _, name := range files {
		raw, err := readBounded(name, maxAuthFile)
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) && !explicit {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAuthFile, err)
		}
		f, err := parseAuthFile(raw)
		if err != nil {
			return nil, fmt.Errorf("%w %s: %w", ErrAuthFile, name, err)
		}
		f.name = name
		c.files = append(c.files, *f)
	}
	return c, nil
}

// parseAuthFile reads the format of ~/.docker/config.json and containers-auth.json(5). Its
// errors name a key or a position, never a value.
func parseAuthFile(raw []byte) (*authFile, error) {
	var doc struct {
		Auths map[string]struct {
			Auth, Username, Password     string
			IdentityToken, RegistryToken string
		}
		CredHelpers map[string]string
		CredsStore  string
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		var syntax *json.SyntaxError
		var wrongType *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			return nil, fmt.Errorf("not JSON (at byte %d)", syntax.Offset)
		case errors.As(err, &wrongType):
			return nil, fmt.Errorf("not an auth file: a value of another type than expected (at byte %d)", wrongType.Offset)
		}
		return nil, errors.New("not JSON")
	}
	f := &authFile{auths: map[string]authEntry{}, helpers: map[string]string{}, store: doc.CredsStore}
	// Sorted and backwards, so that of two spellings of one key the plain one counts:
	// "quay.io" sorts behind "https://quay.io".
	for _, key := range slices.Sorted(maps.Keys(doc.Auths)) {
		v := doc.Auths[key]
		e := authEntry{raw: key, username: v.Username, password: v.Password, identity: v.IdentityToken, registry: v.RegistryToken}
		if v.Auth != "" {
			var err error
			if e.username, e.password, err = decodeAuth(v.Auth); err != nil {
				return nil, fmt.Errorf("entry %q: %w", clean(scrubText(key)), err)
			}
		}
		if e.identity != "" {
			e.password = "" // of a token entry it is a placeholder
		}
		k := authKey(key)
		if old, ok := f.auths[k]; ok && !old.empty() && e.empty() {
			continue
		}
		f.auths[k] = e
	}
	for _, key := range slices.Sorted(maps.Keys(doc.CredHelpers)) {
		f.helpers[authKey(key)] = doc.CredHelpers[key]
	}
	return f, nil
}

// decodeAuth splits base64 of "user:password" at the first colon.
func decodeAuth(s string) (user, password string, err error) {
	s = strings.TrimRight(strings.Join(strings.Fields(s), ""), "=")
	raw, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		if raw, err = base64.RawURLEncoding.DecodeString(s); err != nil {
			return "", "", errors.New("its auth is not base64")
		}
	}
	user, password, ok := strings.Cut(string(raw), ":")
	if !ok {
		return "", "", errors.New("its auth is not user:password in base64")
	}
	return user, strings.Trim(password, "\x00"), nil
}

// authKey brings a key of an auth file, "https://host/v1/" or "host:port/path", into the
// form that lookups use: host in lower case, path.
func authKey(key string) string {
	k := key
	hadScheme := false
	for _, scheme := range []string{"https://", "http://"} {
		if len(k) >= len(scheme) && strings.EqualFold(k[:len(scheme)], scheme) {
			k, hadScheme = k[len(scheme):], true
		}
	}
	h, path, _ := strings.Cut(k, "/")
	path = strings.Trim(path, "/")
	if (hadScheme || isDockerHub(h)) && (path == "v1" || path == "v2") {
		path = ""
	}
	h = strings.TrimSuffix(strings.ToLower(h), ":443")
	if isDockerHub(h) {
		h = "docker.io"
	}
	if path == "" {
		return h
	}
	return h + "/" + path
}

// isDockerHub reports whether a host is one of the names of Docker Hub.
func isDockerHub(h string) bool {
	switch strings.ToLower(h) {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return true
	}
	return false
}

// found is where a credential came from.
type found struct {
	file, key, helper string
}

func (f found) String() string {
	switch {
	case f.file == "":
		return "none"
	case f.helper != "":
		return fmt.Sprintf("%s, key %s, helper %s", f.file, f.key, f.helper)
	}
	return fmt.Sprintf("%s, key %s", f.file, f.key)
}

// lookup finds the credential for a repository, "host[:port]/path": of the first file that
// has a matching entry the one with the longest key, on whole segments. A zero found and no
// error is anonymous.
func (c *credentials) lookup(ctx context.Context, repository string) (auth.Credential, found, error) {
	target := authKey(repository)
	for i := range c.files {
		cred, from, err := c.lookupFile(ctx, &c.files[i], target)
		if err != nil || from.file != "" {
			return cred, from, err
		}
	}
	return auth.EmptyCredential, found{}, nil
}

func (c *credentials) lookupFile(ctx context.Context, f *authFile, target string) (auth.Credential, found, error) {
	for key := target; ; {
		if name := f.helpers[key]; name != "" {
			cred, err := askHelper(ctx, name, key)
			if err == nil {
				return cred, found{f.name, key, name}, nil
			}
			if !errors.Is(err, errNoCredential) {
				return cred, found{}, fmt.Errorf("auth file %s, key %s: %w", f.name, key, err)
			}
		}
		if e, ok := f.auths[key]; ok {
			if !e.empty() {
				return e.credential(), found{file: f.name, key: clean(scrubText(e.raw))}, nil
			}
			if f.store != "" {
				cred, err := askHelper(ctx, f.store, e.raw)
				if err == nil {
					return cred, found{f.name, clean(scrubText(e.raw)), f.store}, nil
				}
				if !errors.Is(err, errNoCredential) {
					return cred, found{}, fmt.Errorf("auth file %s, key %s: %w", f.name, clean(scrubText(e.raw)), err)
				}
			}
		}
		i := strings.LastIndexByte(key, '/')
		if i < 0 {
			break
		}
		key = key[:i]
	}
	return c.lookupStore(ctx, f, target)
}

// lookupStore asks the store that a file names for all hosts. That it is not installed is
// no error here: nothing says that it has anything for this host.
func (c *credentials) lookupStore(ctx context.Context, f *authFile, target string) (auth.Credential, found, error) {
	if f.store == "" {
		return auth.EmptyCredential, found{}, nil
	}
	server, _, _ := strings.Cut(target, "/")
	if server == "docker.io" {
		server = "https://index.docker.io/v1/"
	}
	cred, err := askHelper(ctx, f.store, server)
	switch {
	case err == nil:
		return cred, found{f.name, server, f.store}, nil
	case ctx.Err() != nil:
		return cred, found{}, ctx.Err()
	case !errors.Is(err, errNoCredential):
		c.log.Info("credential store not asked", "file", f.name, "host", server, "reason", err.Error())
	}
	return auth.EmptyCredential, found{}, nil
}

// redactUser strips the user part of an address that a user typed.
func redactUser(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return scrubText(raw)
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

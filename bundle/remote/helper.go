package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// errNoCredential is a helper that has nothing for a host.
var errNoCredential = errors.New("no credential stored")

const (
	helperTimeout = 60 * time.Second // it may ask a person for a passphrase
	maxHelper     = 64 << 10         // bytes of its answer
)

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// askHelper runs docker-credential-<name> get. What it prints is in no error: it may be the
// secret.
func askHelper(ctx context.Context, name, server string) (auth.Credential, error) {
	if !helperName.MatchString(name) {
		return auth.EmptyCredential, fmt.Errorf("credential helper %q: not a helper's name", clean(name))
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	program := "docker-credential-" + name
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.WaitDelay = time.Second
	out := &boundedBuffer{limit: maxHelper}
	cmd.Stdout = out
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return auth.EmptyCredential, fmt.Errorf("credential helper %s: %w", program, ctx.Err())
	case err != nil && strings.Contains(strings.ToLower(out.String()), "credentials not found"):
		return auth.EmptyCredential, errNoCredential
	case err != nil:
		return auth.EmptyCredential, fmt.Errorf("credential helper %s: %w", program, err)
	}
	var answer struct{ Username, Secret string }
	if json.Unmarshal(out.Bytes(), &answer) != nil {
		return auth.EmptyCredential, fmt.Errorf("credential helper %s: its answer is not JSON", program)
	}
	switch {
	case answer.Secret == "":
		return auth.EmptyCredential, errNoCredential
	case answer.Username == "<token>":
		return auth.Credential{RefreshToken: answer.Secret}, nil
	}
	return auth.Credential{Username: answer.Username, Password: answer.Secret}, nil
}

// boundedBuffer fails when more is written than its limit.
type boundedBuffer struct {
	bytes.Buffer
	limit int
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		return 0, errors.New("answer too long")
	}
	return b.Buffer.Write(p)
}

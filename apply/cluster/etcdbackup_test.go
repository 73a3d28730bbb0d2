package cluster

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"
)

// Whoever mistypes a file or a time learns how both are given.
func TestParseBackupAbsent(t *testing.T) {
	_, err := ParseBackup(t.Context(), "yesterday", time.Now())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no file yesterday") || !strings.Contains(err.Error(), "2026-01-31T15:04") {
		t.Error(err)
	}
}

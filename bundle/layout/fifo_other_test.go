//go:build !unix

package layout

import "errors"

func mkfifo(string) error { return errors.ErrUnsupported }

func readAsNobody(string) error { return errors.ErrUnsupported }

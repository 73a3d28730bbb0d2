//go:build !unix && !windows

package layout

import "errors"

func sentinelOf(error) error        { return nil }
func isNoSuchCall(error) bool       { return false }
func isUnreadable(error) bool       { return false }
func toleratedOnDir(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

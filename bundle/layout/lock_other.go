//go:build !windows && (!unix || aix || solaris)

package layout

import "errors"

func tryLock(File) (bool, error) { return false, errors.ErrUnsupported }

func (l *Layout) unlock(f File) { f.Close() }

//go:build !linux && !darwin && !windows

package layout

import "errors"

func statSpace(string) (Space, error) { return Space{}, errors.ErrUnsupported }

package content

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
)

// hostRule is the domain of the reference grammar, with or without a port, or an IPv6 address in
// brackets.
var hostRule = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:.]+\])(?::[0-9]+)?$`)

// CheckHost returns an error that says what is wrong unless s is a host, with or without a port,
// as it stands before the first slash of an image reference.
func CheckHost(s string) error {
	u, err := url.Parse("//" + s)
	if err != nil || !hostRule.MatchString(s) {
		return fmt.Errorf("%q is no host", s)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("port %s is none of 1 to 65535", port)
		}
	}
	return nil
}

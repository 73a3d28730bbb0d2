package layout

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is what /proc/self/mountinfo says of one mounted file system (proc(5)).
type mount struct {
	fstype string
	source string // as the mounter named it
}

// mountOf finds the file system with the device number dev.
func mountOf(dev uint64) (mount, bool) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mount{}, false
	}
	defer f.Close()
	return findMount(f, strconv.Itoa(int(unix.Major(dev)))+":"+strconv.Itoa(int(unix.Minor(dev))))
}

// findMount reads mountinfo up to the line of the device "major:minor".
func findMount(r io.Reader, device string) (mount, bool) {
	s := bufio.NewScanner(io.LimitReader(r, 16<<20))
	for s.Scan() {
		head, tail, ok := strings.Cut(s.Text(), " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if !ok || len(fields) < 6 || len(rest) < 2 || fields[2] != device {
			continue
		}
		return mount{fstype: rest[0], source: unescape(rest[1])}, true
	}
	return mount{}, false
}

// unescape undoes the octal escapes in which mountinfo writes blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

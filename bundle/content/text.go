package content

import (
	"fmt"
	"strings"
)

// SizeText renders a number of bytes for people, in binary units and with one decimal:
// "512 B", "1.0 GiB". Negative numbers, which stand for what could not be found out, are
// "unknown".
func SizeText(n int64) string {
	const units = "KMGTPE"
	switch {
	case n < 0:
		return "unknown"
	case n < 1024:
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1023.95 && unit < len(units)-1 { // what would be rounded up to 1024.0 is one of the next unit
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, units[unit])
}

// Plural writes a number with its noun: Plural(1, "blob", "blobs") is "1 blob".
func Plural(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Few joins names for a message, at most three of them: "a, b, c and 7 more".
func Few(names []string) string {
	if n := len(names) - fewNames; n > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:fewNames], ", "), n)
	}
	return strings.Join(names, ", ")
}

const fewNames = 3

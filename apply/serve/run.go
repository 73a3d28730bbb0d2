package serve

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"
)

const (
	headTimeout = 30 * time.Second // for the head of a request
	idleTimeout = 2 * time.Minute  // between two requests
	grace       = 10 * time.Second // for what is under way when the service ends
	maxHead     = 64 << 10         // bytes of the head of a request
)

// Run answers the requests that come in at l until ctx ends; then it lets those finish that
// are under way, for a few seconds, and closes l. That ctx ended is no error.
func Run(ctx context.Context, l net.Listener, h *Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelInfo),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := srv.Shutdown(late); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return srv.Close()
}

// Reached is how others reach a listener, as HOST:PORT: its address, or, if that stands for
// all of this machine, one of those that are routed. It is 127.0.0.1 if there is none.
func Reached(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	best := "127.0.0.1"
	all, _ := net.InterfaceAddrs() // without them only this machine itself is sure
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if best = n.IP.String(); n.IP.To4() != nil {
			break
		}
	}
	return net.JoinHostPort(best, strconv.Itoa(tcp.Port))
}

// Names are the host names and addresses by which a listener at addr can be reached from here,
// and, if it listens on all addresses of this machine, from elsewhere: for a certificate.
func Names(addr net.Addr) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return names
	}
	if !tcp.IP.IsUnspecified() {
		return append(names, tcp.IP.String())
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}
	all, _ := net.InterfaceAddrs() // without them there are fewer names, and the user's own
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !slices.Contains(names, n.IP.String()) {
			names = append(names, n.IP.String())
		}
	}
	return names
}

package cluster

import (
	"errors"
	"fmt"
	"net/http"
)

// What went wrong, for errors.Is. All but [ErrConfig], [ErrLoopback] and
// [ErrNotThere] are kinds of [ErrCluster].
var (
	// ErrCluster says that the cluster refused, cannot be reached, or is in no state to accept.
	ErrCluster = errors.New("cluster")
	// ErrConfig says that the kubeconfig is missing, unreadable or names no such context.
	ErrConfig = errors.New("kubeconfig")
	// ErrLoopback says that a mirror is named by a loopback address, which on a node is the node.
	ErrLoopback = errors.New("a loopback address names the node itself there")

	// ErrNotThere says that the registry does not hold the release yet.
	ErrNotThere = errors.New("not at the registry yet")

	ErrUnreachable = kind("the API server does not answer")
	ErrForbidden   = kind("not permitted")                        // 401 and 403 of the API server
	ErrRefused     = kind("refused")                              // any other no of the API server
	ErrForeign     = kind("not made by pannier")                  // an object in the way that is somebody else's
	ErrConflict    = kind("conflict with what the cluster has")   // mirror sets that cannot stand together
	ErrDegraded    = kind("a machine config pool is degraded")    // while a rollout was followed
	ErrStalled     = kind("nothing happened for too long")        // an operator did not take something up
	ErrGuard       = kind("the cluster is in no state to update") // a guard or check failed before the first write
	ErrPayload     = kind("the cluster refused the release")      // by its own checks, after being asked
)

// kindError is a sentinel that is an ErrCluster too.
type kindError string

func kind(s string) error { e := kindError(s); return &e }

func (e *kindError) Error() string        { return string(*e) }
func (e *kindError) Is(target error) bool { return target == ErrCluster }

// APIError is a no of the API server.
type APIError struct {
	Verb     string // get, list, create, patch, delete
	Resource string // "clusterversions.config.openshift.io/version"
	Status   int    // HTTP
	Reason   string // of the Status object, "Forbidden"
	Message  string
}

func (e *APIError) Error() string {
	s := fmt.Sprintf("%s %s: %s", e.Verb, e.Resource, e.Message)
	if e.Status == http.StatusUnauthorized {
		s += " (the credentials of the kubeconfig are unknown to the cluster or have expired)"
	}
	return s
}

// Is makes an APIError a kind of [ErrCluster], and of [ErrForbidden] or [ErrRefused].
func (e *APIError) Is(target error) bool {
	denied := e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	switch target {
	case ErrCluster:
		return true
	case ErrForbidden:
		return denied
	case ErrRefused:
		return !denied
	}
	return false
}

// status is the HTTP status of an APIError, 0 for other errors.
func status(err error) int {
	var e *APIError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

func isNotFound(err error) bool { return status(err) == http.StatusNotFound }
func isConflict(err error) bool { return status(err) == http.StatusConflict }

// transient reports whether the same request may succeed a moment later.
func transient(err error) bool {
	s := status(err)
	return errors.Is(err, ErrUnreachable) || s == http.StatusTooManyRequests || s >= 500
}

package serve

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"strconv"

	"pannier/bundle/content"
)

// apiError is an answer that is an error, as the OCI distribution-spec has them ("Error
// Codes").
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.message }

// answerTo says how an error is answered. What the source did wrong is not told in its own
// words: they name paths of this machine.
func answerTo(err error) *apiError {
	var a *apiError
	switch {
	case errors.As(err, &a):
		return a
	case errors.Is(err, content.ErrDigest), errors.Is(err, content.ErrSize), errors.Is(err, content.ErrInvalid):
		return &apiError{http.StatusInternalServerError, "UNKNOWN", "it is damaged on the drive, and is not handed out"}
	case errors.Is(err, fs.ErrNotExist):
		return &apiError{http.StatusInternalServerError, "UNKNOWN", "it is missing on the drive"}
	}
	return &apiError{http.StatusServiceUnavailable, "UNAVAILABLE", "it cannot be read from the drive"}
}

func (e *apiError) write(w http.ResponseWriter, req *http.Request) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	for _, name := range []string{"Docker-Content-Digest", "Etag", "Accept-Ranges", "Link"} {
		w.Header().Del(name)
	}
	body, _ := json.Marshal(map[string][]one{"errors": {{e.code, e.message}}}) // of strings alone
	write(w, req, e.status, "application/json", body)
}

// writeJSON answers with a document that was made here.
func writeJSON(w http.ResponseWriter, req *http.Request, mediaType string, doc any) error {
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	write(w, req, http.StatusOK, mediaType, body)
	return nil
}

// write sends body. That the client went away is nobody's fault.
func write(w http.ResponseWriter, req *http.Request, status int, mediaType string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if req.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

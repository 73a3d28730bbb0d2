package bundle

// Phases of the work, as progress shows them.
const (
	PhasePlan     = "plan"
	PhaseDownload = "download"
	PhaseClients  = "clients"
	PhaseTools    = "tools"
	PhaseFlush    = "flush"
	PhaseReadBack = "read back"
	PhaseAudit    = "audit"
	PhaseRepair   = "repair"
	PhasePush     = "push"
	PhaseCheck    = "check"
)

// Event tells how far a phase has come. All sizes are in bytes and all figures are totals
// of the phase, so that a lost event loses nothing.
type Event struct {
	Phase      string
	Item       string // what is worked on, for people; may be empty
	Done       int64  // bytes moved
	Reused     int64  // bytes that were there already and need not be moved
	Total      int64  // bytes of the whole phase, Reused included; 0 if not known
	Blobs      int    // blobs done
	TotalBlobs int
	Wait       string // what it is waiting for; empty when it is not
}

// ProgressFunc is told how far the work has come. It is called from several goroutines at
// once, as often as every buffer: it must be quick and decide itself what to show.
type ProgressFunc func(Event)

// Totals counts blobs and their bytes.
type Totals struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

# Everything a developer or a machine does to this tree. `make help` lists it.
# Only Go, git and make are needed, except for `race` (a C compiler) and `e2e` (see .ci/run).

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 5s
BENCH    ?= .
RACE     ?= ./store/... ./bundle/... ./verify/... ./apply/...
# Many tests wait for a clock and not for a core: a stalled server, a Retry-After.
PARALLEL ?= 8
# One byte, number or interruption after the other, or gigabytes: others have the same
# goroutines in a fraction of the time, and `test` has them all.
NORACE   := TestPackMemory|TestEveryByte|TestThousandPlaces|TestHostileNumbers|TestHonestFilesPass|TestPackPulledAnywhere|TestPackOneFault|TestPackInterruptedAtEveryBlob|TestPowerCut|TestRepairCutAnywhere|TestRepairFromParityCutAnywhere|TestEveryBlobDeleted|TestNeverIdle
# Tests that have a sample of their cases in `test`, and all of them in `faults`.
FAULTS := TestPowerCut|TestKilled|TestEvery|TestHostileNumbers|TestPackPulledAnywhere|TestPackOneFault|TestTwoGigabytes|TestFortyGigabytes|TestNeverIdle
PLATFORMS ?= linux/amd64 linux/arm64 linux/ppc64le linux/s390x \
             darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

# Tools and the foreign readers of the end-to-end tests are modules of their own: what they
# need never reaches the product's go.mod.
TOOL    := $(GO) tool -modfile=testdata/tools/go.mod
COMMIT   ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

.DEFAULT_GOAL := all
.PHONY: all help fmt vet lint build demo test faults race e2e readers test-cluster cluster-library cluster-command fuzz bench microbench dist tidy tidy-check clean

all: fmt vet lint build ## check the format, vet, staticcheck, build bin/pannier

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

fmt: ## fail on files that gofmt would change
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt -w these:"; echo "$$out"; exit 1; fi

# Tests that want more than Go carry a build tag, so that ./... stays free of them; they are checked here all the same.
vet: ## go vet, the tests behind build tags included
	$(GO) vet -tags e2e,cluster,faults ./...

lint: ## staticcheck, the tests behind build tags included
	$(TOOL) staticcheck -tags e2e,cluster,faults ./...

build: ## bin/pannier, static
	$(BUILD) -o bin/ ./cmd/pannier

demo: build ## the whole trip, embedded: no network, no cluster
	./bin/pannier demo

test: ## every test that needs nothing but Go
	$(GO) test -timeout 20m -parallel $(PARALLEL) ./...

faults: ## every power cut, kill, failing call and flipped byte, where test has some of each (needs /dev/fuse; some CPU-hours)
	$(GO) test -tags faults -count=1 -timeout 8h -run '$(FAULTS)' ./store ./bundle ./cmd/pannier ./verify

race: ## the tests that run things side by side, under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout 30m -skip '$(NORACE)' $(RACE)

e2e: build readers ## real registries, foreign readers, real file systems (as root on Debian; see .ci/run)
	$(GO) test -tags e2e -count=1 -timeout 20m ./cmd/e2e $(E2EFLAGS)

readers: bin/oras bin/regctl bin/conformance ## what e2e reads layouts and registries with that knows nothing of pannier

bin/oras: testdata/readers/go.mod testdata/readers/go.sum
	CGO_ENABLED=0 $(GO) -C testdata/readers build -trimpath -buildvcs=false -o ../../$@ oras.land/oras/cmd/oras

bin/regctl: testdata/readers/go.mod testdata/readers/go.sum
	CGO_ENABLED=0 $(GO) -C testdata/readers build -trimpath -buildvcs=false -o ../../$@ github.com/regclient/regclient/cmd/regctl

bin/crane: testdata/readers/go.mod testdata/readers/go.sum
	CGO_ENABLED=0 $(GO) -C testdata/readers build -trimpath -buildvcs=false -o ../../$@ github.com/google/go-containerregistry/cmd/crane

bin/conformance: testdata/readers/go.mod testdata/readers/go.sum
	CGO_ENABLED=0 $(GO) -C testdata/readers build -trimpath -buildvcs=false -o ../../$@ github.com/opencontainers/distribution-spec/conformance

test-cluster: bin/kubeplane ## apply, upgrade and preflight against a real API server (11 CPU-minutes the first time)
	$(MAKE) -j2 --output-sync=target cluster-library cluster-command

# Side by side: most of their time they wait for an API server.
cluster-library:
	$(GO) test -tags cluster -count=1 -timeout 30m ./apply/cluster/...
cluster-command:
	$(GO) test -tags cluster -count=1 -timeout 30m -parallel $(PARALLEL) -run '^TestCluster' ./cmd/pannier

# The API server is kept by its sources outside of the tree: it takes long to build, changes
# hardly ever, and is wanted by every checkout. Kubernetes takes its version from the linker.
KUBEPLANE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pannier-kubeplane
KUBEPLANE_FILES := $(wildcard testdata/kubeplane/*.go) testdata/kubeplane/go.mod testdata/kubeplane/go.sum

bin/kubeplane: $(KUBEPLANE_FILES)
	@set -e; key=$$( { $(GO) version; cat $(sort $^); } | git hash-object --stdin); kept=$(KUBEPLANE_CACHE)/$$key/kubeplane; \
	if [ ! -x "$$kept" ]; then \
		version=$$($(GO) -C testdata/kubeplane list -m -f '{{.Version}}' k8s.io/kubernetes); \
		minor=$${version#v1.}; x=k8s.io/component-base/version; \
		mkdir -p "$${kept%/*}"; echo "building kube-apiserver $$version: minutes, once"; \
		CGO_ENABLED=0 $(GO) -C testdata/kubeplane build -trimpath -buildvcs=false -o "$$kept.$$$$" \
			-ldflags "-s -w -X $$x.gitVersion=$$version -X $$x.gitMajor=1 -X $$x.gitMinor=$${minor%%.*}" .; \
		mv "$$kept.$$$$" "$$kept"; \
	fi; \
	touch "$$kept"; mkdir -p bin; ln -sf "$$kept" $@

# `go test -fuzz` takes one target of one package at a time, so they are listed first. -list
# prints the names and then the line "ok <package>".
fuzz: ## every fuzz target for FUZZTIME (default 5s; 1000x is as many inputs)
	@set -e; list=$$($(GO) test -list '^Fuzz' ./...); \
	echo "$$list" | awk '/^Fuzz/ {t[n++]=$$1} /^ok/ {for (i=0;i<n;i++) print $$2, t[i]; n=0}' | \
	while read -r pkg target; do \
		echo "fuzz $$pkg $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null || exit 1; \
	done

bench: build readers bin/crane ## pannier beside the floor and other tools (minutes, 10 GB of disk; docs/performance.md)
	$(GO) build -o bin/bench ./cmd/bench
	bin/bench $(BENCHFLAGS)

microbench: ## every Go benchmark; compare two runs with `go tool -modfile=testdata/tools/go.mod benchstat`
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

DIST ?= dist

dist: build ## for PLATFORMS, reproducible, in dist/: archives, deb and rpm, bills of materials, a container image, SHA256SUMS
	rm -rf "$(DIST)" && mkdir -p "$(DIST)"
	$(GO) -C testdata/tools run ./archive -dist "$$(realpath "$(DIST)")" -share ../../bin/pannier
	@set -e; for p in $(PLATFORMS); do \
		os=$${p%/*}; arch=$${p#*/}; exe=; [ "$$os" = windows ] && exe=.exe; \
		echo "dist $$os/$$arch"; \
		GOOS=$$os GOARCH=$$arch $(BUILD) -o "$(DIST)/$$os-$$arch/pannier$$exe" ./cmd/pannier; \
	done
	$(GO) -C testdata/packages run . -root ../.. -dist "$$(realpath "$(DIST)")" -version '$(VERSION)' -epoch "$$($(GO) -C testdata/tools run ./archive -root ../.. -epoch)"
	$(GO) -C testdata/tools run ./archive -root ../.. -dist "$$(realpath "$(DIST)")" -version '$(VERSION)'

tidy: ## go mod tidy, in every module
	$(GO) mod tidy && $(GO) -C testdata/tools mod tidy && $(GO) -C testdata/kubeplane mod tidy && $(GO) -C testdata/readers mod tidy && $(GO) -C testdata/packages mod tidy

tidy-check: ## fail where go mod tidy would change something
	$(GO) mod tidy -diff && $(GO) -C testdata/tools mod tidy -diff && $(GO) -C testdata/kubeplane mod tidy -diff && $(GO) -C testdata/readers mod tidy -diff && $(GO) -C testdata/packages mod tidy -diff

clean: ## remove what make made
	rm -rf bin dist

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestSecondInterruptEndsAtOnce(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot interrupt itself on Windows")
	}
	var errs bytes.Buffer
	c := &console{stderr: &errs}
	quit := make(chan int, 1)
	ctx, over := onSignals(context.Background(), c, func(code int) { quit <- code })
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}

	if err := self.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the first interrupt did not end the context")
	}
	if !errors.Is(context.Cause(ctx), errInterrupted) {
		t.Errorf("the cause is %v", context.Cause(ctx))
	}
	select {
	case code := <-quit:
		t.Fatalf("the first interrupt ended the program with %d", code)
	default:
	}
	if err := self.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-quit:
		if code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the second interrupt did not end the program")
	}
	over()
	if got := strings.Split(errs.String(), "\n"); len(got) != 3 || !strings.Contains(got[0], "interrupted: ending") || !strings.Contains(got[1], "interrupted again") {
		t.Errorf("%q", errs.String())
	}
}

func TestCommandLine(t *testing.T) {
	got := commandLine("pannier", "pack", "4.8.21", "/media/my usb/it's", "--keyring=a.asc", "")
	if want := `pannier pack 4.8.21 '/media/my usb/it'\''s' --keyring=a.asc ''`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	for arg0, want := range map[string]string{
		"pannier": "pannier", "/usr/local/bin/pannier": "pannier", "/usr/bin/oc-pannier": "oc pannier", "./pannier": "./pannier",
	} {
		if got := programName(arg0); got != want {
			t.Errorf("%s: %s, want %s", arg0, got, want)
		}
	}
}

func TestAsCalled(t *testing.T) {
	const text = "\"pannier audit MEDIA\", pannier --help, oc pannier pack, /usr/bin/pannier unpack, pannier is a program; pannier COMMAND"
	if got := asCalled("pannier", text); got != text {
		t.Error(got)
	}
	const want = "\"oc pannier audit MEDIA\", oc pannier --help, oc pannier pack, /usr/bin/pannier unpack, pannier is a program; oc pannier COMMAND"
	if got := asCalled("oc pannier", text); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	for arg0, name := range map[string]string{"/usr/bin/oc-pannier": "oc pannier", "kubectl-pannier": "kubectl pannier"} {
		for _, args := range [][]string{{"--help"}, {"pack", "--help"}, {"help", "audit"}, {"pack"}, {"explain", "P2014"}} {
			var out, errs bytes.Buffer
			run(t.Context(), append([]string{arg0}, args...), func(string) string { return "" }, nil, &out, &errs)
			text := out.String() + errs.String()
			if bare := strings.ReplaceAll(text, name+" ", ""); !strings.Contains(text, name+" ") || regexp.MustCompile(`pannier (pack|audit|COMMAND)`).MatchString(bare) {
				t.Errorf("%s %v:\n%s", arg0, args, text)
			}
		}
	}
}

func TestRedact(t *testing.T) {
	for word, want := range map[string]string{
		"--signature-store=http://u:secret@host/a": "--signature-store=http://u:***@host/a",
		"http://token@host/":                       "http://***@host/",
		"https://me:p@ss@host/x@y":                 "https://me:***@host/x@y",
		"https://host/sigs?token=abc&x=y#z":        "https://host/sigs?***",
		"HTTPS://u:p%40@host:8443/a?q":             "HTTPS://u:***@host:8443/a?***",
		"quay.io/a/b@sha256:0123":                  "quay.io/a/b@sha256:0123",
		"docker://quay.io/a/b@sha256:0123":         "docker://quay.io/a/b@sha256:0123",
		"quay.io=proxy.example:5000/quay":          "quay.io=proxy.example:5000/quay",
		"/media/usb/what?":                         "/media/usb/what?",
	} {
		if got := redact(word); got != want {
			t.Errorf("%s: %s, want %s", word, got, want)
		}
	}
}

//go:build e2e && linux

package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// plugins is a folder of a PATH in which the program has all its names.
func plugins(t *testing.T) string {
	t.Helper()
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"pannier", "oc-pannier", "kubectl-pannier", "kubectl_complete-pannier"} {
		if err := os.Symlink(exe, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// completed is what shells must make of a line, typed in a folder that holds the folder drive
// and the file key.asc. begun is how bash takes the line apart.
var completed = []struct {
	line, word, want string
}{
	{"pannier unp", "unp", "unpack"},
	{"oc-pannier unp", "unp", "unpack"},
	{"kubectl-pannier unp", "unp", "unpack"},
	{"pannier pack --refr", "--refr", "--refresh"},
	{"pannier --refr", "--refr", "--refresh"},
	{"pannier pack --arch s3", "s3", "s390x"},
	{"pannier pack --arch=s3", "s3", "s390x"},
	{"pannier audit dr", "dr", "drive"},
	{"pannier audit --keyring ke", "ke", "key.asc"},
	{"pannier audit --keyring=ke", "ke", "key.asc"},
	{"pannier explain P200", "P200", "P2007"},
	{"pannier completion z", "z", "zsh"},
	{"pannier man ver", "ver", "version"},
}

// shellUser stands in a folder with something to complete.
func shellUser(t *testing.T) *user {
	t.Helper()
	u := newUser(t)
	u.env = []string{"PATH=" + plugins(t) + ":" + os.Getenv("PATH"), "TERM=dumb"}
	if err := os.Mkdir(filepath.Join(u.home, "drive"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(u.home, "key.asc"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestCompletionInBash(t *testing.T) {
	bash := need(t, "bash", "bash")
	u := shellUser(t)
	// What readline does: take the line apart at its word breaks, call the function, and put
	// a reply in the place of the last part.
	const ask = `source <(pannier completion bash) || exit 9
	[[ $(complete -p "${1%% *}") == *_pannier* ]] || exit 8
	COMP_LINE=$1 COMP_POINT=${#1}
	COMP_WORDS=()
	for w in $1; do
		case $w in
		*=*) COMP_WORDS+=("${w%%=*}" = "${w#*=}") ;;
		*) COMP_WORDS+=("$w") ;;
		esac
	done
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	_pannier "${1%% *}" "${COMP_WORDS[COMP_CWORD]}"
	printf '%s\n' "${COMPREPLY[@]}"`
	for _, c := range completed {
		got := strings.Fields(string(u.must(t, bash, "--norc", "-c", ask, "bash", c.line)))
		if !slices.Contains(got, c.want) {
			t.Errorf("%s: %q, wanted %s", c.line, got, c.want)
		}
		for _, word := range got {
			if !strings.HasPrefix(word, c.word) {
				t.Errorf("%s: %q does not begin with %s", c.line, word, c.word)
			}
		}
	}
}

func TestCompletionInFish(t *testing.T) {
	fish := need(t, "fish", "fish")
	u := shellUser(t)
	for _, c := range completed {
		out := u.must(t, fish, "--no-config", "-c", "pannier completion fish | source; complete -C $argv[1]", c.line)
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			word, _, _ := strings.Cut(line, "\t")
			if _, value, joined := strings.Cut(word, "="); joined {
				word = value
			}
			got = append(got, strings.TrimSuffix(word, "/"))
		}
		if !slices.Contains(got, c.want) {
			t.Errorf("%s: %q, wanted %s", c.line, got, c.want)
		}
	}
}

// A whole interactive zsh at a terminal of its own, at which the line and a tab are typed;
// then what the line has become is asked for.
func TestCompletionInZsh(t *testing.T) {
	zsh := need(t, "zsh", "zsh")
	u := shellUser(t)
	const ask = `zmodload zsh/zpty || exit 9
	zpty shell zsh -f -i
	begin='PS1= PROMPT_EOL_MARK=; autoload -Uz compinit; compinit -u -D; source <(pannier completion zsh); zle -C tab complete-word _generic; '
	begin+='show() { print -r -- "<<$BUFFER>>" >>shown; BUFFER=; zle accept-line }; zle -N show; bindkey "^X" show; unsetopt LIST_AMBIGUOUS; setopt MENU_COMPLETE'
	zpty -w shell $begin
	zpty -w shell 'print rea''dy'
	zpty -r shell seen '*ready*' || exit 8
	for line in "$@"; do
		zpty -n -w shell "$line"$'\t'$'\x18'
	done
	for ((i = 0; i < 600; i++)); do
		[[ -e shown && $(wc -l <shown) -ge $# ]] && break
		zpty -r -t shell seen
		sleep 0.1
	done
	cat shown`
	var lines []string
	for _, c := range completed {
		lines = append(lines, c.line)
	}
	got := strings.Split(strings.TrimSpace(string(u.must(t, zsh, append([]string{"-f", "-c", ask, "zsh"}, lines...)...))), "\n")
	if len(got) != len(completed) {
		t.Fatalf("%d lines of %d were completed: %q", len(got), len(completed), got)
	}
	for i, c := range completed {
		// Of several candidates a menu takes the first; all of them begin alike.
		want := strings.TrimSuffix(c.line, c.word) + c.want
		if c.want == "P2007" {
			want = strings.TrimSuffix(c.line, c.word) + "P2001"
		}
		if text := strings.Trim(got[i], "<>"); strings.TrimRight(text, " /") != want {
			t.Errorf("%s became %q, wanted %q", c.line, text, want)
		}
	}
}

// kubectl asks a program of another name, and so does oc; its answer is in their protocol.
func TestCompletionOfPlugins(t *testing.T) {
	u := shellUser(t)
	out := string(u.must(t, filepath.Join(strings.TrimPrefix(strings.Split(u.env[0], ":")[0], "PATH="), "kubectl_complete-pannier"), "pack", "--signature-policy", ""))
	if out != "require\t\nwarn\t\n:4\n" {
		t.Errorf("%q", out)
	}
}

// Manual pages are what readers of manuals accept.
func TestManualPages(t *testing.T) {
	mandoc, man := need(t, "mandoc", "mandoc"), need(t, "man", "man-db")
	u := newUser(t)
	pages := []string{""}
	for _, line := range strings.Split(string(u.pannier(t, 0, "__complete", "man", "").stdout), "\n") {
		if name, _, found := strings.Cut(line, "\t"); found {
			pages = append(pages, name)
		}
	}
	if len(pages) < 10 {
		t.Fatalf("pages of %q only", pages)
	}
	for _, name := range pages {
		args := []string{"man"}
		if name != "" {
			args = append(args, name)
		}
		page := filepath.Join(u.home, "pannier-"+name+".1")
		if err := os.WriteFile(page, u.pannier(t, 0, args...).stdout, 0o644); err != nil {
			t.Fatal(err)
		}
		// The page has no date, so that the same program gives the same bytes.
		complaints := regexp.MustCompile(`(?m)^.*missing date.*\n`).ReplaceAll(u.run(t, mandoc, "-Tlint", "-W", "warning", page).stdout, nil)
		if len(complaints) > 0 {
			t.Errorf("%s: mandoc says\n%s", page, complaints)
		}
		if o := u.run(t, man, "--warnings", "-l", page); o.code != 0 || o.stderr != "" || !strings.Contains(string(o.stdout), "SEE ALSO") {
			t.Errorf("%s: man says %v", page, o)
		}
	}
}

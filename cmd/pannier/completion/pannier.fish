# fish completion for pannier: put it into ~/.config/fish/completions/pannier.fish, or into
# /usr/share/fish/vendor_completions.d.

function __pannier_complete
    set -l words (commandline -opc)
    set -l begun (commandline -ct)
    set -l program (string replace -r '^~' $HOME -- $words[1])
    set -l lines ($program __complete $words[2..-1] "$begun" 2>/dev/null)
    set -l directive $lines[-1]
    if test (count $lines) -gt 1
        printf '%s\n' $lines[1..-2]
        return
    end
    set -l kept (string match -r -- '^-[^=]*=' "$begun")
    set -l rest (string replace -r -- '^-[^=]*=' '' "$begun")
    switch "$directive"
        case ':16'
            printf "$kept%s\n" (__fish_complete_directories "$rest" '')
        case ':0'
            printf "$kept%s\n" (__fish_complete_path "$rest" '')
    end
end

for name in pannier oc-pannier kubectl-pannier
    complete -c $name -f -a '(__pannier_complete)'
end

#compdef pannier oc-pannier kubectl-pannier
# zsh completion for pannier: put it as _pannier into a folder of $fpath
# (/usr/share/zsh/vendor-completions), or source it after compinit.

_pannier() {
	local -a lines candidates
	local line directive=4

	lines=("${(@f)$("${(Q)~words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
	for line in "$lines[@]"; do
		case $line in
		:<->) directive=${line#:} ;;
		?*)
			# _describe wants a colon between a word and what it is.
			line=${line//:/\\:}
			candidates+=("${line/$'\t'/:}")
			;;
		esac
	done

	if (( $#candidates )); then
		_describe pannier candidates
		return
	fi
	case $directive in
	16) compset -P '-*='; _files -/ ;;
	0) compset -P '-*='; _files ;;
	esac
}

if [[ $funcstack[1] == _pannier ]]; then
	_pannier "$@"
else
	compdef _pannier pannier oc-pannier kubectl-pannier
fi

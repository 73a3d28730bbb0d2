# bash completion for pannier: source it, or put it into
# /usr/share/bash-completion/completions/pannier.

_pannier() {
	local rest=${COMP_LINE:0:COMP_POINT} word gap line directive=0 about
	local -a words=()
	local i

	# bash takes words apart at = and :, the program wants them whole.
	for ((i = 0; i <= COMP_CWORD; i++)); do
		gap=${rest%%[![:space:]]*}
		rest=${rest#"$gap"}
		word=${COMP_WORDS[i]}
		[[ ${#word} -le ${#rest} ]] || word=$rest
		rest=${rest#"$word"}
		if [[ $i -eq 0 || -n $gap ]]; then
			words+=("$word")
		else
			words[${#words[@]} - 1]+=$word
		fi
	done
	local begun=${words[${#words[@]} - 1]}

	# What stands before the last of these is not bash's to replace.
	local kept=
	case $begun in
	*[=:]*) kept=${begun%"${begun##*[=:]}"} ;;
	esac

	COMPREPLY=()
	while IFS= read -r line; do
		case $line in
		:[0-9]*) directive=${line#:} ;;
		*)
			about=${line%%$'\t'*}
			COMPREPLY+=("${about#"$kept"}")
			;;
		esac
	done < <("${words[0]/#\~/$HOME}" __complete "${words[@]:1}" 2>/dev/null)

	[[ ${#COMPREPLY[@]} -eq 0 ]] || return 0
	case $directive in
	16)
		compopt -o filenames 2>/dev/null
		while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -d -- "${begun#"$kept"}")
		;;
	0)
		compopt -o filenames 2>/dev/null
		while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "${begun#"$kept"}")
		;;
	esac
}

complete -F _pannier pannier oc-pannier kubectl-pannier

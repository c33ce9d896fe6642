package proc

import (
	"regexp"
	"strings"
)

// Mask stands where a secret was.
const Mask = "***"

// secretWords are in the names of options, variables, headers and parameters
// that carry secrets.
var secretWords = []string{"pass", "pwd", "secret", "token", "key", "cred", "auth", "signature", "cookie", "jwt", "bearer"}

var (
	secretWord  = strings.Join(secretWords, "|")
	secretFlag  = regexp.MustCompile(`(?i)^--?[a-z0-9_.-]*(` + secretWord + `)[a-z0-9_.-]*=?$`)
	secretValue = regexp.MustCompile(`(?i)([a-z0-9_.-]*(?:` + secretWord + `)[a-z0-9_.-]*["']?\s*[=:]\s*|[?&]sig=)(?:(bearer|basic|digest|token|negotiate|ntlm|apikey)\s+)?("[^"]*"|'[^']*'|[^\s&;,"']+)`)
	assignment  = regexp.MustCompile(`(?i)^((?:--?)?[a-z0-9_.-]*(?:` + secretWord + `)[a-z0-9_.-]*=).+$`)
	header      = regexp.MustCompile(`(?i)^((?:-H|--header=)?\s*[a-z0-9_-]*(?:` + secretWord + `)[a-z0-9_-]*:\s*).+$`)
	spacedFlag  = regexp.MustCompile(`(?i)(\s--?[a-z0-9_.-]*(?:` + secretWord + `)[a-z0-9_.-]*\s+)("[^"]*"|'[^']*'|[^\s-]\S*)`)
	urlUser     = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)([^/\s@:]*)(:?)([^/\s]*)@`)
	// bareUser is "user:password@host" without a scheme, as in the addresses of
	// databases.
	bareUser = regexp.MustCompile(`([^\s\x00/:=@"'(]+:)[^\s\x00/@"']+@`)
)

// clients are the programs whose options for secrets have names of one letter.
// Before an option there is a blank, or the zero between two arguments.
var clients = []struct {
	name   string // is in what option matches
	option *regexp.Regexp
}{
	{"mysql", client(`mysql[\w-]*`, `-p`)},
	{"mariadb", client(`mariadb[\w-]*`, `-p`)},
	{"mongo", client(`mongo[\w-]*`, `-p`)},
	{"sshpass", client(`sshpass`, `-p`)},
	{"redis-cli", client(`redis-cli`, `-a`)},
	{"valkey-cli", client(`valkey-cli`, `-a`)},
	{"ldap", client(`ldap\w+`, `-w`)},
	{"curl", client(`curl`, `(?:-[uU]|--user|--proxy-user)[\s\x00=]?['"]?[^\s\x00:'"]*:`)}, // the user stays
}

// client matches a secret option in a call of a program up to its value.
func client(program, option string) *regexp.Regexp {
	return regexp.MustCompile(`((?:^|[\s\x00/;&|("'])` + program + `[\s\x00](?:[^;&|]*?[\s\x00])??` + option + `[\s\x00=]?)("[^"\x00]*"|'[^'\x00]*'|[^\s\x00"']+)`)
}

// MaskArgs copies a command line with its secrets replaced by Mask: the values
// of options, variables, headers and URL parameters whose names hold pass,
// secret, token, key and the like ("--db-password x", "TOKEN=x", "?api_key=x",
// "Authorization: Bearer x"), the credentials in URLs, and what well-known
// clients take behind one letter ("mysql -px", "curl -u joe:x"). It errs on the
// side of masking too much; a secret under a name that says nothing stays.
func MaskArgs(args []string) []string {
	masked := make([]string, len(args))
	for i, arg := range args {
		if i > 0 && strings.HasPrefix(args[i-1], "-") && secretFlag.MatchString(args[i-1]) && !strings.HasPrefix(arg, "--") {
			masked[i] = Mask
			continue
		}
		if holdsSecret(arg) { // the whole rest of the argument is the value, whatever is in it
			arg = assignment.ReplaceAllString(arg, "${1}"+Mask)
			arg = header.ReplaceAllString(arg, "${1}"+Mask)
		}
		masked[i] = maskWords(arg)
	}
	if len(args) == 0 {
		return masked
	}
	// An option and its value may be two arguments. None holds a zero.
	return strings.Split(maskClients(strings.Join(masked, "\x00")), "\x00")
}

// MaskText replaces the secrets in a piece of text, such as one argument or a
// log line, as MaskArgs does.
func MaskText(text string) string { return maskClients(maskWords(text)) }

func maskClients(text string) string {
	for i := range clients {
		if strings.Contains(text, clients[i].name) {
			text = clients[i].option.ReplaceAllString(text, "${1}"+Mask)
		}
	}
	return text
}

// maskWords masks what names and the form of addresses tell.
func maskWords(text string) string {
	if strings.Contains(text, "://") {
		text = urlUser.ReplaceAllStringFunc(text, maskUser)
	}
	if strings.Contains(text, "@") {
		text = bareUser.ReplaceAllString(text, "${1}"+Mask+"@")
	}
	if !holdsSecret(text) {
		return text
	}
	text = secretValue.ReplaceAllString(text, "${1}"+Mask)
	return spacedFlag.ReplaceAllString(text, "${1}"+Mask)
}

// holdsSecret reports whether a name in text may be that of a secret. It is
// asked of every line of a log, where a regular expression costs ten times as
// much.
func holdsSecret(text string) bool {
	for i := range len(text) {
		switch text[i] | 0x20 { // lower case
		case 'p', 's', 't', 'k', 'c', 'a', 'j', 'b':
			for _, w := range secretWords {
				if len(text)-i >= len(w) && strings.EqualFold(text[i:i+len(w)], w) {
					return true
				}
			}
		}
	}
	return strings.Contains(text, "?sig=") || strings.Contains(text, "&sig=")
}

// maskUser keeps the user of "scheme://user:password@"; a user alone is often a
// token, so it goes.
func maskUser(s string) string {
	m := urlUser.FindStringSubmatch(s)
	if m[3] == "" {
		return m[1] + Mask + "@"
	}
	return m[1] + m[2] + ":" + Mask + "@"
}
